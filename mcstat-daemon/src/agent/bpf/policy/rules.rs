//! The rules in the maps: `rule_names` says which, `rules` what each decided on each CPU.
//!
//! A name lives as long as the rule is for any Pod, over restarts of the agent: so does its slot, so do its totals. What the
//! kernel never sees, queries that the switch drops, is written down beside the name.

use std::{
    collections::BTreeMap,
    io,
    mem::offset_of,
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;
use mcstat_common::{
    abi::{RULE_ALLOW, RULE_CLUSTER, RULE_DROP, RULE_FLOW_DROPS, RULE_NAMESPACED, RuleCounter, RuleName},
    policy::MAX_RULE_SLOT,
    slot,
};
use zerocopy::FromZeros;

use super::{
    super::{
        maps::Maps,
        read::Counted,
        sys,
        table::{put, text},
    },
    PolicyError, system,
};
use crate::ledger::{
    Queried,
    snapshot::{RuleFlow, RuleReading, Traffic, WouldDrop},
    switch::Verdict,
    verdict::{Action, Kind, ObjectKey, RuleId, RuleRow},
};

/// Counters of a rule that are added up; the last word of [`RuleCounter`] is no total.
const TOTALS: usize = size_of::<RuleCounter>() / 8 - 1;

const _: () = assert!(offset_of!(RuleCounter, last_message) == 8 * TOTALS);

/// What slots count of rules: for each rule that decides in any, as in [`RuleCounter`].
#[derive(Debug, Default)]
pub(in super::super) struct InSlots(BTreeMap<u16, [u64; TOTALS]>);

impl InSlots {
    /// Adds what a slot of this decision counts.
    pub(in super::super) fn add(&mut self, decision: u16, counted: &Counted) {
        let rule = decision & MAX_RULE_SLOT;
        if rule == 0 {
            return;
        }
        let [packets, segments, bytes, .., would_packets, _, _] = self.0.entry(rule).or_default();
        if slot::Verdict::of(decision) == slot::Verdict::WouldDrop {
            *would_packets += counted.packets;
        } else {
            *packets += counted.packets;
            *segments += counted.segments;
            *bytes += counted.bytes;
        }
    }
}

/// Every rule and what it decided since its start, by slot. The policies are locked.
///
/// # Errors
/// What bpf(2) returns.
pub(in super::super) fn read_rules(maps: &Maps, in_slots: &InSlots) -> io::Result<Vec<RuleReading>> {
    let rows: Vec<_> = rows(maps).collect();
    read(maps, rows, in_slots)
}

/// Rules whose name is there, with the name, by slot.
pub(super) fn rows(maps: &Maps) -> impl Iterator<Item = (RuleRow, RuleName)> {
    let taken = (1..maps.rule_names.len()).filter(|slot| maps.rule_names.first_word(*slot) != 0);
    taken.map(|slot| {
        let name = maps.rule_names.read(slot);
        (row(slot as u16, &name), name)
    })
}

/// Writes names. A rule that is new has its counters zeroed before; one that only changes keeps them.
pub(super) fn write(maps: &Maps, rows: &[RuleRow], now: Timestamp) -> Result<(), PolicyError> {
    let _lock = maps.policies();
    for row in rows {
        let slot = u32::from(row.slot);
        let known = maps.rule_names.read(slot);
        let mut name = describe(row);
        if known.kind != 0 && known.uid == name.uid && known.rule == name.rule {
            (name.start_ms, name.carried) = (known.start_ms, known.carried);
            (name.flow, name.flow_packets, name.flow_bytes) = (known.flow, known.flow_packets, known.flow_bytes);
        } else {
            free(maps, slot).map_err(system("zeroing the counters of a rule"))?;
            name.start_ms = now.as_millisecond() as u64;
        }
        publish(maps, slot, name);
    }
    Ok(())
}

/// Reads rules for the last time and frees their slots. No set names them, an RCU wait is over, and no slot of `slots` has
/// a decision of theirs.
pub(super) fn retire(maps: &Maps, retired: &[RuleRow]) -> Result<Vec<RuleReading>, PolicyError> {
    let _lock = maps.policies();
    let taken = retired.iter().filter_map(|row| {
        let name = maps.rule_names.read(u32::from(row.slot));
        (name.kind != 0).then(|| (row.clone(), name))
    });
    let readings =
        read(maps, taken.collect(), &InSlots::default()).map_err(system("reading rules for the last time"))?;
    for row in retired {
        free(maps, u32::from(row.slot)).map_err(system("zeroing the counters of a rule"))?;
    }
    Ok(readings)
}

/// Writes down what rules on queries counted. A rule that is gone meanwhile has been read for the last time: nothing is
/// written. Should the process die halfway, queries may be missing, and none is counted twice.
pub fn write_queried(maps: &Maps, queried: impl Iterator<Item = Queried>) {
    let _lock = maps.policies();
    for queried in queried {
        let slot = u32::from(queried.slot);
        let name = maps.rule_names.read(slot);
        let same = name.kind != 0
            && name.start_ms == queried.start.as_millisecond() as u64
            && text(&name.uid) == &*queried.id.uid
            && text(&name.rule) == &*queried.id.name;
        if !same {
            continue;
        }
        let word = |offset| maps.rule_names.word(slot, offset);
        // Without a flow nothing is added at the next start; the totals come last.
        word(offset_of!(RuleName, flow)).store(0, Ordering::Release);
        word(offset_of!(RuleName, flow_packets)).store(queried.flow.packets, Ordering::Release);
        word(offset_of!(RuleName, flow_bytes)).store(queried.flow.bytes, Ordering::Release);
        word(offset_of!(RuleName, flow)).store(flow_word(queried.flow), Ordering::Release);
        let carried = |counter: usize| word(offset_of!(RuleName, carried) + counter);
        for (counter, more) in [
            (offset_of!(RuleCounter, messages), queried.more.messages),
            (offset_of!(RuleCounter, message_bytes), queried.more.bytes),
            (offset_of!(RuleCounter, records), queried.more.records),
        ] {
            carried(counter).fetch_add(more, Ordering::AcqRel);
        }
    }
}

fn flow_word(flow: RuleFlow) -> u64 {
    let drops = match flow.verdict {
        Verdict::Allow => 0,
        Verdict::Drop => RULE_FLOW_DROPS,
    };
    u64::from(flow.conjunction) | drops
}

fn flow(name: &RuleName) -> Option<RuleFlow> {
    (name.flow != 0).then_some(RuleFlow {
        conjunction: name.flow as u32,
        verdict: if name.flow & RULE_FLOW_DROPS == 0 {
            Verdict::Allow
        } else {
            Verdict::Drop
        },
        packets: name.flow_packets,
        bytes: name.flow_bytes,
    })
}

/// The name goes first: what has none is zeroed before it is used again.
fn free(maps: &Maps, slot: u32) -> io::Result<()> {
    publish(maps, slot, RuleName::new_zeroed());
    let zeroes = vec![0u64; sys::per_cpu_size::<RuleCounter>(maps.cpus) / 8];
    sys::update_per_cpu(maps.rules(), slot, &zeroes)
}

/// Replaces a name; its first word, by which it is there at all, last.
pub(super) fn publish(maps: &Maps, slot: u32, mut name: RuleName) {
    let head = u64::from(name.kind) | u64::from(name.action) << 32;
    let first = maps.rule_names.word(slot, offset_of!(RuleName, kind));
    first.store(0, Ordering::Release);
    (name.kind, name.action) = (0, 0);
    maps.rule_names.write(slot, name);
    first.store(head, Ordering::Release);
}

fn read(maps: &Maps, rows: Vec<(RuleRow, RuleName)>, in_slots: &InSlots) -> io::Result<Vec<RuleReading>> {
    let totals = totals(maps, &rows, in_slots)?;
    let readings = rows.into_iter().zip(&totals);
    Ok(readings
        .map(|((row, name), totals)| reading(row, &name, totals))
        .collect())
}

/// What these rules counted, over all CPUs, slots and what is carried, in the order of the fields of [`RuleCounter`].
pub(super) fn totals(maps: &Maps, rows: &[(RuleRow, RuleName)], in_slots: &InSlots) -> io::Result<Vec<[u64; TOTALS]>> {
    let slots = rows.iter().map(|(row, _)| u32::from(row.slot));
    let (Some(first), Some(last)) = (slots.clone().min(), slots.clone().max()) else {
        return Ok(Vec::new());
    };
    let count = (last - first + 1) as usize;
    let element = sys::per_cpu_size::<RuleCounter>(maps.cpus);
    let mut values = vec![0u64; element / 8 * count];
    sys::lookup_batch(
        maps.rules(),
        first,
        count as u32,
        element,
        &mut vec![0; count],
        &mut values,
    )?;
    let elements: Vec<_> = values.chunks_exact(element / 8).collect();
    let totals = slots.zip(rows).map(|(slot, (row, name))| {
        let element = elements.get((slot - first) as usize).copied().unwrap_or_default();
        let mut sums = name.carried;
        if let Some(counted) = in_slots.0.get(&row.slot) {
            sums.iter_mut().zip(counted).for_each(|(sum, value)| *sum += value);
        }
        for cpu in element.chunks_exact(TOTALS + 1) {
            sums.iter_mut().zip(cpu).for_each(|(sum, value)| *sum += value);
        }
        sums
    });
    Ok(totals.collect())
}

fn reading(row: RuleRow, name: &RuleName, totals: &[u64; TOTALS]) -> RuleReading {
    let [
        packets,
        segments,
        bytes,
        messages,
        message_bytes,
        records,
        would_packets,
        would_messages,
        would_records,
    ] = *totals;
    RuleReading {
        row,
        start: Timestamp::from_millisecond(name.start_ms as i64).unwrap_or(Timestamp::UNIX_EPOCH),
        data: Traffic {
            packets,
            segments,
            bytes,
        },
        messages,
        message_bytes,
        records,
        would_drop: WouldDrop {
            packets: would_packets,
            messages: would_messages,
            records: would_records,
        },
        flow: flow(name),
    }
}

fn describe(row: &RuleRow) -> RuleName {
    let mut name = RuleName::new_zeroed();
    name.kind = match row.policy.kind {
        Kind::NetworkPolicy => RULE_NAMESPACED,
        _ => RULE_CLUSTER,
    };
    name.action = match row.action {
        Action::Allow => RULE_ALLOW,
        Action::Drop => RULE_DROP,
    };
    put(&mut name.namespace, &row.policy.namespace);
    put(&mut name.policy, &row.policy.name);
    put(&mut name.uid, &row.id.uid);
    put(&mut name.rule, &row.id.name);
    name
}

fn row(slot: u16, name: &RuleName) -> RuleRow {
    let shared = |field: &[u8]| -> Arc<str> { text(field).into() };
    RuleRow {
        slot,
        id: RuleId {
            uid: shared(&name.uid),
            name: shared(&name.rule),
        },
        policy: ObjectKey {
            kind: if name.kind == RULE_NAMESPACED {
                Kind::NetworkPolicy
            } else {
                Kind::ClusterNetworkPolicy
            },
            namespace: shared(&name.namespace),
            name: shared(&name.policy),
        },
        action: if name.action == RULE_DROP {
            Action::Drop
        } else {
            Action::Allow
        },
    }
}
