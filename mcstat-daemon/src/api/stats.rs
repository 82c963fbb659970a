//! `PodMulticastStats`: one Pod's multicast, as served in `stats.antrea.io/v1alpha1`.
//!
//! Counters are JSON numbers, cumulative since `startTime`. What was not measured is absent, never 0.
//! The Pod's directions are meant everywhere: *outbound* is what the Pod sent.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ledgers::Ledgers, rule::RuleReference};

/// API group that users know from Antrea.
pub const GROUP: &str = "stats.antrea.io";
/// Version of [`GROUP`].
pub const VERSION: &str = "v1alpha1";
/// Kind of one object.
pub const KIND: &str = "PodMulticastStats";
/// Resource name in the URL.
pub const RESOURCE: &str = "podmulticaststats";

/// One Pod's multicast traffic, control messages and state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMulticastStats {
    /// `stats.antrea.io/v1alpha1`.
    pub api_version: String,
    /// `PodMulticastStats`.
    pub kind: String,
    /// Name, namespace, uid and labels of the Pod.
    pub metadata: Metadata,
    /// Where the Pod runs.
    pub spec: Spec,
    /// What was measured.
    pub status: Status,
}

/// The part of ObjectMeta that mcstat serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The namespace; empty for what lives in none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID of the Pod or policy, where a source knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When counting began; of policies only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// Publish time in milliseconds (set by the aggregator).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// The Pod's labels, where a source knows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where the Pod runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Name of the node.
    pub node: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The word of the STATUS column: Stale, NotCounted, a finding, Dropping or OK, the first that holds.
    pub summary: String,
    /// Identity of the Pod sandbox; a re-created Pod has another one and starts at zero.
    pub sandbox: String,
    /// When counting began: every counter is zero before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When the counters were read.
    pub observed_at: Timestamp,
    /// The window of every `perSecond`, in seconds.
    pub window_seconds: u32,
    /// What was handed to the Pod; absent when not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// What the Pod sent; absent when not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
    /// IGMP and MLD messages that the Pod sent; absent when not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub igmp: Option<Igmp>,
    /// Receive-buffer errors of the Pod's network namespace; absent until a witness reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_drops: Option<u64>,
    /// What else the Pod's own kernel tells, or why it cannot be asked; absent while there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelWitness>,
    /// Every interface of the Pod, counted or not.
    pub interfaces: Vec<Interface>,
    /// Per interface and group (per source too in the SSM ranges), sorted by group, source, interface.
    pub groups: Vec<Group>,
    /// Everything that is wrong, by precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What of the Pod's memberships was refused, counted; absent while nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership_limits: Option<MembershipLimits>,
    /// The veth's account beside the switch's; absent where no switch is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledgers: Option<Ledgers>,
    /// `Fresh`, `Counted`, `LedgersAgree`, `PolicyKnown`.
    pub conditions: Vec<Condition>,
}

/// Totals of what was handed to the Pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    /// Data packets (skbs).
    pub packets: u64,
    /// Σ skb->len, Ethernet header included.
    pub bytes: u64,
    /// Packets as they would be on a wire: Σ max(1, gso_segs).
    pub segments: u64,
    /// Packets a second over the window; absent until the window has two readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// When the last data packet passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The share of 224.0.0.0/24, ff01:: and ff02::.
    pub link_local: Share,
    /// Per IP family.
    pub families: Families,
    /// Packets with TTL or hop limit 1 or less.
    pub ttl1: u64,
    /// What the switch decided to send to the Pod and the veth never saw, IPv4 only; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// What has no series of its own.
    pub other_groups: OtherGroups,
    /// IGMP and MLD messages by type and version, neighbour discovery, malformed frames; only non-zero ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub control: BTreeMap<String, u64>,
}

/// Totals of what the Pod sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outbound {
    /// Data packets on the veth: `admitted + dropped`.
    pub sent: u64,
    /// Not denied by an enforced rule.
    pub admitted: u64,
    /// Denied by an enforced rule.
    pub dropped: u64,
    /// Dropped by the switch or before it, without a policy source, IPv4 only; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_dropped: Option<u64>,
    /// Denied by a rule that nobody enforces; part of `admitted`.
    pub would_drop: u64,
    /// IPv4 packets whose source is not the Pod's own address; part of `sent`.
    pub foreign_source: u64,
    /// Bytes of admitted packets.
    pub bytes: u64,
    /// Segments of admitted packets.
    pub segments: u64,
    /// Admitted packets a second over the window; absent until the window has two readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// When the last data packet passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The share of 224.0.0.0/24, ff01:: and ff02::.
    pub link_local: Share,
    /// Per IP family.
    pub families: Families,
    /// Packets with TTL or hop limit 1 or less.
    pub ttl1: u64,
    /// What has no series of its own.
    pub other_groups: OtherGroups,
    /// As in [`Inbound::control`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub control: BTreeMap<String, u64>,
}

/// A share of the packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Admitted packets.
    pub packets: u64,
}

/// The totals per IP family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4.
    pub ipv4: Counters,
    /// IPv6.
    pub ipv6: Counters,
}

/// Admitted packets, segments and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// skbs.
    pub packets: u64,
    /// Σ max(1, gso_segs).
    pub segments: u64,
    /// Σ skb->len.
    pub bytes: u64,
}

/// Packets without a series of their own, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherGroups {
    /// Admitted packets in both IP families.
    pub packets: u64,
    /// Admitted bytes in both IP families.
    pub bytes: u64,
    /// Packets in both IP families that a rule denied and somebody drops.
    pub dropped: u64,
    /// Packets in both IP families that a rule denied and nobody enforces; they are in `packets`.
    #[serde(default)]
    pub would_drop: u64,
    /// Packets that found the port's slots used up.
    pub port_limit: u64,
    /// Packets held back because the table is over half full and the port has its fair share.
    pub fair_share: u64,
    /// Packets that found no free slot in their window.
    pub window_full: u64,
    /// Packets that met another CPU's insertion.
    pub contended: u64,
}

/// IGMP and MLD messages that the Pod sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Igmp {
    /// Messages without a record that an enforced rule denied, and records that none did. A dropped message may have
    /// records that are allowed.
    pub allowed: Messages,
    /// Messages with at least one record that an enforced rule denied, and those records; absent without a policy source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DroppedMessages>,
    /// Denied, but nobody enforces it: messages with at least one such record, and those records; part of `allowed`. Absent
    /// without a policy source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_drop: Option<Messages>,
    /// Messages that changed no membership since they cannot be believed, by reason (`bad_checksum`, `bad_source`,
    /// `bad_envelope`, `not_multicast`, `cut`, or why they cannot be decoded), since this agent started; queries too. They
    /// are in `allowed` or `dropped` all the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ignored: BTreeMap<String, u64>,
}

/// Messages, and records where they are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// Reports and leaves.
    pub messages: u64,
    /// Group records, each by its own verdict; a message of IGMPv1, v2 or MLDv1 has one. Absent where nobody walked them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

/// Messages that enforced rules denied, and which rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedMessages {
    /// Messages with at least one such record.
    pub messages: u64,
    /// Those records.
    pub records: u64,
    /// The rules that denied them, as far as the messages were handed up to this agent: sorted, at most 16 an interface, those
    /// that denied last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleReference>,
}

/// The second witness besides its memberships.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelWitness {
    /// Why the tables of the Pod's network namespace cannot be read: `NoProcess`, `NoPath`, `Denied`, `NoPeer`, `TooLarge`,
    /// `Unreadable`. Memberships then rest on reports alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
    /// The UDP sockets that lose datagrams now, as `address:port`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losing_sockets: Vec<String>,
}

/// What mcstat's own bounds on memberships left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipLimits {
    /// Records of groups beyond the bound on groups of one interface.
    pub groups_refused: u64,
    /// Sources beyond the bound on sources of one group.
    pub sources_refused: u64,
    /// IGMP and MLD messages that were counted but not handed up: the event rate was used up.
    pub messages_limited: u64,
}

/// One interface of the Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Name inside the Pod.
    pub name: String,
    /// Name of the host side of the veth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<String>,
    /// Whether it is counted.
    pub counted: bool,
    /// Why it is not, or what is amiss: one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One group, or one (S,G) in the SSM ranges, on one interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Destination address.
    pub group: IpAddr,
    /// Source address, in 232.0.0.0/8 and ff3x::/32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Name of the interface inside the Pod.
    pub interface: String,
    /// What was handed to the Pod; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<GroupCounters>,
    /// What the Pod sent; absent when it sent nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<GroupCounters>,
    /// Source of the last packet, inbound before outbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_source: Option<IpAddr>,
    /// When this series began; absent while the group has only a membership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// What is known of the Pod's membership on this interface; absent when no witness speaks of it. In the SSM ranges it
    /// stands on every row of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<Membership>,
    /// The first finding that holds of this group here, by precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<FindingKind>,
    /// Since when the finding holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A filter mode of RFC 9776 §3.2 and RFC 9777 §4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FilterMode {
    /// Only the sources listed.
    Include,
    /// All but the sources listed.
    Exclude,
}

/// Who says that a Pod is a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Witness {
    /// The tables of the Pod's own kernel.
    Kernel,
    /// IGMP or MLD reports seen on the veth.
    Report,
}

/// How the two witnesses of a membership disagree, beyond the grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Disagreement {
    /// The kernel has joined and never reported it.
    KernelJoinedNoReport,
    /// A report said so and has not expired, but the kernel is no member.
    ReportedKernelNotJoined,
    /// The reports expired by the querier's own timers while the kernel is still a member.
    ExpiredKernelJoined,
}

/// One Pod interface's membership of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// Whether the Pod is a member: what its kernel says where that is known, else what its reports say; not while `denied`.
    pub joined: bool,
    /// The rule that denied the Pod's last report of the group, while the Pod would be a member but for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<RuleReference>,
    /// Version of the last report: `IGMPv1` to `IGMPv3`, `MLDv1`, `MLDv2`; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether `sources` are wanted or unwanted; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FilterMode>,
    /// The source list of `mode`, sorted.
    pub sources: Vec<IpAddr>,
    /// Who says that the Pod is a member, now.
    pub witness: Vec<Witness>,
    /// How the witnesses disagree; absent while they agree or the grace period lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<Disagreement>,
    /// The Pod has left and the switch still forwards the group to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub switch_lingers: bool,
    /// Since when `joined` is what it is.
    pub since: Timestamp,
    /// When the reports expire unless repeated; absent without a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// `expires` rests on the defaults of the standards, since no querier was heard.
    #[serde(default, skip_serializing_if = "is_false")]
    pub assumed: bool,
    /// When the last report came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_report: Option<Timestamp>,
    /// Source address of the last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reporter: Option<IpAddr>,
    /// Reports that spoke of the group: messages, not records.
    pub reports: u64,
    /// How often the membership ended in the last ten minutes.
    pub flaps: u32,
    /// Sockets and kernel users that hold the group; absent when the kernel is not asked or no member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<u32>,
}

impl Membership {
    /// Whether the Pod wants the group, whatever a rule says of it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.joined || self.denied.is_some()
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What is wrong with a stream, a membership or a querier. The order is that of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FindingKind {
    /// The Pod has joined and nothing arrives.
    JoinedNoTraffic,
    /// Traffic arrives at a Pod that has not joined.
    TrafficNotJoined,
    /// A Pod sends and nobody in the cluster has joined.
    SentNobodyJoined,
    /// A querier was heard and has fallen silent.
    QuerierLost,
    /// Two queriers speak on one side.
    TwoQueriers,
    /// No querier was ever heard.
    NoQuerier,
    /// A limit on memberships is reached: Linux's, or ours.
    MembershipLimit,
    /// Data is sent with TTL or hop limit 1 to a group that is routed.
    #[serde(rename = "TTL1")]
    Ttl1,
    /// A member reports in a newer version than the oldest querier speaks.
    VersionMismatch,
    /// Traffic arrives from excluded sources only.
    SourceFiltered,
    /// Two active groups share a MAC address.
    MacCollision,
}

impl FindingKind {
    /// The word that STATUS columns and JSON show.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::JoinedNoTraffic => "JoinedNoTraffic",
            Self::TrafficNotJoined => "TrafficNotJoined",
            Self::SentNobodyJoined => "SentNobodyJoined",
            Self::QuerierLost => "QuerierLost",
            Self::TwoQueriers => "TwoQueriers",
            Self::NoQuerier => "NoQuerier",
            Self::MembershipLimit => "MembershipLimit",
            Self::Ttl1 => "TTL1",
            Self::VersionMismatch => "VersionMismatch",
            Self::SourceFiltered => "SourceFiltered",
            Self::MacCollision => "MacCollision",
        }
    }
}

/// One thing that is wrong, where, and since when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What is wrong.
    #[serde(rename = "type")]
    pub kind: FindingKind,
    /// The group concerned; absent when it is not about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// The interface inside the Pod; absent when it is not about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Since when it holds.
    pub since: Timestamp,
    /// One sentence with the facts.
    pub message: String,
}

/// Counters of one group in one direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupCounters {
    /// Admitted packets.
    pub packets: u64,
    /// Admitted bytes.
    pub bytes: u64,
    /// Admitted segments.
    pub segments: u64,
    /// Denied packets.
    pub dropped: u64,
    /// Denied, but nobody enforces it; part of `packets`.
    pub would_drop: u64,
    /// Packets with TTL or hop limit 1 or less.
    pub ttl1: u64,
    /// Source of the last packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_source: Option<IpAddr>,
    /// How often the source changed; outbound among the Pod's own sources and among foreign ones, each by themselves.
    pub source_changes: u64,
    /// Packets a second over the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// When the last packet passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The rule that decides what the Pod sends to the group now; absent where none does, where ports matter, inbound, for
    /// IPv6, and without a policy source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleReference>,
    /// Which rule decides rests on the UDP port, so none is named.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_port: bool,
}

/// A condition in the form of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Fresh`, `Counted`, `LedgersAgree`, `PolicyKnown`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// One CamelCase word.
    pub reason: String,
    /// One sentence, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
