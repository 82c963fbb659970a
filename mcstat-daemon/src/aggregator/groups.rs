//! The groups of the cluster, merged on read from the Pods' rows and from what every node says of its members.
//!
//! A pure function of the index and a time. Its promises: a group is listed while a node that is not silent lists it, or
//! while somebody sends to it; a silent node's Pods are no members, yet their counts stay in the sums; a Pod that two
//! nodes name is one Pod, the row's; the order is by address, and by namespace and name within. The work is that of going
//! through the rows once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;

use super::{
    findings::Unheard,
    index::{Index, NodeView, key},
    row::Row,
    senders::{self, Senders},
};
use crate::api::{
    group::{self, GroupFinding, GroupStatus, Member, MulticastGroup, NodeQuerier, Sender, Source, Traffic},
    scope,
    stats::{self, FilterMode, Group, Membership, Metadata},
    summary::PodReference,
};

/// The groups at `now`, all of them or the one `wanted`, sorted by address.
#[must_use]
pub fn groups(index: &Index, wanted: Option<IpAddr>, unheard: &Unheard, now: Timestamp) -> Vec<MulticastGroup> {
    let rows = index.rows(None, now);
    let is_wanted = |group: IpAddr| wanted.is_none_or(|wanted| group == wanted);
    let mut merged: BTreeMap<IpAddr, Merged<'_>> = BTreeMap::new();
    for node in index.views(now).filter(|node| !node.silent) {
        members(&node, &rows, is_wanted, &mut merged);
    }
    for row in &rows {
        let series = row.reported.status.groups.iter();
        for series in series.filter(|series| is_wanted(series.group)) {
            merged.entry(series.group).or_default().take(row, series, now);
        }
        findings(row, &mut merged);
    }
    let cluster = Cluster::new(index, now);
    let finished = merged
        .into_iter()
        .filter_map(|(group, merged)| merged.finish(group, &cluster, unheard));
    finished.collect()
}

/// What the nodes are at one time.
struct Cluster<'a> {
    nodes: BTreeMap<&'a str, NodeView<'a>>,
    reporting: u32,
    /// How often a receiver's last source changed lately: of all receivers the most.
    changes: BTreeMap<IpAddr, u64>,
    resource_version: String,
}

impl<'a> Cluster<'a> {
    fn new(index: &'a Index, now: Timestamp) -> Self {
        let nodes: BTreeMap<_, _> = index.views(now).map(|node| (node.name, node)).collect();
        let reporting = nodes.values().filter(|node| !node.silent).count();
        let mut changes: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for (group, count) in nodes.values().flat_map(|node| node.streams.changes(now)) {
            let most = changes.entry(group).or_default();
            *most = count.max(*most);
        }
        Self {
            nodes,
            reporting: saturated(reporting),
            changes,
            resource_version: index.resource_version(now),
        }
    }
}

/// One group while it is being merged.
#[derive(Default)]
struct Merged<'a> {
    /// A node lists it without members.
    listed: bool,
    pods: BTreeMap<(&'a str, &'a str), &'a str>,
    memberships: BTreeMap<(&'a str, &'a str, &'a str), (&'a str, &'a Membership)>,
    senders: Senders<'a>,
    sources: BTreeMap<IpAddr, Source>,
    sent: Traffic,
    received: Traffic,
    last_seen: Option<Timestamp>,
    findings: Vec<GroupFinding>,
}

/// Every member that the node names, unless another node has the newer Pod of that name.
fn members<'a>(
    node: &NodeView<'a>,
    rows: &[Row<'a>],
    is_wanted: impl Fn(IpAddr) -> bool,
    merged: &mut BTreeMap<IpAddr, Merged<'a>>,
) {
    for group in node.multicast.iter().filter(|group| is_wanted(group.group)) {
        let merged = merged.entry(group.group).or_default();
        merged.listed |= group.pods.is_empty();
        for pod in &group.pods {
            let name = (pod.namespace.as_str(), pod.name.as_str());
            let shown = rows.binary_search_by(|row| key(row.reported).cmp(&name)).ok();
            let shown = shown.and_then(|place| rows.get(place));
            if shown.is_none_or(|row| row.reported.spec.node == node.name) {
                merged.pods.insert(name, node.name);
            }
        }
    }
}

/// What a node that is not silent finds wrong with its Pod's groups. Link-local groups have no findings.
fn findings<'a>(row: &Row<'a>, merged: &mut BTreeMap<IpAddr, Merged<'a>>) {
    if row.is_stale() {
        return;
    }
    let pod = row.reported;
    for finding in &pod.status.findings {
        if let Some(merged) = finding.group.and_then(|group| merged.get_mut(&group)) {
            merged.findings.push(GroupFinding {
                finding: finding.clone(),
                pod: Some(format!("{}/{}", pod.metadata.namespace, pod.metadata.name)),
                node: Some(pod.spec.node.clone()),
            });
        }
    }
}

impl<'a> Merged<'a> {
    /// One series of one Pod.
    fn take(&mut self, row: &Row<'a>, series: &'a Group, now: Timestamp) {
        let pod = row.reported;
        let name = key(pod);
        if let Some(membership) = series.membership.as_ref().filter(|membership| membership.joined) {
            let interface = (name.0, name.1, series.interface.as_str());
            self.memberships.insert(interface, (pod.spec.node.as_str(), membership));
        }
        if let Some(outbound) = &series.outbound {
            self.sent.add(outbound.packets, outbound.bytes);
            self.last_seen = self.last_seen.max(outbound.last_seen);
            let source = series.source.or(outbound.last_source);
            self.senders.sent(row, source, outbound, now);
        }
        if let Some(inbound) = &series.inbound {
            self.received.add(inbound.packets, inbound.bytes);
            self.last_seen = self.last_seen.max(inbound.last_seen);
            let source = series.source.or(inbound.last_source);
            self.senders.heard(row, source, inbound, now);
        }
        if let Some(source) = series.source {
            self.source(source).count(series);
        }
    }

    fn source(&mut self, source: IpAddr) -> &mut Source {
        self.sources.entry(source).or_insert(Source {
            source,
            included: 0,
            excluded: 0,
            sent: Traffic::default(),
            received: Traffic::default(),
            last_seen: None,
        })
    }

    /// The group as it is served; none when nobody is in it, sends to it or lists it.
    fn finish(mut self, group: IpAddr, cluster: &Cluster<'_>, unheard: &Unheard) -> Option<MulticastGroup> {
        let senders = std::mem::take(&mut self.senders).list();
        if !self.listed && self.pods.is_empty() && senders.is_empty() {
            return None;
        }
        let members = self.members();
        let sources = scope::is_ssm(group).then(|| self.all_sources(&members));
        let nodes = self.nodes(&senders);
        let findings = self.all_findings(group, cluster, unheard);
        let status = GroupStatus {
            summary: findings
                .first()
                .map_or("OK", |first| first.finding.kind.word())
                .to_owned(),
            hidden: scope::is_everyones(group),
            nodes_reporting: cluster.reporting,
            nodes_expected: saturated(cluster.nodes.len()),
            members,
            more_senders: senders::are_there_more(&senders, cluster.changes.get(&group).copied().unwrap_or(0)),
            senders,
            sources,
            sent: self.sent,
            received: self.received,
            last_seen: self.last_seen,
            queriers: queriers(group, &nodes, cluster),
            nodes,
            findings,
        };
        Some(MulticastGroup {
            api_version: format!("{}/{}", stats::GROUP, stats::VERSION),
            kind: group::KIND.to_owned(),
            metadata: Metadata {
                name: group.to_string(),
                resource_version: Some(cluster.resource_version.clone()),
                ..Metadata::default()
            },
            group,
            pods: self
                .pods
                .keys()
                .map(|(namespace, name)| reference(namespace, name))
                .collect(),
            status,
        })
    }

    /// How the members' memberships are known. A membership whose Pod its node does not name is none of the group.
    fn members(&self) -> Vec<Member> {
        let named = self
            .memberships
            .iter()
            .filter(|((namespace, name, _), (node, _))| self.pods.get(&(*namespace, *name)) == Some(node));
        named
            .map(|((namespace, name, interface), (node, membership))| Member {
                namespace: (*namespace).to_owned(),
                pod: (*name).to_owned(),
                node: (*node).to_owned(),
                interface: (*interface).to_owned(),
                membership: (*membership).clone(),
            })
            .collect()
    }

    fn all_sources(&mut self, members: &[Member]) -> Vec<Source> {
        for membership in members.iter().map(|member| &member.membership) {
            for address in &membership.sources {
                let source = self.source(*address);
                match membership.mode {
                    Some(FilterMode::Include) => source.included = source.included.saturating_add(1),
                    Some(FilterMode::Exclude) => source.excluded = source.excluded.saturating_add(1),
                    None => {}
                }
            }
        }
        std::mem::take(&mut self.sources).into_values().collect()
    }

    fn nodes(&self, senders: &[Sender]) -> Vec<String> {
        let members = self.pods.values().copied();
        let senders = senders.iter().filter_map(|sender| sender.node.as_deref());
        let nodes: BTreeSet<&str> = members.chain(senders).collect();
        nodes.into_iter().map(str::to_owned).collect()
    }

    /// The Pods' own, the cluster's, and those of the queriers where members are.
    fn all_findings(&mut self, group: IpAddr, cluster: &Cluster<'_>, unheard: &Unheard) -> Vec<GroupFinding> {
        if scope::is_link_local(group) {
            return Vec::new();
        }
        let mut findings = std::mem::take(&mut self.findings);
        findings.extend(unheard.finding(group).map(|finding| GroupFinding {
            finding,
            pod: None,
            node: None,
        }));
        let nodes: BTreeSet<&str> = self.pods.values().copied().collect();
        for node in nodes.into_iter().filter_map(|name| cluster.nodes.get(name)) {
            let of_family =
                |finding: &&stats::Finding| finding.group.is_none_or(|about| about.is_ipv4() == group.is_ipv4());
            findings.extend(node.findings.iter().filter(of_family).map(|finding| GroupFinding {
                finding: finding.clone(),
                pod: None,
                node: Some(node.name.to_owned()),
            }));
        }
        findings.sort();
        findings
    }
}

impl Source {
    fn count(&mut self, series: &Group) {
        if let Some(outbound) = &series.outbound {
            self.sent.add(outbound.packets, outbound.bytes);
            self.last_seen = self.last_seen.max(outbound.last_seen);
        }
        if let Some(inbound) = &series.inbound {
            self.received.add(inbound.packets, inbound.bytes);
            self.last_seen = self.last_seen.max(inbound.last_seen);
        }
    }
}

fn queriers(group: IpAddr, nodes: &[String], cluster: &Cluster<'_>) -> Vec<NodeQuerier> {
    let nodes = nodes.iter().filter_map(|name| cluster.nodes.get(name.as_str()));
    let heard = nodes.filter(|node| !node.silent).flat_map(|node| {
        let queriers = node.queriers.iter();
        let of_family = queriers.filter(move |querier| querier.address.is_ipv4() == group.is_ipv4());
        of_family.map(|querier| NodeQuerier {
            node: node.name.to_owned(),
            querier: querier.clone(),
        })
    });
    heard.collect()
}

fn reference(namespace: &str, name: &str) -> PodReference {
    PodReference {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "groups_senders_tests.rs"]
mod senders_tests;
