//! The rows of a Pod's `.groups[]`: series, memberships and findings of each group side by side; and the node's groups.
//!
//! Pure and deterministic: sorted by group, source and interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;

use super::{
    delta::Baseline,
    findings::{Findings, SENDING},
    judge::{Decider, Judge},
    membership::Memberships,
    snapshot::{Direction, GroupReading, PolicyReading, PortReading},
    verdict::PodName,
};
use crate::api::{
    stats::{self, PodMulticastStats},
    summary::{GroupMembers, PodReference},
};

/// One row per port and series: what was sent and what was received of it, the rule that decides what is sent, and the
/// membership of its group. A group with a membership and no series has a row of its own.
pub(super) fn rows(
    ports: &[(&PortReading, Option<Baseline<'_>>)],
    policy: Option<&PolicyReading>,
    memberships: &Memberships,
    findings: &Findings,
) -> Vec<stats::Group> {
    let mut rows = Vec::new();
    for (port, baseline) in ports {
        let name = PodName::new(&port.pod.namespace, &port.pod.name);
        let judge = Judge::new(policy, &name);
        let mut series: BTreeMap<(IpAddr, Option<IpAddr>), [Option<&GroupReading>; 2]> = BTreeMap::new();
        for group in &port.inbound.groups {
            series.entry((group.group, group.source)).or_default()[0] = Some(group);
        }
        for group in &port.outbound.groups {
            series.entry((group.group, group.source)).or_default()[1] = Some(group);
        }
        let counted: BTreeSet<IpAddr> = series.keys().map(|(group, _)| *group).collect();
        let joined = memberships.port(port.id).map(|port| port.memberships());
        let findings = findings.of_port(port.id);
        for group in joined
            .iter()
            .flat_map(|joined| joined.keys())
            .filter(|group| !counted.contains(group))
        {
            series.insert((*group, None), [None, None]);
        }
        for ((group, source), sides) in series {
            let mut row = row(port, group, source, baseline.as_ref(), sides);
            if let Some(outbound) = &mut row.outbound {
                decide(outbound, group, &judge);
            }
            row.membership = joined.and_then(|joined| joined.get(&group)).cloned();
            if let Some(finding) = findings.iter().find(|finding| finding.group == Some(group)) {
                row.finding = Some(finding.kind);
                row.since = Some(finding.since);
            }
            rows.push(row);
        }
    }
    // Stable: two ports of one interface name stay in the order of their ids.
    rows.sort_by(|a, b| (a.group, a.source, &a.interface).cmp(&(b.group, b.source, &b.interface)));
    rows
}

fn row(
    port: &PortReading,
    group: IpAddr,
    source: Option<IpAddr>,
    baseline: Option<&Baseline<'_>>,
    [inbound, outbound]: [Option<&GroupReading>; 2],
) -> stats::Group {
    let side = |direction, reading: Option<&GroupReading>| reading.map(|reading| side(direction, reading, baseline));
    stats::Group {
        group,
        source,
        interface: port.interface.clone(),
        inbound: side(Direction::Inbound, inbound),
        outbound: side(Direction::Outbound, outbound),
        last_source: inbound
            .and_then(|group| group.last_source)
            .or(outbound.and_then(|group| group.last_source)),
        start_time: [inbound, outbound].into_iter().flatten().map(|group| group.since).min(),
        membership: None,
        finding: None,
        since: None,
    }
}

fn side(direction: Direction, reading: &GroupReading, baseline: Option<&Baseline<'_>>) -> stats::GroupCounters {
    stats::GroupCounters {
        packets: reading.admitted.packets,
        bytes: reading.admitted.bytes,
        segments: reading.admitted.segments,
        dropped: reading.dropped,
        would_drop: reading.would_drop,
        ttl1: reading.ttl1,
        source_changes: reading.source_changes,
        per_second: baseline.map(|baseline| baseline.series_rate(direction, reading)),
        last_seen: reading.last_seen,
        last_source: reading.last_source,
        rule: None,
        by_port: false,
    }
}

/// Names the rule that decides what is sent to the group now.
fn decide(outbound: &mut stats::GroupCounters, group: IpAddr, judge: &Judge<'_>) {
    let IpAddr::V4(group) = group else { return };
    match judge.data(group) {
        Decider::Nobody => {}
        Decider::Rule(rule) => outbound.rule = Some(rule),
        Decider::ByPort => outbound.by_port = true,
    }
}

/// The groups of the node: those that have a member, and those in which something moved lately, with an empty list then.
pub(super) fn of_node(pods: &[PodMulticastStats], now: Timestamp) -> Vec<GroupMembers> {
    let mut groups: BTreeMap<IpAddr, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for pod in pods {
        for row in &pod.status.groups {
            let joined = row.membership.as_ref().is_some_and(|membership| membership.joined);
            let moved = [&row.inbound, &row.outbound]
                .into_iter()
                .flatten()
                .filter_map(|side| side.last_seen)
                .max();
            if joined {
                let pod = (pod.metadata.namespace.as_str(), pod.metadata.name.as_str());
                groups.entry(row.group).or_default().insert(pod);
            } else if moved.is_some_and(|moved| now.duration_since(moved) < SENDING) {
                groups.entry(row.group).or_default();
            }
        }
    }
    let reference = |(namespace, name): (&str, &str)| PodReference {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let listed = groups.into_iter().map(|(group, pods)| GroupMembers {
        group,
        pods: pods.into_iter().map(reference).collect(),
    });
    listed.collect()
}
