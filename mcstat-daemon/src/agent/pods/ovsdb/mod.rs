//! Pods from the Open vSwitch database, as antrea-agent describes them on the Port rows of its bridge.
//!
//! Promises: what it publishes comes from one complete reading; while the database is away, or has no such bridge, the
//! last list stays, marked as not connected. It never writes to the database.

mod join;
#[cfg(test)]
mod tests;

use std::{future::Future, io, path::Path, time::Duration};

use bytes::BytesMut;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    PodPorts,
    link::{LinkError, RouteSocket},
};
use crate::{
    agent::{backoff::Backoff, config::OvsdbConfig},
    proto::ovsdb::{Session, SessionError},
};

/// How long changes are gathered before they are published: a Pod's port comes in two or three updates, and a node that
/// starts brings hundreds of Pods.
const GATHER: Duration = Duration::from_millis(50);
/// How often the links are looked at again while something depends on them.
const RECHECK: Duration = Duration::from_secs(1);
/// Silence after which the server is asked for a sign of life, and how long it has for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Space for one read.
const READ_BYTES: usize = 64 * 1024;

/// Why this source cannot work at all.
#[derive(Debug, Error)]
pub enum OvsdbError {
    /// The node's links cannot be read.
    #[error("the node's links cannot be read: {0}; check that nothing keeps the agent from netlink sockets")]
    Links(#[from] LinkError),
}

/// Why one connection ended.
#[derive(Debug, Error)]
enum ConnectionError {
    #[error("connecting failed: {0}")]
    Connect(io::Error),
    #[error("{0}")]
    Io(io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Links(#[from] LinkError),
}

/// Publishes the Pod ports of `config.bridge` until `shutdown` completes; reconnects after 1 to 8 s.
///
/// It has to be polled in the network namespace that the switch's ifindexes belong to.
///
/// # Errors
/// [`OvsdbError`], at the start only. A database that is away is no error.
pub async fn run(
    config: OvsdbConfig,
    out: watch::Sender<PodPorts>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), OvsdbError> {
    let mut source = Source {
        links: RouteSocket::open()?,
        bridge: config.bridge,
        out,
        complaint: None,
    };
    let connections = async {
        let mut backoff = Backoff::default();
        loop {
            let error = match source.follow(&config.socket, &mut backoff).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            source.disconnected();
            let now = Instant::now();
            let retry = Instant::from_std(backoff.failed(now.into_std()));
            warn!(
                socket = %config.socket.display(),
                %error,
                retry_seconds = (retry - now).as_secs(),
                "OVSDB is away and the last list of Pods holds; is Open vSwitch running, and is source.ovsdb.socket right?"
            );
            sleep_until(retry).await;
        }
    };
    tokio::select! {
        () = shutdown => Ok(()),
        never = connections => never,
    }
}

/// What outlives a connection.
struct Source {
    links: RouteSocket,
    bridge: String,
    out: watch::Sender<PodPorts>,
    /// What was complained about last: said once, not at every update.
    complaint: Option<String>,
}

impl Source {
    /// Follows the database over one connection, until that ends.
    async fn follow(
        &mut self,
        socket: &Path,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, ConnectionError> {
        let mut stream = UnixStream::connect(socket).await.map_err(ConnectionError::Connect)?;
        let (mut input, mut output) = (BytesMut::with_capacity(READ_BYTES), BytesMut::new());
        let mut session = Session::start(&mut output);
        let mut heard = Instant::now();
        let mut probed = false;
        let mut publish_at = None;
        loop {
            let written = timeout(PATIENCE, stream.write_all_buf(&mut output)).await;
            written
                .map_err(|_| ConnectionError::Silent)?
                .map_err(ConnectionError::Io)?;
            input.reserve(READ_BYTES);
            tokio::select! {
                read = stream.read_buf(&mut input) => {
                    if read.map_err(ConnectionError::Io)? == 0 {
                        return Err(ConnectionError::Closed);
                    }
                    (heard, probed) = (Instant::now(), false);
                    let complete_before = session.store().is_some();
                    if session.receive(&mut input, &mut output)? {
                        let wait = if complete_before { GATHER } else { Duration::ZERO };
                        publish_at = Some(sooner(publish_at, Instant::now() + wait));
                    }
                    if session.store().is_some() {
                        backoff.succeeded(heard.into_std());
                    }
                }
                () = sleep_until(heard + if probed { 2 * PATIENCE } else { PATIENCE }) => {
                    if probed {
                        return Err(ConnectionError::Silent);
                    }
                    session.probe(&mut output);
                    probed = true;
                }
                () = sleep_until(publish_at.unwrap_or(heard)), if publish_at.is_some() => {
                    let recheck = self.publish(&session)?;
                    publish_at = recheck.then(|| Instant::now() + RECHECK);
                }
            }
        }
    }

    /// Publishes the session's rows. Returns whether that has to be done again though no row changes.
    fn publish(&mut self, session: &Session) -> Result<bool, LinkError> {
        let Some(store) = session.store() else { return Ok(false) };
        let Some(joined) = join::join(store, &self.bridge) else {
            let bridges = store.bridge_names().join(", ");
            self.complain(Some(format!(
                "OVSDB has no bridge {} (it has: {bridges}), the last list of Pods holds; is source.ovsdb.bridge right?",
                self.bridge
            )));
            self.disconnected();
            return Ok(false);
        };
        let nameless = joined.nameless.join(", ");
        self.complain((!nameless.is_empty()).then(|| {
            format!("container ports without pod-name, pod-namespace or container-id in external_ids: {nameless}")
        }));
        let decision = join::decide(&joined, &self.links.links()?, &self.out.borrow());
        self.out.send_if_modified(|published| {
            let changed = *published != decision.ports;
            if changed && !published.connected {
                info!(bridge = %self.bridge, pods = decision.ports.ports.len(), "following the Pods of OVSDB");
            }
            if changed {
                debug!(
                    ports = decision.ports.ports.len(),
                    uncounted = decision.ports.uncounted.len(),
                    "Pod ports changed"
                );
                *published = decision.ports;
            }
            changed
        });
        Ok(decision.recheck)
    }

    fn disconnected(&self) {
        self.out
            .send_if_modified(|published| std::mem::take(&mut published.connected));
    }

    fn complain(&mut self, complaint: Option<String>) {
        if self.complaint != complaint
            && let Some(text) = &complaint
        {
            warn!("{text}");
        }
        self.complaint = complaint;
    }
}

fn sooner(planned: Option<Instant>, new: Instant) -> Instant {
    planned.map_or(new, |planned| planned.min(new))
}
