//! The cluster view: the newest summary of every node, merged on read into one sorted list of Pods (`aggregator::row`) or
//! of groups (`aggregator::groups`); and what policies counted, summed up as reports arrive (`aggregator::policies`).
//!
//! [`Index`] is a value: summaries and times in, rows out, no clock. It promises that a summary replaces the one before
//! it (a retry, a lost reply or a reordered report changes nothing), that of two rows of one (namespace, name) the newer
//! sandbox is shown, and that a silent node's rows stay, marked, until they expire. [`SharedIndex`] lets many readers
//! see one index while summaries arrive: its lock is held to clone an `Arc` or to swap in one node, never while a
//! response is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    findings::{Streams, Unheard},
    policies::{Counted, Existing, Nodes, Policies, Said},
    row::Row,
};
use crate::api::{
    policy::{NetworkPolicyReference, PolicyStats},
    stats::{Finding, PodMulticastStats},
    summary::{GroupMembers, NodeStatsSummary, Querier},
};

/// A node is silent after this many of its own push intervals.
pub const SILENT_AFTER_INTERVALS: i64 = 3;
/// A silent node's rows go after this long without a report.
pub const EXPIRY: SignedDuration = SignedDuration::from_mins(15);

/// What became of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is now the node's newest.
    Newest,
    /// This very reading or a newer one is held: it changed nothing, not even the time of the last report. An agent
    /// that repeats one reading has stopped reading, and its rows become stale.
    Superseded,
}

/// The newest summary of every node.
#[derive(Debug, Clone, Default)]
pub struct Index {
    nodes: BTreeMap<String, Arc<NodeEntry>>,
    policies: Policies,
    /// Publish time of the newest accepted summary; strictly increasing.
    published_ms: i64,
}

#[derive(Debug)]
struct NodeEntry {
    start_time: Timestamp,
    observed_at: Timestamp,
    arrived: Timestamp,
    silent_from: Timestamp,
    /// Sorted by (namespace, name).
    pods: Vec<PodMulticastStats>,
    multicast: Vec<GroupMembers>,
    queriers: Vec<Querier>,
    findings: Vec<Finding>,
    streams: Streams,
    /// When it last spoke of policies, and what it said then.
    said: Option<(Timestamp, Arc<Said>)>,
}

/// One node at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeView<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Whether it counts as silent: what it said of members and queriers holds no more.
    pub(super) silent: bool,
    /// Its groups and their members.
    pub(super) multicast: &'a [GroupMembers],
    /// The queriers that it hears.
    pub(super) queriers: &'a [Querier],
    /// What is wrong with them.
    pub(super) findings: &'a [Finding],
    /// What it contributes to the cluster's findings.
    pub(super) streams: &'a Streams,
}

impl Index {
    /// Takes a node's summary that arrived at `now`. Every row gets the publish time in milliseconds as its
    /// resourceVersion, so that a list from one replica can be continued on another.
    pub fn accept(&mut self, mut summary: NodeStatsSummary, now: Timestamp) -> Accepted {
        let policies = &mut self.policies;
        self.nodes.retain(|name, entry| {
            let expired = entry.is_expired(now);
            if expired {
                policies.leave(name);
            }
            !expired
        });
        if self
            .nodes
            .get(&summary.metadata.name)
            .is_some_and(|held| !held.is_replaced_by(&summary, now))
        {
            return Accepted::Superseded;
        }
        // Strictly increasing: two nodes that report in the same millisecond still get two versions.
        self.published_ms = now.as_millisecond().max(self.published_ms.saturating_add(1));
        let version = self.published_ms.to_string();
        for pod in &mut summary.pods {
            pod.metadata.resource_version = Some(version.clone());
        }
        summary.pods.sort_by(|a, b| key(a).cmp(&key(b)));
        let held = self.nodes.get(&summary.metadata.name);
        let before = held.map(|held| (&held.streams, held.pods.as_slice()));
        let heard = held.is_some_and(|held| held.silent_since(now).is_none());
        let streams = Streams::next(before, heard, &summary, now);
        // An agent that has not read its policies yet says nothing of them: what it said before holds for a while.
        let said = Said::take(&mut summary).map(|said| (now, Arc::new(said)));
        let said = said.or_else(|| {
            let before = held.and_then(|held| held.said.clone());
            before.filter(|(at, _)| now.duration_since(*at) < EXPIRY)
        });
        let entry = NodeEntry {
            start_time: summary.start_time,
            observed_at: summary.observed_at,
            arrived: now,
            silent_from: silent_from(now, summary.interval_seconds),
            pods: summary.pods,
            multicast: summary.multicast,
            queriers: summary.queriers,
            findings: summary.findings,
            streams,
            said,
        };
        let name = summary.metadata.name;
        self.nodes.insert(name.clone(), Arc::new(entry));
        let nodes = said_by(&self.nodes, now);
        self.policies.take(&name, &nodes, self.published_ms, now);
        let entry = self.nodes.get_mut(&name).and_then(Arc::get_mut);
        let said = entry.and_then(|entry| entry.said.as_mut());
        if let Some(said) = said.and_then(|(_, said)| Arc::get_mut(said)) {
            said.settle(&self.policies);
        }
        Accepted::Newest
    }

    /// The merged rows at `now`, in one namespace or in all, sorted by (namespace, name), each name once.
    #[must_use]
    pub fn rows(&self, namespace: Option<&str>, now: Timestamp) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = self
            .live(now)
            .flat_map(|entry| {
                let range = namespace.map_or(0..entry.pods.len(), |namespace| entry.range(namespace));
                entry.rows(range, now)
            })
            .collect();
        // Stable, and nodes come in the order of their names: equal rows resolve the same way every time.
        rows.sort_by(|a, b| key(a.reported).cmp(&key(b.reported)));
        rows.dedup_by(|later, kept| {
            let same = key(later.reported) == key(kept.reported);
            if same && later.supersedes(kept) {
                *kept = *later;
            }
            same
        });
        rows
    }

    /// One Pod at `now`.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str, now: Timestamp) -> Option<Row<'_>> {
        let candidates = self.live(now).flat_map(|entry| {
            let first = entry.pods.partition_point(|pod| key(pod) < (namespace, name));
            let same = entry
                .pods
                .iter()
                .skip(first)
                .take_while(|pod| key(pod) == (namespace, name))
                .count();
            entry.rows(first..first + same, now)
        });
        candidates.reduce(|kept, later| if later.supersedes(&kept) { later } else { kept })
    }

    /// The resourceVersion of a list at `now`: the newest publish time of what it can show, `now` while it is empty.
    #[must_use]
    pub fn resource_version(&self, now: Timestamp) -> String {
        let silences = self.live(now).filter_map(|entry| entry.silent_since(now));
        let silences = silences.map(Timestamp::as_millisecond);
        let newest = silences.fold(self.published_ms, i64::max);
        if newest == 0 { now.as_millisecond() } else { newest }.to_string()
    }

    /// How many nodes have reported and not expired at `now`.
    #[must_use]
    pub fn nodes(&self, now: Timestamp) -> usize {
        self.live(now).count()
    }

    /// The nodes that have reported and not expired at `now`, by name.
    pub(super) fn views(&self, now: Timestamp) -> impl Iterator<Item = NodeView<'_>> + Clone {
        let nodes = self.nodes.iter().filter(move |(_, entry)| !entry.is_expired(now));
        nodes.map(move |(name, entry)| NodeView {
            name,
            silent: entry.silent_since(now).is_some(),
            multicast: &entry.multicast,
            queriers: &entry.queriers,
            findings: &entry.findings,
            streams: &entry.streams,
        })
    }

    /// The groups, all or of those `wanted`, that a Pod sends to at `now` while nobody in the cluster has joined.
    #[must_use]
    pub fn unheard(&self, wanted: Option<&BTreeSet<IpAddr>>, now: Timestamp) -> Unheard {
        let nodes = self.views(now).map(|node| (node.streams, node.silent));
        Unheard::of(nodes, wanted, now)
    }

    /// Which policies there are, by a source of this server's own; until it has told, they are those that nodes report.
    pub fn follow_policies(&mut self, existing: Existing, now: Timestamp) {
        self.published_ms = now.as_millisecond().max(self.published_ms.saturating_add(1));
        let nodes = said_by(&self.nodes, now);
        self.policies.follow(existing, &nodes, self.published_ms, now);
    }

    /// The policies of this kind at `now`, in one namespace or in all, sorted by namespace and name.
    #[must_use]
    pub fn policies<const CLUSTER_WIDE: bool>(
        &self,
        namespace: Option<&str>,
        now: Timestamp,
    ) -> Vec<PolicyStats<CLUSTER_WIDE>> {
        self.wanted_policies(
            |policy| namespace.is_none_or(|namespace| policy.namespace == namespace),
            now,
        )
    }

    /// One policy at `now`; `namespace` is empty for a ClusterNetworkPolicy.
    #[must_use]
    pub fn policy<const CLUSTER_WIDE: bool>(
        &self,
        namespace: &str,
        name: &str,
        now: Timestamp,
    ) -> Option<PolicyStats<CLUSTER_WIDE>> {
        let wanted = |policy: &NetworkPolicyReference| policy.namespace == namespace && policy.name == name;
        self.wanted_policies(wanted, now).pop()
    }

    fn wanted_policies<const CLUSTER_WIDE: bool>(
        &self,
        wanted: impl Fn(&NetworkPolicyReference) -> bool,
        now: Timestamp,
    ) -> Vec<PolicyStats<CLUSTER_WIDE>> {
        let speaks = |entry: &&NodeEntry| {
            let current = entry.said.as_ref().is_some_and(|(at, _)| *at == entry.arrived);
            current && entry.silent_since(now).is_none()
        };
        let saturated = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let counted = Counted {
            reporting: saturated(self.live(now).filter(speaks).count()),
            expected: saturated(self.nodes(now)),
        };
        self.policies.served(wanted, &said_by(&self.nodes, now), counted)
    }

    fn live(&self, now: Timestamp) -> impl Iterator<Item = &NodeEntry> {
        self.nodes
            .values()
            .map(AsRef::as_ref)
            .filter(move |entry| !entry.is_expired(now))
    }
}

/// What each node that has not expired said of policies.
fn said_by(nodes: &BTreeMap<String, Arc<NodeEntry>>, now: Timestamp) -> Nodes<'_> {
    let live = nodes.iter().filter(|(_, entry)| !entry.is_expired(now));
    live.map(|(name, entry)| (name.as_str(), entry.said.as_ref().map(|(_, said)| &**said)))
        .collect()
}

impl NodeEntry {
    /// Whether a summary of this node is newer than the one that is held.
    fn is_replaced_by(&self, summary: &NodeStatsSummary, now: Timestamp) -> bool {
        if summary.start_time == self.start_time {
            return summary.observed_at > self.observed_at;
        }
        // Another agent process. Its clock may have been set back since: once the old process is silent it is gone.
        summary.start_time > self.start_time || now >= self.silent_from
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        now.duration_since(self.arrived) >= EXPIRY
    }

    fn silent_since(&self, now: Timestamp) -> Option<Timestamp> {
        (now >= self.silent_from).then_some(self.silent_from)
    }

    fn range(&self, namespace: &str) -> std::ops::Range<usize> {
        let first = self
            .pods
            .partition_point(|pod| pod.metadata.namespace.as_str() < namespace);
        let end = self
            .pods
            .partition_point(|pod| pod.metadata.namespace.as_str() <= namespace);
        first..end
    }

    fn rows(&self, range: std::ops::Range<usize>, now: Timestamp) -> impl Iterator<Item = Row<'_>> {
        let pods = self.pods.get(range).unwrap_or_default().iter();
        let silent_since = self.silent_since(now);
        pods.map(move |reported| Row::new(reported, self.arrived, silent_since))
    }
}

/// Rows are sorted by it, and found.
pub(super) fn key(pod: &PodMulticastStats) -> (&str, &str) {
    (&pod.metadata.namespace, &pod.metadata.name)
}

/// Never later than the expiry, so that rows are marked before they go, and never earlier than three seconds.
fn silent_from(now: Timestamp, interval_seconds: u32) -> Timestamp {
    let interval = SignedDuration::from_secs(i64::from(interval_seconds.max(1)).saturating_mul(SILENT_AFTER_INTERVALS));
    now.checked_add(interval.min(EXPIRY)).unwrap_or(Timestamp::MAX)
}

/// One index for many readers and writers.
#[derive(Debug, Default)]
pub struct SharedIndex(RwLock<Arc<Index>>);

impl SharedIndex {
    /// The index as it is now; it does not change under the reader.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Index> {
        // A panic while the lock was held cannot leave half an index: `accept` builds a node's entry and inserts it whole.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// [`Index::accept`]. Clones the node map (not the rows) when a reader still holds the old one.
    pub fn accept(&self, summary: NodeStatsSummary, now: Timestamp) -> Accepted {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut guard).accept(summary, now)
    }

    /// [`Index::follow_policies`].
    pub fn follow_policies(&self, existing: Existing, now: Timestamp) {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut guard).follow_policies(existing, now);
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
