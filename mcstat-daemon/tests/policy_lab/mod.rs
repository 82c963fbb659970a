//! Policies in a kernel's maps, beside the same as a value: what both say of frames.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

pub mod messages;
pub mod worlds;

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
};

use mcstat::{
    agent::bpf::{Kernel, maps::Options, now, policy, sys, table::Entry},
    ledger::{
        snapshot::{Enforced, PortReading, RuleReading},
        verdict::{Change, Compiler, Kind, Object, PodName, Stored, Tables},
    },
};
use serde::Deserialize as _;
use serde_yaml::{Deserializer, Value};

use crate::support::{enter, open, pod_port, read_all, reading};

/// Address of the Pod whose packets are judged.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const ENFORCED: Enforced = Enforced {
    data: true,
    reports: true,
    sources: false,
};

/// The maps, and what compiles into them. Programs run by BPF_PROG_TEST_RUN: all packets are of the Pod on `lo`.
pub struct Lab {
    pub kernel: Kernel,
    pub compiler: Compiler,
    pub tables: Tables,
    pub pod: PodName,
    /// All Pods of the node.
    pub pods: Vec<PodName>,
    program: OwnedFd,
}

impl Lab {
    /// With one Pod, `mkt/a`.
    pub fn new(options: &Options) -> Self {
        let pod = PodName::new("mkt", "a");
        Self::with(options, &pod, std::slice::from_ref(&pod))
    }

    pub fn with(options: &Options, pod: &PodName, pods: &[PodName]) -> Self {
        let mut kernel = open(options);
        let program = kernel.programs.program("mcstat_outbound").unwrap().fd().unwrap();
        let program = program.as_fd().try_clone_to_owned().unwrap();
        let stored = policy::stored(&kernel.maps).unwrap();
        let tables = Tables::adopting(&stored, policy::pods(&kernel.maps));
        let compiler = Compiler::adopting(policy::limits(&kernel.maps), stored);
        Self {
            compiler,
            tables,
            pod: pod.clone(),
            pods: pods.to_vec(),
            program,
            kernel,
        }
    }

    /// Enters the Pod on `lo`.
    pub fn enter(&self) -> Entry {
        let mut port = pod_port(&self.pod.name, "lo", 1, &["10.0.0.2"]);
        port.pod.namespace = self.pod.namespace.to_string();
        enter(&self.kernel, &port)
    }

    /// Compiles the objects without applying them.
    pub fn compile(&mut self, objects: impl IntoIterator<Item = Object>) -> Change {
        let model = objects.into_iter().collect();
        let change = self.compiler.compile(&model, &self.pods).unwrap();
        assert!(change.again || change.problems.is_empty(), "{:?}", change.problems);
        change
    }

    /// Makes the objects hold; the last readings of the rules that went.
    pub fn set(&mut self, objects: impl IntoIterator<Item = Object>) -> Vec<RuleReading> {
        let mut change = self.compile(objects);
        self.tables.apply(&change);
        let last = policy::apply(&self.kernel.maps, &change, now()).unwrap();
        self.compiler.release(std::mem::take(&mut change.retired));
        last
    }

    pub fn enforce(&self, enforced: Enforced) {
        policy::set_enforced(&self.kernel.maps, enforced);
    }

    /// The program that judges what the Pod sends.
    pub fn program(&self) -> OwnedFd {
        self.program.try_clone().unwrap()
    }

    /// The Pod sends a frame so many times.
    pub fn send(&self, frame: &[u8], times: u32) {
        let (verdict, _) = sys::test_run(self.program.as_fd(), frame, times).unwrap();
        assert_eq!(verdict, u32::MAX, "TC_ACT_UNSPEC");
    }

    pub fn stored(&self) -> Stored {
        policy::stored(&self.kernel.maps).unwrap()
    }

    pub fn rules(&self) -> Vec<RuleReading> {
        read_all(&self.kernel).rules
    }

    /// The rule of this name.
    pub fn rule(&self, name: &str) -> RuleReading {
        let rules = self.rules();
        let found = rules.iter().find(|rule| &*rule.row.id.name == name);
        found.unwrap_or_else(|| panic!("no rule {name} in {rules:?}")).clone()
    }

    pub fn reading(&self) -> PortReading {
        reading(&self.kernel, &self.pod.name)
    }

    /// Admitted, dropped and would-be-dropped data packets of the Pod, over slots and *other groups*.
    pub fn data(&self) -> [u64; 3] {
        let outbound = self.reading().outbound;
        let groups = outbound
            .groups
            .iter()
            .map(|group| [group.admitted.packets, group.dropped, group.would_drop]);
        let other = outbound
            .other
            .iter()
            .map(|other| [other.admitted.packets, other.dropped, other.would_drop]);
        groups
            .chain(other)
            .fold([0; 3], |sum, next| std::array::from_fn(|at| sum[at] + next[at]))
    }
}

/// The objects of a YAML text; a document without a UID gets its name for one.
pub fn objects(yaml: &str) -> Vec<Object> {
    let documents = Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    let documents = documents.filter(|document| !document.is_null());
    documents
        .map(|document| {
            let header = serde_yaml::from_value(document.clone()).unwrap();
            let mut object = Object::read(Kind::of(&header).unwrap(), document).unwrap();
            if object.uid.is_empty() {
                object.uid = format!("uid-{}", object.key.name).into();
            }
            object
        })
        .collect()
}

/// A ClusterNetworkPolicy for every Pod, with these rules as YAML.
pub fn policy_of(name: &str, priority: u32, rules: &str) -> Vec<Object> {
    objects(&format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, \
         spec: {{priority: {priority}, appliedTo: [{{podSelector: {{}}}}], egress: [{rules}]}}}}"
    ))
}

/// To 239.1.1.1 data and reports are dropped; other data to 239.1.0.0/16 is allowed by a rule.
pub const DROP_ONE: &str = "{name: one, action: Drop, to: [{ipBlock: {cidr: 239.1.1.1/32}}]}, \
                        {name: igmp, action: Drop, protocols: [{igmp: {groupAddress: 239.1.1.1}}]}, \
                        {name: others, action: Allow, to: [{ipBlock: {cidr: 239.1.0.0/16}}]}";
