//! What the policies of one tick say of one Pod: judged again in user space, which sees messages whole and knows names.
//!
//! By the policy of the tick: a message that passed before a change within the same tick is judged by what came after it.
//! Without a policy source nothing is judged; while nobody enforces reports, none is denied.

use std::net::{IpAddr, Ipv4Addr};

use mcstat_common::policy::{SPACE_DATA, SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3};

use super::{
    snapshot::PolicyReading,
    verdict::{Action, PodName, RuleRow, Transport},
};
use crate::api::rule::{PolicyReference, RuleReference};

/// The policies for one Pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge<'a> {
    policy: Option<&'a PolicyReading>,
    pod: &'a PodName,
}

/// What decides the data that a Pod sends to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decider {
    /// No rule: it is admitted.
    Nobody,
    /// One rule, whatever the packet.
    Rule(RuleReference),
    /// It rests on the UDP port.
    ByPort,
}

impl<'a> Judge<'a> {
    /// Of this Pod; without a policy source of nothing.
    pub(super) fn new(policy: Option<&'a PolicyReading>, pod: &'a PodName) -> Self {
        Self { policy, pod }
    }

    /// Slot of the enforced rule that denies a record of an IGMP report of this version. MLD has no rules.
    pub(super) fn denier(&self, version: u8, group: IpAddr) -> Option<u16> {
        let policy = self.policy.filter(|policy| policy.enforced.reports)?;
        let IpAddr::V4(group) = group else { return None };
        let space = match version {
            1 => SPACE_REPORT_V1,
            2 => SPACE_REPORT_V2,
            _ => SPACE_REPORT_V3,
        };
        let verdict = policy.tables.judge(self.pod, space, group, Transport::Other);
        verdict.rule.filter(|_| verdict.action == Action::Drop)
    }

    /// What decides data to this group now.
    pub(super) fn data(&self, group: Ipv4Addr) -> Decider {
        let Some(policy) = self.policy else {
            return Decider::Nobody;
        };
        let Some(verdict) = policy.tables.judge_all(self.pod, SPACE_DATA, group) else {
            return Decider::ByPort;
        };
        let rule = verdict.rule.and_then(|slot| self.rule(slot));
        rule.map_or(Decider::Nobody, Decider::Rule)
    }

    /// The rule of this slot. A reading lists every rule that its tables name.
    pub(super) fn rule(&self, slot: u16) -> Option<RuleReference> {
        let policy = self.policy?;
        let first = policy.rules.partition_point(|rule| rule.row.slot < slot);
        let rules = policy.rules.get(first..)?.iter();
        let mut rules = rules.take_while(|rule| rule.row.slot == slot);
        // A rule that was retired in this tick may stand beside the one that has its slot now.
        let first = rules.next()?;
        let live = std::iter::once(first)
            .chain(rules)
            .find(|rule| policy.reach.of(&rule.row.id).is_some());
        Some(reference(&live.unwrap_or(first).row))
    }
}

fn reference(row: &RuleRow) -> RuleReference {
    RuleReference {
        policy: PolicyReference {
            kind: row.policy.kind.to_string(),
            namespace: row.policy.namespace.to_string(),
            name: row.policy.name.to_string(),
        },
        rule: row.id.name.to_string(),
        action: match row.action {
            Action::Allow => "Allow",
            Action::Drop => "Drop",
        }
        .to_owned(),
    }
}
