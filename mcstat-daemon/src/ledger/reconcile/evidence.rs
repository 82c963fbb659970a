//! What speaks for a cause at one port, and how a difference is shared out among the causes that something speaks for.
//!
//! A counter that others feed too explains no more than the Pod itself can have lost by it: of a rule, what the Pod sent
//! to its groups; of a queue, what is missing at all.

use std::collections::BTreeMap;

use super::{
    buckets::{DropRules, covers},
    meter::Meter,
    side::Found,
    wire::{Sent, Wire},
};
use crate::{
    api::ledgers::Cause,
    ledger::{
        snapshot::{SwitchAccount, SwitchPort},
        switch::Verdict,
    },
};

/// Bytes of one more header: Ethernet, IPv4, UDP.
const HEADER: i64 = 14 + 20 + 8;

/// The counters that can explain what is missing of what the Pod sent.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// By rule: what it dropped, and what the Pod sent to its groups.
    rules: BTreeMap<u32, [Meter; 2]>,
    queue: Option<Meter>,
    segments: Meter,
    begun: bool,
}

impl Evidence {
    /// Takes in one tick.
    pub(super) fn update(
        &mut self,
        account: &SwitchAccount,
        rules: &DropRules<'_>,
        port: &SwitchPort,
        ifindex: u32,
        wire: &Wire,
        sent: &Sent,
    ) {
        let counters = account.switch.egress.as_ref();
        let dropped = |id| counters.and_then(|counters| counters.get(&(id, Verdict::Drop)));
        let mut before = std::mem::take(&mut self.rules);
        let rules = rules.of(&port.addresses, port.ofport);
        for (rule, dropped) in rules.filter_map(|rule| Some((rule, dropped(rule.id)?))) {
            if self.rules.contains_key(&rule.id) {
                continue;
            }
            let covered = sent.groups().filter(|(group, _, _)| covers(rule, *group));
            let (total, growth) = covered.fold((0, 0), |(total, growth), (_, more, new)| (total + more, growth + new));
            let known = before.remove(&rule.id);
            let [mut drops, mut own] = known.unwrap_or_else(|| {
                // A rule of which nothing was known: what it has dropped is of before, unless it came after the port.
                let from = if self.begun { 0 } else { dropped.packets };
                [Meter::new(from), Meter::new(total - growth)]
            });
            drops.update(dropped.packets);
            own.update(total);
            self.rules.insert(rule.id, [drops, own]);
        }
        if let Some(&drops) = account.queue_drops.get(&ifindex) {
            self.queue.get_or_insert(Meter::new(drops)).update(drops);
        }
        if !self.begun {
            self.segments = Meter::new(wire.extra_segments);
        }
        self.segments.update(wire.extra_segments);
        self.begun = true;
    }

    /// How much rules can explain.
    pub(super) fn ruled(&self) -> u64 {
        self.rules.values().map(explains).fold(0, u64::saturating_add)
    }

    /// Where nothing can be hidden in the difference any longer, older growth is no evidence.
    pub(super) fn agree(&mut self, found: &Found) {
        if found.off != 0 {
            return;
        }
        if found.packet_change.high <= 0 {
            self.rules.values_mut().flatten().for_each(Meter::agree);
            self.queue.iter_mut().for_each(Meter::agree);
        }
        if found.packet_change.low >= 0 {
            self.segments.agree();
        }
    }

    /// Shares out what is missing: rules, then the queue, then nothing known.
    pub(super) fn missing(&mut self, packets: u64) -> Vec<(Cause, u64)> {
        let (mut left, mut ruled) = (packets, 0);
        for meters in self.rules.values_mut() {
            let part = explains(meters).min(left);
            meters.iter_mut().for_each(|meter| meter.spend(part));
            (ruled, left) = (ruled + part, left - part);
        }
        let queued = self.queue.as_mut().map_or(0, |queue| {
            let part = queue.available().min(left);
            queue.spend(part);
            part
        });
        left -= queued;
        let parts = [
            (Cause::RuleDrop, ruled),
            (Cause::QueueOverflow, queued),
            (Cause::Unexplained, left),
        ];
        parts.into_iter().filter(|(_, part)| *part > 0).collect()
    }

    /// How many bytes the packets have that the switch has too many, if they are those of segmented ones: no more than
    /// there are segments, and exactly one header each. Spends the evidence if so.
    pub(super) fn segmented(&mut self, found: &Found) -> Option<i64> {
        let most = i64::try_from(self.segments.available()).unwrap_or(i64::MAX);
        let (packets, bytes) = (found.packet_change, found.byte_change);
        let least = found.packets.saturating_neg();
        let low = least.max(div_up(bytes.high.saturating_neg(), HEADER));
        let high = packets.low.saturating_neg().min(most);
        let high = high.min(bytes.low.saturating_neg().div_euclid(HEADER));
        let fits = least > 0 && low <= high;
        if fits {
            self.segments.spend(least.unsigned_abs());
        }
        fits.then_some(least * HEADER)
    }
}

fn explains([drops, own]: &[Meter; 2]) -> u64 {
    drops.available().min(own.available())
}

fn div_up(value: i64, by: i64) -> i64 {
    -(-value).div_euclid(by)
}

/// Shares bytes out as the packets are; the last part gets what rounding leaves.
pub(super) fn share_bytes(parts: &[(Cause, u64)], bytes: i64) -> Vec<i64> {
    let packets: u64 = parts.iter().map(|(_, packets)| packets).sum();
    let mut left = bytes;
    let mut shares = Vec::with_capacity(parts.len());
    for (index, (_, part)) in parts.iter().enumerate() {
        let share = if index + 1 == parts.len() {
            left
        } else {
            // A share of an i64 is one.
            (i128::from(bytes) * i128::from(*part) / i128::from(packets.max(1))) as i64
        };
        left -= share;
        shares.push(share);
    }
    shares
}
