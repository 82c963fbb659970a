//! Who sends to a group: Pods, others, and the sources of source-specific groups.

use serde_json::json;

use super::tests::{NOW, all, members_of, one, senders_of};
use crate::aggregator::test_nodes::{address, and, at, index, joined, node, received, sent};

/// A minute after the reading the packet is a minute older, whatever the node's own clock says.
#[test]
fn a_sender_is_forgotten_after_a_minute_by_either_clock() {
    // The node's clock is an hour behind.
    let index = index(
        [node("n1", "07:10:00").with("mkt/a", json!([sent("239.1.1.1", 1, "07:09:50", "10.0.0.9")]))],
        NOW,
    );
    for (now, groups) in [("08:10:00", 1), ("08:10:49", 1), ("08:10:50", 0)] {
        assert_eq!(all(&index, now).len(), groups, "{now}");
    }
}

#[test]
fn a_source_that_no_pod_sent_from_is_external() {
    let receiver = |last: &str, source: &str| json!([received("239.1.1.1", 5, last, source)]);
    let both = and(
        sent("239.1.1.1", 5, "08:09:57", "10.0.0.2"),
        "inbound",
        received("239.1.1.1", 5, "08:09:57", "10.0.0.1")["inbound"].clone(),
    );
    let other = and(
        sent("239.1.1.1", 5, "08:09:57", "10.0.0.1"),
        "inbound",
        received("239.1.1.1", 5, "08:09:57", "10.0.0.2")["inbound"].clone(),
    );
    let index = index(
        [
            // These two hear each other: each row's lastSource is the other one's address.
            node("n1", NOW)
                .with("mkt/a", json!([both]))
                .with("mkt/b", json!([other])),
            node("n2", NOW)
                .with("mkt/c", receiver("08:09:58", "192.0.2.7"))
                .with("mkt/d", receiver("08:09:59", "192.0.2.7"))
                .with("mkt/e", receiver("08:08:00", "192.0.2.8")),
        ],
        NOW,
    );
    let group = one(&index, "239.1.1.1");
    assert_eq!(senders_of(&group), ["mkt/a", "mkt/b", "ext:192.0.2.7"]);
    let external = &group.status.senders[2];
    assert_eq!(
        (external.last_seen, external.sent, &external.node),
        (at("08:09:59"), None, &None)
    );
    // Somebody sends and nobody is a member: the group is there all the same.
    assert_eq!(members_of(std::slice::from_ref(&group)), ["239.1.1.1: "]);
}

#[test]
fn more_senders_are_told_of_when_the_source_changes_more_often_than_they_explain() {
    let heard = |changes: u64, source: &str| {
        let mut row = received("239.1.1.1", 5, "08:09:59", source);
        row["inbound"]["sourceChanges"] = json!(changes);
        row
    };
    let told = |before: u64, after: u64, senders: &[(&str, &str)]| {
        let at_time = |observed: &str, changes| {
            let summary = node("n1", observed).with("mkt/rec", json!([heard(changes, "10.0.0.9")]));
            senders.iter().fold(summary, |summary, (pod, source)| {
                summary.with(pod, json!([sent("239.1.1.1", 1, "08:09:59", source)]))
            })
        };
        let mut index = index([at_time("08:09:59", before)], "08:09:59");
        index.accept(at_time("08:10:00", after), at("08:10:00"));
        one(&index, "239.1.1.1").status.more_senders
    };
    // One unknown source that another one took turns with.
    assert!(told(0, 2, &[]));
    assert!(!told(0, 1, &[]));
    // What was long ago is no matter.
    assert!(!told(1000, 1000, &[]));
    // One Pod cannot take turns with itself, two can.
    assert!(told(0, 2, &[("mkt/a", "10.0.0.9")]));
    assert!(!told(0, 100, &[("mkt/a", "10.0.0.9"), ("mkt/b", "10.0.0.8")]));
}

#[test]
fn a_source_specific_group_tells_its_sources() {
    let series = |source: &str, row: serde_json::Value| and(row, "source", json!(source));
    let wants = |sources: &[&str], mode: &str| json!({"group": "232.1.1.1", "interface": "eth0", "source": sources[0], "membership": joined(mode, sources)});
    let index = index(
        [
            node("n1", NOW)
                .naming("232.1.1.1", &["mkt/rec-0", "mkt/rec-1", "mkt/rec-2"])
                .with(
                    "mkt/rec-0",
                    json!([
                        and(
                            series("10.0.0.1", received("232.1.1.1", 30, "08:09:59", "10.0.0.1")),
                            "membership",
                            joined("INCLUDE", &["10.0.0.1", "10.0.0.2"])
                        ),
                        // The membership stands on every row of the group: it counts once.
                        and(
                            series("192.0.2.9", received("232.1.1.1", 2, "08:09:50", "192.0.2.9")),
                            "membership",
                            joined("INCLUDE", &["10.0.0.1", "10.0.0.2"])
                        )
                    ]),
                )
                .with("mkt/rec-1", json!([wants(&["10.0.0.1"], "INCLUDE")]))
                .with("mkt/rec-2", json!([wants(&["10.0.0.3"], "EXCLUDE")])),
            node("n2", NOW).with(
                "mkt/src-0",
                json!([series("10.0.0.1", sent("232.1.1.1", 31, "08:09:59", "10.0.0.1"))]),
            ),
        ],
        NOW,
    );
    let group = one(&index, "232.1.1.1");
    assert_eq!(senders_of(&group), ["mkt/src-0", "ext:192.0.2.9"]);
    let sources = group.status.sources.as_ref().unwrap();
    let told: Vec<_> = sources
        .iter()
        .map(|s| {
            (
                s.source.to_string(),
                s.included,
                s.excluded,
                s.sent.packets,
                s.received.packets,
            )
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(a, i, e, s, r)| (a.as_str(), *i, *e, *s, *r))
        .collect();
    assert_eq!(
        told,
        [
            ("10.0.0.1", 2, 0, 31, 30),
            ("10.0.0.2", 1, 0, 0, 0),
            ("10.0.0.3", 0, 1, 0, 0),
            ("192.0.2.9", 0, 0, 0, 2)
        ]
    );
    assert_eq!(
        group.status.members[0].membership.sources,
        [address("10.0.0.1"), address("10.0.0.2")]
    );
    assert_eq!(group.status.members.len(), 3);
    // Outside the SSM ranges nothing is known of sources.
    let elsewhere = crate::aggregator::test_nodes::index([node("n1", NOW).naming("239.1.1.1", &["mkt/a"])], NOW);
    assert_eq!(one(&elsewhere, "239.1.1.1").status.sources, None);
}
