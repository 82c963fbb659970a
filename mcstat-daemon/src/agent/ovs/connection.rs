//! One OpenFlow connection: a [`Session`] and its socket; and a [`Line`], which has one whenever it can.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tracing::{debug, info, warn};

use super::{OvsError, Reconnect, State};
use crate::proto::openflow::{Answer, Request, Session, Version};

/// Space for one read: the longest message.
const READ_BYTES: usize = 64 * 1024;
/// Requests on their way at once. Open vSwitch stops reading from a client that leaves 100 replies unread.
const BATCH: usize = 32;

/// What is kept of a switch for one purpose: a connection when there is one, and else when to try again.
#[derive(Debug)]
pub(super) struct Line {
    socket: PathBuf,
    /// What is read by it, for the log.
    what: &'static str,
    pub(super) reconnect: Reconnect,
    /// Out of its place while it is asked: a future that is dropped must not leave half a reply behind.
    connection: Option<Connection>,
}

impl Line {
    /// A line to `socket`; nothing is opened yet.
    pub(super) fn new(socket: PathBuf, what: &'static str) -> Self {
        Self {
            socket,
            what,
            reconnect: Reconnect::default(),
            connection: None,
        }
    }

    /// Connects when there is no connection and it is due. Returns whether it is a new one.
    pub(super) async fn open(&mut self) -> Result<bool, OvsError> {
        if self.connection.is_some() {
            return Ok(false);
        }
        if let Some(retry) = self.reconnect.wait(Instant::now()) {
            return Err(OvsError::Away { retry });
        }
        self.connection = Some(Connection::open(&self.socket, Version::V15).await?);
        self.reconnect.connected(Instant::now());
        info!(socket = %self.socket.display(), what = self.what, "reading the switch");
        Ok(true)
    }

    /// Asks over the connection that [`open`](Self::open) made.
    pub(super) async fn ask(&mut self, requests: &[Request], answered: impl FnMut(Answer)) -> Result<(), OvsError> {
        let mut connection = self.connection.take().ok_or(OvsError::Closed)?;
        connection.ask(requests, answered).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Gives the connection up after `error` and plans the next one; one that was not due yet changes nothing.
    pub(super) fn lost(&mut self, error: &OvsError) {
        if matches!(error, OvsError::Away { .. }) {
            return;
        }
        self.connection = None;
        let now = Instant::now();
        let known = matches!(self.reconnect.state(), State::Away { .. });
        let retry_seconds = (self.reconnect.lost(now) - now).as_secs();
        if known {
            debug!(%error, what = self.what, retry_seconds, "the switch is still away");
        } else {
            warn!(%error, what = self.what, retry_seconds, "the switch is away and its last state holds");
        }
    }
}

/// A greeted connection without a request on its way.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    session: Session,
    input: BytesMut,
    output: BytesMut,
}

impl Connection {
    /// Connects and greets.
    pub(super) async fn open(socket: &Path, version: Version) -> Result<Self, OvsError> {
        let stream = UnixStream::connect(socket).await.map_err(|source| OvsError::Connect {
            path: socket.to_owned(),
            source,
        })?;
        let mut output = BytesMut::new();
        let session = Session::start(version, &mut output);
        let mut connection = Self {
            stream,
            session,
            input: BytesMut::with_capacity(READ_BYTES),
            output,
        };
        while !connection.session.ready() {
            connection.exchange(|_| ()).await?;
        }
        Ok(connection)
    }

    /// Sends many requests at once and hands every answer on, in the order of the requests.
    pub(super) async fn ask(&mut self, requests: &[Request], mut answered: impl FnMut(Answer)) -> Result<(), OvsError> {
        for batch in requests.chunks(BATCH) {
            for request in batch {
                self.session.request(*request, &mut self.output)?;
            }
            while self.session.waiting() > 0 {
                self.exchange(&mut answered).await?;
            }
        }
        Ok(())
    }

    /// Sends what there is to send, and reads once.
    async fn exchange(&mut self, mut answered: impl FnMut(Answer)) -> Result<(), OvsError> {
        self.stream.write_all_buf(&mut self.output).await?;
        self.input.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err(OvsError::Closed);
        }
        while let Some(answer) = self.session.receive(&mut self.input, &mut self.output)? {
            answered(answer);
        }
        Ok(())
    }
}
