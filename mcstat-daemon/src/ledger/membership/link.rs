//! One Pod interface as the messages on its veth tell it: the hosts behind it, the groups they reported, the queriers.
//!
//! A router's side of RFC 9776 and RFC 9777, save that it never sends. Reports count when the Pod sent them, queries
//! whichever way they passed. Messages that a router has to ignore are counted by reason and change nothing. Bounded:
//! groups, sources, hosts and queriers each have a most.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    after,
    filter::{Filter, Intervals},
    judged::Judged,
    kernel::KernelTable,
    querier::{Queriers, Query, Timers},
    statement::{Statement, statements, unacceptable},
};
use crate::{
    ledger::{
        judge::Judge,
        snapshot::{ControlEvent, Direction},
    },
    proto::{
        control::{Body, ControlMessage},
        igmp::IgmpMessage,
        mld::MldMessage,
        wire::RecordKind,
    },
};

/// Groups kept of one interface at most, those included that ended within the last minutes.
pub(super) const MAX_GROUPS: usize = 1024;
/// Hosts of one family told apart behind one interface: it matters only whether there is more than one.
const MAX_HOSTS: usize = 4;
/// How long a group is remembered after its reports have ended.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// What the messages of one interface have told.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    ipv4: Queriers,
    ipv6: Queriers,
    /// Source addresses of reports, and until when each counts as present.
    hosts: BTreeMap<IpAddr, Timestamp>,
    /// When a report of another host that silences this one was handed to it, IPv4 and IPv6.
    silenced: [Option<Timestamp>; 2],
    groups: BTreeMap<IpAddr, Reported>,
    /// Those of them that have ended, and when: the first makes room, and is forgotten first.
    ended: BTreeSet<(Timestamp, IpAddr)>,
    /// Records of groups beyond [`MAX_GROUPS`].
    pub(super) groups_refused: u64,
    /// Sources beyond the bound of groups that are no longer remembered.
    sources_refused: u64,
    /// Messages that changed nothing, by reason.
    pub(super) ignored: BTreeMap<&'static str, u64>,
    /// What was judged since it was last taken.
    judged: Judged,
}

/// What was reported of one group.
#[derive(Debug, Clone)]
pub(super) struct Reported {
    /// Which sources are wanted, with their timers.
    pub(super) filter: Filter,
    /// Version of the last report: IGMP 1 to 3, MLD 1 or 2.
    pub(super) version: u8,
    /// When it came.
    pub(super) last_report: Timestamp,
    /// From whom.
    pub(super) reporter: IpAddr,
    /// Messages that spoke of the group.
    pub(super) reports: u64,
    /// Until when hosts of version 1 and of version 2 count as present (IGMP; MLD: version 1 alone).
    older: [Timestamp; 2],
    /// How the reports ended, once they have.
    pub(super) ended: Option<Ended>,
}

/// How a reported membership ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// When.
    pub(super) at: Timestamp,
    /// It ran out: nobody said goodbye.
    pub(super) expired: bool,
}

impl Link {
    /// Takes in one message, judged by `judge`. Verdicts are kept of the groups of this link and of those of the Pod's kernel.
    pub(super) fn heard(&mut self, event: &ControlEvent, judge: &Judge<'_>, kernel: Option<&KernelTable>) {
        let message = match &event.message {
            Ok(message) => message,
            Err(error) => return self.ignore(error.reason()),
        };
        let query = Query::of(message.envelope.source, event.direction, &message.body);
        let inbound = event.direction == Direction::Inbound;
        if let Some(reason) = unacceptable(message) {
            // What is wrong with others' reports is counted where they are sent.
            if !inbound || query.is_some() {
                self.ignore(reason);
            }
        } else if let Some(query) = query {
            self.queried(&query, event.at);
        } else if inbound {
            self.overheard(message, event.at);
        } else {
            self.reported(message, event.at, judge, kernel);
        }
    }

    /// What was judged since the last call.
    pub(super) fn take_judged(&mut self) -> Judged {
        std::mem::take(&mut self.judged)
    }

    fn ignore(&mut self, reason: &'static str) {
        *self.ignored.entry(reason).or_default() += 1;
    }

    fn queried(&mut self, query: &Query, now: Timestamp) {
        let queriers = self.queriers_mut(query.source.is_ipv4());
        queriers.heard(query, now);
        let wait = queriers.timers(now).last_member(Some(query.max_response));
        if let Some(group) = query.group.filter(|_| !query.suppress)
            && let Some(reported) = self.groups.get_mut(&group)
        {
            reported.filter.queried(&query.sources, now, wait);
        }
    }

    /// Another host's report. Hosts of the older versions that hear one keep their own back (RFC 2236 §3, RFC 2710 §4).
    fn overheard(&mut self, message: &ControlMessage, now: Timestamp) {
        let [ipv4, ipv6] = &mut self.silenced;
        match message.body {
            Body::Igmp(IgmpMessage::V1Report { .. } | IgmpMessage::V2Report { .. }) => *ipv4 = Some(now),
            Body::Mld(MldMessage::V1Report { .. }) => *ipv6 = Some(now),
            _ => {}
        }
    }

    /// When hosts of this family behind the interface may last have kept reports back for another host's.
    pub(super) fn silenced(&self, ipv4: bool) -> Option<Timestamp> {
        let [of_ipv4, of_ipv6] = self.silenced;
        if ipv4 { of_ipv4 } else { of_ipv6 }
    }

    fn reported(&mut self, message: &ControlMessage, now: Timestamp, judge: &Judge<'_>, kernel: Option<&KernelTable>) {
        let statements = statements(&message.body);
        if statements.is_empty() {
            return;
        }
        let source = message.envelope.source;
        let timers = self.queriers(source.is_ipv4()).timers(now);
        let alone = self.host(source, now, &timers);
        // One to a unicast address never meets the multicast tables of the switch, nor the rules in them.
        let is_judged = message.envelope.destination.is_multicast();
        let mut told = BTreeSet::new();
        for statement in statements {
            let denied = is_judged.then(|| statement.denier(judge)).flatten();
            self.judged.deniers.extend(denied);
            if !statement.group.is_multicast() {
                self.ignore("not_multicast");
                continue;
            }
            if matches!(statement.kind, RecordKind::Unknown(_)) {
                continue;
            }
            let first = told.insert(statement.group);
            self.state(&statement, source, now, &timers, alone, first);
            let group = statement.group;
            if !statement.leaves()
                && (self.groups.contains_key(&group) || kernel.is_some_and(|kernel| kernel.has(group)))
            {
                self.judged.groups.insert(group, denied);
            }
        }
    }

    /// Notes a host and says whether it is the only one of its family. The unspecified address is whoever has none yet.
    fn host(&mut self, source: IpAddr, now: Timestamp, timers: &Timers) -> bool {
        self.hosts.retain(|_, until| *until > now);
        let family = self.hosts.keys().filter(|host| host.is_ipv4() == source.is_ipv4());
        let others = family.filter(|host| **host != source).count();
        if !source.is_unspecified() && others < MAX_HOSTS {
            self.hosts.insert(source, after(now, timers.membership()));
        }
        others == 0
    }

    /// One record. What the only host says of itself is the whole truth, at once; among several it is a router's view.
    fn state(
        &mut self,
        statement: &Statement,
        source: IpAddr,
        now: Timestamp,
        timers: &Timers,
        alone: bool,
        first: bool,
    ) {
        let known = self.groups.contains_key(&statement.group);
        // A leave or a BLOCK of what nobody had joined leaves no trace.
        if !known && (!statement.joins() || !self.room()) {
            return;
        }
        let reported = self.groups.entry(statement.group).or_insert_with(|| Reported {
            filter: Filter::new(),
            version: statement.version,
            last_report: now,
            reporter: source,
            reports: 0,
            older: [Timestamp::MIN; 2],
            ended: None,
        });
        reported.version = statement.version;
        reported.last_report = now;
        reported.reporter = source;
        reported.reports += u64::from(first);
        reported.note_older(statement, now, timers);
        let Some((kind, sources)) = reported.translate(statement, now) else {
            return;
        };
        let kind = match kind {
            // Of several records of one group in a message only the first can replace what was; the others add to it.
            RecordKind::ModeIsInclude if alone && first && !reported.no_leave(now) => RecordKind::ChangeToInclude,
            RecordKind::ModeIsExclude if alone && first => RecordKind::ChangeToExclude,
            other => other,
        };
        let wait = if alone {
            SignedDuration::ZERO
        } else {
            timers.last_member(None)
        };
        let intervals = Intervals {
            membership: timers.membership(),
            wait,
        };
        reported.filter.apply(kind, sources, now, intervals);
        let ended = reported.filter.is_empty().then_some(Ended {
            at: now,
            expired: false,
        });
        let before = std::mem::replace(&mut reported.ended, ended);
        before.map(|before| self.ended.remove(&(before.at, statement.group)));
        ended.map(|ended| self.ended.insert((ended.at, statement.group)));
    }

    /// Whether another group can be kept; one that has ended makes room.
    fn room(&mut self) -> bool {
        if self.groups.len() < MAX_GROUPS {
            return true;
        }
        if self.ended.first().is_some() {
            self.forget_first();
            return true;
        }
        self.groups_refused += 1;
        false
    }

    /// Forgets the group that ended first.
    fn forget_first(&mut self) {
        if let Some((_, group)) = self.ended.pop_first()
            && let Some(gone) = self.groups.remove(&group)
        {
            self.sources_refused += gone.filter.refused;
        }
    }

    /// Lets every timer end that has run out by `now`.
    pub(super) fn expire(&mut self, now: Timestamp) {
        for (group, reported) in self.groups.iter_mut().filter(|(_, reported)| reported.ended.is_none()) {
            let at = reported.filter.expires().unwrap_or(now);
            reported.filter.expire(now);
            if reported.filter.is_empty() {
                reported.ended = Some(Ended { at, expired: true });
                self.ended.insert((at, *group));
            }
        }
        while self.ended.first().is_some_and(|(at, _)| now >= after(*at, REMEMBERED)) {
            self.forget_first();
        }
    }

    /// The groups that are or were reported, in order.
    pub(super) fn groups(&self) -> &BTreeMap<IpAddr, Reported> {
        &self.groups
    }

    #[cfg(test)]
    pub(super) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The queriers of one family.
    pub(super) fn queriers(&self, ipv4: bool) -> &Queriers {
        if ipv4 { &self.ipv4 } else { &self.ipv6 }
    }

    fn queriers_mut(&mut self, ipv4: bool) -> &mut Queriers {
        if ipv4 { &mut self.ipv4 } else { &mut self.ipv6 }
    }

    /// Sources that were left out.
    pub(super) fn sources_refused(&self) -> u64 {
        let kept = self.groups.values().map(|reported| reported.filter.refused);
        self.sources_refused + kept.sum::<u64>()
    }
}

impl Reported {
    /// A report of an older version binds the group to it for a while (RFC 9776 §7.3.2, RFC 9777 §8.3.2).
    fn note_older(&mut self, statement: &Statement, now: Timestamp, timers: &Timers) {
        let until = after(now, timers.older_host_present());
        let newest = if statement.group.is_ipv4() { 3 } else { 2 };
        let [version_1, version_2] = &mut self.older;
        match statement.version {
            // Of IGMPv2 and MLDv1 only reports tell that such a host is there; a leave says that it goes.
            _ if statement.kind != RecordKind::ModeIsExclude => {}
            1 => *version_1 = until,
            2 if newest == 3 => *version_2 = until,
            _ => {}
        }
    }

    /// MLDv1 hosts leave by Done; IGMPv1 hosts never do, so nobody's goodbye can be believed while one is there.
    fn no_leave(&self, now: Timestamp) -> bool {
        let [version_1, _] = self.older;
        version_1 > now && self.reporter.is_ipv4()
    }

    /// What a statement means while hosts of an older version are present.
    fn translate<'a>(&self, statement: &'a Statement, now: Timestamp) -> Option<(RecordKind, &'a BTreeSet<IpAddr>)> {
        static NONE: BTreeSet<IpAddr> = BTreeSet::new();
        let old = self.older.iter().any(|until| *until > now);
        match statement.kind {
            RecordKind::ChangeToInclude if self.no_leave(now) => None,
            RecordKind::BlockOldSources if old => None,
            RecordKind::ChangeToExclude if old => Some((statement.kind, &NONE)),
            kind => Some((kind, &statement.sources)),
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
