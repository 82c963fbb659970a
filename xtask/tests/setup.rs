//! `cargo xtask setup` where it may not install: it says exactly what is missing and why, installs nothing and exits 2.
//!
//! Needs root, to become nobody and to put another os-release over this one in a mount namespace. What is made to be
//! missing is the toolchain for BPF.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

const NOBODY: u32 = 65_534;

/// What must be on standard error, whole lines.
const WANTED: [&str; 5] = [
    "error: this machine needs, and only root on Debian 12 or newer can have it installed from here:",
    "  cargo-web                the cargo of that rustc",
    "  rustc-web                a rustc with the BPF targets",
    "on Debian, as root:  apt-get install -y --no-install-recommends cargo-web libstd-rust-web-dev-bpf rustc-web",
    "elsewhere, for the three Rust packages:  rustup toolchain install nightly --component rust-src",
];

/// A copy of xtask that everybody may run: the checkout may lie where only root may go.
fn everybodys_xtask(dir: &Path) -> PathBuf {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    let xtask = dir.join("xtask");
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &xtask).expect("there is room for a copy of xtask");
    xtask
}

/// Runs with no toolchain for BPF; everything else that `setup` looks for is there.
fn without_toolchain(command: &mut Command) -> Output {
    command
        .env("EBPF_TOOLCHAIN", "/nonexistent")
        .env("MCSTAT_KUBECTL", "/bin/true")
        .env("MCSTAT_TOOLS", "/nonexistent");
    command.output().expect("the command starts")
}

fn assert_by_hand(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "exit code; it said: {said}");
    for line in WANTED {
        assert!(said.lines().any(|have| have == line), "no line {line:?} in: {said}");
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing was begun");
}

#[test]
fn who_is_not_root_is_told_what_to_install() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut setup = Command::new(everybodys_xtask(dir.path()));
    setup.arg("setup").current_dir("/").uid(NOBODY).gid(NOBODY);
    assert_by_hand(&without_toolchain(&mut setup));
}

#[test]
fn root_elsewhere_than_on_debian_is_told_what_to_install() {
    let dir = tempfile::tempdir().expect("a directory");
    let os_release = dir.path().join("os-release");
    fs::write(&os_release, "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=24.04\n").expect("the directory is ours");
    let mut setup = Command::new("unshare");
    setup.args([
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$1\" /etc/os-release && exec \"$0\" setup",
    ]);
    setup.arg(everybodys_xtask(dir.path())).arg(os_release);
    assert_by_hand(&without_toolchain(&mut setup));
}

#[test]
fn check_lists_what_is_missing_and_exits_1() {
    let mut setup = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = without_toolchain(setup.args(["setup", "--check"]));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    for package in ["cargo-web", "libstd-rust-web-dev-bpf", "rustc-web"] {
        let line = format!("missing  {package}: ");
        assert!(
            said.lines().any(|have| have.starts_with(&line)),
            "no {package} in: {said}"
        );
    }
    assert!(
        !said.contains("openvswitch-switch"),
        "what is there is not missing: {said}"
    );
}
