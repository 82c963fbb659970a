//! An agent whose maps have not room for everything at once: what must wait for what is retired is judged in the end,
//! though nobody touches a policy again; and what an earlier agent left there takes no room twice.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use agent_process::Node;
use mcstat_bed::{Bed, ovs::BRIDGE, signal::wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
/// Together more than half of the 1,023 rules that the maps have at most, each with a list of ports of its own.
const POLICIES: usize = 9;
const RULES: usize = 100;

/// Puts all policies in place, made for the n-th time.
fn replace(directory: &Path, made: u32) {
    let mut text = String::new();
    for policy in 0..POLICIES {
        write!(
            text,
            "---\n{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p{policy}, uid: \
             u{policy}-{made}}}, spec: {{priority: 1, appliedTo: [{{podSelector: {{}}}}], egress: ["
        )
        .unwrap();
        for rule in 0..RULES {
            let port = 1000 + rule;
            write!(
                text,
                "{{name: r{rule}, action: Drop, to: [{{ipBlock: {{cidr: 225.1.{policy}.{rule}/32}}}}], \
                 ports: [{{protocol: UDP, port: {port}}}]}}, "
            )
            .unwrap();
        }
        text.push_str("]}}\n");
    }
    fs::write(directory.join("new"), text).unwrap();
    fs::rename(directory.join("new"), directory.join("policies.yaml")).unwrap();
}

/// UID of each policy, how many rules it has in force, and since when the oldest.
fn told(node: &Node) -> BTreeMap<String, (usize, String)> {
    let Some(list) = node.get(&["antreaclusternetworkpolicystats"]) else {
        return BTreeMap::new();
    };
    let policies = list["items"].as_array().into_iter().flatten().map(|policy| {
        let rules = policy["ruleTrafficStats"].as_array();
        let starts = rules.into_iter().flatten().map(|rule| rule["startTime"].to_string());
        let uid = policy["metadata"]["uid"].as_str().unwrap().to_owned();
        (uid, (rules.map_or(0, Vec::len), starts.min().unwrap_or_default()))
    });
    policies.collect()
}

#[test]
fn nobody_is_left_out_for_want_of_room_that_is_freed() {
    let bed = Bed::up(&[("mkt", "a")]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let source: Value = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
    let more = json!({"policy": {"files": directory.path()}});
    let mut node = Node::with(&bed.bpffs(), &source, &more);
    let all = |node: &Node, made: u32| {
        let is_whole = |policy| {
            let told = told(node).remove(&format!("u{policy}-{made}"));
            told.is_some_and(|(rules, _)| rules == RULES)
        };
        let waited = wait_for("every rule is judged", LIMIT, || {
            Ok((0..POLICIES).all(is_whole).then_some(()))
        });
        waited.unwrap_or_else(|error| panic!("{error:#}: {:#?}; the agent says: {}", told(node), node.log()));
    };
    let run = |node: &mut Node| {
        bed.node.within(|| {
            node.start();
            Ok(())
        })
    };
    replace(directory.path(), 1);
    run(&mut node).unwrap();
    all(&node, 1);

    replace(directory.path(), 2);
    all(&node, 2);
    // A new agent finds the same lists in the maps, and makes nothing anew.
    let before = told(&node);
    node.kill();
    run(&mut node).unwrap();
    all(&node, 2);
    assert_eq!(told(&node), before, "totals go on");
    assert!(!node.log().contains("no room"), "{}", node.log());
}
