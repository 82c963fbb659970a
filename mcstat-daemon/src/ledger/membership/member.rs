//! One (Pod interface, group) as both witnesses see it, merged: the kernel where it is known, else the reports.
//!
//! Keeps what neither witness can say alone: since when, how often it ended lately, and how long the two have been apart.
//! A disagreement is named only when it outlasts the grace period and what is missing could have been seen: a report that
//! came before this ledger watched, or that was held back by the event rate, is no evidence.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    after,
    link::{Link, Reported},
};
use crate::{
    api::{
        rule::RuleReference,
        stats::{Disagreement, Membership, Witness},
    },
    ledger::snapshot::KernelGroup,
};

/// How long the witnesses may differ: longer than a host takes from one unsolicited report to its repetition (IGMPv2:
/// 10 s, RFC 2236 §8.10), so that one lost report is no disagreement.
pub(in crate::ledger) const GRACE: SignedDuration = SignedDuration::from_secs(15);
/// Over how long ends are counted as flaps.
const FLAP_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Ends kept at most; who flaps more often than that is called so all the same.
const MAX_ENDS: usize = 64;

/// What one tick knows of one interface besides its groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// The time of the tick.
    pub(super) now: Timestamp,
    /// Since when this interface is watched.
    pub(super) watched: Timestamp,
    /// The kernel was not known at the tick before: when it joined what it has now is unknown.
    pub(super) first_look: bool,
    /// When a message of this interface was last lost or held back.
    pub(super) missed: Option<Timestamp>,
}

/// The merged state of one group on one interface.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// By the two witnesses.
    joined: bool,
    since: Timestamp,
    /// The rule that denied the last report, while joined.
    denied: Option<RuleReference>,
    /// Whether it is served as a member, and since when that is so.
    served: (bool, Timestamp),
    /// It may have been a member before the watch began: its report is none that could have been seen.
    unwatched: bool,
    ends: VecDeque<Timestamp>,
    apart: Option<(Disagreement, Timestamp)>,
}

/// What is known of one group at one tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// What was reported and how it stands.
    pub(super) reported: Option<&'a Reported>,
    /// `None`: the kernel is not known. `Some(None)`: it is no member.
    pub(super) kernel: Option<Option<&'a KernelGroup>>,
    /// When the last packet of the group came in.
    pub(super) last_inbound: Option<Timestamp>,
}

impl Evidence<'_> {
    fn reported_now(&self) -> bool {
        self.reported.is_some_and(|reported| !reported.filter.is_empty())
    }

    fn kernel_joined(&self) -> Option<bool> {
        self.kernel.map(|group| group.is_some())
    }

    /// The merged truth.
    fn joined(&self) -> bool {
        self.kernel_joined().unwrap_or_else(|| self.reported_now())
    }
}

impl Member {
    /// A group that is seen for the first time.
    pub(super) fn new(evidence: &Evidence<'_>, circumstances: &Circumstances) -> Self {
        Self {
            joined: evidence.joined(),
            since: circumstances.now,
            denied: None,
            served: (evidence.joined(), circumstances.now),
            unwatched: circumstances.first_look,
            ends: VecDeque::new(),
            apart: None,
        }
    }

    /// Takes in one tick.
    pub(super) fn update(
        &mut self,
        group: IpAddr,
        evidence: &Evidence<'_>,
        link: &Link,
        circumstances: &Circumstances,
    ) {
        let now = circumstances.now;
        let joined = evidence.joined();
        if joined != self.joined {
            if self.joined {
                self.ends.push_back(now);
                if self.ends.len() > MAX_ENDS {
                    self.ends.pop_front();
                }
            }
            self.joined = joined;
            self.since = now;
            self.unwatched = circumstances.first_look;
        }
        while self.ends.front().is_some_and(|end| now >= after(*end, FLAP_WINDOW)) {
            self.ends.pop_front();
        }
        let apart = self.apart_now(group, evidence, link, circumstances);
        self.apart = apart.map(|kind| match self.apart {
            Some((before, since)) if before == kind => (kind, since),
            _ => (kind, now),
        });
    }

    /// Takes in the verdict on the tick's last report of the group, if there was one: the rule that denied it, or none. What
    /// was denied stays so until a report is allowed or the membership has ended.
    pub(super) fn judged(&mut self, verdict: Option<Option<RuleReference>>, now: Timestamp) {
        if let Some(denier) = verdict {
            self.denied = denier;
        }
        if !self.joined {
            self.denied = None;
        }
        let member = self.joined && self.denied.is_none();
        if member != self.served.0 {
            self.served = (member, now);
        }
    }

    /// An earlier process knew that the last report was denied.
    pub(super) fn restore(&mut self, denier: RuleReference) {
        self.denied = Some(denier);
    }

    /// The rule that denied the last report.
    pub(super) fn denied(&self) -> Option<&RuleReference> {
        self.denied.as_ref()
    }

    fn apart_now(
        &self,
        group: IpAddr,
        evidence: &Evidence<'_>,
        link: &Link,
        circumstances: &Circumstances,
    ) -> Option<Disagreement> {
        let now = circumstances.now;
        match (evidence.kernel_joined()?, evidence.reported_now()) {
            (false, true) => Some(Disagreement::ReportedKernelNotJoined),
            (true, false) => {
                let queriers = link.queriers(group.is_ipv4());
                let timers = queriers.timers(now);
                let missed = circumstances
                    .missed
                    .is_some_and(|missed| now < after(missed, timers.membership()));
                if missed || never_reported(group) {
                    return None;
                }
                let expired = evidence
                    .reported
                    .is_some_and(|reported| reported.ended.is_some_and(|ended| ended.expired));
                if expired {
                    // Without a querier nobody repeats a report: that it ran out says nothing.
                    return (!timers.assumed).then_some(Disagreement::ExpiredKernelJoined);
                }
                let asked = queriers
                    .last_general
                    .is_some_and(|asked| asked >= circumstances.watched && now >= after(asked, timers.response()));
                (asked || !self.unwatched).then_some(Disagreement::KernelJoinedNoReport)
            }
            _ => None,
        }
    }

    /// Whether nothing is left to remember.
    pub(super) fn is_over(&self, evidence: &Evidence<'_>) -> bool {
        !self.joined && !evidence.reported_now() && self.ends.is_empty()
    }

    /// Whether the Pod has joined by the two witnesses, denied or not.
    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    /// Since when it has, or has not.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// As it is served; `None` when there is nothing to say now.
    pub(super) fn served(&self, evidence: &Evidence<'_>, link: &Link, now: Timestamp) -> Option<Membership> {
        let switch_lingers = self.switch_lingers(evidence, now);
        let reported = evidence.reported_now();
        if !self.joined && !reported && !switch_lingers {
            return None;
        }
        let kernel = evidence.kernel.flatten();
        let filter = kernel.and_then(|group| group.filter.clone());
        let filter = filter.or_else(|| {
            let live = evidence.reported.filter(|_| reported);
            live.map(|reported| reported.filter.wanted(now))
        });
        let said = evidence.reported;
        let witnesses = [(kernel.is_some(), Witness::Kernel), (reported, Witness::Report)];
        let (joined, since) = self.served;
        Some(Membership {
            joined,
            denied: self.denied.clone(),
            version: said.map(|said| version(said.reporter.is_ipv4(), said.version)),
            mode: filter.as_ref().map(|filter| filter.mode),
            sources: filter.map(|filter| filter.sources).unwrap_or_default(),
            witness: witnesses
                .into_iter()
                .filter_map(|(says, who)| says.then_some(who))
                .collect(),
            disagreement: self
                .apart
                .filter(|(_, since)| now >= after(*since, GRACE))
                .map(|(kind, _)| kind),
            switch_lingers,
            since,
            expires: said.filter(|_| reported).and_then(|said| said.filter.expires()),
            assumed: reported && said.is_some_and(|said| link.queriers(said.reporter.is_ipv4()).timers(now).assumed),
            last_report: said.map(|said| said.last_report),
            reporter: said.map(|said| said.reporter),
            reports: said.map_or(0, |said| said.reports),
            flaps: u32::try_from(self.ends.len()).unwrap_or(u32::MAX),
            users: kernel.map(|group| group.users),
        })
    }

    /// The Pod was seen to leave, and long after that packets of the group still come in.
    fn switch_lingers(&self, evidence: &Evidence<'_>, now: Timestamp) -> bool {
        let left = !self.joined && !self.ends.is_empty();
        let came = evidence.last_inbound;
        left && came.is_some_and(|came| came >= after(self.since, GRACE) && now < after(came, GRACE))
    }
}

/// The name of a protocol version.
pub(super) fn version(ipv4: bool, version: u8) -> String {
    format!("{}v{version}", if ipv4 { "IGMP" } else { "MLD" })
}

/// Groups that hosts join without a report: 224.0.0.1 and, by Linux's `igmp_link_local_mcast_reports`, all of
/// 224.0.0.0/24 (RFC 9776 §5.1); ff02::1 and the IPv6 scopes 0 and 1 (RFC 9777 §6).
fn never_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => matches!(group.octets(), [224, 0, 0, _]),
        IpAddr::V6(group) => {
            let [_, flags_scope, ..] = group.octets();
            flags_scope & 0x0f <= 1 || group.segments() == [0xff02, 0, 0, 0, 0, 0, 0, 1]
        }
    }
}

/// The groups of one interface, bounded: who is no member goes first.
pub(super) fn bound(members: &mut BTreeMap<IpAddr, Member>, most: usize) {
    while members.len() > most {
        let oldest = members.iter().min_by_key(|(_, member)| (member.joined, member.since));
        let Some(group) = oldest.map(|(group, _)| *group) else {
            return;
        };
        members.remove(&group);
    }
}
