//! The columns of `antreaclusternetworkpolicystats` and `antreanetworkpolicystats`. Those that are always shown are
//! Antrea's. NAMESPACE is added by the client.

use serde_json::json;

use super::{
    policy::PolicyStats,
    resource::{CLUSTER_POLICIES, NAMESPACED_POLICIES, Object, Resource},
    stats::Metadata,
    table::{Column, DATE, INTEGER, STRING, cell},
};

impl<const CLUSTER_WIDE: bool> Object for PolicyStats<CLUSTER_WIDE> {
    const RESOURCE: Resource = if CLUSTER_WIDE {
        CLUSTER_POLICIES
    } else {
        NAMESPACED_POLICIES
    };
    const COLUMNS: &'static [Column<Self>] = &columns();

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

const fn columns<const CLUSTER_WIDE: bool>() -> [Column<PolicyStats<CLUSTER_WIDE>>; 7] {
    [
        Column::name("Name", "Name of the policy.", |policy, _| json!(policy.metadata.name)),
        Column::shown("Sessions", INTEGER, "Always 0: multicast has none.", |policy, _| {
            cell(policy.traffic_stats.map(|stats| stats.sessions))
        }),
        Column::shown(
            "Packets",
            INTEGER,
            "Data packets and IGMP messages that its rules allowed, or denied and somebody enforced.",
            |policy, _| cell(policy.traffic_stats.map(|stats| stats.packets)),
        ),
        Column::shown(
            "Bytes",
            INTEGER,
            "Their frames, Ethernet header included.",
            |policy, _| cell(policy.traffic_stats.map(|stats| stats.bytes)),
        ),
        Column::shown(
            "Created At",
            DATE,
            "When counting began, not when the policy was made.",
            |policy, _| cell(policy.metadata.creation_timestamp.map(|at| format!("{at:.0}"))),
        ),
        Column::wide(
            "Would_Drop",
            INTEGER,
            "Data packets and IGMP messages that its rules denied while nobody enforced them.",
            |policy, _| {
                let denied = policy.status.would_drop;
                cell(denied.map(|denied| denied.packets.saturating_add(denied.messages)))
            },
        ),
        Column::wide(
            "Nodes",
            STRING,
            "Nodes whose numbers are current / nodes that reported within 15 minutes.",
            |policy, _| {
                let status = &policy.status;
                json!(format!("{}/{}", status.nodes_reporting, status.nodes_expected))
            },
        ),
    ]
}
