//! What lies in the maps: the types that the programs, the agent and `bpftool` read.
//!
//! Every type is `repr(C)`, has no implicit padding (proved by zerocopy on the user side) and is all-zero when unused.
//! Addresses are network-order bytes; IPv4 addresses stand in 16 bytes as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), so that
//! one comparison serves both families.

use crate::control::{ControlCounts, ReportCounts};

/// Version of this module. It is part of the pin path (`<bpffs>/mcstat/v<ABI>/`) and of [`Settings::abi`].
pub const ABI_VERSION: u32 = 1;

/// Slots of one set: the bounded window in which a key may lie.
pub const WAYS: u32 = 8;

/// Entries of the ports table. A power of two; the agent fills at most half of it, so that a window is never full.
pub const PORT_ENTRIES: u32 = 1024;
/// How many entries from its home position on a port may lie.
pub const PORT_WINDOW: u32 = 8;
/// IPv4 addresses kept per port to tell a foreign source.
pub const PORT_ADDRESSES: usize = 4;

/// Direction of the Pod's outbound traffic: tc ingress of the host-side veth.
pub const OUTBOUND: u8 = 0;
/// Direction of the Pod's inbound traffic: tc egress of the host-side veth.
pub const INBOUND: u8 = 1;

/// [`Slot::family`] of IPv4.
pub const IPV4: u8 = 4;
/// [`Slot::family`] of IPv6.
pub const IPV6: u8 = 6;

macro_rules! abi {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct $name { $($body)* }
    };
}

abi! {
    /// Map `slots`: one entry of the slot index, shared by all CPUs. Its position is the index into `counters`.
    pub struct Slot {
        /// State and hash in one word; see [`crate::slot`].
        pub state: u64,
        /// [`Port::id`] of the owner.
        pub port: u32,
        /// [`OUTBOUND`] or [`INBOUND`].
        pub direction: u8,
        /// [`IPV4`] or [`IPV6`].
        pub family: u8,
        /// 1 where the source is none of the Pod's addresses (IPv4 that the Pod sends), else 0.
        pub foreign: u8,
        /// Always zero.
        pub pad: u8,
        /// Destination address.
        pub group: [u8; 16],
        /// Source address in the SSM ranges, else zero.
        pub source: [u8; 16],
        /// First UDP destination port for which the decision holds. This and the next three are one word, the slot's
        /// verdict: see [`crate::slot::verdict_word`].
        pub first_port: u16,
        /// Last one.
        pub last_port: u16,
        /// What was decided on every packet in `counters`; see [`crate::policy::DECISION_DROP`].
        pub decision: u16,
        /// [`Port::generation`] under which that is known; [`crate::slot::UNPOLICED`] = for ever, 0 = not judged.
        pub generation: u16,
        /// `jiffies64` of the insertion.
        pub since: u64,
    }
}

/// Where a slot's verdict word lies in it.
pub const SLOT_VERDICT: usize = core::mem::offset_of!(Slot, first_port);

abi! {
    /// Map `counters`, per CPU: what one CPU counted in the slot of the same index, under the slot's decision: packets
    /// that were admitted, or denied, all of them.
    pub struct Counter {
        /// skbs.
        pub packets: u64,
        /// Σ skb->len of them.
        pub bytes: u64,
        /// Σ max(1, gso_segs) of them.
        pub segments: u64,
        /// skbs with TTL or hop limit 1 or less.
        pub ttl1: u64,
        /// How often `source` changed.
        pub source_changes: u64,
        /// Source of the last packet on this CPU.
        pub source: [u8; 16],
        /// Low half of `jiffies64` at the last packet on this CPU; 0 before the first.
        pub last_seen: u32,
        /// Always zero.
        pub pad: u32,
    }
}

abi! {
    /// Map `carried`, written by the agent alone: what belongs to the slot of the same index but is not in `counters`.
    ///
    /// Every total is `Carry` and the sum over the CPUs of `Counter`, by the slot's decision. Here stands what was counted
    /// under other decisions, or under an older ABI.
    pub struct Carry {
        /// Admitted skbs.
        pub packets: u64,
        /// Σ skb->len of admitted skbs.
        pub bytes: u64,
        /// Σ max(1, gso_segs) of admitted skbs.
        pub segments: u64,
        /// skbs denied by an enforced rule.
        pub dropped: u64,
        /// skbs denied by a rule that nobody enforces; among the admitted.
        pub would_drop: u64,
        /// Added to [`Counter::ttl1`].
        pub ttl1: u64,
        /// Added to [`Counter::source_changes`].
        pub source_changes: u64,
        /// `jiffies64` of the last packet under an older ABI; counts only until the first packet since. 0 = none.
        pub last_seen: u64,
    }
}

abi! {
    /// Packets of one IP family that have no slot of their own.
    pub struct OtherGroups {
        /// Admitted skbs.
        pub packets: u64,
        /// Σ skb->len of admitted skbs.
        pub bytes: u64,
        /// Σ max(1, gso_segs) of admitted skbs.
        pub segments: u64,
        /// skbs denied by an enforced rule.
        pub dropped: u64,
        /// skbs denied by a rule that nobody enforces.
        pub would_drop: u64,
        /// skbs with TTL or hop limit 1 or less.
        pub ttl1: u64,
        /// `jiffies64` of the last packet; 0 before the first.
        pub last_seen: u64,
    }
}

abi! {
    /// Map `port_stats`: one port and direction, at index 2 × (position in `ports`) + direction.
    ///
    /// Shared by all CPUs and added to atomically: everything here is off the hot path, and one copy instead of one
    /// per CPU leaves the memory to the slots. Map `port_carried` has the same type and is the agent's alone: totals
    /// of folded slots and of an older ABI, to be added.
    pub struct PortStats {
        /// IGMP, MLD, neighbour discovery, malformed frames.
        pub control: ControlCounts,
        /// What rules said of the reports (outbound only).
        pub reports: ReportCounts,
        /// IPv4, then IPv6.
        pub other: [OtherGroups; 2],
        /// IPv4 data whose source is none of the Pod's addresses (outbound only); counted in a slot or `other` as well.
        pub foreign_source: u64,
        /// Packets without a slot because the port and direction has its full number.
        pub port_limit: u64,
        /// Packets without a slot because the table is over half full and the port has its fair share.
        pub fair_share: u64,
        /// Packets without a slot because no slot of their set was free.
        pub window_full: u64,
        /// Packets without a slot because another CPU was inserting in their set.
        pub contended: u64,
        /// IGMP and MLD messages counted but not handed up: the port's event rate was used up.
        pub events_limited: u64,
        /// Slots in use by this port and direction.
        pub slots_used: u64,
        /// Event token bucket (outbound entry only): theoretical arrival time in 1/256 jiffies (GCRA).
        pub bucket: u64,
    }
}

abi! {
    /// Map `ports`: one counted Pod interface. Written by the agent alone.
    pub struct Port {
        /// ifindex of the host-side veth; 0 while the entry is unused.
        pub ifindex: u32,
        /// Assigned by the agent, never used again; the key of the port's slots.
        pub id: u32,
        /// Generation of the port's verdicts, 1 to [`crate::slot::LAST_GENERATION`]: under another one a slot's verdict is
        /// judged anew. One word with the next three, what verdicts depend on: all change at once.
        pub generation: u16,
        /// [`PORT_FOREIGN_DROPPED`], [`PORT_DATA_ENFORCED`], [`PORT_REPORTS_ENFORCED`].
        pub flags: u16,
        /// Policy set that judges this port; 0 = none.
        pub policy_set: u16,
        /// Always zero.
        pub pad_policy: u16,
        /// How many of `addresses` are known; 0 = no source is foreign.
        pub address_count: u32,
        /// Always zero.
        pub pad_addresses: u32,
        /// The Pod's own IPv4 addresses.
        pub addresses: [[u8; 4]; PORT_ADDRESSES],
        /// When counting began, in milliseconds since 1970 (UTC).
        pub start_ms: u64,
        /// Always zero.
        pub pad: [u64; 2],
        /// Namespace of the Pod, NUL-terminated.
        pub namespace: [u8; 64],
        /// Name of the Pod, NUL-terminated.
        pub pod: [u8; 256],
        /// Interface name inside the Pod, NUL-terminated.
        pub interface: [u8; 16],
        /// Interface name on the host, NUL-terminated.
        pub host_interface: [u8; 16],
        /// Identity of the Pod sandbox, NUL-terminated.
        pub sandbox: [u8; 96],
    }
}

/// [`Port::flags`]: the switch drops IPv4 data from foreign sources at once.
pub const PORT_FOREIGN_DROPPED: u16 = 1;
/// [`Port::flags`]: data that a rule denies is dropped, not only would be.
pub const PORT_DATA_ENFORCED: u16 = 2;
/// [`Port::flags`]: the same of IGMP reports.
pub const PORT_REPORTS_ENFORCED: u16 = 4;

abi! {
    /// Map `rules`, per CPU: what the rule of that slot decided on one CPU, but for data packets that have a slot in `slots`
    /// with its decision: those stand in `counters`. Slot 0 is no rule.
    pub struct RuleCounter {
        /// Data skbs: admitted by a rule that allows, denied by one that drops and is enforced.
        pub packets: u64,
        /// Σ max(1, gso_segs) of them.
        pub segments: u64,
        /// Σ skb->len of them.
        pub bytes: u64,
        /// IGMP reports in which it decided at least one record; of a rule that drops, enforced ones only.
        pub messages: u64,
        /// Σ skb->len of those, once each.
        pub message_bytes: u64,
        /// Records that it decided; a report of IGMPv1 or v2 is one.
        pub records: u64,
        /// Data skbs that it denied and nobody enforces.
        pub would_drop_packets: u64,
        /// Reports likewise.
        pub would_drop_messages: u64,
        /// Records likewise.
        pub would_drop_records: u64,
        /// [`ReportWalk::message`] of the last report that was counted for it on this CPU.
        pub last_message: u64,
    }
}

/// Bytes of [`RuleName::namespace`], the NUL included; so the others.
pub const RULE_NAMESPACE_BYTES: usize = 64;
/// Bytes of [`RuleName::policy`].
pub const RULE_POLICY_BYTES: usize = 256;
/// Bytes of [`RuleName::uid`].
pub const RULE_UID_BYTES: usize = 344;
/// Bytes of [`RuleName::rule`].
pub const RULE_BYTES: usize = 248;

abi! {
    /// Map `rule_names`, written by the agent alone: which rule a slot of `rules` is.
    pub struct RuleName {
        /// [`RULE_CLUSTER`] or [`RULE_NAMESPACED`]; 0 = the slot is free.
        pub kind: u32,
        /// [`RULE_ALLOW`] or [`RULE_DROP`].
        pub action: u32,
        /// When counting began, in milliseconds since 1970 (UTC).
        pub start_ms: u64,
        /// To be added to the counters, in their order: data packets of slots whose decision is another now or that are
        /// gone, totals of an older ABI, and the IGMP queries that the switch counted for it (messages, their bytes,
        /// records).
        pub carried: [u64; 9],
        /// Of a rule on IGMP queries, the switch's flow that was counted last: its conjunction, and in bit 32 whether it
        /// drops; 0 = none.
        pub flow: u64,
        /// What that flow had counted when `carried` was written.
        pub flow_packets: u64,
        /// The same in bytes.
        pub flow_bytes: u64,
        /// Namespace of the policy, NUL-terminated; empty for a ClusterNetworkPolicy.
        pub namespace: [u8; RULE_NAMESPACE_BYTES],
        /// Name of the policy, NUL-terminated.
        pub policy: [u8; RULE_POLICY_BYTES],
        /// UID of the policy, NUL-terminated.
        pub uid: [u8; RULE_UID_BYTES],
        /// Name of the rule, NUL-terminated.
        pub rule: [u8; RULE_BYTES],
    }
}

/// [`RuleName::kind`]: of a ClusterNetworkPolicy.
pub const RULE_CLUSTER: u32 = 1;
/// [`RuleName::kind`]: of a NetworkPolicy.
pub const RULE_NAMESPACED: u32 = 2;
/// [`RuleName::action`].
pub const RULE_ALLOW: u32 = 1;
/// [`RuleName::action`].
pub const RULE_DROP: u32 = 2;
/// [`RuleName::flow`]: that of a rule that drops.
pub const RULE_FLOW_DROPS: u64 = 1 << 32;

abi! {
    /// Map `report_walk`, per CPU, one entry: the IGMP or MLD message in hand, and where the walk through its records stands.
    pub struct ReportWalk {
        /// Number of the message on this CPU, from 1.
        pub message: u64,
        /// [`crate::frame::Kind`] of the message.
        pub kind: u32,
        /// Whether denials are enforced.
        pub enforced: u32,
        /// Where the next record begins in the frame.
        pub offset: u32,
        /// Where the message ends.
        pub end: u32,
        /// Head of a record: 8 bytes in IGMPv3, 20 in MLDv2.
        pub head: u32,
        /// Bytes of one source address.
        pub source: u32,
        /// Policy set; 0 = none.
        pub set: u32,
        /// `SPACE_REPORT_V1` and so on.
        pub space: u32,
        /// Records so far.
        pub records: u32,
        /// Denied ones of them.
        pub denied: u32,
        /// Length of the frame.
        pub frame: u32,
        /// Always zero.
        pub pad: u32,
    }
}

abi! {
    /// Map `settings`, one entry: what the programs need to know of the node.
    pub struct Settings {
        /// [`ABI_VERSION`] of whoever created the maps.
        pub abi: u32,
        /// Timer ticks a second, measured by the agent.
        pub hz: u32,
        /// The next port id; never 0.
        pub next_port_id: u32,
        /// At most this many slots per port and direction.
        pub slots_per_port: u32,
        /// Above `half_table`, at most this many slots per port in both directions: table ÷ ports.
        pub fair_share: u32,
        /// Half the number of slots.
        pub half_table: u32,
        /// Event token bucket: 1/256 jiffies that one message costs.
        pub event_cost: u32,
        /// Event token bucket: 1/256 jiffies that may be owed; burst × cost.
        pub event_burst: u32,
        /// Slots in use by all ports; counted by the programs and the agent.
        pub slots_used: u64,
        /// `jiffies64` as of the last run of the program `mcstat_clock`.
        pub clock_jiffies: u64,
        /// `jiffies64` at the anchor.
        pub anchor_jiffies: u64,
        /// Milliseconds since 1970 at the anchor: a slot's `since` converts to the same time for ever.
        pub anchor_ms: u64,
        /// Seed of the slot hash: a Pod cannot choose groups that collide with another's.
        pub seed: u64,
        /// Redo log of a fold: 1 + index of the slot whose port totals are being replaced; 0 = none.
        pub fold_slot: u64,
        /// Redo log: index in `port_carried`.
        pub fold_stats: u64,
        /// Redo log: 0 for IPv4, 1 for IPv6.
        pub fold_family: u64,
        /// Redo log: the new totals.
        pub fold_total: OtherGroups,
        /// Redo log of a settlement: 1 + index of the slot whose counters move into `carried` and to their rule; 0 = none.
        pub settle_slot: u64,
        /// Redo log: the new totals of the slot.
        pub settle_carry: Carry,
        /// Redo log: index in `rule_names`; 0 = none.
        pub settle_rule: u64,
        /// Redo log: the rule's new packets, segments and bytes in [`RuleName::carried`].
        pub settle_data: [u64; 3],
        /// Redo log: its new packets that would be dropped.
        pub settle_would_drop: u64,
        /// What is known to be enforced on this node, as in [`Port::flags`]: for ports that come while the switch is away.
        pub enforced: u64,
    }
}

abi! {
    /// Map `event_counts`, per CPU, one entry: what became of IGMP and MLD messages on this CPU.
    pub struct EventCounts {
        /// Handed to the agent.
        pub handed: u64,
        /// Lost: no room in the ring buffer.
        pub lost: u64,
        /// Held back by a port's event rate.
        pub limited: u64,
    }
}

abi! {
    /// Head of a record in the ring buffer `events`; the IP packet follows.
    pub struct EventHeader {
        /// `jiffies64` when the message passed.
        pub jiffies: u64,
        /// ifindex of the host-side veth.
        pub ifindex: u32,
        /// [`Port::id`].
        pub port: u32,
        /// Length of the IP packet on the wire.
        pub original_length: u32,
        /// How many bytes of it follow.
        pub captured: u32,
        /// [`OUTBOUND`] or [`INBOUND`].
        pub direction: u32,
        /// Always zero.
        pub pad: u32,
    }
}

/// Record sizes of the ring buffer, header included: `bpf_ringbuf_reserve` takes constants only.
pub const EVENT_SMALL: usize = 192;
/// Room for an MTU of 1,500.
pub const EVENT_MTU: usize = 1600;
/// Room for a jumbo MTU.
pub const EVENT_JUMBO: usize = 9248;

abi! {
    /// Map `books`, by port id: what the comparison with the switch must not forget over a restart of the agent, which
    /// alone writes it. All zeros is a port of which nothing is known.
    #[derive(Default)]
    pub struct PortBook {
        /// What the Pod sent.
        pub outbound: SideBook,
        /// What was for the Pod.
        pub inbound: SideBook,
        /// IPv4 data packets that the Pod had sent, as far as the switch counts them. While this has not moved, no copy of its own
        /// packets can have been for the Pod itself.
        pub sent: u64,
        /// Fingerprint of the groups that the switch had for the port. Another one tells of a change meanwhile. 0: not
        /// known.
        pub buckets: u64,
    }
}

abi! {
    /// One direction of a [`PortBook`]. A baseline says: when the switch had counted this, the veth had counted that, at
    /// least and at most.
    #[derive(Default)]
    pub struct SideBook {
        /// [`KNOWN`](Self::KNOWN): `dropped` means something. [`BASELINE`](Self::BASELINE): what follows it does, too;
        /// [`JUDGED`](Self::JUDGED) says of what.
        pub flags: u64,
        /// Packets booked as dropped since the port began. Never falls.
        pub dropped: u64,
        /// What the switch had counted at the last reading.
        pub switch_packets: u64,
        /// The same in bytes.
        pub switch_bytes: u64,
        /// What the veth had counted by then, at least.
        pub wire_packets_low: u64,
        /// At most.
        pub wire_packets_high: u64,
        /// The same in bytes, at least.
        pub wire_bytes_low: u64,
        /// At most.
        pub wire_bytes_high: u64,
        /// The flow's cookie.
        pub cookie: u64,
        /// How long the flow had existed, in milliseconds.
        pub duration_milliseconds: u64,
    }
}

impl SideBook {
    /// The direction has been compared at least once.
    pub const KNOWN: u64 = 1;
    /// There is a baseline.
    pub const BASELINE: u64 = 2;
    /// It is one of admitted packets: policies were judged.
    pub const JUDGED: u64 = 4;
}

/// Vanished interfaces that are remembered at most.
pub const VANISHED_ENTRIES: u32 = 128;

abi! {
    /// Map `vanished`, by port id: the last totals of an interface that a living Pod sandbox no longer has. They stay in
    /// the Pod's. The agent alone writes it, and removes it with the sandbox's last interface.
    pub struct Vanished {
        /// The port, as it was.
        pub port: Port,
        /// Outbound, inbound: everything that it had counted.
        pub stats: [PortStats; 2],
        /// What was booked of it.
        pub book: PortBook,
    }
}

/// Denials that are remembered at most.
pub const DENIED_ENTRIES: u32 = 1024;

abi! {
    /// Key of the map `denied`.
    pub struct DeniedKey {
        /// [`Port::id`].
        pub port: u32,
        /// The group; IPv4 is written as in [`Slot::group`].
        pub group: [u8; 16],
    }
}

abi! {
    /// Map `denied`, by port and group: the enforced rule that denied the last report of a group that the Pod has joined.
    /// It may be gone by now. The agent alone writes it, and removes it when a report is allowed or the membership ends.
    pub struct Denied {
        /// As [`RuleName::kind`].
        pub kind: u32,
        /// As [`RuleName::action`].
        pub action: u32,
        /// As [`RuleName::namespace`].
        pub namespace: [u8; RULE_NAMESPACE_BYTES],
        /// As [`RuleName::policy`].
        pub policy: [u8; RULE_POLICY_BYTES],
        /// As [`RuleName::rule`].
        pub rule: [u8; RULE_BYTES],
    }
}

const _: () = {
    assert!(size_of::<DeniedKey>() == 20);
    assert!(size_of::<Denied>() == 576);
    assert!(size_of::<Slot>() == 64);
    assert!(size_of::<Counter>() == 64);
    assert!(size_of::<Carry>() == 64 && SLOT_VERDICT.is_multiple_of(8));
    assert!(size_of::<PortStats>() == 360);
    assert!(size_of::<Port>() == 512);
    assert!(size_of::<RuleCounter>() == 80);
    assert!(size_of::<RuleName>() == 1024);
    assert!(size_of::<ReportWalk>() == 56);
    assert!(size_of::<EventHeader>() == 32);
};
