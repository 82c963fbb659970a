//! Snapshots for unit tests: Pods `mkt/pod-N` with one interface `eth0`, whose port is N; time in seconds.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::{
    lines::{self, policy::Policies},
    snapshot::{
        DirectionReading, Enforced, GroupReading, KernelGroup, KernelInterface, KernelReading, NamespaceReading,
        PodRef, PolicyReading, PortReading, Snapshot, SwitchReading, Traffic,
    },
};

/// Second `n` of a test.
pub(super) fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
    start.checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

pub(super) fn pod(id: u32) -> PodRef {
    PodRef {
        namespace: "mkt".to_owned(),
        name: format!("pod-{id}"),
        sandbox: format!("sandbox-{id}"),
    }
}

pub(super) fn port(id: u32) -> PortReading {
    PortReading {
        id,
        pod: pod(id),
        interface: "eth0".to_owned(),
        host_interface: format!("veth{id}"),
        ifindex: id,
        start: at(0),
        outbound: DirectionReading::default(),
        inbound: DirectionReading::default(),
    }
}

/// A snapshot of ports 1 to `ports`; messages are lines without their time, which is that of the snapshot.
pub(super) fn snapshot(seconds: i64, ports: u32, messages: &[&str]) -> Snapshot {
    let event = |text: &&str| lines::event(&format!("{} {text}", at(seconds))).unwrap();
    Snapshot {
        at: at(seconds),
        ports: (1..=ports).map(port).collect(),
        uncounted: Vec::new(),
        kernel: KernelReading::default(),
        namespaces: Vec::new(),
        switch: SwitchReading::None,
        switch_ports: std::collections::BTreeMap::new(),
        policy: None,
        policy_awaited: false,
        detached: std::collections::BTreeMap::new(),
        messages: messages.iter().map(event).collect(),
    }
}

/// Data and reports are enforced.
pub(super) const ENFORCED: Enforced = Enforced {
    data: true,
    reports: true,
    sources: true,
};

/// The policies of these documents for these ports; nothing is counted.
pub(super) fn policy(documents: &str, ports: &[PortReading], enforced: Enforced) -> PolicyReading {
    let mut policies = Policies::new();
    assert_eq!(policies.take(documents), Vec::<String>::new());
    policies.reading(ports, enforced, &std::collections::BTreeMap::new(), at(0))
}

/// What the kernel of Pod `id` says.
pub(super) fn kernel(id: u32, groups: &[&str]) -> NamespaceReading {
    let group = |group: &&str| KernelGroup {
        group: group.parse().unwrap(),
        users: 1,
        filter: None,
    };
    NamespaceReading {
        pod: pod(id),
        unavailable: None,
        interfaces: vec![KernelInterface {
            name: "eth0".to_owned(),
            igmp_version: Some(3),
            groups: groups.iter().map(group).collect(),
        }],
        socket_drops: None,
        losing_sockets: Vec::new(),
    }
}

/// A series since second 0 with one packet, at `last_seen`, from `source`.
pub(super) fn series(group: &str, last_seen: i64, source: &str) -> GroupReading {
    let group: IpAddr = group.parse().unwrap();
    GroupReading {
        group,
        source: None,
        admitted: Traffic {
            packets: 1,
            segments: 1,
            bytes: 142,
        },
        dropped: 0,
        would_drop: 0,
        ttl1: 0,
        last_source: Some(source.parse().unwrap()),
        source_changes: 0,
        last_seen: Some(at(last_seen)),
        since: at(0),
    }
}
