//! When a stream that nobody has joined is a finding, since when, and when it is none.

use serde_json::{Value, json};

use super::*;
use crate::aggregator::{
    index::Index,
    test_nodes::{address, and, at, finding, index, joined, node, sent},
};

const GROUP: &str = "239.1.1.1";

/// A node whose Pod `mkt/src` sends, the last packet at `last`.
fn sending(name: &str, observed: &str, last: &str) -> NodeStatsSummary {
    node(name, observed).with("mkt/src", json!([sent(GROUP, 9, last, "10.0.0.9")]))
}

fn since(index: &Index, now: &str) -> Option<Timestamp> {
    let all = index.unheard(None, at(now)).finding(address(GROUP));
    let one = index
        .unheard(Some(&BTreeSet::from([address(GROUP)])), at(now))
        .finding(address(GROUP));
    assert_eq!(all, one);
    all.map(|finding| finding.since)
}

/// Summaries of one node, each arriving when it was read.
fn told(index: &mut Index, summaries: impl IntoIterator<Item = NodeStatsSummary>) {
    for summary in summaries {
        let now = summary.observed_at;
        index.accept(summary, now);
    }
}

#[test]
fn a_stream_that_nobody_joins_is_found_after_thirty_seconds() {
    let mut index = Index::default();
    told(
        &mut index,
        ["08:10:00", "08:10:10", "08:10:20"].map(|time| sending("n1", time, time)),
    );
    assert_eq!(since(&index, "08:10:29"), None);
    told(&mut index, [sending("n1", "08:10:30", "08:10:30")]);
    assert_eq!(since(&index, "08:10:30"), Some(at("08:10:00")));
    let finding = index.unheard(None, at("08:10:30")).finding(address(GROUP)).unwrap();
    assert_eq!(finding.kind, FindingKind::SentNobodyJoined);
    assert_eq!(
        finding.message,
        "a Pod sends to 239.1.1.1 and no Pod of the cluster has joined it"
    );
    // Asking for others only, it is not told.
    let other = BTreeSet::from([address("239.1.1.2")]);
    assert!(index.unheard(Some(&other), at("08:10:30")).is_empty());
}

#[test]
fn it_goes_when_the_stream_ends_and_begins_anew() {
    let mut index = Index::default();
    told(
        &mut index,
        ["08:10:00", "08:10:10", "08:10:20", "08:10:30"].map(|time| sending("n1", time, time)),
    );
    told(&mut index, [sending("n1", "08:10:59", "08:10:30")]);
    assert_eq!(since(&index, "08:10:59"), Some(at("08:10:00")));
    told(&mut index, [sending("n1", "08:11:00", "08:10:30")]);
    assert_eq!(since(&index, "08:11:00"), None);
    told(
        &mut index,
        ["08:11:10", "08:11:20", "08:11:30"].map(|time| sending("n1", time, time)),
    );
    assert_eq!(since(&index, "08:11:39"), None);
    assert_eq!(since(&index, "08:11:40"), Some(at("08:11:10")));
}

#[test]
fn a_single_packet_is_no_stream() {
    let mut index = Index::default();
    for second in 0..=59 {
        let observed = format!("08:10:{second:02}");
        told(&mut index, [sending("n1", &observed, "08:10:00")]);
        assert_eq!(since(&index, &observed), None, "{observed}");
    }
}

#[test]
fn a_member_anywhere_ends_it_and_its_leaving_begins_it() {
    let mut index = Index::default();
    let streams = |times: &[&str]| times.iter().map(|time| sending("n1", time, time)).collect::<Vec<_>>();
    told(&mut index, streams(&["08:10:00", "08:10:10", "08:10:20", "08:10:30"]));
    assert_eq!(since(&index, "08:10:30"), Some(at("08:10:00")));
    told(&mut index, [node("n2", "08:10:31").naming(GROUP, &["mkt/rec"])]);
    assert_eq!(since(&index, "08:10:31"), None);
    told(&mut index, streams(&["08:10:40"]));
    // Listed without members is not joined.
    told(&mut index, [node("n2", "08:10:45").naming(GROUP, &[])]);
    told(&mut index, streams(&["08:10:50", "08:11:00", "08:11:10"]));
    told(&mut index, [node("n2", "08:11:10")]);
    assert_eq!(since(&index, "08:11:14"), None);
    assert_eq!(since(&index, "08:11:15"), Some(at("08:10:45")));
}

#[test]
fn a_membership_on_a_pods_row_is_a_member_too() {
    let mut index = Index::default();
    let times = ["08:10:00", "08:10:10", "08:10:20", "08:10:30"];
    let with = |membership: Value| {
        times.map(|time| {
            let row = json!({"group": GROUP, "interface": "eth0", "membership": membership});
            sending("n1", time, time).with("mkt/rec", json!([row]))
        })
    };
    told(&mut index, with(joined("EXCLUDE", &[])));
    assert_eq!(since(&index, "08:10:31"), None);
    let mut index = Index::default();
    let left = and(joined("EXCLUDE", &[]), "joined", json!(false));
    told(&mut index, with(left.clone()));
    assert_eq!(since(&index, "08:10:31"), Some(at("08:10:00")));
    // Who would be a member but for a rule is none.
    let rule =
        json!({"policy": {"kind": "NetworkPolicy", "namespace": "mkt", "name": "p"}, "rule": "r", "action": "Drop"});
    let mut index = Index::default();
    told(&mut index, with(and(left, "denied", rule)));
    assert_eq!(since(&index, "08:10:31"), Some(at("08:10:00")));
}

#[test]
fn a_silent_node_neither_sends_nor_lets_its_members_go() {
    let mut index = Index::default();
    told(&mut index, [node("n2", "08:10:00").naming(GROUP, &["mkt/rec"])]);
    told(
        &mut index,
        ["08:10:00", "08:10:20", "08:10:40", "08:11:00"].map(|time| sending("n1", time, time)),
    );
    assert_eq!(index.unheard(None, at("08:11:00")), Unheard::default());

    let mut index = Index::default();
    told(
        &mut index,
        ["08:10:00", "08:10:20", "08:10:40"].map(|time| sending("n1", time, time)),
    );
    assert_eq!(since(&index, "08:11:09"), Some(at("08:10:00")));
    assert_eq!(since(&index, "08:11:10"), None);
    // Back after a silence: what was sent meanwhile is unknown.
    told(
        &mut index,
        [
            sending("n1", "08:11:20", "08:11:20"),
            sending("n1", "08:11:40", "08:11:40"),
        ],
    );
    assert_eq!(since(&index, "08:11:49"), None);
    assert_eq!(since(&index, "08:11:50"), Some(at("08:11:20")));
}

#[test]
fn nothing_is_said_while_a_node_may_not_know_its_members_yet() {
    let mut index = Index::default();
    told(
        &mut index,
        ["08:10:00", "08:10:10", "08:10:20", "08:10:30"].map(|time| sending("n1", time, time)),
    );
    let young = |observed: &str, witness: &str| {
        let membership = and(joined("EXCLUDE", &[]), "witness", json!([witness]));
        let row = json!({"group": "224.0.0.1", "interface": "eth0", "membership": membership});
        let mut summary = node("n2", observed).with("mkt/rec", json!([row]));
        summary.start_time = at("08:10:00");
        summary
    };
    // It has listened for less than 260 s, and no kernel tells it who had joined before.
    told(&mut index, [young("08:10:31", "report")]);
    assert_eq!(since(&index, "08:10:31"), None);
    told(&mut index, [young("08:10:32", "kernel")]);
    assert_eq!(since(&index, "08:10:32"), Some(at("08:10:00")));
    told(
        &mut index,
        ["08:14:00", "08:14:19"].map(|time| sending("n1", time, time)),
    );
    told(&mut index, [young("08:14:19", "report")]);
    assert_eq!(since(&index, "08:14:30"), None);
    told(&mut index, [young("08:14:20", "report")]);
    assert_eq!(since(&index, "08:14:48"), Some(at("08:14:00")));
}

#[test]
fn link_local_streams_are_left_out() {
    let mut index = Index::default();
    for group in ["224.0.0.251", "ff02::fb", "ff01::5", "ff05::5"] {
        let times = ["08:10:00", "08:10:20", "08:10:40"];
        told(
            &mut index,
            times.map(|time| node(group, time).with("mkt/src", json!([sent(group, 9, time, "10.0.0.9")]))),
        );
    }
    let unheard = index.unheard(None, at("08:10:40"));
    let found = |group: &str| unheard.finding(address(group)).is_some();
    assert_eq!(
        ["224.0.0.251", "ff02::fb", "ff01::5", "ff05::5"].map(found),
        [false, false, false, true]
    );
}

#[test]
fn the_sending_pod_says_so_by_precedence() {
    let status = |summary: &str, findings: Vec<Finding>, last: &str| {
        let mut index = Index::default();
        told(
            &mut index,
            ["08:10:00", "08:10:10", "08:10:20", "08:10:30"].map(|time| {
                let mut node = sending("n1", time, time).with("mkt/other", json!([sent(GROUP, 1, last, "10.0.0.8")]));
                for pod in &mut node.pods {
                    pod.status.summary = summary.into();
                    pod.status.findings.clone_from(&findings);
                }
                node
            }),
        );
        let unheard = index.unheard(None, at("08:10:30"));
        ["src", "other"].map(|pod| {
            let served = index
                .get("mkt", pod, at("08:10:30"))
                .unwrap()
                .served(&unheard)
                .into_owned();
            let group = &served.status.groups[0];
            (
                served.status.summary,
                group.finding.map(FindingKind::word),
                group.since,
                served.status.findings.len(),
            )
        })
    };
    let said = |word: &str| (word.to_owned(), Some("SentNobodyJoined"), Some(at("08:10:00")), 1);
    let not = |word: &str| (word.to_owned(), None, None, 0);
    // The other Pod sent once and long ago.
    assert_eq!(status("OK", vec![], "08:09:00"), [said("SentNobodyJoined"), not("OK")]);
    assert_eq!(
        status("Dropping", vec![], "08:09:00"),
        [said("SentNobodyJoined"), not("Dropping")]
    );
    assert_eq!(
        status("NotCounted", vec![], "08:10:05"),
        [said("NotCounted"), said("NotCounted")]
    );
    let first = status(
        "JoinedNoTraffic",
        vec![finding("JoinedNoTraffic", Some("239.9.9.9"), "08:05:00")],
        "08:09:00",
    );
    assert_eq!((first[0].0.as_str(), first[0].3), ("JoinedNoTraffic", 2));
    let later = status("TTL1", vec![finding("TTL1", Some(GROUP), "08:05:00")], "08:09:00");
    assert_eq!((later[0].0.as_str(), later[0].3), ("SentNobodyJoined", 2));
    assert_eq!(later[1].0, "TTL1");
}

#[test]
fn the_group_says_so_too_and_the_finding_is_the_clusters() {
    let mut index = Index::default();
    told(
        &mut index,
        ["08:10:00", "08:10:10", "08:10:20", "08:10:30"].map(|time| sending("n1", time, time)),
    );
    let now = at("08:10:30");
    let groups = crate::aggregator::groups::groups(&index, None, &index.unheard(None, now), now);
    assert_eq!(
        (groups.len(), groups[0].status.summary.as_str()),
        (1, "SentNobodyJoined")
    );
    let told = &groups[0].status.findings[0];
    assert_eq!((&told.pod, &told.node), (&None, &None));
}

#[test]
fn what_is_remembered_of_a_node_is_bounded() {
    let joins = |count: u32, observed: &str| {
        (0..count).fold(node("n1", observed), |summary, number| {
            let group = std::net::Ipv4Addr::from(0xef01_0000 + number).to_string();
            summary.naming(&group, &["mkt/rec"])
        })
    };
    let before = Streams::next(None, false, &joins(5000, "08:10:00"), at("08:10:00"));
    let pods: &[PodMulticastStats] = &[];
    let after = Streams::next(Some((&before, pods)), true, &joins(10, "08:10:10"), at("08:10:10"));
    assert_eq!((before.left.len(), after.left.len()), (0, LEFT_MAX));
    let long = Streams::next(Some((&after, pods)), true, &joins(0, "08:10:20"), at("08:10:20"));
    assert_eq!(long.left.len(), LEFT_MAX);
    // The youngest are kept.
    assert_eq!(long.left.values().filter(|left| **left == at("08:10:20")).count(), 10);
}

#[test]
fn an_index_of_nothing_has_no_findings() {
    assert!(index([], "08:10:00").unheard(None, at("08:10:00")).is_empty());
}
