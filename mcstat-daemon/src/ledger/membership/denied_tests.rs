//! Memberships whose report an enforced rule denies: what makes them so, what ends it, and what does not.

use super::*;
use crate::{
    api::stats::Witness,
    ledger::{
        scene::{ENFORCED, at, kernel, policy, port, snapshot},
        snapshot::{Enforced, PolicyReading},
    },
};

const GROUP: &str = "239.1.1.1";
const JOIN: &str = "1 out 10.10.0.5 igmpv3-report TO_EX(239.1.1.1)";
const ANSWER: &str = "1 out 10.10.0.5 igmpv3-report IS_EX(239.1.1.1)";
const LEAVE: &str = "1 out 10.10.0.5 igmpv3-report TO_IN(239.1.1.1)";

/// A NetworkPolicy `mkt/p` with these egress rules on IGMP for every Pod of `mkt`.
fn rules(rules: &str, enforced: Enforced) -> PolicyReading {
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {{namespace: mkt, name: p}}, spec: {{priority: 5, \
         appliedTo: [{{podSelector: {{}}}}], egress: [{rules}]}}}}"
    );
    policy(&text, &[port(1)], enforced)
}

fn deny() -> PolicyReading {
    rules(
        "{name: no-1, action: Drop, protocols: [{igmp: {groupAddress: 239.1.1.1}}]}",
        ENFORCED,
    )
}

fn of(all: &Memberships, group: &str) -> Option<Membership> {
    all.port(1)?.memberships().get(&group.parse().unwrap()).cloned()
}

/// One tick of Pod 1: the policies, the groups of its kernel, if it is asked, and what was heard.
fn tick(
    all: &mut Memberships,
    seconds: i64,
    policy: Option<&PolicyReading>,
    groups: Option<&[&str]>,
    messages: &[&str],
) -> Option<Membership> {
    let mut snapshot = snapshot(seconds, 1, messages);
    snapshot.policy = policy.cloned();
    snapshot.namespaces.extend(groups.map(|groups| kernel(1, groups)));
    all.update(&snapshot);
    of(all, GROUP)
}

/// Whether it is a member, and the rule that denied it.
fn told(membership: Option<Membership>) -> Option<(bool, Option<String>)> {
    membership.map(|membership| (membership.joined, membership.denied.map(|rule| rule.rule)))
}

fn denied_by(rule: &str) -> Option<(bool, Option<String>)> {
    Some((false, Some(rule.to_owned())))
}

const JOINED: Option<(bool, Option<String>)> = Some((true, None));

#[test]
fn a_denied_report_makes_no_member_although_the_kernel_has_joined() {
    let mut all = Memberships::default();
    let denied = tick(&mut all, 3, Some(&deny()), Some(&[GROUP]), &[JOIN]).unwrap();
    let rule = denied.denied.clone().unwrap();
    assert_eq!(rule.to_string(), "rule no-1 of NetworkPolicy mkt/p");
    assert_eq!(rule.action, "Drop");
    assert!(!denied.joined && denied.is_wanted());
    assert_eq!(
        (denied.since, denied.witness),
        (at(3), vec![Witness::Kernel, Witness::Report])
    );
    // The findings go by what the Pod wants.
    assert_eq!(all.port(1).unwrap().joined_since(GROUP.parse().unwrap()), Some(at(3)));
}

#[test]
fn neither_a_change_of_policy_nor_the_kernel_alone_ends_it_but_a_report_that_is_allowed() {
    let allow = rules("", ENFORCED);
    let mut all = Memberships::default();
    tick(&mut all, 0, Some(&deny()), Some(&[GROUP]), &[JOIN]);
    for (seconds, policy) in [(1, Some(&deny())), (2, Some(&allow)), (3, None)] {
        let still = tick(&mut all, seconds, policy, Some(&[GROUP]), &[]);
        assert_eq!(told(still), denied_by("no-1"), "second {seconds}");
    }
    let allowed = tick(&mut all, 4, Some(&allow), Some(&[GROUP]), &[ANSWER]);
    assert_eq!(told(allowed.clone()), JOINED);
    assert_eq!(allowed.unwrap().since, at(4));
    let again = tick(&mut all, 5, Some(&deny()), Some(&[GROUP]), &[]);
    assert_eq!(told(again), JOINED, "a rule says nothing until it meets a report");
    let again = tick(&mut all, 6, Some(&deny()), Some(&[GROUP]), &[ANSWER]);
    assert_eq!(told(again), denied_by("no-1"));
}

/// Its kernel has left; what is joined after that was never denied.
#[test]
fn it_ends_when_the_kernel_has_left() {
    let mut all = Memberships::default();
    tick(&mut all, 0, Some(&deny()), Some(&[GROUP]), &[JOIN]);
    let left = tick(&mut all, 1, Some(&deny()), Some(&[]), &[]);
    assert_eq!(told(left), Some((false, None)), "the report stands still");
    assert_eq!(
        told(tick(&mut all, 2, Some(&deny()), Some(&[GROUP]), &[])),
        JOINED,
        "joined anew"
    );
}

#[test]
fn by_reports_alone_it_ends_with_a_leave_or_when_they_expire() {
    let mut all = Memberships::default();
    let deny = deny();
    assert_eq!(told(tick(&mut all, 0, Some(&deny), None, &[JOIN])), denied_by("no-1"));
    assert_eq!(tick(&mut all, 1, Some(&deny), None, &[LEAVE]), None);
    tick(&mut all, 2, Some(&deny), None, &[JOIN]);
    let still = tick(&mut all, 261, Some(&deny), None, &[]);
    assert_eq!(told(still), denied_by("no-1"));
    assert_eq!(tick(&mut all, 262, Some(&deny), None, &[]), None);
}

/// The kernel is a member still when its last report runs out, and when a leave is heard that is none of its own.
#[test]
fn while_the_kernel_is_a_member_neither_does() {
    let mut all = Memberships::default();
    let deny = deny();
    tick(&mut all, 0, Some(&deny), Some(&[GROUP]), &[JOIN]);
    let expired = tick(&mut all, 260, Some(&deny), Some(&[GROUP]), &[]);
    assert_eq!(told(expired), denied_by("no-1"));
    for (seconds, policy) in [(261, Some(&deny)), (262, None)] {
        let left = tick(&mut all, seconds, policy, Some(&[GROUP]), &[LEAVE]);
        assert_eq!(told(left), denied_by("no-1"), "whatever rules say of the leave");
    }
}

#[test]
fn what_nobody_enforces_denies_nobody() {
    for enforced in [
        Enforced::default(),
        Enforced {
            data: true,
            reports: false,
            sources: true,
        },
    ] {
        let unenforced = PolicyReading { enforced, ..deny() };
        let mut all = Memberships::default();
        let joined = tick(&mut all, 0, Some(&unenforced), Some(&[GROUP]), &[JOIN]);
        assert_eq!(told(joined), JOINED);
        assert_eq!(all.port(1).unwrap().deniers().count(), 0);
    }
}

/// Each version has its own rules; leaves of IGMPv2 and MLD have none.
#[test]
fn versions_are_judged_apart() {
    let each = "{name: v1, action: Drop, protocols: [{igmp: {igmpType: 18, groupAddress: 239.1.1.1}}]},
                {name: v2, action: Drop, protocols: [{igmp: {igmpType: 22, groupAddress: 239.1.1.2}}]},
                {name: v3, action: Drop, protocols: [{igmp: {igmpType: 34, groupAddress: 239.1.1.3}}]}";
    let each = rules(each, ENFORCED);
    for (version, report) in [
        (1, "igmpv1-report G"),
        (2, "igmpv2-report G"),
        (3, "igmpv3-report TO_EX(G)"),
    ] {
        for last in 1..=3 {
            let group = format!("239.1.1.{last}");
            let line = format!("1 out 10.10.0.5 {}", report.replace('G', &group));
            let mut all = Memberships::default();
            tick(&mut all, 0, Some(&each), None, &[&line]);
            let expected = if version == last {
                denied_by(&format!("v{version}"))
            } else {
                JOINED
            };
            assert_eq!(told(of(&all, &group)), expected, "{line}");
        }
    }

    let any = rules("{name: any, action: Drop, protocols: [{igmp: {}}]}", ENFORCED);
    let mut all = Memberships::default();
    let leave = "1 out 10.10.0.5 igmpv2-leave 239.1.1.1";
    tick(&mut all, 0, Some(&any), None, &[leave]);
    assert_eq!(all.port(1).unwrap().deniers().count(), 0, "a leave of IGMPv2");
    let mld = "1 out fe80::5 mldv2-report TO_EX(ff0e::1)";
    tick(&mut all, 1, Some(&any), None, &[mld]);
    assert_eq!(told(of(&all, "ff0e::1")), JOINED);
    assert_eq!(all.port(1).unwrap().deniers().count(), 0, "MLD");
    tick(&mut all, 2, Some(&any), None, &[LEAVE]);
    assert_eq!(all.port(1).unwrap().deniers().count(), 1, "a leave inside IGMPv3");
}

/// One message with three records: each by its own verdict.
#[test]
fn records_are_denied_one_by_one() {
    let mut all = Memberships::default();
    let three = "1 out 10.10.0.5 igmpv3-report TO_EX(239.1.1.1 x3)";
    tick(&mut all, 0, Some(&deny()), None, &[three]);
    let each = ["239.1.1.1", "239.1.1.2", "239.1.1.3"].map(|group| told(of(&all, group)));
    assert_eq!(each, [denied_by("no-1"), JOINED, JOINED]);
}

/// BLOCK makes no member, and no denied one; of a group that the kernel has, it is a report like another.
#[test]
fn only_what_would_be_a_membership_is_denied() {
    let block = "1 out 10.10.0.5 igmpv3-report BLOCK(239.1.1.1; 192.0.2.1)";
    let mut all = Memberships::default();
    assert_eq!(tick(&mut all, 0, Some(&deny()), None, &[block]), None);
    assert_eq!(tick(&mut all, 1, Some(&deny()), Some(&[]), &[block]), None);
    let joined = tick(&mut all, 2, Some(&deny()), Some(&[GROUP]), &[]);
    assert_eq!(told(joined), JOINED);
    let denied = tick(&mut all, 3, Some(&deny()), Some(&[GROUP]), &[block]);
    assert_eq!(told(denied), denied_by("no-1"));
}

/// A Pod that fills our table of groups does not hide a denial: its kernel has the group.
#[test]
fn a_group_beyond_our_bound_is_denied_all_the_same() {
    let many: Vec<_> = (0..=5)
        .map(|n| format!("1 out 10.10.0.5 igmpv3-report IS_EX(238.1.{n}.0 x183)"))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).chain([JOIN]).collect();
    let mut all = Memberships::default();
    let denied = tick(&mut all, 0, Some(&deny()), Some(&[GROUP]), &many).unwrap();
    assert_eq!((denied.reports, denied.joined), (0, false), "its report found no room");
    assert_eq!(denied.denied.unwrap().rule, "no-1");
}

/// Twenty rules deny in turn: the last sixteen are kept, and one that denies again is the last.
#[test]
fn the_rules_that_denied_last_are_kept() {
    let twenty: Vec<_> = (1..=20)
        .map(|n| format!("{{name: r{n:02}, action: Drop, protocols: [{{igmp: {{groupAddress: 239.1.1.{n}}}}}]}}"))
        .collect();
    let twenty = rules(&twenty.join(", "), ENFORCED);
    let mut all = Memberships::default();
    for (seconds, n) in (0..).zip((1..=20).chain([5])) {
        let line = format!("1 out 10.10.0.5 igmpv2-report 239.1.1.{n}");
        tick(&mut all, seconds, Some(&twenty), None, &[&line]);
    }
    let kept: Vec<_> = all.port(1).unwrap().deniers().map(|rule| rule.rule.clone()).collect();
    let expected: Vec<_> = (6..=20).chain([5]).map(|n| format!("r{n:02}")).collect();
    assert_eq!(kept, expected);
}

/// A ledger that was told what an earlier one knew of denials.
fn restarted() -> Memberships {
    let mut before = Memberships::default();
    tick(&mut before, 0, Some(&deny()), Some(&[GROUP]), &[JOIN]);
    let denials: Denials = before.denials().map(|(key, rule)| (key, rule.clone())).collect();
    assert_eq!(denials.keys().collect::<Vec<_>>(), [&(1, GROUP.parse().unwrap())]);
    let mut all = Memberships::default();
    all.restore(denials);
    all
}

#[test]
fn over_a_restart_it_stands_until_a_report_is_allowed() {
    let mut all = restarted();
    let allow = rules("", ENFORCED);
    for (seconds, policy) in [(10, None), (11, Some(&deny())), (12, Some(&allow))] {
        let still = tick(&mut all, seconds, policy, Some(&[GROUP]), &[]);
        assert_eq!(told(still), denied_by("no-1"), "second {seconds}");
        assert_eq!(all.denials().count(), 1);
    }
    assert_eq!(
        told(tick(&mut all, 13, Some(&allow), Some(&[GROUP]), &[ANSWER])),
        JOINED
    );
    assert_eq!(all.denials().count(), 0);
}

/// Policies are not read yet, and an earlier run left what the kernel judges by.
#[test]
fn before_policies_are_known_those_of_before_deny_and_allow() {
    let mut all = Memberships::default();
    let mut early = |seconds, policy, message| {
        let mut early = snapshot(seconds, 1, &[message]);
        (early.policy_awaited, early.policy) = (true, Some(policy));
        early.namespaces.push(kernel(1, &[GROUP]));
        all.update(&early);
        told(of(&all, GROUP))
    };
    assert_eq!(early(10, deny(), JOIN), denied_by("no-1"));
    assert_eq!(early(11, rules("", ENFORCED), ANSWER), JOINED);
}

/// What was reported while nobody knew the policies, nor those of before, was allowed by none.
#[test]
fn a_report_before_policies_are_known_ends_nothing() {
    let mut all = restarted();
    let mut early = snapshot(10, 1, &[ANSWER]);
    early.policy_awaited = true;
    early.namespaces.push(kernel(1, &[GROUP]));
    all.update(&early);
    assert_eq!(told(of(&all, GROUP)), denied_by("no-1"));
    let mut later = snapshot(11, 1, &[ANSWER]);
    later.namespaces.push(kernel(1, &[GROUP]));
    all.update(&later);
    assert_eq!(told(of(&all, GROUP)), JOINED, "without a source nothing is denied");
}

#[test]
fn over_a_restart_it_ends_with_the_membership() {
    // Left while no agent ran.
    let mut all = restarted();
    assert_eq!(tick(&mut all, 10, Some(&deny()), Some(&[]), &[]), None);
    assert_eq!(all.denials().count(), 0);
    assert_eq!(
        told(tick(&mut all, 11, Some(&deny()), Some(&[GROUP]), &[])),
        JOINED,
        "joined anew"
    );
    // Its port is gone.
    let mut all = restarted();
    all.update(&snapshot(10, 0, &[]));
    assert_eq!(all.denials().count(), 0);
    all.update(&snapshot(11, 1, &[]));
    assert_eq!(all.denials().count(), 0);
}

/// As long as neither witness has spoken nothing is known, and nothing is forgotten.
#[test]
fn over_a_restart_it_waits_for_a_witness() {
    let mut all = restarted();
    let deny = deny();
    assert_eq!(tick(&mut all, 10, Some(&deny), None, &[]), None);
    assert_eq!(all.denials().count(), 1);
    assert_eq!(
        told(tick(&mut all, 11, Some(&deny), Some(&[GROUP]), &[])),
        denied_by("no-1")
    );
    let mut all = restarted();
    let allow = rules("", ENFORCED);
    assert_eq!(
        told(tick(&mut all, 10, Some(&allow), None, &[JOIN])),
        JOINED,
        "and allowed"
    );
    assert_eq!(all.denials().count(), 0);
}
