//! Loading: what the verifier reads, and how long it takes.

use aya::programs::SchedClassifier;
use mcstat::agent::bpf::maps;

use crate::{
    Scale,
    stats::{Series, last_cpu, wall_ns},
    support::{self, Bpffs},
};

const PROGRAMS: [&str; 3] = ["mcstat_outbound", "mcstat_inbound", "mcstat_clock"];

/// Measures and prints goal 9.
pub(crate) fn run(scale: Scale) {
    support::pin_to(last_cpu());
    let mut instructions = [0; PROGRAMS.len()];
    let mut programs = PROGRAMS.map(|_| Series::default());
    let mut object = Series::default();
    let mut total = Series::default();
    for _ in 0..scale.rounds {
        let bpffs = Bpffs::new();
        let started = wall_ns();
        let mut loaded = maps::load(&bpffs.options()).unwrap_or_else(|error| panic!("{error}"));
        object.0.push((wall_ns() - started) as f64 / 1e6);
        for (at, name) in PROGRAMS.iter().enumerate() {
            let before = wall_ns();
            let program: &mut SchedClassifier = loaded.ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
            programs[at].0.push((wall_ns() - before) as f64 / 1e6);
            let info = program.info().unwrap();
            instructions[at] = info
                .verified_instruction_count()
                .expect("this kernel does not report verified instructions (5.16 and newer do)");
        }
        total.0.push((wall_ns() - started) as f64 / 1e6);
    }
    println!("\n## Loading (ms of wall time, min–med–max)\n");
    println!("| what | verified instructions | ms |");
    println!("|---|---:|---:|");
    println!("| object: parse, BTF, nine maps, pins | – | {} |", object.spread(1));
    for (at, name) in PROGRAMS.iter().enumerate() {
        println!("| {name} | {} | {} |", instructions[at], programs[at].spread(1));
    }
    println!("| all | {} | {} |", instructions.iter().sum::<u32>(), total.spread(1));
}
