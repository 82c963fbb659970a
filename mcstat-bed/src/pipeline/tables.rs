//! The tables of the pipeline, in order, and the cookies of their flows.
//!
//! Antrea numbers its tables from 0 in the order of the enabled features, so a number means nothing elsewhere; the same
//! holds here. ARP and unicast tables are folded into the switch's normal path.

/// A table, by the name that Antrea gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Family; ARP and IPv6 take the normal path from here.
    PipelineRootClassifier,
    /// Where a packet comes from: reg0 bits 0 to 3.
    Classifier,
    /// A Pod's packets carry its own addresses.
    SpoofGuard,
    /// Multicast from here on, or the normal path.
    PipelineIPClassifier,
    /// Conjunctions of a sender's rules.
    MulticastEgressRule,
    /// One flow for each such rule.
    MulticastEgressMetric,
    /// One flow for each Pod: what it sent and was not denied.
    MulticastEgressPodMetric,
    /// Group address to OpenFlow group; IGMP to the agent.
    MulticastRouting,
    /// Conjunctions of a receiver's rules.
    MulticastIngressRule,
    /// One flow for each such rule.
    MulticastIngressMetric,
    /// One flow for each Pod: what it was to get.
    MulticastIngressPodMetric,
    /// Output to the port in reg1.
    MulticastOutput,
}

use Table::{
    Classifier, MulticastEgressMetric, MulticastEgressPodMetric, MulticastEgressRule, MulticastIngressMetric,
    MulticastIngressPodMetric, MulticastIngressRule, MulticastOutput, MulticastRouting, PipelineIPClassifier,
    PipelineRootClassifier, SpoofGuard,
};

/// With policies (Antrea's feature gate AntreaPolicy).
const ALL: [Table; 12] = [
    PipelineRootClassifier,
    Classifier,
    SpoofGuard,
    PipelineIPClassifier,
    MulticastEgressRule,
    MulticastEgressMetric,
    MulticastEgressPodMetric,
    MulticastRouting,
    MulticastIngressRule,
    MulticastIngressMetric,
    MulticastIngressPodMetric,
    MulticastOutput,
];

/// Without.
const NO_POLICIES: [Table; 8] = [
    PipelineRootClassifier,
    Classifier,
    SpoofGuard,
    PipelineIPClassifier,
    MulticastEgressPodMetric,
    MulticastRouting,
    MulticastIngressPodMetric,
    MulticastOutput,
];

/// Number of a table, or nothing where this pipeline has no such table.
pub(crate) fn id(table: Table, policies: bool) -> Option<u8> {
    let position = tables(policies).iter().position(|one| *one == table)?;
    u8::try_from(position).ok()
}

/// The tables that there are, by number.
pub(crate) fn tables(policies: bool) -> &'static [Table] {
    if policies { &ALL } else { &NO_POLICIES }
}

/// Antrea's categories of flows, bits 40 to 47 of a cookie.
#[derive(Clone, Copy)]
pub(crate) enum Category {
    PodConnectivity = 1,
    NetworkPolicy = 2,
    Multicast = 5,
}

impl Category {
    /// Of the flows in a table: those of rules are policy's, and so are the counters of rules.
    pub(crate) fn of(table: Table) -> Self {
        match table {
            PipelineRootClassifier | Classifier | SpoofGuard => Self::PodConnectivity,
            MulticastEgressRule | MulticastEgressMetric | MulticastIngressRule | MulticastIngressMetric => {
                Self::NetworkPolicy
            }
            _ => Self::Multicast,
        }
    }
}

/// A cookie as Antrea makes it: the agent's round, then the category; object ids are left 0.
pub(crate) fn cookie(round: u16, category: Category) -> u64 {
    u64::from(round) << 48 | (category as u64) << 40
}

#[cfg(test)]
mod tests {
    use super::{Category, Table, cookie, id};

    #[test]
    fn cookies_are_those_of_antrea() {
        assert_eq!(cookie(1, Category::Multicast), 0x1_0500_0000_0000);
        assert_eq!(cookie(3, Category::NetworkPolicy), 0x3_0200_0000_0000);
    }

    #[test]
    fn numbers_shift_with_the_policies() {
        let output = Table::MulticastOutput;
        assert_eq!((id(output, true), id(output, false)), (Some(11), Some(7)));
        assert_eq!(id(Table::MulticastEgressMetric, false), None);
    }
}
