//! What policies allowed and dropped in the cluster: the sum over the nodes of what each of them counted.
//!
//! Pure. A node's numbers are cumulative since the start of each life of a rule, so a report replaces what the same node
//! said of the same life, and another life adds to it: a retry changes nothing, no number falls, and what a node counted
//! that is gone stays in the sum until the policy goes. A policy that is made again begins at zero. Which policies there
//! are is for this server's own source to say, where it has one ([`Existing`]); else they are those that nodes report.

mod share;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use self::share::Share;
use crate::{
    agent::policy::{PolicyObjects, files},
    api::{
        policy::{
            Denied, NetworkPolicyReference, NetworkPolicyStats, PolicyStats, PolicyStatus, RuleTrafficStats,
            TrafficStats,
        },
        resource::Object as _,
        stats::{self, Metadata},
        summary::NodeStatsSummary,
    },
    ledger::verdict::{Content, Kind, Object},
};

/// Which policy, whatever happens to its UID: see [`files::made_of`].
type Identity = Arc<str>;

/// The policies that there are, as a source of this server's own knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing(BTreeMap<Identity, Policy>);

/// A policy by kind and name, and its UID.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Policy {
    cluster_wide: bool,
    reference: NetworkPolicyReference,
    /// Whether it has rules for multicast now. One that has none is the same policy, and may have some again. `None`: that
    /// rests on groups, which nodes read, and they tell of those that have.
    multicast: Option<bool>,
}

impl Existing {
    /// All of them, whatever their rules are about; `None` while the source has not been read: that is not the same as none.
    #[must_use]
    pub fn of(objects: &PolicyObjects) -> Option<Self> {
        if !objects.known {
            return None;
        }
        let policies = objects.objects.iter().filter_map(|object| match &object.content {
            Content::Policy(policy) => Some((object, policy.is_multicast())),
            _ => None,
        });
        let policies = policies.map(|(Object { key, uid, .. }, multicast)| {
            let policy = Policy {
                cluster_wide: key.kind == Kind::ClusterNetworkPolicy,
                reference: NetworkPolicyReference {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    uid: uid.to_string(),
                },
                multicast,
            };
            (files::made_of(uid).into(), policy)
        });
        Some(Self(policies.collect()))
    }
}

/// What one node said of policies.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Those whose sums have it.
    counted: BTreeSet<Identity>,
    /// Of the others: the source of this server's own may come to know them.
    uncounted: BTreeMap<Identity, (bool, NetworkPolicyStats)>,
}

impl Said {
    /// Takes it out of a summary; `None`: the node has no source of policies, or has not read it yet.
    pub(super) fn take(summary: &mut NodeStatsSummary) -> Option<Self> {
        let lists = [
            (true, summary.antrea_cluster_network_policies.take()),
            (false, summary.antrea_network_policies.take()),
        ];
        if lists.iter().all(|(_, list)| list.is_none()) {
            return None;
        }
        let said = lists.into_iter().flat_map(|(cluster_wide, list)| {
            let list = list.into_iter().flatten();
            list.map(move |policy| {
                let identity: Identity = files::made_of(&policy.network_policy.uid).into();
                (identity, (cluster_wide, policy))
            })
        });
        Some(Self {
            counted: BTreeSet::new(),
            uncounted: said.collect(),
        })
    }

    /// Lets go what these sums have taken: it would be there twice, for each node and policy. What the own source has not
    /// told of yet may be taken from the sums again.
    pub(super) fn settle(&mut self, policies: &Policies) {
        if policies.existing.is_none() {
            return;
        }
        for (identity, told) in std::mem::take(&mut self.uncounted) {
            if let Some((identity, _)) = policies.sums.get_key_value(&identity) {
                self.counted.insert(Arc::clone(identity));
            } else {
                self.uncounted.insert(identity, told);
            }
        }
    }

    fn names(&self, identity: &str) -> bool {
        self.counted.contains(identity) || self.uncounted.contains_key(identity)
    }
}

/// The nodes at one time: of each that has not expired its name, and what it said of policies.
pub(super) type Nodes<'a> = BTreeMap<&'a str, Option<&'a Said>>;

/// Every policy's sum.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    existing: Option<Arc<Existing>>,
    sums: BTreeMap<Identity, Arc<Sum>>,
}

#[derive(Debug, Clone)]
struct Sum {
    policy: Policy,
    /// Whether the own source has named it: then it alone says when it is made again.
    own: bool,
    /// When this server heard of it.
    since: Timestamp,
    /// Publish time of the last change.
    version: i64,
    /// What each node counted, gone ones included.
    nodes: BTreeMap<Arc<str>, Arc<Share>>,
}

/// What is served beside every sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) reporting: u32,
    pub(super) expected: u32,
}

impl Policies {
    /// Takes what this node said, which is among `nodes`, and forgets the policies that are gone.
    pub(super) fn take(&mut self, node: &str, nodes: &Nodes<'_>, version: i64, now: Timestamp) {
        let said = nodes.get(node).copied().flatten();
        for (identity, (cluster_wide, reported)) in said.iter().flat_map(|said| &said.uncounted) {
            self.count(node, identity, *cluster_wide, reported, nodes, (version, now));
        }
        // What it said before holds: the numbers are the same, and of one node fewer that reports.
        for identity in said.iter().flat_map(|said| &said.counted) {
            if let Some(sum) = self.sums.get_mut(identity) {
                Arc::make_mut(sum).version = version;
            }
        }
        self.forget(nodes);
    }

    /// A node is gone. Where it had no rule it leaves nothing: nodes come and go for as long as a policy stays.
    pub(super) fn leave(&mut self, node: &str) {
        for sum in self.sums.values_mut() {
            if sum.nodes.get(node).is_some_and(|share| share.is_empty()) {
                Arc::make_mut(sum).nodes.remove(node);
            }
        }
    }

    /// The source of this server's own says what there is.
    pub(super) fn follow(&mut self, existing: Existing, nodes: &Nodes<'_>, version: i64, now: Timestamp) {
        let mut new = Vec::new();
        for (identity, policy) in &existing.0 {
            let sum = self.sums.entry(Arc::clone(identity)).or_insert_with(|| {
                new.push(Arc::clone(identity));
                Arc::new(Sum {
                    policy: policy.clone(),
                    own: true,
                    since: now,
                    version,
                    nodes: BTreeMap::new(),
                })
            });
            // Seldom: only what changed is copied.
            if sum.policy != *policy || !sum.own {
                let sum = Arc::make_mut(sum);
                // A node that told of it first has its own UID for it.
                if sum.own && sum.policy.reference.uid != policy.reference.uid {
                    sum.begin_anew(now);
                }
                (sum.policy, sum.own, sum.version) = (policy.clone(), true, version);
            }
        }
        self.existing = Some(Arc::new(existing));
        // A node may have told of it first.
        for identity in &new {
            for (node, said) in nodes {
                if let Some((cluster_wide, reported)) = said.and_then(|said| said.uncounted.get(identity)) {
                    self.count(node, identity, *cluster_wide, reported, nodes, (version, now));
                }
            }
        }
        self.forget(nodes);
    }

    fn count(
        &mut self,
        node: &str,
        identity: &Identity,
        cluster_wide: bool,
        reported: &NetworkPolicyStats,
        nodes: &Nodes<'_>,
        (version, now): (i64, Timestamp),
    ) {
        let known = self.existing.as_ref().map(|existing| existing.0.get(identity));
        // The own source knows better: there is none, or not yet.
        if known == Some(None) && !self.sums.contains_key(identity) {
            return;
        }
        let sum = self.sums.entry(Arc::clone(identity)).or_insert_with(|| {
            let policy = Policy {
                cluster_wide,
                reference: reported.network_policy.clone(),
                // Or it had: a node tells of no other.
                multicast: Some(true),
            };
            Arc::new(Sum {
                policy,
                own: false,
                since: now,
                version,
                nodes: BTreeMap::new(),
            })
        });
        let sum = Arc::make_mut(sum);
        sum.version = version;
        let uid = &reported.network_policy.uid;
        let share = sum
            .nodes
            .entry(node.into())
            .or_insert_with(|| Arc::new(Share::new(uid)));
        let share = Arc::make_mut(share);
        // Each process counts for itself how often a file was made again: the own source's word is enough.
        let grown = share.is_made_again_as(uid);
        let made_again = known.is_none() && grown;
        if made_again {
            *share = Share::new(uid);
        } else if grown && known == Some(None) {
            // It has seen the policy go, and will see it come back.
            share.run_ahead();
        }
        share.take(uid, &reported.rule_traffic_stats);
        if made_again {
            sum.nodes
                .retain(|name, share| share.is_of(uid) || nodes.contains_key(&**name));
            (sum.policy.reference, sum.since) = (reported.network_policy.clone(), now);
        }
    }

    fn forget(&mut self, nodes: &Nodes<'_>) {
        let existing = self.existing.clone();
        // A policy of the own source's files may come back, and what was counted before is to be told from what comes then.
        let may_come_back = |sum: &Sum| sum.own && files::is_made_up(&sum.policy.reference.uid);
        self.sums
            .retain(|identity, sum| exists(existing.as_deref(), identity, nodes) || may_come_back(sum));
    }

    /// The policies of this kind that are wanted, sorted by namespace and name.
    pub(super) fn served<const CLUSTER_WIDE: bool>(
        &self,
        wanted: impl Fn(&NetworkPolicyReference) -> bool,
        nodes: &Nodes<'_>,
        counted: Counted,
    ) -> Vec<PolicyStats<CLUSTER_WIDE>> {
        let existing = self.existing.as_deref();
        let there = self.sums.iter().filter(|(identity, sum)| {
            sum.policy.cluster_wide == CLUSTER_WIDE
                && wanted(&sum.policy.reference)
                && exists(existing, identity, nodes)
        });
        // Two of one name: nodes do not learn at once that a policy was made again. The one heard of last is it.
        let mut newest: BTreeMap<(&str, &str), (&str, &Sum)> = BTreeMap::new();
        for (identity, sum) in there {
            let reference = &sum.policy.reference;
            let shown = newest
                .entry((&reference.namespace, &reference.name))
                .or_insert((identity, sum));
            if (sum.since, &reference.uid) > (shown.1.since, &shown.1.policy.reference.uid) {
                *shown = (identity, sum);
            }
        }
        let served = newest.into_values().filter_map(|(identity, sum)| {
            let multicast = sum.policy.multicast.unwrap_or_else(|| is_told(identity, nodes));
            sum.served(multicast, counted)
        });
        served.collect()
    }
}

fn exists(existing: Option<&Existing>, identity: &str, nodes: &Nodes<'_>) -> bool {
    existing.map_or_else(
        || is_told(identity, nodes),
        |existing| existing.0.contains_key(identity),
    )
}

/// Whether any node tells of the policy now.
fn is_told(identity: &str, nodes: &Nodes<'_>) -> bool {
    nodes.values().flatten().any(|said| said.names(identity))
}

impl Sum {
    /// Made again by the own source, while nodes may still tell of the one before.
    fn begin_anew(&mut self, now: Timestamp) {
        self.since = now;
        let shares = self.nodes.values_mut();
        shares.for_each(|share| Arc::make_mut(share).begin_anew(now));
    }

    /// `None`: it has no rules for multicast and never counted any; at zero it would contradict what others count of it.
    fn served<const CLUSTER_WIDE: bool>(&self, multicast: bool, counted: Counted) -> Option<PolicyStats<CLUSTER_WIDE>> {
        let rules = share::sum(self.nodes.values().map(AsRef::as_ref));
        if !multicast && rules.iter().all(RuleTrafficStats::is_nothing) {
            return None;
        }
        let start_time = rules.iter().map(|rule| rule.start_time).min();
        let reference = &self.policy.reference;
        Some(PolicyStats {
            api_version: format!("{}/{}", stats::GROUP, stats::VERSION),
            kind: PolicyStats::<CLUSTER_WIDE>::RESOURCE.kind.to_owned(),
            metadata: Metadata {
                namespace: reference.namespace.clone(),
                name: reference.name.clone(),
                uid: Some(reference.uid.clone()),
                creation_timestamp: Some(start_time.map_or(self.since, |start| start.min(self.since))),
                resource_version: Some(self.version.to_string()),
                ..Metadata::default()
            },
            traffic_stats: TrafficStats::sum(&rules),
            status: PolicyStatus {
                start_time,
                kept_since: self.since,
                nodes_reporting: counted.reporting,
                nodes_expected: counted.expected,
                would_drop: Denied::sum(&rules),
            },
            rule_traffic_stats: rules,
        })
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "policies_files_tests.rs"]
mod files_tests;
