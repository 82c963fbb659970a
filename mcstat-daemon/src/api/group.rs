//! `MulticastGroup`: one group of the cluster, as served in `stats.antrea.io/v1alpha1`.
//!
//! `group` and `pods` are Antrea's fields and mean what they mean there: who has joined. Everything else is ours and
//! stands in `status`. What was not measured is absent, never 0.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    stats::{Finding, Membership, Metadata},
    summary::{PodReference, Querier},
};

/// Kind of one object.
pub const KIND: &str = "MulticastGroup";
/// Resource name in the URL.
pub const RESOURCE: &str = "multicastgroups";

/// One group: its members, its senders, its traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MulticastGroup {
    /// `stats.antrea.io/v1alpha1`.
    pub api_version: String,
    /// `MulticastGroup`.
    pub kind: String,
    /// The name is the group's address as text.
    pub metadata: Metadata,
    /// The group's address.
    pub group: IpAddr,
    /// Every Pod that is a member, sorted by namespace and name. Never absent.
    pub pods: Vec<PodReference>,
    /// What is known of it besides.
    pub status: GroupStatus,
}

/// What is known of a group besides its members' names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// The word of the STATUS column: the first finding by precedence, or OK.
    pub summary: String,
    /// Whether lists leave it out unless asked: every stack joins it by itself.
    pub hidden: bool,
    /// Nodes whose members are counted in: those that are not silent.
    pub nodes_reporting: u32,
    /// Nodes that reported within the last 15 minutes.
    pub nodes_expected: u32,
    /// How each membership is known, by namespace, name and interface. A member whose node does not say stands in `pods`
    /// only.
    pub members: Vec<Member>,
    /// Who sent within the last 60 s: Pods by namespace and name, then others by address.
    pub senders: Vec<Sender>,
    /// The source changed more often than `senders` explains.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_senders: bool,
    /// The sources asked for or heard, sorted; absent outside 232.0.0.0/8 and ff3x::/32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<Source>>,
    /// Σ of the Pods' admitted packets; others' are not in it.
    pub sent: Traffic,
    /// Σ of what was handed to Pods.
    pub received: Traffic,
    /// When the last packet passed, in either direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Nodes with a member or a sender, sorted.
    pub nodes: Vec<String>,
    /// The queriers of the group's family that these nodes hear.
    pub queriers: Vec<NodeQuerier>,
    /// Everything that is wrong, by precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<GroupFinding>,
}

/// One Pod interface that is a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub pod: String,
    /// Node that it runs on.
    pub node: String,
    /// Interface inside the Pod.
    pub interface: String,
    /// How the membership is known.
    #[serde(flatten)]
    pub membership: Membership,
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sender {
    /// `namespace/name` of a Pod, or `ext:` and the source address of anybody else.
    pub sender: String,
    /// Node of the Pod; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What the Pod sent to the group; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Traffic>,
    /// When its last packet passed: its own veth, or for others a receiver's.
    pub last_seen: Timestamp,
}

/// A source of a source-specific group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Its address.
    pub source: IpAddr,
    /// Member interfaces whose INCLUDE list names it.
    pub included: u32,
    /// Member interfaces whose EXCLUDE list names it.
    pub excluded: u32,
    /// Σ of the Pods' admitted packets from this source.
    pub sent: Traffic,
    /// Σ of what was handed to Pods from this source.
    pub received: Traffic,
    /// When its last packet passed; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// A sum of packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// skbs.
    pub packets: u64,
    /// Σ skb->len.
    pub bytes: u64,
}

/// A querier as one node hears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeQuerier {
    /// The node.
    pub node: String,
    /// What it hears.
    #[serde(flatten)]
    pub querier: Querier,
}

/// A finding, and whose it is. Without Pod and node it is the cluster's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupFinding {
    /// What is wrong.
    #[serde(flatten)]
    pub finding: Finding,
    /// `namespace/name` of the Pod that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl Traffic {
    /// Adds, saturating.
    pub fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}
