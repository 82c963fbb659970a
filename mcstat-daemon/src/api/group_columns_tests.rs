//! What each cell of a group says. PODS is Antrea's cell, to the blank.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::{
    group::{GroupStatus, NodeQuerier, Sender, Traffic},
    summary::PodReference,
    table::{IncludeObject, Table},
};

fn now() -> Timestamp {
    "2026-11-24T08:10:00Z".parse().unwrap()
}

fn group(address: &str, pods: &[(&str, &str)]) -> MulticastGroup {
    let pods = pods.iter().map(|(namespace, name)| PodReference {
        namespace: (*namespace).into(),
        name: (*name).into(),
    });
    MulticastGroup {
        api_version: "stats.antrea.io/v1alpha1".into(),
        kind: "MulticastGroup".into(),
        metadata: Metadata {
            name: address.into(),
            ..Metadata::default()
        },
        group: address.parse().unwrap(),
        pods: pods.collect(),
        status: GroupStatus {
            summary: "OK".into(),
            ..GroupStatus::default()
        },
    }
}

fn row(group: &MulticastGroup) -> BTreeMap<String, Value> {
    let table = Table::new(std::iter::once(group), "v1", IncludeObject::None, None, now());
    let names = table
        .column_definitions
        .into_iter()
        .map(|column| column.name.to_uppercase());
    names.zip(table.rows[0].cells.clone()).collect()
}

#[test]
fn headings_are_those_of_the_design() {
    let group = group("239.1.1.1", &[]);
    let table = Table::new(std::iter::once(&group), "v1", IncludeObject::None, None, now());
    let names = |priority| {
        let columns = table
            .column_definitions
            .iter()
            .filter(move |column| column.priority == priority);
        columns
            .map(|column| column.name.to_uppercase())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names(0), "GROUP PODS STATUS");
    assert_eq!(names(1), "SENDERS SSM_SOURCES SENT RECEIVED LAST NODES QUERIER");
    assert_eq!(table.column_definitions[0].format, "name");
}

/// The cells that Antrea's own test of its Table expects of these Pods.
#[test]
fn pods_are_antreas_three() {
    for (address, pods, cell) in [
        (
            "224.0.0.10",
            &[("default", "foo"), ("default", "bar")][..],
            "default/foo,default/bar",
        ),
        (
            "224.0.0.11",
            &[("dev", "foo1"), ("dev", "foo2"), ("dev", "bar1"), ("dev", "bar2")],
            "dev/foo1,dev/foo2,dev/bar1 + 1 more...",
        ),
        ("224.0.0.12", &[], "<none>"),
    ] {
        let row = row(&group(address, pods));
        assert_eq!((&row["GROUP"], &row["PODS"]), (&json!(address), &json!(cell)));
    }
}

#[test]
fn a_quiet_group_has_zeros_and_nones() {
    let row = row(&group("239.1.1.1", &[]));
    for (column, cell) in [
        ("STATUS", json!("OK")),
        ("SENDERS", json!("<none>")),
        ("SSM_SOURCES", json!("-")),
        ("SENT", json!(0)),
        ("RECEIVED", json!(0)),
        ("LAST", json!("-")),
        ("NODES", json!("<none>")),
        ("QUERIER", json!("<none>")),
    ] {
        assert_eq!(row[column], cell, "{column}");
    }
}

#[test]
fn a_busy_group_tells_who_and_how_much() {
    let mut group = group("232.1.1.1", &[("mkt", "rec-0")]);
    let sender = |name: &str| Sender {
        sender: name.into(),
        node: None,
        sent: None,
        last_seen: now(),
    };
    let source = |address: &str, included, last_seen| Source {
        source: address.parse().unwrap(),
        included,
        excluded: 1,
        sent: Traffic::default(),
        received: Traffic::default(),
        last_seen,
    };
    let querier = |node: &str, address: &str, elected, present| {
        NodeQuerier {
        node: node.into(),
        querier: serde_json::from_value(json!({
            "address": address, "version": "IGMPv3", "elected": elected, "present": present, "maxResponseMilliseconds": 10_000,
            "lastQuery": now(), "since": now(), "interfaces": 1
        }))
        .unwrap(),
    }
    };
    group.status.senders = vec![sender("mkt/src-0"), sender("ext:10.0.0.9")];
    group.status.more_senders = true;
    group.status.sources = Some(vec![
        source("10.0.0.1", 2, None),
        source("10.0.0.2", 0, None),
        source("10.0.0.9", 0, Some(now())),
    ]);
    group.status.sent = Traffic { packets: 7, bytes: 70 };
    group.status.received = Traffic {
        packets: 21,
        bytes: 210,
    };
    group.status.last_seen = Some("2026-11-24T08:08:25Z".parse().unwrap());
    group.status.nodes = ["n1", "n2", "n3", "n4", "n5"].map(str::to_owned).into();
    group.status.queriers = vec![
        querier("n1", "10.0.0.254", true, true),
        querier("n2", "10.0.0.254", true, true),
        querier("n2", "10.0.0.253", true, false),
        querier("n2", "10.0.0.255", false, true),
    ];
    let row = row(&group);
    for (column, cell) in [
        ("SENDERS", json!("mkt/src-0,ext:10.0.0.9,+more")),
        ("SSM_SOURCES", json!("10.0.0.1,10.0.0.9")),
        ("SENT", json!(7)),
        ("RECEIVED", json!(21)),
        ("LAST", json!("95s")),
        ("NODES", json!("n1,n2,n3 + 2 more...")),
        ("QUERIER", json!("10.0.0.254")),
    ] {
        assert_eq!(row[column], cell, "{column}");
    }
}
