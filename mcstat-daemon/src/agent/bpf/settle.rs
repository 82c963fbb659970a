//! Taking slots' verdicts off them, when what judges their ports has changed.
//!
//! All that a slot's counters hold was counted under one verdict, so a rule's totals are those of its slots. A packet on
//! which another decision is made counts in another slot of its key. Here the old one's counters are moved into its carry,
//! and to the rule that decided; from then on the slot has no verdict, and the next packet of its key may give it one. No
//! packet counts meanwhile: those that knew the old generation have run to their end (RCU), and one that would make the
//! verdict its own finds none.

use std::{collections::BTreeMap, io, mem::offset_of, sync::atomic::Ordering};

use super::{
    maps::{Maps, update_settings},
    read::{Reader, SlotReading},
    sys, table,
};
use mcstat_common::{
    abi::{Carry, Counter, RuleName, SLOT_VERDICT, Settings},
    policy::MAX_RULE_SLOT,
    slot::{self, DEAD, READY, SETTLING, UNJUDGED, UNPOLICED, Verdict},
};

/// The generation of each port's verdicts, by port id.
pub type Generations = BTreeMap<u32, u16>;

/// The generations now.
pub fn generations(maps: &Maps) -> Generations {
    let entries = table::entries(maps).into_iter();
    entries.map(|entry| (entry.port.id, entry.port.generation)).collect()
}

/// Settles every slot whose verdict is of an older generation than its port's. `wait` is the RCU wait. Returns how many.
///
/// # Errors
/// What the wait or the map calls return; the next call goes on.
pub fn settle_stale(maps: &Maps, wait: impl Fn() -> io::Result<()>) -> io::Result<usize> {
    let mut settled = 0;
    loop {
        let before = generations(maps);
        if stale(maps, &before).next().is_none() {
            return Ok(settled);
        }
        wait()?;
        settled += settle_older(maps, &before)?;
        if changed(&before, &generations(maps)).next().is_none() {
            return Ok(settled);
        }
    }
}

/// As [`settle_stale`], where an RCU wait is over since the generations were as `before`.
///
/// # Errors
/// What the map calls return.
pub(super) fn settle_older(maps: &Maps, before: &Generations) -> io::Result<usize> {
    let mut reader = Reader::new(maps);
    let mut still = before.clone();
    // Of a port whose generation has changed meanwhile, packets may still count under the one before.
    for id in changed(before, &generations(maps)) {
        still.remove(&id);
    }
    let stale: Vec<u32> = stale(maps, &still).collect();
    let mut settled = 0;
    for index in stale {
        settled += usize::from(settle(maps, &mut reader, index)?);
    }
    Ok(settled)
}

/// Whether any slot is of an older generation than its port's.
pub(super) fn is_any_stale(maps: &Maps, now: &Generations) -> bool {
    stale(maps, now).next().is_some()
}

/// Settles one slot. Nothing may count under its verdict any more. False when a packet made the verdict its own meanwhile,
/// or the slot has none.
///
/// # Errors
/// What the map calls return; the slot then stays SETTLING until the next call.
pub(super) fn settle(maps: &Maps, reader: &mut Reader, index: u32) -> io::Result<bool> {
    let _rules = maps.policies();
    let _lock = maps.fold_lock();
    let verdict = maps.slots.word(index, SLOT_VERDICT);
    let known = verdict.load(Ordering::Acquire);
    if known == UNJUDGED
        || verdict
            .compare_exchange(known, slot::settling(known), Ordering::AcqRel, Ordering::Acquire)
            .is_err()
    {
        return Ok(false);
    }
    commit(maps, index, &reader.slot(maps, index)?);
    replay(maps)?;
    Ok(true)
}

/// Finishes a settlement that a killed agent left half done. Call before anything is read.
///
/// # Errors
/// What the map calls return.
pub(super) fn recover(maps: &Maps) -> io::Result<()> {
    if maps.settings.read(0).settle_slot != 0 {
        replay(maps)?;
    }
    let mut reader = Reader::new(maps);
    for index in 0..maps.slots.len() {
        let verdict = maps.slots.word(index, SLOT_VERDICT).load(Ordering::Acquire);
        if slot::verdict_generation(verdict) == SETTLING && is_used(maps, index) {
            settle(maps, &mut reader, index)?;
        }
    }
    Ok(())
}

fn is_used(maps: &Maps, index: u32) -> bool {
    matches!(slot::state_of(maps.slots.first_word(index)), READY | DEAD)
}

/// Slots of these ports whose verdict is of another generation.
fn stale<'a>(maps: &'a Maps, generations: &'a Generations) -> impl Iterator<Item = u32> + 'a {
    (0..maps.slots.len())
        .filter(|index| is_used(maps, *index))
        .filter(|index| {
            let verdict = maps.slots.word(*index, SLOT_VERDICT).load(Ordering::Acquire);
            let generation = slot::verdict_generation(verdict);
            let of_port = || generations.get(&maps.slots.read(*index).port);
            verdict != UNJUDGED && generation != UNPOLICED && of_port().is_some_and(|now| *now != generation)
        })
}

/// Ports whose generation is another, or that are gone.
fn changed<'a>(before: &'a Generations, now: &'a Generations) -> impl Iterator<Item = u32> + 'a {
    let before = before.iter();
    before
        .filter(|(id, generation)| now.get(id) != Some(generation))
        .map(|(id, _)| *id)
}

/// Writes down what the settlement comes to, and then that it is valid: from here on it is made, whoever dies.
fn commit(maps: &Maps, index: u32, read: &SlotReading) {
    let rule = u32::from(read.slot.decision & MAX_RULE_SLOT);
    let name = maps.rule_names.read(rule);
    let [mut packets, mut segments, mut bytes, .., mut would_drop, _, _] = name.carried;
    if Verdict::of(read.slot.decision) == Verdict::WouldDrop {
        would_drop += read.counted.packets;
    } else {
        packets += read.counted.packets;
        segments += read.counted.segments;
        bytes += read.counted.bytes;
    }
    update_settings(maps, |settings| {
        settings.settle_carry = Carry {
            last_seen: maps.carried.read(index).last_seen,
            ..read.totals.carry()
        };
        settings.settle_rule = u64::from(rule);
        settings.settle_data = [packets, segments, bytes];
        settings.settle_would_drop = would_drop;
    });
    update_settings(maps, |settings| settings.settle_slot = u64::from(index) + 1);
}

fn replay(maps: &Maps) -> io::Result<()> {
    let Settings {
        settle_slot,
        settle_carry,
        settle_rule,
        settle_data,
        settle_would_drop,
        ..
    } = maps.settings.read(0);
    let index = settle_slot.saturating_sub(1) as u32;
    maps.carried.write(index, settle_carry);
    if settle_rule != 0 {
        let [packets, segments, bytes] = settle_data;
        for (at, total) in [(0, packets), (1, segments), (2, bytes), (6, settle_would_drop)] {
            maps.rule_names
                .word(settle_rule as u32, offset_of!(RuleName, carried) + 8 * at)
                .store(total, Ordering::Release);
        }
    }
    empty(maps, index)?;
    update_settings(maps, |settings| settings.settle_slot = 0);
    // Last: from here on packets may count in it.
    maps.slots.word(index, SLOT_VERDICT).store(UNJUDGED, Ordering::Release);
    Ok(())
}

/// Zeroes what is counted; which source each CPU saw last, and when, stays.
fn empty(maps: &Maps, index: u32) -> io::Result<()> {
    let element = sys::per_cpu_size::<Counter>(maps.cpus);
    let mut values = vec![0u64; element / 8];
    sys::lookup_batch(maps.counters(), index, 1, element, &mut [0], &mut values)?;
    for counter in values.chunks_exact_mut(size_of::<Counter>() / 8) {
        let sums = counter.iter_mut().take(offset_of!(Counter, source) / 8);
        sums.for_each(|sum| *sum = 0);
    }
    sys::update_per_cpu(maps.counters(), index, &values)
}
