//! `cargo xtask ci`: every check, cheapest first, stopping at the first that fails.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::{
    build_ebpf::tools_dir,
    command::{cargo, command, output, run as run_command, workspace},
    setup, tasks,
};

const DENY: &str = "0.20.2";

type Stage = (&'static str, fn() -> Result<()>);

const STAGES: &[Stage] = &[
    ("setup", setup::ensure_for_tests),
    ("fmt", || run_command(cargo().args(["fmt", "--all", "--check"]))),
    ("clippy", || {
        run_command(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    ("build", tasks::build),
    ("test", || tasks::test(&tasks::TestArgs::default())),
    ("doc", doc),
    ("deny", deny),
    ("fuzz", fuzz),
];

/// `cargo xtask ci`.
pub(crate) fn run() -> Result<()> {
    let mut seconds = Vec::new();
    let result = STAGES.iter().try_for_each(|(name, stage)| {
        let start = Instant::now();
        let result = stage().with_context(|| format!("the stage `{name}` failed"));
        let took = start.elapsed().as_secs_f64();
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("ci: {name} {word}, {took:.1} s");
        seconds.push((name, word, took));
        result
    });
    println!("\n{:<8} {:<6} {:>8}", "STAGE", "RESULT", "SECONDS");
    for (name, word, took) in &seconds {
        println!("{name:<8} {word:<6} {took:>8.1}");
    }
    println!(
        "{:<8} {:<6} {:>8.1}",
        "total",
        "",
        seconds.iter().map(|(_, _, took)| took).sum::<f64>()
    );
    result
}

fn doc() -> Result<()> {
    let mut doc = cargo();
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run_command(doc.args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
        "--quiet",
    ]))
}

/// Licences, sources and duplicates. Advisories need a database from the network, and CI must not depend on its state.
fn deny() -> Result<()> {
    let program = tools_dir().join("bin/cargo-deny");
    let installed = output(command(&program).arg("--version")).is_ok_and(|version| version.contains(DENY));
    if !installed {
        println!("ci: cargo-deny {DENY} (checks licences, sources and duplicates; takes minutes, once)");
        setup::cargo_install("cargo-deny", DENY, |_| ())?;
    }
    let check = [
        "--workspace",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ];
    run_command(command(&program).current_dir(workspace()).args(check))
}

/// The fuzz targets live outside the workspace, so that nothing else has to build libFuzzer.
fn fuzz() -> Result<()> {
    let manifest = workspace().join("fuzz/Cargo.toml");
    if !manifest.exists() {
        println!("ci: there are no fuzz targets yet");
        return Ok(());
    }
    run_command(cargo().args(["check", "--locked", "--manifest-path"]).arg(manifest))
}
