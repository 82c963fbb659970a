//! Pushes the newest summary to every aggregator: POST of gzip JSON, one task per target.
//!
//! A summary is the node's whole truth, so nothing is queued: whatever could not be sent is replaced by the next one.
//! Counters wait for the interval; another membership, querier, finding or policy goes out at once, at most one push a second.
//! A failing target is tried again after 1 to 8 s and never holds up another one or the tick. It warns when a target
//! starts to fail and says so when it works again, once each. Plain HTTP goes to loopback addresses only.

use std::{
    future::Future,
    io::{self, Write as _},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::watch::{self, error::RecvError},
    task::JoinSet,
    time,
};

use super::{backoff::Backoff, news};
use crate::api::summary::{self, NodeStatsSummary};

/// A push that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// News goes out no sooner than this after the push before.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// Of an answer only the message is used.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

/// The newest summary; none before the first tick.
pub type Summaries = watch::Receiver<Option<Arc<NodeStatsSummary>>>;

/// A target that cannot be used. Found at start, so that a typing error does not end in a silent retry loop.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Not `http://HOST:PORT`.
    #[error("aggregator {target:?} is no address of the form http://HOST:PORT: {why}")]
    Malformed {
        /// As configured.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no TLS yet.
    #[error("aggregator {0:?} asks for https, which this version does not speak; use http:// and a loopback address")]
    TlsNotSupported(String),
    /// Plain HTTP beyond this machine.
    #[error(
        "aggregator {0:?} is no loopback address: summaries go over plain HTTP to 127.0.0.0/8, [::1] or localhost only"
    )]
    NotLoopback(String),
}

/// Why one push failed.
#[derive(Debug, Error)]
enum PushError {
    #[error("connecting failed: {0}")]
    Connect(io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(hyper::Error),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("answered {code}: {message}")]
    Refused { code: StatusCode, message: String },
    #[error("the summary cannot be encoded: {0}")]
    Encode(io::Error),
}

/// One aggregator to push to: `http://HOST:PORT` with a loopback host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// `HOST:PORT` as it stands in the URL.
    authority: String,
}

impl Target {
    /// Checks a configured target.
    ///
    /// # Errors
    /// It is malformed, asks for TLS, or is no loopback address.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let malformed = |why: &str| TargetError::Malformed {
            target: text.to_owned(),
            why: why.to_owned(),
        };
        let uri: Uri = text.parse().map_err(|error| malformed(&format!("{error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(TargetError::TlsNotSupported(text.to_owned())),
            _ => return Err(malformed("it does not begin with http://")),
        }
        let host = uri.host().ok_or_else(|| malformed("the host is missing"))?;
        let port = uri.port_u16().ok_or_else(|| malformed("the port is missing"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(malformed("nothing may follow the port"));
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host != "localhost" && !host.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
            return Err(TargetError::NotLoopback(text.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            authority,
        })
    }
}

/// Pushes every `interval` and at once what cannot wait to each target until `shutdown` completes. The first summary goes out at once.
///
/// # Errors
/// A target cannot be used; nothing has been sent then.
pub async fn run(
    summaries: Summaries,
    targets: Vec<String>,
    interval: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TargetError> {
    let targets = targets
        .iter()
        .map(|target| Target::parse(target))
        .collect::<Result<Vec<_>, _>>()?;
    // Dropped at the end, which aborts the tasks: a push that is cut off does no harm.
    let mut tasks = JoinSet::new();
    for target in targets {
        tasks.spawn(push_to(target, summaries.clone(), interval));
    }
    shutdown.await;
    Ok(())
}

/// Ends when the sender of the summaries is gone.
async fn push_to(target: Target, mut summaries: Summaries, interval: Duration) {
    let mut backoff = Backoff::default();
    let mut failing = false;
    loop {
        let Ok(newest) = summaries.wait_for(Option::is_some).await.map(|newest| newest.clone()) else {
            return;
        };
        let Some(newest) = newest else { continue };
        let began = Instant::now();
        let outcome = time::timeout(TIMEOUT, push(&target, &newest))
            .await
            .unwrap_or(Err(PushError::Timeout));
        let aggregator = &target.authority;
        match outcome {
            Ok(()) => {
                backoff.succeeded(Instant::now());
                if failing {
                    tracing::info!(aggregator, "aggregator takes summaries again");
                }
                failing = false;
                if until_due(&mut summaries, &newest, began, interval).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if failing {
                    tracing::debug!(aggregator, %error, "aggregator still takes no summaries");
                } else {
                    tracing::warn!(aggregator, %error, "aggregator takes no summaries; is it running? retrying");
                }
                failing = true;
                time::sleep_until(backoff.failed(Instant::now()).into()).await;
            }
        }
    }
}

/// Waits until the next push is due, given what was pushed and when. Fails when the sender of the summaries is gone.
async fn until_due(
    summaries: &mut Summaries,
    pushed: &NodeStatsSummary,
    began: Instant,
    interval: Duration,
) -> Result<(), RecvError> {
    let is_news =
        |newest: &Option<Arc<NodeStatsSummary>>| newest.as_ref().is_some_and(|newest| news::is_news(pushed, newest));
    let news = async {
        summaries.wait_for(is_news).await?;
        time::sleep_until((began + NEWS_INTERVAL).into()).await;
        Ok(())
    };
    tokio::select! {
        news = news => news,
        () = time::sleep_until((began + interval).into()) => Ok(()),
    }
}

/// One connection, one POST: pushes are seconds apart, and a fresh connection cannot be a dead one.
async fn push(target: &Target, summary: &NodeStatsSummary) -> Result<(), PushError> {
    let body = encode(summary).map_err(PushError::Encode)?;
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(PushError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(PushError::Exchange)?;
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let request = Request::post(summary::PATH)
        .header(header::HOST, &target.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_ENCODING, "gzip")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| PushError::Encode(io::Error::other(error)))?;
    let response = sender.send_request(request).await.map_err(PushError::Exchange)?;
    let code = response.status();
    if code == StatusCode::CREATED {
        return Ok(());
    }
    // A body that cannot be read leaves the code, which says enough.
    let answer = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES).collect().await;
    let status = answer
        .ok()
        .and_then(|body| serde_json::from_slice::<kube::core::Status>(&body.to_bytes()).ok());
    Err(PushError::Refused {
        code,
        message: status.map(|status| status.message).unwrap_or_default(),
    })
}

fn encode(summary: &NodeStatsSummary) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut encoder, summary)?;
    encoder.flush()?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_targets_are_taken() {
        for (text, host, authority) in [
            ("http://127.0.0.1:8080", "127.0.0.1", "127.0.0.1:8080"),
            ("http://127.9.9.9:8080/", "127.9.9.9", "127.9.9.9:8080"),
            ("http://[::1]:8080", "::1", "[::1]:8080"),
            ("http://localhost:8080", "localhost", "localhost:8080"),
        ] {
            let wanted = Target {
                host: host.to_owned(),
                port: 8080,
                authority: authority.to_owned(),
            };
            assert_eq!(Target::parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for text in [
            "http://10.0.0.1:8080",
            "http://example.com:80",
            "http://[fd00::1]:8080",
            "http://0.0.0.0:1",
        ] {
            assert_eq!(Target::parse(text), Err(TargetError::NotLoopback(text.to_owned())));
        }
        let tls = "https://127.0.0.1:8443";
        assert_eq!(Target::parse(tls), Err(TargetError::TlsNotSupported(tls.to_owned())));
        for (text, why) in [
            ("127.0.0.1:8080", "it does not begin with http://"),
            ("http://127.0.0.1", "the port is missing"),
            ("http://127.0.0.1:8080/stats", "nothing may follow the port"),
            ("ftp://127.0.0.1:8080", "it does not begin with http://"),
        ] {
            let wanted = TargetError::Malformed {
                target: text.to_owned(),
                why: why.to_owned(),
            };
            assert_eq!(Target::parse(text), Err(wanted));
        }
        assert!(matches!(Target::parse(""), Err(TargetError::Malformed { .. })));
    }
}
