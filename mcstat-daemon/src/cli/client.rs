//! Asks the node's agent: HTTP/1.1 over its unix socket, one connection per question.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use kube::core::Status;
use thiserror::Error;
use tokio::{net::UnixStream, task::JoinSet, time};

/// The agent answers from memory: longer means that it hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// Nobody listens.
    #[error(
        "no mcstat agent answers on {socket} ({error}): start one with `mcstat agent`, or name its socket with --socket or MCSTAT_SOCKET",
        socket = .socket.display()
    )]
    NotRunning { socket: PathBuf, error: io::Error },
    /// The socket's mode forbids it.
    #[error(
        "no access to the mcstat agent's socket {}: run as root or as a member of the socket's group", .0.display()
    )]
    Forbidden(PathBuf),
    /// It listens and does not answer.
    #[error(
        "the mcstat agent on {} did not answer within {} s: look into its log", .0.display(), TIMEOUT.as_secs()
    )]
    Timeout(PathBuf),
    /// It does not speak HTTP, or died while answering.
    #[error("talking to the mcstat agent on {socket} failed: {error}; is it really an agent's socket?", socket = .socket.display())]
    Exchange { socket: PathBuf, error: hyper::Error },
    /// The answer is not what an agent says.
    #[error("the answer on {socket} cannot be understood: {why}; are agent and command of the same version?", socket = .socket.display())]
    Answer { socket: PathBuf, why: String },
    /// The server refused, in its own words.
    #[error("{}", from_server(.0))]
    Server(Box<Status>),
}

/// As kubectl prints it.
fn from_server(status: &Status) -> String {
    if status.reason.is_empty() {
        return format!("Error from server: {}", status.message);
    }
    format!("Error from server ({}): {}", status.reason, status.message)
}

/// The body of `GET path` in the form that `accept` asks for.
pub(super) async fn get(socket: &Path, path: &str, accept: &str) -> Result<Bytes, ClientError> {
    time::timeout(TIMEOUT, exchange(socket, path, accept))
        .await
        .unwrap_or_else(|_| Err(ClientError::Timeout(socket.to_owned())))
}

async fn exchange(socket: &Path, path: &str, accept: &str) -> Result<Bytes, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(socket.to_owned()),
        _ => ClientError::NotRunning {
            socket: socket.to_owned(),
            error,
        },
    })?;
    let exchange_failed = |error| ClientError::Exchange {
        socket: socket.to_owned(),
        error,
    };
    let answer_wrong = |why: String| ClientError::Answer {
        socket: socket.to_owned(),
        why,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(exchange_failed)?;
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, accept)
        .body(Empty::<Bytes>::new())
        .map_err(|error| answer_wrong(format!("{path:?} is no path: {error}")))?;
    let response = sender.send_request(request).await.map_err(exchange_failed)?;
    let code = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(exchange_failed)?
        .to_bytes();
    if code.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice(&body) {
        Ok(status) => Err(ClientError::Server(Box::new(status))),
        Err(_) => Err(answer_wrong(format!("{code} without a Status"))),
    }
}
