//! The compiler: models in, changes of the maps out.
//!
//! ```text
//! Model, Pods ─▶ resolve  rules in order, each with its Pods ─▶ one list of rules a Pod
//!             ─▶ flatten  each list that is new, once        ─▶ PolicySet, shared by all Pods with that list
//!             ─▶ Change   what to insert, whom to flip, what to delete afterwards
//! ```
//! Sets never change: a Pod whose rules change gets another one. So a packet is judged by the old policy or by the new
//! one, whole, and a change touches the Pods concerned and nobody else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mcstat_common::policy::{DECISION_DROP, MAX_RULE_SLOT, PolicyKey, PolicyValue, PortList};

use super::{
    change::{Change, CompileError, Limits, PolicySet, Retired, RuleRow, Stored, in_set},
    flatten::{Flat, flatten},
    ids::Ids,
    model::{Model, PodName},
    object::{Action, ObjectKey, Ports},
    problem::{Problem, Room},
    reach::Reach,
    resolve::{Content, Resolved, RuleId, resolve},
    select::Selections,
};

/// A rule of a set: its slot, and a number that grows whenever what it says changes.
type RuleKey = (u16, u32);

#[derive(Debug, Clone)]
struct RuleState {
    row: RuleRow,
    version: u32,
    content: Arc<Content>,
    /// Positions in [`State::names`].
    pods: Arc<[u32]>,
}

#[derive(Debug, Clone)]
struct State {
    /// The Pods of the last compilation.
    names: Arc<[PodName]>,
    rules: BTreeMap<RuleId, RuleState>,
    /// Lists by content: index, and how many sets name it.
    lists: HashMap<PortList, (u16, usize)>,
    sets: HashMap<Arc<[RuleKey]>, Arc<PolicySet>>,
    pods: BTreeMap<PodName, Arc<PolicySet>>,
    rule_ids: Ids,
    list_ids: Ids,
    set_ids: Ids,
    /// Of an earlier run, until the first change.
    stored: Stored,
}

/// What lies in the maps, and how to get from there to what a model asks for.
#[derive(Debug)]
pub struct Compiler {
    limits: Limits,
    selections: Selections,
    state: State,
    /// The state before the last change.
    before: Option<Box<State>>,
}

/// Why one attempt at a state does not fit.
enum Misfit {
    Room(Room),
    Error(CompileError),
}

impl Compiler {
    /// A compiler for empty maps.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::adopting(limits, Stored::default())
    }

    /// A compiler for maps of an earlier run. Rules that are still there keep their slots, and sets that say the same as
    /// before keep their ids; the first change writes them once more, makes the others, and retires everything else.
    #[must_use]
    pub fn adopting(limits: Limits, stored: Stored) -> Self {
        let slots = stored.rules.iter().map(|rule| rule.slot);
        let state = State {
            names: Arc::default(),
            rules: BTreeMap::new(),
            lists: HashMap::new(),
            sets: HashMap::new(),
            pods: BTreeMap::new(),
            rule_ids: Ids::without(limits.rules.min(MAX_RULE_SLOT), slots),
            list_ids: Ids::without(limits.lists, stored.lists.iter().map(|(index, _)| *index)),
            set_ids: Ids::without(limits.sets, stored.sets.iter().map(|set| set.id)),
            stored,
        };
        Self {
            limits,
            selections: Selections::default(),
            state,
            before: None,
        }
    }

    /// The change from what the last call made to what this model asks of these Pods. Changes must be made in the order
    /// in which they were returned, each whole.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(&mut self, model: &Model, pods: &[PodName]) -> Result<Change, CompileError> {
        let mut refused: BTreeMap<ObjectKey, Room> = BTreeMap::new();
        // Each attempt leaves out twice as many policies as the one before: their number must not cost attempts.
        let mut leave_out = 1;
        loop {
            let without: BTreeSet<ObjectKey> = refused.keys().cloned().collect();
            let mut problems = Vec::new();
            let rules = resolve(model, &mut self.selections, pods, &without, &mut problems);
            let mut next = self.state.clone();
            match next.attempt(self.limits, pods, &rules) {
                Ok(mut change) => {
                    let room = refused.into_iter().map(|(policy, room)| Problem::Room { policy, room });
                    change.problems = problems.into_iter().chain(next.port_problems()).chain(room).collect();
                    self.before = Some(Box::new(std::mem::replace(&mut self.state, next)));
                    return Ok(change);
                }
                Err(Misfit::Room(room)) => {
                    refused.extend(
                        greediest(&rules, room, leave_out)
                            .into_iter()
                            .map(|policy| (policy, room)),
                    );
                    leave_out *= 2;
                }
                Err(Misfit::Error(error)) => return Err(error),
            }
        }
    }

    /// The last change was not made, no part of it: the next one starts from where that one did.
    pub fn take_back(&mut self) {
        if let Some(before) = self.before.take() {
            self.state = *before;
        }
    }

    /// The policy whose rules decide most of a set; `None` where only rules with ports do.
    #[must_use]
    pub fn most_of(&self, set: &PolicySet) -> Option<ObjectKey> {
        let policies = self.rules().map(|row| (row.slot, &row.policy));
        let policies: HashMap<u16, &ObjectKey> = policies.collect();
        let mut decided: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
        for (_, value) in &set.entries {
            let policy = policies.get(&(value.decision & !DECISION_DROP));
            policy
                .into_iter()
                .for_each(|policy| *decided.entry(*policy).or_default() += 1);
        }
        let most = decided.into_iter().max_by_key(|(_, entries)| *entries);
        most.map(|(policy, _)| policy.clone())
    }

    /// Gives ids back for use. The caller has deleted what they stand for, and waited for RCU before.
    pub fn release(&mut self, retired: Retired) {
        self.before = None;
        self.state.set_ids.release(retired.sets.iter().map(|set| set.id));
        self.state.list_ids.release(retired.lists);
        self.state.rule_ids.release(retired.rules.iter().map(|rule| rule.slot));
    }

    /// The set of a Pod; `None`: no rule is for it. An interface that is attached later gets its set from here: a Pod that
    /// is made again under its name has the same set as before, so no [`Change`] tells of it.
    #[must_use]
    pub fn set_of(&self, pod: &PodName) -> Option<&Arc<PolicySet>> {
        self.state.pods.get(pod)
    }

    /// Every rule that is for any Pod, by id.
    pub fn rules(&self) -> impl Iterator<Item = &RuleRow> {
        self.state.rules.values().map(|rule| &rule.row)
    }

    /// What each of these rules is about, and for whom.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let rules = self.state.rules.iter();
        let reach = |rule: &RuleState| (Arc::clone(&rule.content), Arc::clone(&rule.pods));
        Reach {
            pods: Arc::clone(&self.state.names),
            rules: rules.map(|(id, rule)| (id.clone(), reach(rule))).collect(),
        }
    }
}

impl State {
    fn attempt(&mut self, limits: Limits, pods: &[PodName], rules: &[Resolved]) -> Result<Change, Misfit> {
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
        self.retire(used, rules, &mut change);
        self.flip(pods, next, &mut change);
        Ok(change)
    }

    /// Gives each rule its slot and version.
    fn assign(&mut self, rules: &[Resolved], change: &mut Change) -> Result<Vec<RuleKey>, Misfit> {
        let mut keys = Vec::with_capacity(rules.len());
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
            id: 0,
            entries: Vec::with_capacity(flat.len()),
            spaces: 0,
            lists: Vec::new(),
            refused,
        };
        for entry in &flat {
            let list = self.list(entry, &mut set, change).ok_or(Misfit::Room(Room::Lists))?;
            set.spaces |= 1 << entry.space;
            let address = entry.prefix.address.to_be();
            let key = PolicyKey::new(0, entry.space, address, u32::from(entry.prefix.length));
            set.entries.push((
                key,
                PolicyValue {
                    list,
                    decision: entry.decision,
                },
            ));
        }
        // What judges already stays where it is: twice it might not fit.
        let id = self.stored.take_set(&set.entries).or_else(|| self.set_ids.take());
        set.id = id.ok_or(Misfit::Error(CompileError::Sets(self.set_ids.most())))?;
        for (key, _) in &mut set.entries {
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
                let index = self.stored.take_list(&list).or_else(|| self.list_ids.take())?;
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
    fn retire(&mut self, used: HashMap<Arc<[RuleKey]>, Arc<PolicySet>>, rules: &[Resolved], change: &mut Change) {
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
        change.retired.lists.sort_unstable();
        let current = rules.iter().map(|rule| &rule.id).collect::<BTreeSet<_>>();
        let gone = self
            .rules
            .keys()
            .filter(|id| !current.contains(id))
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
        change
            .retired
            .lists
            .extend(stored.lists.iter().map(|(index, _)| *index));
        change.retired.rules.extend(stored.rules);
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
        self.pods = next;
    }

    /// Policies that were left out of sets, and for how many Pods.
    fn port_problems(&self) -> Vec<Problem> {
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

/// The policies that ask for most of what ran out; of equal ones those that count last.
fn greediest(rules: &[Resolved], room: Room, count: usize) -> Vec<ObjectKey> {
    let mut asked: BTreeMap<&ObjectKey, (usize, usize)> = BTreeMap::new();
    for (position, rule) in rules.iter().enumerate() {
        let by_port = matches!(&rule.content.ports, Ports::Udp(ranges) if !ranges.is_empty());
        let asks = match room {
            Room::Rules => 1,
            Room::Lists if !by_port => 0,
            Room::Lists | Room::Entries => rule.content.terms.len().saturating_mul(rule.pods.len()),
        };
        let sum = asked.entry(&rule.policy).or_default();
        *sum = (sum.0.saturating_add(asks), position);
    }
    let mut policies: Vec<_> = asked.into_iter().collect();
    policies.sort_by_key(|(_, asked)| std::cmp::Reverse(*asked));
    policies
        .into_iter()
        .take(count)
        .map(|(policy, _)| policy.clone())
        .collect()
}
