//! What must not wait for the next interval: whether a summary tells of other memberships, queriers, findings or policies
//! than the one before. Counters, times and how often a member reported are no news. Pure.

use std::net::IpAddr;

use crate::api::{
    policy::NetworkPolicyReference,
    rule::RuleReference,
    stats::{Disagreement, FilterMode, Finding, FindingKind, PodMulticastStats, Witness},
    summary::{NodeStatsSummary, Querier},
};

/// Whether `after` says something of members, queriers, findings or policies that `before` does not. Both are in the order that
/// summaries promise.
pub(super) fn is_news(before: &NodeStatsSummary, after: &NodeStatsSummary) -> bool {
    !(before.multicast == after.multicast
        && memberships(before).eq(memberships(after))
        && queriers(before).eq(queriers(after))
        && findings(before).eq(findings(after))
        && policies(before).eq(policies(after)))
}

type Name<'a> = (&'a str, &'a str);

/// What a user is told of one membership, without its timers and counts.
#[derive(PartialEq)]
struct Told<'a> {
    pod: Name<'a>,
    sandbox: &'a str,
    interface: &'a str,
    group: IpAddr,
    joined: bool,
    denied: Option<&'a RuleReference>,
    version: Option<&'a str>,
    filter: (Option<FilterMode>, &'a [IpAddr]),
    witness: &'a [Witness],
    disagreement: Option<Disagreement>,
    switch_lingers: bool,
    users: Option<u32>,
}

fn memberships(summary: &NodeStatsSummary) -> impl Iterator<Item = Told<'_>> {
    summary.pods.iter().flat_map(|pod| {
        let groups = pod.status.groups.iter();
        groups.filter_map(|group| {
            let membership = group.membership.as_ref()?;
            Some(Told {
                pod: name(pod),
                sandbox: &pod.status.sandbox,
                interface: &group.interface,
                group: group.group,
                joined: membership.joined,
                denied: membership.denied.as_ref(),
                version: membership.version.as_deref(),
                filter: (membership.mode, &membership.sources),
                witness: &membership.witness,
                disagreement: membership.disagreement,
                switch_lingers: membership.switch_lingers,
                users: membership.users,
            })
        })
    })
}

fn queriers(summary: &NodeStatsSummary) -> impl Iterator<Item = impl PartialEq> {
    let told = |querier: &Querier| {
        let timing = (
            querier.interval_seconds,
            querier.robustness,
            querier.max_response_milliseconds,
        );
        let state = (querier.elected, querier.present);
        (
            querier.address,
            querier.version.clone(),
            state,
            timing,
            querier.pods.clone(),
        )
    };
    summary.queriers.iter().map(told)
}

/// Which there are; what their rules counted can wait.
fn policies(summary: &NodeStatsSummary) -> impl Iterator<Item = Option<&NetworkPolicyReference>> {
    let lists = [
        &summary.antrea_cluster_network_policies,
        &summary.antrea_network_policies,
    ];
    lists.into_iter().flat_map(|list| {
        let policies = list.iter().flatten().map(|policy| Some(&policy.network_policy));
        // An end of each list, and nothing at all without one.
        policies.chain(list.iter().map(|_| None))
    })
}

/// The node's own and its Pods'. A message may hold numbers that grow: what is wrong, and where, is what counts.
fn findings(summary: &NodeStatsSummary) -> impl Iterator<Item = (Name<'_>, FindingKind, Option<IpAddr>, Option<&str>)> {
    let node = summary.findings.iter().map(|finding| told(("", ""), finding));
    let pods = summary.pods.iter();
    node.chain(pods.flat_map(|pod| pod.status.findings.iter().map(|finding| told(name(pod), finding))))
}

fn told<'a>(of: Name<'a>, finding: &'a Finding) -> (Name<'a>, FindingKind, Option<IpAddr>, Option<&'a str>) {
    (of, finding.kind, finding.group, finding.interface.as_deref())
}

fn name(pod: &PodMulticastStats) -> Name<'_> {
    (&pod.metadata.namespace, &pod.metadata.name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TIME: &str = "2026-11-24T08:00:00Z";

    fn base() -> Value {
        json!({
            "apiVersion": "controlplane.mcstat.io/v1alpha1", "kind": "NodeStatsSummary", "metadata": {"name": "n1"},
            "startTime": TIME, "observedAt": TIME, "intervalSeconds": 10,
            "pods": [{
                "apiVersion": "stats.antrea.io/v1alpha1", "kind": "PodMulticastStats",
                "metadata": {"namespace": "mkt", "name": "a"}, "spec": {"node": "n1"},
                "status": {
                    "summary": "OK", "sandbox": "s", "startTime": TIME, "observedAt": TIME, "windowSeconds": 10,
                    "interfaces": [], "conditions": [],
                    "groups": [{
                        "group": "239.1.1.1", "interface": "eth0", "startTime": TIME,
                        "inbound": {"packets": 1, "bytes": 1, "segments": 1, "dropped": 0, "wouldDrop": 0, "ttl1": 0,
                                    "sourceChanges": 0},
                        "membership": {"joined": true, "version": "IGMPv3", "mode": "EXCLUDE", "sources": [],
                                       "witness": ["kernel"], "since": TIME, "lastReport": TIME, "reports": 1, "flaps": 0}
                    }],
                    "findings": [{"type": "TTL1", "group": "239.1.1.1", "since": TIME, "message": "1 packet"}]
                }
            }],
            "multicast": [{"group": "239.1.1.1", "pods": [{"namespace": "mkt", "name": "a"}]}],
            "queriers": [{"address": "10.0.0.1", "version": "IGMPv3", "elected": true, "present": true,
                          "maxResponseMilliseconds": 10_000, "lastQuery": TIME, "since": TIME, "interfaces": 1}],
            "findings": [{"type": "TwoQueriers", "since": TIME, "message": "10.0.0.1 and 10.0.0.2"}],
            "antreaNetworkPolicies": [{
                "networkPolicy": {"namespace": "mkt", "name": "p", "uid": "u"},
                "ruleTrafficStats": [{"name": "r", "action": "Drop", "startTime": TIME,
                                      "trafficStats": {"packets": 1, "bytes": 142, "sessions": 0}}]
            }],
            "kernel": {"slotsUsed": 0, "slotsMax": 0, "eventsHanded": 0, "eventsLost": 0, "eventsLimited": 0}
        })
    }

    fn news(place: &str, value: Value) -> bool {
        let mut changed = base();
        let (parent, key) = place.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}"))[key] = value;
        let summary = |value| serde_json::from_value::<NodeStatsSummary>(value).unwrap();
        is_news(&summary(base()), &summary(changed))
    }

    #[test]
    fn counters_times_and_texts_can_wait() {
        let later = "2026-11-24T08:01:00Z";
        let membership = "/pods/0/status/groups/0/membership";
        for (place, value) in [
            ("/observedAt", json!(later)),
            ("/kernel/slotsUsed", json!(7)),
            ("/pods/0/status/observedAt", json!(later)),
            ("/pods/0/status/groups/0/inbound/packets", json!(1000)),
            ("/pods/0/status/groups/0/inbound/lastSeen", json!(later)),
            ("/pods/0/status/findings/0/message", json!("2 packets")),
            ("/queriers/0/lastQuery", json!(later)),
            ("/queriers/0/interfaces", json!(2)),
            ("/findings/0/message", json!("10.0.0.2 and 10.0.0.1")),
            (
                "/antreaNetworkPolicies/0/ruleTrafficStats/0/trafficStats/packets",
                json!(1000),
            ),
            ("/antreaNetworkPolicies/0/ruleTrafficStats", json!([])),
            (&format!("{membership}/lastReport"), json!(later)),
            (&format!("{membership}/expires"), json!(later)),
            (&format!("{membership}/reports"), json!(2)),
        ] {
            assert!(!news(place, value), "{place}");
        }
    }

    #[test]
    fn memberships_queriers_findings_and_policies_cannot() {
        let membership = "/pods/0/status/groups/0/membership";
        let finding = json!({"type": "JoinedNoTraffic", "since": TIME, "message": "m"});
        let policy = json!({"kind": "NetworkPolicy", "namespace": "mkt", "name": "p"});
        let denied = json!({"policy": policy, "rule": "r", "action": "Drop"});
        for (place, value) in [
            ("/multicast", json!([])),
            ("/multicast/0/pods", json!([])),
            ("/pods", json!([])),
            ("/pods/0/status/sandbox", json!("s2")),
            (membership, Value::Null),
            (&format!("{membership}/joined"), json!(false)),
            (&format!("{membership}/denied"), denied),
            (&format!("{membership}/mode"), json!("INCLUDE")),
            (&format!("{membership}/sources"), json!(["10.0.0.9"])),
            (&format!("{membership}/version"), json!("IGMPv2")),
            (&format!("{membership}/witness"), json!(["kernel", "report"])),
            (&format!("{membership}/disagreement"), json!("KernelJoinedNoReport")),
            (&format!("{membership}/switchLingers"), json!(true)),
            (&format!("{membership}/users"), json!(2)),
            ("/queriers", json!([])),
            ("/queriers/0/version", json!("IGMPv2")),
            ("/queriers/0/present", json!(false)),
            ("/queriers/0/elected", json!(false)),
            ("/queriers/0/intervalSeconds", json!(60)),
            ("/queriers/0/pods", json!(["mkt/a"])),
            ("/findings", json!([])),
            ("/antreaNetworkPolicies", json!([])),
            ("/antreaNetworkPolicies", Value::Null),
            ("/antreaNetworkPolicies/0/networkPolicy/uid", json!("u2")),
            ("/antreaClusterNetworkPolicies", json!([])),
            ("/pods/0/status/findings", json!([])),
            ("/pods/0/status/findings", json!([finding])),
            ("/pods/0/status/findings/0/group", json!("239.1.1.2")),
        ] {
            assert!(news(place, value), "{place}");
        }
    }
}
