//! A real kube-apiserver for the tests, built as a Go module whose versions are pinned in `xtask/kube`.
//!
//! It is wanted, not needed: without it only the tests that ask a Kubernetes API fail. Some four minutes on two cores, once
//! for each `go.sum`; Go's build cache for it (3 GB) is thrown away.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::apt::{self, Package};
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

/// The oldest Go that builds it, as in `xtask/kube/go.mod`.
const GO: (u32, u32) = (1, 26);

/// Any Go: Debian 12's is too old to build, and can fetch the one that does.
fn packages() -> Vec<Package> {
    let package = Package {
        name: "golang-go",
        why: "fetches the Go that builds kube-apiserver",
    };
    if any_go().is_none() { vec![package] } else { Vec::new() }
}

/// In PATH, or where the archive of go.dev is usually unpacked.
fn any_go() -> Option<PathBuf> {
    find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|path| path.is_file()))
}

/// Whether `go version` tells of [`GO`] or newer.
pub(super) fn is_new_enough(told: &str) -> bool {
    let version = told.split_whitespace().find_map(|word| word.strip_prefix("go1."));
    let minor = version.and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    minor.is_some_and(|minor: u32| (1, minor) >= GO)
}

/// A Go that is new enough. Toolchains are modules, so that an old Go can fetch a new one; it only leaves the programs without
/// their executable bits.
fn compiler(scratch: &Path) -> Result<PathBuf> {
    apt::ensure(packages)?;
    let any = any_go().context("there is no Go")?;
    let told = output(command(&any).env("GOTOOLCHAIN", "local").arg("version"))?;
    if is_new_enough(&told) {
        return Ok(any);
    }
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{}.{}.0.linux-{arch}", GO.0, GO.1);
    println!("setup: {module} ({} cannot build it)", told.trim());
    fs::create_dir_all(scratch)?;
    fs::write(scratch.join("go.mod"), "module toolchain\n")?;
    let mut download = command(any);
    download
        .current_dir(scratch)
        .env("GOMODCACHE", tools_dir().join("go"))
        .env("GOFLAGS", "-modcacherw")
        .args(["mod", "download", "-json", &module]);
    let told: Value = serde_json::from_str(&output(&mut download)?)?;
    let root = PathBuf::from(
        told["Dir"]
            .as_str()
            .context("go does not say where it put the toolchain")?,
    );
    for programs in ["bin".to_owned(), format!("pkg/tool/linux_{arch}")] {
        for program in fs::read_dir(root.join(&programs)).with_context(|| format!("{module} has no {programs}"))? {
            fs::set_permissions(program?.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(root.join("bin/go"))
}

fn build() -> Result<()> {
    let scratch = tools_dir().join("kube-apiserver-build");
    let go = compiler(&scratch)?;
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
        .env("GOTOOLCHAIN", "local")
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
