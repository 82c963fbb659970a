//! One group on one link as a router keeps it: filter mode, source timers, group timer (RFC 9776 §6, RFC 9777 §7).
//!
//! A router sends a query wherever a record may have ended somebody's interest, and lowers timers to the last member
//! query time. This observer sends nothing: it lowers the same timers by `wait`, which is that time where several hosts
//! share the link, and zero where the only host has just spoken for itself. Knows no versions, witnesses or links.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};

use super::after;
use crate::{api::stats::FilterMode, ledger::snapshot::SourceFilter, proto::wire::RecordKind};

/// Sources kept of one group at most. Linux lets a socket name 10 (IPv4) or 64 (IPv6) by default.
pub(super) const MAX_SOURCES: usize = 128;

/// The state of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    mode: Mode,
    /// When each source's timer ends. In EXCLUDE a source whose timer has ended is blocked, one whose timer runs is
    /// forwarded until then; in INCLUDE a source goes with its timer.
    sources: BTreeMap<IpAddr, Timestamp>,
    /// Sources that were left out since [`MAX_SOURCES`] were there.
    pub(super) refused: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Include,
    Exclude {
        /// When the group timer ends.
        until: Timestamp,
    },
}

/// The durations that a record's effect depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intervals {
    /// Group Membership Interval.
    pub(super) membership: SignedDuration,
    /// How long what a record casts doubt on may still be confirmed by others.
    pub(super) wait: SignedDuration,
}

/// No timer: the source is blocked in EXCLUDE.
const ENDED: Timestamp = Timestamp::MIN;

impl Filter {
    /// INCLUDE {}: nobody is interested.
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Include,
            sources: BTreeMap::new(),
            refused: 0,
        }
    }

    /// Whether nobody is interested any more.
    pub(super) fn is_empty(&self) -> bool {
        self.mode == Mode::Include && self.sources.is_empty()
    }

    /// When the last timer ends, if nothing is heard until then.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        match self.mode {
            Mode::Exclude { until } => Some(until.max(self.last_source())),
            Mode::Include => self.sources.values().max().copied(),
        }
    }

    fn last_source(&self) -> Timestamp {
        self.sources.values().max().copied().unwrap_or(ENDED)
    }

    /// What is wanted at `now`.
    pub(super) fn wanted(&self, now: Timestamp) -> SourceFilter {
        let (mode, listed): (_, fn(Timestamp, Timestamp) -> bool) = match self.mode {
            Mode::Include => (FilterMode::Include, |until, now| until > now),
            Mode::Exclude { .. } => (FilterMode::Exclude, |until, now| until <= now),
        };
        let sources = self.sources.iter().filter(|(_, until)| listed(**until, now));
        SourceFilter {
            mode,
            sources: sources.map(|(source, _)| *source).collect(),
        }
    }

    /// Lets timers end that have run out by `now` (RFC 9776 §6.2.2, §6.2.3, §6.5).
    pub(super) fn expire(&mut self, now: Timestamp) {
        if let Mode::Exclude { until } = self.mode
            && until <= now
        {
            self.mode = Mode::Include;
        }
        if self.mode == Mode::Include {
            self.sources.retain(|_, until| *until > now);
        }
    }

    /// Takes in one group record (RFC 9776 §6.4.1 and §6.4.2; their A, B, X and Y). An unknown kind changes nothing.
    pub(super) fn apply(&mut self, kind: RecordKind, listed: &BTreeSet<IpAddr>, now: Timestamp, intervals: Intervals) {
        self.expire(now);
        let membership = after(now, intervals.membership);
        let doubt = after(now, intervals.wait);
        match (self.mode, kind) {
            (_, RecordKind::ModeIsInclude | RecordKind::AllowNewSources) => self.set(listed, membership),
            (Mode::Include, RecordKind::BlockOldSources) => self.lower(|source| listed.contains(source), doubt),
            (Mode::Include, RecordKind::ChangeToInclude) => {
                self.lower(|source| !listed.contains(source), doubt);
                self.set(listed, membership);
            }
            (Mode::Include, RecordKind::ModeIsExclude | RecordKind::ChangeToExclude) => {
                self.sources.retain(|source, _| listed.contains(source));
                if kind == RecordKind::ChangeToExclude {
                    self.lower(|_| true, doubt);
                }
                self.add(listed, ENDED);
                self.mode = Mode::Exclude { until: membership };
            }
            (Mode::Exclude { until }, RecordKind::BlockOldSources) => {
                self.add(listed, until);
                self.lower(|source| listed.contains(source), doubt);
            }
            (Mode::Exclude { until }, RecordKind::ModeIsExclude | RecordKind::ChangeToExclude) => {
                self.sources.retain(|source, _| listed.contains(source));
                if kind == RecordKind::ChangeToExclude {
                    self.add(listed, until);
                    self.lower(|_| true, doubt);
                } else {
                    self.add(listed, membership);
                }
                self.mode = Mode::Exclude { until: membership };
            }
            (Mode::Exclude { until }, RecordKind::ChangeToInclude) => {
                self.lower(|source| !listed.contains(source), doubt);
                self.set(listed, membership);
                self.mode = Mode::Exclude {
                    until: until.min(doubt),
                };
            }
            (_, RecordKind::Unknown(_)) => {}
        }
        self.expire(now);
    }

    /// A group-specific query was seen: who is still interested answers within `wait` (RFC 9776 §6.6.1).
    pub(super) fn queried(&mut self, sources: &[IpAddr], now: Timestamp, wait: SignedDuration) {
        let doubt = after(now, wait);
        if sources.is_empty() {
            if let Mode::Exclude { until } = self.mode {
                self.mode = Mode::Exclude {
                    until: until.min(doubt),
                };
            }
        } else {
            self.lower(|source| sources.contains(source), doubt);
        }
    }

    /// Starts these sources' timers anew.
    fn set(&mut self, listed: &BTreeSet<IpAddr>, until: Timestamp) {
        for source in listed {
            match self.sources.get_mut(source) {
                Some(timer) => *timer = until,
                None => self.insert(*source, until),
            }
        }
    }

    /// Adds those that are not there yet.
    fn add(&mut self, listed: &BTreeSet<IpAddr>, until: Timestamp) {
        for source in listed {
            if !self.sources.contains_key(source) {
                self.insert(*source, until);
            }
        }
    }

    fn insert(&mut self, source: IpAddr, until: Timestamp) {
        if self.sources.len() < MAX_SOURCES {
            self.sources.insert(source, until);
        } else {
            self.refused += 1;
        }
    }

    fn lower(&mut self, which: impl Fn(&IpAddr) -> bool, until: Timestamp) {
        let timers = self.sources.iter_mut().filter(|(source, _)| which(source));
        timers.for_each(|(_, timer)| *timer = (*timer).min(until));
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
