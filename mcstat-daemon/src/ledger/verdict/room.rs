//! What is left out where the maps do not hold everything.
//!
//! There are two reasons. All policies together may be too many: then the greediest are left out, as few as will do, and
//! which they are rests on the policies alone. And what is retired keeps its numbers, and its prefixes, until no CPU can be
//! reading them: then policies that do fit are left out of one change and are in the next.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    change::{Change, CompileError, Limits, PolicySet},
    model::PodName,
    object::{ObjectKey, Ports},
    problem::Room,
    resolve::{Resolved, RuleId},
    state::State,
};

/// Why one attempt at a state does not fit.
pub(super) enum Misfit {
    Room(Room),
    Error(CompileError),
}

/// Policies that are left out, in the order in which they were, and what was short.
pub(super) type LeftOut = Vec<(ObjectKey, Room)>;

/// A state that fits.
pub(super) struct Fit {
    pub(super) state: State,
    pub(super) change: Change,
    pub(super) left_out: LeftOut,
}

/// Looks for one.
pub(super) struct Search<'a> {
    pub(super) limits: Limits,
    pub(super) pods: &'a [PodName],
    pub(super) rules: &'a [Resolved],
}

impl Search<'_> {
    /// The state after this one, without these policies. The first so many of them are gone for good; rules of the others
    /// that have slots keep them, and their totals with them.
    pub(super) fn attempt(
        &self,
        before: &State,
        left_out: &[(ObjectKey, Room)],
        lasting: usize,
    ) -> Result<Fit, Misfit> {
        let gone = policies(left_out.iter().take(lasting));
        let keep = self.rules.iter().filter(|rule| !gone.contains(&rule.policy));
        let keep: BTreeSet<&RuleId> = keep.map(|rule| &rule.id).collect();
        let mut state = before.clone();
        let change = state.attempt(self.limits, self.pods, &self.without(left_out), &keep)?;
        Ok(Fit {
            state,
            change,
            left_out: left_out.to_vec(),
        })
    }

    /// The state after this one, with as many policies as fit. `left_out` are left out anyway, the first so many of them for
    /// good; those of `waiting` were left out of the change before and in vain, so that now these and more are.
    pub(super) fn fit(
        &self,
        before: &State,
        mut left_out: LeftOut,
        lasting: usize,
        waiting: &BTreeSet<ObjectKey>,
    ) -> Result<Fit, CompileError> {
        let mut room = match self.attempt(before, &left_out, lasting) {
            Ok(fit) => return Ok(fit),
            Err(Misfit::Error(error)) => return Err(error),
            Err(Misfit::Room(room)) => room,
        };
        let anyway = left_out.len();
        let there = self.rules.iter().map(|rule| &rule.policy).collect::<BTreeSet<_>>();
        let gone = policies(left_out.iter()).into_iter().cloned().collect::<BTreeSet<_>>();
        let again = waiting
            .iter()
            .filter(|policy| there.contains(policy) && !gone.contains(*policy));
        left_out.extend(again.map(|policy| (policy.clone(), room)));
        let in_vain = left_out.len() - anyway;
        // Twice as many as the time before: their number must not cost attempts, nor changes.
        let mut more = in_vain.max(1);
        loop {
            let tried = left_out.len();
            let greediest = greediest(before, &self.without(&left_out), room, more);
            left_out.extend(greediest.into_iter().map(|policy| (policy, room)));
            more = more.saturating_mul(2);
            match self.attempt(before, &left_out, lasting) {
                Ok(fit) if in_vain == 0 => return self.fewer(before, fit, tried, lasting),
                Ok(fit) => return Ok(fit),
                Err(Misfit::Error(error)) => return Err(error),
                Err(Misfit::Room(other)) => room = other,
            }
        }
    }

    /// Puts back what was left out last, as much as fits. To leave out no more than the first `too_few` does not do.
    fn fewer(&self, before: &State, mut fit: Fit, mut too_few: usize, lasting: usize) -> Result<Fit, CompileError> {
        let all = fit.left_out.clone();
        while too_few + 1 < fit.left_out.len() {
            let middle = usize::midpoint(too_few, fit.left_out.len());
            match self.attempt(before, all.get(..middle).unwrap_or_default(), lasting) {
                Ok(better) => fit = better,
                Err(Misfit::Room(_)) => too_few = middle,
                Err(Misfit::Error(error)) => return Err(error),
            }
        }
        Ok(fit)
    }

    fn without(&self, left_out: &[(ObjectKey, Room)]) -> Vec<Resolved> {
        let left_out = policies(left_out.iter());
        let rules = self.rules.iter().filter(|rule| !left_out.contains(&rule.policy));
        rules.cloned().collect()
    }
}

fn policies<'a>(left_out: impl Iterator<Item = &'a (ObjectKey, Room)>) -> BTreeSet<&'a ObjectKey> {
    left_out.map(|(policy, _)| policy).collect()
}

/// The policies that ask for most of what ran out, those with anything new before the others; of equal ones those that
/// count last.
fn greediest(before: &State, rules: &[Resolved], room: Room, count: usize) -> Vec<ObjectKey> {
    let mut asked: BTreeMap<&ObjectKey, (bool, usize, usize)> = BTreeMap::new();
    for (position, rule) in rules.iter().enumerate() {
        let by_port = rule.content.ports != Ports::Any && !rule.content.ports.is_none();
        let asks = match room {
            Room::Rules => usize::from(!before.has_slot(&rule.id)),
            Room::Lists if !by_port => 0,
            Room::Lists | Room::Entries => rule.content.prefixes().saturating_mul(rule.pods.len()),
        };
        let sum = asked.entry(&rule.policy).or_default();
        *sum = (
            sum.0 || (asks > 0 && !before.has(rule)),
            sum.1.saturating_add(asks),
            position,
        );
    }
    let mut policies: Vec<_> = asked.into_iter().collect();
    policies.sort_by_key(|(_, asked)| std::cmp::Reverse(*asked));
    policies
        .into_iter()
        .take(count)
        .map(|(policy, _)| policy.clone())
        .collect()
}

/// The policies by what they ask for: those with most prefixes in this set, then the others, those with most in all sets.
pub(super) fn crowding(state: &State, set: &PolicySet) -> Vec<ObjectKey> {
    let pod = state.pods.iter().find(|(_, of)| of.id == set.id).map(|(pod, _)| pod);
    let pod = pod.and_then(|pod| (0..).zip(&*state.names).find(|(_, name)| *name == pod));
    let mut asked: BTreeMap<&ObjectKey, (usize, usize)> = BTreeMap::new();
    for rule in state.rules.values() {
        let prefixes = rule.content.prefixes();
        let here = pod.is_some_and(|(position, _)| rule.pods.contains(&position));
        let sum = asked.entry(&rule.row.policy).or_default();
        *sum = (
            sum.0.saturating_add(if here { prefixes } else { 0 }),
            sum.1.saturating_add(prefixes.saturating_mul(rule.pods.len())),
        );
    }
    let mut policies: Vec<_> = asked.into_iter().collect();
    policies.sort_by_key(|(_, asked)| std::cmp::Reverse(*asked));
    policies.into_iter().map(|(policy, _)| policy.clone()).collect()
}
