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
pub mod policies;
pub mod row;
pub mod selector;
mod senders;
#[cfg(test)]
mod test_nodes;

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};

use self::{http::Role, index::SharedIndex, policies::Existing};
use crate::agent::policy::{PolicyObjects, files, kubernetes};

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
    /// The policies of `--policy-files` can no longer be followed.
    #[error(transparent)]
    Files(#[from] files::FilesError),
    /// The Kubernetes API cannot be asked for policies.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::KubernetesError),
    /// What follows the policies has ended.
    #[error("the policies are followed no longer; restart the aggregator and report this")]
    Ended,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatorOptions {
    /// Address and port; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Plain HTTP was asked for.
    pub insecure_http: bool,
    /// Who says which policies there are.
    pub policies: PolicySource,
}

/// Who says which policies there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySource {
    /// They are those that nodes report.
    Nodes,
    /// A directory of YAML files.
    Files(PathBuf),
    /// The Kubernetes API.
    Kubernetes {
        /// Path of a kubeconfig; empty: as a Pod does.
        kubeconfig: PathBuf,
    },
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
    let index = Arc::new(SharedIndex::default());
    let router = http::router(Arc::clone(&index), Role::Aggregator, Timestamp::now);
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    let (out, objects) = watch::channel(PolicyObjects::default());
    tokio::select! {
        outcome = serving => outcome.map_err(serve_error),
        error = find_policies(options.policies, out) => Err(error),
        () = follow_policies(objects, &index) => Err(AggregatorError::Ended),
    }
}

/// Runs the source of policies for ever; why that failed.
async fn find_policies(source: PolicySource, out: watch::Sender<PolicyObjects>) -> AggregatorError {
    let outcome = match source {
        PolicySource::Nodes => {
            // Nothing is ever told, which is not the same as the end.
            let _out = out;
            std::future::pending().await
        }
        PolicySource::Files(directory) => files::run(directory, Vec::new(), out, std::future::pending())
            .await
            .map_err(AggregatorError::from),
        PolicySource::Kubernetes { kubeconfig } => {
            let scope = kubernetes::Scope::Policies;
            let options = kubernetes::Options { kubeconfig, scope };
            kubernetes::run(options, out).await.map_err(AggregatorError::from)
        }
    };
    outcome.err().unwrap_or(AggregatorError::Ended)
}

/// Tells the index which policies there are, whatever source finds them, until the source is gone. Kinds that a cluster has
/// no more take their policies with them.
pub async fn follow_policies(mut objects: watch::Receiver<PolicyObjects>, index: &SharedIndex) {
    let mut told: Option<Existing> = None;
    loop {
        let existing = Existing::of(&objects.borrow_and_update());
        let existing = existing.or_else(|| told.as_ref().map(|_| Existing::default()));
        // Pods and namespaces come and go more often than policies.
        if let Some(existing) = existing.filter(|existing| told.as_ref() != Some(existing)) {
            index.follow_policies(existing.clone(), Timestamp::now());
            told = Some(existing);
        }
        if objects.changed().await.is_err() {
            return;
        }
    }
}
