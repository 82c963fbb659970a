//! Policies of an older ABI: sets, lists and rules are copied as they are, so that judging never stops; totals follow once
//! the old maps stand still.

use std::{io, mem::offset_of, sync::atomic::Ordering};

use mcstat_common::{abi::RuleName, policy::PortList};
use tracing::warn;

use super::{
    super::{maps::Maps, read::Reader},
    rules, trie,
};

/// Copies what the new programs judge by, before they run. What is there already stays.
pub(in super::super) fn copy(old: &Maps, new: &Maps) -> io::Result<()> {
    let lists = old.policy_ports.len().min(new.policy_ports.len());
    for index in 1..lists {
        let list = old.policy_ports.read(index);
        if list != PortList::default() {
            new.policy_ports.write(index, list);
        }
    }
    for (row, name) in rules::rows(old) {
        let slot = u32::from(row.slot);
        if slot < new.rule_names.len() && new.rule_names.first_word(slot) == 0 {
            rules::publish(new, slot, name);
        }
    }
    let sets = trie::sets(old)?;
    let entries: usize = sets.iter().map(|set| set.entries.len()).sum();
    let smaller = new.policy_ports.len() < old.policy_ports.len() || new.rule_names.len() < old.rule_names.len();
    if smaller || entries > new.trie_entries as usize {
        warn!(
            entries,
            "the policies of an older ABI do not fit into the new maps; nothing is judged until policies are read"
        );
        return Ok(());
    }
    sets.iter().try_for_each(|set| trie::insert(new, &set.entries))
}

/// Assigns the totals of the old rules, which nobody counts in any more. How many rules.
pub(in super::super) fn carry_over(old: &Maps, new: &Maps) -> io::Result<usize> {
    let rows: Vec<_> = rules::rows(old).collect();
    let mut in_slots = rules::InSlots::default();
    Reader::new(old).used(old, |read| in_slots.add(read.slot.decision, &read.counted))?;
    let totals = rules::totals(old, &rows, &in_slots)?;
    for ((row, _), totals) in rows.iter().zip(&totals) {
        let slot = u32::from(row.slot);
        if slot >= new.rule_names.len() {
            continue;
        }
        for (at, total) in totals.iter().enumerate() {
            new.rule_names
                .word(slot, offset_of!(RuleName, carried) + 8 * at)
                .store(*total, Ordering::Release);
        }
    }
    Ok(rows.len())
}
