//! An agent on a bed's node, and both ledgers of its Pods: what `mcstat get` tells and what `ovs-ofctl` tells.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr};

use mcstat_bed::{
    Bed,
    ovs::BRIDGE,
    traffic::{Count, recv::Receiver},
};
use serde_json::{Value, json};

use crate::agent_process::{Node, packets};

/// The agent of a bed's node.
pub struct Agent<'bed> {
    pub bed: &'bed Bed,
    pub node: Node,
}

impl<'bed> Agent<'bed> {
    /// Starts it and waits until it counts on every Pod.
    pub fn start(bed: &'bed Bed) -> Self {
        Self::with(bed, &Value::Null)
    }

    /// The same with more keys in its configuration.
    pub fn with(bed: &'bed Bed, more: &Value) -> Self {
        let source = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
        let mut agent = Self {
            bed,
            node: Node::with(&bed.bpffs(), &source, more),
        };
        agent.run();
        agent
    }

    /// Starts the process, for the first time or after a kill, and waits until it counts on every Pod.
    pub fn run(&mut self) {
        let Self { bed, node } = self;
        let start = || {
            node.start();
            Ok(())
        };
        bed.node.within(start).unwrap();
        let (bed, agent) = (self.bed, &*self);
        let counted = |pod: &mcstat_bed::pod::Pod| agent.pod(&pod.name).as_ref().and_then(packets).is_some();
        bed.eventually("every Pod is counted", || Ok(bed.pods.iter().all(counted)))
            .unwrap_or_else(|error| panic!("{error:#}; the agent says: {}", agent.node.log()));
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        let pod = self.bed.pod(name).unwrap();
        self.node.pod(&pod.namespace, &pod.name)
    }

    /// What the veth carried: (inbound, outbound).
    pub fn veth(&self, name: &str) -> Option<(Count, Count)> {
        let status = self.pod(name)?["status"].take();
        let count = |direction: &str, packets: &str| {
            let counters = &status[direction];
            Some(Count::new(counters[packets].as_u64()?, counters["bytes"].as_u64()?))
        };
        Some((count("inbound", "packets")?, count("outbound", "sent")?))
    }

    /// What the switch counted: (inbound, outbound).
    pub fn switch(&self, name: &str) -> (Count, Count) {
        let pipeline = self.bed.pipeline();
        let both = [pipeline.inbound(name), pipeline.outbound(name)].map(|count| count.unwrap().unwrap());
        (both[0], both[1])
    }

    /// One group of a Pod, inbound, as the agent tells it.
    pub fn group(&self, name: &str, group: Ipv4Addr) -> Option<Count> {
        let pod = self.pod(name)?;
        let groups = pod["status"]["groups"].as_array()?;
        let line = groups.iter().find(|line| line["group"] == *group.to_string())?;
        let inbound = &line["inbound"];
        Some(Count::new(inbound["packets"].as_u64()?, inbound["bytes"].as_u64()?))
    }

    /// Waits until each Pod's veth and switch hold these (inbound, outbound), then asks once more.
    pub fn holds(&self, what: &str, expected: &[(&str, Both, Both)]) {
        let read = || -> Vec<_> {
            let pods = expected.iter().map(|(pod, ..)| *pod);
            pods.map(|pod| (self.veth(pod), self.switch(pod))).collect()
        };
        let wanted: Vec<_> = expected
            .iter()
            .map(|(_, veth, switch)| (Some(*veth), *switch))
            .collect();
        let waited = self.bed.eventually(what, || Ok(read() == wanted));
        waited.unwrap_or_else(|error| panic!("{error:#}; they hold {:#?}", read()));
        self.bed.ovs.revalidate().unwrap();
        assert_eq!(read(), wanted, "{what}, and no more after that");
    }
}

pub type Both = (Count, Count);

/// Frames of 142 bytes.
pub const fn frames(packets: u64) -> Count {
    Count::new(packets, packets * 142)
}

pub const NONE: Count = frames(0);

pub fn receive(bed: &Bed, pod: &str, groups: &[Ipv4Addr]) -> Receiver {
    let groups: Vec<IpAddr> = groups.iter().map(|group| IpAddr::V4(*group)).collect();
    bed.pod(pod).unwrap().receive(&groups).unwrap()
}

pub fn send(bed: &Bed, pod: &str, group: Ipv4Addr, count: u64, pps: u32, size: u32) {
    let sender = bed.pod(pod).unwrap().send(IpAddr::V4(group), count, pps, size);
    assert_eq!(sender.wait().unwrap(), count);
}
