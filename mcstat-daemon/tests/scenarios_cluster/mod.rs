//! Scenarios of an aggregator: which policies there are, which nodes' reports arrive and when, and what is served then.
//!
//! Reports are posted as agents post them, and taken in as the server takes them in. Each report of the folder arrives or is
//! lost: one that no step speaks of is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use axum::body::Body;
use hyper::HeaderMap;
use jiff::Timestamp;
use mcstat::{
    agent::policy::{PolicyObjects, read},
    aggregator::{
        groups::groups,
        index::{Index, SharedIndex},
        ingest,
        policies::Existing,
    },
    api::{
        group::MulticastGroup,
        policy::{ClusterPolicyStats, NamespacedPolicyStats},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::parse;

/// One moment at the aggregator.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Step {
    at: Timestamp,
    /// A file with the documents that its own source holds from now on.
    policies: Option<String>,
    /// Names of reports, in the order of their arrival.
    #[serde(default)]
    arrive: Vec<String>,
    #[serde(default)]
    lost: Vec<String>,
}

/// What is served, by the names of the resources.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(rename = "antreaclusternetworkpolicystats")]
    cluster_wide: Vec<ClusterPolicyStats>,
    #[serde(rename = "antreanetworkpolicystats")]
    namespaced: Vec<NamespacedPolicyStats>,
    #[serde(rename = "multicastgroups")]
    groups: Vec<MulticastGroup>,
}

/// An aggregator, and the reports that may reach it.
pub(crate) struct Cluster<'a> {
    folder: &'a Path,
    index: SharedIndex,
    runtime: Runtime,
    reports: BTreeMap<String, Map<String, Value>>,
    unspoken: BTreeSet<String>,
}

impl<'a> Cluster<'a> {
    /// What is served after each step.
    pub(crate) fn replay(folder: &'a Path, steps: impl Iterator<Item = impl AsRef<Path>>) -> Vec<String> {
        let reports: BTreeMap<String, _> = parse(&folder.join("reports.json"));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let mut cluster = Self {
            folder,
            index: SharedIndex::default(),
            runtime: runtime.expect("a runtime"),
            unspoken: reports.keys().cloned().collect(),
            reports,
        };
        let said = steps.map(|input| cluster.step(&parse(input.as_ref()))).collect();
        let (folder, unspoken) = (folder.display(), cluster.unspoken);
        assert!(unspoken.is_empty(), "{folder}: neither arrived nor lost: {unspoken:?}");
        said
    }

    fn step(&mut self, step: &Step) -> String {
        if let Some(file) = &step.policies {
            self.index.follow_policies(self.existing(file), step.at);
        }
        for name in &step.arrive {
            let (headers, report) = (HeaderMap::new(), Body::from(self.report(name)));
            let posted = ingest::accept(&self.index, &headers, report, step.at);
            let answer = self.runtime.block_on(posted);
            answer.unwrap_or_else(|status| panic!("{}: {name}: {status:?}", self.folder.display()));
        }
        for name in &step.lost {
            self.report(name);
        }
        let lists = Lists::of(&self.index.snapshot(), step.at);
        let text = serde_json::to_string_pretty(&lists).expect("lists are JSON") + "\n";
        let again: Lists = serde_json::from_str(&text).expect("lists can be read again");
        assert_eq!(again, lists, "{}: they do not survive JSON", self.folder.display());
        text
    }

    fn existing(&self, file: &str) -> Existing {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Existing::of(&PolicyObjects {
            objects: read(&text).unwrap_or_else(|bad| panic!("{}: {bad:?}", path.display())),
            failures: Vec::new(),
            read: true,
            known: true,
        })
        .expect("it is known")
    }

    /// A report as it is sent: what all have in common needs not be written down.
    fn report(&mut self, name: &str) -> String {
        self.unspoken.remove(name);
        let report = self.reports.get(name);
        let mut report = report
            .unwrap_or_else(|| panic!("{}: reports.json has no {name}", self.folder.display()))
            .clone();
        for (field, value) in [
            ("apiVersion", json!("controlplane.mcstat.io/v1alpha1")),
            ("kind", json!("NodeStatsSummary")),
            ("startTime", json!("2026-11-24T07:00:00Z")),
            ("intervalSeconds", json!(10)),
            ("pods", json!([])),
            (
                "kernel",
                json!({"slotsUsed": 0, "slotsMax": 0, "eventsHanded": 0, "eventsLost": 0, "eventsLimited": 0}),
            ),
        ] {
            report.entry(field).or_insert(value);
        }
        Value::Object(report).to_string()
    }
}

impl Lists {
    fn of(index: &Index, now: Timestamp) -> Self {
        Self {
            cluster_wide: index.policies(None, now),
            namespaced: index.policies(None, now),
            groups: groups(index, None, &index.unheard(None, now), now),
        }
    }
}
