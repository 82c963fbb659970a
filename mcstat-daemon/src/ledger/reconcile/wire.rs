//! What a port's veth has counted that the switch counts too: IPv4 data of the Pod itself, as it was and as it is.
//!
//! The history is as long as the lag, and a few readings at most. Foreign sources are left out of packets; their bytes
//! are not known and are left in. Where policies are judged, only what they admitted is counted, and whether foreign frames are
//! in it is not known.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
};

use jiff::{SignedDuration, Timestamp};

use crate::ledger::{
    membership::after,
    snapshot::{DirectionReading, PortReading, Traffic},
    totals::Totals,
};

/// Readings kept at most: ticks much shorter than the lag need no finer history.
const MAX_READINGS: usize = 64;

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Packets.
    pub(super) packets: u64,
    /// Bytes, Ethernet header included.
    pub(super) bytes: u64,
}

impl Count {
    /// The sum.
    pub(super) fn plus(self, more: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(more.packets),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    /// The growth; 0 where there is none.
    pub(super) fn minus(self, less: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(less.packets),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

/// What the veth counted, as of one reading.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wire {
    /// What the Pod sent, foreign sources left out of the packets; judged: what of it was admitted.
    pub(super) outbound: Count,
    /// Whether policies are judged.
    pub(super) judged: bool,
    /// What was handed to it.
    pub(super) inbound: Count,
    /// When the last IPv4 data packet was sent.
    pub(super) outbound_seen: Option<Timestamp>,
    /// When the last one was handed over.
    pub(super) inbound_seen: Option<Timestamp>,
    /// Segments beyond packets, sent.
    pub(super) extra_segments: u64,
    /// Frames with a source that is not the Pod's.
    pub(super) foreign: u64,
    /// Packets that were denied, foreign frames among them.
    pub(super) dropped: u64,
    /// Packets sent that got no slot: to which group is not known.
    pub(super) unslotted: u64,
}

impl Wire {
    /// The sums of one reading.
    pub(super) fn of(reading: &PortReading, judged: bool) -> Self {
        let (outbound, inbound) = (Totals::of(&reading.outbound), Totals::of(&reading.inbound));
        let ([sent, _], [handed, _]) = (outbound.families, inbound.families);
        let overflow = outbound.overflow;
        let unslotted = [
            overflow.port_limit,
            overflow.fair_share,
            overflow.window_full,
            overflow.contended,
        ];
        let all = sent.admitted.packets.saturating_add(sent.dropped);
        let own = all.saturating_sub(outbound.foreign_source);
        Self {
            outbound: Count {
                packets: if judged { sent.admitted.packets } else { own },
                bytes: sent.admitted.bytes,
            },
            judged,
            inbound: Count {
                packets: handed.admitted.packets,
                bytes: handed.admitted.bytes,
            },
            outbound_seen: sent.last_seen,
            inbound_seen: handed.last_seen,
            extra_segments: sent.admitted.segments.saturating_sub(sent.admitted.packets),
            foreign: outbound.foreign_source,
            dropped: sent.dropped,
            unslotted: unslotted.into_iter().fold(0, u64::saturating_add),
        }
    }
}

impl Wire {
    /// Whether what was counted since `before` is what the switch counts. Judged, foreign frames are in it unless the switch
    /// drops them at once; not judged, the rules of before may still deny what it lets pass.
    pub(super) fn is_clear(&self, before: &Self) -> bool {
        let foreign = self.foreign.saturating_sub(before.foreign);
        let dropped = self.dropped.saturating_sub(before.dropped);
        if self.judged { foreign == 0 } else { dropped <= foreign }
    }
}

/// What was compared at one tick: outbound as counted, inbound with the Pod's own copies added.
#[derive(Debug, Clone, Copy)]
struct Past {
    at: Timestamp,
    outbound: Count,
    inbound: Count,
}

/// Earlier readings of one port, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Past>);

impl History {
    /// The newest reading that was taken no later than `at`, outbound and inbound. Before all readings nothing is known:
    /// counters were at least 0.
    pub(super) fn until(&self, at: Timestamp) -> [Count; 2] {
        let past = self.0.iter().rev().find(|past| past.at <= at);
        past.map_or_else(Default::default, |past| [past.outbound, past.inbound])
    }

    /// Adds the newest reading and lets go of those that no later tick can ask for. When time jumped back, nothing
    /// before it can be compared.
    pub(super) fn push(&mut self, at: Timestamp, [outbound, inbound]: [Count; 2], lag: SignedDuration) {
        if self.0.back().is_some_and(|last| last.at > at) {
            self.0.clear();
        }
        self.0.push_back(Past { at, outbound, inbound });
        let old = after(at, -lag);
        while self.0.len() > MAX_READINGS || self.0.get(1).is_some_and(|second| second.at <= old) {
            self.0.pop_front();
        }
    }
}

/// What a port has sent to each IPv4 group, counted on over slots that end.
#[derive(Debug, Default)]
pub(super) struct Sent(Vec<Group>);

#[derive(Debug, Clone, Copy)]
struct Group {
    address: Ipv4Addr,
    last: Traffic,
    growth: Traffic,
    total: u64,
    seen: Option<Timestamp>,
}

impl Sent {
    /// Takes in one reading. The first one of a port is where it begins: growth is of what came after it.
    pub(super) fn update(&mut self, reading: &DirectionReading, first: bool) {
        let before = std::mem::replace(&mut self.0, sums(reading));
        let mut before = before.into_iter().peekable();
        for group in &mut self.0 {
            while before.next_if(|known| known.address < group.address).is_some() {}
            let known = before.next_if(|known| known.address == group.address);
            group.grow(known, first);
        }
    }

    /// What was sent to the group since the reading before.
    pub(super) fn growth(&self, group: Ipv4Addr) -> Traffic {
        self.get(group).map_or_else(Traffic::default, |group| group.growth)
    }

    /// When the last packet was sent to the group.
    pub(super) fn seen(&self, group: Ipv4Addr) -> Option<Timestamp> {
        self.get(group)?.seen
    }

    /// Whether the group has a slot that has counted something.
    pub(super) fn is_sent(&self, group: Ipv4Addr) -> bool {
        self.get(group).is_some_and(|group| group.last.packets > 0)
    }

    /// Every group with its growth since the first reading, and of that since the one before.
    pub(super) fn groups(&self) -> impl Iterator<Item = (Ipv4Addr, u64, u64)> {
        let groups = self.0.iter();
        groups.map(|group| (group.address, group.total, group.growth.packets))
    }

    fn get(&self, group: Ipv4Addr) -> Option<&Group> {
        let index = self.0.binary_search_by_key(&group, |known| known.address).ok()?;
        self.0.get(index)
    }
}

impl Group {
    fn grow(&mut self, known: Option<Self>, first: bool) {
        let last = known.map_or_else(Traffic::default, |known| known.last);
        // Less than before: the slot was folded and began again.
        let again = self.last.packets < last.packets;
        let since = if again { Traffic::default() } else { last };
        if !first {
            self.growth = Traffic {
                packets: self.last.packets.saturating_sub(since.packets),
                segments: self.last.segments.saturating_sub(since.segments),
                bytes: self.last.bytes.saturating_sub(since.bytes),
            };
        }
        let total = known.map_or(0, |known| known.total);
        self.total = total.saturating_add(self.growth.packets);
    }
}

/// Each IPv4 group once, in ascending address.
fn sums(reading: &DirectionReading) -> Vec<Group> {
    let groups = reading.groups.iter().filter_map(|series| match series.group {
        IpAddr::V4(address) => Some(Group {
            address,
            last: series.admitted,
            growth: Traffic::default(),
            total: 0,
            seen: series.last_seen,
        }),
        IpAddr::V6(_) => None,
    });
    let mut groups: Vec<Group> = groups.collect();
    groups.sort_by_key(|group| group.address);
    groups.dedup_by(|source, sum| {
        let same = source.address == sum.address;
        if same {
            sum.last.packets = sum.last.packets.saturating_add(source.last.packets);
            sum.last.segments = sum.last.segments.saturating_add(source.last.segments);
            sum.last.bytes = sum.last.bytes.saturating_add(source.last.bytes);
            sum.seen = sum.seen.max(source.seen);
        }
        same
    });
    groups
}
