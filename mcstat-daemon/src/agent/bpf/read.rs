//! From the maps to readings: one consistent look at everything, cheap when little is used.

use std::{
    collections::BTreeMap,
    io,
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering,
};

use jiff::Timestamp;
use mcstat_common::{
    abi::{Carry, Counter, EventCounts, IPV4, OtherGroups as RawOther, Port, PortStats, Slot, Vanished},
    control::{ControlCounts, ReportCounts},
    slot::{self, DEAD, READY, Verdict},
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{
    clock::Clock,
    maps::Maps,
    policy, sys,
    table::{self, Entry, text},
    upgrade,
};
use crate::ledger::snapshot::{
    DirectionReading, GroupReading, KernelReading, OtherGroups, OverflowCounts, PodRef, PortReading, ReportVerdicts,
    RuleReading, Traffic,
};

/// Used slots that are this near to each other are read in one call: a call costs as much as a few elements.
const MAX_GAP: u32 = 4;
/// Elements a call at most: bounds the scratch memory.
const MAX_BATCH: u32 = 2048;

/// The totals of one slot over all CPUs and all verdicts that it had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotTotals {
    /// Admitted skbs.
    pub packets: u64,
    /// Admitted bytes.
    pub bytes: u64,
    /// Admitted segments.
    pub segments: u64,
    /// Denied skbs.
    pub dropped: u64,
    /// Changes of the source.
    pub source_changes: u64,
    /// Denied but not enforced.
    pub would_drop: u64,
    /// TTL or hop limit 1 or less.
    pub ttl1: u64,
    /// Low half of the youngest stamp; 0 = never under this ABI.
    pub last_seen: u32,
    /// Source of the packet of that stamp.
    pub source: [u8; 16],
}

impl SlotTotals {
    /// What the programs counted, by the slot's decision, on top of what is carried.
    fn new(carry: &Carry, decision: u16, counted: &Counted) -> Self {
        let mut totals = Self {
            packets: carry.packets,
            bytes: carry.bytes,
            segments: carry.segments,
            dropped: carry.dropped,
            source_changes: carry.source_changes + counted.source_changes,
            would_drop: carry.would_drop,
            ttl1: carry.ttl1 + counted.ttl1,
            last_seen: counted.last_seen,
            source: counted.source,
        };
        if counted.last_seen == 0 {
            totals.last_seen = carry.last_seen as u32;
        }
        match Verdict::of(decision) {
            Verdict::Allow => totals.admit(counted),
            Verdict::Drop => totals.dropped += counted.packets,
            Verdict::WouldDrop => {
                totals.admit(counted);
                totals.would_drop += counted.packets;
            }
        }
        totals
    }

    fn admit(&mut self, counted: &Counted) {
        self.packets += counted.packets;
        self.bytes += counted.bytes;
        self.segments += counted.segments;
    }

    /// The same as a carry, beside counters that begin anew.
    pub(super) fn carry(&self) -> Carry {
        Carry {
            packets: self.packets,
            bytes: self.bytes,
            segments: self.segments,
            dropped: self.dropped,
            would_drop: self.would_drop,
            ttl1: self.ttl1,
            source_changes: self.source_changes,
            last_seen: u64::from(self.last_seen),
        }
    }
}

/// What the counters of a slot hold, over all CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// skbs, whatever became of them.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their segments.
    pub segments: u64,
    ttl1: u64,
    source_changes: u64,
    last_seen: u32,
    source: [u8; 16],
}

/// A slot as it was read.
#[derive(Debug, Clone, Copy)]
pub struct SlotReading {
    /// Whose, and its decision.
    pub slot: Slot,
    /// What was counted under that decision.
    pub counted: Counted,
    /// All of it.
    pub totals: SlotTotals,
}

/// Reads slots; keeps its scratch memory from tick to tick.
#[derive(Debug)]
pub struct Reader {
    element: usize,
    keys: Vec<u32>,
    values: Vec<u64>,
}

impl Reader {
    /// A reader for these maps.
    pub fn new(maps: &Maps) -> Self {
        Self {
            element: sys::per_cpu_size::<Counter>(maps.cpus),
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    /// One slot.
    ///
    /// # Errors
    /// What bpf(2) returns.
    pub fn slot(&mut self, maps: &Maps, index: u32) -> io::Result<SlotReading> {
        let mut reading = None;
        self.range(maps, index, 1, |_, counted| {
            reading = Some(slot_reading(maps, index, counted))
        })?;
        reading.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Calls `each` with every slot that holds totals of its own (READY or DEAD), in ascending index.
    ///
    /// Hold the fold lock meanwhile.
    ///
    /// # Errors
    /// What bpf(2) returns.
    pub fn used(&mut self, maps: &Maps, mut each: impl FnMut(&SlotReading)) -> io::Result<()> {
        let used: Vec<u32> = (0..maps.slots.len())
            .filter(|index| matches!(slot::state_of(maps.slots.first_word(*index)), READY | DEAD))
            .collect();
        for (start, end) in ranges(&used) {
            let mut wanted = used
                .get(used.partition_point(|index| *index < start)..)
                .unwrap_or_default()
                .iter();
            let mut next = wanted.next();
            self.range(maps, start, end - start, |index, counted| {
                if next == Some(&index) {
                    next = wanted.next();
                    each(&slot_reading(maps, index, counted));
                }
            })?;
        }
        Ok(())
    }

    fn range(&mut self, maps: &Maps, start: u32, count: u32, mut each: impl FnMut(u32, Counted)) -> io::Result<()> {
        let words = self.element / 8;
        self.keys.resize(self.keys.len().max(count as usize), 0);
        self.values.resize(self.values.len().max(words * count as usize), 0);
        sys::lookup_batch(
            maps.counters(),
            start,
            count,
            self.element,
            &mut self.keys,
            &mut self.values,
        )?;
        for (index, values) in (start..start + count).zip(self.values.chunks_exact(words)) {
            each(index, sum(values));
        }
        Ok(())
    }
}

/// Runs of used slots with small gaps, each at most [`MAX_BATCH`] long, as (start, end).
fn ranges(used: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in used {
        match ranges.last_mut() {
            Some((start, end)) if *index <= *end + MAX_GAP && *index - *start < MAX_BATCH => *end = index + 1,
            _ => ranges.push((*index, index + 1)),
        }
    }
    ranges
}

/// The slot after its counters: whatever verdict they were counted under, it has that one now, unless the agent takes it
/// off, for which it needs the fold lock.
fn slot_reading(maps: &Maps, index: u32, counted: Counted) -> SlotReading {
    let slot = maps.slots.read(index);
    SlotReading {
        slot,
        counted,
        totals: SlotTotals::new(&maps.carried.read(index), slot.decision, &counted),
    }
}

/// Sums one element over the CPUs.
fn sum(values: &[u64]) -> Counted {
    let mut sum = Counted::default();
    for counter in values.chunks_exact(size_of::<Counter>() / 8) {
        let Ok(counter) = Counter::read_from_bytes(counter.as_bytes()) else {
            continue;
        };
        sum.packets += counter.packets;
        sum.bytes += counter.bytes;
        sum.segments += counter.segments;
        sum.ttl1 += counter.ttl1;
        sum.source_changes += counter.source_changes;
        // The younger of two stamps, over the wrap of the low half.
        let younger = sum.last_seen == 0 || (counter.last_seen.wrapping_sub(sum.last_seen) as i32) >= 0;
        if counter.last_seen != 0 && younger {
            (sum.last_seen, sum.source) = (counter.last_seen, counter.source);
        }
    }
    sum
}

/// One look at everything that the programs count.
#[derive(Debug)]
pub struct Reading {
    /// Every port that is counted.
    pub ports: Vec<PortReading>,
    /// Every rule and what it decided since its start, by slot.
    pub rules: Vec<RuleReading>,
    /// The kernel's health.
    pub kernel: KernelReading,
}

/// One reading of all ports, all rules, and of the kernel's health. A rule counts what its Pods' groups count, and both in
/// the same moment.
///
/// # Errors
/// What bpf(2) returns.
pub fn read(maps: &Maps, reader: &mut Reader, clock: &Clock) -> io::Result<Reading> {
    // No rule is retired meanwhile: a name without its counters would be a total that falls.
    let _rules = maps.policies();
    let _lock = maps.fold_lock();
    let mut of_rules = policy::InSlots::default();
    let entries = table::entries(maps);
    let mut ports: BTreeMap<u32, PortReading> = entries
        .iter()
        .filter(|entry| table::has_begun(entry))
        .map(|entry| (entry.port.id, port_reading(maps, entry, clock)))
        .collect();
    reader.used(maps, |SlotReading { slot, counted, totals }| {
        of_rules.add(slot.decision, counted);
        if let Some(port) = ports.get_mut(&slot.port) {
            let since = clock.fixed(slot.since).max(port.start);
            let reading = group_reading(slot, totals, since, clock);
            let direction = if slot.direction == 0 {
                &mut port.outbound
            } else {
                &mut port.inbound
            };
            direction.groups.push(reading);
        }
    })?;
    let ports = ports
        .into_values()
        .map(|mut port| {
            merge(&mut port.outbound.groups);
            merge(&mut port.inbound.groups);
            port
        })
        .collect();
    Ok(Reading {
        ports,
        rules: policy::read_rules(maps, &of_rules)?,
        kernel: kernel_reading(maps)?,
    })
}

/// The last reading of one port, before it is freed; `None` when its counting never began.
///
/// # Errors
/// What bpf(2) returns.
pub fn read_port(maps: &Maps, entry: &Entry, clock: &Clock) -> io::Result<Option<PortReading>> {
    let read = read(maps, &mut Reader::new(maps), clock)?;
    Ok(read.ports.into_iter().find(|port| port.id == entry.port.id))
}

/// Everything that a port has counted in one direction besides its slots; `at` is the position in `port_stats`.
pub(super) fn all_of(maps: &Maps, at: u32) -> PortStats {
    upgrade::sum(&maps.port_stats.read(at), &maps.port_carried.read(at))
}

/// The last reading of an interface that is remembered: all of it stands in *other groups*.
pub(super) fn vanished(gone: &Vanished, clock: &Clock) -> PortReading {
    let [outbound, inbound] = gone
        .stats
        .map(|stats| direction_reading(&stats, &PortStats::new_zeroed(), clock));
    described(&gone.port, outbound, inbound, clock)
}

/// The Pod that an entry names.
pub fn pod(port: &Port) -> PodRef {
    PodRef {
        namespace: text(&port.namespace).to_owned(),
        name: text(&port.pod).to_owned(),
        sandbox: text(&port.sandbox).to_owned(),
    }
}

fn port_reading(maps: &Maps, entry: &Entry, clock: &Clock) -> PortReading {
    let port = &entry.port;
    let direction = |direction: u32| {
        let at = 2 * entry.position + direction;
        direction_reading(&maps.port_stats.read(at), &maps.port_carried.read(at), clock)
    };
    described(port, direction(0), direction(1), clock)
}

fn described(port: &Port, outbound: DirectionReading, inbound: DirectionReading, clock: &Clock) -> PortReading {
    PortReading {
        id: port.id,
        pod: pod(port),
        interface: text(&port.interface).to_owned(),
        host_interface: text(&port.host_interface).to_owned(),
        ifindex: port.ifindex,
        start: Timestamp::from_millisecond(port.start_ms as i64).unwrap_or(clock.now),
        outbound,
        inbound,
    }
}

fn direction_reading(stats: &PortStats, carried: &PortStats, clock: &Clock) -> DirectionReading {
    let [ipv4, ipv6] = stats.other;
    let [carried4, carried6] = carried.other;
    DirectionReading {
        groups: Vec::new(),
        other: [other(&ipv4, &carried4, clock), other(&ipv6, &carried6, clock)],
        control: add_control(&stats.control, &carried.control),
        reports: reports(&stats.reports, &carried.reports),
        foreign_source: stats.foreign_source + carried.foreign_source,
        overflow: OverflowCounts {
            port_limit: stats.port_limit + carried.port_limit,
            fair_share: stats.fair_share + carried.fair_share,
            window_full: stats.window_full + carried.window_full,
            contended: stats.contended + carried.contended,
        },
        events_limited: stats.events_limited + carried.events_limited,
    }
}

fn reports(now: &ReportCounts, carried: &ReportCounts) -> ReportVerdicts {
    ReportVerdicts {
        records: now.records + carried.records,
        dropped_messages: now.dropped_messages + carried.dropped_messages,
        dropped_records: now.dropped_records + carried.dropped_records,
        would_drop_messages: now.would_drop_messages + carried.would_drop_messages,
        would_drop_records: now.would_drop_records + carried.would_drop_records,
    }
}

fn other(now: &RawOther, carried: &RawOther, clock: &Clock) -> OtherGroups {
    OtherGroups {
        admitted: Traffic {
            packets: now.packets + carried.packets,
            segments: now.segments + carried.segments,
            bytes: now.bytes + carried.bytes,
        },
        dropped: now.dropped + carried.dropped,
        would_drop: now.would_drop + carried.would_drop,
        ttl1: now.ttl1 + carried.ttl1,
        last_seen: clock.recent64(now.last_seen.max(carried.last_seen)),
    }
}

/// Adds counter by counter. Both are plain u64, as the kernel sees them too.
pub fn add_control(a: &ControlCounts, b: &ControlCounts) -> ControlCounts {
    let mut sum = *a;
    for (to, from) in sum.as_mut_bytes().chunks_exact_mut(8).zip(b.as_bytes().chunks_exact(8)) {
        if let (Ok(old), Ok(more)) = (<[u8; 8]>::try_from(&*to), <[u8; 8]>::try_from(from)) {
            to.copy_from_slice(&(u64::from_ne_bytes(old).wrapping_add(u64::from_ne_bytes(more))).to_ne_bytes());
        }
    }
    sum
}

fn group_reading(slot: &Slot, totals: &SlotTotals, since: Timestamp, clock: &Clock) -> GroupReading {
    let keyed = slot.source != [0; 16];
    GroupReading {
        group: address(slot.family, &slot.group),
        source: keyed.then(|| address(slot.family, &slot.source)),
        admitted: Traffic {
            packets: totals.packets,
            segments: totals.segments,
            bytes: totals.bytes,
        },
        dropped: totals.dropped,
        would_drop: totals.would_drop,
        ttl1: totals.ttl1,
        last_source: (totals.source != [0; 16]).then(|| address(slot.family, &totals.source)),
        source_changes: totals.source_changes,
        last_seen: clock.recent(totals.last_seen),
        since,
    }
}

/// An address of the maps.
pub fn address(family: u8, bytes: &[u8; 16]) -> IpAddr {
    if family == IPV4 {
        let [.., a, b, c, d] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(*bytes))
    }
}

/// Sorts, and adds up two slots of one key (legal: see the ADR on slots).
fn merge(groups: &mut Vec<GroupReading>) {
    groups.sort_by_key(|reading| (reading.group, reading.source));
    groups.dedup_by(|next, kept| {
        let same = (next.group, next.source) == (kept.group, kept.source);
        if same {
            add_group(kept, next);
        }
        same
    });
}

fn add_group(to: &mut GroupReading, from: &GroupReading) {
    to.admitted.packets += from.admitted.packets;
    to.admitted.segments += from.admitted.segments;
    to.admitted.bytes += from.admitted.bytes;
    to.dropped += from.dropped;
    to.would_drop += from.would_drop;
    to.ttl1 += from.ttl1;
    to.source_changes += from.source_changes;
    if from.last_seen > to.last_seen {
        (to.last_seen, to.last_source) = (from.last_seen, from.last_source);
    }
    to.since = to.since.min(from.since);
}

fn kernel_reading(maps: &Maps) -> io::Result<KernelReading> {
    let element = sys::per_cpu_size::<EventCounts>(maps.cpus);
    let mut values = vec![0u64; element / 8];
    sys::lookup_batch(maps.event_counts(), 0, 1, element, &mut [0], &mut values)?;
    let mut reading = KernelReading {
        slots_used: maps
            .setting(offset_of!(mcstat_common::abi::Settings, slots_used))
            .load(Ordering::Acquire),
        slots_max: u64::from(maps.slots.len()),
        ..KernelReading::default()
    };
    for cpu in values.chunks_exact(size_of::<EventCounts>() / 8) {
        if let Ok(counts) = EventCounts::read_from_bytes(cpu.as_bytes()) {
            reading.events_handed += counts.handed;
            reading.events_lost += counts.lost;
            reading.events_limited += counts.limited;
        }
    }
    Ok(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_near_slots_and_bound_their_length() {
        assert_eq!(ranges(&[]), []);
        assert_eq!(ranges(&[3]), [(3, 4)]);
        assert_eq!(ranges(&[0, 1, 2, 6, 7]), [(0, 8)]);
        assert_eq!(ranges(&[0, 5, 6]), [(0, 7)]);
        assert_eq!(ranges(&[0, 6]), [(0, 1), (6, 7)]);
        let all: Vec<u32> = (0..5000).collect();
        assert_eq!(ranges(&all), [(0, 2048), (2048, 4096), (4096, 5000)]);
    }
}
