//! `mcstat agent`.

use std::process::ExitCode;

use anyhow::Context as _;

use super::{output, shutdown::requested};
use crate::{
    agent::{
        self,
        config::{AgentArgs, LogFormat},
    },
    telemetry::log,
};

/// Counts until SIGINT or SIGTERM, or prints the effective configuration.
pub(super) fn run(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let config = args.load()?;
    if args.print_config {
        return output::print(&config.to_yaml()?);
    }
    let format = match config.log.format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    log::init(&config.log.level, format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting threads failed")?;
    runtime.block_on(async {
        agent::run(config, requested()?).await?;
        Ok(ExitCode::SUCCESS)
    })
}
