//! Switch, kernel and reports: three sets of groups.

use super::*;
use crate::{
    api::ledgers::Difference,
    ledger::{
        lines,
        scene::{ENFORCED, at, kernel, policy},
    },
};

/// Pod 0 reports these groups.
fn report(lab: &mut Lab, groups: &[&str]) {
    let line = |group: &&str| format!("{} 1 out 10.10.0.10 igmpv2-report {group}", lab.now);
    lab.messages = groups.iter().map(|group| lines::event(&line(group)).unwrap()).collect();
}

fn differences(status: &Status) -> Vec<(String, Difference)> {
    let found = ledgers(status).memberships.iter();
    found.map(|found| (found.group.to_string(), found.difference)).collect()
}

#[test]
fn differences_are_named_after_the_grace_period() {
    assert_eq!(at(0), start(), "one clock");
    let mut lab = Lab::unread(1);
    // All three; kernel and report only; kernel only; switch only; switch and report.
    let mut reading = kernel(0, &["224.0.0.1", "239.0.0.1", "239.0.0.2", "239.0.0.3"]);
    reading.pod = lab.ports[0].pod.clone();
    lab.namespaces = vec![reading];
    for group in ["224.0.0.1", "239.0.0.1", "239.0.0.4", "239.0.0.5"] {
        lab.members(group, &[0]);
    }
    lab.tick();
    report(&mut lab, &["239.0.0.1", "239.0.0.2", "239.0.0.5"]);
    lab.tick();
    assert!(differences(&lab.ticks(10)[&0]).is_empty());
    let status = &lab.ticks(10)[&0];
    let expected = [
        ("239.0.0.2", Difference::NotInSwitch),
        ("239.0.0.3", Difference::NotInSwitch),
        ("239.0.0.4", Difference::SwitchOnly),
        ("239.0.0.5", Difference::NotInKernel),
    ];
    let mut found = differences(status);
    found.sort();
    let expected = expected.map(|(group, difference)| (group.to_owned(), difference));
    assert_eq!(found, expected);
    assert_eq!(agrees(status), AGREE, "memberships are listed beside the accounts");
    // The switch has learnt one of them, and forgotten another.
    lab.members("239.0.0.2", &[0]);
    lab.groups.remove(&ip("239.0.0.4"));
    let groups: Vec<_> = differences(&lab.tick()[&0])
        .into_iter()
        .map(|(group, _)| group)
        .collect();
    assert_eq!(groups, ["239.0.0.3", "239.0.0.5"]);
}

/// Reports from before the watch cannot have been heard: what the switch has may be right.
#[test]
fn without_a_kernel_silence_says_nothing() {
    let mut lab = Lab::unread(1);
    lab.members("239.0.0.4", &[0]);
    assert!(differences(&lab.ticks(30)[&0]).is_empty());
}

/// A rule denied the report: why the switch has nothing is known. When a report is allowed, the switch must have it.
#[test]
fn what_a_rule_denies_the_switch_need_not_have() {
    let text = "{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {namespace: mkt, name: p}, spec: {priority: 5, \
                appliedTo: [{podSelector: {}}], egress: [{name: no, action: Drop, protocols: [{igmp: {}}]}]}}";
    let mut lab = Lab::unread(1);
    let mut reading = kernel(0, &["239.0.0.2"]);
    reading.pod = lab.ports[0].pod.clone();
    lab.namespaces = vec![reading];
    lab.policy = Some(policy(text, &lab.ports, ENFORCED));
    report(&mut lab, &["239.0.0.2"]);
    assert!(differences(&lab.ticks(30)[&0]).is_empty());
    lab.policy = None;
    report(&mut lab, &["239.0.0.2"]);
    let expected = [("239.0.0.2".to_owned(), Difference::NotInSwitch)];
    assert_eq!(differences(&lab.ticks(17)[&0]), expected);
}
