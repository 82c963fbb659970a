//! The compiler: models in, changes of the maps out.
//!
//! ```text
//! Model, Pods ─▶ resolve  rules in order, each with its Pods ─▶ one list of rules a Pod
//!             ─▶ room     which policies fit                 ─▶ those rules
//!             ─▶ state    each list that is new, once        ─▶ PolicySet, shared by all Pods with that list
//!             ─▶ Change   what to insert, whom to flip, what to delete afterwards
//! ```
//! Sets never change: a Pod whose rules change gets another one. So a packet is judged by the old policy or by the new
//! one, whole, and a change touches the Pods concerned and nobody else.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    change::{Change, CompileError, Limits, PolicySet, Retired, RuleRow, Stored},
    model::{Model, PodName},
    object::ObjectKey,
    problem::{Problem, Room},
    reach::Reach,
    resolve::{Resolved, resolve},
    room::{Fit, LeftOut, Misfit, Search, crowding},
    select::Selections,
    state::State,
};

/// What lies in the maps, and how to get from there to what a model asks for.
#[derive(Debug)]
pub struct Compiler {
    limits: Limits,
    selections: Selections,
    state: State,
    /// Policies that fit, and that were left out of the last change since what was there before was in their way.
    waiting: BTreeSet<ObjectKey>,
    /// Policies that the next change leaves out, since one with them found no room.
    crowded: BTreeSet<ObjectKey>,
    /// State and those policies before the last change.
    before: Option<Box<(State, BTreeSet<ObjectKey>)>>,
}

impl Compiler {
    /// A compiler for empty maps.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::adopting(limits, Stored::default())
    }

    /// A compiler for maps of an earlier run. Rules that are still there keep their slots, lists that say the same their
    /// indices and sets that say the same their ids; the first change writes those sets once more, makes the others, and
    /// retires everything else.
    #[must_use]
    pub fn adopting(limits: Limits, stored: Stored) -> Self {
        Self {
            limits,
            selections: Selections::default(),
            state: State::new(limits, stored),
            waiting: BTreeSet::new(),
            crowded: BTreeSet::new(),
            before: None,
        }
    }

    /// The change from what the last call made to what this model asks of these Pods. Changes must be made in the order
    /// in which they were returned, each whole. While [`Change::again`] is set, it is not all that can be made: the caller
    /// compiles again as soon as the change is made and its retired are released. That ends: each time more is left out
    /// beforehand, at most everything.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(&mut self, model: &Model, pods: &[PodName]) -> Result<Change, CompileError> {
        let mut problems = Vec::new();
        let rules = resolve(model, &mut self.selections, pods, &mut problems);
        let search = Search {
            limits: self.limits,
            pods,
            rules: &rules,
        };
        let crowded = self.crowded(&rules);
        let (fit, lasting) = match search.attempt(&self.state, &[], 0) {
            Ok(fit) if crowded.is_empty() => (fit, 0),
            Err(Misfit::Error(error)) => return Err(error),
            Ok(_) | Err(Misfit::Room(_)) => {
                // What fits once everything retired is free does not rest on what happens to lie in the maps.
                let empty = State::new(self.limits, Stored::default());
                let mut left_out = search.fit(&empty, Vec::new(), 0, &BTreeSet::new())?.left_out;
                let lasting = left_out.len();
                let gone: BTreeSet<_> = left_out.iter().map(|(policy, _)| policy.clone()).collect();
                left_out.extend(crowded.into_iter().filter(|(policy, _)| !gone.contains(policy)));
                (search.fit(&self.state, left_out, lasting, &self.waiting)?, lasting)
            }
        };
        let Fit {
            state,
            mut change,
            left_out,
        } = fit;
        let waiting = left_out.iter().skip(lasting).map(|(policy, _)| policy.clone());
        let before = (
            std::mem::replace(&mut self.state, state),
            std::mem::replace(&mut self.waiting, waiting.collect()),
        );
        self.before = Some(Box::new(before));
        change.again = !self.waiting.is_empty();
        let room = left_out
            .into_iter()
            .map(|(policy, room)| Problem::Room { policy, room });
        change.problems = problems
            .into_iter()
            .chain(self.state.port_problems())
            .chain(room)
            .collect();
        Ok(change)
    }

    /// This set of the last change finds no room beside what is in force, and no part of the change was made. The next one
    /// starts from where that one did and leaves out the policies that ask for most of the set, so that all others come
    /// into force; it is [`Change::again`], since what those policies had is room for what they ask for now.
    ///
    /// That ends: as long as the model is the same, each change leaves out what the one before did, and more. When
    /// everything is left out there is no set that needs room, and beside none all that was compiled has room.
    pub fn no_room(&mut self, set: &PolicySet) {
        let Some(before) = self.before.take() else {
            return;
        };
        let refused = std::mem::replace(&mut self.state, before.0);
        self.waiting = before.1;
        // These were left out in vain.
        self.crowded.extend(self.waiting.iter().cloned());
        // Twice as many as the time before, as in [`Search::fit`].
        let more = self.crowded.len().max(1);
        let mut policies = crowding(&refused, set);
        policies.retain(|policy| !self.crowded.contains(policy));
        self.crowded.extend(policies.into_iter().take(more));
    }

    /// Those that there are still.
    fn crowded(&self, rules: &[Resolved]) -> LeftOut {
        let there: BTreeSet<&ObjectKey> = rules.iter().map(|rule| &rule.policy).collect();
        let crowded = self.crowded.iter().filter(|policy| there.contains(policy));
        crowded.map(|policy| (policy.clone(), Room::Entries)).collect()
    }

    /// Gives ids back for use. The caller has deleted what they stand for, and waited for RCU before.
    pub fn release(&mut self, retired: Retired) {
        self.before = None;
        self.crowded.clear();
        self.state.release(retired);
    }

    /// The set of a Pod; `None`: no rule is for it. An interface that is attached later gets its set from here: a Pod that
    /// is made again under its name has the same set as before, so no [`Change`] tells of it.
    #[must_use]
    pub fn set_of(&self, pod: &PodName) -> Option<&Arc<PolicySet>> {
        self.state.pods.get(pod)
    }

    /// Every rule that has a slot.
    pub fn rules(&self) -> impl Iterator<Item = &RuleRow> {
        self.state.rules.values().map(|rule| &rule.row)
    }

    /// What each of these rules is about, and for whom.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let rules = self.state.rules.iter();
        Reach {
            pods: Arc::clone(&self.state.names),
            rules: rules
                .map(|(id, rule)| (id.clone(), (Arc::clone(&rule.content), Arc::clone(&rule.pods))))
                .collect(),
        }
    }
}
