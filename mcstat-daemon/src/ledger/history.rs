//! What a Pod sandbox has had and no longer has: interfaces that vanished, link-local series that ended.
//!
//! Promises that a Pod's totals never fall while its sandbox is listed, although interfaces go and series end. Forgets a
//! sandbox with the first snapshot that lists none of its interfaces. Over a restart of the agent the interfaces that vanished
//! are remembered for it; which of their packets were link-local is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;

use super::{
    snapshot::{DirectionReading, PodRef, PortReading, Snapshot},
    totals::{Totals, is_link_local},
};

/// Every sandbox of the last snapshot.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    ports: BTreeMap<PodRef, BTreeMap<u32, Port>>,
}

/// One interface, as of the last snapshot that listed it.
#[derive(Debug)]
struct Port {
    start: Timestamp,
    listed: bool,
    outbound: Direction,
    inbound: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    totals: Totals,
    link_local: LinkLocal,
}

/// Admitted packets of link-local groups. A folded slot's packets go to *other groups*, which no longer says which of
/// them were link-local; so what ends is remembered here.
#[derive(Debug, Default)]
struct LinkLocal {
    series: BTreeMap<(IpAddr, Option<IpAddr>), (Timestamp, u64)>,
    ended: u64,
}

/// The sums of a Pod since its `start`.
#[derive(Debug, Default)]
pub(super) struct PodTotals {
    /// What it sent.
    pub(super) outbound: Totals,
    /// What was handed to it.
    pub(super) inbound: Totals,
}

impl Sandboxes {
    /// Takes in what the snapshot lists and forgets the sandboxes that it does not.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        let counted = snapshot.ports.iter().map(|port| &port.pod);
        let listed: BTreeSet<_> = counted.chain(snapshot.uncounted.iter().map(|port| &port.pod)).collect();
        self.ports.retain(|pod, _| listed.contains(pod));
        self.ports
            .values_mut()
            .flat_map(BTreeMap::values_mut)
            .for_each(|port| port.listed = false);
        for reading in &snapshot.ports {
            // Almost always known: the names need not be copied again.
            match self.ports.get_mut(&reading.pod) {
                Some(ports) => Port::update(ports, reading),
                None => Port::update(self.ports.entry(reading.pod.clone()).or_default(), reading),
            }
        }
    }

    /// An interface that vanished before this process: its last reading.
    pub(super) fn remember(&mut self, reading: &PortReading) {
        let ports = self.ports.entry(reading.pod.clone()).or_default();
        Port::update(ports, reading);
        ports.values_mut().for_each(|port| port.listed = false);
    }

    /// When counting of this sandbox began: the earliest start of its interfaces, vanished ones included.
    pub(super) fn start(&self, pod: &PodRef) -> Option<Timestamp> {
        self.ports.get(pod)?.values().map(|port| port.start).min()
    }

    /// The sums over all interfaces that the sandbox has had; `None` when none was ever counted.
    pub(super) fn totals(&self, pod: &PodRef) -> Option<PodTotals> {
        let ports = self.ports.get(pod).filter(|ports| !ports.is_empty())?;
        Some(ports.values().fold(PodTotals::default(), |mut sum, port| {
            sum.outbound.add(&port.outbound.totals(port.listed));
            sum.inbound.add(&port.inbound.totals(port.listed));
            sum
        }))
    }
}

impl Port {
    fn update(ports: &mut BTreeMap<u32, Self>, reading: &PortReading) {
        let port = ports.entry(reading.id).or_insert_with(|| Self {
            start: reading.start,
            listed: true,
            outbound: Direction::default(),
            inbound: Direction::default(),
        });
        port.listed = true;
        port.outbound.update(&reading.outbound);
        port.inbound.update(&reading.inbound);
    }
}

impl Direction {
    fn update(&mut self, reading: &DirectionReading) {
        self.totals = Totals::of(reading);
        self.link_local.update(reading);
    }

    fn totals(&self, listed: bool) -> Totals {
        let mut totals = if listed {
            self.totals.clone()
        } else {
            self.totals.without_series()
        };
        // Never more than all: two slots of one group can be read as a series that ended and began again.
        totals.link_local = self
            .totals
            .link_local
            .saturating_add(self.link_local.ended)
            .min(totals.sum().admitted.packets);
        totals
    }
}

impl LinkLocal {
    fn update(&mut self, reading: &DirectionReading) {
        let groups = reading.groups.iter().filter(|group| is_link_local(group.group));
        let series: BTreeMap<_, _> = groups
            .map(|group| ((group.group, group.source), (group.since, group.admitted.packets)))
            .collect();
        for (key, (since, before)) in &self.series {
            let still = series
                .get(key)
                .filter(|(now_since, _)| now_since == since)
                .map_or(0, |(_, packets)| *packets);
            self.ended = self.ended.saturating_add(before.saturating_sub(still));
        }
        self.series = series;
    }
}
