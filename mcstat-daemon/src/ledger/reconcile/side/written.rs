//! One direction written down for another process, and read again.
//!
//! Promises that nothing is booked twice and, as long as the switch's flow lives on, that nothing is forgotten: what was
//! lost between the two processes is still off the baseline. A blurred counter is no baseline and is not written down.

use std::time::Duration;

use jiff::Timestamp;
use mcstat_common::abi::SideBook;

use super::{
    super::{
        track::{Range, Track},
        wire::Count,
    },
    AFTER_BASELINE, Base, Side, count,
};
use crate::{
    api::ledgers::Reason,
    ledger::{snapshot::Direction, switch::FlowCount},
};

impl Side {
    /// What must not be lost. `own`: the Pod's own copies in what the veth is held to have counted.
    pub(in super::super) fn book(&self, own: Count) -> SideBook {
        let mut book = SideBook {
            flags: if self.known { SideBook::KNOWN } else { 0 },
            dropped: self.dropped,
            ..SideBook::default()
        };
        if let Some(base) = self.base.as_ref().filter(|_| self.paused.is_none()) {
            book.flags |= SideBook::BASELINE | if self.judged { SideBook::JUDGED } else { 0 };
            (book.switch_packets, book.switch_bytes) = (base.flow.packets, base.flow.bytes);
            let packets = wire_range(self.direction, base.packets.expected(), base.flow.packets, own.packets);
            let bytes = wire_range(self.direction, base.bytes.expected(), base.flow.bytes, own.bytes);
            [book.wire_packets_low, book.wire_packets_high] = packets;
            [book.wire_bytes_low, book.wire_bytes_high] = bytes;
            book.cookie = base.flow.cookie;
            book.duration_milliseconds = u64::try_from(base.flow.duration.as_millis()).unwrap_or(u64::MAX);
        }
        book
    }

    /// With what was booked, before the switch was read.
    pub(in super::super) fn booked(direction: Direction, book: &SideBook) -> Self {
        Self {
            known: book.flags & SideBook::KNOWN != 0,
            judged: book.flags & SideBook::JUDGED != 0,
            dropped: book.dropped,
            ..Self::new(direction)
        }
    }

    /// As it was written down; the first reading then is no baseline.
    pub(in super::super) fn restored(
        direction: Direction,
        book: &SideBook,
        flows: usize,
        shown: Count,
        now: Timestamp,
    ) -> Self {
        let mut side = Self::booked(direction, book);
        if book.flags & SideBook::BASELINE == 0 {
            return side;
        }
        let flow = FlowCount {
            packets: book.switch_packets,
            bytes: book.switch_bytes,
            duration: Duration::from_millis(book.duration_milliseconds),
            cookie: book.cookie,
        };
        let packets = [book.wire_packets_low, book.wire_packets_high];
        let bytes = [book.wire_bytes_low, book.wire_bytes_high];
        let range = |wire, switch| match direction {
            Direction::Outbound => Range::above(wire, switch),
            Direction::Inbound => Range::below(switch, wire),
        };
        let switch = count(flow);
        side.base = Some(Base {
            packets: Track::begin(range(packets, flow.packets)),
            bytes: Track::begin(range(bytes, flow.bytes)),
            flow,
            flows,
            since: now,
            wire: shown,
            switch,
            shown: [shown, switch],
        });
        side.settling = Some((AFTER_BASELINE, Reason::Baseline));
        side
    }
}

/// What the veth is held to have counted when the switch had counted `switch`.
fn wire_range(direction: Direction, expected: Range, switch: u64, own: u64) -> [u64; 2] {
    let [low, high] = match direction {
        Direction::Outbound => [expected.low, expected.high],
        Direction::Inbound => [-expected.high, -expected.low],
    };
    let wire = |difference: i64| switch.saturating_add_signed(difference).saturating_sub(own);
    [wire(low), wire(high)]
}
