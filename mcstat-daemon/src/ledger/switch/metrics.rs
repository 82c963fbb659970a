//! Counters: of each Pod in the tables MulticastEgressPodMetric and MulticastIngressPodMetric, of each rule in
//! MulticastEgressMetric and MulticastIngressMetric.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use super::{DENY_MARK, IPV4, MULTICAST, NETWORK_POLICY, NORMAL, RULE, TARGET_PORT, category};
use crate::proto::openflow::{Action, Field, FlowDesc};

/// What one flow has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowCount {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included: what `skb->len` is on the veth.
    pub bytes: u64,
    /// How long the flow has existed. Falls when it is added again; whether its counters did too shows in themselves.
    pub duration: Duration,
    /// Antrea's cookie. Changes when antrea-agent restarts.
    pub cookie: u64,
}

/// What a rule does to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It goes on.
    Allow,
    /// It ends there.
    Drop,
}

/// `ip,nw_src=<Pod>`.
pub(super) fn outbound(flows: &[FlowDesc], missed: &mut u32) -> BTreeMap<Ipv4Addr, FlowCount> {
    collect(flows, MULTICAST, missed, |flow| match *flow.fields {
        [
            Field::EthType(IPV4),
            Field::Ipv4Src {
                address,
                mask: Ipv4Addr::BROADCAST,
            },
        ] => Some(address),
        _ => None,
    })
}

/// `ip,reg1=<port>`. Nothing orders the two: neither is a prerequisite of the other.
pub(super) fn inbound(flows: &[FlowDesc], missed: &mut u32) -> BTreeMap<u32, FlowCount> {
    collect(flows, MULTICAST, missed, |flow| match *flow.fields {
        [Field::EthType(IPV4), port] | [port, Field::EthType(IPV4)] => match port {
            Field::Register {
                number: TARGET_PORT,
                value,
                mask: u32::MAX,
            } => Some(value),
            _ => None,
        },
        _ => None,
    })
}

/// `reg3=<rule>`, with the deny mark in `reg0` or without it; what becomes of the packet tells the verdict.
pub(super) fn rules(flows: &[FlowDesc], missed: &mut u32) -> BTreeMap<(u32, Verdict), FlowCount> {
    collect(flows, NETWORK_POLICY, missed, |flow| {
        let mut rule = None;
        for field in &flow.fields {
            match *field {
                Field::Register {
                    number: RULE,
                    value,
                    mask: u32::MAX,
                } => rule = Some(value),
                Field::Register {
                    number: 0,
                    value: DENY_MARK,
                    mask: DENY_MARK,
                }
                | Field::EthType(IPV4) => {}
                _ => return None,
            }
        }
        Some((rule.filter(|rule| *rule != 0)?, verdict(flow)?))
    })
}

fn verdict(flow: &FlowDesc) -> Option<Verdict> {
    let resubmits = || {
        flow.actions
            .iter()
            .any(|action| matches!(action, Action::Resubmit { .. }))
    };
    if flow.drops() {
        Some(Verdict::Drop)
    } else {
        (flow.goto_table.is_some() || resubmits()).then_some(Verdict::Allow)
    }
}

/// The metrics among `flows`, by their key. Of a metric's priority but not of its shape, not of its category, without
/// counters, or a second one of a key: missed.
fn collect<K: Ord>(
    flows: &[FlowDesc],
    wanted: u8,
    missed: &mut u32,
    key: impl Fn(&FlowDesc) -> Option<K>,
) -> BTreeMap<K, FlowCount> {
    let mut metrics = BTreeMap::new();
    for flow in flows.iter().filter(|flow| flow.priority == NORMAL) {
        let metric = (category(flow) == wanted)
            .then(|| Some((key(flow)?, count(flow)?)))
            .flatten();
        match metric {
            Some((key, _)) if metrics.contains_key(&key) => *missed += 1,
            Some((key, count)) => drop(metrics.insert(key, count)),
            None => *missed += 1,
        }
    }
    metrics
}

fn count(flow: &FlowDesc) -> Option<FlowCount> {
    Some(FlowCount {
        packets: flow.stats.packets?,
        bytes: flow.stats.bytes?,
        duration: flow.stats.duration?,
        cookie: flow.cookie,
    })
}
