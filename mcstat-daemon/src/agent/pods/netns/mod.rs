//! Pods from named network namespaces: each file under a directory such as `/run/netns` is one, by the naming rule in
//! `docs/pods.md`. For nodes without Open vSwitch, for labs and for demonstrations.
//!
//! A thread of its own looks twice a second at the directory and at the node's own links, which costs one directory
//! listing and one netlink dump. It enters the namespaces when that has changed, and every second regardless, because a
//! change of addresses inside shows nowhere else (7 ms for 110 Pods, in a debug build). There is no inotify here: a
//! namespace's file appears before the namespace is mounted over it, and a veth that is moved in later touches no file.

mod assign;
mod name;
mod scan;

use std::{
    future::Future,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

pub use name::pod_of;
pub use scan::ScanError;
use scan::{Outline, Scanner};

use super::PodPorts;
use crate::agent::config::NetnsConfig;

/// How often the directory and the node's own links are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the namespaces are entered though nothing seems to have changed.
const ENTER: Duration = Duration::from_secs(1);

/// Why this source ended.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The thread could not be started.
    #[error("the thread that reads network namespaces cannot be started: {0}; check the limits on tasks")]
    Thread(io::Error),
    /// The agent's own namespace cannot be read, or the way back to it is lost.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The thread panicked.
    #[error("the thread that reads network namespaces died; restart the agent and report this")]
    Died,
}

/// Publishes the Pods found in `config.directory` until `shutdown` completes, or until this future is dropped.
///
/// The network namespace of the thread that first polls it is the agent's own: it holds the host sides.
///
/// # Errors
/// [`NetnsError`]; a directory or namespace that cannot be read is no error: the last list holds and a log line says why.
pub async fn run(
    config: NetnsConfig,
    out: watch::Sender<PodPorts>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NetnsError> {
    // Dropping the sender ends the thread, whichever way this future ends.
    let (stop, stopped) = sync_channel::<()>(0);
    let (done, outcome) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns-scan".to_owned())
        .spawn(move || {
            let result = follow(config, &out, &stopped);
            // Nobody listens any more when the future was dropped.
            let _ = done.send(result);
        })
        .map_err(NetnsError::Thread)?;
    tokio::select! {
        () = shutdown => {
            drop(stop);
            Ok(())
        }
        outcome = outcome => Ok(outcome.map_err(|_| NetnsError::Died)??),
    }
}

/// The thread's life.
fn follow(config: NetnsConfig, out: &watch::Sender<PodPorts>, stopped: &Receiver<()>) -> Result<(), ScanError> {
    let directory = config.directory.clone();
    let mut scanner = Scanner::new(config)?;
    let mut last: Option<(Outline, Instant)> = None;
    let mut complaints = Vec::new();
    loop {
        match look(&mut scanner, &mut last, out) {
            Ok(None) => {}
            Ok(Some(new)) => complain(&mut complaints, new),
            Err(error @ ScanError::Stranded(_)) => return Err(error),
            Err(error) => {
                out.send_if_modified(|published| std::mem::take(&mut published.connected));
                last = None;
                complain(&mut complaints, vec![format!("the last list of Pods holds: {error}")]);
            }
        }
        match stopped.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => {
                debug!(directory = %directory.display(), "no longer following network namespaces");
                return Ok(());
            }
        }
    }
}

/// One look; returns the complaints of a full reading, or `None` where there was no need for one.
fn look(
    scanner: &mut Scanner,
    last: &mut Option<(Outline, Instant)>,
    out: &watch::Sender<PodPorts>,
) -> Result<Option<Vec<String>>, ScanError> {
    let outline = scanner.outline()?;
    let now = Instant::now();
    if last
        .as_ref()
        .is_some_and(|(known, entered)| *known == outline && now.duration_since(*entered) < ENTER)
    {
        return Ok(None);
    }
    let reading = scanner.scan(&outline)?;
    let mut complaints = reading.failures;
    if !outline.directory {
        complaints.push("source.netns.directory does not exist (yet): no Pods".to_owned());
    }
    *last = Some((outline, now));
    publish(reading.ports, out);
    Ok(Some(complaints))
}

fn publish(ports: PodPorts, out: &watch::Sender<PodPorts>) {
    out.send_if_modified(|published| {
        let changed = *published != ports;
        if changed && !published.connected {
            info!(
                interfaces = ports.ports.len(),
                "following the Pods of named network namespaces"
            );
        }
        if changed {
            debug!(
                ports = ports.ports.len(),
                uncounted = ports.uncounted.len(),
                "Pod ports changed"
            );
            *published = ports;
        }
        changed
    });
}

/// Says each complaint when it begins, not at every look.
fn complain(known: &mut Vec<String>, new: Vec<String>) {
    new.iter()
        .filter(|text| !known.contains(text))
        .for_each(|text| warn!("{text}"));
    *known = new;
}
