//! What lies in the maps, and one attempt at the next state: slots, lists and sets for the rules that are to hold.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use mcstat_common::policy::{DECISION_DROP, MAX_RULE_SLOT, PolicyKey, PolicyValue, PortList, SPACE_QUERY};

use super::{
    change::{Change, CompileError, Limits, PolicySet, Retired, RuleRow, Stored, in_set},
    flatten::{Flat, flatten},
    ids::Ids,
    model::PodName,
    object::{Action, ObjectKey},
    problem::{Problem, Room},
    resolve::{Content, Resolved, RuleId},
    room::Misfit,
};

/// A rule of a set: its slot, and a number that grows whenever what it says changes.
type RuleKey = (u16, u32);

#[derive(Debug, Clone)]
pub(super) struct RuleState {
    pub(super) row: RuleRow,
    version: u32,
    pub(super) content: Arc<Content>,
    /// Positions in [`State::names`]; none while its policy is left out.
    pub(super) pods: Arc<[u32]>,
}

/// What lies in the maps, or will.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The Pods of the last compilation.
    pub(super) names: Arc<[PodName]>,
    pub(super) rules: BTreeMap<RuleId, RuleState>,
    /// Lists by content: index, and how many sets name it.
    lists: HashMap<PortList, (u16, usize)>,
    sets: HashMap<Arc<[RuleKey]>, Arc<PolicySet>>,
    pub(super) pods: BTreeMap<PodName, Arc<PolicySet>>,
    rule_ids: Ids,
    list_ids: Ids,
    set_ids: Ids,
    /// Of an earlier run, until the first change that names it or leaves it out for good.
    stored: Stored,
    /// No change was made yet: which Pods have sets of an earlier run is not known here.
    first: bool,
}

impl State {
    /// Of maps of an earlier run.
    pub(super) fn new(limits: Limits, mut stored: Stored) -> Self {
        let slots = stored.rules.iter().map(|rule| rule.slot);
        let list_ids = Ids::without(limits.lists, stored.lists.iter().map(|(index, _)| *index));
        // Shared with new sets that say the same; those that no new set names are retired like any. Twins stay behind.
        let mut lists = HashMap::with_capacity(stored.lists.len());
        stored.lists.retain(|(index, list)| match lists.entry(*list) {
            Entry::Vacant(entry) => {
                entry.insert((*index, 0));
                false
            }
            Entry::Occupied(_) => true,
        });
        Self {
            names: Arc::default(),
            rules: BTreeMap::new(),
            lists,
            sets: HashMap::new(),
            pods: BTreeMap::new(),
            rule_ids: Ids::without(limits.rules.min(MAX_RULE_SLOT), slots),
            list_ids,
            set_ids: Ids::without(limits.sets, stored.sets.iter().map(|set| set.id)),
            stored,
            first: true,
        }
    }

    /// Takes ids back that nobody knows any more.
    pub(super) fn release(&mut self, retired: Retired) {
        self.set_ids.release(retired.sets.iter().map(|set| set.id));
        self.list_ids.release(retired.lists);
        self.rule_ids.release(retired.rules.iter().map(|rule| rule.slot));
    }

    /// Whether the rule needs no new slot.
    pub(super) fn has_slot(&self, rule: &RuleId) -> bool {
        self.rules.contains_key(rule) || self.stored.rules.iter().any(|stored| stored.id == *rule)
    }

    /// Whether the rule holds already as it is.
    pub(super) fn has(&self, rule: &Resolved) -> bool {
        let known = self.rules.get(&rule.id);
        known.is_some_and(|known| known.content == rule.content && known.pods == rule.pods)
    }

    /// Goes over to these rules. Of the other rules those of `keep` keep their slots and are for nobody.
    pub(super) fn attempt(
        &mut self,
        limits: Limits,
        pods: &[PodName],
        rules: &[Resolved],
        keep: &BTreeSet<&RuleId>,
    ) -> Result<Change, Misfit> {
        let mut change = Change::default();
        self.names = pods.into();
        let keys = self.assign(rules, &mut change)?;
        let mut of_pod = vec![Vec::new(); pods.len()];
        for (position, rule) in rules.iter().enumerate() {
            for pod in &*rule.pods {
                of_pod
                    .get_mut(*pod as usize)
                    .into_iter()
                    .for_each(|list: &mut Vec<usize>| list.push(position));
            }
        }
        let mut used = HashMap::with_capacity(self.sets.len());
        let mut next = BTreeMap::new();
        for (pod, list) in pods.iter().zip(of_pod).filter(|(_, list)| !list.is_empty()) {
            let key: Arc<[RuleKey]> = list
                .iter()
                .filter_map(|position| keys.get(*position).copied())
                .collect();
            let known = used.get(&key).or_else(|| self.sets.get(&key)).cloned();
            let set = match known {
                Some(set) => set,
                None => self.build(rules, &keys, list, &mut change)?,
            };
            used.entry(key).or_insert_with(|| Arc::clone(&set));
            next.insert(pod.clone(), set);
        }
        let entries = used.values().map(|set| set.entries.len()).sum::<usize>();
        if entries > limits.entries {
            return Err(Misfit::Room(Room::Entries));
        }
        self.retire(used, keep, &mut change);
        self.flip(pods, next, &mut change);
        Ok(change)
    }

    /// Gives each rule its slot and version.
    fn assign(&mut self, rules: &[Resolved], change: &mut Change) -> Result<Vec<RuleKey>, Misfit> {
        let mut keys = Vec::with_capacity(rules.len());
        let nobody: Arc<[u32]> = Arc::default();
        for known in self.rules.values_mut() {
            known.pods = Arc::clone(&nobody);
        }
        for rule in rules {
            let row = |slot| RuleRow {
                slot,
                id: rule.id.clone(),
                policy: rule.policy.clone(),
                action: rule.content.action,
            };
            if let Some(known) = self.rules.get_mut(&rule.id) {
                known.pods = Arc::clone(&rule.pods);
                if known.content != rule.content {
                    known.version = known.version.wrapping_add(1);
                    known.content = Arc::clone(&rule.content);
                }
                let row = row(known.row.slot);
                if known.row != row {
                    known.row = row.clone();
                    change.rules.push(row);
                }
                keys.push((known.row.slot, known.version));
                continue;
            }
            let slot = self.slot(&rule.id).ok_or(Misfit::Room(Room::Rules))?;
            keys.push((slot, 0));
            change.rules.push(row(slot));
            let content = Arc::clone(&rule.content);
            self.rules.insert(
                rule.id.clone(),
                RuleState {
                    row: row(slot),
                    version: 0,
                    content,
                    pods: Arc::clone(&rule.pods),
                },
            );
        }
        Ok(keys)
    }

    /// The slot that a rule had in an earlier run, or a free one.
    fn slot(&mut self, id: &RuleId) -> Option<u16> {
        match self.stored.rules.iter().position(|rule| rule.id == *id) {
            Some(position) => Some(self.stored.rules.swap_remove(position).slot),
            None => self.rule_ids.take(),
        }
    }

    /// The set of the rules at these positions.
    fn build(
        &mut self,
        rules: &[Resolved],
        keys: &[RuleKey],
        mut list: Vec<usize>,
        change: &mut Change,
    ) -> Result<Arc<PolicySet>, Misfit> {
        let mut refused = Vec::new();
        let flat = loop {
            let contents = list.iter().filter_map(|position| {
                let (rule, (slot, _)) = (rules.get(*position)?, keys.get(*position)?);
                Some((decision(*slot, rule.content.action), &*rule.content))
            });
            match flatten(&contents.collect::<Vec<_>>()) {
                Ok(flat) => break flat,
                // Half a policy would be another policy: leave it out whole.
                Err(excess) => {
                    let excess = excess.iter().filter_map(|excess| rules.get(*list.get(*excess)?));
                    let policies = excess.map(|rule| &rule.policy).collect::<BTreeSet<_>>();
                    list.retain(|position| {
                        rules
                            .get(*position)
                            .is_some_and(|rule| !policies.contains(&rule.policy))
                    });
                    refused.extend(policies.into_iter().cloned());
                }
            }
        };
        let mut set = PolicySet {
            refused,
            ..PolicySet::empty(0)
        };
        for entry in &flat {
            let list = self.list(entry, &mut set, change).ok_or(Misfit::Room(Room::Lists))?;
            set.spaces |= 1 << entry.space;
            let address = entry.prefix.address.to_be();
            let key = PolicyKey::new(0, entry.space, address, u32::from(entry.prefix.length));
            let value = PolicyValue {
                list,
                decision: entry.decision,
            };
            let entries = match entry.space {
                SPACE_QUERY => &mut set.queries,
                _ => &mut set.entries,
            };
            entries.push((key, value));
        }
        // What judges already stays where it is: twice it might not fit.
        let id = self.stored.take_set(&set.entries).or_else(|| self.set_ids.take());
        set.id = id.ok_or(Misfit::Error(CompileError::Sets(self.set_ids.most())))?;
        for (key, _) in set.entries.iter_mut().chain(&mut set.queries) {
            *key = in_set(*key, set.id);
        }
        let set = Arc::new(set);
        change.sets.push(Arc::clone(&set));
        Ok(set)
    }

    /// Index of the entry's port list, shared with all that are the same; 0 where it has none.
    fn list(&mut self, entry: &Flat, set: &mut PolicySet, change: &mut Change) -> Option<u16> {
        if entry.rules.is_empty() {
            return Some(0);
        }
        let mut list = PortList::default();
        list.rules
            .iter_mut()
            .zip(&entry.rules)
            .for_each(|(to, from)| *to = *from);
        let (index, sets) = match self.lists.get_mut(&list) {
            Some(known) => known,
            None => {
                let index = self.list_ids.take()?;
                change.lists.push((index, list));
                self.lists.entry(list).or_insert((index, 0))
            }
        };
        if !set.lists.contains(index) {
            set.lists.push(*index);
            *sets += 1;
        }
        Some(*index)
    }

    /// Takes the sets in use over; what else there was is retired.
    fn retire(&mut self, used: HashMap<Arc<[RuleKey]>, Arc<PolicySet>>, keep: &BTreeSet<&RuleId>, change: &mut Change) {
        let before = std::mem::replace(&mut self.sets, used);
        let unused = before.into_iter().filter(|(key, _)| !self.sets.contains_key(key));
        let mut sets: Vec<_> = unused.map(|(_, set)| set).collect();
        sets.sort_by_key(|set| set.id);
        let mut gone: HashMap<u16, usize> = HashMap::new();
        let names = sets.iter().flat_map(|set| &set.lists);
        names.for_each(|index| *gone.entry(*index).or_default() += 1);
        for (index, sets) in self.lists.values_mut() {
            *sets -= gone.get(index).copied().unwrap_or_default();
        }
        let unused = self.lists.extract_if(|_, (_, sets)| *sets == 0);
        change.retired.lists = unused.map(|(_, (index, _))| index).collect();
        let gone = self
            .rules
            .keys()
            .filter(|id| !keep.contains(id))
            .cloned()
            .collect::<Vec<_>>();
        change.retired.rules = gone
            .iter()
            .filter_map(|id| self.rules.remove(id))
            .map(|rule| rule.row)
            .collect();
        change.retired.sets = sets;
        let stored = std::mem::take(&mut self.stored);
        change.retired.sets.extend(stored.sets);
        change.retired.lists.extend(stored.lists.iter().map(|(index, _)| index));
        change.retired.lists.sort_unstable();
        let (kept, gone): (Vec<_>, _) = stored.rules.into_iter().partition(|rule| keep.contains(&rule.id));
        self.stored.rules = kept;
        change.retired.rules.extend(gone);
    }

    fn flip(&mut self, pods: &[PodName], next: BTreeMap<PodName, Arc<PolicySet>>, change: &mut Change) {
        for pod in pods {
            let (before, after) = (self.pods.get(pod), next.get(pod));
            if before.map(|set| set.id) != after.map(|set| set.id) {
                change.flips.push((pod.clone(), after.cloned()));
            }
        }
        let known: BTreeSet<&PodName> = pods.iter().collect();
        let gone = self.pods.keys().filter(|pod| !known.contains(pod));
        change.flips.extend(gone.map(|pod| (pod.clone(), None)));
        change.whole = std::mem::take(&mut self.first);
        self.pods = next;
    }

    /// Policies that were left out of sets, and for how many Pods.
    pub(super) fn port_problems(&self) -> Vec<Problem> {
        let mut refused: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
        for set in self.pods.values() {
            set.refused
                .iter()
                .for_each(|policy| *refused.entry(policy).or_default() += 1);
        }
        let problem = |(policy, pods): (&ObjectKey, usize)| Problem::Ports {
            policy: policy.clone(),
            pods,
        };
        refused.into_iter().map(problem).collect()
    }
}

fn decision(slot: u16, action: Action) -> u16 {
    match action {
        Action::Allow => slot,
        Action::Drop => slot | DECISION_DROP,
    }
}
