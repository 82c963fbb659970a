//! What a node tells of its policies, from readings made by hand; times in seconds.

use serde_json::{Value, json};

use super::*;
use crate::ledger::{
    Ledger, Node,
    scene::{at, snapshot},
    snapshot::{KnownPolicy, Traffic, WouldDrop},
    verdict::{RuleId, RuleRow},
};

fn acnp(name: &str) -> ObjectKey {
    ObjectKey {
        kind: Kind::ClusterNetworkPolicy,
        namespace: "".into(),
        name: name.into(),
    }
}

fn annp(name: &str) -> ObjectKey {
    ObjectKey {
        kind: Kind::NetworkPolicy,
        namespace: "mkt".into(),
        name: name.into(),
    }
}

fn rule(policy: &ObjectKey, uid: &str, name: &str, action: Action, start: i64) -> RuleReading {
    RuleReading {
        row: RuleRow {
            slot: 1,
            id: RuleId {
                uid: uid.into(),
                name: name.into(),
            },
            policy: policy.clone(),
            action,
        },
        start: at(start),
        data: Traffic::default(),
        messages: 0,
        message_bytes: 0,
        records: 0,
        would_drop: WouldDrop::default(),
        flow: None,
    }
}

fn data(mut rule: RuleReading, packets: u64) -> RuleReading {
    rule.data = Traffic {
        packets,
        segments: packets,
        bytes: packets * 142,
    };
    rule
}

fn reading(policies: &[(&ObjectKey, &str)], rules: Vec<RuleReading>) -> PolicyReading {
    PolicyReading {
        policies: policies
            .iter()
            .map(|(key, uid)| KnownPolicy {
                key: (*key).clone(),
                uid: (*uid).into(),
                multicast: true,
            })
            .collect(),
        rules,
        ..PolicyReading::default()
    }
}

fn update(rules: &mut Rules, reading: PolicyReading) {
    let mut taken = snapshot(9, 0, &[]);
    taken.policy = Some(reading);
    rules.update(&taken);
}

/// Name, start, packets, ended: of every life of every rule.
fn lives(rules: &Rules) -> Vec<(String, Timestamp, u64, bool)> {
    let policies = rules.of(Kind::NetworkPolicy).unwrap();
    let rules = policies.into_iter().flat_map(|policy| policy.rule_traffic_stats);
    rules
        .map(|rule| {
            (
                rule.name,
                rule.start_time,
                rule.traffic_stats.unwrap().packets,
                rule.ended,
            )
        })
        .collect()
}

/// The numbers of Antrea's own end-to-end test: ten packets of 142 bytes allowed, ten dropped. And a report of IGMPv3 in a
/// frame of 66 bytes, whose three records one rule decided: one message, not three.
#[test]
fn a_summary_tells_rules_in_antreas_words() {
    let (p, q) = (annp("anp1"), acnp("acnp1"));
    let mut igmp = rule(&q, "u2", "igmp", Action::Drop, 5);
    (igmp.messages, igmp.message_bytes, igmp.records) = (1, 66, 3);
    igmp.would_drop = WouldDrop {
        packets: 0,
        messages: 2,
        records: 4,
    };
    let rules = vec![
        data(rule(&p, "u1", "drop", Action::Drop, 1), 10),
        data(rule(&p, "u1", "allow", Action::Allow, 0), 10),
        igmp,
    ];
    let mut ledger = Ledger::new(Node {
        name: "n1".to_owned(),
        start_time: at(0),
        push_interval_seconds: 10,
        window_seconds: 10,
    });
    let mut taken = snapshot(9, 0, &[]);
    taken.policy = Some(reading(&[(&p, "u1"), (&annp("idle"), "u3")], rules));
    let summary = serde_json::to_value(ledger.tick(&taken)).unwrap();
    let zero = json!({"packets": 0, "messages": 0, "records": 0});
    let ten = json!({"packets": 10, "bytes": 1420, "sessions": 0});
    assert_eq!(
        summary["antreaNetworkPolicies"],
        json!([
            {
                "networkPolicy": {"namespace": "mkt", "name": "anp1", "uid": "u1"},
                "trafficStats": {"packets": 20, "bytes": 2840, "sessions": 0}, "startTime": at(0),
                "ruleTrafficStats": [
                    {"name": "allow", "trafficStats": ten, "action": "Allow", "startTime": at(0), "segments": 10,
                     "records": 0, "wouldDrop": zero},
                    {"name": "drop", "trafficStats": ten, "action": "Drop", "startTime": at(1), "segments": 10,
                     "records": 0, "wouldDrop": zero},
                ]
            },
            {
                "networkPolicy": {"namespace": "mkt", "name": "idle", "uid": "u3"},
                "trafficStats": {"packets": 0, "bytes": 0, "sessions": 0}, "ruleTrafficStats": []
            }
        ])
    );
    let one = json!({"packets": 1, "bytes": 66, "sessions": 0});
    assert_eq!(
        summary["antreaClusterNetworkPolicies"],
        json!([{
            "networkPolicy": {"name": "acnp1", "uid": "u2"}, "trafficStats": one, "startTime": at(5),
            "ruleTrafficStats": [{
                "name": "igmp", "trafficStats": one, "action": "Drop", "startTime": at(5), "segments": 0, "records": 3,
                "wouldDrop": {"packets": 0, "messages": 2, "records": 4}
            }]
        }])
    );
    assert_eq!(summary.get("networkPolicies"), None, "Kubernetes' own never apply");
}

#[test]
fn without_a_policy_source_nothing_is_told_of_policies() {
    let mut rules = Rules::default();
    assert_eq!(rules.of(Kind::NetworkPolicy), None);
    update(&mut rules, PolicyReading::default());
    assert_eq!(
        rules.of(Kind::NetworkPolicy),
        Some(vec![]),
        "a source that has none is another thing"
    );
    rules.update(&snapshot(9, 0, &[]));
    assert_eq!(rules.of(Kind::NetworkPolicy), None);
    // Rules of an earlier run: who takes them for all that there are lets the other policies go.
    let mut early = snapshot(10, 0, &[]);
    let p = annp("p");
    early.policy = Some(reading(&[], vec![rule(&p, "u", "r", Action::Drop, 0)]));
    early.policy_awaited = true;
    rules.update(&early);
    assert_eq!(rules.of(Kind::NetworkPolicy), None);
}

#[test]
fn a_rule_that_comes_back_begins_anew_and_its_first_life_is_kept() {
    let p = annp("p");
    let known = [(&p, "u")];
    let mut rules = Rules::default();
    let first = |packets| data(rule(&p, "u", "r", Action::Drop, 0), packets);
    update(&mut rules, reading(&known, vec![first(10)]));
    update(&mut rules, reading(&known, vec![first(15)]));
    assert_eq!(lives(&rules), [("r".into(), at(0), 15, false)]);
    // Retired: its last reading comes once more.
    update(&mut rules, reading(&known, vec![first(16)]));
    for _ in 0..2 {
        update(&mut rules, reading(&known, vec![]));
        assert_eq!(lives(&rules), [("r".into(), at(0), 16, true)]);
    }
    let second = data(rule(&p, "u", "r", Action::Drop, 30), 2);
    update(&mut rules, reading(&known, vec![second]));
    assert_eq!(
        lives(&rules),
        [("r".into(), at(0), 16, true), ("r".into(), at(30), 2, false)]
    );
    let policy = &rules.of(Kind::NetworkPolicy).unwrap()[0];
    assert_eq!(
        (policy.traffic_stats.unwrap().packets, policy.start_time),
        (18, Some(at(0)))
    );
    update(&mut rules, reading(&[], vec![]));
    assert_eq!(rules.of(Kind::NetworkPolicy), Some(vec![]));
}

/// Somebody edits it and takes its only rule for multicast out, those on unicast stay: it is the same policy.
#[test]
fn a_policy_that_has_no_rule_for_multicast_for_a_while_keeps_what_it_counted() {
    let (p, idle, unicast) = (annp("p"), annp("idle"), annp("unicast"));
    let with = |multicast| {
        let mut reading = reading(&[(&p, "u"), (&idle, "i"), (&unicast, "x")], vec![]);
        for known in Arc::make_mut(&mut reading.policies) {
            known.multicast = multicast && &*known.uid != "x";
        }
        reading
    };
    let mut rules = Rules::default();
    let first = || data(rule(&p, "u", "r", Action::Drop, 0), 10);
    let counting = || PolicyReading {
        rules: vec![first(), rule(&idle, "i", "r", Action::Drop, 0)],
        ..with(true)
    };
    update(&mut rules, counting());
    let told = |rules: &Rules| -> Vec<_> {
        let policies = rules.of(Kind::NetworkPolicy).unwrap().into_iter();
        policies
            .map(|policy| (policy.network_policy.name, policy.traffic_stats.unwrap().packets))
            .collect()
    };
    assert_eq!(told(&rules), [("idle".to_owned(), 0), ("p".to_owned(), 10)]);
    // The rules are retired: their last readings come once more.
    update(
        &mut rules,
        PolicyReading {
            rules: counting().rules,
            ..with(false)
        },
    );
    for _ in 0..2 {
        assert_eq!(
            told(&rules),
            [("p".to_owned(), 10)],
            "what counted nothing stands nowhere"
        );
        update(&mut rules, with(false));
    }
    assert_eq!(lives(&rules), [("r".into(), at(0), 10, true)]);
    let second = data(rule(&p, "u", "r", Action::Drop, 30), 1);
    update(
        &mut rules,
        PolicyReading {
            rules: vec![second],
            ..with(true)
        },
    );
    assert_eq!(told(&rules), [("idle".to_owned(), 0), ("p".to_owned(), 11)]);
    update(&mut rules, reading(&[], vec![]));
    assert_eq!(told(&rules), []);
}

#[test]
fn a_policy_that_is_made_again_is_another_one() {
    let p = annp("p");
    let mut rules = Rules::default();
    update(
        &mut rules,
        reading(&[(&p, "u1")], vec![data(rule(&p, "u1", "r", Action::Drop, 0), 10)]),
    );
    update(
        &mut rules,
        reading(&[(&p, "u2")], vec![data(rule(&p, "u2", "r", Action::Drop, 9), 1)]),
    );
    assert_eq!(lives(&rules), [("r".into(), at(9), 1, false)]);
    assert_eq!(rules.of(Kind::NetworkPolicy).unwrap()[0].network_policy.uid, "u2");
}

#[test]
fn of_a_rule_that_comes_and_goes_the_newest_lives_are_kept() {
    let p = annp("p");
    let mut rules = Rules::default();
    for life in 0..20 {
        update(
            &mut rules,
            reading(&[], vec![data(rule(&p, "u", "r", Action::Allow, life), 1)]),
        );
    }
    let kept = lives(&rules);
    assert_eq!((kept.len(), kept[0].1, kept[7].1), (LIVES, at(12), at(19)));
    let value: Value = serde_json::to_value(&rules.of(Kind::NetworkPolicy).unwrap()[0]).unwrap();
    assert_eq!(value["ruleTrafficStats"][0]["ended"], true);
}

/// A clock that was set back: the life that goes on began before all the others.
#[test]
fn the_life_that_goes_on_is_kept_whatever_its_start() {
    let p = annp("p");
    let known = [(&p, "u")];
    let mut rules = Rules::default();
    for life in 10..20 {
        let ends = data(rule(&p, "u", "r", Action::Allow, life), 1);
        update(&mut rules, reading(&known, vec![ends]));
    }
    let goes_on = |packets| data(rule(&p, "u", "r", Action::Allow, 5), packets);
    for packets in 1..4 {
        update(&mut rules, reading(&known, vec![goes_on(packets)]));
        let kept = lives(&rules);
        assert_eq!((kept.len(), &kept[0]), (LIVES, &("r".into(), at(5), packets, false)));
        assert_eq!((kept[1].1, kept[7].1), (at(13), at(19)), "the newest of the others");
    }
}
