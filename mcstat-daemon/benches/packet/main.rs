//! The A/B benchmark: what mcstat costs a packet, against an empty program and against the same work with a per-CPU
//! hash. `docs/performance.md` says how to read it.
//!
//! Promises: everything is measured in one run, interleaved, with an empty program twice as control; afterwards every
//! counter must equal what was sent, else it panics and the run has no result. It needs root, makes its own network
//! namespaces and BPF file system and leaves nothing behind. It does not judge times: the reader does.
//!
//! `--quick` (or `MCSTAT_BENCH_QUICK=1`) runs everything once or twice and small: a check of the work, not of times.
#![allow(clippy::unwrap_used, reason = "as in tests: a broken run must end with what broke")]

#[path = "../../../xtask/src/build_ebpf.rs"]
#[expect(dead_code, reason = "build.rs uses the rest")]
mod build_ebpf;
mod cold;
mod control;
mod cores;
mod hot;
mod load;
mod objects;
mod policy;
#[path = "../../tests/policy_lab/mod.rs"]
mod policy_lab;
mod reading;
mod stats;
#[path = "../../tests/support/mod.rs"]
mod support;
mod veth;

use std::{env, process::ExitCode};

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    /// Rounds of every comparison.
    rounds: usize,
    /// Repeats of a test run.
    repeat: u32,
    /// Packets of a burst over veth.
    burst: usize,
    /// Readings of a table.
    readings: usize,
}

const FULL: Scale = Scale {
    rounds: 9,
    repeat: 1_000_000,
    burst: 200_000,
    readings: 41,
};
const QUICK: Scale = Scale {
    rounds: 2,
    repeat: 20_000,
    burst: 5_000,
    readings: 3,
};

/// A part by its name.
type Part = (&'static str, fn(Scale));

/// All parts, in the order in which they run.
const PARTS: [Part; 8] = [
    ("hot", hot::run),
    ("control", control::run),
    ("policy", policy::run),
    ("cold", cold::run),
    ("cores", cores::run),
    ("veth", veth::run),
    ("reading", reading::run),
    ("load", load::run),
];

const USAGE: &str = "usage: cargo bench -p mcstat-daemon --bench packet -- [--quick] [PART…]
parts: hot, control, policy, cold, cores, veth, reading, load; all of them when none is named";

fn main() -> ExitCode {
    let mut scale = FULL;
    if env::var_os("MCSTAT_BENCH_QUICK").is_some_and(|set| set == "1") {
        scale = QUICK;
    }
    let mut wanted = Vec::new();
    for argument in env::args().skip(1) {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--quick" => scale = QUICK,
            name if PARTS.iter().any(|(part, _)| *part == name) => wanted.push(argument),
            other => {
                eprintln!("unknown argument {other:?}\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the benchmark loads eBPF programs and makes network namespaces: run it as root");
        return ExitCode::from(2);
    }
    println!("{}", stats::machine());
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part(scale);
        }
    }
    println!("\nEvery counter was equal to what was sent.");
    ExitCode::SUCCESS
}
