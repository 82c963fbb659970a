//! Long-running programs of the bed: logged to a file, stopped by pid, never by name.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{netns::Netns, signal};

/// A program that runs until it is stopped.
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in `netns`, its output in the file `log`.
    pub fn start(name: &'static str, netns: &Netns, command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = netns.spawn(command)?;
        Ok(Self { name, child, log })
    }

    /// Asks `ready` until it has something; a program that ends meanwhile is an error with the end of its log.
    pub fn wait_for<T>(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let waited = signal::wait_for(what, limit, || {
            self.check()?;
            Ok(ready())
        });
        // One that ended has said so, with its last words.
        waited.map_err(|error| {
            let interrupted = error.is::<signal::Interrupted>() || self.check().is_err();
            if interrupted {
                error
            } else {
                error.context(self.says("is not ready"))
            }
        })
    }

    /// An error once it has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!(self.says(&format!("ended ({status})"))),
            None => Ok(()),
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it by SIGKILL: it gets no chance to tidy up.
    pub fn kill(mut self) {
        // Either fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn says(&self, what: &str) -> String {
        format!("{} {what}; its last words:\n{}", self.name, self.last_words())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(10))
            .map(|line| format!("  {line}\n"))
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child that was not waited for keeps its pid, so this can only meet our own.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
