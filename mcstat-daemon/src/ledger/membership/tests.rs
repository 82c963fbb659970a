//! Two witnesses merged: what each knows, when they are called apart, and what is remembered. Grace is 15 s; reports age by
//! 260 s.

use super::*;
use crate::{
    api::stats::{Disagreement, FilterMode, Witness},
    ledger::{
        scene::{at, kernel, pod, port, series, snapshot},
        snapshot::SourceFilter,
    },
};

const GROUP: &str = "239.1.1.1";
const JOIN: &str = "1 out 10.10.0.5 igmpv3-report TO_EX(239.1.1.1)";
const ANSWER: &str = "1 out 10.10.0.5 igmpv3-report IS_EX(239.1.1.1)";
const LEAVE: &str = "1 out 10.10.0.5 igmpv3-report TO_IN(239.1.1.1)";
const QUERY: &str = "1 in 10.0.0.1 igmpv3-query";

fn of(memberships: &Memberships, group: &str) -> Option<Membership> {
    memberships.port(1)?.memberships().get(&group.parse().unwrap()).cloned()
}

/// One tick of Pod 1: the groups of its kernel, if it is asked, and what was heard.
fn tick(memberships: &mut Memberships, seconds: i64, groups: Option<&[&str]>, messages: &[&str]) -> Option<Membership> {
    let mut snapshot = snapshot(seconds, 1, messages);
    snapshot.namespaces.extend(groups.map(|groups| kernel(1, groups)));
    memberships.update(&snapshot);
    of(memberships, GROUP)
}

fn disagreement(membership: Option<Membership>) -> Option<Disagreement> {
    membership.expect("a membership").disagreement
}

#[test]
fn the_kernel_knows_a_join_without_any_report_and_a_leave_before_any_timer() {
    let mut all = Memberships::default();
    tick(&mut all, 0, Some(&[]), &[]);
    let joined = tick(&mut all, 1, Some(&[GROUP]), &[]).unwrap();
    assert_eq!(
        (joined.joined, joined.witness, joined.users),
        (true, vec![Witness::Kernel], Some(1))
    );
    assert_eq!((joined.since, joined.version, joined.expires), (at(1), None, None));
    let both = tick(&mut all, 2, Some(&[GROUP]), &[JOIN]).unwrap();
    assert_eq!(both.witness, [Witness::Kernel, Witness::Report]);
    assert_eq!((both.since, both.expires, both.reports), (at(1), Some(at(262)), 1));
    let left = tick(&mut all, 3, Some(&[]), &[]).unwrap();
    assert_eq!(
        (left.joined, left.witness, left.since),
        (false, vec![Witness::Report], at(3))
    );
    assert_eq!((left.flaps, left.users), (1, None));
}

#[test]
fn without_a_kernel_the_reports_are_the_truth() {
    let mut all = Memberships::default();
    assert!(tick(&mut all, 0, None, &[JOIN]).unwrap().joined);
    assert!(tick(&mut all, 259, None, &[]).unwrap().joined);
    assert_eq!(tick(&mut all, 260, None, &[]), None);

    let mut denied = snapshot(261, 1, &[JOIN]);
    let unavailable = NamespaceReading {
        unavailable: Some("NoProcess".to_owned()),
        ..kernel(1, &[])
    };
    denied.namespaces.push(unavailable);
    all.update(&denied);
    assert!(
        of(&all, GROUP).unwrap().joined,
        "a kernel that is not read says nothing"
    );
}

#[test]
fn a_report_of_what_the_kernel_has_not_joined_is_named_after_the_grace_period() {
    let mut all = Memberships::default();
    tick(&mut all, 0, Some(&[]), &[JOIN]);
    assert_eq!(disagreement(tick(&mut all, 14, Some(&[]), &[])), None);
    assert_eq!(
        disagreement(tick(&mut all, 15, Some(&[]), &[])),
        Some(Disagreement::ReportedKernelNotJoined)
    );
    assert_eq!(disagreement(tick(&mut all, 16, Some(&[GROUP]), &[])), None);
}

#[test]
fn a_join_without_a_report_is_named_after_the_grace_period() {
    let mut all = Memberships::default();
    tick(&mut all, 0, Some(&[]), &[]);
    tick(&mut all, 1, Some(&[GROUP]), &[]);
    assert_eq!(disagreement(tick(&mut all, 15, Some(&[GROUP]), &[])), None);
    let named = Some(Disagreement::KernelJoinedNoReport);
    assert_eq!(disagreement(tick(&mut all, 16, Some(&[GROUP]), &[])), named);
    assert_eq!(disagreement(tick(&mut all, 17, Some(&[GROUP]), &[JOIN])), None);
}

/// What was joined before anybody watched was reported then. Only who stays silent when asked is called silent.
#[test]
fn a_group_that_was_there_at_the_first_look_is_silent_only_once_it_was_asked() {
    for first in [0, 5] {
        let mut all = Memberships::default();
        for seconds in 0..first {
            tick(&mut all, seconds, None, &[]);
        }
        for seconds in first..200 {
            let membership = tick(&mut all, seconds, Some(&[GROUP]), &[]);
            assert_eq!(disagreement(membership), None, "second {seconds}");
        }
        // 10 s to answer, 15 s of grace.
        tick(&mut all, 200, Some(&[GROUP]), &[QUERY]);
        tick(&mut all, 210, Some(&[GROUP]), &[]);
        assert_eq!(disagreement(tick(&mut all, 224, Some(&[GROUP]), &[])), None);
        let named = Some(Disagreement::KernelJoinedNoReport);
        assert_eq!(disagreement(tick(&mut all, 225, Some(&[GROUP]), &[])), named);
    }
}

#[test]
fn an_expired_report_is_a_disagreement_only_while_somebody_asks() {
    for querier in [true, false] {
        let mut all = Memberships::default();
        tick(&mut all, 0, Some(&[GROUP]), &[JOIN]);
        for seconds in (125..=250).step_by(125).filter(|_| querier) {
            tick(&mut all, seconds, Some(&[GROUP]), &[QUERY]);
        }
        let expired = tick(&mut all, 260, Some(&[GROUP]), &[]).unwrap();
        assert_eq!((expired.joined, expired.witness), (true, vec![Witness::Kernel]));
        let named = querier.then_some(Disagreement::ExpiredKernelJoined);
        assert_eq!(disagreement(tick(&mut all, 275, Some(&[GROUP]), &[])), named);
    }
}

#[test]
fn groups_that_hosts_never_report_are_no_disagreement() {
    let groups = ["224.0.0.1", "224.0.0.251", "ff01::1", "ff02::1", "ff02::1:ff00:5"];
    let mut all = Memberships::default();
    tick(&mut all, 0, Some(&[]), &[]);
    tick(&mut all, 1, Some(&groups), &[]);
    tick(&mut all, 16, Some(&groups), &[]);
    let apart = groups.map(|group| disagreement(of(&all, group)).is_some());
    assert_eq!(
        apart,
        [false, false, false, false, true],
        "solicited-node groups are reported"
    );
}

/// A report may be among what the event rate held back, or the ring buffer lost, for as long as it would have counted.
#[test]
fn what_was_missed_is_no_evidence() {
    for lost in [true, false] {
        let mut all = Memberships::default();
        for seconds in [0, 1, 17, 260, 261, 275, 276] {
            let mut snapshot = snapshot(seconds, 1, &[]);
            let groups: &[&str] = if seconds == 0 { &[] } else { &[GROUP] };
            snapshot.namespaces.push(kernel(1, groups));
            let missed = u64::from(seconds > 0);
            match lost {
                true => snapshot.kernel.events_lost = missed,
                false => snapshot.ports[0].outbound.events_limited = missed,
            }
            all.update(&snapshot);
            let named = (seconds >= 276).then_some(Disagreement::KernelJoinedNoReport);
            assert_eq!(
                of(&all, GROUP).and_then(|membership| membership.disagreement),
                named,
                "second {seconds}"
            );
        }
    }
}

#[test]
fn repeated_joins_are_no_flaps_and_ends_count_for_ten_minutes() {
    let mut all = Memberships::default();
    tick(&mut all, 0, None, &[JOIN, JOIN]);
    tick(&mut all, 1, None, &[ANSWER]);
    tick(&mut all, 2, None, &[LEAVE]);
    tick(&mut all, 10, None, &[JOIN]);
    tick(&mut all, 20, None, &[LEAVE, LEAVE]);
    let joined = tick(&mut all, 30, None, &[JOIN]).unwrap();
    assert_eq!((joined.flaps, joined.since, joined.reports), (2, at(30), 8));
    let flaps = |membership: Option<Membership>| membership.unwrap().flaps;
    tick(&mut all, 250, None, &[ANSWER]);
    tick(&mut all, 500, None, &[ANSWER]);
    assert_eq!(flaps(tick(&mut all, 601, None, &[])), 2);
    assert_eq!(flaps(tick(&mut all, 602, None, &[])), 1);
    assert_eq!(flaps(tick(&mut all, 620, None, &[])), 0);
}

#[test]
fn a_switch_that_still_forwards_after_a_leave_lingers() {
    let mut all = Memberships::default();
    let mut at_second = |seconds, messages: &[&str], last_inbound| {
        let mut snapshot = snapshot(seconds, 1, messages);
        snapshot.ports[0]
            .inbound
            .groups
            .push(series(GROUP, last_inbound, "192.0.2.1"));
        all.update(&snapshot);
        of(&all, GROUP)
    };
    at_second(0, &[JOIN], 0);
    assert_eq!(at_second(10, &[LEAVE], 10), None);
    assert_eq!(at_second(24, &[], 24), None, "within the grace period");
    let lingers = at_second(25, &[], 25).unwrap();
    assert!(lingers.switch_lingers && !lingers.joined && lingers.witness.is_empty());
    assert!(at_second(39, &[], 25).unwrap().switch_lingers);
    assert_eq!(at_second(40, &[], 25), None, "it has stopped");
}

#[test]
fn the_kernels_filter_outranks_the_reported_one() {
    let mut all = Memberships::default();
    let report = "1 out 10.10.0.5 igmpv3-report TO_IN(239.1.1.1; 192.0.2.1)";
    let reported = tick(&mut all, 0, Some(&[GROUP]), &[report]).unwrap();
    assert_eq!(
        (reported.mode, reported.sources),
        (Some(FilterMode::Include), vec![IpAddr::from([192, 0, 2, 1])])
    );
    let mut snapshot = snapshot(1, 1, &[]);
    let mut namespace = kernel(1, &[GROUP]);
    namespace.interfaces[0].groups[0].filter = Some(SourceFilter {
        mode: FilterMode::Exclude,
        sources: vec![IpAddr::from([192, 0, 2, 9])],
    });
    snapshot.namespaces.push(namespace);
    all.update(&snapshot);
    let by_kernel = of(&all, GROUP).unwrap();
    assert_eq!(
        (by_kernel.mode, by_kernel.sources),
        (Some(FilterMode::Exclude), vec![IpAddr::from([192, 0, 2, 9])])
    );
}

#[test]
fn a_kernel_with_more_groups_than_are_kept_is_no_witness_of_the_others() {
    let many: Vec<_> = (0..2000u16).map(|n| format!("238.1.{}.{}", n >> 8, n & 255)).collect();
    let many: Vec<_> = many.iter().map(String::as_str).chain([GROUP]).collect();
    let mut all = Memberships::default();
    assert!(
        tick(&mut all, 0, Some(&many), &[JOIN]).unwrap().joined,
        "its report is believed"
    );
    let one = all.port(1).unwrap();
    assert_eq!(one.memberships().len(), link::MAX_GROUPS + 1);
    assert_eq!(one.kernel_groups_left_out(), 2001 - link::MAX_GROUPS as u64);
}

/// Without the kernel a member is known by its answer to a general query, unless something may have hidden it.
#[test]
fn whether_a_member_would_be_known() {
    let known = |all: &Memberships, seconds| all.port(1).unwrap().is_known(GROUP.parse().unwrap(), at(seconds));
    let mut all = Memberships::default();
    tick(&mut all, 0, None, &[]);
    assert!(!known(&all, 0), "nobody asked");
    tick(&mut all, 1, None, &[QUERY]);
    assert!(!known(&all, 10) && known(&all, 11));
    tick(&mut all, 20, None, &["1 in 10.10.0.9 igmpv2-report 239.1.1.1"]);
    assert!(!known(&all, 21), "it may have kept its report back");
    tick(&mut all, 200, None, &[QUERY]);
    assert!(known(&all, 280));
    let mut lossy = snapshot(281, 1, &[]);
    lossy.kernel.events_lost = 1;
    all.update(&lossy);
    assert!(!known(&all, 281));
    tick(&mut all, 282, Some(&[]), &[]);
    assert!(known(&all, 282), "the kernel says so");
    let mut all = Memberships::default();
    tick(&mut all, 0, None, &[QUERY]);
    tick(&mut all, 1000, None, &[]);
    assert!(!known(&all, 1000), "no querier is present");
}

#[test]
fn a_port_that_is_gone_is_forgotten_with_all_that_it_knew() {
    let mut all = Memberships::default();
    tick(&mut all, 0, None, &[JOIN, QUERY]);
    all.update(&snapshot(1, 0, &[JOIN]));
    assert!(all.ports().next().is_none() && all.queriers(at(1)).is_empty());
    assert_eq!(tick(&mut all, 2, None, &[]), None);
}

#[test]
fn a_querier_of_several_links_is_one() {
    let mut all = Memberships::default();
    let burst = [
        "1 in 10.0.0.1 igmpv3-query qqic=60",
        "2 in 10.0.0.1 igmpv3-query qqic=60",
        "2 out 10.10.0.2 igmpv2-query",
        "1 in 0.0.0.0 igmpv2-query",
        "1 in fe80::1 mldv2-query",
    ];
    all.update(&snapshot(0, 2, &burst));
    let told: Vec<_> = all
        .queriers(at(1))
        .into_iter()
        .map(|querier| {
            let Querier {
                address,
                version,
                elected,
                interfaces,
                pods,
                ..
            } = querier;
            format!("{address} {version} {elected} {interfaces} {}", pods.join(","))
        })
        .collect();
    assert_eq!(
        told,
        [
            "0.0.0.0 IGMPv2 false 1 ",
            "10.0.0.1 IGMPv3 true 2 ",
            "10.10.0.2 IGMPv2 false 1 mkt/pod-2",
            "fe80::1 MLDv2 true 1 "
        ]
    );
    // 2 × 60 + 5 s; the others by the defaults, 255 s.
    let elected = all.queriers(at(125)).into_iter().find(|querier| querier.elected);
    assert_eq!(elected.unwrap().address, IpAddr::from([10, 10, 0, 2]));
}

#[test]
fn ports_of_a_pod_look_at_their_own_interface() {
    let mut other = port(2);
    other.pod = pod(1);
    other.interface = "net1".to_owned();
    let mut snapshot = snapshot(0, 1, &[]);
    snapshot.ports.push(other);
    snapshot.namespaces.push(kernel(1, &[GROUP]));
    let mut all = Memberships::default();
    all.update(&snapshot);
    let joined = [1, 2].map(|id| all.port(id).unwrap().joined_since(GROUP.parse().unwrap()).is_some());
    assert_eq!(joined, [true, false]);
}
