//! Policy sets in the maps: from one compiled state to the next, while packets pass.
//!
//! Promises: a packet is judged by the old set of its Pod or by the new one, whole; only the Pods concerned are touched;
//! what is deleted is read by no program any more; a killed agent leaves sets that go on judging. An applied [`Change`]
//! can be applied again: what is done already is not done twice. Nothing here decides what a policy says.

use std::{
    collections::BTreeMap,
    io,
    mem::offset_of,
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;
use mcstat_common::{
    abi::{PORT_DATA_ENFORCED, PORT_FOREIGN_DROPPED, PORT_REPORTS_ENFORCED, Port, Settings},
    policy::PortList,
    slot,
};
use thiserror::Error;

use super::{
    maps::Maps,
    rcu, settle,
    table::{self, Entry, text},
};
use crate::ledger::{
    snapshot::{Enforced, RuleReading},
    verdict::{Change, Limits, PodName, PolicySet, Stored},
};

mod room;
mod rules;
mod trie;
pub(super) mod upgrade;

pub use rules::write_queried;
pub(super) use rules::{InSlots, read_rules};

/// Why a change is not in force, or not cleaned up after. It can be applied again.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PolicyError {
    #[error("{call}: {error}")]
    System { call: &'static str, error: io::Error },
    #[error(
        "the policy set of {} has {wanted} prefixes, and beside the {used} in force there is room for {} in the map \
         policies", .pod.as_ref().map_or_else(|| "no Pod".to_owned(), PodName::to_string), (*.most as usize).saturating_sub(*.used)
    )]
    NoRoom {
        pod: Option<PodName>,
        set: u16,
        wanted: usize,
        used: usize,
        most: u32,
    },
    #[error("the change names entry {index} of {map}, which has {entries}; it was compiled for other maps")]
    Outside {
        map: &'static str,
        index: u16,
        entries: u32,
    },
}

impl PolicyError {
    /// Whether it is this set that finds no room.
    pub(in crate::agent) fn is_about(&self, set: &PolicySet) -> bool {
        matches!(self, Self::NoRoom { set: id, .. } if *id == set.id)
    }
}

/// What the agent knows of the sets in the maps. Behind a lock in [`Maps`].
#[derive(Debug, Default, Clone)]
pub(super) struct Policies {
    /// The set of each Pod that has one: an interface that is attached later gets its set from here.
    pods: BTreeMap<PodName, u16>,
    /// Sets in the trie, and how many entries each has.
    sets: BTreeMap<u16, usize>,
    enforced: Enforced,
}

impl Policies {
    /// The set of a Pod; 0 = none.
    pub(super) fn set_of(&self, namespace: &str, pod: &str) -> u16 {
        self.pods.get(&PodName::new(namespace, pod)).copied().unwrap_or(0)
    }

    /// [`Port::flags`]: what is enforced.
    pub(super) fn flags(&self) -> u16 {
        flags(self.enforced)
    }

    /// The word of a port that verdicts depend on, unless it is that already.
    fn word_of(&self, port: &Port) -> Option<u64> {
        let set = self.pods.get(&pod_name(port)).copied().unwrap_or(0);
        let flags = self.flags();
        let generation = slot::next_generation(port.generation);
        ((set, flags) != (port.policy_set, port.flags))
            .then(|| u64::from(generation) | u64::from(flags) << 16 | u64::from(set) << 32)
    }
}

fn flags(enforced: Enforced) -> u16 {
    let bit = |set: bool, bit: u16| if set { bit } else { 0 };
    bit(enforced.data, PORT_DATA_ENFORCED)
        | bit(enforced.reports, PORT_REPORTS_ENFORCED)
        | bit(enforced.sources, PORT_FOREIGN_DROPPED)
}

/// Learns what an earlier run left in the maps. Call before ports are entered.
///
/// # Errors
/// What bpf(2) returns.
pub fn recover(maps: &Maps) -> io::Result<()> {
    let sets = trie::sets(maps)?;
    let mut known = maps.policies();
    known.sets = sets.iter().map(|set| (set.id, set.entries.len())).collect();
    for Entry { port, .. } in table::entries(maps) {
        if port.policy_set != 0 {
            known.pods.insert(pod_name(&port), port.policy_set);
        }
    }
    let has = |flag: u16| maps.settings.read(0).enforced & u64::from(flag) != 0;
    known.enforced = Enforced {
        data: has(PORT_DATA_ENFORCED),
        reports: has(PORT_REPORTS_ENFORCED),
        sources: has(PORT_FOREIGN_DROPPED),
    };
    Ok(())
}

/// What an earlier run left in the maps, for [`crate::ledger::verdict::Compiler::adopting`]: rules keep their slots and
/// totals, and the first change replaces the sets, which judge until then.
///
/// # Errors
/// What bpf(2) returns.
pub fn stored(maps: &Maps) -> io::Result<Stored> {
    let lists = (1..maps.policy_ports.len()).map(|index| (index as u16, maps.policy_ports.read(index)));
    let mut sets = trie::sets(maps)?;
    // A set without entries is in use all the same: its id is nobody else's.
    for Entry { port, .. } in table::entries(maps) {
        let id = port.policy_set;
        if id != 0 && sets.iter().all(|set| set.id != id) {
            sets.push(PolicySet::empty(id));
        }
    }
    Ok(Stored {
        rules: rules::rows(maps).map(|(row, _)| row).collect(),
        sets: sets.into_iter().map(Arc::new).collect(),
        lists: lists.filter(|(_, list)| *list != PortList::default()).collect(),
    })
}

/// What fits into the maps. An eighth of the trie is left for new sets beside the old ones: [`apply`] works through a
/// larger change in steps.
pub fn limits(maps: &Maps) -> Limits {
    let ids = |entries: u32| u16::try_from(entries.saturating_sub(1)).unwrap_or(u16::MAX);
    Limits {
        rules: ids(maps.rule_names.len()),
        lists: ids(maps.policy_ports.len()),
        sets: u16::MAX,
        entries: (maps.trie_entries - maps.trie_entries / 8) as usize,
    }
}

/// Makes a change: rules and lists, sets, the ports' set ids with their generations (one store a port); after an RCU
/// wait the slots of older verdicts are settled, and what is retired goes. Afterwards hand [`Change::retired`] to [`crate::ledger::verdict::Compiler::release`].
/// Returns the last readings of the retired rules.
///
/// Blocks for an RCU grace period where something is retired or settled: some 10 ms, up to a second under load. Changes must be
/// applied by one thread, in the order in which they were compiled. `now` is the start time of new rules.
///
/// # Errors
/// [`PolicyError`]; the ports then have sets of before or of after the change, each whole. Apply it again. With
/// [`PolicyError::NoRoom`] nothing was done.
pub fn apply(maps: &Maps, change: &Change, now: Timestamp) -> Result<Vec<RuleReading>, PolicyError> {
    apply_with(maps, change, now, rcu::wait)
}

/// As [`apply`] with another RCU wait; only a test passes another.
///
/// # Errors
/// As [`apply`].
pub fn apply_with(
    maps: &Maps,
    change: &Change,
    now: Timestamp,
    wait: impl Fn() -> io::Result<()>,
) -> Result<Vec<RuleReading>, PolicyError> {
    check(maps, change)?;
    maps.policies().check_room(change, maps.trie_entries)?;
    rules::write(maps, &change.rules, now)?;
    for (index, list) in &change.lists {
        maps.policy_ports.write(u32::from(*index), *list);
    }
    let retired = &change.retired;
    let (mut missing, mut unused) = (room::by_size(change), room::by_reference(&retired.sets));
    let flipped = loop {
        insert(maps, &mut missing)?;
        flip(maps, change, &missing);
        let flipped = settle::generations(maps);
        let done = missing.is_empty();
        let nothing_left = retired.sets.is_empty() && retired.lists.is_empty() && retired.rules.is_empty();
        if done && nothing_left && !settle::is_any_stale(maps, &flipped) {
            return Ok(Vec::new());
        }
        wait().map_err(system("waiting for running programs"))?;
        delete_unused(maps, &mut unused)?;
        if done {
            break flipped;
        }
    };
    // Before a rule's slot is free: no group may have a decision of its.
    settle::settle_older(maps, &flipped)
        .and_then(|_| settle::settle_stale(maps, &wait))
        .map_err(system("settling what was counted by older policies"))?;
    for index in &retired.lists {
        maps.policy_ports.write(u32::from(*index), PortList::default());
    }
    rules::retire(maps, &retired.rules)
}

/// Tells every port, and those that come, what is enforced. Slots of older verdicts are settled later
/// ([`settle::settle_stale`]): this does not wait.
pub fn set_enforced(maps: &Maps, enforced: Enforced) {
    let mut known = maps.policies();
    known.enforced = enforced;
    maps.setting(offset_of!(Settings, enforced))
        .store(u64::from(known.flags()), Ordering::Release);
    judge_by(maps, &known);
}

/// What [`set_enforced`] last said, over restarts.
pub fn enforced(maps: &Maps) -> Enforced {
    maps.policies().enforced
}

/// The Pods that have a set, and which.
pub fn pods(maps: &Maps) -> BTreeMap<PodName, u16> {
    maps.policies().pods.clone()
}

/// The set that judges a Pod; `None`: no rule is for it.
pub fn set_of(maps: &Maps, pod: &PodName) -> Option<u16> {
    maps.policies().pods.get(pod).copied()
}

fn system(call: &'static str) -> impl Fn(io::Error) -> PolicyError {
    move |error| PolicyError::System { call, error }
}

fn pod_name(port: &Port) -> PodName {
    PodName::new(text(&port.namespace), text(&port.pod))
}

/// Everything that the change names lies in the maps.
fn check(maps: &Maps, change: &Change) -> Result<(), PolicyError> {
    let (rules, lists) = (maps.rule_names.len(), maps.policy_ports.len());
    let slots = change.rules.iter().chain(&change.retired.rules).map(|rule| rule.slot);
    let indices = change.lists.iter().map(|(index, _)| index).chain(&change.retired.lists);
    let outside = |map, entries| move |index: u16| (u32::from(index) >= entries).then_some((map, index, entries));
    let mut found = slots.filter_map(outside("rules", rules));
    match found
        .next()
        .or_else(|| indices.copied().filter_map(outside("policy_ports", lists)).next())
    {
        Some((map, index, entries)) => Err(PolicyError::Outside { map, index, entries }),
        None => Ok(()),
    }
}

/// Inserts the sets for which there is room, and takes them off the list.
fn insert(maps: &Maps, missing: &mut Vec<&PolicySet>) -> Result<(), PolicyError> {
    let fitting = maps.policies().fitting(missing, maps.trie_entries);
    for set in fitting {
        trie::insert(maps, &set.entries).map_err(system("inserting a policy set"))?;
    }
    Ok(())
}

/// Gives every Pod its set, unless that is still missing.
fn flip(maps: &Maps, change: &Change, missing: &[&PolicySet]) {
    let mut known = maps.policies();
    known.assign(change, missing);
    judge_by(maps, &known);
}

/// Tells each port concerned what judges it from now on, in one store: no packet meets the new with a verdict of the old.
fn judge_by(maps: &Maps, known: &Policies) {
    for entry in table::entries(maps) {
        if let Some(word) = known.word_of(&entry.port) {
            maps.ports
                .word(entry.position, offset_of!(Port, generation))
                .store(word, Ordering::Release);
        }
    }
}

/// Deletes the sets that no Pod has any more, and takes them off the list. An RCU wait is over.
fn delete_unused(maps: &Maps, unused: &mut Vec<&PolicySet>) -> Result<(), PolicyError> {
    let deletable = maps.policies().unused(unused);
    for set in deletable {
        trie::delete(maps, &set.entries).map_err(system("deleting a policy set"))?;
        maps.policies().sets.remove(&set.id);
    }
    Ok(())
}
