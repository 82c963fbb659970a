//! Rules as users write them against conjunctions as Antrea makes them. Pods 1 to 3 have the addresses 10.0.0.N and the
//! switch's ports 10N.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::ledger::{
    scene::{at, pod, snapshot},
    snapshot::{RuleReading, SwitchAccount, SwitchPort, Traffic, WouldDrop},
    switch::{FlowCount, Prefix, Rule, Switch},
    verdict::{Compiler, Kind, Limits, Object, PodName},
};

/// A rule of a policy for `pods`: what it is about, and what was counted at the veths.
fn policy(name: &str, pods: &[u32], action: &str, about: Value) -> Object {
    let mut rule = json!({"name": name, "action": action});
    rule.as_object_mut().unwrap().extend(about.as_object().unwrap().clone());
    let selected: Vec<_> = pods.iter().map(|id| pod(*id).name).collect();
    let selector = json!({"matchExpressions": [{"key": "pod", "operator": "In", "values": selected}]});
    let document = json!({
        "metadata": {"name": name, "namespace": "mkt", "uid": name},
        "spec": {"priority": 1, "appliedTo": [{"podSelector": selector}], "egress": [rule]}
    });
    Object::read(Kind::NetworkPolicy, document).unwrap()
}

fn to(cidr: &str, except: &[&str]) -> Value {
    json!({"to": [{"ipBlock": {"cidr": cidr, "except": except}}]})
}

/// A rule of the switch.
fn rule(id: u32, sources: &[&str], groups: &[&str], verdict: Verdict) -> Rule {
    let prefixes = |texts: &[&str]| {
        let prefix = |text: &&str| {
            let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
            Prefix {
                address: address.parse().unwrap(),
                bits: bits.parse().unwrap(),
            }
        };
        texts.iter().map(prefix).collect()
    };
    Rule {
        id,
        priority: 100,
        sources: prefixes(sources),
        groups: prefixes(groups),
        verdict: Some(verdict),
        ..Rule::default()
    }
}

/// Rule N of the policies has sent N packets of 142 bytes, that with the id N of the switch N * 100.
fn reading(policies: Vec<Object>, rules: Vec<Rule>) -> (PolicyReading, Snapshot) {
    let mut taken = snapshot(9, 3, &[]);
    let pods: Vec<_> = (1..=3).map(|id| PodName::new("mkt", &pod(id).name)).collect();
    let labelled = (1..=3).map(|id| {
        let name = pod(id).name;
        let document = json!({"metadata": {"name": name, "namespace": "mkt", "labels": {"pod": name}}});
        Object::read(Kind::Pod, document).unwrap()
    });
    let mut compiler = Compiler::new(Limits::default());
    let order: Vec<_> = policies.iter().map(|policy| Arc::clone(&policy.key.name)).collect();
    let model = policies.into_iter().chain(labelled).collect();
    let change = compiler.compile(&model, &pods).unwrap();
    assert!(change.problems.is_empty(), "{:?}", change.problems);
    let counted = |(number, name): (u64, &Arc<str>)| RuleReading {
        row: compiler.rules().find(|row| row.id.name == *name).unwrap().clone(),
        start: at(0),
        data: Traffic {
            packets: number,
            segments: number,
            bytes: number * 142,
        },
        messages: 0,
        message_bytes: 0,
        records: 0,
        would_drop: WouldDrop::default(),
        flow: None,
    };
    let policy = PolicyReading {
        rules: (1..).zip(&order).map(counted).collect(),
        reach: Arc::new(compiler.reach()),
        ..PolicyReading::default()
    };
    let flow = |rule: &Rule| FlowCount {
        packets: u64::from(rule.id) * 100,
        bytes: u64::from(rule.id) * 14_200,
        duration: Duration::from_secs(60),
        cookie: 0,
    };
    let flows = rules.iter().map(|rule| ((rule.id, rule.verdict.unwrap()), flow(rule)));
    taken.switch = SwitchReading::Read(Box::new(SwitchAccount {
        before: at(9),
        after: at(9),
        connection: 1,
        switch: Switch {
            egress: Some(flows.collect()),
            egress_rules: rules,
            ..Switch::default()
        },
        groups_known: true,
        queue_drops: BTreeMap::new(),
    }));
    let ports = (1..=3_u8).map(|id| {
        let port = SwitchPort {
            ofport: 100 + u32::from(id),
            addresses: vec![Ipv4Addr::new(10, 0, 0, id)],
        };
        (u32::from(id), port)
    });
    taken.switch_ports = ports.collect();
    (policy, taken)
}

/// What the switch counts for each policy's rule.
fn compared(policies: Vec<Object>, rules: Vec<Rule>) -> Vec<Option<SwitchCount>> {
    let (policy, taken) = reading(policies, rules);
    told(&policy, &taken)
}

fn told(policy: &PolicyReading, taken: &Snapshot) -> Vec<Option<SwitchCount>> {
    counts(policy, taken).into_iter().map(|found| found.count).collect()
}

fn found(matched: SwitchMatch, switch: u64, wire: u64, rules: u32) -> Option<SwitchCount> {
    let count = |packets| Count {
        packets,
        bytes: packets * 142,
    };
    Some(SwitchCount {
        matched,
        flows: (matched != SwitchMatch::None).then(|| count(switch)),
        wire: count(wire),
        rules,
    })
}

#[test]
fn a_rule_is_known_by_its_pods_its_addresses_and_what_it_does() {
    let both = ["10.0.0.1", "10.0.0.2"];
    let answers = compared(
        vec![
            policy("a", &[1, 2], "Allow", to("225.20.2.3/32", &[])),
            policy("b", &[1, 2], "Drop", to("225.20.2.2/32", &[])),
            policy("c", &[3], "Drop", to("225.20.2.2/32", &[])),
            policy("d", &[3], "Allow", to("225.20.0.0/16", &[])),
        ],
        vec![
            rule(1, &both, &["225.20.2.2"], Verdict::Drop),
            rule(2, &["10.0.0.3"], &["225.20.2.2"], Verdict::Drop),
            rule(3, &both, &["225.20.2.3"], Verdict::Allow),
            // Of other Pods, other addresses, another action; of nobody in particular.
            rule(4, &["10.0.0.3", "10.0.0.1"], &["225.20.0.0/16"], Verdict::Allow),
            rule(5, &["10.0.0.3"], &["225.20.0.0/17"], Verdict::Allow),
            rule(6, &["10.0.0.3"], &["225.20.0.0/16"], Verdict::Drop),
            rule(7, &[], &["225.20.0.0/16"], Verdict::Allow),
            // One of its Pods is not known here.
            rule(8, &["10.0.0.3", "10.0.0.9"], &["225.20.0.0/16"], Verdict::Allow),
        ],
    );
    assert_eq!(
        answers,
        [
            found(SwitchMatch::Unique, 300, 1, 1),
            found(SwitchMatch::Unique, 100, 2, 1),
            found(SwitchMatch::Unique, 200, 3, 1),
            found(SwitchMatch::None, 0, 4, 1),
        ]
    );
}

/// Exceptions become smaller prefixes in the switch, and a sender may stand there by its port.
#[test]
fn addresses_are_the_same_however_they_are_cut() {
    let by_ofport = Rule {
        ofports: vec![101],
        ..rule(2, &[], &["239.2.0.0/17", "239.2.128.0/17"], Verdict::Allow)
    };
    let answers = compared(
        vec![
            policy(
                "a",
                &[2],
                "Allow",
                to("239.1.0.0/22", &["239.1.1.0/24", "239.1.3.0/25"]),
            ),
            policy("b", &[1], "Allow", to("239.2.0.0/16", &[])),
        ],
        vec![
            rule(
                1,
                &["10.0.0.2"],
                &["239.1.0.0/24", "239.1.2.0/24", "239.1.3.128/25"],
                Verdict::Allow,
            ),
            by_ofport,
        ],
    );
    assert_eq!(
        answers,
        [
            found(SwitchMatch::Unique, 100, 1, 1),
            found(SwitchMatch::Unique, 200, 2, 1)
        ]
    );
}

#[test]
fn rules_that_match_the_same_are_compared_as_a_sum() {
    let drop = |id| rule(id, &["10.0.0.1"], &["225.1.1.1"], Verdict::Drop);
    let ports = |port: u16| {
        let mut about = to("225.1.1.2/32", &[]);
        about["ports"] = json!([{"protocol": "UDP", "port": port}]);
        about
    };
    // The switch's ports are not read: of such a rule it is known only that it asks for more.
    let narrowed = |id| Rule {
        unexpressed: 1,
        ..rule(id, &["10.0.0.1"], &["225.1.1.2"], Verdict::Drop)
    };
    let answers = compared(
        vec![
            policy("a", &[1], "Drop", to("225.1.1.1/32", &[])),
            policy("b", &[1], "Drop", to("225.1.1.1/32", &[])),
            policy("c", &[1], "Drop", ports(5000)),
            policy("d", &[1], "Drop", ports(6000)),
            policy("e", &[1], "Drop", to("225.1.1.2/32", &[])),
        ],
        vec![
            drop(1),
            drop(2),
            narrowed(3),
            narrowed(4),
            rule(5, &["10.0.0.1"], &["225.1.1.2"], Verdict::Drop),
        ],
    );
    let [first, second] = [
        found(SwitchMatch::Ambiguous, 300, 3, 2),
        found(SwitchMatch::Ambiguous, 700, 7, 2),
    ];
    assert_eq!(
        answers,
        [first, first, second, second, found(SwitchMatch::Unique, 500, 5, 1)]
    );
    // The switch is ahead or behind: one of the two is not there, or three are.
    let one_policy = || vec![policy("a", &[1], "Drop", to("225.1.1.1/32", &[]))];
    assert_eq!(
        compared(one_policy(), vec![drop(1), drop(2)]),
        [found(SwitchMatch::Ambiguous, 300, 1, 1)]
    );
    assert_eq!(compared(one_policy(), vec![]), [found(SwitchMatch::None, 0, 1, 1)]);
}

#[test]
fn a_rule_on_reports_has_no_flow() {
    let igmp = json!({"protocols": [{"igmp": {"igmpType": 0x16, "groupAddress": "225.1.1.1"}}]});
    let rules = vec![rule(1, &["10.0.0.1"], &["225.1.1.1"], Verdict::Drop)];
    assert_eq!(compared(vec![policy("a", &[1], "Drop", igmp)], rules), [None]);
}

#[test]
fn without_a_switch_that_counts_rules_nothing_is_said() {
    let policies = vec![policy("a", &[1], "Drop", to("225.1.1.1/32", &[]))];
    let (policy, mut taken) = reading(policies, vec![rule(1, &["10.0.0.1"], &["225.1.1.1"], Verdict::Drop)]);
    assert_eq!(told(&policy, &taken), [found(SwitchMatch::Unique, 100, 1, 1)]);
    if let SwitchReading::Read(account) = &mut taken.switch {
        account.switch.egress = None;
    }
    assert_eq!(told(&policy, &taken), [None]);
    taken.switch = SwitchReading::Away { since: at(0) };
    assert_eq!(told(&policy, &taken), [None]);
    taken.switch = SwitchReading::None;
    assert_eq!(told(&policy, &taken), [None]);
}
