//! Freeing slots: the only order that loses nothing.
//!
//! DEAD → RCU wait → last reading, settled (see `settle`): the rule's share is the rule's → totals into the port (redo log)
//! → FOLDED → zero the counters, then the carry, then the key → EMPTY. Reading before the wait loses what packets that found
//! the slot still count; EMPTY before zeroing books a new owner's packets on the old one's count. The agent can be killed
//! between any two of these steps.

use std::{
    io,
    mem::offset_of,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use mcstat_common::{
    abi::{Carry, Counter, OtherGroups, PortStats, Settings, Slot},
    policy::MAX_RULE_SLOT,
    slot::{self, DEAD, EMPTY, FOLDED, READY},
};
use zerocopy::FromZeros;

use super::{
    clock::Clock,
    maps::{Maps, update_settings},
    rcu,
    read::{Reader, SlotTotals},
    settle, sys, table,
};

/// Moves the totals of `indices` into their ports' *other groups* and frees the slots. `wait` is the RCU wait; only a
/// test passes another. Returns how many were freed.
///
/// # Errors
/// What the wait or the map calls return; slots that were marked are finished by the next call or start.
pub fn fold(maps: &Maps, indices: &[u32], wait: impl Fn() -> io::Result<()>) -> io::Result<usize> {
    let marked: Vec<u32> = indices
        .iter()
        .copied()
        .filter(|index| mark_dead(maps, *index))
        .collect();
    if marked.is_empty() {
        return Ok(0);
    }
    wait()?;
    fold_dead(maps, &marked)?;
    Ok(marked.len())
}

/// Folds and frees slots that are DEAD and have seen an RCU wait since.
fn fold_dead(maps: &Maps, indices: &[u32]) -> io::Result<()> {
    let mut reader = Reader::new(maps);
    let positions = positions(maps);
    for index in indices {
        settle::settle(maps, &mut reader, *index)?;
        let slot = maps.slots.read(*index);
        let position = positions
            .iter()
            .find(|(id, _)| *id == slot.port)
            .map(|(_, position)| *position);
        // Not held over the whole batch: a tick waits for one slot at most.
        let _lock = maps.fold_lock();
        if let Some(position) = position {
            let totals = reader.slot(maps, *index)?.totals;
            commit(maps, *index, 2 * position + u32::from(slot.direction), &slot, &totals);
        }
        state(maps, *index).store(slot::word(slot.state, FOLDED), Ordering::Release);
        update_settings(maps, |settings| settings.fold_slot = 0);
        release(maps, *index, &slot, position)?;
    }
    Ok(())
}

/// Folds all slots of one port.
///
/// # Errors
/// As [`fold`].
pub fn fold_port(maps: &Maps, id: u32, wait: impl Fn() -> io::Result<()>) -> io::Result<usize> {
    let slots = (0..maps.slots.len()).filter(|index| maps.slots.first_word(*index) != EMPTY);
    let slots: Vec<u32> = slots.filter(|index| maps.slots.read(*index).port == id).collect();
    fold(maps, &slots, wait)
}

/// Frees all slots of a port that nothing counts any more (its link is gone and an RCU wait is over): no fold, since
/// the port's totals go with it. What rules decided stays theirs.
///
/// # Errors
/// What the map calls return.
pub fn free_port(maps: &Maps, id: u32) -> io::Result<usize> {
    let (mut freed, mut reader) = (0, Reader::new(maps));
    for index in 0..maps.slots.len() {
        let word = maps.slots.first_word(index);
        if word == EMPTY {
            continue;
        }
        let slot = maps.slots.read(index);
        if slot.port != id {
            continue;
        }
        if slot.decision & MAX_RULE_SLOT != 0 {
            settle::settle(maps, &mut reader, index)?;
        }
        let _lock = maps.fold_lock();
        state(maps, index).store(slot::word(word, FOLDED), Ordering::Release);
        release(maps, index, &slot, None)?;
        freed += 1;
    }
    Ok(freed)
}

/// Finishes what a killed agent left half done. Call before anything is read.
///
/// # Errors
/// What the wait or the map calls return.
pub fn recover(maps: &Maps) -> io::Result<usize> {
    settle::recover(maps)?;
    let settings = maps.settings.read(0);
    if let Some(index) = settings.fold_slot.checked_sub(1) {
        replay(maps, &settings);
        let index = index as u32;
        state(maps, index).store(slot::word(maps.slots.first_word(index), FOLDED), Ordering::Release);
        update_settings(maps, |settings| settings.fold_slot = 0);
    }
    let positions = positions(maps);
    let (mut dead, mut done) = (Vec::new(), 0);
    for index in 0..maps.slots.len() {
        let word = maps.slots.first_word(index);
        let slot = maps.slots.read(index);
        let owned = positions
            .iter()
            .find(|(id, _)| *id == slot.port)
            .map(|(_, position)| *position);
        match slot::state_of(word) {
            FOLDED => {
                release(maps, index, &slot, owned)?;
                done += 1;
            }
            DEAD | READY if owned.is_none() => dead.push(index),
            DEAD => dead.push(index),
            _ => {}
        }
    }
    if !dead.is_empty() {
        rcu::wait()?;
        fold_dead(maps, &dead)?;
    }
    recount(maps);
    Ok(done + dead.len())
}

/// Sets the numbers of used slots right, against drift from a kill between two stores. The programs may insert
/// meanwhile, so what differs is added, not stored.
fn recount(maps: &Maps) {
    let mut total = 0u64;
    let mut counted = vec![0u64; maps.port_stats.len() as usize];
    let positions = positions(maps);
    for index in 0..maps.slots.len() {
        if maps.slots.first_word(index) == EMPTY {
            continue;
        }
        let slot = maps.slots.read(index);
        total += 1;
        if let Some((_, position)) = positions.iter().find(|(id, _)| *id == slot.port)
            && let Some(count) = counted.get_mut((2 * position + u32::from(slot.direction)) as usize)
        {
            *count += 1;
        }
    }
    let used = maps.slots_used();
    used.fetch_add(total.wrapping_sub(used.load(Ordering::Acquire)), Ordering::AcqRel);
    for (_, position) in positions {
        for direction in 0..2 {
            let at = 2 * position + direction;
            let used = maps.port_stats.word(at, offset_of!(PortStats, slots_used));
            let count = counted.get(at as usize).copied().unwrap_or(0);
            used.fetch_add(count.wrapping_sub(used.load(Ordering::Acquire)), Ordering::AcqRel);
        }
    }
}

/// Slots that may be folded now: idle for `idle_ticks`, their port over half its limit or the table over half full,
/// and not of a group that `joined` says the Pod is a member of.
pub fn idle(maps: &Maps, clock: &Clock, idle_ticks: u64, joined: impl Fn(u32, IpAddr) -> bool) -> Vec<u32> {
    let settings = maps.settings.read(0);
    let table_full = settings.slots_used >= u64::from(settings.half_table);
    let crowded: Vec<(u32, [bool; 2])> = positions(maps)
        .into_iter()
        .map(|(id, position)| {
            let over = |direction| {
                let used = maps.port_stats.read(2 * position + direction).slots_used;
                2 * used > u64::from(settings.slots_per_port)
            };
            (id, [over(0), over(1)])
        })
        .collect();
    if !table_full && crowded.iter().all(|(_, over)| *over == [false; 2]) {
        return Vec::new();
    }
    let mut reader = Reader::new(maps);
    (0..maps.slots.len())
        .filter(|index| slot::state_of(maps.slots.first_word(*index)) == READY)
        .filter(|index| {
            let slot = maps.slots.read(*index);
            let over = crowded
                .iter()
                .find(|(id, _)| *id == slot.port)
                .and_then(|(_, over)| over.get(usize::from(slot.direction)).copied())
                .unwrap_or(false);
            (table_full || over)
                && !joined(slot.port, super::read::address(slot.family, &slot.group))
                && reader
                    .slot(maps, *index)
                    .is_ok_and(|read| is_idle(&read.totals, &slot, clock, idle_ticks))
        })
        .collect()
}

fn is_idle(totals: &SlotTotals, slot: &Slot, clock: &Clock, idle_ticks: u64) -> bool {
    let age = match totals.last_seen {
        0 => clock.now_jiffies.saturating_sub(slot.since),
        low => u64::from(clock.age(low)),
    };
    age >= idle_ticks
}

fn positions(maps: &Maps) -> Vec<(u32, u32)> {
    table::entries(maps)
        .iter()
        .map(|entry| (entry.port.id, entry.position))
        .collect()
}

fn state(maps: &Maps, index: u32) -> &AtomicU64 {
    maps.slots.word(index, offset_of!(Slot, state))
}

/// READY → DEAD, or DEAD already since an earlier wait failed; false when the slot is in another state.
fn mark_dead(maps: &Maps, index: u32) -> bool {
    let word = maps.slots.first_word(index);
    match slot::state_of(word) {
        DEAD => true,
        READY => state(maps, index)
            .compare_exchange(word, slot::word(word, DEAD), Ordering::AcqRel, Ordering::Acquire)
            .is_ok(),
        _ => false,
    }
}

/// Adds a slot's totals to its port's *other groups*, so that a kill at any moment adds them exactly once: the new
/// totals are written to the log first, then the log is made valid, then they are copied.
fn commit(maps: &Maps, index: u32, stats: u32, slot: &Slot, totals: &SlotTotals) {
    let family = u64::from(slot.family != mcstat_common::abi::IPV4);
    let mut other = family_of(&maps.port_carried.read(stats), family);
    other.packets += totals.packets;
    other.bytes += totals.bytes;
    other.segments += totals.segments;
    other.dropped += totals.dropped;
    other.would_drop += totals.would_drop;
    other.ttl1 += totals.ttl1;
    update_settings(maps, |settings| {
        settings.fold_stats = u64::from(stats);
        settings.fold_family = family;
        settings.fold_total = other;
    });
    update_settings(maps, |settings| settings.fold_slot = u64::from(index) + 1);
    replay(maps, &maps.settings.read(0));
}

fn replay(maps: &Maps, settings: &Settings) {
    let mut stats = maps.port_carried.read(settings.fold_stats as u32);
    let [ipv4, ipv6] = &mut stats.other;
    *(if settings.fold_family == 0 { ipv4 } else { ipv6 }) = settings.fold_total;
    maps.port_carried.write(settings.fold_stats as u32, stats);
}

fn family_of(stats: &PortStats, family: u64) -> OtherGroups {
    let [ipv4, ipv6] = stats.other;
    if family == 0 { ipv4 } else { ipv6 }
}

/// FOLDED → EMPTY.
fn release(maps: &Maps, index: u32, slot: &Slot, position: Option<u32>) -> io::Result<()> {
    let zeroes = vec![0u64; sys::per_cpu_size::<Counter>(maps.cpus) / 8];
    sys::update_per_cpu(maps.counters(), index, &zeroes)?;
    maps.carried.write(index, Carry::new_zeroed());
    if let Some(position) = position {
        let stats = 2 * position + u32::from(slot.direction);
        maps.port_stats
            .word(stats, offset_of!(PortStats, slots_used))
            .fetch_sub(1, Ordering::AcqRel);
    }
    maps.slots_used().fetch_sub(1, Ordering::AcqRel);
    let mut blank = Slot::new_zeroed();
    blank.state = slot::word(slot.state, FOLDED);
    maps.slots.write(index, blank);
    state(maps, index).store(EMPTY, Ordering::Release);
    Ok(())
}
