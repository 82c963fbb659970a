//! One reading of everything the ledger accounts for, as plain values.
//!
//! Above this type is I/O; from here to [`NodeStatsSummary`](crate::api::summary::NodeStatsSummary) all is pure.
//! A snapshot promises that every counter in it is **cumulative** since the `start` of the port it belongs to:
//! folded slots, agent restarts and map upgrades are already added in. It says nothing about rates or findings.
//! It can be written as JSON and read again (zeros may be left out), without [`Snapshot::messages`]: what is worth keeping of
//! those is the packet.

mod policy;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use jiff::Timestamp;
use mcstat_common::control::ControlCounts;
use serde::{Deserialize, Serialize};

pub use self::policy::{Enforced, KnownPolicy, PolicyReading, ReportVerdicts, RuleFlow, RuleReading, WouldDrop};
use super::switch::Switch;
use crate::{
    api::stats::FilterMode,
    proto::{control::ControlMessage, wire::DecodeError},
};

/// One reading of all ports of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// When the reading was taken (wall clock). Monotonic within one agent: a tick never runs on an older time.
    pub at: Timestamp,
    /// The ports that are counted, in ascending [`PortReading::id`].
    pub ports: Vec<PortReading>,
    /// Interfaces of Pods that cannot be counted, or not as they should be, each with its reason.
    #[serde(default)]
    pub uncounted: Vec<UncountedPort>,
    /// Health of the kernel side, for the node and not for one Pod.
    #[serde(default)]
    pub kernel: KernelReading,
    /// What the kernels of the Pods' network namespaces say, one entry a sandbox, sorted by Pod. A sandbox that is not
    /// listed has no second witness.
    #[serde(default)]
    pub namespaces: Vec<NamespaceReading>,
    /// The switch's own account, read before the maps of this snapshot.
    #[serde(skip)]
    pub switch: SwitchReading,
    /// What the switch calls each port, by [`PortReading::id`]; those that it does not know are not listed.
    #[serde(skip)]
    pub switch_ports: BTreeMap<u32, SwitchPort>,
    /// What is judged by; `None` without a policy source: then nothing is judged.
    #[serde(skip)]
    pub policy: Option<PolicyReading>,
    /// The source of policies has told nothing yet: [`policy`](Self::policy) is what an earlier run judged by, which goes on,
    /// and `None` where that left nothing. Which policies there are is not known.
    #[serde(skip)]
    pub policy_awaited: bool,
    /// When each port's programs were last found to be off, by [`PortReading::id`]: packets passed uncounted before.
    #[serde(skip)]
    pub detached: BTreeMap<u32, Timestamp>,
    /// The IGMP and MLD messages handed up since the snapshot before, in the order of the ring buffer. What was not
    /// handed up stands in [`KernelReading`] and [`DirectionReading::events_limited`].
    #[serde(skip)]
    pub messages: Vec<ControlEvent>,
}

/// What is known of the switch at one tick.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum SwitchReading {
    /// No switch is read: the Pods come from elsewhere.
    #[default]
    None,
    /// There should be one and it does not answer.
    Away {
        /// Since when.
        since: Timestamp,
    },
    /// It was read.
    Read(Box<SwitchAccount>),
}

/// One reading of the switch.
#[derive(Debug, Clone, PartialEq)]
pub struct SwitchAccount {
    /// Just before it was asked: no counter is older than this, save for its own lag.
    pub before: Timestamp,
    /// When the last counter was there. The maps were read after this.
    pub after: Timestamp,
    /// Which connection it came by, from 1. Another one may be another switch process, with other counters.
    pub connection: u64,
    /// What it says.
    pub switch: Switch,
    /// Whether [`Switch::groups`] is whole; counters hold without it. Without Antrea's tables they are what the bridge has
    /// learned by its own snooping, and not known where it does not snoop.
    pub groups_known: bool,
    /// Packets that each host interface's packet socket of the switch has dropped, cumulative, by ifindex: the userspace
    /// datapath's queue before the switch (AF_PACKET). Empty where that is not known.
    pub queue_drops: BTreeMap<u32, u64>,
}

/// What the switch calls a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchPort {
    /// OpenFlow port number.
    pub ofport: u32,
    /// The Pod's own IPv4 addresses on it.
    pub addresses: Vec<Ipv4Addr>,
}

/// One IGMP or MLD message that passed a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlEvent {
    /// [`PortReading::id`] of the port. The port may be gone from the snapshot's list by now.
    pub port: u32,
    /// Which way it passed.
    pub direction: Direction,
    /// When it passed.
    pub at: Timestamp,
    /// Length of the IP packet as it was sent, in bytes.
    pub original_length: u32,
    /// The message, or why it could not be understood. A decoded message may still have a bad checksum or a deviating
    /// envelope: it says so.
    pub message: Result<ControlMessage, DecodeError>,
}

/// A direction as the Pod sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The Pod sent it.
    Outbound,
    /// It was handed to the Pod.
    Inbound,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}

/// Which Pod an interface belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodRef {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Identity of the Pod sandbox: Antrea's `container-id`, or the network namespace's cookie. Another sandbox is
    /// another Pod, whatever its name, address or ifindex.
    pub sandbox: String,
}

/// The counters of one Pod interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortReading {
    /// Assigned by the agent, pinned with the maps, never used again.
    pub id: u32,
    /// The Pod.
    pub pod: PodRef,
    /// The interface's name inside the Pod, such as `eth0`.
    pub interface: String,
    /// The host side of the veth.
    pub host_interface: String,
    /// ifindex of the host side in the agent's network namespace.
    pub ifindex: u32,
    /// When counting began; every counter below is zero before it.
    pub start: Timestamp,
    /// What the Pod sent.
    #[serde(default)]
    pub outbound: DirectionReading,
    /// What was handed to the Pod.
    #[serde(default)]
    pub inbound: DirectionReading,
}

impl PortReading {
    /// The counters of one direction.
    pub fn reading(&self, direction: Direction) -> &DirectionReading {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }
}

/// One direction of one port. The port's total is the sum of [`groups`](Self::groups) and [`other`](Self::other).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DirectionReading {
    /// One entry per (group) or, in 232/8 and ff3x::/32, per (source, group); sorted, keys unique.
    pub groups: Vec<GroupReading>,
    /// *Other groups*, IPv4 then IPv6: packets that have no slot of their own, slots folded since included.
    pub other: [OtherGroups; 2],
    /// IGMP and MLD messages by type and version, neighbour discovery, malformed frames by reason.
    #[serde(with = "super::control_counts")]
    pub control: ControlCounts,
    /// What rules said of its IGMP and MLD reports (outbound only).
    pub reports: ReportVerdicts,
    /// IPv4 data packets whose source is not an address of the Pod (outbound only). They are in the totals too.
    pub foreign_source: u64,
    /// Packets that got no slot of their own, by reason; they are counted in [`other`](Self::other).
    pub overflow: OverflowCounts,
    /// IGMP and MLD messages that were counted but not handed up, because the port's event rate was used up.
    pub events_limited: u64,
}

/// Packets, segments and bytes of admitted traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Traffic {
    /// skbs.
    pub packets: u64,
    /// Σ max(1, gso_segs): packets as they would be on a wire.
    pub segments: u64,
    /// Σ skb->len: Ethernet header included, FCS not; the number of OVS `n_bytes`.
    pub bytes: u64,
}

/// Counters of one group (or one (S,G) in the SSM ranges) in one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupReading {
    /// The destination address.
    pub group: IpAddr,
    /// The source, where it is part of the key: 232.0.0.0/8 and ff3x::/32 (RFC 4607).
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Packets not denied by an enforced rule.
    #[serde(default)]
    pub admitted: Traffic,
    /// Packets that an enforced rule denied.
    #[serde(default)]
    pub dropped: u64,
    /// Packets that a rule denied while nobody enforces it; they are in `admitted` too.
    #[serde(default)]
    pub would_drop: u64,
    /// Packets whose TTL or hop limit was 1 or less.
    #[serde(default)]
    pub ttl1: u64,
    /// Source of the last packet.
    #[serde(default)]
    pub last_source: Option<IpAddr>,
    /// How often the source differed from the one before.
    #[serde(default)]
    pub source_changes: u64,
    /// When the last packet passed; `None` before the first one.
    #[serde(default)]
    pub last_seen: Option<Timestamp>,
    /// When this series began: it is zero before. Not before the port's start.
    pub since: Timestamp,
}

/// The sum of what has no series of its own, in one IP family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OtherGroups {
    /// Admitted.
    pub admitted: Traffic,
    /// As in [`GroupReading::dropped`].
    pub dropped: u64,
    /// As in [`GroupReading::would_drop`].
    pub would_drop: u64,
    /// As in [`GroupReading::ttl1`].
    pub ttl1: u64,
    /// When the last such packet passed.
    pub last_seen: Option<Timestamp>,
}

/// Why packets got no slot of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OverflowCounts {
    /// The port and direction has its full number of slots.
    pub port_limit: u64,
    /// The table is more than half full and the port has its fair share.
    pub fair_share: u64,
    /// No free slot in the key's window.
    pub window_full: u64,
    /// Another CPU was inserting in the window at that moment.
    pub contended: u64,
}

/// What the kernel of one Pod's network namespace says of its memberships and its receive buffers: the second witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceReading {
    /// The Pod.
    pub pod: PodRef,
    /// Why nothing could be read, as one CamelCase word: `NoProcess`, `NoPath`, `Denied`, `NoPeer`, `TooLarge`,
    /// `Unreadable` (see `docs/pods.md`). What is below is then empty.
    #[serde(default)]
    pub unavailable: Option<String>,
    /// The namespace's interfaces that have a group, sorted by name.
    #[serde(default)]
    pub interfaces: Vec<KernelInterface>,
    /// `RcvbufErrors` of `snmp` plus `Udp6RcvbufErrors` of `snmp6`: datagrams that found a full receive buffer since the
    /// namespace was made, unicast included. Read every ten ticks; the last value stands between.
    #[serde(default)]
    pub socket_drops: Option<u64>,
    /// The UDP sockets whose own drop counters grew between the last two readings of the totals, where these grew too;
    /// sorted. A socket's own counter also holds what its filter or a wrong checksum refused.
    #[serde(default)]
    pub losing_sockets: Vec<LosingSocket>,
}

/// One interface as the Pod's kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelInterface {
    /// Name inside the Pod.
    pub name: String,
    /// IGMP version that the host speaks there now: 1, 2 or 3 (column `Querier` of `/proc/net/igmp`).
    #[serde(default)]
    pub igmp_version: Option<u8>,
    /// The groups joined, sorted by address.
    pub groups: Vec<KernelGroup>,
}

/// One group that a Pod's kernel has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelGroup {
    /// The group.
    pub group: IpAddr,
    /// How many sockets and kernel users hold it.
    pub users: u32,
    /// The interface's merged source filter; `None` when the tables do not tell it apart: some of the group's users
    /// include sources, and it is not proven whether another one excludes.
    #[serde(default)]
    pub filter: Option<SourceFilter>,
}

/// Which sources are wanted (RFC 9776 §3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceFilter {
    /// Whether `sources` are the only ones wanted, or the only ones unwanted.
    pub mode: FilterMode,
    /// Sorted, unique.
    pub sources: Vec<IpAddr>,
}

/// One UDP socket that loses datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LosingSocket {
    /// Local address.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// Datagrams that it has lost since it was made.
    pub drops: u64,
}

/// A Pod interface that is not counted; or one that is, and what is amiss with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UncountedPort {
    /// The Pod.
    pub pod: PodRef,
    /// The interface's name inside the Pod, where known; else the host's.
    pub interface: String,
    /// One CamelCase word, as in Kubernetes conditions: `NotVeth`, `NoIfindex`, `Afxdp`, `AttachFailed`,
    /// `TableFull`; of one that is counted `BehindAnotherProgram`.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
}

/// Health of the maps and programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KernelReading {
    /// Slots in use, of [`slots_max`](Self::slots_max).
    pub slots_used: u64,
    /// Size of the slot table.
    pub slots_max: u64,
    /// IGMP and MLD messages handed to the agent.
    pub events_handed: u64,
    /// Messages lost because the ring buffer was full.
    pub events_lost: u64,
    /// Messages held back by a port's event rate.
    pub events_limited: u64,
}
