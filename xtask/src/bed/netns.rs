//! Named network namespaces, and programs inside them.
//!
//! A program enters by `setns` between fork and exec. `ip netns exec` would also remount `/sys`, and a bpffs below it
//! would be gone.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command},
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::command::{command, line, output, sh};

/// A network namespace of this process, removed on drop.
pub(crate) struct Netns {
    name: String,
    fd: OwnedFd,
}

impl Netns {
    /// Makes the namespace, with `lo` up.
    pub(crate) fn new(name: String) -> Result<Self> {
        sh(&format!("ip netns add {name}"))?;
        let path = PathBuf::from("/run/netns").join(&name);
        let netns = match File::open(&path) {
            Ok(file) => Self { name, fd: file.into() },
            Err(error) => {
                let _ = sh(&format!("ip netns del {name}"));
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The name, as `ip netns` shows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `ip …` inside, words without quoting.
    pub(crate) fn ip(&self, words: &str) -> Result<String> {
        self.output(command("ip").args(words.split_whitespace()))
    }

    /// Makes `command` start in this namespace, in a process group of its own: Ctrl-C is for xtask, which then stops
    /// everything in order.
    pub(crate) fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let fd = self.fd.as_raw_fd();
        command.process_group(0);
        // SAFETY: setns and prctl are system calls that allocate nothing, so they may run between fork and exec. The
        // descriptor is open as long as `self`, and a child has its own copy.
        unsafe {
            command.pre_exec(move || {
                // A killed xtask takes its programs with it.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::setns(fd, libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            })
        }
    }

    /// Runs `command` inside and returns its standard output.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        output(self.enter(command))
    }

    /// Starts `command` inside.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enter(command)
            .spawn()
            .with_context(|| format!("cannot start {}", line(command)))
    }

    /// Runs `inside` on a thread of this namespace.
    pub(crate) fn within<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.name))?;
            inside()
        };
        thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("ip netns del {}", self.name)) {
            eprintln!("left behind: {error:#}");
        }
    }
}
