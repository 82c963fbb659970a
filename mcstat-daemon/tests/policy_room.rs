//! An agent whose maps have no room for new policies beside the old ones: the new ones come into force all the same, over a
//! kill too, others do not wait for them, and no rule loses what it counted. What is too large by itself is named.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;

use std::{fs, net::IpAddr, path::Path, time::Duration};

use agent_process::Node;
use mcstat_bed::{Bed, ovs::BRIDGE, signal::wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A policy that drops data to so many groups from 239.`octet`.0.0 on.
fn policy(name: &str, octet: u32, groups: u32) -> String {
    let block = |n| format!("{{ipBlock: {{cidr: 239.{octet}.{}.{}/32}}}}", n / 250, n % 250);
    let blocks: Vec<_> = (0..groups).map(block).collect();
    format!(
        "---\n{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {{priority: 5, \
         appliedTo: [{{podSelector: {{}}}}], egress: [{{name: drop-{name}, action: Drop, to: [{}]}}]}}}}\n",
        blocks.join(", ")
    )
}

/// Puts `large` for so many groups of this octet in place, and `small` for some of another.
fn put_policies(directory: &Path, large: (u32, u32), small: u32) {
    let text = policy("large", large.0, large.1) + &policy("small", small, 10);
    fs::write(directory.join("new"), text).unwrap();
    fs::rename(directory.join("new"), directory.join("policies.yaml")).unwrap();
}

/// Reason and message of `PolicyKnown`.
fn known(pod: &Value) -> Option<(String, String)> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let known = conditions.iter().find(|condition| condition["type"] == "PolicyKnown")?;
    Some((
        known["reason"].as_str()?.to_owned(),
        known["message"].as_str().unwrap_or_default().to_owned(),
    ))
}

struct Lab {
    node: Node,
    policies: tempfile::TempDir,
    bed: Bed,
}

impl Lab {
    fn start(&mut self) {
        let node = &mut self.node;
        let start = || {
            node.start();
            Ok(())
        };
        self.bed.node.within(start).unwrap();
    }

    fn until(&self, what: &str, ready: impl Fn(&Value) -> bool) -> Value {
        let told = || Ok(self.node.pod("mkt", "feed").filter(|pod| ready(pod)));
        wait_for(what, LIMIT, told).unwrap_or_else(|error| {
            panic!(
                "{error:#}: {:?}; the agent says: {}",
                self.node.pod("mkt", "feed"),
                self.node.log()
            )
        })
    }

    /// Sends ten packets to 239.`octet`.0.7 and waits until they are counted as dropped or admitted.
    fn send(&self, octet: u8, numbers: (u64, u64)) {
        let group = IpAddr::from([239, octet, 0, 7]);
        let sender = self.bed.pod("feed").unwrap().send(group, 10, 100, 100);
        assert_eq!(sender.wait().unwrap(), 10);
        self.until(&format!("{numbers:?} are dropped and admitted"), |pod| {
            let outbound = &pod["status"]["outbound"];
            (outbound["dropped"].as_u64(), outbound["admitted"].as_u64()) == (Some(numbers.0), Some(numbers.1))
        });
    }

    /// The rule that decides data to 239.`octet`.0.7, once the Pod has sent there.
    fn decider(pod: &Value, octet: u8) -> Value {
        let rows = pod["status"]["groups"].as_array();
        let mut rows = rows.into_iter().flatten();
        let row = rows.find(|row| row["group"] == format!("239.{octet}.0.7"));
        row.map(|row| row["outbound"]["rule"]["rule"].clone())
            .unwrap_or_default()
    }

    /// When the rule of a policy began to count, and how many packets it has dropped since.
    fn counted(&self, name: &str) -> (String, u64) {
        let policy = self.node.get(&["antreaclusternetworkpolicystats", name]).unwrap();
        let rule = &policy["ruleTrafficStats"][0];
        let start = rule["startTime"].as_str().unwrap().to_owned();
        (start, rule["trafficStats"]["packets"].as_u64().unwrap())
    }
}

#[test]
fn policies_without_room_beside_the_old_ones_come_into_force_all_the_same() {
    let bed = Bed::up(&[("mkt", "feed")]).unwrap();
    let policies = tempfile::tempdir().unwrap();
    // A trie of 16,384 prefixes.
    let more = json!({
        "policy": {"files": policies.path()},
        "maps": {"memoryMiB": 8, "slots": 256},
    });
    let source = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
    let node = Node::with(&bed.bpffs(), &source, &more);
    let mut lab = Lab { node, policies, bed };
    put_policies(lab.policies.path(), (1, 9000), 11);
    lab.start();
    let quiet = ("Enforced".to_owned(), String::new());
    lab.until("the Pod is judged", |pod| known(pod).as_ref() == Some(&quiet));
    lab.send(1, (10, 0));
    lab.send(11, (20, 0));
    let starts = (lab.counted("large").0, lab.counted("small").0);

    // Both change, and the large one has no room beside itself.
    lab.send(2, (20, 10));
    lab.send(12, (20, 20));
    put_policies(lab.policies.path(), (2, 9000), 12);
    let is_new = |pod: &Value| {
        let deciders = [1, 2, 11, 12].map(|octet| Lab::decider(pod, octet));
        deciders == [Value::Null, json!("drop-large"), Value::Null, json!("drop-small")]
    };
    let told = lab.until("both new policies are in force", is_new);
    assert_eq!(known(&told), Some(quiet.clone()), "nothing is left out");
    lab.send(2, (30, 20));
    lab.send(12, (40, 20));
    lab.send(1, (40, 30));

    // An agent that finds another policy than that in force has no more room.
    lab.node.kill();
    put_policies(lab.policies.path(), (1, 9000), 12);
    lab.start();
    let told = lab.until("the policy of before is in force again", |pod| {
        (Lab::decider(pod, 1), Lab::decider(pod, 2)) == (json!("drop-large"), Value::Null)
    });
    assert_eq!(known(&told), Some(quiet.clone()));
    lab.send(1, (50, 30));
    assert_eq!(lab.counted("large"), (starts.0.clone(), 30));
    assert_eq!(lab.counted("small"), (starts.1, 20));

    // What the trie does not hold at all is named, and the other is judged.
    put_policies(lab.policies.path(), (2, 15_000), 11);
    let told = lab.until("the small policy is the new one", |pod| {
        Lab::decider(pod, 11) == json!("drop-small")
    });
    assert_eq!(
        known(&told),
        Some((
            "Enforced".to_owned(),
            "ClusterNetworkPolicy large: no room for its prefixes; the policy is not judged on this node: raise \
             maps.memoryMiB, or make it smaller"
                .to_owned()
        ))
    );
    lab.send(11, (60, 30));
    // Until it fits: nobody has to do anything else.
    put_policies(lab.policies.path(), (2, 9000), 11);
    let told = lab.until("the large one is judged again", |pod| {
        Lab::decider(pod, 2) == json!("drop-large")
    });
    assert_eq!(known(&told), Some(quiet));
    lab.send(2, (70, 30));
    assert_eq!(lab.counted("large"), (starts.0, 40), "its lives are added up");
}
