//! What the flows and groups of a switch say that antrea-agent programs for multicast: counters of Pods and rules, the
//! rules themselves, and the groups that the switch holds for each port.
//!
//! Tables are known by name: their numbers move with Antrea's features. Only what has exactly the expected shape is
//! taken; a flow of a metric's priority with anything else is no metric and is counted as unknown. This module compares
//! nothing and keeps no state: one description in, one [`Switch`] out. It has no IPv6: Antrea's multicast has none.

mod groups;
mod metrics;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

pub use self::{
    groups::{Member, SwitchGroup, snooped_groups},
    metrics::{FlowCount, Verdict},
    rules::{Prefix, Rule},
};
use super::snapshot::Enforced;
use crate::proto::openflow::{Action, FlowDesc, GroupDesc};

/// Priority of metrics and of routes to groups.
const NORMAL: u16 = 200;
/// Register of the port that a copy is for.
const TARGET_PORT: u8 = 1;
/// Register of the rule (conjunction) that was met.
const RULE: u8 = 3;
/// Register 0, bit 10: the rule denies.
const DENY_MARK: u32 = 0x400;
/// Ethernet type of IPv4.
const IPV4: u16 = 0x0800;
/// Categories in the cookie: who made the flow.
const NETWORK_POLICY: u8 = 2;
const MULTICAST: u8 = 5;

/// A table of Antrea's multicast pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Which rule a Pod's packet meets.
    EgressRule,
    /// Counts what rules allowed and dropped of what Pods send.
    EgressMetric,
    /// Counts what each Pod sends.
    EgressPodMetric,
    /// Sends a group's packets to its receivers.
    Routing,
    /// Which rule a packet for a Pod meets.
    IngressRule,
    /// Counts what rules allowed and dropped of what is for Pods.
    IngressMetric,
    /// Counts what is decided to go to each Pod.
    IngressPodMetric,
}

impl Table {
    /// All of them, in the order of the pipeline.
    pub const ALL: [Self; 7] = [
        Self::EgressRule,
        Self::EgressMetric,
        Self::EgressPodMetric,
        Self::Routing,
        Self::IngressRule,
        Self::IngressMetric,
        Self::IngressPodMetric,
    ];

    /// Antrea's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EgressRule => "MulticastEgressRule",
            Self::EgressMetric => "MulticastEgressMetric",
            Self::EgressPodMetric => "MulticastEgressPodMetric",
            Self::Routing => "MulticastRouting",
            Self::IngressRule => "MulticastIngressRule",
            Self::IngressMetric => "MulticastIngressMetric",
            Self::IngressPodMetric => "MulticastIngressPodMetric",
        }
    }
}

/// What a switch described, as it said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The flows of each table that the bridge has.
    pub tables: BTreeMap<Table, Vec<FlowDesc>>,
    /// Its groups; those that MulticastRouting names are enough.
    pub groups: Vec<GroupDesc>,
}

impl Description {
    /// The OpenFlow groups that MulticastRouting sends packets to.
    pub fn routed_groups(&self) -> BTreeSet<u32> {
        let flows = self.tables.get(&Table::Routing).into_iter().flatten();
        let actions = flows.flat_map(|flow| &flow.actions);
        let ids = actions.filter_map(|action| match action {
            Action::Group { id } => Some(*id),
            _ => None,
        });
        ids.collect()
    }
}

/// What a description means. Counters are the switch's own: cumulative for each flow, up to half a second late.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switch {
    /// What each Pod sends, by its address: after anti-spoofing and rules, IGMP left out. `None`: no such table.
    pub outbound: Option<BTreeMap<Ipv4Addr, FlowCount>>,
    /// The copies that the switch decided to send to each port; a Pod's own are among them. `None`: no such table.
    pub inbound: Option<BTreeMap<u32, FlowCount>>,
    /// By rule and verdict, what rules on senders counted. `None`: no such table, so nothing enforces such rules.
    pub egress: Option<BTreeMap<(u32, Verdict), FlowCount>>,
    /// The same of rules on receivers. `None` also means that copies go past the counters of `inbound`.
    pub ingress: Option<BTreeMap<(u32, Verdict), FlowCount>>,
    /// Rules on senders, in ascending id.
    pub egress_rules: Vec<Rule>,
    /// Rules on receivers, in ascending id.
    pub ingress_rules: Vec<Rule>,
    /// Where the packets of each group go, in ascending group.
    pub groups: Vec<SwitchGroup>,
    /// Flows that look like one of the above and are none, by table.
    pub unknown: BTreeMap<Table, u32>,
    /// Whether MulticastRouting sends the Pods' IGMP to antrea-agent. `None`: it has no flow, so nobody has programmed the
    /// bridge (yet).
    pub punts_igmp: Option<bool>,
}

impl Switch {
    /// Reads a description.
    pub fn new(description: &Description) -> Self {
        let mut unknown = BTreeMap::new();
        let mut switch = Self::default();
        for (&table, flows) in &description.tables {
            let mut missed = 0;
            match table {
                Table::EgressPodMetric => switch.outbound = Some(metrics::outbound(flows, &mut missed)),
                Table::IngressPodMetric => switch.inbound = Some(metrics::inbound(flows, &mut missed)),
                Table::EgressMetric => switch.egress = Some(metrics::rules(flows, &mut missed)),
                Table::IngressMetric => switch.ingress = Some(metrics::rules(flows, &mut missed)),
                Table::EgressRule => switch.egress_rules = rules::rules(flows, &mut missed),
                Table::IngressRule => switch.ingress_rules = rules::rules(flows, &mut missed),
                Table::Routing => {
                    switch.groups = groups::groups(flows, &description.groups, &mut missed);
                    switch.punts_igmp = (!flows.is_empty()).then(|| flows.iter().any(groups::punts_igmp));
                }
            }
            if missed > 0 {
                unknown.insert(table, missed);
            }
        }
        switch.unknown = unknown;
        rules::settle(&mut switch.egress_rules, switch.egress.as_ref());
        rules::settle(&mut switch.ingress_rules, switch.ingress.as_ref());
        switch
    }

    /// Whether the bridge counts Pods at all: without, there is no second ledger.
    pub fn has_metrics(&self) -> bool {
        self.outbound.is_some() || self.inbound.is_some()
    }

    /// What of the policies this switch enforces. `None` while it is not programmed, which says nothing.
    pub fn enforced(&self) -> Option<Enforced> {
        let punts = self.punts_igmp?;
        let data = self.egress.is_some();
        Some(Enforced {
            data,
            reports: data && punts,
        })
    }

    /// The groups whose packets go to each local port, the group of all systems (224.0.0.1) among them.
    pub fn groups_by_port(&self) -> BTreeMap<u32, Vec<Ipv4Addr>> {
        let mut ports: BTreeMap<u32, Vec<Ipv4Addr>> = BTreeMap::new();
        for group in &self.groups {
            let members = group
                .members
                .iter()
                .flatten()
                .filter(|member| member.tunnel_dst.is_none());
            for member in members {
                let groups = ports.entry(member.ofport).or_default();
                if groups.last() != Some(&group.group) {
                    groups.push(group.group);
                }
            }
        }
        ports
    }
}

/// Bits 47 to 40 of a cookie. Those above are the agent's round and change when it restarts.
fn category(flow: &FlowDesc) -> u8 {
    (flow.cookie >> 40) as u8
}
