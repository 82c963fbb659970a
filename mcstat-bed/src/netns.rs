//! Named network namespaces, and programs inside them.
//!
//! A program enters by `setns` between fork and exec. `ip netns exec` would also remount `/sys`, and a bpffs below it
//! would be gone.

use std::{
    fs::File,
    io, mem,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command},
    sync::{Arc, LazyLock, mpsc},
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::command::{command, line, output, sh};

/// A network namespace of this process, removed when the last handle to it is dropped.
#[derive(Clone)]
pub struct Netns(Arc<Named>);

struct Named {
    name: String,
    fd: OwnedFd,
}

impl Netns {
    /// Makes the namespace, with `lo` up.
    pub fn new(name: String) -> Result<Self> {
        sh(&format!("ip netns add {name}"))?;
        let path = PathBuf::from("/run/netns").join(&name);
        let netns = match File::open(&path) {
            Ok(file) => Self(Arc::new(Named { name, fd: file.into() })),
            Err(error) => {
                let _ = sh(&format!("ip netns del {name}"));
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// `ip …` inside, words without quoting.
    pub fn ip(&self, words: &str) -> Result<String> {
        self.output(command("ip").args(words.split_whitespace()))
    }

    /// Makes `command` start in this namespace, in a process group of its own: Ctrl-C is for this process, which then
    /// stops everything in order.
    fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let fd = self.0.fd.as_raw_fd();
        command.process_group(0);
        // SAFETY: setns and prctl are system calls that allocate nothing, so they may run between fork and exec. The
        // descriptor is open as long as `self`, and a child has its own copy.
        unsafe {
            command.pre_exec(move || {
                // A killed test or xtask takes its programs with it.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::setns(fd, libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            })
        }
    }

    /// Runs `command` inside and returns its standard output.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        output(self.enter(command))
    }

    /// Starts `command` inside. It ends with this process at the latest. The command is used up.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let line = line(command);
        self.enter(command);
        let spent = Command::new(command.get_program());
        spawn_kept(mem::replace(command, spent)).with_context(|| format!("cannot start {line}"))
    }

    /// Runs `inside` on a thread of this namespace, and waits for it.
    pub fn within<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| scope.spawn(|| self.enter_here().and_then(|()| inside())).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread into this namespace, for good.
    pub fn enter_here(&self) -> Result<()> {
        setns(&self.0.fd, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.name()))
    }
}

/// Starts a program from a thread that never ends: `PR_SET_PDEATHSIG` means the thread, not the process, and the thread
/// of a test may end before what it has started.
fn spawn_kept(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static KEEPER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Nobody waits any more only if that thread has panicked.
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, started) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts programs is gone");
    KEEPER
        .send((command, answer))
        .map_err(|_| io::Error::other("the thread that starts programs is gone"))?;
    started.recv().map_err(gone)?
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("ip netns del {}", self.name)) {
            eprintln!("left behind: {error:#}");
        }
    }
}
