//! Rules: the tables MulticastEgressRule and MulticastIngressRule.
//!
//! Antrea writes a rule as a conjunction: flows that each fulfil one clause (`conjunction(id,k/n)`), and one flow that
//! matches `conj_id=id` when all clauses are, and sets `reg3`. A rule with one clause may do without: its flow sets
//! `reg3` itself.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use super::{DENY_MARK, IPV4, NETWORK_POLICY, RULE, TARGET_PORT, Verdict, category, metrics::FlowCount};
use crate::proto::openflow::{Action, Field, FlowDesc};

/// Addresses with their first bits in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first of them.
    pub address: Ipv4Addr,
    /// How many bits, 0 to 32.
    pub bits: u8,
}

impl Prefix {
    /// Whether the address is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.bits.min(32))).unwrap_or(0);
        (address.to_bits() ^ self.address.to_bits()) & mask == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.bits)
    }
}

/// A rule as the switch holds it. Empty lists do not narrow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Antrea's id: of the conjunction, and in `reg3` of the metrics.
    pub id: u32,
    /// Priority: the highest rule that matches decides.
    pub priority: u16,
    /// Sources that it is for, sorted.
    pub sources: Vec<Prefix>,
    /// Groups that it is for, sorted.
    pub groups: Vec<Prefix>,
    /// Ports that it is for: the sender's or the receiver's, sorted.
    pub ofports: Vec<u32>,
    /// Flows that narrow it by something else: the rule is for less than the lists say, or for more.
    pub unexpressed: u32,
    /// What it does; `None` while the switch holds only its clauses.
    pub verdict: Option<Verdict>,
}

/// The rules in a table, in ascending id. Missed: flows of the policy category that belong to no rule.
pub(super) fn rules(flows: &[FlowDesc], missed: &mut u32) -> Vec<Rule> {
    let mut rules: BTreeMap<u32, Rule> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| category(flow) == NETWORK_POLICY) {
        if !add(flow, &mut rules) {
            *missed += 1;
        }
    }
    let mut rules: Vec<Rule> = rules.into_values().collect();
    for rule in &mut rules {
        rule.sources.sort_unstable();
        rule.groups.sort_unstable();
        rule.ofports.sort_unstable();
    }
    rules
}

/// The metrics know best what a rule does: only there the packet ends. The mark alone speaks where they are silent.
pub(super) fn settle(rules: &mut [Rule], metrics: Option<&BTreeMap<(u32, Verdict), FlowCount>>) {
    let Some(metrics) = metrics else { return };
    for rule in rules.iter_mut().filter(|rule| rule.verdict.is_some()) {
        let has = |verdict| metrics.contains_key(&(rule.id, verdict));
        match (has(Verdict::Allow), has(Verdict::Drop)) {
            (true, false) => rule.verdict = Some(Verdict::Allow),
            (false, true) => rule.verdict = Some(Verdict::Drop),
            _ => {}
        }
    }
}

/// Adds what a flow says about rules. Returns whether it says anything.
fn add(flow: &FlowDesc, rules: &mut BTreeMap<u32, Rule>) -> bool {
    let mut known = false;
    for action in &flow.actions {
        if let Action::Conjunction { id, .. } = action {
            narrow(entry(rules, *id, flow), flow);
            known = true;
        }
    }
    let Some(id) = rule_set(flow) else { return known };
    let rule = entry(rules, id, flow);
    rule.verdict = Some(if denies(flow) { Verdict::Drop } else { Verdict::Allow });
    let by_conjunction = flow.fields.iter().any(|field| matches!(field, Field::ConjunctionId(_)));
    if !by_conjunction {
        narrow(rule, flow);
    }
    true
}

fn entry<'a>(rules: &'a mut BTreeMap<u32, Rule>, id: u32, flow: &FlowDesc) -> &'a mut Rule {
    rules.entry(id).or_insert_with(|| Rule {
        id,
        priority: flow.priority,
        ..Rule::default()
    })
}

/// The rule that the flow writes into `reg3`.
fn rule_set(flow: &FlowDesc) -> Option<u32> {
    flow.actions.iter().find_map(|action| match *action {
        Action::SetField(Field::Register {
            number: RULE,
            value,
            mask: u32::MAX,
        }) if value != 0 => Some(value),
        _ => None,
    })
}

fn denies(flow: &FlowDesc) -> bool {
    flow.actions.iter().any(|action| {
        matches!(action, Action::SetField(Field::Register { number: 0, value, mask })
            if mask & DENY_MARK != 0 && value & DENY_MARK != 0)
    })
}

/// A match on one thing widens the rule's list of such things. A protocol beside it narrows that by what no list here says.
fn narrow(rule: &mut Rule, flow: &FlowDesc) {
    let mut selectors = flow
        .fields
        .iter()
        .filter(|field| !matches!(field, Field::EthType(IPV4)));
    match (selectors.next(), selectors.next()) {
        (None, _) => {}
        (Some(field), None) if widen(rule, field) => {}
        (Some(Field::IpProto(_)), Some(field)) | (Some(field), Some(Field::IpProto(_)))
            if selectors.next().is_none() =>
        {
            widen(rule, field);
            rule.unexpressed += 1;
        }
        _ => rule.unexpressed += 1,
    }
}

fn widen(rule: &mut Rule, field: &Field) -> bool {
    match *field {
        Field::Ipv4Src { address, mask } => put(&mut rule.sources, address, mask),
        Field::Ipv4Dst { address, mask } => put(&mut rule.groups, address, mask),
        Field::InPort(port)
        | Field::Register {
            number: TARGET_PORT,
            value: port,
            mask: u32::MAX,
        } => {
            rule.ofports.push(port);
            true
        }
        _ => false,
    }
}

/// A mask with holes is no prefix.
fn put(list: &mut Vec<Prefix>, address: Ipv4Addr, mask: Ipv4Addr) -> bool {
    let bits = mask.to_bits().leading_ones();
    let whole = mask.to_bits().count_ones() == bits;
    if whole {
        list.push(Prefix {
            address,
            // At most 32.
            bits: bits as u8,
        });
    }
    whole
}
