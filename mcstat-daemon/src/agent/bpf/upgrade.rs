//! From the maps of an older ABI to this one's, while packets pass: nothing is lost, no start time changes.
//!
//! Ports are entered in the new table, the programs are replaced in their links (atomic), an RCU wait ends the last run
//! of an old program; from then on the old maps stand still, and their totals are *assigned* to the new carry maps. A
//! kill at any moment leaves both directories, and the next start does it all again with the same result: assigning
//! twice is assigning once, and nothing folds before this is done. The last step renames the old directory away.

use std::{
    fs, io,
    mem::offset_of,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use mcstat_common::{
    abi::{IPV4, PortStats, Slot, WAYS},
    slot::{self, EMPTY, Key, READY},
};
use tracing::{info, warn};
use zerocopy::IntoBytes;

use super::{
    KernelError,
    attach::Programs,
    free,
    maps::{self, Maps, Options, update_settings},
    policy, rcu,
    read::{Reader, SlotTotals, add_control},
    table::{self, Entry},
};

/// ABI versions whose maps this version can take over. None yet: 1 is the first.
pub const KNOWN: &[u32] = &[];

/// Directories of maps under `<bpffs>/mcstat`, other than the one in use: those that can be taken over, oldest first.
/// The others are kept aside and reported.
pub fn find(options: &Options, known: &[u32]) -> Vec<u32> {
    let Ok(files) = fs::read_dir(options.bpffs.join("mcstat")) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for file in files.flatten() {
        let name = file.file_name();
        let Some(version) = name.to_str().and_then(|name| name.strip_prefix('v')) else {
            continue;
        };
        match version.parse::<u32>() {
            Ok(version) if version == options.abi => {}
            Ok(version) if known.contains(&version) && file.path().join("settings").exists() => found.push(version),
            _ if version.ends_with("-done") => remove(&file.path()),
            _ => warn!(
                path = %file.path().display(),
                "maps of an unknown ABI are kept aside; what they counted is not shown, remove the directory when you do not need it"
            ),
        }
    }
    found.sort_unstable();
    found
}

/// Finishes what an agent was killed in, and copies what the new programs need before they run: clock, port ids, policies,
/// the ports themselves.
///
/// # Errors
/// When the old maps cannot be opened or read.
pub fn prepare(options: &Options, old_abi: u32, new: &Maps) -> Result<Maps, KernelError> {
    let old = maps::open_pinned(&maps::pins(&options.bpffs, old_abi))?;
    // What the last agent left half done would be read half.
    free::recover(&old).map_err(|error| KernelError::System {
        call: "finishing what an agent of the old ABI had begun",
        error,
    })?;
    let from = old.settings.read(0);
    update_settings(new, |settings| {
        settings.hz = from.hz;
        settings.anchor_jiffies = from.anchor_jiffies;
        settings.anchor_ms = from.anchor_ms;
        settings.enforced = from.enforced;
        settings.next_port_id = settings.next_port_id.max(from.next_port_id);
    });
    // Before the ports: they name their sets.
    policy::upgrade::copy(&old, new).map_err(|error| KernelError::System {
        call: "copying the policies of the old ABI",
        error,
    })?;
    for entry in table::entries(&old) {
        if new.ports.first_word(entry.position) == 0 {
            table::copy(new, &entry);
        }
    }
    Ok(old)
}

/// Replaces the programs, waits, and takes the totals over.
///
/// # Errors
/// What the kernel says; the old maps are then still there, and the next start tries again.
pub fn carry_over(
    options: &Options,
    old_abi: u32,
    old: &Maps,
    new: &Maps,
    programs: &mut Programs,
) -> Result<(), KernelError> {
    let from = maps::pins(&options.bpffs, old_abi);
    let entries = table::entries(old);
    for entry in &entries {
        programs.take_over(entry, &from)?;
    }
    let system = |call| move |error| KernelError::System { call, error };
    rcu::wait().map_err(system("waiting for the programs of the old ABI"))?;
    for entry in &entries {
        for at in [2 * entry.position, 2 * entry.position + 1] {
            new.port_carried
                .write(at, sum(&old.port_stats.read(at), &old.port_carried.read(at)));
        }
    }
    let slots = carry_slots(old, new, &entries).map_err(system("reading the maps of the old ABI"))?;
    new.kept.copy(&old.kept)?;
    let rules = policy::upgrade::carry_over(old, new).map_err(system("reading the rules of the old ABI"))?;
    info!(
        from = old_abi,
        to = options.abi,
        ports = entries.len(),
        slots,
        rules,
        "took the totals of an older ABI over"
    );
    // Names in a BPF file system hold no dot.
    let done = PathBuf::from(format!("{}-done", from.display()));
    fs::rename(&from, &done).map_err(system("renaming the maps of the old ABI"))?;
    remove(&done);
    Ok(())
}

/// Everything that both hold, but what describes only the moment (slots in use, the token bucket).
pub(super) fn sum(stats: &PortStats, carried: &PortStats) -> PortStats {
    let mut sum = *carried;
    sum.control = add_control(&stats.control, &carried.control);
    sum.reports.records += stats.reports.records;
    sum.reports.dropped_messages += stats.reports.dropped_messages;
    sum.reports.dropped_records += stats.reports.dropped_records;
    sum.reports.would_drop_messages += stats.reports.would_drop_messages;
    sum.reports.would_drop_records += stats.reports.would_drop_records;
    for (to, from) in sum.other.iter_mut().zip(&stats.other) {
        to.packets += from.packets;
        to.bytes += from.bytes;
        to.segments += from.segments;
        to.dropped += from.dropped;
        to.would_drop += from.would_drop;
        to.ttl1 += from.ttl1;
        to.last_seen = to.last_seen.max(from.last_seen);
    }
    sum.foreign_source += stats.foreign_source;
    sum.port_limit += stats.port_limit;
    sum.fair_share += stats.fair_share;
    sum.window_full += stats.window_full;
    sum.contended += stats.contended;
    sum.events_limited += stats.events_limited;
    (sum.slots_used, sum.bucket) = (0, 0);
    sum
}

/// Assigns the totals of every old slot; two slots of one key are added up first.
fn carry_slots(old: &Maps, new: &Maps, entries: &[Entry]) -> io::Result<usize> {
    let mut slots: Vec<(Slot, SlotTotals)> = Vec::new();
    Reader::new(old).used(old, |read| slots.push((read.slot, read.totals)))?;
    let key = |slot: &Slot| (slot.port, slot.direction, slot.foreign, slot.group, slot.source);
    slots.sort_by_key(|(slot, _)| key(slot));
    slots.dedup_by(|(next, more), (kept, totals)| {
        let same = key(next) == key(kept);
        if same {
            add(totals, more);
            kept.since = kept.since.min(next.since);
        }
        same
    });
    for (slot, totals) in &slots {
        let Some(entry) = entries.iter().find(|entry| entry.port.id == slot.port) else {
            continue;
        };
        let stats = 2 * entry.position + u32::from(slot.direction);
        match find_or_insert(new, slot, stats) {
            Some(index) => new.carried.write(index, totals.carry()),
            None => add_to_other(new, stats, slot.family, totals),
        }
    }
    Ok(slots.len())
}

fn add(to: &mut SlotTotals, from: &SlotTotals) {
    to.packets += from.packets;
    to.bytes += from.bytes;
    to.segments += from.segments;
    to.dropped += from.dropped;
    to.source_changes += from.source_changes;
    to.would_drop += from.would_drop;
    to.ttl1 += from.ttl1;
    if to.last_seen == 0 || (from.last_seen.wrapping_sub(to.last_seen) as i32) > 0 {
        (to.last_seen, to.source) = (from.last_seen, from.source);
    }
}

/// The programs' own protocol (see `mcstat_common::slot`), by the same words of the same memory.
fn find_or_insert(maps: &Maps, old: &Slot, stats: u32) -> Option<u32> {
    let key = Key {
        owner: Key::owner(old.port, old.direction, old.family, old.foreign != 0),
        group: words(&old.group),
        source: words(&old.source),
    };
    let hash = key.hash(maps.settings.read(0).seed);
    let start = slot::set_start(hash, maps.slots.len() / WAYS);
    let ready = slot::word(hash, READY);
    let same = |slot: &Slot| {
        (
            slot.state,
            slot.port,
            slot.direction,
            slot.foreign,
            slot.group,
            slot.source,
        ) == (ready, old.port, old.direction, old.foreign, old.group, old.source)
    };
    let window = start..start + WAYS;
    if let Some(index) = window.clone().find(|index| same(&maps.slots.read(*index))) {
        // A program has inserted the key since: the series began earlier all the same.
        maps.slots
            .word(index, offset_of!(Slot, since))
            .fetch_min(old.since, Ordering::AcqRel);
        return Some(index);
    }
    let state = |index| maps.slots.word(index, offset_of!(Slot, state));
    let index = window.into_iter().find(|index| {
        state(*index)
            .compare_exchange(EMPTY, slot::BUSY, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    })?;
    maps.slots_used().fetch_add(1, Ordering::AcqRel);
    maps.port_stats
        .word(stats, offset_of!(PortStats, slots_used))
        .fetch_add(1, Ordering::AcqRel);
    // Without a verdict: the first packet is judged anew.
    let slot = Slot {
        state: slot::BUSY,
        first_port: 0,
        last_port: 0,
        decision: 0,
        generation: 0,
        ..*old
    };
    maps.slots.write(index, slot);
    state(index).store(ready, Ordering::Release);
    Some(index)
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let word = |half: &[u8]| half.try_into().map_or(0, u64::from_ne_bytes);
    let (first, second) = bytes.as_bytes().split_at(8);
    [word(first), word(second)]
}

/// No room for a slot of its own: its totals stay in the port's, its series ends.
fn add_to_other(maps: &Maps, stats: u32, family: u8, totals: &SlotTotals) {
    let mut carried = maps.port_carried.read(stats);
    let [ipv4, ipv6] = &mut carried.other;
    let other = if family == IPV4 { ipv4 } else { ipv6 };
    other.packets += totals.packets;
    other.bytes += totals.bytes;
    other.segments += totals.segments;
    other.dropped += totals.dropped;
    other.would_drop += totals.would_drop;
    other.ttl1 += totals.ttl1;
    maps.port_carried.write(stats, carried);
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        warn!(path = %directory.display(), %error, "cannot remove maps that were taken over; they count no more");
    }
}
