//! What the index promises: newest wins, newer sandbox wins, silence is shown, rows expire.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Accepted, Index, Row, SharedIndex, Unheard};
use crate::api::summary::NodeStatsSummary;

fn at(time: &str) -> Timestamp {
    format!("2026-11-24T{time}Z").parse().unwrap()
}

/// (namespace, name, inbound packets, start of the sandbox; none: not counted)
type Pod<'a> = (&'a str, &'a str, u64, Option<&'a str>);

fn summary(node: &str, agent_start: &str, observed: &str, pods: &[Pod<'_>]) -> NodeStatsSummary {
    let counters = json!({"packets": 0, "segments": 0, "bytes": 0});
    let pods: Vec<_> = pods
        .iter()
        .map(|(namespace, name, packets, start)| {
            let inbound = json!({
                "packets": packets, "bytes": 0, "segments": 0, "linkLocal": {"packets": 0}, "ttl1": 0,
                "families": {"ipv4": counters, "ipv6": counters},
                "otherGroups": {"packets": 0, "bytes": 0, "dropped": 0, "portLimit": 0, "fairShare": 0,
                                "windowFull": 0, "contended": 0}
            });
            json!({
                "apiVersion": "stats.antrea.io/v1alpha1", "kind": "PodMulticastStats",
                "metadata": {"namespace": namespace, "name": name}, "spec": {"node": node},
                "status": {
                    "summary": "OK", "sandbox": "s", "startTime": start.map(at), "observedAt": at(observed),
                    "windowSeconds": 10, "inbound": start.map(|_| inbound), "interfaces": [], "groups": [],
                    "conditions": []
                }
            })
        })
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "controlplane.mcstat.io/v1alpha1", "kind": "NodeStatsSummary", "metadata": {"name": node},
        "startTime": at(agent_start), "observedAt": at(observed), "intervalSeconds": 10, "pods": pods,
        "kernel": {"slotsUsed": 0, "slotsMax": 0, "eventsHanded": 0, "eventsLost": 0, "eventsLimited": 0}
    }))
    .unwrap()
}

fn packets(row: Option<Row<'_>>) -> Option<u64> {
    row?.reported.status.inbound.as_ref().map(|i| i.packets)
}

fn names(index: &Index, namespace: Option<&str>, now: Timestamp) -> Vec<String> {
    let name = |row: &Row<'_>| format!("{}/{}", row.reported.metadata.namespace, row.reported.metadata.name);
    index.rows(namespace, now).iter().map(name).collect()
}

const START: Option<&str> = Some("08:00:00");

#[test]
fn an_older_reading_of_one_agent_never_replaces_a_newer_one() {
    let mut index = Index::default();
    let now = at("08:01:00");
    let one = |observed, packets| summary("n1", "07:00:00", observed, &[("mkt", "a", packets, START)]);
    assert_eq!(index.accept(one("08:00:50", 50), now), Accepted::Newest);
    assert_eq!(index.accept(one("08:00:40", 40), now), Accepted::Superseded);
    assert_eq!(packets(index.get("mkt", "a", now)), Some(50));
    assert_eq!(index.accept(one("08:00:50", 50), now), Accepted::Superseded);
    assert_eq!(index.accept(one("08:01:00", 60), now), Accepted::Newest);
    assert_eq!(packets(index.get("mkt", "a", now)), Some(60));
    assert_eq!(index.nodes(now), 1);
}

#[test]
fn a_late_report_of_a_replaced_agent_is_ignored() {
    let mut index = Index::default();
    let now = at("08:01:00");
    index.accept(summary("n1", "08:00:30", "08:00:31", &[("mkt", "a", 61, START)]), now);
    let late = summary("n1", "07:00:00", "08:00:59", &[("mkt", "a", 40, START)]);
    assert_eq!(index.accept(late, now), Accepted::Superseded);
    assert_eq!(packets(index.get("mkt", "a", now)), Some(61));
}

#[test]
fn an_agent_whose_clock_was_set_back_is_heard_once_the_old_one_is_silent() {
    let mut index = Index::default();
    index.accept(
        summary("n1", "08:00:00", "08:01:00", &[("mkt", "a", 60, START)]),
        at("08:01:00"),
    );
    let back = || summary("n1", "06:00:00", "06:00:01", &[("mkt", "a", 61, START)]);
    assert_eq!(index.accept(back(), at("08:01:29")), Accepted::Superseded);
    assert_eq!(index.accept(back(), at("08:01:30")), Accepted::Newest);
    assert_eq!(packets(index.get("mkt", "a", at("08:01:30"))), Some(61));
}

#[test]
fn the_view_is_sorted_by_namespace_and_name_over_all_nodes() {
    let mut index = Index::default();
    let now = at("08:01:00");
    index.accept(
        summary(
            "n2",
            "07:00:00",
            "08:01:00",
            &[("mkt", "b", 1, START), ("dev", "z", 1, START)],
        ),
        now,
    );
    index.accept(
        summary(
            "n1",
            "07:00:00",
            "08:01:00",
            &[("mkt", "c", 1, START), ("mkt", "a", 1, START)],
        ),
        now,
    );
    assert_eq!(names(&index, None, now), ["dev/z", "mkt/a", "mkt/b", "mkt/c"]);
    assert_eq!(names(&index, Some("mkt"), now), ["mkt/a", "mkt/b", "mkt/c"]);
    // A namespace that is a prefix of another is not that namespace.
    assert_eq!(names(&index, Some("mk"), now), Vec::<String>::new());
    assert!(index.get("mkt", "z", now).is_none());
}

#[test]
fn the_newer_sandbox_wins_whatever_node_reports_it_and_whenever() {
    let old = || summary("n1", "07:00:00", "08:05:00", &[("mkt", "a", 999, START)]);
    let new = || summary("n2", "07:00:00", "08:04:00", &[("mkt", "a", 3, Some("08:03:00"))]);
    let now = at("08:05:00");
    for order in [[old(), new()], [new(), old()]] {
        let mut index = Index::default();
        for summary in order {
            index.accept(summary, now);
        }
        assert_eq!(packets(index.get("mkt", "a", now)), Some(3));
        let rows = index.rows(None, now);
        assert_eq!(rows.len(), 1);
        assert_eq!(packets(rows.first().copied()), Some(3));
    }
}

#[test]
fn two_sandboxes_of_one_name_on_one_node_are_one_row() {
    let mut index = Index::default();
    let now = at("08:05:00");
    let pods = [
        ("mkt", "a", 3, Some("08:03:00")),
        ("mkt", "a", 999, START),
        ("mkt", "b", 1, START),
    ];
    index.accept(summary("n1", "07:00:00", "08:05:00", &pods), now);
    assert_eq!(packets(index.get("mkt", "a", now)), Some(3));
    assert_eq!(names(&index, None, now), ["mkt/a", "mkt/b"]);
}

#[test]
fn a_reporting_node_outweighs_a_silent_one_where_a_pod_is_not_counted() {
    let mut index = Index::default();
    index.accept(
        summary("n1", "07:00:00", "08:00:00", &[("mkt", "a", 7, START)]),
        at("08:00:00"),
    );
    index.accept(
        summary("n2", "07:00:00", "08:05:00", &[("mkt", "a", 0, None)]),
        at("08:05:00"),
    );
    let row = index.get("mkt", "a", at("08:05:00")).unwrap();
    assert_eq!(row.reported.spec.node, "n2");
}

#[test]
fn a_node_silent_for_three_intervals_is_stale_and_its_counts_are_frozen() {
    let mut index = Index::default();
    index.accept(
        summary("n1", "07:00:00", "08:00:59", &[("mkt", "a", 7, START)]),
        at("08:01:00"),
    );

    let before = index
        .get("mkt", "a", at("08:01:29.999"))
        .unwrap()
        .served(&Unheard::default())
        .into_owned();
    assert_eq!(before.status.summary, "OK");
    assert_eq!(before.status.conditions[0].kind, "Fresh");
    assert_eq!(before.status.conditions[0].status, "True");
    let arrived = at("08:01:00").as_millisecond().to_string();
    assert_eq!(before.metadata.resource_version.as_deref(), Some(arrived.as_str()));
    assert_eq!(index.resource_version(at("08:01:29.999")), arrived);

    let after = index
        .get("mkt", "a", at("08:01:30"))
        .unwrap()
        .served(&Unheard::default())
        .into_owned();
    assert_eq!(after.status.summary, "Stale");
    assert_eq!(after.status.conditions.len(), 1);
    assert_eq!(after.status.conditions[0].status, "False");
    assert_eq!(after.status.conditions[0].reason, "NodeSilent");
    assert_eq!(
        after.status.conditions[0].message,
        "node n1 has not reported since 2026-11-24T08:01:00Z"
    );
    assert_eq!(after.status.inbound.unwrap().packets, 7);
    // It changed, so its version did, and so did the list's.
    let stale = at("08:01:30").as_millisecond().to_string();
    assert_eq!(after.metadata.resource_version.as_deref(), Some(stale.as_str()));
    assert_eq!(index.resource_version(at("08:01:30")), stale);
}

#[test]
fn a_repeated_reading_does_not_keep_the_node_fresh() {
    let mut index = Index::default();
    let one = || summary("n1", "07:00:00", "08:00:59", &[("mkt", "a", 7, START)]);
    index.accept(one(), at("08:01:00"));
    index.accept(one(), at("08:01:20"));
    assert!(!index.get("mkt", "a", at("08:01:29")).unwrap().is_stale());
    assert!(index.get("mkt", "a", at("08:01:30")).unwrap().is_stale());
}

#[test]
fn rows_go_after_fifteen_minutes_without_a_report() {
    let mut index = Index::default();
    let arrived = at("08:00:00");
    index.accept(
        summary("n1", "07:00:00", "08:00:00", &[("mkt", "a", 7, START)]),
        arrived,
    );
    let expiry = arrived.checked_add(SignedDuration::from_mins(15)).unwrap();
    let last = expiry.checked_sub(SignedDuration::from_millis(1)).unwrap();
    assert!(index.get("mkt", "a", last).unwrap().is_stale());
    assert!(index.get("mkt", "a", expiry).is_none());
    assert!(index.rows(None, expiry).is_empty());
    assert_eq!(index.nodes(expiry), 0);
}

#[test]
fn versions_are_strictly_increasing_publish_times() {
    let mut index = Index::default();
    let now = at("08:00:00");
    let first = now.as_millisecond();
    assert_eq!(index.resource_version(now), first.to_string());
    index.accept(summary("n1", "07:00:00", "08:00:00", &[("mkt", "a", 7, START)]), now);
    index.accept(summary("n2", "07:00:00", "08:00:00", &[("mkt", "b", 7, START)]), now);
    let version = |name: &str| {
        index
            .get("mkt", name, now)
            .unwrap()
            .reported
            .metadata
            .resource_version
            .clone()
    };
    assert_eq!(version("a"), Some(first.to_string()));
    assert_eq!(version("b"), Some((first + 1).to_string()));
    assert_eq!(index.resource_version(now), (first + 1).to_string());
}

#[test]
fn a_reader_keeps_the_index_it_took() {
    let shared = SharedIndex::default();
    let now = at("08:00:00");
    shared.accept(summary("n1", "07:00:00", "08:00:00", &[("mkt", "a", 7, START)]), now);
    let taken: Arc<Index> = shared.snapshot();
    shared.accept(summary("n1", "07:00:00", "08:00:01", &[("mkt", "a", 8, START)]), now);
    assert_eq!(packets(taken.get("mkt", "a", now)), Some(7));
    assert_eq!(packets(shared.snapshot().get("mkt", "a", now)), Some(8));
}
