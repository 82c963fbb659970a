//! The control socket of ovs-vswitchd, by the JSON-RPC that `ovs-appctl` speaks: the groups that a bridge learned by its
//! own IGMP and MLD snooping, and the request to push counters.
//!
//! `mdb/show` and `revalidator/wait` are the only questions asked there; neither changes what the switch does.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::BytesMut;
use serde_json::Value;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use crate::proto::{
    mdb::{self, Mdb, MdbError},
    ovsdb::{DecodeError, FrameError, Framer, Message},
};

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer: 10,000 groups are under 1 MB.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Why there is no snooping table.
#[derive(Debug, Error)]
pub enum SnoopingError {
    /// The pid file or the control socket.
    #[error("{}: {source}; is ovs-vswitchd running?", path.display())]
    Io {
        /// The file or socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pid file holds something else.
    #[error("{} holds no process id", path.display())]
    Pid {
        /// The file.
        path: PathBuf,
    },
    /// The switch closed the connection.
    #[error("ovs-vswitchd closed the control connection")]
    Closed,
    /// No answer.
    #[error("no answer from ovs-vswitchd within {} s", PATIENCE.as_secs())]
    Silent,
    /// The switch says no: the bridge does not exist, or does not snoop.
    #[error("ovs-vswitchd: {0}")]
    Refused(String),
    /// What came is no stream of JSON texts.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came is no JSON-RPC.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The table cannot be understood.
    #[error(transparent)]
    Table(#[from] MdbError),
}

/// Path of ovs-vswitchd's control socket: it carries the process id that the pid file beside it holds.
///
/// # Errors
/// [`SnoopingError::Io`], [`SnoopingError::Pid`].
pub fn control_socket(run_dir: &Path) -> Result<PathBuf, SnoopingError> {
    let path = run_dir.join("ovs-vswitchd.pid");
    let text = std::fs::read_to_string(&path).map_err(|source| SnoopingError::Io {
        path: path.clone(),
        source,
    })?;
    let pid: u32 = text.trim().parse().map_err(|_| SnoopingError::Pid { path })?;
    Ok(run_dir.join(format!("ovs-vswitchd.{pid}.ctl")))
}

/// The snooping table of `bridge`.
///
/// # Errors
/// [`SnoopingError`]; [`SnoopingError::Refused`] when the bridge does not snoop.
pub async fn read(control: &Path, bridge: &str) -> Result<Mdb, SnoopingError> {
    let text = timeout(PATIENCE, call(control, "mdb/show", &[bridge])).await;
    Ok(mdb::parse(&text.map_err(|_| SnoopingError::Silent)??)?)
}

/// Waits until the switch has pushed the counters of its datapath into its flows (some 0.1 s).
///
/// # Errors
/// [`SnoopingError`].
pub async fn revalidate(control: &Path) -> Result<(), SnoopingError> {
    let answer = timeout(PATIENCE, call(control, "revalidator/wait", &[])).await;
    answer.map_err(|_| SnoopingError::Silent)?.map(drop)
}

async fn call(control: &Path, method: &str, arguments: &[&str]) -> Result<String, SnoopingError> {
    let io = |source| SnoopingError::Io {
        path: control.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(control).await.map_err(io)?;
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let request = Message::Request {
        id: Value::from(0),
        method: method.to_owned(),
        params: arguments.iter().copied().map(Value::from).collect(),
    };
    request.encode(&mut output);
    stream.write_all_buf(&mut output).await.map_err(io)?;
    let mut framer = Framer::new(MAX_BYTES);
    loop {
        if let Some(message) = framer.next_message(&mut input)? {
            return text(Message::decode(&message)?);
        }
        if stream.read_buf(&mut input).await.map_err(io)? == 0 {
            return Err(SnoopingError::Closed);
        }
    }
}

fn text(message: Message) -> Result<String, SnoopingError> {
    match message {
        Message::Response {
            result: Ok(Value::String(text)),
            ..
        } => Ok(text),
        Message::Response {
            result: Err(Value::String(text)),
            ..
        } => Err(SnoopingError::Refused(text.trim_end().to_owned())),
        _ => Err(DecodeError::Shape {
            what: "the answer of ovs-vswitchd",
            need: "a text",
        }
        .into()),
    }
}
