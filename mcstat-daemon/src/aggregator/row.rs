//! One row of the merged view: a Pod as its node reported it, and what only the cluster knows of it.

use std::{borrow::Cow, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use super::findings::{self, Unheard};
use crate::api::stats::{Condition, Finding, Group, PodMulticastStats};

/// One row of the merged view.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The object as the node reported it.
    pub reported: &'a PodMulticastStats,
    /// When the report arrived, by this server's clock.
    arrived: Timestamp,
    /// Since when the node counts as silent, when it does.
    silent_since: Option<Timestamp>,
}

impl<'a> Row<'a> {
    pub(super) fn new(reported: &'a PodMulticastStats, arrived: Timestamp, silent_since: Option<Timestamp>) -> Self {
        Self {
            reported,
            arrived,
            silent_since,
        }
    }

    /// The object as it is served, with the cluster's finding on the groups that it sends to. A silent node's row says so
    /// in its summary, its `Fresh` condition and its resourceVersion (the time it became stale); its counters are frozen.
    #[must_use]
    pub fn served(&self, unheard: &Unheard) -> Cow<'a, PodMulticastStats> {
        let reported = self.reported;
        let Some(silent_since) = self.silent_since else {
            let unheard: Vec<Finding> = self.unheard(unheard);
            let is_fresh = reported.status.conditions.iter().any(|c| c.kind == FRESH);
            if is_fresh && unheard.is_empty() {
                return Cow::Borrowed(reported);
            }
            let mut pod = reported.clone();
            if !is_fresh {
                let fresh = fresh("True", "Reported", String::new());
                pod.status.conditions.insert(0, fresh);
            }
            add(&mut pod, unheard);
            return Cow::Owned(pod);
        };
        let mut pod = reported.clone();
        pod.metadata.resource_version = Some(silent_since.as_millisecond().to_string());
        pod.status.summary = "Stale".to_owned();
        pod.status.conditions.retain(|c| c.kind != FRESH);
        let message = format!("node {} has not reported since {:.0}", pod.spec.node, self.arrived);
        pod.status.conditions.insert(0, fresh("False", "NodeSilent", message));
        Cow::Owned(pod)
    }

    /// Whether the node of this row is silent.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.silent_since.is_some()
    }

    /// Whether something that the node saw at `seen` happened within `span` before `now`. Two clocks are at work: how old
    /// it was when it was read, by the node's, and how old the report is, by this server's.
    pub(super) fn is_within(&self, seen: Option<Timestamp>, span: SignedDuration, now: Timestamp) -> bool {
        let observed_at = self.reported.status.observed_at;
        seen.is_some_and(|seen| observed_at.duration_since(seen) + now.duration_since(self.arrived) < span)
    }

    /// The groups that this Pod sends to.
    pub(super) fn sends_to(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let observed_at = self.reported.status.observed_at;
        let sending = move |group: &&Group| {
            let outbound = group.outbound.as_ref();
            outbound.is_some_and(|counters| findings::is_sending(counters, observed_at))
        };
        self.reported
            .status
            .groups
            .iter()
            .filter(sending)
            .map(|group| group.group)
    }

    fn unheard(&self, unheard: &Unheard) -> Vec<Finding> {
        if unheard.is_empty() {
            return Vec::new();
        }
        let mut findings: Vec<Finding> = self.sends_to().filter_map(|group| unheard.finding(group)).collect();
        findings.dedup();
        findings
    }

    /// Whether this row replaces another of the same name: the newer sandbox does. Without two start times to compare,
    /// a node that still reports outweighs a silent one, then a counted Pod one that is not, then the later reading.
    pub(super) fn supersedes(&self, other: &Row<'_>) -> bool {
        let (mine, theirs) = (&self.reported.status, &other.reported.status);
        if let (Some(mine), Some(theirs)) = (mine.start_time, theirs.start_time)
            && mine != theirs
        {
            return mine > theirs;
        }
        let rank = |row: &Row<'_>| {
            (
                !row.is_stale(),
                row.reported.status.start_time.is_some(),
                row.reported.status.observed_at,
            )
        };
        rank(self) > rank(other)
    }
}

/// Findings stand by precedence, and the first one is the STATUS word unless the Pod is not counted.
fn add(pod: &mut PodMulticastStats, findings: Vec<Finding>) {
    if findings.is_empty() {
        return;
    }
    let status = &mut pod.status;
    for finding in findings {
        let groups = status
            .groups
            .iter_mut()
            .filter(|group| Some(group.group) == finding.group);
        for group in groups.filter(|group| group.outbound.is_some()) {
            if group.finding.is_none_or(|first| finding.kind < first) {
                (group.finding, group.since) = (Some(finding.kind), Some(finding.since));
            }
        }
        status.findings.push(finding);
    }
    status.findings.sort();
    if let Some(first) = status.findings.first()
        && status.summary != NOT_COUNTED
    {
        status.summary = first.kind.word().to_owned();
    }
}

const NOT_COUNTED: &str = "NotCounted";
const FRESH: &str = "Fresh";

fn fresh(status: &str, reason: &str, message: String) -> Condition {
    Condition {
        kind: FRESH.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
    }
}
