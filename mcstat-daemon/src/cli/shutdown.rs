//! When this process is asked to end.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first SIGINT or SIGTERM. Call inside a runtime.
pub(super) fn requested() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT failed")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM failed")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    })
}
