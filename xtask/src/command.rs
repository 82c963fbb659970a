//! Running other programs: one place that names the program and its output when it fails.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
pub(crate) use mcstat_bed::command::{line, output};

use crate::build_ebpf::tools_dir;

/// The workspace root.
pub(crate) fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The target directory of the workspace.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |set| workspace().join(set))
}

/// `PATH` with mcstat's own tools first and the system's administration programs last.
///
/// `/usr/sbin` is not in the `PATH` of every login, and `ovs-vswitchd`, `bpftool` and `ethtool` are there.
pub(crate) fn path() -> OsString {
    let set = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(tools_dir().join("bin")).chain(env::split_paths(&set));
    let dirs = dirs.chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(dirs).unwrap_or(set)
}

/// Where `program` is, by [`path`].
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&path())
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// A command with [`path`].
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", path());
    command
}

/// The cargo that runs this xtask.
pub(crate) fn cargo() -> Command {
    let mut command = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Runs with the terminal's own output; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}
