//! The trie `policies`: whole sets in, out, and listed.

use std::{collections::BTreeMap, io};

use mcstat_common::policy::{PolicyKey, PolicyValue};

use super::super::{maps::Maps, sys};
use crate::ledger::verdict::PolicySet;

/// Entries that one system call takes: a quarter of a millisecond of work.
const BATCH: usize = 512;

/// Inserts a set's entries; those that are there already are replaced by the same.
pub(super) fn insert(maps: &Maps, entries: &[(PolicyKey, PolicyValue)]) -> io::Result<()> {
    for entries in entries.chunks(BATCH) {
        let (keys, values): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        sys::update_batch(maps.trie(), &keys, &values)?;
    }
    Ok(())
}

/// Deletes a set's entries; those that are not there are no error.
pub(super) fn delete(maps: &Maps, entries: &[(PolicyKey, PolicyValue)]) -> io::Result<()> {
    for entries in entries.chunks(BATCH) {
        let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
        sys::delete_batch(maps.trie(), &keys)?;
    }
    Ok(())
}

/// Every set that is there.
pub(super) fn sets(maps: &Maps) -> io::Result<Vec<PolicySet>> {
    let mut sets: BTreeMap<u16, PolicySet> = BTreeMap::new();
    for (key, value) in sys::entries::<PolicyKey, PolicyValue>(maps.trie(), BATCH)? {
        let scope = u32::from_be(key.scope);
        let id = (scope >> 16) as u16;
        let set = sets.entry(id).or_insert_with(|| PolicySet::empty(id));
        set.spaces |= 1u8.checked_shl(scope & 0xff).unwrap_or(0);
        if value.list != 0 && !set.lists.contains(&value.list) {
            set.lists.push(value.list);
        }
        set.entries.push((key, value));
    }
    let mut sets: Vec<_> = sets.into_values().collect();
    sets.iter_mut().for_each(|set| set.entries.sort_unstable());
    Ok(sets)
}
