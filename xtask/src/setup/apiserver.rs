//! A real kube-apiserver for the tests, built as a Go module whose versions are pinned in `xtask/kube`.
//!
//! It is wanted, not needed: without it only the tests that ask a Kubernetes API fail. Some four minutes on two cores, once
//! for each `go.sum`; Go's build cache for it (3 GB) is thrown away.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf::tools_dir,
    command::{command, find, output, run, workspace},
};

/// As in `xtask/kube/go.mod`; a test holds the two together.
pub(super) const VERSION: &str = "1.36.3";
const PACKAGE: &str = "k8s.io/kubernetes/cmd/kube-apiserver";
const WHY: &str = "the policy watchers are tested against it";

/// `$MCSTAT_KUBE_APISERVER`, or the one in the tool directory.
pub(crate) fn find_apiserver() -> Option<PathBuf> {
    let set = env::var_os("MCSTAT_KUBE_APISERVER")
        .filter(|set| !set.is_empty())
        .map(PathBuf::from);
    Some(set.unwrap_or_else(built)).filter(|path| path.is_file())
}

/// The version is part of the name: another one is built anew.
fn built() -> PathBuf {
    tools_dir().join(format!("bin/kube-apiserver-{VERSION}"))
}

/// What is missing, as a line, or nothing.
pub(super) fn missing() -> Option<String> {
    find_apiserver()
        .is_none()
        .then(|| format!("kube-apiserver {VERSION}: {WHY}"))
}

/// Builds it when it is missing; says so in one line when that cannot be done.
pub(super) fn ensure() {
    if missing().is_none() {
        return;
    }
    println!("setup: kube-apiserver {VERSION} ({WHY}; takes minutes, once)");
    if let Err(error) = build() {
        println!("setup: no kube-apiserver ({error:#}); the tests that need a Kubernetes API will fail");
    }
}

fn build() -> Result<()> {
    // Debian has it outside of PATH, and so has the archive of go.dev.
    let go = find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|path| path.is_file()));
    let Some(go) = go else {
        bail!("it is built with Go 1.26 or newer: install that");
    };
    let scratch = tools_dir().join("kube-apiserver-build");
    let variable = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let (major, minor) = VERSION.split_once('.').context("a version has a dot")?;
    let minor = minor.split('.').next().unwrap_or(minor);
    // Without these it calls itself v0.0.0, which clients judge.
    let flags = [
        "-s -w".to_owned(),
        variable("gitVersion", &format!("v{VERSION}")),
        variable("gitMajor", major),
        variable("gitMinor", minor),
        variable("gitTreeState", "clean"),
    ];
    let mut install = command(go);
    install
        .current_dir(workspace().join("xtask/kube"))
        .env("CGO_ENABLED", "0")
        .env("GOBIN", &scratch)
        .env("GOCACHE", scratch.join("cache"))
        .args(["install", "-trimpath", "-ldflags", &flags.join(" "), PACKAGE]);
    // A build that broke off leaves its cache: a second try is short.
    run(&mut install).context("go could not build it; look above")?;
    let program = scratch.join("kube-apiserver");
    let told = output(command(&program).arg("--version"))?;
    if !told.contains(VERSION) {
        bail!("it calls itself {}", told.trim());
    }
    fs::rename(&program, built()).with_context(|| format!("cannot make {}", built().display()))?;
    // Best effort: what is left there only costs disk.
    let _ = fs::remove_dir_all(&scratch);
    Ok(())
}
