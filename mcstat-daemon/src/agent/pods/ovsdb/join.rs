//! From OVSDB rows to Pod ports: which ports of the bridge are Pods, and which of them can be counted. Pure.
//!
//! The rows say who a port belongs to and which ifindex it has; the node's own links say whether that ifindex is a veth.
//! A port keeps the ifindex that it was last published with while the database has none for it: after a restart of the
//! database server the column is empty until the switch has written it again, and a Pod must not vanish for that.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    agent::pods::{
        PodPort, PodPorts,
        link::{Link, LinkKind},
    },
    ledger::snapshot::{PodRef, UncountedPort},
    proto::ovsdb::{InterfaceRow, PortRow, Store},
};

/// Where antrea-agent sees the host's file system; its `net-ns` paths begin with it.
const HOST_PREFIX: &str = "/host";
/// The interface's name inside the Pod when no `if-dev` says otherwise.
const DEFAULT_INTERFACE: &str = "eth0";
/// Interface types that pass by tc in both directions.
const AFXDP: [&str; 2] = ["afxdp", "afxdp-nonpmd"];

/// A Pod's port of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) pod: PodRef,
    pub(super) interface: String,
    pub(super) host_interface: String,
    /// 0 and what cannot be an index are absent.
    pub(super) ifindex: Option<u32>,
    /// What the database has: -1 when the switch could not open the device.
    pub(super) ofport: Option<i64>,
    pub(super) kind: String,
    pub(super) error: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) netns: Option<String>,
}

/// The Pod ports of one bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) candidates: Vec<Candidate>,
    /// Names of container ports whose `external_ids` do not say which Pod they belong to, sorted.
    pub(super) nameless: Vec<String>,
    /// Whether the bridge has the userspace datapath.
    pub(super) userspace: bool,
}

/// All Pod ports of a bridge, or `None` where there is no such bridge.
pub(super) fn join(store: &Store, bridge: &str) -> Option<Joined> {
    let bridge = store.bridge(bridge)?;
    let mut joined = Joined {
        userspace: bridge.datapath_type == "netdev",
        ..Joined::default()
    };
    let containers = store.ports_of(bridge).filter(|port| {
        port.external_ids
            .get("antrea-type")
            .is_some_and(|kind| kind == "container")
    });
    for port in containers {
        match pod_of(port) {
            Some(pod) => {
                let candidates = store
                    .interfaces_of(port)
                    .map(|interface| candidate(&pod, port, interface));
                joined.candidates.extend(candidates);
            }
            None => joined.nameless.push(port.name.clone()),
        }
    }
    joined.nameless.sort_unstable();
    Some(joined)
}

/// A value of `external_ids` that says something.
fn external_id<'a>(port: &'a PortRow, key: &str) -> Option<&'a str> {
    port.external_ids
        .get(key)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

fn pod_of(port: &PortRow) -> Option<PodRef> {
    Some(PodRef {
        namespace: external_id(port, "pod-namespace")?.to_owned(),
        name: external_id(port, "pod-name")?.to_owned(),
        sandbox: external_id(port, "container-id")?.to_owned(),
    })
}

fn candidate(pod: &PodRef, port: &PortRow, interface: &InterfaceRow) -> Candidate {
    // An address that does not parse is left out: with none at all, no source counts as foreign.
    let addresses = external_id(port, "ip-address")
        .into_iter()
        .flat_map(|list| list.split(','));
    Candidate {
        pod: pod.clone(),
        interface: external_id(port, "if-dev").unwrap_or(DEFAULT_INTERFACE).to_owned(),
        host_interface: interface.name.clone(),
        ifindex: interface
            .ifindex
            .and_then(|index| u32::try_from(index).ok())
            .filter(|index| *index != 0),
        ofport: interface.ofport,
        kind: interface.kind.clone(),
        error: interface.error.clone(),
        addresses: addresses.filter_map(|address| address.trim().parse().ok()).collect(),
        netns: external_id(port, "net-ns").map(|path| path.strip_prefix(HOST_PREFIX).unwrap_or(path).to_owned()),
    }
}

/// What a reading comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) ports: PodPorts,
    /// Something depends on the node's links and not on the database alone, so it has to be decided again later.
    pub(super) recheck: bool,
}

/// Decides for each candidate whether it can be counted. `links` are those of the agent's network namespace, `last` is
/// what was published before.
pub(super) fn decide(joined: &Joined, links: &BTreeMap<u32, Link>, last: &PodPorts) -> Decision {
    let held: BTreeMap<_, _> = last
        .ports
        .iter()
        .map(|port| ((&port.pod.sandbox, &port.interface), port.ifindex))
        .collect();
    let mut recheck = false;
    let mut ports = BTreeMap::new();
    let mut uncounted = BTreeMap::new();
    for candidate in &joined.candidates {
        let key = (&candidate.pod.sandbox, &candidate.interface);
        let ifindex = candidate.ifindex.or_else(|| held.get(&key).copied());
        match veth_of(candidate, ifindex, links) {
            Ok(ifindex) => {
                recheck |= candidate.ifindex.is_none();
                ports.insert(key, counted(candidate, ifindex));
            }
            Err(reason) => {
                recheck |= ifindex.is_some();
                uncounted.insert(key, reason.of(candidate));
            }
        }
    }
    // Two rows may briefly share a sandbox and interface: the countable one is the living one.
    uncounted.retain(|key, _| !ports.contains_key(key));
    let mut ports: Vec<PodPort> = ports.into_values().collect();
    ports.sort_by(|a, b| (&a.pod, &a.interface).cmp(&(&b.pod, &b.interface)));
    let mut uncounted: Vec<UncountedPort> = uncounted.into_values().collect();
    uncounted.sort_by(|a, b| (&a.pod, &a.interface).cmp(&(&b.pod, &b.interface)));
    Decision {
        ports: PodPorts {
            ports,
            uncounted,
            userspace: joined.userspace,
            connected: true,
        },
        recheck,
    }
}

fn counted(candidate: &Candidate, ifindex: u32) -> PodPort {
    PodPort {
        pod: candidate.pod.clone(),
        interface: candidate.interface.clone(),
        host_interface: candidate.host_interface.clone(),
        ifindex,
        addresses: candidate.addresses.clone(),
        ofport: candidate.ofport.and_then(|port| u32::try_from(port).ok()),
        netns: candidate.netns.clone(),
    }
}

/// Why an interface is not counted.
enum Reason {
    Afxdp,
    NoIfindex(String),
    NotVeth(String),
}

impl Reason {
    fn of(self, candidate: &Candidate) -> UncountedPort {
        let name = &candidate.host_interface;
        let (reason, message) = match self {
            Self::Afxdp => (
                "Afxdp",
                format!(
                    "interface {name} has type {}: its frames pass by tc, where they are counted",
                    candidate.kind
                ),
            ),
            Self::NoIfindex(why) => ("NoIfindex", format!("interface {name} {why}")),
            Self::NotVeth(kind) => (
                "NotVeth",
                format!("interface {name} is no veth but {kind}: only veths have a host side to count at"),
            ),
        };
        UncountedPort {
            pod: candidate.pod.clone(),
            interface: candidate.interface.clone(),
            reason: reason.to_owned(),
            message,
        }
    }
}

fn veth_of(candidate: &Candidate, ifindex: Option<u32>, links: &BTreeMap<u32, Link>) -> Result<u32, Reason> {
    if AFXDP.contains(&candidate.kind.as_str()) {
        return Err(Reason::Afxdp);
    }
    let error = candidate
        .error
        .as_deref()
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    if candidate.ofport == Some(-1) {
        return Err(Reason::NoIfindex(format!(
            "could not be opened by the switch (ofport -1){error}"
        )));
    }
    let Some(ifindex) = ifindex else {
        return Err(Reason::NoIfindex(format!("has no ifindex in OVSDB{error}")));
    };
    // The database lags behind the kernel: an index may belong to another device by now.
    match links.get(&ifindex).filter(|link| link.name == candidate.host_interface) {
        None => Err(Reason::NoIfindex(format!(
            "with ifindex {ifindex} is not in the agent's network namespace"
        ))),
        Some(link) if link.kind != LinkKind::Veth => Err(Reason::NotVeth(link.kind.to_string())),
        Some(_) => Ok(ifindex),
    }
}
