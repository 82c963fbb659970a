//! `NodeStatsSummary`: one node's whole truth, pushed to every aggregator replica.
//!
//! Every series is cumulative and carries its start time, and a summary replaces the one before it: a retry, a lost
//! reply or a reordered report changes no total. Field names follow Antrea's kind of that name, ours stand beside them.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    policy::NetworkPolicyStats,
    stats::{Finding, PodMulticastStats},
};

/// API group of the agent-to-aggregator interface.
pub const GROUP: &str = "controlplane.mcstat.io";
/// Version of [`GROUP`].
pub const VERSION: &str = "v1alpha1";
/// Where a summary is POSTed.
pub const PATH: &str = "/apis/controlplane.mcstat.io/v1alpha1/nodestatssummaries";

/// One node's whole truth at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatsSummary {
    /// `controlplane.mcstat.io/v1alpha1`.
    pub api_version: String,
    /// `NodeStatsSummary`.
    pub kind: String,
    /// The node's name.
    pub metadata: SummaryMetadata,
    /// When this agent process started.
    pub start_time: Timestamp,
    /// When the counters were read.
    pub observed_at: Timestamp,
    /// How often this agent pushes, in seconds: three missed pushes make its rows stale.
    pub interval_seconds: u32,
    /// Every Pod of the node that a source names, sorted by namespace and name.
    pub pods: Vec<PodMulticastStats>,
    /// The groups of this node with their members, sorted by group. A group that is listed without Pods stays listed in
    /// the cluster; one that is not listed goes. Who sends, and how we know, stands in [`pods`](Self::pods).
    #[serde(default)]
    pub multicast: Vec<GroupMembers>,
    /// The ClusterNetworkPolicies with rules for multicast, by name and UID; absent without a source of policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub antrea_cluster_network_policies: Option<Vec<NetworkPolicyStats>>,
    /// The NetworkPolicies of Antrea's with rules for multicast, by namespace, name and UID; absent likewise. Kubernetes'
    /// own (`networkPolicies` in Antrea's kind) never apply to multicast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub antrea_network_policies: Option<Vec<NetworkPolicyStats>>,
    /// The queriers heard at this node, sorted by family and address.
    #[serde(default)]
    pub queriers: Vec<Querier>,
    /// What is wrong with the queriers. `group` tells the protocol, being where its general queries go: 224.0.0.1 for IGMP,
    /// ff02::1 for MLD; a finding without it concerns both.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Health of maps, programs and the event path.
    pub kernel: KernelHealth,
}

/// The node's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryMetadata {
    /// Name of the Node object.
    pub name: String,
}

/// The members of one group on one node (Antrea's `MulticastGroupInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupMembers {
    /// The group.
    pub group: IpAddr,
    /// Its members, sorted by namespace and name.
    #[serde(default)]
    pub pods: Vec<PodReference>,
}

/// A Pod by name (Antrea's `PodReference`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReference {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub name: String,
}

/// A querier as heard on the veths of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Querier {
    /// Source address of its queries; the unspecified address is a snooping switch's proxy query.
    pub address: IpAddr,
    /// `IGMPv1` to `IGMPv3`, `MLDv1`, `MLDv2`: of its last query.
    pub version: String,
    /// Whether it has the lowest address among those present: the one that the others yield to. Never the unspecified address.
    pub elected: bool,
    /// Whether it was heard within its own other-querier-present interval.
    pub present: bool,
    /// Its query interval, as its last query of version 3 (MLD: 2) says; absent when it says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u64>,
    /// Its robustness variable, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robustness: Option<u8>,
    /// Max Resp Time of its last general query, in milliseconds.
    pub max_response_milliseconds: u64,
    /// When its last query passed.
    pub last_query: Timestamp,
    /// Since when it is heard.
    pub since: Timestamp,
    /// Pods that sent its queries, as `namespace/name`: a Pod that is the querier. Empty when it is beyond the switch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// On how many Pod interfaces it was heard.
    pub interfaces: u32,
}

/// Health of maps, programs and the event path of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelHealth {
    /// Slots in use.
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
