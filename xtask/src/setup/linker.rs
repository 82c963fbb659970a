//! bpf-linker: found and checked against the compiler's LLVM, or built.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{ENDIAN, cargo_install, toolchain};
use crate::{
    build_ebpf::{find_linker, find_toolchain, tools_dir},
    command::{command, output},
};

const VERSION: &str = "0.13.0";
/// The LLVM releases that this bpf-linker can be built against.
const LLVM: std::ops::RangeInclusive<u32> = 19..=23;
const WHY: &str = "links the eBPF object";

/// What is missing, as a line, or nothing.
pub(super) fn missing() -> Option<String> {
    let fits = match find_toolchain(ENDIAN) {
        Some(toolchain) => llvm_major(&toolchain.sysroot).is_ok_and(usable),
        None => find_linker().is_some(),
    };
    (!fits).then(|| format!("bpf-linker {VERSION}: {WHY}"))
}

/// Builds bpf-linker when there is none, or none that knows the compiler's LLVM.
pub(super) fn ensure() -> Result<()> {
    let toolchain = toolchain()?;
    let major = llvm_major(&toolchain.sysroot)?;
    if usable(major) {
        return Ok(());
    }
    if !LLVM.contains(&major) {
        bail!(
            "{} uses LLVM {major} and bpf-linker {VERSION} knows {LLVM:?}; set EBPF_TOOLCHAIN to another toolchain",
            toolchain.sysroot.display()
        );
    }
    println!("setup: bpf-linker {VERSION} for LLVM {major} ({WHY}; about a minute)");
    let prefix = tools_dir().join("llvm");
    link_llvm(&llvm_library(&toolchain.sysroot, major)?, &prefix.join("lib"))?;
    cargo_install("bpf-linker", VERSION, |install| {
        install
            .args(["--no-default-features", "--features"])
            .arg(format!("llvm-{major}"))
            .env("LLVM_PREFIX", &prefix);
    })?;
    if !usable(major) {
        let found = find_linker().unwrap_or_default();
        bail!(
            "{} stands before the bpf-linker just built and does not fit LLVM {major}; unset BPF_LINKER",
            found.display()
        );
    }
    Ok(())
}

/// Whether the linker that the build would take starts, and its LLVM is not older than the compiler's.
fn usable(major: u32) -> bool {
    let Some(linker) = find_linker() else { return false };
    let Ok(version) = output(command(&linker).arg("--version")) else {
        return false;
    };
    // Older releases lack flags that the build passes.
    let release: Vec<u32> = version
        .split(['.', ' ', '\n'])
        .filter_map(|word| word.parse().ok())
        .collect();
    if release < vec![0, 13] {
        return false;
    }
    // Statically linked ones name no library: then the person who chose it vouches for it.
    let libraries = output(command("ldd").arg(&linker)).unwrap_or_default();
    let linked = libraries.split("libLLVM").nth(1).and_then(first_number);
    linked.is_none_or(|linked| linked >= major)
}

fn first_number(text: &str) -> Option<u32> {
    let digits = text.trim_start_matches(|character: char| !character.is_ascii_digit());
    digits
        .split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// LLVM's major version, as the compiler tells it.
fn llvm_major(sysroot: &Path) -> Result<u32> {
    let rustc = sysroot.join("bin/rustc");
    let said = output(command(&rustc).arg("-vV"))?;
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    version
        .and_then(first_number)
        .with_context(|| format!("{} -vV names no LLVM version", rustc.display()))
}

/// The LLVM library that the compiler itself uses: rustup's lies beside it, Debian's in the multiarch directory.
fn llvm_library(sysroot: &Path, major: u32) -> Result<PathBuf> {
    let multiarch = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let prefix = format!("libLLVM.so.{major}");
    let entries = |dir: PathBuf| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    [sysroot.join("lib"), multiarch, PathBuf::from("/usr/lib64")]
        .into_iter()
        .flat_map(entries)
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .with_context(|| {
            format!(
                "{prefix} was not found beside {} or in /usr/lib; install libllvm{major}",
                sysroot.display()
            )
        })
}

/// A prefix with nothing but that library in it: under the name the linker asks for, and under the one the loader does.
fn link_llvm(library: &Path, lib: &Path) -> Result<()> {
    fs::create_dir_all(lib)?;
    for name in [Some("libLLVM.so".as_ref()), library.file_name()].into_iter().flatten() {
        let link = lib.join(name);
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(library, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::first_number;

    #[test]
    fn reads_the_major_version_of_either_spelling() {
        assert_eq!(first_number("22.1.8"), Some(22));
        assert_eq!(first_number(".so.22.1-rust-1.97.0-nightly => /x"), Some(22));
        assert_eq!(first_number("-23.so"), Some(23));
        assert_eq!(first_number("none"), None);
    }
}
