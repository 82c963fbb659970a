//! Puts the eBPF object at `$OUT_DIR/mcstat.bpf.o`, from where the daemon embeds it.
//!
//! Without a toolchain for BPF the object is empty (length 0) and a warning names the next step: `cargo check`, clippy
//! and the tests of pure code work on any machine. A toolchain that is there and fails is an error.
//! `EBPF_OBJECT=file` embeds that file and builds nothing.

#[path = "../xtask/src/build_ebpf.rs"]
mod build_ebpf;

use std::{env, error::Error, fs, path::Path};

use build_ebpf::{Job, build, find_linker, find_toolchain, tools_dir};

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var("OUT_DIR")?;
    let object = Path::new(&out).join("mcstat.bpf.o");
    let manifest = env::var("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest)
        .parent()
        .ok_or("the manifest has no parent directory")?;
    rerun_if_changed(workspace);
    if let Some(given) = env::var_os("EBPF_OBJECT").filter(|given| !given.is_empty()) {
        println!("cargo::rerun-if-changed={}", Path::new(&given).display());
        fs::copy(&given, &object).map_err(|error| format!("EBPF_OBJECT={}: {error}", Path::new(&given).display()))?;
        return Ok(());
    }
    let endian = env::var("CARGO_CFG_TARGET_ENDIAN")?;
    // A missing file makes cargo run this script again, until it is there.
    let linker = find_linker();
    println!(
        "cargo::rerun-if-changed={}",
        linker.clone().unwrap_or(tools_dir().join("bin/bpf-linker")).display()
    );
    let (Some(linker), Some(toolchain)) = (&linker, find_toolchain(&endian)) else {
        let missing = if linker.is_none() {
            "bpf-linker"
        } else {
            "Rust toolchain for BPF"
        };
        println!("cargo::rerun-if-changed=/nonexistent/{}", missing.replace(' ', "-"));
        println!(
            "cargo::warning=no {missing}: no eBPF object is embedded and the agent will not count; run `cargo xtask setup`"
        );
        fs::write(&object, [])?;
        return Ok(());
    };
    println!(
        "cargo::rerun-if-changed={}",
        toolchain.sysroot.join("bin/rustc").display()
    );
    let job = Job {
        workspace,
        target_dir: &target_dir(Path::new(&out)).join("ebpf"),
        arch: &env::var("CARGO_CFG_TARGET_ARCH")?,
        endian: &endian,
        log: env::var_os("CARGO_FEATURE_EBPF_LOG").is_some(),
    };
    fs::copy(build(&job, &toolchain, linker)?, &object)?;
    Ok(())
}

fn rerun_if_changed(workspace: &Path) {
    for path in [
        "mcstat-ebpf/src",
        "mcstat-ebpf/Cargo.toml",
        "mcstat-common/src",
        "mcstat-common/Cargo.toml",
        "Cargo.lock",
        "xtask/src/build_ebpf.rs",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    for name in ["EBPF_OBJECT", "EBPF_TOOLCHAIN", "BPF_LINKER", "MCSTAT_TOOLS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
}

/// The target directory that holds `OUT_DIR`: cargo marks its root with `CACHEDIR.TAG`.
fn target_dir(out: &Path) -> &Path {
    out.ancestors()
        .find(|path| path.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out)
}
