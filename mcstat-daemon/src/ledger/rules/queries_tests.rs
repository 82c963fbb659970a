//! Rules on queries through ticks of a ledger: Pods 1 to 3 have the addresses 10.0.0.N and the switch's ports 10N; a query
//! is 46 bytes; times in seconds, one tick at each.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use serde_json::json;

use super::*;
use crate::{
    api::policy::{RuleTrafficStats, SwitchMatch},
    ledger::{
        Ledger, Node,
        scene::{at, pod, snapshot},
        snapshot::{PolicyReading, SwitchPort, SwitchReading, Traffic, WouldDrop},
        switch::{Prefix, Rule, Switch},
        verdict::{Compiler, Kind, Limits, Object, PodName, RuleRow},
    },
};

/// A node with the ledger of one agent process after another, and what is written down between ticks.
struct World {
    ledger: Ledger,
    compiler: Compiler,
    kept: BTreeMap<u16, (Decided, Option<RuleFlow>)>,
    start: Timestamp,
}

fn ledger() -> Ledger {
    Ledger::new(Node {
        name: "n1".to_owned(),
        start_time: at(0),
        push_interval_seconds: 10,
        window_seconds: 10,
    })
}

/// A rule on queries for the Pod with this number.
fn rule(name: &str, pods: &[u32], action: &str) -> Object {
    let selected: Vec<_> = pods.iter().map(|id| pod(*id).name).collect();
    let selector = json!({"matchExpressions": [{"key": "pod", "operator": "In", "values": selected}]});
    let document = json!({
        "metadata": {"name": name, "namespace": "mkt", "uid": name},
        "spec": {"priority": 1, "appliedTo": [{"podSelector": selector}], "ingress": [
            {"name": name, "action": action, "protocols": [{"igmp": {"igmpType": 0x11, "groupAddress": "224.0.0.1"}}]}
        ]}
    });
    Object::read(Kind::NetworkPolicy, document).unwrap()
}

/// A flow of the switch: its number, the Pod, its packets, when it was made, and by which antrea-agent.
#[derive(Clone, Copy)]
struct Made(u32, u32, u64, i64, u64);

fn reading(now: i64, verdict: Verdict, flows: &[Made]) -> SwitchReading {
    let rules = flows.iter().map(|Made(id, pod, ..)| Rule {
        id: *id,
        priority: 100,
        groups: vec![Prefix {
            address: Ipv4Addr::new(224, 0, 0, 1),
            bits: 32,
        }],
        ofports: vec![100 + pod],
        unexpressed: 1,
        verdict: Some(verdict),
        ..Rule::default()
    });
    let count = |packets, made, round| FlowCount {
        packets,
        bytes: packets * 46,
        duration: Duration::from_secs(u64::try_from(now - made).unwrap()),
        cookie: round << 48,
    };
    let metrics = flows
        .iter()
        .map(|Made(id, _, packets, made, round)| ((*id, verdict), count(*packets, *made, *round)));
    SwitchReading::Read(Box::new(SwitchAccount {
        before: at(now),
        after: at(now),
        connection: 1,
        switch: Switch {
            // Without this table nobody enforces.
            egress: Some(BTreeMap::new()),
            ingress: Some(metrics.collect()),
            ingress_rules: rules.collect(),
            ..Switch::default()
        },
        groups_known: true,
        queue_drops: BTreeMap::new(),
    }))
}

impl World {
    fn new(rules: Vec<Object>) -> Self {
        let mut world = Self {
            ledger: ledger(),
            compiler: Compiler::new(Limits::default()),
            kept: BTreeMap::new(),
            start: at(0),
        };
        world.compile(rules);
        world
    }

    fn compile(&mut self, rules: Vec<Object>) {
        let pods: Vec<_> = (1..=3).map(|id| PodName::new("mkt", &pod(id).name)).collect();
        let labelled = (1..=3).map(|id| {
            let name = pod(id).name;
            let document = json!({"metadata": {"name": name, "namespace": "mkt", "labels": {"pod": name}}});
            Object::read(Kind::Pod, document).unwrap()
        });
        let model = rules.into_iter().chain(labelled).collect();
        let mut change = self.compiler.compile(&model, &pods).unwrap();
        assert!(change.problems.is_empty(), "{:?}", change.problems);
        self.compiler.release(std::mem::take(&mut change.retired));
    }

    /// Another process begins with what was written down.
    fn restart(&mut self) {
        self.ledger = ledger();
    }

    /// One tick, and what it has to say written down. Every rule by its name.
    fn tick(&mut self, now: i64, switch: SwitchReading) -> BTreeMap<String, RuleTrafficStats> {
        let mut taken = snapshot(now, 3, &[]);
        let ports = (1..=3_u8).map(|id| {
            let port = SwitchPort {
                ofport: 100 + u32::from(id),
                addresses: vec![Ipv4Addr::new(10, 0, 0, id)],
            };
            (u32::from(id), port)
        });
        (taken.switch, taken.switch_ports) = (switch, ports.collect());
        let read = |row: &RuleRow| {
            let (read, flow) = self.kept.get(&row.slot).copied().unwrap_or_default();
            RuleReading {
                row: row.clone(),
                start: self.start,
                data: Traffic::default(),
                messages: read.messages,
                message_bytes: read.bytes,
                records: read.records,
                would_drop: WouldDrop::default(),
                flow,
            }
        };
        taken.policy = Some(PolicyReading {
            rules: self.compiler.rules().map(read).collect(),
            reach: Arc::new(self.compiler.reach()),
            ..PolicyReading::default()
        });
        let policies = self.ledger.tick(&taken).antrea_network_policies.unwrap();
        for Queried { slot, more, flow, .. } in self.ledger.queried() {
            let (kept, last) = self.kept.entry(slot).or_default();
            (*kept, *last) = (kept.plus(more), Some(flow));
        }
        let rules = policies.into_iter().flat_map(|policy| policy.rule_traffic_stats);
        rules.map(|rule| (rule.name.clone(), rule)).collect()
    }

    /// The packets of the rule `a` after a tick with these flows; its other numbers are the same.
    fn packets(&mut self, now: i64, flows: &[Made]) -> u64 {
        let told = self.tick(now, reading(now, Verdict::Drop, flows));
        number(&told["a"])
    }
}

fn number(rule: &RuleTrafficStats) -> u64 {
    let stats = rule.traffic_stats.unwrap();
    assert_eq!(
        (stats.bytes, rule.records),
        (stats.packets * 46, Some(stats.packets)),
        "{rule:?}"
    );
    stats.packets
}

/// Whether nobody has counted the rule: it has no number, and neither has its policy.
fn is_uncounted(world: &World, rule: &RuleTrafficStats) -> bool {
    let numbers = (rule.traffic_stats, rule.records, rule.would_drop);
    let policies = world.ledger.rules.of(Kind::NetworkPolicy).unwrap();
    let its = policies.iter().find(|policy| policy.network_policy.name == rule.name);
    numbers == (None, None, None) && its.unwrap().traffic_stats.is_none()
}

/// The only rule: `a`, which drops queries to Pod 1, and whose flow is there at second 0, with five packets that are older.
fn dropping() -> World {
    let mut world = World::new(vec![rule("a", &[1], "Drop")]);
    assert_eq!(
        world.packets(0, &[Made(3, 1, 5, -60, 1)]),
        0,
        "counted before the rule was"
    );
    world
}

#[test]
fn queries_are_what_the_flow_grows_by() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 6, -60, 1)]), 1);
    assert_eq!(world.packets(2, &[Made(3, 1, 6, -60, 1)]), 1);
    assert_eq!(world.packets(3, &[Made(3, 1, 11, -60, 1)]), 6);
    let told = world.tick(4, reading(4, Verdict::Drop, &[Made(3, 1, 11, -60, 1)]));
    assert_eq!(
        told["a"].switch.unwrap().flows.unwrap().packets,
        11,
        "the flow's own number stands beside"
    );
    let mut allowing = World::new(vec![rule("a", &[1], "Allow")]);
    for (now, packets) in [(0, 5), (1, 7)] {
        let told = allowing.tick(now, reading(now, Verdict::Allow, &[Made(3, 1, packets, -60, 1)]));
        assert_eq!(number(&told["a"]), packets - 5, "allowed ones count likewise");
    }
}

/// Added again, a flow keeps its counters and is young again; its cookie is another one after a restart of antrea-agent.
#[test]
fn a_flow_that_was_added_again_goes_on() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 6, -60, 1)]), 1);
    assert_eq!(world.packets(2, &[Made(3, 1, 6, 2, 1)]), 1);
    assert_eq!(world.packets(3, &[Made(3, 1, 8, 3, 2)]), 3);
}

#[test]
fn a_flow_that_fell_began_anew() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 7, -60, 1)]), 2);
    assert_eq!(world.packets(2, &[Made(3, 1, 2, 2, 1)]), 4, "two more of the new one");
    assert_eq!(world.packets(3, &[Made(3, 1, 0, 3, 1)]), 4);
    assert_eq!(world.packets(4, &[Made(3, 1, 1, 3, 1)]), 5);
}

#[test]
fn while_the_switch_is_away_nothing_moves() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 7, -60, 1)]), 2);
    let told = world.tick(2, SwitchReading::Away { since: at(2) });
    assert_eq!((number(&told["a"]), told["a"].switch), (2, None));
    // It is back and not programmed, then it is.
    assert_eq!(world.packets(3, &[]), 2);
    assert_eq!(world.packets(4, &[Made(3, 1, 4, 4, 1)]), 6);
    assert_eq!(number(&world.tick(5, SwitchReading::None)["a"]), 6);
}

/// Antrea gives a rule that changes another number, and another flow.
#[test]
fn a_new_conjunction_adds_what_it_counted_since_it_was_made() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 7, -60, 1)]), 2);
    assert_eq!(world.packets(3, &[Made(4, 1, 1, 2, 1)]), 3);
    assert_eq!(world.packets(4, &[Made(4, 1, 3, 2, 1)]), 5);
    // This one is older than the last reading: somebody else's, or counted already.
    assert_eq!(world.packets(5, &[Made(3, 1, 90, -60, 1)]), 5);
    assert_eq!(world.packets(6, &[Made(3, 1, 91, -60, 1)]), 6);
}

/// Another antrea-agent gives numbers out anew, and a flow that it adds again has what another rule counted.
#[test]
fn of_another_antrea_agent_nothing_is_taken_for_new() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 7, -60, 1)]), 2);
    assert_eq!(world.packets(3, &[Made(4, 1, 1000, 2, 2)]), 2);
    assert_eq!(world.packets(4, &[Made(4, 1, 1001, 2, 2)]), 3);
    // While flows of both are there, it is still about to add them again.
    assert_eq!(world.packets(5, &[Made(4, 1, 1001, 2, 2), Made(8, 2, 0, -60, 1)]), 3);
    assert_eq!(world.packets(7, &[Made(5, 1, 500, 6, 2)]), 3);
    assert_eq!(world.packets(9, &[Made(6, 1, 2, 8, 2)]), 5, "now it is done with that");
}

/// A policy is new to node and switch alike: the flow is younger than the last reading.
#[test]
fn the_first_flow_of_a_new_rule_counts_whole() {
    let mut world = World::new(vec![rule("b", &[2], "Drop")]);
    world.tick(0, reading(0, Verdict::Drop, &[Made(8, 2, 0, -60, 1)]));
    world.compile(vec![rule("b", &[2], "Drop"), rule("a", &[1], "Drop")]);
    let told = world.tick(2, reading(2, Verdict::Drop, &[Made(8, 2, 0, -60, 1)]));
    assert!(is_uncounted(&world, &told["a"]), "the switch does not have it yet");
    assert_eq!(world.packets(4, &[Made(8, 2, 0, -60, 1), Made(9, 1, 2, 3, 1)]), 2);
}

/// What two rules share cannot be divided.
#[test]
fn where_rules_cannot_be_told_apart_neither_has_a_number() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 7, -60, 1)]), 2);
    world.compile(vec![rule("a", &[1], "Drop"), rule("b", &[1], "Drop")]);
    let both = [Made(3, 1, 9, -60, 1), Made(4, 1, 4, 2, 1)];
    let told = world.tick(3, reading(3, Verdict::Drop, &both));
    assert_eq!(number(&told["a"]), 2, "nothing falls");
    assert!(is_uncounted(&world, &told["b"]), "it never had one");
    let switch = told["a"].switch.unwrap();
    assert_eq!(
        (switch.matched, switch.flows.unwrap().packets, switch.rules),
        (SwitchMatch::Ambiguous, 13, 2)
    );
    assert_eq!(told["b"].switch, Some(switch));
    // The other is gone: what its own flow counted meanwhile is the rule's.
    world.compile(vec![rule("a", &[1], "Drop")]);
    assert_eq!(world.packets(4, &[Made(3, 1, 10, -60, 1)]), 5);
}

/// What no switch has counted is not 0; what one has counted once holds, be it 0.
#[test]
fn a_rule_has_numbers_once_a_switch_has_counted_it() {
    let mut world = World::new(vec![rule("a", &[1], "Drop")]);
    for (now, switch) in [
        (0, SwitchReading::None),
        (1, SwitchReading::Away { since: at(1) }),
        (2, reading(2, Verdict::Drop, &[])),
    ] {
        let told = world.tick(now, switch);
        assert!(is_uncounted(&world, &told["a"]), "second {now}");
    }
    assert_eq!(world.packets(3, &[Made(3, 1, 5, -60, 1)]), 0, "counted from now on");
    let away = |now| SwitchReading::Away { since: at(now) };
    assert_eq!(number(&world.tick(4, away(4))["a"]), 0);
    world.restart();
    assert_eq!(number(&world.tick(5, SwitchReading::None)["a"]), 0, "written down");
    assert_eq!(world.packets(6, &[Made(3, 1, 7, -60, 1)]), 2);
    world.restart();
    assert_eq!(number(&world.tick(7, away(7))["a"]), 2);
}

#[test]
fn another_process_goes_on_from_what_was_written_down() {
    let mut world = dropping();
    assert_eq!(world.packets(1, &[Made(3, 1, 7, -60, 1)]), 2);
    world.restart();
    assert_eq!(number(&world.tick(2, SwitchReading::Away { since: at(2) })["a"]), 2);
    assert_eq!(world.packets(3, &[Made(3, 1, 10, -60, 1)]), 5, "three passed meanwhile");
    world.restart();
    assert_eq!(
        world.packets(4, &[Made(3, 1, 1, 4, 1)]),
        6,
        "the switch began anew meanwhile"
    );
    world.restart();
    assert_eq!(
        world.packets(5, &[Made(4, 1, 9, 5, 1)]),
        6,
        "of another flow it is not known since when"
    );
    assert_eq!(world.packets(6, &[Made(4, 1, 10, 5, 1)]), 7);
}

/// What is written down late, or not at all, is said again until it is.
#[test]
fn what_was_not_written_down_is_said_again() {
    let mut world = dropping();
    world.packets(1, &[Made(3, 1, 7, -60, 1)]);
    let kept = world.kept.clone();
    assert_eq!(world.ledger.queried().count(), 1);
    assert_eq!(world.packets(2, &[Made(3, 1, 7, -60, 1)]), 2);
    assert_eq!(world.ledger.queried().count(), 0);
    world.kept.clear();
    assert_eq!(world.packets(3, &[Made(3, 1, 8, -60, 1)]), 3);
    assert_eq!(world.kept.values().next().unwrap().0, queries(3, 138));
    assert_eq!(kept.values().next().unwrap().0, queries(2, 92));
}
