//! `meta.k8s.io` Tables: the columns of `podmulticaststats`, and one row of cells per object.
//!
//! The server makes the cells, so kubectl and `mcstat get` show the same. A number is a JSON number, so that clients
//! can sort; what was not measured is the string `-`, never 0. Ages are as of a time given by the caller. No I/O.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::stats::{Metadata, PodMulticastStats};
use crate::render::age;

/// What a cell says when nothing was measured.
pub const NOT_MEASURED: &str = "-";

/// A list of objects as cells (`meta.k8s.io/v1`, kind `Table`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// `Table`.
    pub kind: String,
    /// `meta.k8s.io/v1`, or `v1beta1` for old clients; the shape is the same.
    pub api_version: String,
    /// resourceVersion of the list.
    #[serde(default)]
    pub metadata: ListMetadata,
    /// One entry per cell of a row.
    #[serde(default)]
    pub column_definitions: Vec<ColumnDefinition>,
    /// One per object.
    #[serde(default)]
    pub rows: Vec<Row>,
}

/// The metadata of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMetadata {
    /// Publish time in milliseconds of the newest object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnDefinition {
    /// Heading; kubectl prints it in capitals.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`. A hint only: `-` stands in any column.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format, `name` for the column that identifies the object.
    pub format: String,
    /// One sentence.
    pub description: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// The cells of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// One value per column.
    pub cells: Vec<Value>,
    /// The object, its metadata or nothing, as asked for with `includeObject`.
    #[serde(default)]
    pub object: Value,
}

/// How much of each object a Table carries (`includeObject`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing but the cells.
    None,
    /// `PartialObjectMetadata`: what kubectl needs for `-A`, `-L` and `--show-labels`.
    #[default]
    Metadata,
    /// The whole object: what kubectl needs for `--sort-by`.
    Object,
}

impl Table {
    /// A Table of these objects, ages as of `now`. `version` is `v1` or `v1beta1`.
    #[must_use]
    pub fn new<'a>(
        pods: impl Iterator<Item = &'a PodMulticastStats>,
        version: &str,
        include: IncludeObject,
        resource_version: Option<String>,
        now: Timestamp,
    ) -> Self {
        let api_version = format!("meta.k8s.io/{version}");
        let rows = pods
            .map(|pod| Row {
                cells: cells(pod, now),
                object: included(pod, include, &api_version),
            })
            .collect();
        Self {
            kind: "Table".to_owned(),
            api_version,
            metadata: ListMetadata { resource_version },
            column_definitions: column_definitions(),
            rows,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartialObjectMetadata<'a> {
    kind: &'static str,
    api_version: &'a str,
    metadata: &'a Metadata,
}

fn included(pod: &PodMulticastStats, include: IncludeObject, api_version: &str) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => {
            json!(PartialObjectMetadata {
                kind: "PartialObjectMetadata",
                api_version,
                metadata: &pod.metadata
            })
        }
        IncludeObject::Object => json!(pod),
    }
}

const INTEGER: &str = "integer";
const NUMBER: &str = "number";
const STRING: &str = "string";
const SHOWN: i32 = 0;
const WIDE: i32 = 1;

/// Name, type, priority, description; in the order of [`cells`].
const COLUMNS: [(&str, &str, i32, &str); 20] = [
    ("Name", STRING, SHOWN, "Name of the Pod."),
    (
        "Inbound",
        INTEGER,
        SHOWN,
        "Multicast data packets handed to the Pod since SINCE.",
    ),
    (
        "Outbound",
        INTEGER,
        SHOWN,
        "Multicast data packets that the Pod sent and no enforced rule denied.",
    ),
    (
        "Inbound_Dropped",
        INTEGER,
        SHOWN,
        "Packets that the switch sent to the Pod and its interface never saw.",
    ),
    (
        "Outbound_Dropped",
        INTEGER,
        SHOWN,
        "Packets of the Pod that an enforced rule or the switch dropped.",
    ),
    (
        "IGMP_Allowed",
        INTEGER,
        SHOWN,
        "IGMP and MLD reports and leaves of the Pod that no enforced rule denied.",
    ),
    (
        "IGMP_Dropped",
        INTEGER,
        SHOWN,
        "IGMP and MLD reports and leaves of the Pod that an enforced rule denied.",
    ),
    (
        "In/s",
        NUMBER,
        SHOWN,
        "Inbound packets a second over the last windowSeconds.",
    ),
    (
        "Out/s",
        NUMBER,
        SHOWN,
        "Outbound packets a second over the last windowSeconds.",
    ),
    (
        "Last",
        STRING,
        SHOWN,
        "Age of the last data packet in either direction.",
    ),
    (
        "Status",
        STRING,
        SHOWN,
        "Stale, NotCounted, a finding, Dropping or OK: the first that holds.",
    ),
    (
        "Inbound_Bytes",
        INTEGER,
        WIDE,
        "Bytes of the inbound packets, Ethernet header included.",
    ),
    (
        "Outbound_Bytes",
        INTEGER,
        WIDE,
        "Bytes of the outbound packets, Ethernet header included.",
    ),
    (
        "Socket_Drops",
        INTEGER,
        WIDE,
        "Receive-buffer errors in the Pod's network namespace, unicast UDP included.",
    ),
    ("Groups", INTEGER, WIDE, "Groups that have a series of their own."),
    (
        "Ledgers",
        STRING,
        WIDE,
        "Whether wire, switch and kernel agree: Agree, or why not.",
    ),
    ("Node", STRING, WIDE, "Node that the Pod runs on."),
    (
        "Interfaces",
        STRING,
        WIDE,
        "Counted interfaces / all interfaces of the Pod.",
    ),
    (
        "Since",
        STRING,
        WIDE,
        "Age of the counters: how long ago counting began.",
    ),
    ("Observed", STRING, WIDE, "Age of the last reading."),
];

/// The columns of `podmulticaststats`; NAMESPACE is added by the client.
#[must_use]
pub fn column_definitions() -> Vec<ColumnDefinition> {
    COLUMNS
        .iter()
        .map(|(name, kind, priority, description)| ColumnDefinition {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            format: match *name {
                "Name" => "name",
                _ if *kind == INTEGER => "int64",
                _ => "",
            }
            .to_owned(),
            description: (*description).to_owned(),
            priority: *priority,
        })
        .collect()
}

/// The cells of one Pod, in the order of [`column_definitions`].
fn cells(pod: &PodMulticastStats, now: Timestamp) -> Vec<Value> {
    let status = &pod.status;
    let inbound = status.inbound.as_ref();
    let outbound = status.outbound.as_ref();
    let igmp = status.igmp.as_ref();
    let last = inbound
        .and_then(|i| i.last_seen)
        .max(outbound.and_then(|o| o.last_seen));
    vec![
        json!(pod.metadata.name),
        cell(inbound.map(|i| i.packets)),
        cell(outbound.map(|o| o.admitted)),
        cell(inbound.and_then(|i| i.dropped)),
        cell(outbound_dropped(pod)),
        cell(igmp.map(|i| i.allowed.messages)),
        cell(igmp.and_then(|i| i.dropped).map(|d| d.messages)),
        rate(inbound.and_then(|i| i.per_second)),
        rate(outbound.and_then(|o| o.per_second)),
        age_cell(last, now),
        json!(status.summary),
        cell(inbound.map(|i| i.bytes)),
        cell(outbound.map(|o| o.bytes)),
        cell(status.socket_drops),
        cell(groups(pod)),
        json!(ledgers(pod)),
        json!(pod.spec.node),
        json!(format!(
            "{}/{}",
            status.interfaces.iter().filter(|i| i.counted).count(),
            status.interfaces.len()
        )),
        age_cell(status.start_time, now),
        age_cell(Some(status.observed_at), now),
    ]
}

fn cell<T: Serialize>(value: Option<T>) -> Value {
    value.map_or_else(|| json!(NOT_MEASURED), |value| json!(value))
}

fn age_cell(then: Option<Timestamp>, now: Timestamp) -> Value {
    cell(then.map(|then| age::since(then, now)))
}

/// One decimal below ten, none above; a whole number is a JSON integer, so that no client prints `12.0`.
fn rate(per_second: Option<f64>) -> Value {
    let Some(rate) = per_second.filter(|rate| rate.is_finite() && *rate >= 0.0) else {
        return json!(NOT_MEASURED);
    };
    let rounded = if rate < 10.0 {
        (rate * 10.0).round() / 10.0
    } else {
        rate.round()
    };
    // `as` saturates, and no rate comes near u64::MAX.
    if rounded.fract() == 0.0 {
        json!(rounded as u64)
    } else {
        json!(rounded)
    }
}

/// Rule drops and switch drops. Unknown while no policy source judges and no metric table counts: a plain 0 in
/// `dropped` then says nothing.
fn outbound_dropped(pod: &PodMulticastStats) -> Option<u64> {
    let outbound = pod.status.outbound.as_ref()?;
    let known =
        outbound.dropped > 0 || outbound.switch_dropped.is_some() || condition(pod, "PolicyKnown") == Some("True");
    known.then(|| outbound.dropped.saturating_add(outbound.switch_dropped.unwrap_or(0)))
}

/// Distinct group addresses; unknown for a Pod that is not counted at all.
fn groups(pod: &PodMulticastStats) -> Option<usize> {
    if pod.status.inbound.is_none() && pod.status.outbound.is_none() {
        return None;
    }
    Some(
        pod.status
            .groups
            .iter()
            .map(|g| g.group)
            .collect::<BTreeSet<IpAddr>>()
            .len(),
    )
}

fn ledgers(pod: &PodMulticastStats) -> &str {
    let Some(condition) = pod.status.conditions.iter().find(|c| c.kind == "LedgersAgree") else {
        return NOT_MEASURED;
    };
    match condition.status.as_str() {
        "True" => "Agree",
        _ if condition.reason.is_empty() => "Unknown",
        _ => &condition.reason,
    }
}

fn condition<'a>(pod: &'a PodMulticastStats, kind: &str) -> Option<&'a str> {
    pod.status
        .conditions
        .iter()
        .find(|c| c.kind == kind)
        .map(|c| c.status.as_str())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
