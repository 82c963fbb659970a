//! One direction of one port: its baseline, what was off, what of that is accounted for and by which cause, what is booked.
//!
//! ```text
//!  reading ─▶ begin    there is no baseline, or none that holds
//!          ─▶ paused   the switch's counter is blurred: nothing is compared, then a new baseline
//!          ─▶ compared what is off twice in a row ─▶ named by the port ─▶ settle
//! ```
//! Promises that what is booked never falls and never exceeds what is certain.

mod written;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    track::{Range, Track},
    wire::Count,
};
use crate::{
    api::ledgers::{Cause, Reason},
    ledger::{membership::after, snapshot::Direction, switch::FlowCount},
};

/// Ticks that must agree after a restart before the ledgers are said to agree.
const AFTER_RESTART: u8 = 2;
/// The same after any other baseline.
const AFTER_BASELINE: u8 = 1;

/// One tick of one direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// The switch's counter.
    pub(super) flow: FlowCount,
    /// How many flows make it up.
    pub(super) flows: usize,
    /// What it is compared with: at least what it was when the switch counted last, and at most.
    pub(super) wire: [Count; 2],
    /// What the veth itself counted.
    pub(super) shown: Count,
    /// Bytes cannot be compared at this tick: foreign frames are in them.
    pub(super) bytes_blurred: bool,
}

/// When and under which circumstances a tick compares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The time of the snapshot.
    pub(super) now: Timestamp,
    /// Just before the switch was asked.
    pub(super) before: Timestamp,
    /// How late the switch's counters may be.
    pub(super) lag: SignedDuration,
    /// The switch may be another one than at the reading before.
    pub(super) restarted: bool,
}

/// Why a counter is blurred. The later one is the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blur {
    /// What of the veth's count the switch counts is not known: the Pod's own copies, or packets that were denied.
    Own,
    /// Buckets changed.
    Membership,
    /// mcstat's programs were off.
    Unattached,
    /// The flow was added again.
    Again,
}

/// What a tick found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Off at this tick and the one before; positive: missing behind the first of the two counters.
    pub(super) packets: i64,
    /// The same in bytes; 0 while it is not certain.
    pub(super) bytes: i64,
    /// Off at this tick.
    pub(super) off: i64,
    /// What the packets changed by since the baseline, at least and at most.
    pub(super) packet_change: Range,
    /// The same in bytes.
    pub(super) byte_change: Range,
}

/// What was attributed to one cause. Positive: missing; negative: too many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Packets.
    pub(super) packets: i64,
    /// Bytes, where they are known.
    pub(super) bytes: Option<i64>,
    /// Since when it is listed.
    pub(super) since: Timestamp,
    /// When it changed last.
    pub(super) changed: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Base {
    packets: Track,
    bytes: Track,
    flow: FlowCount,
    flows: usize,
    since: Timestamp,
    wire: Count,
    switch: Count,
    /// What is shown as of the last reading.
    shown: [Count; 2],
}

/// The state of one direction.
#[derive(Debug)]
pub(super) struct Side {
    direction: Direction,
    /// The veth's own account has what rules dropped: nothing is booked.
    judged: bool,
    base: Option<Base>,
    paused: Option<(Blur, Timestamp)>,
    /// Ticks that must still agree, and what is said until then.
    settling: Option<(u8, Reason)>,
    restarted: bool,
    reason: Reason,
    /// What bytes that come late belong to.
    catching_up: Option<Cause>,
    entries: BTreeMap<Cause, Entry>,
    known: bool,
    dropped: u64,
    grew: Option<Timestamp>,
}

impl Side {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            judged: false,
            base: None,
            paused: None,
            settling: None,
            restarted: false,
            reason: Reason::NoSwitchLedger,
            catching_up: None,
            entries: BTreeMap::new(),
            known: false,
            dropped: 0,
            grew: None,
        }
    }

    /// Whether the veth's own account has what rules dropped. Another count is compared then: no baseline survives a change.
    pub(super) fn judge(&mut self, judged: bool) {
        if judged != self.judged {
            self.judged = judged;
            self.base = None;
            self.paused = None;
        }
    }

    /// There is nothing to compare with, and no baseline survives that.
    pub(super) fn absent(&mut self, reason: Reason) {
        self.base = None;
        self.paused = None;
        self.reason = reason;
    }

    /// The switch is away: what it had counted may be compared again, to say what became of it.
    pub(super) fn away(&mut self) {
        self.rest();
        self.reason = Reason::SwitchAway;
    }

    /// The table is there and the Pod's flow is not.
    pub(super) fn no_flow(&mut self, wire: [Count; 2], moment: &Moment) {
        self.restarted |= moment.restarted;
        self.reason = if self.restarted {
            Reason::SwitchRestarted
        } else {
            Reason::NoFlow
        };
        if self.restarted {
            // It may come back; what it had counted tells then what was lost.
            self.rest();
        } else if let Some(base) = self.base.take() {
            // No lag is allowed for: a counter that is gone catches up with nothing.
            let [packets, bytes] = ranges(self.direction, wire, base.flow);
            let most = |track: Track, seen| match self.direction {
                Direction::Outbound => track.change(seen).high.max(0),
                Direction::Inbound => track.change(seen).low.min(0),
            };
            let (packets, bytes) = (most(base.packets, packets), most(base.bytes, bytes));
            self.list(Cause::UnpushedLost, packets, Some(bytes), moment.now);
            self.paused = None;
        }
    }

    /// The switch's counter is blurred from the tick before until its lag has passed.
    pub(super) fn blur(&mut self, blur: Blur, now: Timestamp) {
        let blur = self.paused.map_or(blur, |(before, _)| before.max(blur));
        self.paused = Some((blur, now));
        self.rest();
    }

    /// Takes in one reading; `None` while nothing can be compared.
    pub(super) fn take(&mut self, reading: &Reading, moment: &Moment) -> Option<Found> {
        self.known = true;
        let seen = ranges(self.direction, reading.wire, reading.flow);
        let restarted = std::mem::take(&mut self.restarted) || moment.restarted;
        let Some(mut base) = self.base else {
            let why = if restarted {
                Reason::SwitchRestarted
            } else {
                Reason::Baseline
            };
            self.begin(reading, seen, why, moment.now);
            return None;
        };
        let fell = reading.flow.packets < base.flow.packets;
        let younger = reading.flow.duration < base.flow.duration;
        if restarted || fell || reading.flows != base.flows {
            let lived_on = restarted && !fell && !younger;
            let cause = if lived_on { Cause::SwitchAway } else { Cause::FlowReset };
            self.list_off(&base, seen, cause, moment.now);
            self.begin(reading, seen, Reason::SwitchRestarted, moment.now);
            return None;
        }
        if younger || reading.flow.cookie != base.flow.cookie {
            self.blur(Blur::Again, moment.now);
        }
        base.flow = reading.flow;
        base.shown = [reading.shown, count(reading.flow)];
        if reading.bytes_blurred {
            base.bytes = Track::begin(seen[1]);
        }
        self.base = Some(base);
        if self.is_paused(&base, seen, moment) {
            return None;
        }
        self.compare(base, seen)
    }

    /// Attributes packets and bytes to a cause. Drops are booked, unless the veth's own account has them.
    pub(super) fn settle(&mut self, cause: Cause, packets: i64, bytes: Option<i64>, now: Timestamp) {
        if let Some(base) = &mut self.base {
            base.packets.shift(packets);
            base.bytes.shift(bytes.unwrap_or(0));
        }
        if cause.is_drop() && packets > 0 && !self.judged {
            self.dropped = self.dropped.saturating_add(packets.unsigned_abs());
            self.grew = Some(now);
        }
        if packets != 0 {
            self.catching_up = Some(cause);
        }
        let (packets, bytes) = self.heal(cause, packets, bytes, now);
        self.list(cause, packets, bytes, now);
    }

    /// What a cause accounts for altogether, where it is no difference that was found but known from elsewhere.
    pub(super) fn tell(&mut self, cause: Cause, count: Count, bytes_known: bool, now: Timestamp) {
        let packets = count.packets.cast_signed();
        let told = self.entries.get(&cause).map_or(0, |entry| entry.packets);
        if packets != told {
            let entry = Entry {
                packets,
                bytes: bytes_known.then_some(count.bytes.cast_signed()),
                since: self.entries.get(&cause).map_or(now, |entry| entry.since),
                changed: now,
            };
            self.entries.insert(cause, entry);
        }
    }

    /// Which cause bytes belong to that turned out to be off after their packets were accounted for.
    pub(super) fn catching_up(&self) -> Option<Cause> {
        self.catching_up
    }

    /// Packets booked as dropped; `None` before the first comparison, and while nothing could tell.
    pub(super) fn dropped(&self) -> Option<u64> {
        let told = !matches!(
            self.reason,
            Reason::NoSwitchLedger | Reason::NoMetricTables | Reason::NoIngressMetrics
        );
        (self.known && told).then_some(self.dropped)
    }

    /// When the booked drops grew last.
    pub(super) fn grew(&self) -> Option<Timestamp> {
        self.grew
    }

    /// Whether the last comparison was off: at the next one it would be accounted for.
    pub(super) fn is_off(&self) -> bool {
        self.base.is_some_and(|base| base.packets.is_off())
    }

    /// The reason of the verdict, where entries do not make another one.
    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    /// What is listed.
    pub(super) fn entries(&self) -> &BTreeMap<Cause, Entry> {
        &self.entries
    }

    /// Since when it is compared, and what veth and switch have counted since.
    pub(super) fn shown(&self) -> Option<(Timestamp, Count, Count)> {
        let base = self.base?;
        let [wire, switch] = base.shown;
        Some((base.since, wire.minus(base.wire), switch.minus(base.switch)))
    }

    fn begin(&mut self, reading: &Reading, [packets, bytes]: [Range; 2], why: Reason, now: Timestamp) {
        let switch = count(reading.flow);
        self.base = Some(Base {
            packets: Track::begin(packets),
            bytes: Track::begin(bytes),
            flow: reading.flow,
            flows: reading.flows,
            since: now,
            wire: reading.shown,
            switch,
            shown: [reading.shown, switch],
        });
        let ticks = if why == Reason::SwitchRestarted {
            AFTER_RESTART
        } else {
            AFTER_BASELINE
        };
        self.settling = Some((ticks, why));
        self.reason = why;
        self.paused = None;
        self.catching_up = None;
    }

    fn rest(&mut self) {
        if let Some(base) = &mut self.base {
            base.packets.rest();
            base.bytes.rest();
        }
    }

    /// Whether the counter is still blurred. When it no longer is, what is off now is named and a baseline begins.
    fn is_paused(&mut self, base: &Base, seen: [Range; 2], moment: &Moment) -> bool {
        let Some((blur, since)) = self.paused else { return false };
        if moment.before < after(since, moment.lag) && since <= moment.now {
            return true;
        }
        self.paused = None;
        let [packets, bytes] = seen;
        let fits = base.packets.off(packets) == 0 && base.bytes.off(bytes) == 0;
        match blur {
            // Added again, and its counters were kept.
            Blur::Again if fits => return false,
            Blur::Again => self.list_off(base, seen, Cause::FlowReset, moment.now),
            Blur::Membership => self.list_off(base, seen, Cause::MembershipChange, moment.now),
            Blur::Unattached => self.list_off(base, seen, Cause::NotAttached, moment.now),
            Blur::Own => {}
        }
        if let Some(base) = &mut self.base {
            (base.packets, base.bytes) = (Track::begin(packets), Track::begin(bytes));
        }
        true
    }

    fn compare(&mut self, mut base: Base, [packets, bytes]: [Range; 2]) -> Option<Found> {
        let found = Found {
            packet_change: base.packets.change(packets),
            byte_change: base.bytes.change(bytes),
            off: base.packets.off(packets),
            packets: base.packets.take(packets),
            bytes: base.bytes.take(bytes),
        };
        let exact = found.packet_change.is_exact() && found.byte_change.is_exact();
        let bytes_off = found.byte_change.low > 0 || found.byte_change.high < 0;
        self.base = Some(base);
        if found.off == 0 {
            self.settling = match self.settling {
                Some((ticks, why)) if ticks > 1 => Some((ticks - 1, why)),
                _ => None,
            };
            if exact && !bytes_off {
                self.catching_up = None;
            }
        }
        self.reason = self.settling.map_or(Reason::Agree, |(_, why)| why);
        let same = found.packets.signum() == found.bytes.signum();
        // Bytes alone are certain only when nothing is under way.
        let bytes = if same || (found.packets == 0 && exact) {
            found.bytes
        } else {
            0
        };
        Some(Found { bytes, ..found })
    }

    /// What came back takes away from what was missing for no known cause, or the other way round.
    fn heal(&mut self, cause: Cause, packets: i64, bytes: Option<i64>, now: Timestamp) -> (i64, Option<i64>) {
        let Some(entry) = self.entries.get_mut(&Cause::Unexplained) else {
            return (packets, bytes);
        };
        if cause != Cause::Unexplained || entry.packets.signum() * packets.signum() >= 0 {
            return (packets, bytes);
        }
        let healed = entry.packets.abs().min(packets.abs()) * packets.signum();
        entry.packets += healed;
        entry.changed = now;
        let rest = packets - healed;
        if entry.packets == 0 {
            self.entries.remove(&Cause::Unexplained);
        } else {
            entry.bytes = entry.bytes.zip(bytes).map(|(before, more)| before + more);
        }
        (rest, if rest == 0 { Some(0) } else { bytes })
    }

    fn list_off(&mut self, base: &Base, [packets, bytes]: [Range; 2], cause: Cause, now: Timestamp) {
        self.list(cause, base.packets.off(packets), Some(base.bytes.off(bytes)), now);
    }

    fn list(&mut self, cause: Cause, packets: i64, bytes: Option<i64>, now: Timestamp) {
        if packets == 0 && bytes.unwrap_or(0) == 0 {
            return;
        }
        let entry = self.entries.entry(cause).or_insert(Entry {
            packets: 0,
            bytes: Some(0),
            since: now,
            changed: now,
        });
        entry.packets = entry.packets.saturating_add(packets);
        entry.bytes = entry.bytes.zip(bytes).map(|(before, more)| before.saturating_add(more));
        entry.changed = now;
        if entry.packets == 0 && entry.bytes.unwrap_or(0) == 0 {
            self.entries.remove(&cause);
        }
    }
}

fn count(flow: FlowCount) -> Count {
    Count {
        packets: flow.packets,
        bytes: flow.bytes,
    }
}

/// Where the difference lies, packets and bytes: positive is what the second of the two counters misses.
fn ranges(direction: Direction, [old, now]: [Count; 2], flow: FlowCount) -> [Range; 2] {
    let (packets, bytes) = ([old.packets, now.packets], [old.bytes, now.bytes]);
    match direction {
        Direction::Outbound => [Range::above(packets, flow.packets), Range::above(bytes, flow.bytes)],
        Direction::Inbound => [Range::below(flow.packets, packets), Range::below(flow.bytes, bytes)],
    }
}
