//! The one routine that builds the eBPF object, for `build.rs` of the daemon (by `#[path]`) and for xtask.
//!
//! It promises: standard library only, no network, an object for the byte order asked for, always in release.
//! It does not install anything (`cargo xtask setup` does) and does not know what is in the object.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A Rust toolchain that can build for the BPF targets.
pub(crate) struct Toolchain {
    /// Holds `bin/rustc`, `bin/cargo` and `lib/rustlib`.
    pub(crate) sysroot: PathBuf,
    /// There is no prebuilt `core`, but its source: `-Zbuild-std=core`.
    pub(crate) build_std: bool,
}

/// What to build, and where.
pub(crate) struct Job<'a> {
    /// The workspace root.
    pub(crate) workspace: &'a Path,
    /// A target directory of its own: the parent cargo holds the lock of the other one.
    pub(crate) target_dir: &'a Path,
    /// Architecture of the kernel (`x86_64`), for the layout of register contexts.
    pub(crate) arch: &'a str,
    /// `little` or `big`.
    pub(crate) endian: &'a str,
    /// Debug messages in the slow path (feature `log` of mcstat-ebpf).
    pub(crate) log: bool,
}

/// `$MCSTAT_TOOLS`, else `$XDG_CACHE_HOME/mcstat/tools`, else `~/.cache/mcstat/tools`: outside any checkout.
pub(crate) fn tools_dir() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache"));
    set("MCSTAT_TOOLS").unwrap_or_else(|| cache().join("mcstat/tools"))
}

/// bpf-linker from `$BPF_LINKER`, the tool directory, `PATH` or cargo's bin directory.
pub(crate) fn find_linker() -> Option<PathBuf> {
    if let Some(set) = env::var_os("BPF_LINKER") {
        return Some(PathBuf::from(set)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    std::iter::once(tools_dir().join("bin"))
        .chain(env::split_paths(&path))
        .chain([cargo_home.join("bin")])
        .map(|dir| dir.join("bpf-linker"))
        .find(|path| path.is_file())
}

/// The first toolchain that fits: `$EBPF_TOOLCHAIN` (a sysroot or a rustup name), rustup's nightly and stable, the system's.
pub(crate) fn find_toolchain(endian: &str) -> Option<Toolchain> {
    let home = |name: &str| env::var_os(name).map(PathBuf::from);
    let rustup = home("RUSTUP_HOME").unwrap_or_else(|| home("HOME").unwrap_or_default().join(".rustup"));
    let set = env::var("EBPF_TOOLCHAIN").ok().filter(|set| !set.is_empty());
    choose(set.as_deref(), &rustup.join("toolchains"), Path::new("/usr"), endian)
}

/// [`find_toolchain`] of what is given: the person's choice, rustup's directory of toolchains, the system's sysroot.
pub(crate) fn choose(set: Option<&str>, rustup: &Path, system: &Path, endian: &str) -> Option<Toolchain> {
    // There may be several of one channel, and only one of them with the source of `core`.
    let installed = |name: &str| {
        let entries = fs::read_dir(rustup).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    };
    let candidates = match set {
        Some(set) if Path::new(set).is_dir() => vec![PathBuf::from(set)],
        Some(set) => installed(set),
        None => [installed("nightly-"), installed("stable-"), vec![system.to_owned()]].concat(),
    };
    candidates.into_iter().find_map(|sysroot| fits(sysroot, endian))
}

fn fits(sysroot: PathBuf, endian: &str) -> Option<Toolchain> {
    let rustlib = sysroot.join("lib/rustlib");
    let prebuilt = rustlib.join(target(endian)).join("lib").is_dir();
    let source = rustlib.join("src/rust/library/Cargo.lock").is_file();
    let compiler = sysroot.join("bin/rustc").is_file() && sysroot.join("bin/cargo").is_file();
    (compiler && (prebuilt || source)).then_some(Toolchain {
        sysroot,
        build_std: !prebuilt,
    })
}

fn target(endian: &str) -> &'static str {
    if endian == "big" {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}

/// Builds the shipped object and returns its path. The compiler's own messages go to stderr.
pub(crate) fn build(job: &Job<'_>, toolchain: &Toolchain, linker: &Path) -> Result<PathBuf, String> {
    build_bin(job, toolchain, linker, "mcstat-ebpf", job.log.then_some("log"))
}

/// Builds one object of mcstat-ebpf, with at most one of its features.
pub(crate) fn build_bin(
    job: &Job<'_>,
    toolchain: &Toolchain,
    linker: &Path,
    bin: &str,
    feature: Option<&str>,
) -> Result<PathBuf, String> {
    let target = target(job.endian);
    // v3 has the 64-bit compare-and-exchange; misaligned loads keep a header read one instruction (the kernel's verifier
    // allows them on packets); debug info is what bpf-linker makes BTF from.
    let flags = [
        &format!("--cfg=bpf_target_arch=\"{}\"", job.arch),
        "-Ctarget-cpu=v3",
        "-Ctarget-feature=+allows-misaligned-mem-access",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ];
    let mut cargo = Command::new(toolchain.sysroot.join("bin/cargo"));
    cargo
        .current_dir(job.workspace)
        .args(["build", "--locked", "--release", "--package=mcstat-ebpf", "--bin", bin]);
    cargo
        .arg("--target")
        .arg(target)
        .arg("--target-dir")
        .arg(job.target_dir);
    cargo
        .args(feature.map(|feature| format!("--features={feature}")))
        .args(toolchain.build_std.then_some("-Zbuild-std=core"));
    // What the parent cargo, rustup or the person set for the host must not leak into this build.
    for name in env::vars_os().filter_map(|(name, _)| name.into_string().ok()) {
        let leaks = [
            "RUSTC",
            "RUSTDOC",
            "RUSTUP_TOOLCHAIN",
            "CARGO_TARGET",
            "CARGO_BUILD",
            "CARGO_PROFILE",
            "CARGO_FEATURE",
            // Incremental code is cut into other units, and what LLVM makes of those the verifier refuses.
            "CARGO_INCREMENTAL",
        ];
        if leaks.iter().any(|leak| name.starts_with(leak)) || name == "RUSTFLAGS" || name == "CARGO" {
            cargo.env_remove(name);
        }
    }
    cargo
        .env("RUSTC", toolchain.sysroot.join("bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    // The workspace's release profile is for the daemon: bpf-linker does its own LTO and needs the debug info.
    cargo
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    cargo.env(
        format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_")),
        linker,
    );
    let status = cargo
        .status()
        .map_err(|error| format!("cannot run {:?}: {error}", cargo.get_program()))?;
    let object = job.target_dir.join(target).join("release").join(bin);
    if status.success() {
        Ok(object)
    } else {
        Err(format!("the eBPF build failed ({status}), linker {}", linker.display()))
    }
}
