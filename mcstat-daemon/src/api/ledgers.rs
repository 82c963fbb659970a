//! `.status.ledgers`: the veth's account of one Pod beside the switch's, where they differ and why.
//!
//! Only IPv4 data of the Pod itself is compared: the switch counts no other. The words are those of `docs/ledgers.md`.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Both accounts of one Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledgers {
    /// What was for the Pod; absent while nothing is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Comparison>,
    /// What the Pod sent; absent while nothing is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Comparison>,
    /// How many of the discrepancies are disagreements and changed within the window.
    pub differing: u32,
    /// Where the accounts differ, by interface, direction and cause. One that heals is taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discrepancies: Vec<Discrepancy>,
    /// Groups that switch, kernel and reports do not all hold for the Pod, by interface and group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<MembershipDifference>,
}

/// One direction, over the Pod's interfaces that the switch counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Since when the two numbers are counted: the baseline.
    pub since: Timestamp,
    /// What the veth counted since.
    pub wire: PacketsAndBytes,
    /// What the switch counted since; up to its lag behind.
    pub switch: PacketsAndBytes,
    /// How they stand.
    pub verdict: Reason,
}

/// Packets and bytes of one account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketsAndBytes {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included. Outbound on the veth, frames with a foreign source are in the bytes.
    pub bytes: u64,
}

/// One of the two accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Account {
    /// The veth's.
    Wire,
    /// The switch's.
    Switch,
}

/// A difference between the accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Discrepancy {
    /// The interface inside the Pod.
    pub interface: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Why.
    pub cause: Cause,
    /// Which account has more.
    pub more: Account,
    /// By how many packets, summed up since it is listed.
    pub packets: u64,
    /// By how many bytes; absent where that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Since when it is listed.
    pub since: Timestamp,
    /// When it changed last.
    pub changed: Timestamp,
}

/// Why the accounts differ. Each is named on positive evidence only; the last one has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// A rule for the Pod dropped it: the rule's own drop counter grew.
    RuleDrop,
    /// The Pod sent it to a group that it has a bucket of: the switch counts that copy and never sends it.
    SelfDelivery,
    /// The queue before the switch was full: the packet socket's drop counter grew.
    QueueOverflow,
    /// The flow began to count anew: its counter or its age fell.
    FlowReset,
    /// The flow is gone, and with it what it had not yet written down.
    UnpushedLost,
    /// The switch segmented a large packet: more packets, by at most the segments, and one header of bytes for each.
    GsoUpcall,
    /// Buckets of the Pod's groups changed: the switch credits the last half second to the new ones.
    MembershipChange,
    /// mcstat's programs were off, or behind another program.
    NotAttached,
    /// The source is not the Pod's: never compared.
    ForeignSource,
    /// The switch was away meanwhile, and its flow lived on.
    SwitchAway,
    /// None of the others.
    Unexplained,
}

impl Cause {
    /// Whether packets that miss for this reason were dropped.
    #[must_use]
    pub fn is_drop(self) -> bool {
        matches!(self, Self::RuleDrop | Self::QueueOverflow | Self::Unexplained)
    }

    /// Whether the accounts differ by it. The others are listed, and agree.
    #[must_use]
    pub fn differs(self) -> bool {
        !matches!(
            self,
            Self::RuleDrop | Self::SelfDelivery | Self::GsoUpcall | Self::ForeignSource
        )
    }

    /// The word that messages show.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RuleDrop => "RuleDrop",
            Self::SelfDelivery => "SelfDelivery",
            Self::QueueOverflow => "QueueOverflow",
            Self::FlowReset => "FlowReset",
            Self::UnpushedLost => "UnpushedLost",
            Self::GsoUpcall => "GsoUpcall",
            Self::MembershipChange => "MembershipChange",
            Self::NotAttached => "NotAttached",
            Self::ForeignSource => "ForeignSource",
            Self::SwitchAway => "SwitchAway",
            Self::Unexplained => "Unexplained",
        }
    }
}

/// How the accounts stand: the reason of the condition `LedgersAgree`. In the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No switch is read.
    NoSwitchLedger,
    /// The switch does not answer.
    SwitchAway,
    /// The bridge has no tables that count Pods.
    NoMetricTables,
    /// The switch, or the flow, began anew: no second tick has agreed yet.
    SwitchRestarted,
    /// They differ.
    Differ,
    /// No interface of the Pod is a port of the switch.
    NotOnSwitch,
    /// The switch has no counter for the Pod.
    NoFlow,
    /// The first reading: no tick has agreed yet.
    Baseline,
    /// For some seconds nothing could be compared.
    NotCompared,
    /// They agree.
    Agree,
    /// Inbound only: the switch sends copies past its counters, since rules are off.
    NoIngressMetrics,
}

impl Reason {
    /// `True`, `False` or `Unknown`, as in conditions.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::Agree => "True",
            Self::Differ => "False",
            _ => "Unknown",
        }
    }

    /// The word of the condition.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoSwitchLedger => "NoSwitchLedger",
            Self::SwitchAway => "SwitchAway",
            Self::NoMetricTables => "NoMetricTables",
            Self::SwitchRestarted => "SwitchRestarted",
            Self::Differ => "Differ",
            Self::NotOnSwitch => "NotOnSwitch",
            Self::NoFlow => "NoFlow",
            Self::Baseline => "Baseline",
            Self::NotCompared => "NotCompared",
            Self::Agree => "Agree",
            Self::NoIngressMetrics => "NoIngressMetrics",
        }
    }
}

/// A group that not all of switch, kernel and reports hold for the Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipDifference {
    /// The interface inside the Pod.
    pub interface: String,
    /// The group.
    pub group: IpAddr,
    /// What is amiss.
    pub difference: Difference,
    /// Whether the switch has a bucket for the Pod.
    pub switch: bool,
    /// Whether the Pod's kernel has joined; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<bool>,
    /// Whether a report announced it and has not expired.
    pub report: bool,
    /// Since when.
    pub since: Timestamp,
}

/// How the three sets of groups differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Difference {
    /// The Pod is a member and the switch sends it nothing: a report that the switch did not understand, or a rule.
    NotInSwitch,
    /// The switch sends the group and nobody asks for it: a leave that it did not hear, or a join that was none.
    SwitchOnly,
    /// The switch follows reports that the Pod's kernel no longer stands behind.
    NotInKernel,
    /// Kernel and switch have it, and no report said so.
    NotReported,
}
