//! The columns of `podmulticaststats`. NAMESPACE is added by the client.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::{
    resource::{Object, PODS, Resource},
    scope,
    stats::{Group, Metadata, PodMulticastStats},
    table::{Column, INTEGER, NOT_MEASURED, NUMBER, STRING, age_cell, cell},
};

impl Object for PodMulticastStats {
    const RESOURCE: Resource = PODS;
    const COLUMNS: &'static [Column<Self>] = &COLUMNS;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

const COLUMNS: [Column<PodMulticastStats>; 20] = [
    Column::name("Name", "Name of the Pod.", |pod, _| json!(pod.metadata.name)),
    Column::shown(
        "Inbound",
        INTEGER,
        "Multicast data packets handed to the Pod since SINCE.",
        |pod, _| cell(pod.status.inbound.as_ref().map(|i| i.packets)),
    ),
    Column::shown(
        "Outbound",
        INTEGER,
        "Multicast data packets that the Pod sent and no enforced rule denied.",
        |pod, _| cell(pod.status.outbound.as_ref().map(|o| o.admitted)),
    ),
    Column::shown(
        "Inbound_Dropped",
        INTEGER,
        "Packets that the switch sent to the Pod and its interface never saw.",
        |pod, _| cell(pod.status.inbound.as_ref().and_then(|i| i.dropped)),
    ),
    Column::shown(
        "Outbound_Dropped",
        INTEGER,
        "Packets of the Pod that an enforced rule or the switch dropped.",
        |pod, _| cell(outbound_dropped(pod)),
    ),
    Column::shown(
        "IGMP_Allowed",
        INTEGER,
        "IGMP and MLD reports and leaves of the Pod that no enforced rule denied.",
        |pod, _| cell(pod.status.igmp.as_ref().map(|i| i.allowed.messages)),
    ),
    Column::shown(
        "IGMP_Dropped",
        INTEGER,
        "IGMP and MLD reports and leaves of the Pod that an enforced rule denied.",
        |pod, _| {
            cell(
                pod.status
                    .igmp
                    .as_ref()
                    .and_then(|i| Some(i.dropped.as_ref()?.messages)),
            )
        },
    ),
    Column::shown(
        "In/s",
        NUMBER,
        "Inbound packets a second over the last windowSeconds.",
        |pod, _| rate(pod.status.inbound.as_ref().and_then(|i| i.per_second)),
    ),
    Column::shown(
        "Out/s",
        NUMBER,
        "Outbound packets a second over the last windowSeconds.",
        |pod, _| rate(pod.status.outbound.as_ref().and_then(|o| o.per_second)),
    ),
    Column::shown(
        "Last",
        STRING,
        "Age of the last data packet in either direction.",
        |pod, now| {
            let inbound = pod.status.inbound.as_ref().and_then(|i| i.last_seen);
            let outbound = pod.status.outbound.as_ref().and_then(|o| o.last_seen);
            age_cell(inbound.max(outbound), now)
        },
    ),
    Column::shown(
        "Status",
        STRING,
        "Stale, NotCounted, a finding, Dropping or OK: the first that holds.",
        |pod, _| json!(pod.status.summary),
    ),
    Column::wide(
        "Inbound_Bytes",
        INTEGER,
        "Bytes of the inbound packets, Ethernet header included.",
        |pod, _| cell(pod.status.inbound.as_ref().map(|i| i.bytes)),
    ),
    Column::wide(
        "Outbound_Bytes",
        INTEGER,
        "Bytes of the outbound packets, Ethernet header included.",
        |pod, _| cell(pod.status.outbound.as_ref().map(|o| o.bytes)),
    ),
    Column::wide(
        "Socket_Drops",
        INTEGER,
        "Receive-buffer errors in the Pod's network namespace, unicast UDP included.",
        |pod, _| cell(pod.status.socket_drops),
    ),
    Column::wide(
        "Groups",
        INTEGER,
        "Groups that the Pod sends to, receives or has joined.",
        |pod, _| cell(groups(pod)),
    ),
    Column::wide(
        "Ledgers",
        STRING,
        "Whether veth and switch agree: agree, differ(how many causes lately) or unavailable.",
        |pod, _| json!(ledgers(pod)),
    ),
    Column::wide("Node", STRING, "Node that the Pod runs on.", |pod, _| {
        json!(pod.spec.node)
    }),
    Column::wide(
        "Interfaces",
        STRING,
        "Counted interfaces / all interfaces of the Pod.",
        |pod, _| {
            let interfaces = &pod.status.interfaces;
            let counted = interfaces.iter().filter(|i| i.counted).count();
            json!(format!("{counted}/{}", interfaces.len()))
        },
    ),
    Column::wide(
        "Since",
        STRING,
        "Age of the counters: how long ago counting began.",
        |pod, now| age_cell(pod.status.start_time, now),
    ),
    Column::wide("Observed", STRING, "Age of the last reading.", |pod, now| {
        age_cell(Some(pod.status.observed_at), now)
    }),
];

/// One decimal below ten, none above; a whole number is a JSON integer, so that no client prints `12.0`.
fn rate(per_second: Option<f64>) -> Value {
    let Some(rate) = per_second.filter(|rate| rate.is_finite() && *rate >= 0.0) else {
        return json!(NOT_MEASURED);
    };
    let rounded = if rate < 10.0 {
        (rate * 10.0).round() / 10.0
    } else {
        rate.round()
    };
    // `as` saturates, and no rate comes near u64::MAX.
    if rounded.fract() == 0.0 {
        json!(rounded as u64)
    } else {
        json!(rounded)
    }
}

/// Rule drops and switch drops. Unknown while no policy source judges and no metric table counts: a plain 0 in
/// `dropped` then says nothing.
fn outbound_dropped(pod: &PodMulticastStats) -> Option<u64> {
    let outbound = pod.status.outbound.as_ref()?;
    let known =
        outbound.dropped > 0 || outbound.switch_dropped.is_some() || condition(pod, "PolicyKnown") == Some("True");
    known.then(|| outbound.dropped.saturating_add(outbound.switch_dropped.unwrap_or(0)))
}

/// Distinct groups with a series or a membership, those left out that every stack joins by itself; unknown for a Pod that
/// is not counted at all.
fn groups(pod: &PodMulticastStats) -> Option<usize> {
    if pod.status.inbound.is_none() && pod.status.outbound.is_none() {
        return None;
    }
    let joined = |group: &Group| {
        let joined = group.membership.as_ref().is_some_and(|membership| membership.joined);
        joined && !scope::is_everyones(group.group)
    };
    let groups = pod.status.groups.iter();
    let counted = groups.filter(|group| group.start_time.is_some() || joined(group));
    Some(counted.map(|group| group.group).collect::<BTreeSet<IpAddr>>().len())
}

/// One word of three; why it is unavailable stands in the condition.
fn ledgers(pod: &PodMulticastStats) -> String {
    match condition(pod, "LedgersAgree") {
        None => NOT_MEASURED.to_owned(),
        Some("True") => "agree".to_owned(),
        Some("False") => {
            let differing = pod.status.ledgers.as_ref().map_or(0, |ledgers| ledgers.differing);
            format!("differ({differing})")
        }
        Some(_) => "unavailable".to_owned(),
    }
}

fn condition<'a>(pod: &'a PodMulticastStats, kind: &str) -> Option<&'a str> {
    pod.status
        .conditions
        .iter()
        .find(|c| c.kind == kind)
        .map(|c| c.status.as_str())
}

#[cfg(test)]
#[path = "pod_columns_tests.rs"]
mod tests;
