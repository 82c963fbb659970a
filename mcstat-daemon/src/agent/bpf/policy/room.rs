//! Room in the trie while a change is made: the new sets stand beside the old ones until no Pod has those any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Policies, PolicyError};
use crate::ledger::verdict::{Change, PodName, PolicySet};

impl Policies {
    /// Whether [`super::apply`] can make the change: its steps, with numbers in place of maps.
    pub(super) fn check_room(&self, change: &Change, most: u32) -> Result<(), PolicyError> {
        let mut then = self.clone();
        let (mut missing, mut unused) = (by_size(change), by_reference(&change.retired.sets));
        loop {
            let inserted = then.fitting(&mut missing, most);
            then.assign(change, &missing);
            let Some(largest) = missing.last() else {
                return Ok(());
            };
            let deletable = then.unused(&mut unused);
            deletable.iter().for_each(|set| {
                then.sets.remove(&set.id);
            });
            if inserted.is_empty() && deletable.is_empty() {
                let of = |(_, set): &&(PodName, _)| set_id(set) == largest.id;
                return Err(PolicyError::NoRoom {
                    pod: change.flips.iter().find(of).map(|(pod, _)| pod.clone()),
                    set: largest.id,
                    wanted: largest.entries.len(),
                    used: then.sets.values().sum(),
                    most,
                });
            }
        }
    }

    /// Takes off the list what fits, the smallest first, and enters it.
    pub(super) fn fitting<'a>(&mut self, missing: &mut Vec<&'a PolicySet>, most: u32) -> Vec<&'a PolicySet> {
        let mut used: usize = self.sets.values().sum();
        let fits = |set: &mut &PolicySet| {
            // A set that was begun counts as whole.
            let more = set
                .entries
                .len()
                .saturating_sub(self.sets.get(&set.id).copied().unwrap_or(0));
            if used + more > most as usize {
                return false;
            }
            used += more;
            self.sets.insert(set.id, set.entries.len());
            true
        };
        missing.extract_if(.., fits).collect()
    }

    /// Gives every Pod its set, unless that is still missing.
    pub(super) fn assign(&mut self, change: &Change, missing: &[&PolicySet]) {
        let missing: BTreeSet<u16> = missing.iter().map(|set| set.id).collect();
        let flips: BTreeMap<&PodName, u16> = change.flips.iter().map(|(pod, set)| (pod, set_id(set))).collect();
        for (pod, set) in flips.iter().filter(|(_, set)| !missing.contains(set)) {
            match set {
                0 => self.pods.remove(*pod),
                set => self.pods.insert((*pod).clone(), *set),
            };
        }
        if change.whole {
            self.pods.retain(|pod, _| flips.contains_key(pod));
        }
    }

    /// Takes off the list the sets that no Pod has any more.
    pub(super) fn unused<'a>(&self, retired: &mut Vec<&'a PolicySet>) -> Vec<&'a PolicySet> {
        let used: BTreeSet<u16> = self.pods.values().copied().collect();
        retired.extract_if(.., |set| !used.contains(&set.id)).collect()
    }
}

fn set_id(set: &Option<Arc<PolicySet>>) -> u16 {
    set.as_ref().map_or(0, |set| set.id)
}

/// The new sets, small ones first: each that finds room may free the one before it.
pub(super) fn by_size(change: &Change) -> Vec<&PolicySet> {
    let mut sets = by_reference(&change.sets);
    sets.sort_by_key(|set| (set.entries.len(), set.id));
    sets
}

pub(super) fn by_reference(sets: &[Arc<PolicySet>]) -> Vec<&PolicySet> {
    sets.iter().map(|set| &**set).collect()
}
