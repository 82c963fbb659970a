//! Which Pods this node has, and which interface belongs to which: one value, from one of several sources.
//!
//! A source (`ovsdb`, `netns`) sends the whole wanted list whenever it changes, over a `tokio::sync::watch` channel:
//! a reader never has to piece updates together, and a slow reader just sees the newest list.

pub mod link;
pub mod netns;
pub mod ovsdb;

use std::net::IpAddr;

use crate::ledger::snapshot::{PodRef, UncountedPort};

/// The Pod interfaces of this node as one source sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodPorts {
    /// Interfaces that can be counted; unique by (sandbox, interface), sorted by (namespace, name, interface).
    pub ports: Vec<PodPort>,
    /// Interfaces that cannot, each with its reason.
    pub uncounted: Vec<UncountedPort>,
    /// Whether the Pods are ports of a bridge with the userspace datapath, which has a packet socket on each.
    pub userspace: bool,
    /// Whether the source is connected. While it is not, the last list holds: counting goes on.
    pub connected: bool,
}

/// One countable Pod interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// The Pod.
    pub pod: PodRef,
    /// Name inside the Pod.
    pub interface: String,
    /// Name of the host side of the veth.
    pub host_interface: String,
    /// ifindex of the host side, in the agent's network namespace.
    pub ifindex: u32,
    /// The Pod's own addresses on this interface; empty when unknown (then no source is foreign).
    pub addresses: Vec<IpAddr>,
    /// OpenFlow port number, where a switch is the source.
    pub ofport: Option<u32>,
    /// Path of the Pod's network namespace, where known.
    pub netns: Option<String>,
}
