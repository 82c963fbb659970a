//! `cargo xtask`: everything a person or CI types in this repository.
//!
//! Exit codes: 0 done, 1 failed, 2 this machine must be prepared by hand (what to install has been printed) or wrong
//! usage, 130 interrupted.

mod build_ebpf;
mod ci;
mod command;
mod demo;
mod kernel_matrix;
mod setup;
mod tasks;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mcstat_bed as bed;

/// Build, test and show mcstat.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing: Debian packages, bpf-linker, kubectl
    Setup(setup::Args),
    /// Build the daemon in release, the eBPF object inside
    Build,
    /// Build only the eBPF object and print its path
    BuildEbpf,
    /// Set up, then run every test, kernel tests included (as root)
    Test(tasks::TestArgs),
    /// Set up, build, run the main job on real multicast and check every number
    Demo(demo::Args),
    /// Measure the programs against an empty one and a per-CPU hash, and reading a switch against ovs-ofctl (as root)
    Bench(tasks::BenchArgs),
    /// Run the kernel tests on Debian's older kernels under QEMU; CI does not
    KernelMatrix(kernel_matrix::Args),
    /// Every check of CI, cheapest first, with the seconds of each
    Ci,
    /// The demo's bed and traffic without mcstat
    #[command(hide = true)]
    Bed(demo::Args),
    /// Send or receive multicast inside a network namespace (for whoever looks at a demo that is kept)
    #[command(subcommand, hide = true)]
    Traffic(traffic::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Build => tasks::build(),
        Task::BuildEbpf => tasks::build_ebpf(),
        Task::Test(args) => tasks::test(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Bed(args) => demo::run_bed(&args),
        Task::Bench(args) => tasks::bench(&args),
        Task::KernelMatrix(args) => kernel_matrix::run(&args),
        Task::Ci => ci::run(),
        Task::Traffic(command) => traffic::run(&command),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.is::<bed::signal::Interrupted>() {
        eprintln!("{error}");
        return ExitCode::from(130);
    }
    eprintln!("error: {error:#}");
    if error.is::<setup::ByHand>() {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}
