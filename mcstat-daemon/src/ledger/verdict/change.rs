//! What the compiler hands out: immutable sets, and the change from one state of the maps to the next.

use std::sync::Arc;

use mcstat_common::policy::{PolicyKey, PolicyValue, PortList};
use thiserror::Error;

use super::{
    model::PodName,
    object::{Action, ObjectKey},
    problem::Problem,
    resolve::RuleId,
};

/// Sizes of the maps that the compiled form goes into. Position 0 of each array means none and is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rule slots, at most [`mcstat_common::policy::MAX_RULE_SLOT`].
    pub rules: u16,
    /// Port lists.
    pub lists: u16,
    /// Policy sets.
    pub sets: u16,
    /// Entries of the trie, all sets together. While a change is under way the old and the new sets are both there: the
    /// trie must have room for twice that, or the caller makes its changes in several steps.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rules: 4095,
            lists: 4095,
            sets: u16::MAX,
            entries: 131_072,
        }
    }
}

/// Why a model cannot be compiled now. The state stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CompileError {
    /// All set ids are in use by Pods or by sets that wait for their release.
    #[error("all {0} ids of policy sets are in use; finish the changes under way first")]
    Sets(u16),
}

/// A rule in the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRow {
    /// Index of its counters; it keeps it as long as the rule is for any Pod of the node, however it changes.
    pub slot: u16,
    /// Which rule.
    pub id: RuleId,
    /// Its policy.
    pub policy: ObjectKey,
    /// What it does.
    pub action: Action,
}

/// Rules compiled for the Pods that have exactly these rules. Immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct PolicySet {
    /// Its id; never 0, which is the set of a Pod without rules.
    pub id: u16,
    /// What goes into the trie; sorted, keys unique.
    pub entries: Vec<(PolicyKey, PolicyValue)>,
    /// The same for queries to the Pod, which no program looks up and the trie does not hold.
    pub queries: Vec<(PolicyKey, PolicyValue)>,
    /// Bit n: there are entries in space n. A look-up in any other space finds nothing.
    pub spaces: u8,
    /// The port lists that the entries name; each once.
    pub lists: Vec<u16>,
    /// Policies left out, because too many rules with ports met.
    pub refused: Vec<ObjectKey>,
}

/// What an earlier run of the agent left in the maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Rules with their counters.
    pub rules: Vec<RuleRow>,
    /// Sets that judge.
    pub sets: Vec<Arc<PolicySet>>,
    /// Port lists that are not empty.
    pub lists: Vec<(u16, PortList)>,
}

impl Stored {
    /// Takes out the set that says the same as these entries, whose keys may be of another set; its id.
    pub(super) fn take_set(&mut self, entries: &[(PolicyKey, PolicyValue)]) -> Option<u16> {
        if self.sets.is_empty() {
            return None;
        }
        let mut entries = entries.to_vec();
        entries.sort_unstable();
        let same = |set: &Arc<PolicySet>| {
            let pairs = set.entries.iter().zip(&entries);
            set.entries.len() == entries.len()
                && pairs
                    .into_iter()
                    .all(|((key, value), (like, of))| *key == in_set(*like, set.id) && value == of)
        };
        let position = self.sets.iter().position(same)?;
        Some(self.sets.remove(position).id)
    }
}

/// The same prefix in another set.
pub(super) fn in_set(key: PolicyKey, set: u16) -> PolicyKey {
    let scope = u32::from_be(key.scope) & 0xffff | u32::from(set) << 16;
    PolicyKey {
        scope: scope.to_be(),
        ..key
    }
}

impl PolicySet {
    /// A set without anything in it.
    #[must_use]
    pub fn empty(id: u16) -> Self {
        Self {
            id,
            entries: Vec::new(),
            queries: Vec::new(),
            spaces: 0,
            lists: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// What lies in the trie, and what does not.
    pub(super) fn all(&self) -> impl Iterator<Item = (PolicyKey, PolicyValue)> {
        self.entries.iter().chain(&self.queries).copied()
    }
}

/// What became unused. Its ids come back by [`super::Compiler::release`], once no CPU can be reading them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Sets whose entries are to be deleted.
    pub sets: Vec<Arc<PolicySet>>,
    /// Lists to be zeroed.
    pub lists: Vec<u16>,
    /// Rules whose counters are to be read for the last time, then zeroed.
    pub rules: Vec<RuleRow>,
}

/// From one state of the maps to the next, in this order: `rules` and `lists`, `sets`, `flips`; then the generation is
/// raised; after an RCU wait what is in `retired` is deleted and handed to [`super::Compiler::release`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Rules that are new, or whose action is.
    pub rules: Vec<RuleRow>,
    /// Port lists to be written.
    pub lists: Vec<(u16, PortList)>,
    /// Sets to be inserted.
    pub sets: Vec<Arc<PolicySet>>,
    /// Pods that get another set; `None`: no rule is for it any more, or it is gone.
    pub flips: Vec<(PodName, Option<Arc<PolicySet>>)>,
    /// These are all Pods that have a set afterwards: it is the first change, and what an earlier run gave others ends.
    pub whole: bool,
    /// What is to be deleted afterwards.
    pub retired: Retired,
    /// What is not judged as it is written: all there is, not only what is new.
    pub problems: Vec<Problem>,
    /// Policies are left out only because what was there before is in their way: compile again once it is released.
    pub again: bool,
}
