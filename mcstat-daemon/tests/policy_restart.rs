//! A membership whose report a rule denied, over a kill of the agent: the Pod's kernel has joined and knows nothing of it.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;

use std::{fs, net::IpAddr, path::Path, time::Duration};

use agent_process::Node;
use mcstat_bed::{Bed, command::command, ovs::BRIDGE, signal::wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const GROUP: &str = "225.20.3.2";

/// Puts a policy in place that lets nobody report the group, or everybody.
fn put_policy(directory: &Path, action: &str) {
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {{namespace: mkt, name: p}}, spec: {{priority: 5, \
         appliedTo: [{{podSelector: {{}}}}], egress: [{{name: report, action: {action}, protocols: [{{igmp: \
         {{groupAddress: {GROUP}}}}}]}}]}}}}"
    );
    fs::write(directory.join("new"), text).unwrap();
    fs::rename(directory.join("new"), directory.join("policies.yaml")).unwrap();
}

/// What the Pod's row of the group says: whether it is a member, the rule that denied it, and how many reports were heard.
fn membership(pod: &Value) -> Option<(bool, Option<String>, u64)> {
    let groups = pod["status"]["groups"].as_array()?;
    let membership = &groups.iter().find(|row| row["group"] == GROUP)?["membership"];
    let denied = membership["denied"].as_object();
    let denied = denied.map(|rule| {
        let policy = &rule["policy"];
        let texts = [
            &policy["kind"],
            &policy["namespace"],
            &policy["name"],
            &rule["rule"],
            &rule["action"],
        ];
        texts.map(|text| text.as_str().unwrap_or_default()).join(" ")
    });
    Some((membership["joined"].as_bool()?, denied, membership["reports"].as_u64()?))
}

#[test]
fn a_denied_membership_stays_denied_over_a_kill_until_a_report_is_allowed() {
    let mut bed = Bed::up(&[("mkt", "rec")]).unwrap();
    let policies = tempfile::tempdir().unwrap();
    put_policy(policies.path(), "Drop");
    let source = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
    let mut node = Node::with(&bed.bpffs(), &source, &json!({"policy": {"files": policies.path()}}));
    let start = |node: &mut Node, bed: &Bed| {
        let start = || {
            node.start();
            Ok(())
        };
        bed.node.within(start).unwrap();
    };
    let until = |node: &Node, what: &str, ready: &dyn Fn(&Value) -> bool| {
        let told = || Ok(node.pod("mkt", "rec").filter(|pod| ready(pod)));
        wait_for(what, LIMIT, told).unwrap_or_else(|error| {
            let pod = node.pod("mkt", "rec");
            panic!("{error:#}: {pod:#?}; the agent says: {}", node.log())
        })
    };
    let in_pods = |node: &Node| {
        let group = node.get(&["multicastgroups", GROUP]);
        group.is_some_and(|group| group["pods"].as_array().is_some_and(|pods| !pods.is_empty()))
    };
    let reason = |pod: &Value, reason: &str| {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let known = conditions.iter().find(|condition| condition["type"] == "PolicyKnown");
        known.unwrap()["reason"] == reason
    };
    let denied = Some("NetworkPolicy mkt p report Drop".to_owned());

    start(&mut node, &bed);
    until(&node, "the Pod is judged", &|pod| reason(pod, "Enforced"));
    let group: IpAddr = GROUP.parse().unwrap();
    let _receiver = bed.pod("rec").unwrap().receive(&[group]).unwrap();
    let is_denied = |pod: &Value| membership(pod).is_some_and(|(joined, by, _)| !joined && by == denied);
    // A Linux host says it twice, and nothing more until it is asked.
    until(&node, "both its reports are denied", &|pod| {
        is_denied(pod) && membership(pod).is_some_and(|(_, _, reports)| reports == 2)
    });
    assert!(!in_pods(&node));

    // Twice: what the second agent was told it must keep, too.
    for _ in 0..2 {
        node.kill();
        let netns = &bed.pod("rec").unwrap().netns;
        let kernel = netns.output(command("cat").arg("/proc/net/igmp")).unwrap();
        assert!(kernel.contains("020314E1"), "the Pod's kernel has joined: {kernel}");
        start(&mut node, &bed);
        // Whatever it tells first, it never tells that the Pod is a member.
        let seen = |pod: &Value| match membership(pod) {
            Some((joined, by, reports)) => {
                assert_eq!((joined, &by, reports), (false, &denied, 0), "{pod:#}");
                reason(pod, "Enforced")
            }
            None => false,
        };
        let told = until(&node, "the new agent knows it", &seen);
        assert!(is_denied(&told) && !in_pods(&node), "{told:#}");
    }

    // Neither a policy that allows it nor a kill changes that.
    put_policy(policies.path(), "Allow");
    until(&node, "the new policy is in force", &|pod| {
        let rules = node.get(&["antreanetworkpolicystats", "p", "-n", "mkt"]);
        let rules = rules.unwrap_or_default()["ruleTrafficStats"].to_string();
        assert!(is_denied(pod), "{pod:#}");
        rules.contains("Allow")
    });
    node.kill();
    start(&mut node, &bed);
    until(&node, "still denied", &|pod| is_denied(pod) && reason(pod, "Enforced"));

    // A query has it report again.
    bed.start_querier(1).unwrap();
    until(&node, "an allowed report makes it a member", &|pod| {
        membership(pod).is_some_and(|(joined, by, _)| joined && by.is_none())
    });
    assert!(in_pods(&node));
    node.kill();
    start(&mut node, &bed);
    let told = until(&node, "a member", &|pod| membership(pod).is_some());
    assert!(
        membership(&told).is_some_and(|(joined, by, _)| joined && by.is_none()),
        "{told:#}"
    );
}
