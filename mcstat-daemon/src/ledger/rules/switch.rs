//! Which flows of the switch count what a rule counts: those of MulticastEgressMetric, for a rule on IGMP queries those of
//! MulticastIngressMetric, whose conjunction matches the same Pods and addresses and does the same.
//!
//! Antrea's flows carry a number and no name, so rules are told by what they match. Rules that match the same cannot be told
//! apart, nor can those that differ in their ports alone: these are compared as a sum. Rules on IGMP reports have no flow; of queries
//! the veths count nothing, since a denied one never reaches them: their one flow is handed on, to be counted.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use mcstat_common::policy::{SPACE_DATA, SPACE_QUERY};

use super::{Action, PolicyReading, RuleReading, queries::Flow};
use crate::{
    api::policy::{Count, SwitchCount, SwitchMatch},
    ledger::{
        snapshot::{Direction, Snapshot, SwitchReading},
        switch::{self, Verdict},
        verdict::Block,
    },
};

/// What a rule matches: enough to know it again.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Matched {
    /// Data that the Pods send, or queries that they are to get.
    direction: Direction,
    verdict: Verdict,
    by_port: bool,
    /// Addresses from and to, apart from each other, ascending.
    groups: Vec<(u32, u32)>,
    /// The interfaces of its Pods: port ids, ascending.
    ports: Vec<u32>,
}

#[derive(Debug, Default)]
struct Together {
    flows: Count,
    conjunctions: u32,
    last: Option<Flow>,
    wire: Count,
    rules: Vec<usize>,
}

/// What the switch counts for one rule.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// Beside the rule's own number. `None` for rules on IGMP reports, and for all without the table.
    pub(super) count: Option<SwitchCount>,
    /// Of a rule on queries, the flow that is its and no other's.
    pub(super) flow: Option<Flow>,
}

/// Of each rule of the reading what the switch counts.
pub(super) fn counts(policy: &PolicyReading, snapshot: &Snapshot) -> Vec<Found> {
    let mut counts = vec![Found::default(); policy.rules.len()];
    let SwitchReading::Read(account) = &snapshot.switch else {
        return counts;
    };
    let interfaces = Interfaces::of(policy, snapshot);
    let mut together: BTreeMap<Matched, Together> = BTreeMap::new();
    for (place, rule) in policy.rules.iter().enumerate() {
        if let Some(matched) = interfaces.of_rule(policy, rule) {
            let entry = together.entry(matched).or_default();
            entry.wire.add(rule.data.packets, rule.data.bytes);
            entry.rules.push(place);
        }
    }
    if account.switch.egress.is_none() {
        return counts;
    }
    let sides = [
        (
            Direction::Outbound,
            &account.switch.egress_rules,
            &account.switch.egress,
        ),
        (
            Direction::Inbound,
            &account.switch.ingress_rules,
            &account.switch.ingress,
        ),
    ];
    let flows = sides.into_iter().flat_map(|(direction, rules, metrics)| {
        let rules = interfaces.of_switch(direction, rules);
        rules.filter_map(move |(matched, verdict, conjunction)| {
            let count = *metrics.as_ref()?.get(&(conjunction, verdict))?;
            let flow = Flow {
                conjunction,
                verdict,
                count,
            };
            Some((matched, flow))
        })
    });
    for (matched, flow) in flows {
        if let Some(entry) = together.get_mut(&matched) {
            entry.flows.add(flow.count.packets, flow.count.bytes);
            entry.conjunctions += 1;
            entry.last = Some(flow);
        }
    }
    for (about, entry) in together {
        let matched = match (entry.conjunctions, entry.rules.len()) {
            (0, _) => SwitchMatch::None,
            (1, 1) => SwitchMatch::Unique,
            _ => SwitchMatch::Ambiguous,
        };
        let of_queries = about.direction == Direction::Inbound && matched == SwitchMatch::Unique;
        let found = Found {
            count: Some(SwitchCount {
                matched,
                flows: (matched != SwitchMatch::None).then_some(entry.flows),
                wire: entry.wire,
                rules: u32::try_from(entry.rules.len()).unwrap_or(u32::MAX),
            }),
            flow: entry.last.filter(|_| of_queries),
        };
        for place in entry.rules {
            if let Some(count) = counts.get_mut(place) {
                *count = found;
            }
        }
    }
    counts
}

/// The Pods' interfaces, by all that rules name them by.
struct Interfaces {
    by_address: HashMap<Ipv4Addr, u32>,
    by_ofport: HashMap<u32, u32>,
    /// At the Pod's position in the reach.
    by_position: Vec<Vec<u32>>,
}

impl Interfaces {
    fn of(policy: &PolicyReading, snapshot: &Snapshot) -> Self {
        let pods = policy.reach.pods();
        let mut interfaces = Self {
            by_address: HashMap::new(),
            by_ofport: HashMap::new(),
            by_position: vec![Vec::new(); pods.len()],
        };
        let named = (0..)
            .zip(pods)
            .map(|(position, pod): (usize, _)| ((&*pod.namespace, &*pod.name), position));
        let positions: HashMap<_, _> = named.collect();
        for reading in &snapshot.ports {
            let Some(port) = snapshot.switch_ports.get(&reading.id) else {
                continue;
            };
            let addresses = port.addresses.iter().map(|address| (*address, reading.id));
            interfaces.by_address.extend(addresses);
            interfaces.by_ofport.insert(port.ofport, reading.id);
            let name = (reading.pod.namespace.as_str(), reading.pod.name.as_str());
            let position = positions.get(&name).copied();
            if let Some(ids) = position.and_then(|position| interfaces.by_position.get_mut(position)) {
                ids.push(reading.id);
            }
        }
        interfaces
    }

    /// `None` for a rule on IGMP reports.
    fn of_rule(&self, policy: &PolicyReading, rule: &RuleReading) -> Option<Matched> {
        let reach = policy.reach.of(&rule.row.id)?;
        let about = |space| merged(reach.blocks(space).flat_map(block));
        let (direction, groups) = match about(SPACE_DATA) {
            data if data.is_empty() => (Direction::Inbound, about(SPACE_QUERY)),
            data => (Direction::Outbound, data),
        };
        let ports = reach
            .pods()
            .iter()
            .filter_map(|pod| self.by_position.get(*pod as usize));
        (!groups.is_empty()).then(|| Matched {
            direction,
            verdict: match rule.row.action {
                Action::Allow => Verdict::Allow,
                Action::Drop => Verdict::Drop,
            },
            by_port: reach.by_port(),
            groups,
            ports: ascending(ports.flatten().copied().collect()),
        })
    }

    /// The switch's rules that are for Pods that are known, all of them, with their number.
    fn of_switch(&self, direction: Direction, rules: &[switch::Rule]) -> impl Iterator<Item = (Matched, Verdict, u32)> {
        rules.iter().filter_map(move |rule| {
            let verdict = rule.verdict?;
            let matched = Matched {
                direction,
                verdict,
                // That it is about IGMP says no list either.
                by_port: rule.unexpressed > 0 && direction == Direction::Outbound,
                groups: merged(
                    rule.groups
                        .iter()
                        .map(|prefix| range(prefix.address.to_bits(), prefix.bits)),
                ),
                ports: self.pods(rule)?,
            };
            (!matched.ports.is_empty()).then_some((matched, verdict, rule.id))
        })
    }

    /// `None` when one of them is not known.
    fn pods(&self, rule: &switch::Rule) -> Option<Vec<u32>> {
        let by_address = rule.sources.iter().map(|source| {
            let one = source.bits == 32;
            one.then(|| self.by_address.get(&source.address)).flatten().copied()
        });
        let by_ofport = rule.ofports.iter().map(|ofport| self.by_ofport.get(ofport).copied());
        by_address.chain(by_ofport).collect::<Option<_>>().map(ascending)
    }
}

fn ascending(mut ports: Vec<u32>) -> Vec<u32> {
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// First and last address of a prefix.
fn range(address: u32, bits: u8) -> (u32, u32) {
    (address, address | u32::MAX.checked_shr(bits.into()).unwrap_or(0))
}

/// The ranges of a block, its exceptions cut out.
fn block(block: &Block) -> Vec<(u32, u32)> {
    let (mut first, last) = range(block.prefix.address, block.prefix.length);
    let mut ranges = Vec::with_capacity(block.except.len() + 1);
    for (from, to) in merged(block.except.iter().map(|prefix| range(prefix.address, prefix.length))) {
        if from > first {
            ranges.push((first, from - 1));
        }
        match to.checked_add(1).filter(|next| *next <= last) {
            Some(next) => first = next,
            None => return ranges,
        }
    }
    ranges.push((first, last));
    ranges
}

/// The same addresses in one way of saying them.
fn merged(ranges: impl Iterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
            _ => merged.push((from, to)),
        }
    }
    merged
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
