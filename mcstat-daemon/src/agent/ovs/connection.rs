//! One OpenFlow connection: a [`Session`] and its socket.

use std::path::Path;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::OvsError;
use crate::proto::openflow::{Answer, Request, Session, Version};

/// Space for one read: the longest message.
const READ_BYTES: usize = 64 * 1024;

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

    /// Sends all requests at once and hands every answer on, in the order in which they are complete.
    pub(super) async fn ask(&mut self, requests: &[Request], mut answered: impl FnMut(Answer)) -> Result<(), OvsError> {
        for request in requests {
            self.session.request(*request, &mut self.output)?;
        }
        while self.session.waiting() > 0 {
            self.exchange(&mut answered).await?;
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
