//! What policies allowed and dropped, rule by rule: as a node tells it, and as `stats.antrea.io/v1alpha1` serves it.
//!
//! `networkPolicy`, `trafficStats`, `ruleTrafficStats`, `name`, `packets`, `bytes` and `sessions` are Antrea's fields; the
//! others are ours and stand beside them. Every number is cumulative since the `startTime` beside it. For rules on IGMP
//! `packets` are messages in which the rule decided at least one record and `bytes` their frames, once each; what Antrea
//! counts there is `records`. A query is one of each, for each Pod that it was for; as long as no switch has counted a rule on
//! queries, its numbers are absent.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::stats::Metadata;

/// Packets, bytes, sessions (Antrea's `TrafficStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficStats {
    /// Packets (skbs) of data, or IGMP messages.
    pub packets: u64,
    /// Their frames, Ethernet header included.
    pub bytes: u64,
    /// Always 0: multicast has none.
    pub sessions: u64,
}

/// Which policy (Antrea's `NetworkPolicyReference`).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicyReference {
    /// Its namespace; empty for what lives in none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a policy that is made again under its name has another one.
    pub uid: String,
}

/// One policy on one node (Antrea's `NetworkPolicyStats`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicyStats {
    /// Which.
    pub network_policy: NetworkPolicyReference,
    /// The sum of its rules; absent where it has rules and nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_stats: Option<TrafficStats>,
    /// Its rules on this node, by name and start. A rule that was for no Pod here for a while has an entry for each of its
    /// lives: they are to be added up. Empty for a policy that is for no Pod here.
    #[serde(default)]
    pub rule_traffic_stats: Vec<RuleTrafficStats>,
    /// The earliest start of its rules; absent without rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
}

/// One rule (Antrea's `RuleTrafficStats`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleTrafficStats {
    /// Its name; where it has none, direction and position, such as `egress-0`.
    pub name: String,
    /// What it decided: of a Drop rule only what somebody enforced. Absent for a rule on queries that no switch has counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_stats: Option<TrafficStats>,
    /// What it does now.
    pub action: RuleAction,
    /// When counting began: every counter is zero before.
    pub start_time: Timestamp,
    /// Of its data packets, Σ max(1, gso_segs).
    #[serde(default)]
    pub segments: u64,
    /// IGMP records that it decided; a message of IGMPv1 or v2, and a query, has one. This is what Antrea counts as packets.
    /// Absent with `trafficStats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// What a Drop rule denied while nobody enforced it; absent with `trafficStats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_drop: Option<Denied>,
    /// The rule is for no Pod of the node any more; should it be again, it counts from zero, with a new start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// What the switch counts for it. Absent for rules on IGMP reports, and where no switch is read that counts rules: in a
    /// sum over nodes, on any of those that the rule is for. Of a rule on queries the numbers above are made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchCount>,
}

/// What the switch counts for a rule, or for several that it cannot tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwitchCount {
    /// Whether its flows are known.
    #[serde(rename = "match")]
    pub matched: SwitchMatch,
    /// Their counters, since they were made; absent when there are none.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Count>,
    /// What was counted at the veths for the same rules.
    pub wire: Count,
    /// How many rules the two numbers are the sum of; of several nodes, the most.
    pub rules: u32,
}

/// Which flows are a rule's. The later one is the weaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SwitchMatch {
    /// One rule and one conjunction match the same and do the same.
    Unique,
    /// Several do: they are compared as a sum.
    Ambiguous,
    /// The switch has no such flows.
    None,
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their frames.
    pub bytes: u64,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleAction {
    /// Lets it pass.
    Allow,
    /// Denies it.
    Drop,
}

/// Denied and not enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Denied {
    /// Data packets.
    pub packets: u64,
    /// IGMP messages with at least one such record.
    pub messages: u64,
    /// Those records.
    pub records: u64,
}

/// One policy of the cluster. `CLUSTER_WIDE` tells the two kinds apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStats<const CLUSTER_WIDE: bool> {
    /// `stats.antrea.io/v1alpha1`.
    pub api_version: String,
    /// `AntreaClusterNetworkPolicyStats` or `AntreaNetworkPolicyStats`.
    pub kind: String,
    /// Name, namespace and UID are the policy's. `creationTimestamp` is when counting began, or, for a policy that no
    /// node counts, when this server heard of it.
    pub metadata: Metadata,
    /// The sum of its rules; absent where it has rules and nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_stats: Option<TrafficStats>,
    /// Its rules, by name: the sum over the nodes that count them.
    pub rule_traffic_stats: Vec<RuleTrafficStats>,
    /// What is known of the sum besides.
    pub status: PolicyStatus,
}

/// A ClusterNetworkPolicy.
pub type ClusterPolicyStats = PolicyStats<true>;
/// A NetworkPolicy of Antrea's.
pub type NamespacedPolicyStats = PolicyStats<false>;

/// What is known of a policy's sum besides the numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The earliest start of its rules on any node; absent while no node counts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// Since when this server keeps what nodes counted that no longer report. For one value of it nothing falls.
    pub kept_since: Timestamp,
    /// Nodes whose numbers are current: those that are not silent and have a source of policies.
    pub nodes_reporting: u32,
    /// Nodes that reported within the last 15 minutes.
    pub nodes_expected: u32,
    /// What its Drop rules denied while nobody enforced them; absent with `trafficStats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_drop: Option<Denied>,
}

impl TrafficStats {
    /// Adds, saturating.
    pub fn add(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.sessions = self.sessions.saturating_add(other.sessions);
    }

    /// The sum of the rules that are counted; `None` where there are rules and none is.
    #[must_use]
    pub fn sum(rules: &[RuleTrafficStats]) -> Option<Self> {
        sum(rules, |rule| rule.traffic_stats, Self::add)
    }

    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
            sessions: self.sessions.saturating_sub(before.sessions),
        }
    }

    fn advance(&mut self, newer: Self) {
        self.packets = newer.packets.max(self.packets);
        self.bytes = newer.bytes.max(self.bytes);
        self.sessions = newer.sessions.max(self.sessions);
    }
}

impl Count {
    /// Adds, saturating.
    pub fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl SwitchCount {
    /// Adds what another node's switch counts for the same rule: the weaker word holds for both.
    pub fn add(&mut self, other: Self) {
        self.matched = self.matched.max(other.matched);
        self.flows = self.flows.zip(other.flows).map(|(mut flows, other)| {
            flows.add(other.packets, other.bytes);
            flows
        });
        self.wire.add(other.wire.packets, other.wire.bytes);
        self.rules = self.rules.max(other.rules);
    }
}

impl Denied {
    /// Adds, saturating.
    pub fn add(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.messages = self.messages.saturating_add(other.messages);
        self.records = self.records.saturating_add(other.records);
    }

    /// The sum of the rules that are counted; `None` where there are rules and none is.
    #[must_use]
    pub fn sum(rules: &[RuleTrafficStats]) -> Option<Self> {
        sum(rules, |rule| rule.would_drop, Self::add)
    }

    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            messages: self.messages.saturating_sub(before.messages),
            records: self.records.saturating_sub(before.records),
        }
    }

    fn advance(&mut self, newer: Self) {
        self.packets = newer.packets.max(self.packets);
        self.messages = newer.messages.max(self.messages);
        self.records = newer.records.max(self.records);
    }
}

/// Takes another number in; what one of the two does not know is the other's.
fn take<T>(number: &mut Option<T>, other: Option<T>, with: impl FnOnce(&mut T, T)) {
    match (number.as_mut(), other) {
        (Some(number), Some(other)) => with(number, other),
        (None, other) => *number = other,
        (Some(_), None) => {}
    }
}

fn sum<T: Default>(
    rules: &[RuleTrafficStats],
    number: impl Fn(&RuleTrafficStats) -> Option<T>,
    add: impl Fn(&mut T, T),
) -> Option<T> {
    let mut sum = rules.is_empty().then(T::default);
    rules.iter().for_each(|rule| take(&mut sum, number(rule), &add));
    sum
}

impl RuleTrafficStats {
    /// Adds what the same rule counted elsewhere or in another life, saturating. The sum starts with the earlier of the
    /// two; what the rule does stays.
    pub fn add(&mut self, other: &Self) {
        take(&mut self.traffic_stats, other.traffic_stats, TrafficStats::add);
        self.segments = self.segments.saturating_add(other.segments);
        take(&mut self.records, other.records, |sum, more| {
            *sum = sum.saturating_add(more);
        });
        take(&mut self.would_drop, other.would_drop, Denied::add);
        self.start_time = self.start_time.min(other.start_time);
    }

    /// What was counted since an earlier reading of the same life, saturating; it starts with that reading.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let (stats, records, denied) = (before.traffic_stats, before.records, before.would_drop);
        Self {
            traffic_stats: self.traffic_stats.map(|now| now.since(stats.unwrap_or_default())),
            segments: self.segments.saturating_sub(before.segments),
            records: self.records.map(|now| now.saturating_sub(records.unwrap_or_default())),
            would_drop: self.would_drop.map(|now| now.since(denied.unwrap_or_default())),
            start_time: before.start_time,
            ..self.clone()
        }
    }

    /// Whether no counter is above zero.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let zero = TrafficStats::default();
        self.traffic_stats.is_none_or(|stats| stats == zero)
            && self.segments == 0
            && self.records.is_none_or(|records| records == 0)
            && self.would_drop.is_none_or(|denied| denied == Denied::default())
    }

    /// Takes a newer reading of the same life; no number falls.
    pub fn advance(&mut self, newer: Self) {
        let before = std::mem::replace(self, newer);
        take(&mut self.traffic_stats, before.traffic_stats, TrafficStats::advance);
        self.segments = self.segments.max(before.segments);
        take(&mut self.records, before.records, |now, before| *now = before.max(*now));
        take(&mut self.would_drop, before.would_drop, Denied::advance);
    }
}
