//! Summaries made by hand for the tests of the cluster view. Every node is `nN`, its Pods have counted since 08:00:00, its
//! agent runs since 07:00:00 and pushes every 10 s.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::index::Index;
use crate::api::{
    stats::Finding,
    summary::{GroupMembers, NodeStatsSummary, PodReference},
};

pub(super) fn at(time: &str) -> Timestamp {
    format!("2026-11-24T{time}Z").parse().unwrap()
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node as of `observed`, without Pods.
pub(super) fn node(name: &str, observed: &str) -> NodeStatsSummary {
    serde_json::from_value(json!({
        "apiVersion": "controlplane.mcstat.io/v1alpha1", "kind": "NodeStatsSummary", "metadata": {"name": name},
        "startTime": at("07:00:00"), "observedAt": at(observed), "intervalSeconds": 10, "pods": [],
        "kernel": {"slotsUsed": 0, "slotsMax": 0, "eventsHanded": 0, "eventsLost": 0, "eventsLimited": 0}
    }))
    .unwrap()
}

impl NodeStatsSummary {
    /// With the Pod `namespace/name` and these rows of groups.
    pub(super) fn with(mut self, pod: &str, groups: Value) -> Self {
        let (namespace, name) = pod.split_once('/').unwrap();
        let pod = json!({
            "apiVersion": "stats.antrea.io/v1alpha1", "kind": "PodMulticastStats",
            "metadata": {"namespace": namespace, "name": name}, "spec": {"node": self.metadata.name},
            "status": {
                "summary": "OK", "sandbox": pod, "startTime": at("08:00:00"), "observedAt": self.observed_at,
                "windowSeconds": 10, "interfaces": [], "groups": groups, "conditions": []
            }
        });
        self.pods.push(serde_json::from_value(pod).unwrap());
        self
    }

    /// With a group and the members that this node names.
    pub(super) fn naming(mut self, group: &str, pods: &[&str]) -> Self {
        let pods = pods.iter().map(|pod| pod.split_once('/').unwrap());
        self.multicast.push(GroupMembers {
            group: address(group),
            pods: pods
                .map(|(namespace, name)| PodReference {
                    namespace: namespace.into(),
                    name: name.into(),
                })
                .collect(),
        });
        self
    }

    /// With policies, each with its UID and rules, `mkt/p` one of a namespace: it has a source of policies, and these are all.
    pub(super) fn judging(mut self, policies: &[(&str, &str, Vec<Value>)]) -> Self {
        let (mut cluster_wide, mut namespaced) = (Vec::new(), Vec::new());
        for (name, uid, rules) in policies {
            let (list, reference) = match name.split_once('/') {
                Some((namespace, name)) => (
                    &mut namespaced,
                    json!({"namespace": namespace, "name": name, "uid": uid}),
                ),
                None => (&mut cluster_wide, json!({"name": name, "uid": uid})),
            };
            let policy = json!({"networkPolicy": reference, "ruleTrafficStats": rules});
            list.push(serde_json::from_value(policy).unwrap());
        }
        self.antrea_cluster_network_policies = Some(cluster_wide);
        self.antrea_network_policies = Some(namespaced);
        self
    }

    /// With an elected querier that is present.
    pub(super) fn hearing(mut self, querier: &str) -> Self {
        self.queriers.push(
            serde_json::from_value(json!({
                "address": querier, "version": "IGMPv3", "elected": true, "present": true,
                "maxResponseMilliseconds": 10_000, "lastQuery": self.observed_at, "since": at("07:00:00"), "interfaces": 1
            }))
            .unwrap(),
        );
        self
    }
}

fn counters(packets: u64, last: &str, source: &str) -> Value {
    json!({"packets": packets, "bytes": packets * 142, "segments": packets, "dropped": 0, "wouldDrop": 0, "ttl1": 0,
           "sourceChanges": 0, "lastSource": address(source), "lastSeen": at(last)})
}

/// A row of packets that a Pod sent from `source`, the last one at `last`.
pub(super) fn sent(group: &str, packets: u64, last: &str, source: &str) -> Value {
    json!({"group": group, "interface": "eth0", "startTime": at("08:00:00"), "outbound": counters(packets, last, source)})
}

/// A row of packets that a Pod was handed from `source`, the last one at `last`.
pub(super) fn received(group: &str, packets: u64, last: &str, source: &str) -> Value {
    json!({"group": group, "interface": "eth0", "startTime": at("08:00:00"), "inbound": counters(packets, last, source)})
}

/// A membership that reports speak of.
pub(super) fn joined(mode: &str, sources: &[&str]) -> Value {
    json!({"joined": true, "version": "IGMPv3", "mode": mode, "sources": sources, "witness": ["report"],
           "since": at("08:00:00"), "reports": 2, "flaps": 0})
}

/// A rule that has counted since `start`.
pub(super) fn rule(name: &str, start: &str, bytes: u64, packets: u64) -> Value {
    json!({"name": name, "action": "Drop", "startTime": at(start), "segments": packets, "records": 0,
           "trafficStats": {"bytes": bytes, "packets": packets, "sessions": 0}})
}

/// This row with that entry.
pub(super) fn and(mut row: Value, key: &str, value: Value) -> Value {
    row[key] = value;
    row
}

pub(super) fn finding(kind: &str, group: Option<&str>, since: &str) -> Finding {
    serde_json::from_value(json!({"type": kind, "group": group, "since": at(since), "message": "m"})).unwrap()
}

/// An index that takes these summaries, all of them at `now`.
pub(super) fn index(summaries: impl IntoIterator<Item = NodeStatsSummary>, now: &str) -> Index {
    let mut index = Index::default();
    for summary in summaries {
        index.accept(summary, at(now));
    }
    index
}
