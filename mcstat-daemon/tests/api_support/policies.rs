//! Two nodes that judge policies: what the statistics of policies are made of.
//!
//! ```text
//! n7: acnp-feeds   allow-feed 600 packets, drop-rest 12     mkt/igmp   drop-report 3 messages of 5 records
//! n8: acnp-feeds   allow-feed 400 packets                   mkt/igmp   drop-report 1 message of 1 record
//!     acnp-idle    for no Pod anywhere                      dev/lab    drop-lab, enforced by nobody: 9 packets
//! ```
//! Data packets have 142 bytes, reports 54.

use std::sync::Arc;

use jiff::Timestamp;
use mcstat::{
    aggregator::index::SharedIndex,
    api::{policy::NetworkPolicyStats, summary::NodeStatsSummary},
};
use serde_json::{Value, json};

use super::{before, summary};

fn rule(name: &str, action: &str, packets: u64, bytes: u64, start: Timestamp) -> Value {
    json!({"name": name, "action": action, "trafficStats": {"packets": packets, "bytes": bytes, "sessions": 0},
           "startTime": start, "segments": packets, "records": 0,
           "wouldDrop": {"packets": 0, "messages": 0, "records": 0}})
}

fn data(name: &str, action: &str, packets: u64, start: Timestamp) -> Value {
    rule(name, action, packets, 142 * packets, start)
}

fn igmp(name: &str, messages: u64, records: u64, start: Timestamp) -> Value {
    let mut rule = rule(name, "Drop", messages, 54 * messages, start);
    (rule["segments"], rule["records"]) = (json!(0), json!(records));
    rule
}

fn policy(reference: Value, rules: &[Value]) -> NetworkPolicyStats {
    serde_json::from_value(json!({"networkPolicy": reference, "ruleTrafficStats": rules})).unwrap()
}

/// `n7` and `n8` as above; n7 has counted for an hour, n8 for half of it.
pub(crate) fn nodes(now: Timestamp) -> [NodeStatsSummary; 2] {
    let (n7_start, n8_start) = (before(now, 3600), before(now, 1800));
    let feeds = json!({"name": "acnp-feeds", "uid": "uid-feeds"});
    let idle = json!({"name": "acnp-idle", "uid": "uid-idle"});
    let igmp_policy = json!({"namespace": "mkt", "name": "igmp", "uid": "uid-igmp"});
    let lab = json!({"namespace": "dev", "name": "lab", "uid": "uid-lab"});
    let mut n7 = summary("n7", vec![], now);
    n7.antrea_cluster_network_policies = Some(vec![
        policy(
            feeds.clone(),
            &[
                data("allow-feed", "Allow", 600, n7_start),
                data("drop-rest", "Drop", 12, n7_start),
            ],
        ),
        policy(idle.clone(), &[]),
    ]);
    n7.antrea_network_policies = Some(vec![
        policy(lab.clone(), &[]),
        policy(igmp_policy.clone(), &[igmp("drop-report", 3, 5, n7_start)]),
    ]);
    let mut unenforced = data("drop-lab", "Drop", 0, n8_start);
    unenforced["wouldDrop"] = json!({"packets": 9, "messages": 0, "records": 0});
    let mut n8 = summary("n8", vec![], now);
    n8.antrea_cluster_network_policies = Some(vec![
        policy(feeds, &[data("allow-feed", "Allow", 400, n8_start)]),
        policy(idle, &[]),
    ]);
    n8.antrea_network_policies = Some(vec![
        policy(lab, &[unenforced]),
        policy(igmp_policy, &[igmp("drop-report", 1, 1, n8_start)]),
    ]);
    [n7, n8]
}

/// An index of [`nodes`], both arrived at `now`.
pub(crate) fn index(now: Timestamp) -> Arc<SharedIndex> {
    let index = SharedIndex::default();
    for summary in nodes(now) {
        index.accept(summary, now);
    }
    Arc::new(index)
}
