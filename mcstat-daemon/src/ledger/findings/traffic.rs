//! What the claims need to know of counters over time, and of the whole node: growth, senders.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use super::{SENDING, within};
use crate::ledger::{
    growth::Growth,
    snapshot::{GroupReading, PortReading, Snapshot},
};

type Series = (IpAddr, Option<IpAddr>);

/// Counters as of the last tick, and when they grew.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    ports: BTreeMap<u32, PortTraffic>,
    /// Who sends to each group on this node now: the port, and the source address of its last packet.
    senders: BTreeMap<IpAddr, Vec<(u32, Option<IpAddr>)>>,
    /// What arrives of each group on this node now, likewise.
    arriving: BTreeMap<IpAddr, Vec<(u32, Option<IpAddr>)>>,
}

#[derive(Debug, Default)]
struct PortTraffic {
    ttl1: BTreeMap<Series, Growth>,
    /// Source changes of inbound series at the last tick, and whether they grew by more than one since.
    sources: BTreeMap<Series, (u64, bool)>,
    slot_limit: Growth,
}

impl Traffic {
    /// Takes in one tick. A series that is older than this ledger begins with what it has.
    pub(super) fn update(&mut self, snapshot: &Snapshot, started: Timestamp) {
        let now = snapshot.at;
        let mut before = std::mem::take(&mut self.ports);
        self.senders.clear();
        self.arriving.clear();
        for port in &snapshot.ports {
            let known = before.remove(&port.id);
            for (groups, active) in [
                (&port.outbound.groups, &mut self.senders),
                (&port.inbound.groups, &mut self.arriving),
            ] {
                for series in groups.iter().filter(|series| within(series.last_seen, SENDING, now)) {
                    active
                        .entry(series.group)
                        .or_default()
                        .push((port.id, series.source.or(series.last_source)));
                }
            }
            self.ports.insert(port.id, PortTraffic::next(known, port, started, now));
        }
    }

    /// Whether packets with TTL 1 were sent on this series within `span`.
    pub(super) fn sent_ttl1(&self, port: u32, series: &GroupReading, span: SignedDuration, now: Timestamp) -> bool {
        let growth = self
            .ports
            .get(&port)
            .and_then(|port| port.ttl1.get(&(series.group, series.source)));
        within(growth.and_then(Growth::grew), span, now)
    }

    /// Whether the last source of an inbound series stands for all of its packets since the last tick.
    pub(super) fn is_steady(&self, port: u32, series: &GroupReading) -> bool {
        let known = self
            .ports
            .get(&port)
            .and_then(|port| port.sources.get(&(series.group, series.source)));
        known.is_some_and(|(_, jumped)| !jumped)
    }

    /// When a packet last found the port's slots, or its fair share of the table, used up.
    pub(super) fn slot_limit(&self, port: u32) -> Option<Timestamp> {
        self.ports.get(&port)?.slot_limit.grew()
    }

    /// Whether somebody else than this Pod is known to send to the group: another port of the node sends, or another
    /// port receives what does not come from this Pod's own address.
    pub(super) fn others_send(&self, port: u32, group: IpAddr, own: Option<IpAddr>) -> bool {
        let other = |active: &BTreeMap<IpAddr, Vec<(u32, Option<IpAddr>)>>,
                     counts: fn(Option<IpAddr>, Option<IpAddr>) -> bool| {
            active
                .get(&group)
                .is_some_and(|seen| seen.iter().any(|(id, source)| *id != port && counts(*source, own)))
        };
        other(&self.senders, |_, _| true) || other(&self.arriving, |source, own| source.is_some() && source != own)
    }
}

impl PortTraffic {
    fn next(known: Option<Self>, port: &PortReading, started: Timestamp, now: Timestamp) -> Self {
        let fresh = known.is_none();
        let before = known.unwrap_or_default();
        // What an older process or an older series has counted is no growth that was seen.
        let first = |since: Timestamp, count: u64| if since >= started { 0 } else { count };
        let ttl1 = port.outbound.groups.iter().map(|series| {
            let key = (series.group, series.source);
            let known = before.ttl1.get(&key).copied();
            let mut growth = known.unwrap_or_else(|| Growth::from(first(series.since, series.ttl1)));
            growth.update(series.ttl1, now);
            (key, growth)
        });
        let sources = port.inbound.groups.iter().map(|series| {
            let key = (series.group, series.source);
            let changes = before
                .sources
                .get(&key)
                .map_or(series.source_changes, |(changes, _)| *changes);
            (
                key,
                (series.source_changes, series.source_changes > changes.saturating_add(1)),
            )
        });
        let refused = [&port.outbound, &port.inbound].map(|side| side.overflow);
        let refused = refused
            .iter()
            .flat_map(|overflow| [overflow.port_limit, overflow.fair_share])
            .fold(0, u64::saturating_add);
        let mut slot_limit = match fresh {
            true => Growth::from(first(port.start, refused)),
            false => before.slot_limit,
        };
        slot_limit.update(refused, now);
        Self {
            ttl1: ttl1.collect(),
            sources: sources.collect(),
            slot_limit,
        }
    }
}
