//! `mcstat aggregator`.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::aggregator::{self, AggregatorOptions};

/// Options of `mcstat aggregator`.
#[derive(Debug, Args)]
pub(super) struct AggregatorArgs {
    /// Address and port to serve on; port 0 takes a free one and logs it.
    #[arg(
        long,
        env = "MCSTAT_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:10880"
    )]
    listen: SocketAddr,
    /// Serve plain HTTP without authentication. Loopback addresses only: anyone on this machine can read and push.
    #[arg(long)]
    insecure_http: bool,
}

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(args: &AggregatorArgs) -> anyhow::Result<()> {
    let options = AggregatorOptions {
        listen: args.listen,
        insecure_http: args.insecure_http,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting threads failed")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT failed")?;
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM failed")?;
        let shutdown = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("stopping");
        };
        Ok(aggregator::run(options, shutdown).await?)
    })
}
