//! `mcstat get podmulticaststats | multicastgroups | antrea…policystats`: what the agent on this node counts, printed as
//! kubectl prints it.
//!
//! The server makes the cells; this file asks, joins the answers and pads the columns. Flags, messages and exit codes
//! are kubectl's, so that what works here works in the cluster.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    client::{self, ClientError},
    output,
};
use crate::{
    api::{
        resource::{self, Resource},
        stats,
        table::Table,
    },
    render::columns,
};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const JSON: &str = "application/json";

/// Options of `mcstat get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// What to show.
    #[arg(value_enum)]
    kind: Kind,
    /// Pods or policies by name, groups by address; all of them when none is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Namespace of the Pods or policies.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// Pods or policies of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// List the groups too that every stack joins by itself: 224.0.0.1, ff02::1 and the like.
    #[arg(long)]
    all_groups: bool,
    /// How to print: a table when absent.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// The agent's socket.
    #[arg(
        long,
        env = "MCSTAT_SOCKET",
        value_name = "PATH",
        default_value = "/run/mcstat/agent.sock"
    )]
    socket: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Every Pod's multicast (pmcs).
    #[value(name = "podmulticaststats", aliases = ["pmcs", "podmulticaststats.stats.antrea.io"])]
    Pods,
    /// Every group: who joined, who sends (mcg).
    #[value(name = "multicastgroups", aliases = ["mcg", "multicastgroup", "multicastgroups.stats.antrea.io"])]
    Groups,
    /// What the rules of every ClusterNetworkPolicy allowed and dropped.
    #[value(
        name = "antreaclusternetworkpolicystats",
        aliases = ["antreaclusternetworkpolicystats.stats.antrea.io"]
    )]
    ClusterPolicies,
    /// What the rules of every NetworkPolicy of Antrea's allowed and dropped.
    #[value(name = "antreanetworkpolicystats", aliases = ["antreanetworkpolicystats.stats.antrea.io"])]
    Policies,
}

impl Kind {
    fn resource(self) -> &'static Resource {
        match self {
            Self::Pods => &resource::PODS,
            Self::Groups => &resource::GROUPS,
            Self::ClusterPolicies => &resource::CLUSTER_POLICIES,
            Self::Policies => &resource::NAMESPACED_POLICIES,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The table with more columns.
    Wide,
    /// The objects as JSON.
    Json,
    /// The objects as YAML.
    Yaml,
    /// RESOURCE/NAME, one a line.
    Name,
}

/// Answers, and whether all questions were answered.
struct Answers<T> {
    answers: Vec<T>,
    failures: Vec<ClientError>,
}

/// Asks the agent and prints. What was found is printed even when some names were not.
pub(super) fn run(args: &GetArgs) -> anyhow::Result<ExitCode> {
    if args.all_namespaces && !args.names.is_empty() && args.kind.resource().namespaced {
        anyhow::bail!("a resource cannot be retrieved by name across all namespaces: give --namespace instead of -A");
    }
    if args.all_groups && args.kind != Kind::Groups {
        anyhow::bail!("--all-groups is for multicastgroups: leave it out");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting I/O failed")?;
    let (text, failures) = match args.output {
        None | Some(Output::Wide) => {
            let Answers { answers, failures } = runtime.block_on(ask::<Table>(args, TABLE));
            let text = table(&answers, args);
            if text.is_none() && failures.is_empty() {
                output::complain(&nothing_found(args));
            }
            (text.unwrap_or_default(), failures)
        }
        Some(format) => {
            let Answers { answers, failures } = runtime.block_on(ask::<Value>(args, JSON));
            (objects(answers, args, format)?, failures)
        }
    };
    let code = output::print(&text)?;
    for failure in &failures {
        match failure {
            ClientError::Server(_) => output::complain(&failure.to_string()),
            _ => output::complain(&format!("error: {failure}")),
        }
    }
    Ok(if failures.is_empty() { code } else { ExitCode::FAILURE })
}

fn nothing_found(args: &GetArgs) -> String {
    if args.all_namespaces || !args.kind.resource().namespaced {
        "No resources found".to_owned()
    } else {
        format!("No resources found in {} namespace.", args.namespace)
    }
}

/// One question for a list, one per name else. Only a server's refusal lets the next question make sense.
async fn ask<T: DeserializeOwned>(args: &GetArgs, accept: &str) -> Answers<T> {
    let list = list_path(args);
    let paths = if args.names.is_empty() {
        vec![list + query(args)]
    } else {
        let names = args.names.iter();
        names.map(|name| format!("{list}/{}", path_segment(name))).collect()
    };
    let mut outcome = Answers {
        answers: Vec::new(),
        failures: Vec::new(),
    };
    for path in paths {
        let answer = client::get(&args.socket, &path, accept)
            .await
            .and_then(|body| decode(&body, args));
        match answer {
            Ok(answer) => outcome.answers.push(answer),
            Err(error) => {
                let fatal = !matches!(error, ClientError::Server(_));
                outcome.failures.push(error);
                if fatal {
                    break;
                }
            }
        }
    }
    outcome
}

fn list_path(args: &GetArgs) -> String {
    let resource = args.kind.resource();
    let namespace = if resource.namespaced && !args.all_namespaces {
        format!("/namespaces/{}", path_segment(&args.namespace))
    } else {
        String::new()
    };
    format!(
        "/apis/{}/{}{namespace}/{}",
        stats::GROUP,
        stats::VERSION,
        resource.plural
    )
}

/// `status.hidden!=`: whatever the field says.
fn query(args: &GetArgs) -> &'static str {
    if args.all_groups {
        "?fieldSelector=status.hidden%21%3D"
    } else {
        ""
    }
}

fn decode<T: DeserializeOwned>(body: &Bytes, args: &GetArgs) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Answer {
        socket: args.socket.clone(),
        why: error.to_string(),
    })
}

/// Percent-encodes what must not stand in a path; a Kubernetes name needs none of it.
fn path_segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

/// All rows of all answers under one heading; `None` when there is no row.
fn table(answers: &[Table], args: &GetArgs) -> Option<String> {
    let first = answers.iter().find(|table| !table.rows.is_empty())?;
    let wide = args.output == Some(Output::Wide);
    let shown: Vec<bool> = first
        .column_definitions
        .iter()
        .map(|column| wide || column.priority == 0)
        .collect();
    let with_namespace = args.all_namespaces && args.kind.resource().namespaced;
    let namespace = |text: &str| with_namespace.then(|| text.to_owned());
    let visible = |cells: Vec<String>| {
        cells
            .into_iter()
            .zip(&shown)
            .filter(|(_, shown)| **shown)
            .map(|(cell, _)| cell)
    };
    let heading = first
        .column_definitions
        .iter()
        .map(|column| column.name.to_uppercase())
        .collect();
    let mut lines: Vec<Vec<String>> = vec![namespace("NAMESPACE").into_iter().chain(visible(heading)).collect()];
    for row in answers.iter().flat_map(|table| &table.rows) {
        let cells = row.cells.iter().map(cell_text).collect();
        let of = row
            .object
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
            .unwrap_or_default();
        lines.push(namespace(of).into_iter().chain(visible(cells)).collect());
    }
    Some(columns::pad(&lines))
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// One named object as it is, anything else as kubectl's `List`.
fn objects(answers: Vec<Value>, args: &GetArgs, format: Output) -> anyhow::Result<String> {
    let single = args.names.len() == 1;
    if answers.is_empty() {
        return Ok(String::new());
    }
    let mut items: Vec<Value> = if args.names.is_empty() {
        answers
            .into_iter()
            .flat_map(|list| list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
            .collect()
    } else {
        answers
    };
    if format == Output::Name {
        let name = |item: &Value| {
            item.pointer("/metadata/name")
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        return Ok(items
            .iter()
            .filter_map(name)
            .map(|n| format!("{}.{}/{n}\n", args.kind.resource().singular, stats::GROUP))
            .collect());
    }
    let shown = if single && items.len() == 1 {
        items.remove(0)
    } else {
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
    };
    match format {
        Output::Yaml => serde_yaml::to_string(&shown).context("writing YAML failed"),
        _ => indented(&shown),
    }
}

/// Indented by four, as kubectl does.
fn indented(value: &Value) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(value, &mut serializer).context("writing JSON failed")?;
    text.push(b'\n');
    String::from_utf8(text).context("writing JSON failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(path_segment("feed-0.a"), "feed-0.a");
        assert_eq!(path_segment("../x?a=b"), "..%2Fx%3Fa%3Db");
    }
}
