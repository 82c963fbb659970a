//! `mcstat aggregator`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args};

use super::shutdown::requested;
use crate::{
    aggregator::{self, AggregatorOptions, PolicySource},
    telemetry::log,
};

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
    /// Directory of YAML files with the cluster's policies, as agents read it: only those that stand there are served.
    #[arg(long, env = "MCSTAT_POLICY_FILES", value_name = "DIRECTORY")]
    policy_files: Option<PathBuf>,
    /// Take them from the Kubernetes API instead: which policies of crd.antrea.io/v1beta1 the cluster has.
    #[arg(long, env = "MCSTAT_POLICY_KUBERNETES", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    policy_kubernetes: bool,
    /// kubeconfig for that; without one, the Pod's service account.
    #[arg(long, env = "MCSTAT_POLICY_KUBECONFIG", value_name = "FILE")]
    policy_kubeconfig: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or MODULE=LEVEL,…
    #[arg(long, env = "MCSTAT_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = log_level)]
    log_level: String,
    /// How a log line looks.
    #[arg(long, env = "MCSTAT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: log::Format,
}

/// Parsed at once, so that a wrong level is a usage error and not a silent default.
fn log_level(text: &str) -> Result<String, String> {
    log::parse_filter(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(args: &AggregatorArgs) -> anyhow::Result<()> {
    log::init(&args.log_level, args.log_format)?;
    let options = AggregatorOptions {
        listen: args.listen,
        insecure_http: args.insecure_http,
        policies: policy_source(args)?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting threads failed")?;
    runtime.block_on(async { Ok(aggregator::run(options, requested()?).await?) })
}

/// One source at most, as with agents.
fn policy_source(args: &AggregatorArgs) -> anyhow::Result<PolicySource> {
    match (&args.policy_files, args.policy_kubernetes, &args.policy_kubeconfig) {
        (None, false, None) => Ok(PolicySource::Nodes),
        (Some(directory), false, None) => Ok(PolicySource::Files(directory.clone())),
        (None, true, kubeconfig) => Ok(PolicySource::Kubernetes {
            kubeconfig: kubeconfig.clone().unwrap_or_default(),
        }),
        (Some(directory), true, _) => {
            let directory = directory.display();
            bail!("--policy-files {directory} and --policy-kubernetes true: policies come from one of the two")
        }
        (_, false, Some(kubeconfig)) => {
            let kubeconfig = kubeconfig.display();
            bail!("--policy-kubeconfig {kubeconfig} is for --policy-kubernetes true, which is not set")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::AggregatorArgs;

    #[test]
    fn the_page_lists_every_flag_with_its_variable_and_default() {
        let page = include_str!("../../../docs/configuration.md");
        let (_, aggregator) = page.split_once("\n## The aggregator\n").unwrap();
        let rows = aggregator.lines().filter(|line| line.starts_with("| `--"));
        let mut page: Vec<Vec<String>> = rows
            .map(|row| {
                let cells = row.trim_matches('|').split('|').take(3);
                cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
            })
            .collect();
        let command = AggregatorArgs::augment_args(clap::Command::new("aggregator"));
        let mut coded: Vec<Vec<String>> = command
            .get_arguments()
            .map(|argument| {
                let shown = |text: Option<&std::ffi::OsStr>| {
                    text.map_or("–".into(), |text| text.to_string_lossy().into_owned())
                };
                // That a switch is off needs not be said.
                let takes_value = argument.get_action().takes_values();
                let default = argument.get_default_values().first().filter(|_| takes_value);
                vec![
                    format!("--{}", argument.get_long().unwrap()),
                    shown(argument.get_env()),
                    shown(default.map(AsRef::as_ref)),
                ]
            })
            .collect();
        coded.sort();
        page.sort();
        assert_eq!(page, coded);
    }
}
