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
