//! Each finding: what provokes it, after how long, and what makes it go. Times are those of the kinds: 30 s of evidence, 255 s
//! for queriers.

use super::*;
use crate::api::stats::FilterMode;
use crate::ledger::{
    scene::{at, kernel, port, series, snapshot},
    snapshot::{GroupReading, OverflowCounts, SourceFilter},
};

const GROUP: &str = "239.1.1.1";

/// Memberships and findings fed with the same snapshots.
#[derive(Default)]
struct Told {
    memberships: Memberships,
    findings: Findings,
}

impl Told {
    fn tick(&mut self, snapshot: &Snapshot) -> Vec<String> {
        self.memberships.update(snapshot);
        self.findings.update(snapshot, &self.memberships);
        words(self.findings.of_port(1))
    }

    fn node(&self) -> Vec<String> {
        words(self.findings.of_node())
    }
}

/// `Kind group@since`.
fn words(findings: &[Finding]) -> Vec<String> {
    let text = |finding: &Finding| {
        let group = finding.group.map(|group| format!(" {group}")).unwrap_or_default();
        format!(
            "{}{group}@{}",
            finding.kind.word(),
            finding.since.duration_since(at(0)).as_secs()
        )
    };
    findings.iter().map(text).collect()
}

/// Pod 1, its kernel a member of `groups`, with what `change` adds.
fn joined(seconds: i64, groups: &[&str], change: impl FnOnce(&mut Snapshot)) -> Snapshot {
    let mut snapshot = snapshot(seconds, 1, &[]);
    snapshot.namespaces.push(kernel(1, groups));
    change(&mut snapshot);
    snapshot
}

const NONE: [&str; 0] = [];

#[test]
fn joined_no_traffic_after_thirty_seconds_without_a_packet() {
    let mut told = Told::default();
    assert_eq!(told.tick(&joined(0, &[GROUP], |_| ())), NONE);
    assert_eq!(told.tick(&joined(29, &[GROUP], |_| ())), NONE);
    assert_eq!(
        told.tick(&joined(30, &[GROUP], |_| ())),
        ["JoinedNoTraffic 239.1.1.1@0"]
    );
    let arrives = |snapshot: &mut Snapshot| snapshot.ports[0].inbound.groups.push(series(GROUP, 31, "192.0.2.1"));
    assert_eq!(told.tick(&joined(31, &[GROUP], arrives)), NONE);
    assert_eq!(told.tick(&joined(60, &[GROUP], arrives)), NONE);
    assert_eq!(
        told.tick(&joined(61, &[GROUP], arrives)),
        ["JoinedNoTraffic 239.1.1.1@31"]
    );
    assert_eq!(told.tick(&joined(62, &[], arrives)), NONE, "it has left");
}

#[test]
fn no_traffic_is_no_finding_where_the_only_sender_is_the_pod_itself() {
    let own = |snapshot: &mut Snapshot| {
        let mut sent = series(GROUP, 0, "10.10.0.5");
        sent.last_seen = Some(snapshot.at);
        snapshot.ports[0].outbound.groups.push(sent);
    };
    let mut told = Told::default();
    for seconds in [0, 30, 60] {
        assert_eq!(told.tick(&joined(seconds, &[GROUP], own)), NONE);
    }
    // Its own packets at another Pod are no other sender.
    let echoed = |source: &str, seconds: i64| {
        joined(seconds, &[GROUP], |snapshot| {
            own(snapshot);
            snapshot.ports.push(port(2));
            snapshot.ports[1].inbound.groups.push(series(GROUP, seconds, source));
        })
    };
    assert_eq!(told.tick(&echoed("10.10.0.5", 61)), NONE);
    assert_eq!(told.tick(&echoed("192.0.2.1", 62)), ["JoinedNoTraffic 239.1.1.1@0"]);
    let other_sends = joined(63, &[GROUP], |snapshot| {
        own(snapshot);
        snapshot.ports.push(port(2));
        snapshot.ports[1].outbound.groups.push(series(GROUP, 63, "10.10.0.6"));
    });
    assert_eq!(told.tick(&other_sends), ["JoinedNoTraffic 239.1.1.1@0"]);
    // It has not sent for a minute.
    let silent = joined(124, &[GROUP], |snapshot| {
        snapshot.ports[0].outbound.groups.push(series(GROUP, 64, "10.10.0.5"));
    });
    assert_eq!(told.tick(&silent), ["JoinedNoTraffic 239.1.1.1@0"]);
}

/// The packets of a group without a slot may be among the others'.
#[test]
fn no_traffic_finding_stands_for_a_group_without_a_slot_while_others_grow() {
    let overflowing = |seconds: i64, last: i64| {
        joined(seconds, &[GROUP, "ff0e::1"], |snapshot| {
            let inbound = &mut snapshot.ports[0].inbound;
            inbound.other[0].last_seen = Some(at(last));
            inbound.overflow.port_limit = last.cast_unsigned();
        })
    };
    let mut told = Told::default();
    told.tick(&overflowing(0, 0));
    let limit = "MembershipLimit@40";
    assert_eq!(
        told.tick(&overflowing(40, 40)),
        ["JoinedNoTraffic ff0e::1@0", limit],
        "the other family is not covered up"
    );
    assert_eq!(told.tick(&overflowing(69, 40)), ["JoinedNoTraffic ff0e::1@0", limit]);
    assert_eq!(
        told.tick(&overflowing(70, 40)),
        ["JoinedNoTraffic 239.1.1.1@0", "JoinedNoTraffic ff0e::1@0"]
    );
}

#[test]
fn traffic_not_joined_needs_a_witness_and_thirty_seconds() {
    let arriving = |seconds: i64, groups: Option<&[&str]>, twice: bool| {
        let mut snapshot = snapshot(seconds, 1, &[]);
        snapshot.namespaces.extend(groups.map(|groups| kernel(1, groups)));
        let inbound = &mut snapshot.ports[0].inbound.groups;
        inbound.push(series("232.1.1.1", seconds, "192.0.2.1"));
        inbound[0].source = Some("192.0.2.1".parse().unwrap());
        if twice {
            let second = GroupReading {
                source: Some("192.0.2.2".parse().unwrap()),
                ..inbound[0].clone()
            };
            inbound.push(second);
        }
        snapshot
    };
    let mut told = Told::default();
    for seconds in [0, 60] {
        assert_eq!(told.tick(&arriving(seconds, None, false)), NONE, "nobody would know");
    }
    assert_eq!(told.tick(&arriving(61, Some(&[]), true)), NONE);
    assert_eq!(told.tick(&arriving(90, Some(&[]), true)), NONE);
    let found = told.tick(&arriving(91, Some(&[]), true));
    assert_eq!(
        found,
        ["TrafficNotJoined 232.1.1.1@61"],
        "once, whatever the number of sources"
    );
    assert_eq!(told.tick(&arriving(92, Some(&["232.1.1.1"]), true)), NONE);
    assert_eq!(
        told.tick(&arriving(93, Some(&[]), true)),
        NONE,
        "the evidence begins anew"
    );
}

#[test]
fn link_local_groups_are_left_out() {
    let groups = ["224.0.0.251", "ff02::fb", "ff01::1"];
    let sent = |seconds: i64, ttl1: u64| {
        joined(seconds, &groups, |snapshot| {
            let mut sent = series("224.0.0.251", seconds, "10.10.0.5");
            sent.ttl1 = ttl1;
            snapshot.ports[0].outbound.groups.push(sent);
            snapshot.ports[0]
                .inbound
                .groups
                .push(series("224.0.0.5", seconds, "10.10.0.9"));
        })
    };
    let mut told = Told::default();
    for seconds in [0, 60, 120, 600] {
        assert_eq!(told.tick(&sent(seconds, seconds.cast_unsigned())), NONE);
        assert!(told.node().is_empty(), "nobody needs a querier");
    }
}

#[test]
fn ttl_1_shows_at_once_and_goes_thirty_seconds_after_the_last() {
    let sent = |seconds: i64, ttl1: u64| {
        joined(seconds, &[], |snapshot| {
            let mut sent = series(GROUP, seconds, "10.10.0.5");
            sent.ttl1 = ttl1;
            snapshot.ports[0].outbound.groups.push(sent);
        })
    };
    let mut told = Told::default();
    assert_eq!(
        told.tick(&sent(0, 7)),
        ["TTL1 239.1.1.1@0"],
        "a series that began with this watch"
    );
    assert_eq!(told.tick(&sent(29, 7)), ["TTL1 239.1.1.1@0"]);
    assert_eq!(told.tick(&sent(30, 7)), NONE);
    assert_eq!(told.tick(&sent(31, 8)), ["TTL1 239.1.1.1@31"]);
    // What was counted before this watch is no growth that was seen.
    let mut later = Told::default();
    assert_eq!(later.tick(&sent(100, 8)), NONE);
}

#[test]
fn exactly_twenty_ipv4_groups_are_probably_the_socket_limit() {
    let names: Vec<_> = (1..=20).map(|n| format!("239.2.0.{n}")).collect();
    let twenty: Vec<_> = names.iter().map(String::as_str).collect();
    let with = |more: &[&str]| {
        let groups: Vec<_> = twenty.iter().chain(more).copied().collect();
        joined(0, &groups, |_| ())
    };
    let first = |snapshot: &Snapshot| Told::default().tick(snapshot);
    assert_eq!(first(&with(&["224.0.0.1", "ff0e::1"])), ["MembershipLimit@0"]);
    assert_eq!(first(&with(&["239.2.0.21"])), NONE);
    assert_eq!(first(&joined(0, &twenty[..19], |_| ())), NONE);
}

#[test]
fn limits_of_our_own_are_said_too() {
    let mut told = Told::default();
    let fair = |seconds: i64, fair_share: u64| {
        joined(seconds, &[], |snapshot| {
            snapshot.ports[0].outbound.overflow = OverflowCounts {
                fair_share,
                ..OverflowCounts::default()
            };
        })
    };
    told.tick(&fair(0, 0));
    assert_eq!(told.tick(&fair(1, 1)), ["MembershipLimit@1"]);
    assert_eq!(told.tick(&fair(31, 1)), NONE);

    let mut told = Told::default();
    let flood: Vec<_> = (0..6)
        .map(|n| format!("1 out 10.10.0.5 igmpv3-report TO_EX(239.{n}.0.1 x183)"))
        .collect();
    let flood: Vec<_> = flood.iter().map(String::as_str).collect();
    assert_eq!(told.tick(&snapshot(0, 1, &flood)).last().unwrap(), "MembershipLimit@0");
}

#[test]
fn version_mismatch_is_a_member_that_reports_newer_than_it_is_asked() {
    let mut told = Told::default();
    let old = "1 in 10.0.0.1 igmpv2-query";
    let report = "1 out 10.10.0.5 igmpv3-report IS_EX(239.1.1.1)";
    let arriving = |seconds: i64, messages: &[&str]| {
        let mut snapshot = snapshot(seconds, 1, messages);
        snapshot.ports[0]
            .inbound
            .groups
            .push(series(GROUP, seconds, "192.0.2.1"));
        snapshot
    };
    told.tick(&arriving(0, &[report]));
    told.tick(&arriving(1, &[old]));
    assert_eq!(told.tick(&arriving(40, &[])), NONE, "it has not answered yet");
    assert_eq!(told.tick(&arriving(41, &[report])), NONE);
    assert_eq!(told.tick(&arriving(70, &[])), NONE);
    assert_eq!(told.tick(&arriving(71, &[])), ["VersionMismatch 239.1.1.1@41"]);
    assert_eq!(
        told.tick(&arriving(72, &["1 out 10.10.0.5 igmpv2-report 239.1.1.1"])),
        NONE
    );
}

#[test]
fn source_filtered_needs_every_arriving_source_to_be_unwanted() {
    let arriving = |seconds: i64, mode, source: &str, changes: u64| {
        joined(seconds, &[GROUP], |snapshot| {
            let mut series = series(GROUP, seconds, source);
            series.source_changes = changes;
            snapshot.ports[0].inbound.groups.push(series);
            snapshot.namespaces[0].interfaces[0].groups[0].filter = Some(SourceFilter {
                mode,
                sources: vec!["192.0.2.1".parse().unwrap()],
            });
        })
    };
    let mut told = Told::default();
    let found = ["SourceFiltered 239.1.1.1@0"];
    told.tick(&arriving(0, FilterMode::Exclude, "192.0.2.1", 0));
    assert_eq!(told.tick(&arriving(29, FilterMode::Exclude, "192.0.2.1", 0)), NONE);
    assert_eq!(told.tick(&arriving(30, FilterMode::Exclude, "192.0.2.1", 0)), found);
    assert_eq!(told.tick(&arriving(31, FilterMode::Include, "192.0.2.1", 0)), NONE);
    // From another source than the one wanted; two packets of changing sources may be anybody's.
    told.tick(&arriving(32, FilterMode::Include, "192.0.2.2", 1));
    assert_eq!(
        told.tick(&arriving(62, FilterMode::Include, "192.0.2.2", 1)),
        ["SourceFiltered 239.1.1.1@32"]
    );
    assert_eq!(told.tick(&arriving(63, FilterMode::Include, "192.0.2.2", 3)), NONE);
}

#[test]
fn groups_that_share_a_mac_address_name_each_other_at_once() {
    // 239.1.1.1 and 224.129.1.1 have the same low 23 bits, ff0e::1 and ff1e::1 the same low 32.
    let groups = ["239.1.1.1", "224.129.1.1", "239.1.1.2", "ff0e::1", "ff1e::1"];
    let mut told = Told::default();
    assert_eq!(
        told.tick(&joined(0, &groups, |_| ())),
        ["224.129.1.1", "239.1.1.1", "ff0e::1", "ff1e::1"].map(|group| format!("MacCollision {group}@0"))
    );
    assert_eq!(told.tick(&joined(1, &["239.1.1.1", "ff0e::1"], |_| ())), NONE);
}

#[test]
fn findings_come_by_precedence() {
    let mut told = Told::default();
    let all = |seconds: i64| {
        joined(seconds, &["239.1.1.1", "224.129.1.1"], |snapshot| {
            let mut sent = series("239.9.9.9", seconds, "10.10.0.5");
            sent.ttl1 = seconds.cast_unsigned();
            snapshot.ports[0].outbound.groups.push(sent);
            snapshot.ports[0]
                .inbound
                .groups
                .push(series("239.8.8.8", seconds, "192.0.2.1"));
        })
    };
    told.tick(&all(0));
    assert_eq!(
        told.tick(&all(30)),
        [
            "JoinedNoTraffic 224.129.1.1@0",
            "JoinedNoTraffic 239.1.1.1@0",
            "TrafficNotJoined 239.8.8.8@0",
            "TTL1 239.9.9.9@30",
            "MacCollision 224.129.1.1@0",
            "MacCollision 239.1.1.1@0"
        ]
    );
}

#[test]
fn no_querier_after_255_seconds_of_observing_an_interface() {
    let mut told = Told::default();
    // A node without Pods observes nothing.
    told.tick(&snapshot(0, 0, &[]));
    told.tick(&joined(1000, &[GROUP], |_| ()));
    assert!(told.node().is_empty());
    told.tick(&joined(1254, &[GROUP], |_| ()));
    assert!(told.node().is_empty());
    told.tick(&joined(1255, &[GROUP], |_| ()));
    assert_eq!(told.node(), ["NoQuerier 224.0.0.1@1000"]);
    assert!(
        told.findings
            .of_port(1)
            .iter()
            .all(|finding| finding.kind != FindingKind::NoQuerier)
    );
    told.tick(&joined(1256, &[], |_| ()));
    assert!(told.node().is_empty(), "nobody is a member");
    let mut asked = snapshot(1257, 1, &["1 in 10.0.0.1 igmpv2-query"]);
    asked.namespaces.push(kernel(1, &[GROUP, "ff0e::1"]));
    told.tick(&asked);
    assert_eq!(told.node(), ["NoQuerier ff02::1@1000"]);
}

/// 3 × 20 s + 5 s / 2.
#[test]
fn a_querier_is_lost_by_its_own_values() {
    let mut told = Told::default();
    let mut first = joined(0, &[GROUP], |_| ());
    first.messages = snapshot(0, 1, &["1 in 10.0.0.1 igmpv3-query qrv=3 qqic=20 max=50"]).messages;
    told.tick(&first);
    told.tick(&joined(62, &[GROUP], |_| ()));
    assert!(told.node().is_empty());
    told.tick(&joined(63, &[GROUP], |_| ()));
    assert_eq!(told.node(), ["QuerierLost 224.0.0.1@62"]);
    let mut back = joined(64, &[GROUP], |_| ());
    back.messages = snapshot(64, 1, &["1 in 10.0.0.9 igmpv2-query"]).messages;
    told.tick(&back);
    assert!(told.node().is_empty());
}

#[test]
fn two_queriers_that_both_asked_twice_on_one_side() {
    let mut told = Told::default();
    let mut ask = |seconds, message: &str| {
        told.tick(&snapshot(seconds, 2, &[message]));
        told.node()
    };
    assert_eq!(ask(0, "1 in 10.0.0.1 igmpv2-query"), NONE);
    assert_eq!(ask(1, "1 in 10.0.0.2 igmpv2-query"), NONE);
    assert_eq!(ask(10, "1 in 10.0.0.1 igmpv2-query"), NONE);
    assert_eq!(ask(11, "2 in 10.0.0.2 igmpv2-query"), NONE, "heard elsewhere");
    assert_eq!(
        ask(12, "1 in 10.0.0.2 igmpv2-query"),
        NONE,
        "10.0.0.1 has not asked twice since the other appeared"
    );
    assert_eq!(ask(20, "1 in 10.0.0.1 igmpv2-query"), ["TwoQueriers 224.0.0.1@20"]);
    // The higher address stopped: 255 s later the other is the only one.
    assert_eq!(ask(266, "1 in 10.0.0.1 igmpv2-query"), ["TwoQueriers 224.0.0.1@20"]);
    assert_eq!(ask(267, "1 in 10.0.0.1 igmpv2-query"), NONE);
}

/// A querier behind the switch and a Pod that asks are on two sides of the Pod's interface.
#[test]
fn a_pod_that_asks_and_hears_another_is_no_rivalry_on_one_side() {
    let mut told = Told::default();
    for round in 0..3 {
        let asked = ["1 in 10.0.0.1 igmpv2-query", "1 out 10.10.0.5 igmpv2-query"];
        told.tick(&snapshot(round * 10, 1, &asked));
        assert!(told.node().is_empty());
    }
}
