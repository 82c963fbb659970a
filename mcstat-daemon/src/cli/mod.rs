//! The command line: `mcstat agent | aggregator | get | version`.
//!
//! Exit codes: 0 success (a reader that closed the pipe early included), 1 failure, 2 usage. Every failure is one line on
//! standard error that names the next step.

mod agent;
mod aggregator;
mod client;
mod get;
mod output;
mod shutdown;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::agent::config::AgentArgs;

/// What every Pod of a Kubernetes cluster sends and receives by multicast.
#[derive(Debug, Parser)]
#[command(name = "mcstat", version, color = clap::ColorChoice::Never, propagate_version = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count on this node: attach to its Pods' interfaces, serve and push what they count.
    Agent(Box<AgentArgs>),
    /// Collect the summaries of all nodes and serve them to kubectl.
    Aggregator(aggregator::AggregatorArgs),
    /// Show what the agent on this node counts, as kubectl shows it for the cluster.
    Get(get::GetArgs),
    /// Print the version.
    Version,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Agent(args) => agent::run(&args),
        Command::Aggregator(args) => aggregator::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Get(args) => get::run(&args),
        Command::Version => output::print(concat!("mcstat ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    outcome.unwrap_or_else(|error| {
        output::complain(&format!("error: {}", told(&error)));
        ExitCode::FAILURE
    })
}

/// The error and its causes in one line. Most of our messages say their cause themselves: none is told twice.
fn told(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|text, cause| {
            if text.contains(&cause) {
                text
            } else {
                format!("{text}: {cause}")
            }
        })
        .unwrap_or_default()
}
