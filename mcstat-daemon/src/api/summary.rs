//! `NodeStatsSummary`: one node's whole truth, pushed to every aggregator replica.
//!
//! Every series is cumulative and carries its start time, and a summary replaces the one before it: a retry, a lost
//! reply or a reordered report changes no total. Field names follow Antrea's kind of that name, ours stand beside them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::stats::PodMulticastStats;

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
    /// Health of maps, programs and the event path.
    pub kernel: KernelHealth,
}

/// The node's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryMetadata {
    /// Name of the Node object.
    pub name: String,
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
