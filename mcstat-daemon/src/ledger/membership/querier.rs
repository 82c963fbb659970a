//! Who asks on one link, and the timers that follow from the questions.
//!
//! Nothing is ever sent: whoever is querier is observed (RFC 9776 §6.6.2, RFC 9777 §7.6.2). Without a querier the
//! defaults of the standards are assumed. IPv4 and IPv6 are kept apart by the caller.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use super::after;
use crate::{
    ledger::snapshot::Direction,
    proto::{control::Body, igmp::IgmpMessage, mld::MldMessage, wire::QueryTail},
};

/// Queriers kept of one link and family. More speak only when somebody makes them up.
const MAX_QUERIERS: usize = 16;

/// Defaults of RFC 9776 §8 and RFC 9777 §9.
const ROBUSTNESS: u8 = 2;
const QUERY_INTERVAL: SignedDuration = SignedDuration::from_secs(125);
const QUERY_RESPONSE_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
const LAST_MEMBER_QUERY_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// Queries that come so close together are one question: a querier may ask in every version at once.
const ONE_QUESTION: SignedDuration = SignedDuration::from_millis(500);

/// A query of any version, reduced to what counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// Who asks.
    pub(super) source: IpAddr,
    /// Which way it passed the Pod's interface.
    pub(super) direction: Direction,
    /// 1 to 3 (MLD: 1, 2).
    pub(super) version: u8,
    /// The group asked for; `None` in a general query.
    pub(super) group: Option<IpAddr>,
    /// The sources asked for.
    pub(super) sources: Vec<IpAddr>,
    /// S: timers are not to be lowered.
    pub(super) suppress: bool,
    /// QRV, unless 0.
    pub(super) robustness: Option<u8>,
    /// QQI, unless 0.
    pub(super) interval: Option<SignedDuration>,
    /// Max Resp Time.
    pub(super) max_response: SignedDuration,
}

impl Query {
    /// The query in a message, if it is one.
    pub(super) fn of(source: IpAddr, direction: Direction, body: &Body) -> Option<Self> {
        let base = |version, general: bool, group: IpAddr, max_response: std::time::Duration| Self {
            source,
            direction,
            version,
            group: (!general).then_some(group),
            sources: Vec::new(),
            suppress: false,
            robustness: None,
            interval: None,
            max_response: max_response.try_into().unwrap_or(SignedDuration::MAX),
        };
        match body {
            Body::Igmp(IgmpMessage::Query(query)) => {
                let found = base(
                    query.version(),
                    query.is_general(),
                    query.group.into(),
                    query.max_response(),
                );
                Some(found.with_tail(query.tail.as_ref()))
            }
            Body::Mld(MldMessage::Query(query)) => {
                let found = base(
                    query.version(),
                    query.is_general(),
                    query.group.into(),
                    query.max_response(),
                );
                Some(found.with_tail(query.tail.as_ref()))
            }
            _ => None,
        }
    }

    /// Whether its version has fields for QRV and QQIC.
    fn has_values(&self) -> bool {
        self.version == if self.source.is_ipv4() { 3 } else { 2 }
    }

    fn with_tail<A: Copy + Into<IpAddr>>(self, tail: Option<&QueryTail<A>>) -> Self {
        let Some(tail) = tail else { return self };
        Self {
            sources: tail.sources.iter().map(|source| (*source).into()).collect(),
            suppress: tail.suppress,
            robustness: Some(tail.robustness).filter(|robustness| *robustness != 0),
            interval: tail
                .query_interval()
                .try_into()
                .ok()
                .filter(SignedDuration::is_positive),
            ..self
        }
    }
}

/// Since when and when last something was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Heard {
    last: Timestamp,
    since: Timestamp,
}

/// One querier on one link.
#[derive(Debug, Clone)]
pub(in crate::ledger) struct Querier {
    /// Since when it is heard without a silence longer than other-querier-present.
    pub(super) since: Timestamp,
    /// Its last query of any kind.
    pub(in crate::ledger) last_query: Timestamp,
    /// When each version was heard last, and since when: 1, 2, 3.
    versions: [Option<Heard>; 3],
    /// QRV of its last query of the newest version, unless 0.
    pub(super) robustness: Option<u8>,
    /// QQI of its last query of the newest version, unless 0.
    pub(super) interval: Option<SignedDuration>,
    /// Max Resp Time of its last general query.
    pub(super) max_response: SignedDuration,
    /// Which way its last query passed.
    pub(super) direction: Direction,
    /// The last two general questions, older first.
    questions: [Option<Timestamp>; 2],
}

impl Querier {
    /// How long it may be silent before it counts as gone (RFC 9776 §8.5).
    pub(in crate::ledger) fn other_querier_present(&self) -> SignedDuration {
        let robustness = self.robustness.unwrap_or(ROBUSTNESS);
        let interval = self.interval.unwrap_or(QUERY_INTERVAL);
        interval * i32::from(robustness) + self.max_response / 2
    }

    /// Whether it was heard within that time.
    pub(super) fn is_present(&self, now: Timestamp) -> bool {
        now < after(self.last_query, self.other_querier_present())
    }

    /// The version of its last query.
    pub(super) fn version(&self) -> u8 {
        let newest = self
            .versions
            .iter()
            .zip(1..)
            .max_by_key(|(heard, version)| (**heard, *version));
        newest.map_or(0, |(_, version)| version)
    }
}

/// Group Membership Interval and what else follows from the querier's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timers {
    robustness: u8,
    interval: SignedDuration,
    response: SignedDuration,
    /// No querier is present: these are not its values.
    pub(super) assumed: bool,
}

impl Timers {
    /// RFC 9776 §8.4: robustness × query interval + query response interval.
    pub(super) fn membership(&self) -> SignedDuration {
        self.interval * i32::from(self.robustness) + self.response
    }

    /// RFC 9776 §8.13, the same sum: how long a report of an older version binds the group to it.
    pub(super) fn older_host_present(&self) -> SignedDuration {
        self.membership()
    }

    /// RFC 9776 §8.10, with the last member query interval of a query that was seen, or its default.
    pub(super) fn last_member(&self, interval: Option<SignedDuration>) -> SignedDuration {
        interval.unwrap_or(LAST_MEMBER_QUERY_INTERVAL) * i32::from(self.robustness)
    }

    /// How long hosts may wait with the answer to a general query.
    pub(super) fn response(&self) -> SignedDuration {
        self.response
    }
}

/// The queriers of one link and family.
#[derive(Debug, Clone, Default)]
pub(in crate::ledger) struct Queriers {
    by_address: BTreeMap<IpAddr, Querier>,
    /// The last general query.
    pub(super) last_general: Option<Timestamp>,
}

impl Queriers {
    /// Takes in a query that passed at `now`.
    pub(super) fn heard(&mut self, query: &Query, now: Timestamp) {
        let older = self.timers(now).older_host_present();
        if !self.by_address.contains_key(&query.source) && self.by_address.len() >= MAX_QUERIERS {
            // The one silent longest makes room; a flood of made-up addresses cannot push out who speaks regularly
            // for longer than until its next query.
            let oldest = self.by_address.iter().min_by_key(|(_, querier)| querier.last_query);
            let Some(oldest) = oldest.map(|(address, _)| *address) else {
                return;
            };
            self.by_address.remove(&oldest);
        }
        let querier = self.by_address.entry(query.source).or_insert_with(|| Querier {
            since: now,
            last_query: now,
            versions: [None; 3],
            robustness: None,
            interval: None,
            max_response: QUERY_RESPONSE_INTERVAL,
            direction: query.direction,
            questions: [None; 2],
        });
        if !querier.is_present(now) {
            querier.since = now;
            querier.questions = [None; 2];
        }
        querier.last_query = querier.last_query.max(now);
        querier.direction = query.direction;
        if let Some(heard) = querier.versions.get_mut(usize::from(query.version).wrapping_sub(1)) {
            let since = heard
                .filter(|heard| now < after(heard.last, older))
                .map_or(now, |heard| heard.since);
            *heard = Some(Heard { last: now, since });
        }
        if query.has_values() {
            // A value of 0 says that the default holds, not that an older one does (RFC 9776 §4.1.6, §4.1.7).
            querier.robustness = query.robustness;
            querier.interval = query.interval;
        }
        if query.group.is_none() {
            querier.max_response = query.max_response;
            self.last_general = self.last_general.max(Some(now));
            let [_, last] = querier.questions;
            if last.is_none_or(|last| now.duration_since(last) >= ONE_QUESTION) {
                querier.questions = [last, Some(now)];
            }
        }
    }

    /// All that are remembered, by address.
    pub(in crate::ledger) fn all(&self) -> impl Iterator<Item = (IpAddr, &Querier)> {
        self.by_address.iter().map(|(address, querier)| (*address, querier))
    }

    /// The one that the others yield to: the lowest address of those present. The unspecified address (a switch's proxy
    /// query, RFC 4541 §2.1.1) wins only where nobody else asks.
    pub(in crate::ledger) fn elected(&self, now: Timestamp) -> Option<(IpAddr, &Querier)> {
        self.all()
            .filter(|(_, querier)| querier.is_present(now))
            .min_by_key(|(address, _)| (address.is_unspecified(), *address))
    }

    /// The timers of this link: the elected querier's, else those of the last one heard, else the standards' defaults.
    pub(super) fn timers(&self, now: Timestamp) -> Timers {
        let elected = self.elected(now).map(|(_, querier)| querier);
        let querier = elected.or_else(|| self.by_address.values().max_by_key(|querier| querier.last_query));
        Timers {
            robustness: querier.and_then(|querier| querier.robustness).unwrap_or(ROBUSTNESS),
            interval: querier.and_then(|querier| querier.interval).unwrap_or(QUERY_INTERVAL),
            response: querier.map_or(QUERY_RESPONSE_INTERVAL, |querier| querier.max_response),
            assumed: elected.is_none(),
        }
    }

    /// The oldest version heard within older-host-present, and since when it is heard (RFC 9776 §7.2.1).
    pub(in crate::ledger) fn oldest_version(&self, now: Timestamp) -> Option<(u8, Timestamp)> {
        let within = self.timers(now).older_host_present();
        (1..=3u8).find_map(|version| {
            let by_version = self
                .by_address
                .values()
                .filter_map(|querier| querier.versions.get(usize::from(version) - 1));
            let live = by_version.flatten().filter(|heard| now < after(heard.last, within));
            live.map(|heard| (version, heard.since)).min()
        })
    }

    /// Two queriers that both keep asking from one side, although one should have yielded: each has asked twice since
    /// the younger of them appeared, the last time within other-querier-present. A hand-over is none.
    pub(in crate::ledger) fn rivals(&self, now: Timestamp) -> Option<(IpAddr, IpAddr)> {
        let mut present: Vec<_> = self
            .all()
            .filter(|(address, querier)| !address.is_unspecified() && querier.is_present(now))
            .collect();
        present.sort_by_key(|(address, _)| *address);
        let pairs = present.iter().enumerate().flat_map(|(index, first)| {
            let others = present.iter().skip(index + 1);
            others.map(move |second| (first, second))
        });
        pairs
            .filter(|((_, a), (_, b))| a.direction == b.direction)
            .find_map(|((one, a), (other, b))| {
                let younger = a.since.max(b.since);
                let twice = |querier: &Querier| querier.questions.iter().all(|asked| *asked >= Some(younger));
                (twice(a) && twice(b)).then_some((*one, *other))
            })
    }
}

#[cfg(test)]
#[path = "querier_tests.rs"]
mod tests;
