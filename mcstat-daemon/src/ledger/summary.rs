//! Snapshot, window and history to the node's summary.
//!
//! Pure and deterministic: Pods by namespace and name, groups by group, source and interface, interfaces by name.
//! Measures nothing itself: what no source measured stays absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use jiff::SignedDuration;

use super::{
    Ledger, control_counts,
    delta::{Baseline, rounded},
    groups,
    history::{PodTotals, Sandboxes},
    membership::{Memberships, Port},
    snapshot::{
        Direction, KernelReading, NamespaceReading, OtherGroups, PodRef, PortReading, ReportVerdicts, Snapshot,
        UncountedPort,
    },
    status,
    totals::Totals,
    verdict::Kind,
};
use crate::api::{stats, summary};

/// What one snapshot lists of one sandbox.
#[derive(Debug, Default)]
struct Listed<'a> {
    ports: Vec<&'a PortReading>,
    uncounted: Vec<&'a UncountedPort>,
}

/// The node's truth as of `snapshot`, which every part of the ledger has taken in.
pub(super) fn summarize(ledger: &Ledger, snapshot: &Snapshot) -> summary::NodeStatsSummary {
    let node = &ledger.node;
    let pods: Vec<_> = newest_sandboxes(&ledger.sandboxes, snapshot)
        .into_iter()
        .map(|(pod, listed)| pod_stats(ledger, snapshot, pod, &listed))
        .collect();
    summary::NodeStatsSummary {
        api_version: format!("{}/{}", summary::GROUP, summary::VERSION),
        kind: "NodeStatsSummary".to_owned(),
        metadata: summary::SummaryMetadata {
            name: node.name.clone(),
        },
        start_time: node.start_time,
        observed_at: snapshot.at,
        interval_seconds: node.push_interval_seconds,
        multicast: groups::of_node(&pods, snapshot.at),
        antrea_cluster_network_policies: ledger.rules.of(Kind::ClusterNetworkPolicy),
        antrea_network_policies: ledger.rules.of(Kind::NetworkPolicy),
        queriers: ledger.memberships.queriers(snapshot.at),
        findings: ledger.findings.of_node().to_vec(),
        kernel: kernel(&snapshot.kernel),
        pods,
    }
}

fn pod_stats(ledger: &Ledger, snapshot: &Snapshot, pod: &PodRef, listed: &Listed<'_>) -> stats::PodMulticastStats {
    stats::PodMulticastStats {
        api_version: format!("{}/{}", stats::GROUP, stats::VERSION),
        kind: stats::KIND.to_owned(),
        metadata: stats::Metadata {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            ..stats::Metadata::default()
        },
        spec: stats::Spec {
            node: ledger.node.name.clone(),
        },
        status: pod_status(ledger, snapshot, pod, listed),
    }
}

/// The sandboxes by namespace and name. Of two under one name the one that began later wins, and a counted one wins over
/// one that is not: when that began is unknown.
fn newest_sandboxes<'a>(sandboxes: &Sandboxes, snapshot: &'a Snapshot) -> Vec<(&'a PodRef, Listed<'a>)> {
    let mut listed: BTreeMap<&PodRef, Listed<'_>> = BTreeMap::new();
    for port in &snapshot.ports {
        listed.entry(&port.pod).or_default().ports.push(port);
    }
    // Sums of rates are rounded: their order must not depend on the input's.
    listed
        .values_mut()
        .for_each(|listed| listed.ports.sort_by_key(|port| port.id));
    for port in &snapshot.uncounted {
        listed.entry(&port.pod).or_default().uncounted.push(port);
    }
    let mut newest: Vec<(&PodRef, Listed<'_>)> = Vec::with_capacity(listed.len());
    for (pod, candidate) in listed {
        match newest.last_mut() {
            Some((before, winner)) if (&before.namespace, &before.name) == (&pod.namespace, &pod.name) => {
                if sandboxes.start(pod) >= sandboxes.start(before) {
                    (*before, *winner) = (pod, candidate);
                }
            }
            _ => newest.push((pod, candidate)),
        }
    }
    newest
}

fn pod_status(ledger: &Ledger, snapshot: &Snapshot, pod: &PodRef, listed: &Listed<'_>) -> stats::Status {
    let Ledger {
        node,
        window,
        sandboxes,
        memberships,
        findings,
        reconcile,
        rules: _,
    } = ledger;
    let namespace = snapshot.namespaces.iter().find(|reading| reading.pod == *pod);
    let interfaces = interfaces(listed);
    let baselines: Vec<_> = listed.ports.iter().map(|port| (*port, window.baseline(port))).collect();
    let span = SignedDuration::from_secs(node.window_seconds.into());
    let dropping = |port: &&PortReading| window.dropping(port) || reconcile.dropping(port.id, snapshot.at, span);
    let dropping = listed.ports.iter().any(dropping);
    let served = reconcile.served(&listed.ports, snapshot, span);
    let policy = snapshot.policy.as_ref();
    let judged = policy.is_some();
    let [inbound_dropped, switch_dropped] =
        [Direction::Inbound, Direction::Outbound].map(|direction| reconcile.dropped(pod, direction));
    // Judged, nothing more is booked; what was booked before there were policies stays.
    let switch_dropped = switch_dropped.filter(|booked| !judged || *booked > 0);
    let totals = sandboxes.totals(pod);
    let mut found: Vec<_> = listed
        .ports
        .iter()
        .flat_map(|port| findings.of_port(port.id))
        .cloned()
        .collect();
    found.sort();
    stats::Status {
        summary: status::word(&interfaces, found.first(), dropping).to_owned(),
        sandbox: pod.sandbox.clone(),
        start_time: sandboxes.start(pod),
        observed_at: snapshot.at,
        window_seconds: node.window_seconds,
        inbound: totals
            .as_ref()
            .map(|totals| inbound(totals, &baselines, inbound_dropped)),
        outbound: totals
            .as_ref()
            .map(|totals| outbound(totals, &baselines, switch_dropped)),
        igmp: totals.as_ref().map(|totals| igmp(totals, memberships, listed, judged)),
        socket_drops: namespace.and_then(|namespace| namespace.socket_drops),
        kernel: namespace.and_then(kernel_witness),
        conditions: status::conditions(
            &interfaces,
            served.reason,
            &served.message,
            status::policy_known(policy, snapshot.policy_awaited, pod),
        ),
        ledgers: served.ledgers,
        interfaces,
        groups: groups::rows(&baselines, policy, memberships, findings),
        findings: found,
        membership_limits: membership_limits(memberships, listed),
    }
}

/// The sum over the Pod's interfaces; absent while nothing was left out.
fn membership_limits(memberships: &Memberships, listed: &Listed<'_>) -> Option<stats::MembershipLimits> {
    let ports = listed.ports.iter().filter_map(|port| memberships.port(port.id));
    let sum = ports
        .map(Port::limits)
        .fold(stats::MembershipLimits::default(), |sum, port| {
            stats::MembershipLimits {
                groups_refused: sum.groups_refused + port.groups_refused,
                sources_refused: sum.sources_refused + port.sources_refused,
                messages_limited: sum.messages_limited + port.messages_limited,
            }
        });
    (sum != stats::MembershipLimits::default()).then_some(sum)
}

/// `None` where it has nothing to say but memberships.
fn kernel_witness(namespace: &NamespaceReading) -> Option<stats::KernelWitness> {
    let mut losing: Vec<_> = namespace
        .losing_sockets
        .iter()
        .map(|socket| SocketAddr::new(socket.address, socket.port).to_string())
        .collect();
    losing.dedup();
    let witness = stats::KernelWitness {
        unavailable: namespace.unavailable.clone(),
        losing_sockets: losing,
    };
    (witness != stats::KernelWitness::default()).then_some(witness)
}

/// An interface that is counted is not also listed as one that is not: what is said of it is then what is amiss.
fn interfaces(listed: &Listed<'_>) -> Vec<stats::Interface> {
    let counted = listed.ports.iter().map(|port| {
        let amiss = listed.uncounted.iter().find(|other| other.interface == port.interface);
        stats::Interface {
            name: port.interface.clone(),
            host_interface: Some(port.host_interface.clone()),
            counted: true,
            reason: amiss.map(|amiss| amiss.reason.clone()),
            message: amiss.map(|amiss| amiss.message.clone()),
        }
    });
    let mut interfaces: Vec<_> = counted.collect();
    for port in &listed.uncounted {
        if !interfaces.iter().any(|interface| interface.name == port.interface) {
            interfaces.push(stats::Interface {
                name: port.interface.clone(),
                host_interface: None,
                counted: false,
                reason: Some(port.reason.clone()),
                message: Some(port.message.clone()),
            });
        }
    }
    interfaces.sort_by(|a, b| (&a.name, &a.host_interface).cmp(&(&b.name, &b.host_interface)));
    interfaces
}

type Ports<'a> = [(&'a PortReading, Option<Baseline<'a>>)];

/// The sum of the ports' rates; absent until one of them has two readings.
fn rate(ports: &Ports<'_>, direction: Direction) -> Option<f64> {
    let rates = ports.iter().filter_map(|(port, baseline)| {
        let packets = Totals::of(port.reading(direction)).sum().admitted.packets;
        Some(baseline.as_ref()?.rate(direction, packets))
    });
    rates.reduce(|sum, rate| sum + rate).map(rounded)
}

fn inbound(totals: &PodTotals, ports: &Ports<'_>, dropped: Option<u64>) -> stats::Inbound {
    let totals = &totals.inbound;
    let sum = totals.sum();
    stats::Inbound {
        packets: sum.admitted.packets,
        bytes: sum.admitted.bytes,
        segments: sum.admitted.segments,
        per_second: rate(ports, Direction::Inbound),
        last_seen: sum.last_seen,
        link_local: stats::Share {
            packets: totals.link_local,
        },
        families: families(totals),
        ttl1: sum.ttl1,
        dropped,
        other_groups: other_groups(totals),
        control: control_counts::non_zero(&totals.control),
    }
}

fn outbound(totals: &PodTotals, ports: &Ports<'_>, switch_dropped: Option<u64>) -> stats::Outbound {
    let totals = &totals.outbound;
    let sum = totals.sum();
    stats::Outbound {
        sent: sum.admitted.packets.saturating_add(sum.dropped),
        admitted: sum.admitted.packets,
        dropped: sum.dropped,
        switch_dropped,
        would_drop: sum.would_drop,
        foreign_source: totals.foreign_source,
        bytes: sum.admitted.bytes,
        segments: sum.admitted.segments,
        per_second: rate(ports, Direction::Outbound),
        last_seen: sum.last_seen,
        link_local: stats::Share {
            packets: totals.link_local,
        },
        families: families(totals),
        ttl1: sum.ttl1,
        other_groups: other_groups(totals),
        control: control_counts::non_zero(&totals.control),
    }
}

/// Without a policy source nothing is said of denials, unless there are some of before.
fn igmp(totals: &PodTotals, memberships: &Memberships, listed: &Listed<'_>, judged: bool) -> stats::Igmp {
    let ports = || listed.ports.iter().filter_map(|port| memberships.port(port.id));
    let mut ignored = BTreeMap::new();
    for (reason, count) in ports().flat_map(Port::ignored) {
        *ignored.entry((*reason).to_owned()).or_default() += count;
    }
    let messages = control_counts::reports_and_leaves(&totals.outbound.control);
    let ReportVerdicts {
        records,
        dropped_messages,
        dropped_records,
        would_drop_messages,
        would_drop_records,
    } = totals.outbound.reports;
    let rules: BTreeSet<_> = ports().flat_map(Port::deniers).collect();
    stats::Igmp {
        allowed: stats::Messages {
            messages: messages.saturating_sub(dropped_messages),
            records: (judged || records > 0).then_some(records.saturating_sub(dropped_records)),
        },
        dropped: (judged || dropped_messages > 0).then(|| stats::DroppedMessages {
            messages: dropped_messages,
            records: dropped_records,
            rules: rules.into_iter().cloned().collect(),
        }),
        would_drop: (judged || would_drop_messages > 0).then_some(stats::Messages {
            messages: would_drop_messages,
            records: Some(would_drop_records),
        }),
        ignored,
    }
}

fn families(totals: &Totals) -> stats::Families {
    let [ipv4, ipv6] = &totals.families;
    stats::Families {
        ipv4: counters(ipv4),
        ipv6: counters(ipv6),
    }
}

fn counters(sum: &OtherGroups) -> stats::Counters {
    stats::Counters {
        packets: sum.admitted.packets,
        segments: sum.admitted.segments,
        bytes: sum.admitted.bytes,
    }
}

fn other_groups(totals: &Totals) -> stats::OtherGroups {
    let sum = totals.sum_other();
    stats::OtherGroups {
        packets: sum.admitted.packets,
        bytes: sum.admitted.bytes,
        dropped: sum.dropped,
        would_drop: sum.would_drop,
        port_limit: totals.overflow.port_limit,
        fair_share: totals.overflow.fair_share,
        window_full: totals.overflow.window_full,
        contended: totals.overflow.contended,
    }
}

fn kernel(reading: &KernelReading) -> summary::KernelHealth {
    let KernelReading {
        slots_used,
        slots_max,
        events_handed,
        events_lost,
        events_limited,
    } = *reading;
    summary::KernelHealth {
        slots_used,
        slots_max,
        events_handed,
        events_lost,
        events_limited,
    }
}
