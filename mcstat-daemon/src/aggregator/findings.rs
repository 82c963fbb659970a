//! What only the whole cluster can tell: that a Pod sends and nobody has joined (`SentNobodyJoined`).
//!
//! `Streams` is what one node contributes, made when its summary arrives: its size is that of the summary, and a
//! bound. [`Unheard`] is the answer at one time, over all nodes. Both are values, time is a parameter. A finding needs
//! 30 s of evidence, and knowledge: a silent node's members count as members until it expires, and nothing is said while
//! an agent that reads no kernel tables has listened for less than a membership lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    scope,
    stats::{Finding, FindingKind, GroupCounters, Membership, PodMulticastStats, Witness},
    summary::NodeStatsSummary,
};

/// How long a finding must hold before it is shown, and how long one packet counts as sending. Less than the evidence, so
/// that a single packet is none.
const EVIDENCE: SignedDuration = SignedDuration::from_secs(30);
/// Without kernel tables every member has reported after this long: the group membership interval of RFC 9776 §8.4 by its
/// defaults.
const MEMBERSHIP_INTERVAL: SignedDuration = SignedDuration::from_secs(260);
/// Ended memberships that are remembered of one node; the oldest is forgotten first.
const LEFT_MAX: usize = 1024;
/// How long changes of source are counted together.
const CHANGES_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// What one node says of who sends and who has joined, kept from summary to summary.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams {
    /// Groups that a Pod of the node sends to, and since when without a break.
    sent: BTreeMap<IpAddr, Timestamp>,
    /// Groups with a member on the node.
    joined: BTreeSet<IpAddr>,
    /// Groups whose last member on the node left, and when.
    left: BTreeMap<IpAddr, Timestamp>,
    /// Whether the node knows of every membership.
    complete: bool,
    /// How often the source of a group changed at one receiver.
    changes: BTreeMap<IpAddr, Changes>,
}

/// Two windows, the second one still open: a sum over them forgets no sooner than one window.
#[derive(Debug, Clone, Copy)]
struct Changes {
    opened: Timestamp,
    open: u64,
    closed: u64,
}

impl Streams {
    /// What the node says with a summary that arrived at `now`, after what it said before. `heard` is false when it was
    /// silent meanwhile: then nothing has been sent without a break.
    pub(super) fn next(
        before: Option<(&Self, &[PodMulticastStats])>,
        heard: bool,
        summary: &NodeStatsSummary,
        now: Timestamp,
    ) -> Self {
        let joined = joined(summary);
        let (mut left, mut changes) = (BTreeMap::new(), BTreeMap::new());
        if let Some((before, pods)) = before {
            left.clone_from(&before.left);
            left.extend(before.joined.iter().map(|group| (*group, now)));
            changes.clone_from(&before.changes);
            count_changes(&mut changes, pods, &summary.pods, now);
        }
        left.retain(|group, _| !joined.contains(group));
        forget_oldest(&mut left);
        changes.retain(|_, changes| changes.sum(now) > 0);
        let since = |group: &IpAddr| {
            let before = before.filter(|_| heard).and_then(|(before, _)| before.sent.get(group));
            before.copied().unwrap_or(now)
        };
        Self {
            sent: sent(&summary.pods).map(|group| (group, since(&group))).collect(),
            joined,
            left,
            complete: is_complete(summary),
            changes,
        }
    }

    /// How often the source of each group changed at one receiver of this node within the last one to two minutes.
    pub(super) fn changes(&self, now: Timestamp) -> impl Iterator<Item = (IpAddr, u64)> {
        self.changes
            .iter()
            .map(move |(group, changes)| (*group, changes.sum(now)))
    }
}

impl Changes {
    fn add(&mut self, count: u64, now: Timestamp) {
        let age = now.duration_since(self.opened);
        if age >= CHANGES_WINDOW {
            *self = Self {
                opened: now,
                open: 0,
                closed: if age < CHANGES_WINDOW * 2 { self.open } else { 0 },
            };
        }
        self.open = self.open.saturating_add(count);
    }

    fn sum(&self, now: Timestamp) -> u64 {
        match now.duration_since(self.opened) {
            age if age < CHANGES_WINDOW => self.open.saturating_add(self.closed),
            age if age < CHANGES_WINDOW * 2 => self.open,
            _ => 0,
        }
    }
}

/// Whether the last packet of this series is so young, as of the node's own reading, that its Pod is sending.
pub(super) fn is_sending(counters: &GroupCounters, observed_at: Timestamp) -> bool {
    let seen = counters.last_seen;
    seen.is_some_and(|seen| observed_at.duration_since(seen) < EVIDENCE)
}

fn sent(pods: &[PodMulticastStats]) -> impl Iterator<Item = IpAddr> {
    pods.iter().flat_map(|pod| {
        let observed_at = pod.status.observed_at;
        let groups = pod.status.groups.iter();
        groups.filter_map(move |group| {
            let sending = is_sending(group.outbound.as_ref()?, observed_at);
            (sending && !scope::is_link_local(group.group)).then_some(group.group)
        })
    })
}

fn memberships(pod: &PodMulticastStats) -> impl Iterator<Item = (IpAddr, &Membership)> {
    let groups = pod.status.groups.iter();
    groups.filter_map(|group| Some((group.group, group.membership.as_ref()?)))
}

fn joined(summary: &NodeStatsSummary) -> BTreeSet<IpAddr> {
    let listed = summary.multicast.iter().filter(|group| !group.pods.is_empty());
    let listed = listed.map(|group| group.group);
    let known = summary.pods.iter().flat_map(memberships);
    let known = known
        .filter(|(_, membership)| membership.joined)
        .map(|(group, _)| group);
    listed
        .chain(known)
        .filter(|group| !scope::is_link_local(*group))
        .collect()
}

/// Every kernel has joined 224.0.0.1 or ff02::1: a Pod whose tables are read has a membership that the kernel witnesses.
fn is_complete(summary: &NodeStatsSummary) -> bool {
    let by_kernel =
        |pod: &PodMulticastStats| memberships(pod).any(|(_, membership)| membership.witness.contains(&Witness::Kernel));
    let counted = |pod: &&PodMulticastStats| pod.status.start_time.is_some();
    summary.observed_at.duration_since(summary.start_time) >= MEMBERSHIP_INTERVAL
        || summary.pods.iter().filter(counted).all(by_kernel)
}

fn forget_oldest(left: &mut BTreeMap<IpAddr, Timestamp>) {
    if left.len() <= LEFT_MAX {
        return;
    }
    let mut times: Vec<Timestamp> = left.values().copied().collect();
    times.sort_unstable();
    let oldest_kept = times.get(times.len() - LEFT_MAX).copied();
    left.retain(|_, time| Some(*time) >= oldest_kept);
    while left.len() > LEFT_MAX {
        left.pop_last();
    }
}

/// Adds what the sources of each group changed since the summary before; of several receivers the most.
fn count_changes(
    changes: &mut BTreeMap<IpAddr, Changes>,
    before: &[PodMulticastStats],
    after: &[PodMulticastStats],
    now: Timestamp,
) {
    let before: BTreeMap<_, _> = source_changes(before).collect();
    let mut most: BTreeMap<IpAddr, u64> = BTreeMap::new();
    for (key, total) in source_changes(after) {
        let more = before.get(&key).map_or(0, |before| total.saturating_sub(*before));
        let (_, _, group) = key;
        let most = most.entry(group).or_default();
        *most = more.max(*most);
    }
    for (group, count) in most.into_iter().filter(|(_, count)| *count > 0) {
        let fresh = Changes {
            opened: now,
            open: 0,
            closed: 0,
        };
        changes.entry(group).or_insert(fresh).add(count, now);
    }
}

/// By sandbox, interface and group: how often the source of an inbound series changed. In the SSM ranges it never does.
fn source_changes(pods: &[PodMulticastStats]) -> impl Iterator<Item = ((&str, &str, IpAddr), u64)> {
    pods.iter().flat_map(|pod| {
        let groups = pod.status.groups.iter().filter(|group| group.source.is_none());
        groups.filter_map(|group| {
            let key = (pod.status.sandbox.as_str(), group.interface.as_str(), group.group);
            Some((key, group.inbound.as_ref()?.source_changes))
        })
    })
}

/// Groups that a Pod sends to while nobody in the cluster has joined, and since when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unheard(BTreeMap<IpAddr, Timestamp>);

impl Unheard {
    /// What the nodes say together at `now`, of all groups or of those `wanted`. A silent node sends nothing that is known.
    pub(super) fn of<'a>(
        nodes: impl Iterator<Item = (&'a Streams, bool)> + Clone,
        wanted: Option<&BTreeSet<IpAddr>>,
        now: Timestamp,
    ) -> Self {
        let reporting = || nodes.clone().filter(|(_, silent)| !silent).map(|(streams, _)| streams);
        if !reporting().all(|streams| streams.complete) {
            return Self::default();
        }
        let mut unheard: BTreeMap<IpAddr, Timestamp> = BTreeMap::new();
        for (group, since) in reporting().flat_map(|streams| wanted_of(&streams.sent, wanted)) {
            let first = unheard.entry(group).or_insert(since);
            *first = since.min(*first);
        }
        for (streams, _) in nodes {
            // By the shorter of the two: most groups are one node's only.
            if streams.joined.len() < unheard.len() {
                for group in &streams.joined {
                    unheard.remove(group);
                }
            } else {
                unheard.retain(|group, _| !streams.joined.contains(group));
            }
            for (group, left) in wanted_of(&streams.left, wanted) {
                if let Some(since) = unheard.get_mut(&group) {
                    *since = left.max(*since);
                }
            }
        }
        unheard.retain(|_, since| now.duration_since(*since) >= EVIDENCE);
        Self(unheard)
    }

    /// The finding on this group, if it has one.
    #[must_use]
    pub fn finding(&self, group: IpAddr) -> Option<Finding> {
        self.0.get(&group).map(|since| Finding {
            kind: FindingKind::SentNobodyJoined,
            group: Some(group),
            interface: None,
            since: *since,
            message: format!("a Pod sends to {group} and no Pod of the cluster has joined it"),
        })
    }

    /// Whether there is no such group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn wanted_of<'a>(
    sent: &'a BTreeMap<IpAddr, Timestamp>,
    wanted: Option<&'a BTreeSet<IpAddr>>,
) -> impl Iterator<Item = (IpAddr, Timestamp)> + 'a {
    let all = wanted
        .is_none()
        .then(|| sent.iter().map(|(group, since)| (*group, *since)));
    let some = wanted.into_iter().flatten();
    let some = some.filter_map(|group| Some((*group, *sent.get(group)?)));
    all.into_iter().flatten().chain(some)
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
