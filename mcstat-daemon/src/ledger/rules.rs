//! What the rules of policies decided on this node, under Antrea's names.
//!
//! Each life of a rule is a series of its own: it begins when the rule is first for a Pod of the node and ends when it is
//! for none; should it come back, it counts from zero with a new start. Promises that a life's last counts stay in every
//! summary while the policy exists, though it may have no rule for multicast any more, so that a push that failed loses
//! none of them; of one rule at most [`LIVES`] are kept, the newest. Another agent process begins with what its first snapshot holds. Beside each stands what the switch counts
//! for it (`switch`); of rules on IGMP queries that is the number itself (`queries`): until the switch has counted one, it
//! has none.

mod queries;
mod switch;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use mcstat_common::policy::SPACE_QUERY;

pub use self::queries::{Decided, Queried};
use self::queries::{Moment, Queries, Seen};
use super::{
    snapshot::{PolicyReading, RuleReading, Snapshot, SwitchReading},
    verdict::{Action, Kind, ObjectKey, RuleId},
};
use crate::api::policy::{
    Denied, NetworkPolicyReference, NetworkPolicyStats, RuleAction, RuleTrafficStats, SwitchCount, TrafficStats,
};

/// Most lives of one rule that are told.
const LIVES: usize = 8;

/// Every policy of the last reading.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Sorted by kind, namespace, name and UID. `None` without a policy source.
    policies: Option<BTreeMap<(ObjectKey, Arc<str>), Policy>>,
    /// The switch's last reading.
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Policy {
    /// Whether it has rules for multicast now.
    multicast: bool,
    /// The lives of its rules, by name and start.
    rules: Lives,
}

type Lives = BTreeMap<Arc<str>, BTreeMap<Timestamp, Life>>;

#[derive(Debug)]
struct Life {
    slot: u16,
    stats: RuleTrafficStats,
    on_queries: bool,
    queries: Queries,
}

impl Policy {
    fn new(multicast: bool) -> Self {
        Self {
            multicast,
            rules: Lives::new(),
        }
    }

    /// One that never counted multicast would stand there at zero, whatever else its rules do.
    fn is_told(&self) -> bool {
        let mut lives = self.rules.values().flat_map(BTreeMap::values);
        self.multicast || lives.any(|life| !life.stats.is_nothing())
    }
}

impl Rules {
    /// Takes a reading in and forgets the policies that are gone.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        // Those of an earlier run need not be all that there are.
        let Some(reading) = snapshot.policy.as_ref().filter(|_| !snapshot.policy_awaited) else {
            self.policies = None;
            return;
        };
        let before = self.policies.take().unwrap_or_default();
        let known = reading.policies.iter().map(|known| {
            let key = (known.key.clone(), Arc::clone(&known.uid));
            (key, Policy::new(known.multicast))
        });
        let mut policies: BTreeMap<_, Policy> = known.collect();
        for rule in &reading.rules {
            policies.entry(key(rule)).or_insert_with(|| Policy::new(true));
        }
        for (key, Policy { mut rules, .. }) in before {
            if let Some(policy) = policies.get_mut(&key) {
                let lives = rules.values_mut().flat_map(BTreeMap::values_mut);
                lives.for_each(|life| (life.stats.ended, life.stats.switch) = (true, None));
                policy.rules = rules;
            }
        }
        let moment = match &snapshot.switch {
            SwitchReading::Read(account) => Some(Moment::of(account)),
            _ => None,
        };
        let found = switch::counts(reading, snapshot);
        for (rule, found) in reading.rules.iter().zip(found) {
            let policy = policies.entry(key(rule)).or_insert_with(|| Policy::new(true));
            let lives = policy.rules.entry(Arc::clone(&rule.row.id.name)).or_default();
            let known = lives.get(&rule.start);
            let on_queries = match reading.reach.of(&rule.row.id) {
                Some(reach) => reach.blocks(SPACE_QUERY).next().is_some(),
                // Retired: it is what it was.
                None => known.is_some_and(|life| life.on_queries),
            };
            let mut queries = known.map_or_else(|| Queries::begin(rule, self.seen), |life| life.queries);
            queries.take(rule, found.flow, moment);
            let mut stats = stats(rule, queries.total(), found.count);
            if on_queries && !queries.is_counted() && stats.is_nothing() {
                (stats.traffic_stats, stats.records, stats.would_drop) = (None, None, None);
            }
            let life = Life {
                slot: rule.row.slot,
                stats,
                on_queries,
                queries,
            };
            lives.insert(rule.start, life);
            forget(lives);
        }
        self.policies = Some(policies);
        // While it is away nothing is seen: what comes later was made since all the same.
        self.seen = moment.map_or(self.seen, |moment| moment.seen);
    }

    /// What rules on queries counted that the last reading did not have.
    pub(super) fn queried(&self) -> impl Iterator<Item = Queried> {
        let policies = self.policies.iter().flatten();
        let rules = policies.flat_map(|((_, uid), of)| of.rules.iter().map(move |(name, lives)| (uid, name, lives)));
        rules.flat_map(|(uid, name, lives)| {
            let id = || RuleId {
                uid: Arc::clone(uid),
                name: Arc::clone(name),
            };
            let alive = lives.iter().filter(|(_, life)| !life.stats.ended);
            alive.filter_map(move |(start, life)| life.queries.queried(life.slot, id(), *start))
        })
    }

    /// The policies of this kind that have rules for multicast, or counted some; `None` without a policy source.
    pub(super) fn of(&self, kind: Kind) -> Option<Vec<NetworkPolicyStats>> {
        let of_kind = self.policies.as_ref()?.iter().filter(|((key, _), _)| key.kind == kind);
        let told = of_kind.filter(|(_, policy)| policy.is_told());
        Some(told.map(|((key, uid), of)| policy(key, uid, &of.rules)).collect())
    }
}

fn key(rule: &RuleReading) -> (ObjectKey, Arc<str>) {
    (rule.row.policy.clone(), Arc::clone(&rule.row.id.uid))
}

/// Lets go what is too much: of those that have ended the first. Where a clock was set back, the one that lives may have
/// the earliest start.
fn forget(lives: &mut BTreeMap<Timestamp, Life>) {
    while lives.len() > LIVES {
        let ended = lives.iter().find(|(_, life)| life.stats.ended);
        let Some(start) = ended.map(|(start, _)| *start) else {
            return;
        };
        lives.remove(&start);
    }
}

fn policy(key: &ObjectKey, uid: &str, rules: &Lives) -> NetworkPolicyStats {
    let lives = rules.values().flat_map(BTreeMap::values);
    let rules: Vec<_> = lives.map(|life| life.stats.clone()).collect();
    NetworkPolicyStats {
        network_policy: NetworkPolicyReference {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.to_owned(),
        },
        traffic_stats: TrafficStats::sum(&rules),
        start_time: rules.iter().map(|rule| rule.start_time).min(),
        rule_traffic_stats: rules,
    }
}

/// A rule is either about data or about IGMP: one of the two is zero.
fn stats(rule: &RuleReading, igmp: Decided, switch: Option<SwitchCount>) -> RuleTrafficStats {
    RuleTrafficStats {
        name: rule.row.id.name.to_string(),
        traffic_stats: Some(TrafficStats {
            packets: rule.data.packets.saturating_add(igmp.messages),
            bytes: rule.data.bytes.saturating_add(igmp.bytes),
            sessions: 0,
        }),
        action: match rule.row.action {
            Action::Allow => RuleAction::Allow,
            Action::Drop => RuleAction::Drop,
        },
        start_time: rule.start,
        segments: rule.data.segments,
        records: Some(igmp.records),
        would_drop: Some(Denied {
            packets: rule.would_drop.packets,
            messages: rule.would_drop.messages,
            records: rule.would_drop.records,
        }),
        ended: false,
        switch,
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
