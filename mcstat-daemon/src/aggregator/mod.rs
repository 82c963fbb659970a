//! The cluster view: takes every node's summary and answers kubectl.
//!
//! [`run`] binds the listener and serves until told to stop. Plain HTTP is for loopback and on request only; the
//! certificate that lets it serve a cluster is not part of this version.

pub mod discovery;
pub mod findings;
pub mod groups;
pub mod http;
pub mod index;
pub mod ingest;
pub mod negotiate;
pub mod row;
pub mod selector;
mod senders;
#[cfg(test)]
mod test_nodes;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use thiserror::Error;
use tokio::net::TcpListener;

use self::{http::Role, index::SharedIndex};

/// Why the aggregator cannot serve.
#[derive(Debug, Error)]
pub enum AggregatorError {
    /// Plain HTTP was not asked for, and there is nothing else yet.
    #[error(
        "serving {0} needs --insecure-http: this version has no TLS and speaks plain HTTP on loopback addresses only"
    )]
    PlainHttpNotAllowed(SocketAddr),
    /// Plain HTTP beyond this machine.
    #[error("{0} is no loopback address: plain HTTP is served on 127.0.0.0/8 and [::1] only, for example --listen 127.0.0.1:{port}", port = .0.port())]
    NotLoopback(SocketAddr),
    /// Another process has the port.
    #[error("{0} is already in use: stop the process that holds it (ss -ltnp 'sport = :{port}' names it) or choose another port with --listen", port = .0.port())]
    InUse(SocketAddr),
    /// The listener cannot be bound for another reason.
    #[error("listening on {address} failed: {error}; choose another address with --listen")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The listener failed while serving.
    #[error("serving {address} failed: {error}")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// Where and how to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AggregatorOptions {
    /// Address and port; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Plain HTTP was asked for.
    pub insecure_http: bool,
}

/// Serves until `shutdown` completes; requests that are being answered are finished.
///
/// # Errors
/// The options allow no listener, or it cannot be bound, or it fails.
pub async fn run(
    options: AggregatorOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AggregatorError> {
    let address = options.listen;
    if !options.insecure_http {
        return Err(AggregatorError::PlainHttpNotAllowed(address));
    }
    if !address.ip().is_loopback() {
        return Err(AggregatorError::NotLoopback(address));
    }
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => AggregatorError::InUse(address),
        _ => AggregatorError::Bind { address, error },
    })?;
    let serve_error = |error| AggregatorError::Serve { address, error };
    let bound = listener.local_addr().map_err(serve_error)?;
    tracing::info!(address = %bound, "aggregator serves plain HTTP");
    let router = http::router(Arc::new(SharedIndex::default()), Role::Aggregator, Timestamp::now);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(serve_error)
}
