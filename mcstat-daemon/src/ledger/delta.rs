//! The window of totals: what grew, and how fast, over the last seconds.
//!
//! Rates are differences of cumulative totals over the time that really passed between the two readings. A port is
//! compared with its own oldest reading in the window, so one that has just appeared, or a Pod's second interface, never
//! looks like a burst. Knows nothing of Pods: the summary adds ports up.

use std::{collections::VecDeque, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use super::{
    snapshot::{Direction, DirectionReading, GroupReading, PortReading, Snapshot},
    totals::Totals,
};

/// The last readings, oldest first, the newest one included.
#[derive(Debug)]
pub(super) struct Window {
    span: SignedDuration,
    readings: VecDeque<Reading>,
}

#[derive(Debug)]
struct Reading {
    at: Timestamp,
    /// In ascending id.
    ports: Vec<PortTotals>,
}

#[derive(Debug)]
struct PortTotals {
    id: u32,
    start: Timestamp,
    outbound: DirectionTotals,
    inbound: DirectionTotals,
}

#[derive(Debug)]
struct DirectionTotals {
    packets: u64,
    /// Data packets and IGMP messages together: only whether it grows is asked.
    dropped: u64,
    /// In ascending key.
    series: Vec<SeriesTotal>,
}

#[derive(Debug)]
struct SeriesTotal {
    key: (IpAddr, Option<IpAddr>),
    since: Timestamp,
    packets: u64,
}

impl Window {
    /// An empty window of so many seconds.
    pub(super) fn new(seconds: u32) -> Self {
        Self {
            span: SignedDuration::from_secs(seconds.into()),
            readings: VecDeque::new(),
        }
    }

    /// Takes in the newest reading, and lets go of the ones that the window no longer needs: the oldest one kept is the
    /// last that is at least as old as the window is long. When time jumped back nothing before it can be compared.
    pub(super) fn push(&mut self, snapshot: &Snapshot) {
        let at = snapshot.at;
        if self.readings.back().is_some_and(|last| last.at > at) {
            self.readings.clear();
        }
        self.readings.retain(|reading| reading.at != at);
        self.readings.push_back(Reading::of(snapshot));
        while self
            .readings
            .get(1)
            .is_some_and(|second| at.duration_since(second.at) >= self.span)
        {
            self.readings.pop_front();
        }
    }

    /// The oldest reading of this port within the window, or `None` when the newest is the first.
    pub(super) fn baseline(&self, port: &PortReading) -> Option<Baseline<'_>> {
        let now = self.readings.back()?.at;
        let before = self.readings.iter().take(self.readings.len().saturating_sub(1));
        before
            .filter_map(|reading| Some((reading.at, reading.port(port)?)))
            .next()
            .map(|(at, totals)| Baseline {
                seconds: now.duration_since(at).as_secs_f64(),
                totals,
            })
    }

    /// Whether a dropped counter of the port grew within the window. Of a port without a baseline that is known only
    /// when it is younger than the window.
    pub(super) fn dropping(&self, port: &PortReading) -> bool {
        let now =
            [Direction::Outbound, Direction::Inbound].map(|direction| (direction, dropped(port.reading(direction))));
        match self.baseline(port) {
            Some(baseline) => now
                .iter()
                .any(|(direction, dropped)| *dropped > baseline.totals.direction(*direction).dropped),
            None => {
                let young = self
                    .readings
                    .back()
                    .is_some_and(|last| last.at.duration_since(port.start) < self.span);
                young && now.iter().any(|(_, dropped)| *dropped > 0)
            }
        }
    }
}

/// One port as it was at the begin of the window.
#[derive(Debug)]
pub(super) struct Baseline<'a> {
    /// How long ago; more than 0.
    seconds: f64,
    totals: &'a PortTotals,
}

impl Baseline<'_> {
    /// Admitted packets a second, from the port's total now.
    pub(super) fn rate(&self, direction: Direction, packets_now: u64) -> f64 {
        self.per_second(self.totals.direction(direction).packets, packets_now)
    }

    /// Admitted packets a second of one series. A series that began since counts from zero.
    pub(super) fn series_rate(&self, direction: Direction, now: &GroupReading) -> f64 {
        let series = &self.totals.direction(direction).series;
        let before = series
            .binary_search_by_key(&(now.group, now.source), |total| total.key)
            .ok()
            .and_then(|index| series.get(index))
            .filter(|total| total.since == now.since)
            .map_or(0, |total| total.packets);
        self.per_second(before, now.admitted.packets)
    }

    fn per_second(&self, before: u64, now: u64) -> f64 {
        rounded(now.saturating_sub(before) as f64 / self.seconds)
    }
}

/// To a thousandth: more would be the jitter of the tick.
pub(super) fn rounded(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

impl Reading {
    fn of(snapshot: &Snapshot) -> Self {
        let mut ports: Vec<_> = snapshot.ports.iter().map(PortTotals::of).collect();
        ports.sort_by_key(|port| port.id);
        Self { at: snapshot.at, ports }
    }

    fn port(&self, wanted: &PortReading) -> Option<&PortTotals> {
        let index = self.ports.binary_search_by_key(&wanted.id, |port| port.id).ok()?;
        self.ports.get(index).filter(|port| port.start == wanted.start)
    }
}

impl PortTotals {
    fn of(port: &PortReading) -> Self {
        Self {
            id: port.id,
            start: port.start,
            outbound: DirectionTotals::of(&port.outbound),
            inbound: DirectionTotals::of(&port.inbound),
        }
    }

    fn direction(&self, direction: Direction) -> &DirectionTotals {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }
}

impl DirectionTotals {
    fn of(reading: &DirectionReading) -> Self {
        let mut series: Vec<_> = reading
            .groups
            .iter()
            .map(|group| SeriesTotal {
                key: (group.group, group.source),
                since: group.since,
                packets: group.admitted.packets,
            })
            .collect();
        series.sort_by_key(|total| total.key);
        let sum = Totals::of(reading).sum();
        Self {
            packets: sum.admitted.packets,
            dropped: dropped(reading),
            series,
        }
    }
}

fn dropped(reading: &DirectionReading) -> u64 {
    let data = Totals::of(reading).sum().dropped;
    data.saturating_add(reading.reports.dropped_messages)
}
