//! `cargo xtask setup`: what the other tasks need, installed once, outside the checkout.
//!
//! It promises: a second run changes nothing; each thing installed is announced in one line with its reason; packages
//! come through the package managers' own clients. It starts no service and removes no package.

mod apiserver;
pub(crate) mod apt;
mod kubectl;
mod linker;
#[cfg(test)]
mod tests;

use std::{error::Error, fmt, fs};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf::{Toolchain, find_toolchain, tools_dir},
    command::{cargo, command, find, run as run_command},
};

pub(crate) use apiserver::find_apiserver;
pub(crate) use kubectl::find_kubectl;

/// The eBPF byte order of the machines that xtask runs on.
pub(crate) const ENDIAN: &str = if cfg!(target_endian = "big") { "big" } else { "little" };

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing: print what is missing, and exit 1 if anything is
    #[arg(long)]
    check: bool,
}

/// This machine must be prepared by hand; the text says how.
#[derive(Debug)]
pub(crate) struct ByHand(String);

impl fmt::Display for ByHand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Error for ByHand {}

/// `cargo xtask setup`.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.check {
        return ensure_for_tests();
    }
    let mut missing: Vec<String> = apt::missing()
        .iter()
        .map(|package| format!("{}: {}", package.name, package.why))
        .collect();
    missing.extend(linker::missing());
    missing.extend(kubectl::missing());
    missing.extend(apiserver::missing());
    missing.extend(
        components_missing()
            .iter()
            .map(|component| format!("{component}: {COMPONENT_WHY}")),
    );
    if missing.is_empty() {
        println!("setup: nothing is missing");
        return Ok(());
    }
    for line in &missing {
        println!("missing  {line}");
    }
    bail!(
        "{} of the things mcstat is built and tested with are missing; run `cargo xtask setup`",
        missing.len()
    )
}

/// Installs what is missing. Quiet when nothing is.
pub(crate) fn ensure() -> Result<()> {
    apt::ensure(apt::missing)?;
    let bin = tools_dir().join("bin");
    fs::create_dir_all(&bin).with_context(|| {
        format!(
            "cannot make {}; set MCSTAT_TOOLS to a directory of yours",
            bin.display()
        )
    })?;
    linker::ensure()?;
    kubectl::ensure();
    components()
}

/// The same, and what only tests need and takes minutes to build.
pub(crate) fn ensure_for_tests() -> Result<()> {
    ensure()?;
    apiserver::ensure();
    Ok(())
}

/// The toolchain for the eBPF object, or what to do about it.
pub(crate) fn toolchain() -> Result<Toolchain> {
    find_toolchain(ENDIAN).context("no Rust toolchain for BPF was found; run `cargo xtask setup`")
}

const COMPONENT_WHY: &str = "`cargo xtask ci` checks formatting and lints";

fn components_missing() -> Vec<&'static str> {
    let works = |program: &str| {
        command(program)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")]
        .into_iter()
        .filter_map(|(component, program)| (!works(program)).then_some(component))
        .collect()
}

/// rustfmt and clippy: only `ci` needs them, so a machine without them gets a line and not an error.
fn components() -> Result<()> {
    for component in components_missing() {
        println!("setup: {component} ({COMPONENT_WHY})");
        if find("rustup").is_none() || run_command(command("rustup").args(["component", "add", component])).is_err() {
            println!("setup: {component} could not be had; `cargo xtask ci` will fail without it, all else works");
        }
    }
    Ok(())
}

/// Installs a cargo program of one exact version into the tool directory.
pub(crate) fn cargo_install(name: &str, version: &str, prepare: impl FnOnce(&mut std::process::Command)) -> Result<()> {
    let mut install = cargo();
    install
        .args([
            "install",
            "--locked",
            "--quiet",
            "--force",
            "--version",
            version,
            name,
            "--root",
        ])
        .arg(tools_dir());
    // A target directory that stays makes a second try after a broken download short; cargo-install's own is thrown away.
    install.env("CARGO_TARGET_DIR", tools_dir().join("build"));
    prepare(&mut install);
    let result = run_command(&mut install);
    // Best effort: what is left there only costs disk.
    let _ = fs::remove_dir_all(tools_dir().join("build"));
    result.with_context(|| format!("{name} {version} could not be installed; check the network and run it again"))
}
