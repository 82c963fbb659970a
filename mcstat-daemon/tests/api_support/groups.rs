//! Two nodes whose Pods join and send: what `multicastgroups` is made of.
//!
//! ```text
//! n7: mkt/rec-0, mkt/rec-1    n8: mkt/rec-2, mkt/rec-3, mkt/src-0 (10.0.0.9)
//! 232.1.1.1  rec-0 wants 10.0.0.9 only; src-0 sent 31, rec-0 got 30
//! 239.1.1.1  all four; src-0 sent 1000, rec-0 got 1000 and rec-2 950, whose last one came from 192.0.2.7
//! 239.9.9.9  src-0 sends, nobody joins
//! ff15::1    rec-1 joined, nobody sends
//! 224.0.0.1, ff02::1:ff00:1    every stack
//! ```

use std::sync::Arc;

use jiff::Timestamp;
use mcstat::{
    aggregator::index::SharedIndex,
    api::{
        stats::{Finding, FindingKind, Group, GroupCounters},
        summary::{GroupMembers, NodeStatsSummary, PodReference, Querier},
    },
};
use serde_json::{Value, json};

use super::{before, idle_pod, summary};

/// A row of `group` on eth0, with nothing on it.
pub(crate) fn row(group: &str, source: Option<&str>, now: Timestamp) -> Group {
    Group {
        group: group.parse().unwrap(),
        source: source.map(|source| source.parse().unwrap()),
        interface: "eth0".into(),
        inbound: None,
        outbound: None,
        last_source: None,
        start_time: Some(before(now, 3600)),
        membership: None,
        finding: None,
        since: None,
    }
}

/// Packets of 142 bytes, the last one 4 s ago.
fn counters(packets: u64, source: &str, now: Timestamp) -> Option<GroupCounters> {
    Some(GroupCounters {
        packets,
        bytes: packets * 142,
        segments: packets,
        last_source: Some(source.parse().unwrap()),
        last_seen: Some(before(now, 4)),
        ..GroupCounters::default()
    })
}

/// Joined for a minute, by report and kernel.
pub(crate) fn joining(mut row: Group, mode: &str, sources: &[&str], now: Timestamp) -> Group {
    let version = if row.group.is_ipv4() { "IGMPv3" } else { "MLDv2" };
    let membership: Value = json!({
        "joined": true, "version": version, "mode": mode, "sources": sources, "witness": ["kernel", "report"],
        "since": before(now, 60), "expires": before(now, -200), "lastReport": before(now, 50), "reporter": "10.0.0.2",
        "reports": 3, "flaps": 0, "users": 1
    });
    row.membership = Some(serde_json::from_value(membership).unwrap());
    row
}

/// `n7` and `n8` as above.
pub(crate) fn nodes(now: Timestamp) -> [NodeStatsSummary; 2] {
    let pod = |node: &str, name: &str, groups: Vec<Group>| {
        let mut pod = idle_pod(node, "mkt", name, now);
        pod.status.groups = groups;
        pod
    };
    let any = |group: &str| joining(row(group, None, now), "EXCLUDE", &[], now);
    let got = |group: &str, packets, source: &str| Group {
        inbound: counters(packets, source, now),
        ..any(group)
    };
    let sent = |group: &str, source: Option<&str>, packets| Group {
        outbound: counters(packets, "10.0.0.9", now),
        ..row(group, source, now)
    };
    let wanted = Group {
        inbound: counters(30, "10.0.0.9", now),
        ..joining(row("232.1.1.1", Some("10.0.0.9"), now), "INCLUDE", &["10.0.0.9"], now)
    };
    let mut rec_1 = pod("n7", "rec-1", vec![any("224.0.0.1"), any("239.1.1.1"), any("ff15::1")]);
    rec_1.status.summary = "JoinedNoTraffic".into();
    rec_1.status.groups[2].finding = Some(FindingKind::JoinedNoTraffic);
    rec_1.status.groups[2].since = Some(before(now, 60));
    rec_1.status.findings = vec![Finding {
        kind: FindingKind::JoinedNoTraffic,
        group: Some("ff15::1".parse().unwrap()),
        interface: Some("eth0".into()),
        since: before(now, 60),
        message: "joined for 60 s, and nothing arrives".into(),
    }];
    let n7 = vec![
        pod(
            "n7",
            "rec-0",
            vec![
                any("224.0.0.1"),
                wanted,
                got("239.1.1.1", 1000, "10.0.0.9"),
                any("ff02::1:ff00:1"),
            ],
        ),
        rec_1,
    ];
    let n8 = vec![
        pod("n8", "rec-2", vec![got("239.1.1.1", 950, "192.0.2.7")]),
        pod("n8", "rec-3", vec![any("239.1.1.1")]),
        pod(
            "n8",
            "src-0",
            vec![
                sent("232.1.1.1", Some("10.0.0.9"), 31),
                sent("239.1.1.1", None, 1000),
                sent("239.9.9.9", None, 5),
            ],
        ),
    ];
    let (mut n7, mut n8) = (summary("n7", n7, now), summary("n8", n8, now));
    n7.multicast = members(&[
        ("224.0.0.1", &["rec-0", "rec-1"]),
        ("232.1.1.1", &["rec-0"]),
        ("239.1.1.1", &["rec-0", "rec-1"]),
        ("ff02::1:ff00:1", &["rec-0"]),
        ("ff15::1", &["rec-1"]),
    ]);
    n8.multicast = members(&[("239.1.1.1", &["rec-2", "rec-3"])]);
    n7.queriers = vec![querier(now)];
    n8.queriers = vec![querier(now)];
    [n7, n8]
}

fn members(groups: &[(&str, &[&str])]) -> Vec<GroupMembers> {
    let pods = |names: &[&str]| {
        let pods = names.iter().map(|name| PodReference {
            namespace: "mkt".into(),
            name: (*name).into(),
        });
        pods.collect()
    };
    let groups = groups.iter().map(|(group, names)| GroupMembers {
        group: group.parse().unwrap(),
        pods: pods(names),
    });
    groups.collect()
}

fn querier(now: Timestamp) -> Querier {
    serde_json::from_value(json!({
        "address": "10.0.0.1", "version": "IGMPv3", "elected": true, "present": true, "intervalSeconds": 125,
        "robustness": 2, "maxResponseMilliseconds": 10_000, "lastQuery": before(now, 20), "since": before(now, 600),
        "interfaces": 5
    }))
    .unwrap()
}

/// An index of [`nodes`], both arrived at `now`.
pub(crate) fn index(now: Timestamp) -> Arc<SharedIndex> {
    let index = SharedIndex::default();
    for summary in nodes(now) {
        index.accept(summary, now);
    }
    Arc::new(index)
}
