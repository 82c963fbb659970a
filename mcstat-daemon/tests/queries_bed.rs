//! A rule that drops IGMP queries (Antrea's own test of it: a ClusterNetworkPolicy for type 0x11 to 224.0.0.1), over ends of
//! the agent and of the switch. Such a query never reaches a veth: the switch's flow is the only count.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;

use std::{fs, net::Ipv4Addr, time::Duration};

use agent_process::{Node, packets};
use mcstat_bed::{
    Bed,
    ovs::BRIDGE,
    pipeline::{Verdict, query::Query},
    signal::wait_for,
    traffic::Count,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
const DEAF: &str = "deaf";
const HEARING: &str = "hearing";
const GROUP: Ipv4Addr = Ipv4Addr::new(225, 20, 3, 3);

const POLICIES: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: e2e, name: deaf, labels: {hears: nothing}}
---
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: acnp-igmp-query}
spec:
  priority: 1
  appliedTo: [{podSelector: {matchLabels: {hears: nothing}}}]
  ingress: [{name: drop-igmp-query, action: Drop, protocols: [{igmp: {igmpType: 0x11, groupAddress: 224.0.0.1}}]}]
";

struct Agent<'bed> {
    bed: &'bed Bed,
    node: Node,
}

impl Agent<'_> {
    fn run(&mut self) {
        let node = &mut self.node;
        let start = || {
            node.start();
            Ok(())
        };
        self.bed.node.within(start).unwrap();
        let counted = || self.pod(DEAF).is_some_and(|pod| packets(&pod).is_some());
        self.holds("the Pods are counted", counted, &true);
    }

    fn holds<T: PartialEq + std::fmt::Debug>(&self, what: &str, read: impl Fn() -> T, expected: &T) {
        let waited = wait_for(what, LIMIT, || Ok((read() == *expected).then_some(())));
        waited.unwrap_or_else(|error| panic!("{error:#}: {:#?}; the agent says: {}", read(), self.node.log()));
    }

    fn pod(&self, name: &str) -> Option<Value> {
        self.node.pod("e2e", name)
    }

    /// Packets, bytes and records of the rule, all told in one answer.
    fn rule(&self) -> Option<(Count, u64)> {
        let policy = self.node.get(&["antreaclusternetworkpolicystats", "acnp-igmp-query"])?;
        let [rule] = policy["ruleTrafficStats"].as_array()?.as_slice() else {
            return None;
        };
        assert_eq!(policy["trafficStats"], rule["trafficStats"], "its only rule");
        assert_eq!(
            (&rule["name"], &rule["action"]),
            (&json!("drop-igmp-query"), &json!("Drop"))
        );
        let number = |value: &Value| value.as_u64();
        let stats = &rule["trafficStats"];
        let count = Count::new(number(&stats["packets"])?, number(&stats["bytes"])?);
        Some((count, number(&rule["records"])?))
    }

    /// The rule has counted so many queries, and the switch has as many in the flow that there is now.
    fn counted(&self, what: &str, queries: u64, flow: u64) {
        let frames = |packets| Count::new(packets, packets * 46);
        self.holds(what, || self.rule(), &Some((frames(queries), queries)));
        assert_eq!(
            self.bed.pipeline().rule(1).unwrap(),
            Some(frames(flow)),
            "{what}, by the switch"
        );
    }

    fn query(&self, times: usize) {
        for _ in 0..times {
            self.bed.pipeline().query(Query::V3(10)).unwrap();
        }
    }

    /// Queries that the Pod was handed.
    fn heard(&self, name: &str) -> u64 {
        let pod = self.pod(name).unwrap();
        pod["status"]["inbound"]["control"]["igmpv3Query"].as_u64().unwrap_or(0)
    }

    /// The start of the rule's counting.
    fn start(&self) -> Value {
        let policy = self
            .node
            .get(&["antreaclusternetworkpolicystats", "acnp-igmp-query"])
            .unwrap();
        policy["ruleTrafficStats"][0]["startTime"].clone()
    }
}

#[test]
fn i3_dropped_queries_are_counted_and_outlive_agent_and_switch() {
    let bed = Bed::up(&[("e2e", DEAF), ("e2e", HEARING)]).unwrap();
    bed.pipeline().add_query_rule(1, &[DEAF], Verdict::Drop).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("policies.yaml"), POLICIES).unwrap();
    let source = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
    let more = json!({"policy": {"files": directory.path()}});
    let mut agent = Agent {
        bed: &bed,
        node: Node::with(&bed.bpffs(), &source, &more),
    };
    agent.run();
    agent.counted("nothing yet", 0, 0);
    let _receiver = bed.pod(DEAF).unwrap().receive(&[GROUP.into()]).unwrap();
    let igmp = || {
        let igmp = agent.pod(DEAF)?["status"]["igmp"].take();
        Some((
            igmp["allowed"]["messages"].as_u64()? > 0,
            igmp["dropped"]["messages"].clone(),
        ))
    };
    agent.holds("what it reports itself is allowed", igmp, &Some((true, json!(0))));

    agent.query(6);
    agent.counted("six queries", 6, 6);
    agent.holds("the other Pod hears them", || agent.heard(HEARING), &6);
    assert_eq!(agent.heard(DEAF), 0, "none reached the veth");
    assert_eq!(igmp(), Some((true, json!(0))), "a query is none of its own messages");
    let start = agent.start();

    agent.node.kill();
    agent.query(2);
    agent.run();
    agent.counted("and two while no agent ran", 8, 8);

    // The switch ends, and its flows begin anew.
    bed.ovs.kill_vswitchd();
    bed.ovs.start_vswitchd().unwrap();
    bed.pipeline().install(2).unwrap();
    agent.query(3);
    agent.counted("and three of the new flow", 11, 3);

    // The switch takes the rule's number back, and gives it another one.
    bed.pipeline().remove_rule(1).unwrap();
    bed.pipeline().add_query_rule(1, &[DEAF], Verdict::Drop).unwrap();
    agent.query(1);
    agent.counted("and one of the flow after that", 12, 1);
    assert_eq!(agent.start(), start, "one life");
}

/// An agent that reads no switch cannot count queries: it says so by saying nothing, but for what one counted before.
#[test]
fn queries_that_no_switch_counts_are_absent_and_not_none() {
    let bed = Bed::up(&[("e2e", DEAF), ("e2e", HEARING)]).unwrap();
    bed.pipeline().add_query_rule(1, &[DEAF], Verdict::Drop).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("policies.yaml"), POLICIES).unwrap();
    let source = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
    let with_switch = |read: bool| {
        let more = json!({"policy": {"files": directory.path()}, "switch": {"read": read}});
        let mut agent = Agent {
            bed: &bed,
            node: Node::with(&bed.bpffs(), &source, &more),
        };
        agent.run();
        agent
    };
    // The names of the numbers that the rule and its policy have.
    let told = |agent: &Agent<'_>| -> Option<[Vec<String>; 2]> {
        let policy = agent
            .node
            .get(&["antreaclusternetworkpolicystats", "acnp-igmp-query"])?;
        let rule = policy["ruleTrafficStats"].as_array()?.first()?;
        let names = ["trafficStats", "records", "wouldDrop", "switch"];
        Some([rule, &policy].map(|object| {
            let there = names.iter().filter(|name| object.get(**name).is_some());
            there.map(|name| (*name).to_owned()).collect()
        }))
    };
    let mut agent = with_switch(false);
    agent.holds(
        "the rule is there and has no number",
        || told(&agent),
        &Some([vec![], vec![]]),
    );
    agent.query(2);
    agent.node.kill();

    let mut agent = with_switch(true);
    agent.counted("those of before nobody has counted", 0, 2);
    agent.query(3);
    agent.counted("three are counted", 3, 5);
    agent.node.kill();

    let agent = with_switch(false);
    let three = Some((Count::new(3, 3 * 46), 3));
    agent.holds("what was counted holds", || agent.rule(), &three);
}
