//! The command line: `mcstat aggregator | get | version`.
//!
//! Exit codes: 0 success (a reader that closed the pipe early included), 1 failure, 2 usage. Every failure is one line on
//! standard error that names the next step.

mod aggregator;
mod client;
mod get;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::log;

/// What every Pod of a Kubernetes cluster sends and receives by multicast.
#[derive(Debug, Parser)]
#[command(name = "mcstat", version, color = clap::ColorChoice::Never, propagate_version = false)]
struct Cli {
    /// What to log: error, warn, info, debug, trace, or MODULE=LEVEL,…
    #[arg(long, global = true, env = "MCSTAT_LOG", value_name = "LEVEL", default_value = "info", value_parser = log_level)]
    log_level: String,
    /// How a log line looks.
    #[arg(
        long,
        global = true,
        env = "MCSTAT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: log::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Collect the summaries of all nodes and serve them to kubectl.
    Aggregator(aggregator::AggregatorArgs),
    /// Show what the agent on this node counts, as kubectl shows it for the cluster.
    Get(get::GetArgs),
    /// Print the version.
    Version,
}

/// Parsed at once, so that a wrong level is a usage error and not a silent default.
fn log_level(text: &str) -> Result<String, String> {
    log::parse_filter(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Aggregator(args) => log::init(&cli.log_level, cli.log_format)
            .map_err(anyhow::Error::from)
            .and_then(|()| aggregator::run(&args))
            .map(|()| ExitCode::SUCCESS),
        Command::Get(args) => get::run(&args),
        Command::Version => output::print(concat!("mcstat ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    outcome.unwrap_or_else(|error| {
        output::complain(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
