//! An agent with a directory of policies, on the node of a bed whose switch has rules of its own.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use mcstat_bed::{Bed, ovs::BRIDGE, signal::wait_for, traffic::Count};
use serde_json::{Value, json};

use crate::agent_process::{Node, packets};

pub const ALLOWED: Ipv4Addr = Ipv4Addr::new(225, 20, 2, 3);
pub const DENIED: Ipv4Addr = Ipv4Addr::new(225, 20, 2, 2);
pub const SENDER: &str = "test1-sender-1";

const LIMIT: Duration = Duration::from_secs(20);

/// The agent of a bed's node, with a directory of policies.
pub struct Agent<'bed> {
    pub bed: &'bed Bed,
    pub node: Node,
    pub policies: tempfile::TempDir,
}

impl<'bed> Agent<'bed> {
    /// Starts it with these policies and waits until it counts every Pod and judges it, or knows that nothing is for it.
    pub fn start(bed: &'bed Bed, policies: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("policies.yaml"), policies).unwrap();
        let source = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
        let more = json!({"policy": {"files": directory.path()}});
        let mut agent = Self {
            bed,
            node: Node::with(&bed.bpffs(), &source, &more),
            policies: directory,
        };
        agent.run();
        agent
    }

    pub fn run(&mut self) {
        let node = &mut self.node;
        let start = || {
            node.start();
            Ok(())
        };
        self.bed.node.within(start).unwrap();
        let ready = |pod: &mcstat_bed::pod::Pod| {
            self.pod(&pod.name)
                .is_some_and(|told| packets(&told).is_some() && known(&told).0 == "True")
        };
        self.eventually("every Pod is counted and judged", || self.bed.pods.iter().all(ready));
    }

    /// Puts other policies in place, as users are told to: by renaming.
    pub fn replace(&self, policies: &str) {
        let new = self.policies.path().join("policies.new");
        fs::write(&new, policies).unwrap();
        fs::rename(new, self.policies.path().join("policies.yaml")).unwrap();
    }

    pub fn eventually(&self, what: &str, ready: impl Fn() -> bool) {
        let waited = wait_for(what, LIMIT, || Ok(ready().then_some(())));
        waited.unwrap_or_else(|error| panic!("{error:#}; the agent says: {}", self.node.log()));
    }

    /// Waits until what is read is so, then reads once more.
    pub fn holds<T: PartialEq + std::fmt::Debug>(&self, what: &str, read: impl Fn() -> T, expected: &T) {
        let waited = wait_for(what, LIMIT, || Ok((read() == *expected).then_some(())));
        waited.unwrap_or_else(|error| panic!("{error:#}: {:#?}; the agent says: {}", read(), self.node.log()));
        if self.bed.ovs.vswitchd_pid().is_some() {
            self.bed.ovs.revalidate().unwrap();
        }
        assert_eq!(read(), *expected, "{what}, and no more after that");
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        let pod = self.bed.pod(name).unwrap();
        self.node.pod(&pod.namespace, &pod.name)
    }

    /// Packets of a Pod: INBOUND, OUTBOUND, dropped, would be dropped.
    pub fn numbers(&self, name: &str) -> Option<[u64; 4]> {
        let status = self.pod(name)?["status"].take();
        let outbound = &status["outbound"];
        let numbers = [
            &status["inbound"]["packets"],
            &outbound["admitted"],
            &outbound["dropped"],
            &outbound["wouldDrop"],
        ];
        assert_eq!(
            outbound["sent"].as_u64()?,
            outbound["admitted"].as_u64()? + outbound["dropped"].as_u64()?
        );
        let numbers: Vec<u64> = numbers.iter().map(|number| number.as_u64()).collect::<Option<_>>()?;
        numbers.try_into().ok()
    }

    /// What the rules of a policy decided, by name.
    pub fn rules(&self, policy: &str) -> Option<BTreeMap<String, Value>> {
        let object = self.node.get(&["antreanetworkpolicystats", policy, "-n", "e2e"])?;
        let rules = object["ruleTrafficStats"].as_array()?;
        let named = rules
            .iter()
            .map(|rule| (rule["name"].as_str().unwrap().to_owned(), rule.clone()));
        Some(named.collect())
    }

    /// Packets and bytes of the rules of a policy, those that would be dropped, and nothing in sessions.
    pub fn data(&self, policy: &str) -> Option<Vec<(String, Count, u64)>> {
        let rules = self.rules(policy)?.into_iter().map(|(name, rule)| {
            let stats = &rule["trafficStats"];
            assert_eq!(stats["sessions"], 0);
            let number = |value: &Value| value.as_u64().unwrap();
            let count = Count::new(number(&stats["packets"]), number(&stats["bytes"]));
            (name, count, number(&rule["wouldDrop"]["packets"]))
        });
        Some(rules.collect())
    }

    /// Groups with their members, by what the node tells.
    pub fn groups(&self) -> Option<BTreeMap<String, Vec<String>>> {
        let list = self.node.get(&["multicastgroups"])?;
        let groups = list["items"].as_array()?.iter().map(|group| {
            let pods = group["pods"].as_array().unwrap();
            let names = pods.iter().map(|pod| pod["name"].as_str().unwrap().to_owned());
            (group["group"].as_str().unwrap().to_owned(), names.collect())
        });
        let groups: BTreeMap<String, Vec<String>> = groups.collect();
        // Groups of hosts are joined by none of ours.
        Some(
            groups
                .into_iter()
                .filter(|(group, _)| group.starts_with("225."))
                .collect(),
        )
    }

    pub fn condition(&self, name: &str, kind: &str) -> Option<String> {
        let pod = self.pod(name)?;
        let conditions = pod["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
        Some(format!("{} {}", condition["status"], condition["reason"]).replace('"', ""))
    }
}

/// Status and reason of `PolicyKnown`.
pub fn known(pod: &Value) -> (String, String) {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let known = conditions.iter().find(|condition| condition["type"] == "PolicyKnown");
    let word = |key: &str| known.unwrap()[key].as_str().unwrap().to_owned();
    (word("status"), word("reason"))
}

/// Frames of 142 bytes.
pub const fn frames(packets: u64) -> Count {
    Count::new(packets, packets * 142)
}

/// Ten packets of 142 bytes.
pub fn send_ten(bed: &Bed, pod: &str, group: Ipv4Addr) {
    let sender = bed.pod(pod).unwrap().send(IpAddr::V4(group), 10, 50, 100);
    assert_eq!(sender.wait().unwrap(), 10);
}

pub fn pod(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: e2e, name: {name}, labels: {{antrea-e2e: {name}}}}}}}\n---\n"
    )
}

/// A policy for the Pod of this label.
pub fn policy(name: &str, pod: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {{namespace: e2e, name: {name}}}, spec: {{priority: 10, \
         appliedTo: [{{podSelector: {{matchLabels: {{antrea-e2e: {pod}}}}}}}], {rules}}}}}\n---\n"
    )
}
