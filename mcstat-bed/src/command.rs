//! Running other programs: one place that names the program and its output when it fails.

use std::{
    env,
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// A command with a `PATH` that ends in the system's administration programs: `/usr/sbin` is not in the `PATH` of every
/// login, and `ovs-vswitchd` and `ethtool` are there.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let set = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&set).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    command.env("PATH", env::join_paths(dirs).unwrap_or(set));
    command
}

/// Runs quietly and returns standard output; on failure the error holds standard error.
pub fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// [`output`] of a command given as one line of words without quoting.
pub fn sh(words: &str) -> Result<String> {
    let mut words = words.split_whitespace();
    output(command(words.next().unwrap_or_default()).args(words))
}

/// The command as a person would type it, without the environment.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
