//! `build`, `build-ebpf` and `test`.

use anyhow::{Context, Result};

use crate::{
    build_ebpf::{Job, build as build_object, find_linker},
    command::{cargo, run, target_dir, workspace},
    setup::{self, ENDIAN, find_apiserver, find_kubectl},
};

/// Options of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub(crate) struct TestArgs {
    /// Passed to `cargo test` in place of `--workspace`, such as `-p mcstat-daemon --lib ledger`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// The release daemon, with the eBPF object inside.
pub(crate) fn build() -> Result<()> {
    run(cargo().args(["build", "--release", "--locked", "--package=mcstat-daemon"]))
}

/// The eBPF object alone.
pub(crate) fn build_ebpf() -> Result<()> {
    let linker = find_linker().context("no bpf-linker was found; run `cargo xtask setup`")?;
    let target_dir = target_dir().join("ebpf");
    let arch = std::env::consts::ARCH;
    let job = Job {
        workspace: workspace(),
        target_dir: &target_dir,
        arch,
        endian: ENDIAN,
        log: false,
    };
    let object = build_object(&job, &setup::toolchain()?, &linker).map_err(anyhow::Error::msg)?;
    println!("{}", object.display());
    Ok(())
}

/// Everything there is to test. cargo's own output, closing lines included, goes to the terminal as it is.
pub(crate) fn test(args: &TestArgs) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--locked"]);
    if args.args.is_empty() {
        setup::ensure_for_tests()?;
        test.args(["--workspace", "--no-fail-fast"]);
    } else {
        // Not every choice of tests is worth minutes of building.
        setup::ensure()?;
        test.args(&args.args);
    }
    if let Some(kubectl) = find_kubectl() {
        test.env("MCSTAT_KUBECTL", kubectl);
    }
    if let Some(apiserver) = find_apiserver() {
        test.env("MCSTAT_KUBE_APISERVER", apiserver);
    }
    run(&mut test)
}

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// `--quick`, and the parts to run: those of the packet path (hot, control, policy, cold, cores, veth, reading, load), switch, membership
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Parts that are benchmarks of their own: reading a switch next to `ovs-ofctl`; memberships, which needs no root.
const OWN_BENCHES: [&str; 2] = ["switch", "membership"];

/// The benchmarks. Without parts all of them, the A/B benchmark of the packet path first.
pub(crate) fn bench(args: &BenchArgs) -> Result<()> {
    setup::ensure()?;
    let words = args.args.iter().map(String::as_str);
    let (flags, parts): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('-'));
    let (own, packet): (Vec<&str>, Vec<&str>) = parts.iter().partition(|part| OWN_BENCHES.contains(part));
    if parts.is_empty() || !packet.is_empty() {
        bench_target("packet", &[flags.as_slice(), packet.as_slice()].concat())?;
    }
    let mut wanted = OWN_BENCHES.iter().filter(|name| parts.is_empty() || own.contains(name));
    wanted.try_for_each(|name| bench_target(name, &flags))
}

fn bench_target(name: &str, args: &[&str]) -> Result<()> {
    let mut bench = cargo();
    bench
        .args(["bench", "--locked", "-p", "mcstat-daemon", "--bench", name, "--"])
        .args(args);
    run(&mut bench)
}
