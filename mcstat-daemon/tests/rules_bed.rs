//! The rules of policies beside a real switch's flows: the conjunctions of Antrea's pipeline are known again by what they
//! match, and their numbers are those that Antrea's own end-to-end test expects.
//!
//! The veths' numbers are given by the test; counting them is other tests' business. Needs root and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use jiff::Timestamp;
use mcstat::{
    agent::ovs::follow::{Options, follow},
    ledger::{
        Ledger, Node,
        snapshot::{
            KernelReading, PolicyReading, PortReading, RuleReading, Snapshot, SwitchPort, SwitchReading, Traffic,
            WouldDrop,
        },
        verdict::{Compiler, Kind, Limits, Object, PodName},
    },
};
use mcstat_bed::{Bed, ovs::BRIDGE, pipeline::Verdict};
use serde_json::{Value, json};

const PODS: [(&str, &str); 2] = [("e2e", "test1-sender-1"), ("e2e", "test1-sender-2")];

/// A policy with one rule for one Pod.
fn policy(name: &str, pod: &str, action: &str, cidr: &str) -> Object {
    let document = json!({
        "metadata": {"name": name, "namespace": "e2e", "uid": name},
        "spec": {"priority": 1, "appliedTo": [{"podSelector": {"matchLabels": {"name": pod}}}], "egress": [
            {"name": name, "action": action, "to": [{"ipBlock": {"cidr": cidr}}]}
        ]}
    });
    Object::read(Kind::NetworkPolicy, document).unwrap()
}

/// What was compiled, with ten packets of 142 bytes counted for every rule.
fn compiled(policies: Vec<Object>) -> PolicyReading {
    let pods = PODS.map(|(namespace, name)| {
        let metadata = json!({"name": name, "namespace": namespace, "labels": {"name": name}});
        Object::read(Kind::Pod, json!({"metadata": metadata})).unwrap()
    });
    let names = PODS.map(|(namespace, name)| PodName::new(namespace, name));
    let mut compiler = Compiler::new(Limits::default());
    compiler
        .compile(&policies.into_iter().chain(pods).collect(), &names)
        .unwrap();
    let counted = compiler.rules().map(|row| RuleReading {
        row: row.clone(),
        start: Timestamp::UNIX_EPOCH,
        data: Traffic {
            packets: 10,
            segments: 10,
            bytes: 1420,
        },
        messages: 0,
        message_bytes: 0,
        records: 0,
        would_drop: WouldDrop::default(),
        flow: None,
    });
    PolicyReading {
        rules: counted.collect(),
        reach: Arc::new(compiler.reach()),
        ..PolicyReading::default()
    }
}

/// `switch` of every rule, by name.
fn compared(bed: &Bed, policy: &PolicyReading, switch: SwitchReading) -> BTreeMap<String, Value> {
    let ports: Vec<PortReading> = (1..)
        .zip(&bed.pods)
        .map(|(id, pod): (u32, _)| {
            let port = json!({
                "id": id, "pod": {"namespace": pod.namespace, "name": pod.name, "sandbox": pod.container},
                "interface": "eth0", "hostInterface": pod.host_interface, "ifindex": id, "start": Timestamp::UNIX_EPOCH
            });
            serde_json::from_value(port).unwrap()
        })
        .collect();
    let switch_port = |(id, pod): (u32, &mcstat_bed::pod::Pod)| {
        let port = SwitchPort {
            ofport: pod.ofport,
            addresses: vec![pod.ipv4],
        };
        (id, port)
    };
    let snapshot = Snapshot {
        at: Timestamp::now(),
        ports,
        uncounted: Vec::new(),
        kernel: KernelReading::default(),
        namespaces: Vec::new(),
        switch,
        switch_ports: (1..).zip(&bed.pods).map(switch_port).collect(),
        policy: Some(policy.clone()),
        policy_awaited: false,
        detached: BTreeMap::new(),
        messages: Vec::new(),
    };
    let mut ledger = Ledger::new(Node {
        name: "n1".to_owned(),
        start_time: snapshot.at,
        push_interval_seconds: 10,
        window_seconds: 10,
    });
    let policies = ledger.tick(&snapshot).antrea_network_policies.unwrap();
    let rules = policies.into_iter().flat_map(|policy| policy.rule_traffic_stats);
    let rules = rules.map(|rule| (rule.name.clone(), serde_json::to_value(rule).unwrap()["switch"].take()));
    rules.collect()
}

fn send(bed: &Bed, pod: &str, group: [u8; 4]) {
    let sender = bed.pod(pod).unwrap().send(Ipv4Addr::from(group).into(), 10, 50, 100);
    assert_eq!(sender.wait().unwrap(), 10);
}

/// An allowed and a denied group of one Pod, each with a rule of its own; two policies that deny another Pod the same; one
/// that the switch does not have.
#[tokio::test(flavor = "multi_thread")]
async fn antreas_conjunctions_are_known_by_what_they_match() {
    let bed = Bed::up(&PODS).unwrap();
    let pipeline = bed.pipeline();
    let [first, second] = PODS.map(|(_, name)| name);
    let (allowed, denied) = ([225, 20, 2, 3], [225, 20, 2, 2]);
    for (id, pod, cidr, verdict) in [
        (1, first, "225.20.2.3/32", Verdict::Allow),
        (2, first, "225.20.2.2/32", Verdict::Drop),
        (3, second, "225.20.2.2/32", Verdict::Drop),
        (4, second, "225.20.2.2/32", Verdict::Drop),
    ] {
        pipeline.add_egress_rule(id, &[pod], cidr, verdict).unwrap();
    }
    let policy = compiled(vec![
        policy("allow", first, "Allow", "225.20.2.3/32"),
        policy("drop", first, "Drop", "225.20.2.2/32"),
        policy("one", second, "Drop", "225.20.2.2/32"),
        policy("other", second, "Drop", "225.20.2.2/32"),
        policy("missing", second, "Allow", "225.20.2.3/32"),
    ]);
    send(&bed, first, allowed);
    send(&bed, first, denied);
    send(&bed, second, denied);
    let (mut follower, task) = follow(Options {
        run_dir: bed.ovs.socket().parent().unwrap().to_owned(),
        bridge: BRIDGE.to_owned(),
        revalidate: true,
    });
    let following = tokio::spawn(task);
    let ten = json!({"packets": 10, "bytes": 1420});
    let unique = json!({"match": "unique", "packets": 10, "bytes": 1420, "wire": ten, "rules": 1});
    let sum =
        json!({"match": "ambiguous", "packets": 10, "bytes": 1420, "wire": {"packets": 20, "bytes": 2840}, "rules": 2});
    let expected = BTreeMap::from([
        ("allow".to_owned(), unique.clone()),
        ("drop".to_owned(), unique),
        ("one".to_owned(), sum.clone()),
        ("other".to_owned(), sum),
        ("missing".to_owned(), json!({"match": "none", "wire": ten, "rules": 1})),
    ]);
    // The switch is connected to, and writes its counters down, a little later.
    let mut found = compared(&bed, &policy, follower.read().await);
    for _ in 0..100 {
        if found == expected {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        found = compared(&bed, &policy, follower.read().await);
    }
    assert_eq!(found, expected);
    following.abort();
}
