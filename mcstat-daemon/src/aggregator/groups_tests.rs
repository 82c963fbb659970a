//! What a group is made of: members, sums, queriers, findings, and what of them holds when a node falls silent.

use serde_json::json;

use super::*;
use crate::aggregator::test_nodes::{address, and, at, finding, index, joined, node, received, sent};

pub(super) const NOW: &str = "08:10:00";

pub(super) fn all(index: &Index, now: &str) -> Vec<MulticastGroup> {
    groups(index, None, &Unheard::default(), at(now))
}

pub(super) fn one(index: &Index, group: &str) -> MulticastGroup {
    let mut found = groups(index, Some(address(group)), &Unheard::default(), at(NOW));
    assert_eq!(found.len(), 1, "{group}");
    let found = found.pop().unwrap();
    let listed = all(index, NOW).into_iter().find(|listed| listed.group == found.group);
    assert_eq!(listed.as_ref(), Some(&found), "one group is what the list says of it");
    found
}

/// `GROUP: namespace/name,…` of every group.
pub(super) fn members_of(groups: &[MulticastGroup]) -> Vec<String> {
    let pods = |group: &MulticastGroup| -> Vec<String> {
        group
            .pods
            .iter()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect()
    };
    groups
        .iter()
        .map(|group| format!("{}: {}", group.metadata.name, pods(group).join(",")))
        .collect()
}

pub(super) fn senders_of(group: &MulticastGroup) -> Vec<&str> {
    group
        .status
        .senders
        .iter()
        .map(|sender| sender.sender.as_str())
        .collect()
}

#[test]
fn groups_are_sorted_by_address_and_members_by_name() {
    let index = index(
        [
            node("n2", NOW)
                .naming("239.1.1.10", &["b/x", "a/z"])
                .naming("ff15::1", &["a/z"]),
            node("n1", NOW)
                .naming("239.1.1.9", &["a/z"])
                .naming("239.1.1.10", &["a/y"]),
        ],
        NOW,
    );
    let expected = ["239.1.1.9: a/z", "239.1.1.10: a/y,a/z,b/x", "ff15::1: a/z"];
    assert_eq!(members_of(&all(&index, NOW)), expected);
}

#[test]
fn a_member_says_how_it_is_known() {
    let row =
        |interface: &str| json!({"group": "239.1.1.1", "interface": interface, "membership": joined("EXCLUDE", &[])});
    let gone = json!({"group": "239.1.1.1", "interface": "net1", "membership": and(joined("EXCLUDE", &[]), "joined", json!(false))});
    let index = index(
        [node("n1", NOW)
            .naming("239.1.1.1", &["mkt/rec-0"])
            .with("mkt/rec-0", json!([row("eth0"), gone, row("net2")]))
            // Its node does not name it as a member: it is none, whatever it wants.
            .with("mkt/rec-1", json!([row("eth0")]))],
        NOW,
    );
    let group = one(&index, "239.1.1.1");
    assert_eq!(members_of(std::slice::from_ref(&group)), ["239.1.1.1: mkt/rec-0"]);
    let interfaces: Vec<_> = group
        .status
        .members
        .iter()
        .map(|member| member.interface.as_str())
        .collect();
    assert_eq!(interfaces, ["eth0", "net2"]);
    let member = serde_json::to_value(&group.status.members[0]).unwrap();
    for (field, value) in [
        ("namespace", json!("mkt")),
        ("pod", json!("rec-0")),
        ("node", json!("n1")),
        ("version", json!("IGMPv3")),
        ("mode", json!("EXCLUDE")),
        ("witness", json!(["report"])),
        ("since", json!("2026-11-24T08:00:00Z")),
    ] {
        assert_eq!(member[field], value, "{field}");
    }
}

#[test]
fn sums_are_over_all_nodes_and_senders_are_those_of_the_last_minute() {
    let index = index(
        [
            node("n1", NOW)
                .naming("239.1.1.1", &["mkt/rec-0"])
                .with(
                    "mkt/rec-0",
                    json!([received("239.1.1.1", 1050, "08:09:58", "10.0.0.9")]),
                )
                .with("mkt/old-0", json!([sent("239.1.1.1", 50, "08:08:59", "10.0.0.8")])),
            node("n2", NOW).with("mkt/src-0", json!([sent("239.1.1.1", 1000, "08:09:59", "10.0.0.9")])),
        ],
        NOW,
    );
    let group = one(&index, "239.1.1.1");
    let traffic = |packets| Traffic {
        packets,
        bytes: packets * 142,
    };
    assert_eq!(
        (group.status.sent, group.status.received),
        (traffic(1050), traffic(1050))
    );
    assert_eq!(group.status.last_seen, Some(at("08:09:59")));
    assert_eq!(group.status.nodes, ["n1", "n2"]);
    assert_eq!((group.status.nodes_reporting, group.status.nodes_expected), (2, 2));
    let sender = Sender {
        sender: "mkt/src-0".into(),
        node: Some("n2".into()),
        sent: Some(traffic(1000)),
        last_seen: at("08:09:59"),
    };
    assert_eq!(group.status.senders, [sender]);
    assert_eq!(group.status.summary, "OK");
}

/// K7 of the acceptance list: a silent node's Pods leave every group; its counts stay in the sums.
#[test]
fn a_silent_nodes_pods_are_no_members_and_stay_in_the_sums() {
    let mut index = index(
        [node("n1", "08:09:00")
            .naming("239.1.1.1", &["mkt/gone"])
            .naming("239.1.1.2", &["mkt/gone"])
            .hearing("10.0.0.1")
            .with("mkt/gone", json!([sent("239.1.1.1", 7, "08:09:00", "10.0.0.9")]))],
        "08:09:00",
    );
    let live = |observed: &str| {
        node("n2", observed)
            .naming("239.1.1.1", &["mkt/here"])
            .with("mkt/here", json!([received("239.1.1.1", 5, observed, "10.0.0.9")]))
    };
    index.accept(live("08:09:28"), at("08:09:28"));
    let before = all(&index, "08:09:29");
    assert_eq!(
        members_of(&before),
        ["239.1.1.1: mkt/gone,mkt/here", "239.1.1.2: mkt/gone"]
    );
    assert_eq!(
        (before[0].status.nodes_reporting, before[0].status.nodes_expected),
        (2, 2)
    );

    let after = all(&index, "08:09:30");
    assert_eq!(members_of(&after), ["239.1.1.1: mkt/here"]);
    assert_eq!(
        (after[0].status.nodes_reporting, after[0].status.nodes_expected),
        (1, 2)
    );
    assert_eq!((after[0].status.sent.packets, after[0].status.received.packets), (7, 5));
    assert!(after[0].status.queriers.is_empty());
    // A live receiver still hears it: it sends, silent node or not.
    index.accept(live("08:10:30"), at("08:10:30"));
    let later = all(&index, "08:10:31");
    assert_eq!(senders_of(&later[0]), ["mkt/gone"]);
    assert_eq!(later[0].status.senders[0].last_seen, at("08:10:30"));
}

#[test]
fn of_two_nodes_that_name_one_pod_the_newer_sandbox_is_the_member() {
    let row =
        |membership: &serde_json::Value| json!([{"group": "239.1.1.1", "interface": "eth0", "membership": membership}]);
    let old = node("n1", NOW)
        .naming("239.1.1.1", &["mkt/a"])
        .naming("239.1.1.2", &["mkt/a"])
        .with("mkt/a", row(&joined("EXCLUDE", &[])));
    let mut new = node("n2", NOW)
        .naming("239.1.1.1", &["mkt/a"])
        .with("mkt/a", row(&joined("INCLUDE", &["10.0.0.9"])));
    new.pods[0].status.start_time = Some(at("08:09:00"));
    for order in [[old.clone(), new.clone()], [new, old]] {
        let index = index(order, NOW);
        assert_eq!(members_of(&all(&index, NOW)), ["239.1.1.1: mkt/a"]);
        let group = one(&index, "239.1.1.1");
        let members: Vec<_> = group.status.members.iter().map(|member| member.node.as_str()).collect();
        assert_eq!((members, &group.status.nodes), (vec!["n2"], &vec!["n2".to_owned()]));
    }
}

#[test]
fn status_is_the_first_finding_of_pods_cluster_and_queriers() {
    let group = "239.1.1.1";
    let mut n1 = node("n1", NOW)
        .naming(group, &["mkt/a"])
        .with("mkt/a", json!([received(group, 1, NOW, "10.0.0.9")]));
    n1.pods[0].status.findings = vec![
        finding("TTL1", Some(group), "08:05:00"),
        finding("JoinedNoTraffic", Some("239.9.9.9"), "08:05:00"),
    ];
    let status = |summaries: Vec<crate::api::summary::NodeStatsSummary>| {
        let found = one(&index(summaries, NOW), group).status;
        let kinds: Vec<_> = found.findings.iter().map(|told| told.finding.kind.word()).collect();
        (found.summary, kinds.join(","))
    };
    let told = |summary: &str, kinds: &str| (summary.to_owned(), kinds.to_owned());
    assert_eq!(status(vec![n1.clone()]), told("TTL1", "TTL1"));

    // Of the queriers where members are, in the group's family.
    let mut n2 = node("n2", NOW);
    n2.findings = vec![finding("TwoQueriers", None, "08:05:00")];
    assert_eq!(status(vec![n1.clone(), n2.clone()]), told("TTL1", "TTL1"));
    n2 = n2.naming(group, &["mkt/b"]);
    assert_eq!(
        status(vec![n1.clone(), n2.clone()]),
        told("TwoQueriers", "TwoQueriers,TTL1")
    );
    n2.findings = vec![finding("NoQuerier", Some("ff02::1"), "08:05:00")];
    assert_eq!(status(vec![n1.clone(), n2.clone()]), told("TTL1", "TTL1"));
    n2.findings = vec![finding("NoQuerier", Some("224.0.0.1"), "08:05:00")];
    assert_eq!(status(vec![n1, n2]), told("NoQuerier", "NoQuerier,TTL1"));
}

#[test]
fn link_local_groups_have_no_findings_and_those_of_every_stack_are_hidden() {
    let mut n1 = node("n1", NOW);
    n1.findings = vec![finding("NoQuerier", None, "08:05:00")];
    for group in ["224.0.0.1", "224.0.0.251", "ff02::1:ff00:1", "ff02::2", "239.1.1.1"] {
        n1 = n1.naming(group, &["mkt/a"]);
    }
    let told: Vec<_> = all(&index([n1], NOW), NOW)
        .into_iter()
        .map(|group| (group.metadata.name, group.status.hidden, group.status.summary))
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(name, hidden, word)| (name.as_str(), *hidden, word.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("224.0.0.1", true, "OK"),
            ("224.0.0.251", false, "OK"),
            ("239.1.1.1", false, "NoQuerier"),
            ("ff02::2", false, "OK"),
            ("ff02::1:ff00:1", true, "OK"),
        ]
    );
}

#[test]
fn queriers_are_those_of_the_groups_nodes_and_family() {
    let index = index(
        [
            node("n1", NOW)
                .naming("239.1.1.1", &["mkt/a"])
                .hearing("10.0.0.1")
                .hearing("fe80::1"),
            node("n2", NOW)
                .naming("ff15::1", &["mkt/b"])
                .hearing("10.0.0.2")
                .hearing("fe80::2"),
        ],
        NOW,
    );
    let heard = |group: &str| {
        let queriers = one(&index, group).status.queriers;
        queriers
            .iter()
            .map(|heard| format!("{} {}", heard.node, heard.querier.address))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (heard("239.1.1.1"), heard("ff15::1")),
        (vec!["n1 10.0.0.1".to_owned()], vec!["n2 fe80::2".to_owned()])
    );
}
