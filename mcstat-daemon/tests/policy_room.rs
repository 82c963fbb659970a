//! An agent whose maps have no room for new policies beside the old ones: it says so, the old ones stay in force, over a
//! kill too, and the next policies that fit are taken.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;

use std::{fs, net::IpAddr, path::Path, time::Duration};

use agent_process::Node;
use mcstat_bed::{Bed, ovs::BRIDGE, signal::wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Puts a policy in place that drops data to so many groups from 239.`octet`.0.0 on.
fn put_policy(directory: &Path, octet: u32, groups: u32) {
    let block = |n| format!("{{ipBlock: {{cidr: 239.{octet}.{}.{}/32}}}}", n / 250, n % 250);
    let blocks: Vec<_> = (0..groups).map(block).collect();
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: large}}, spec: {{priority: 5, \
         appliedTo: [{{podSelector: {{}}}}], egress: [{{name: drop, action: Drop, to: [{}]}}]}}}}",
        blocks.join(", ")
    );
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

    /// The rule that decides data to 239.`octet`.0.7.
    fn decider(&self, octet: u8) -> Value {
        let pod = self.until("the Pod is told", |_| true);
        let rows = pod["status"]["groups"].as_array().unwrap();
        let row = rows.iter().find(|row| row["group"] == format!("239.{octet}.0.7"));
        row.unwrap()["outbound"]["rule"]["rule"].clone()
    }
}

#[test]
fn policies_without_room_leave_the_old_ones_in_force_until_others_fit() {
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
    put_policy(lab.policies.path(), 1, 9000);
    lab.start();
    let enforced = |pod: &Value| known(pod).is_some_and(|(reason, _)| reason == "Enforced");
    let message = |pod: &Value| known(pod).map(|(_, message)| message).unwrap_or_default();
    lab.until("the Pod is judged", enforced);
    lab.send(1, (10, 0));

    let full = "the policy set of mkt/feed has 9000 prefixes, and beside the 9000 in force there is room for 7384 in the map \
                policies (most of them are ClusterNetworkPolicy large's); the policies of before stay in force: raise \
                maps.memoryMiB, or change the policies in steps of fewer prefixes";
    put_policy(lab.policies.path(), 2, 9000);
    let told = lab.until("it is told that there is no room", |pod| !message(pod).is_empty());
    assert_eq!(message(&told), full);
    lab.send(1, (20, 0));
    lab.send(2, (20, 10));
    assert_eq!((lab.decider(1), lab.decider(2)), (json!("drop"), Value::Null));
    assert_eq!(lab.node.log().matches(full).count(), 1, "said once: {}", lab.node.log());

    // The next agent finds no more room, and judges by what judges.
    lab.node.kill();
    lab.start();
    let told = lab.until("it is told again", |pod| !message(pod).is_empty());
    assert_eq!(
        (known(&told), lab.decider(1)),
        (Some(("Enforced".to_owned(), full.to_owned())), json!("drop"))
    );
    lab.send(1, (30, 10));

    // Back, and then to one that fits: without a restart.
    put_policy(lab.policies.path(), 1, 9000);
    lab.until("the policies are those in force", |pod| {
        enforced(pod) && message(pod).is_empty()
    });
    put_policy(lab.policies.path(), 2, 9000);
    lab.until("no room again", |pod| message(pod) == full);
    put_policy(lab.policies.path(), 2, 7000);
    lab.until("the smaller policy is taken", |pod| {
        enforced(pod) && message(pod).is_empty()
    });
    lab.send(2, (40, 10));
    lab.send(1, (40, 20));
    assert_eq!((lab.decider(1), lab.decider(2)), (Value::Null, json!("drop")));
}
