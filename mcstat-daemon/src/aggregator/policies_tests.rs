//! Sums of policies over nodes, from summaries made by hand: what `tests/scenarios` does not show.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    agent::policy::read,
    aggregator::{
        index::Index,
        test_nodes::{and, at, index, node, rule},
    },
};

/// UID, bytes and packets of every policy of this kind, and of each of its rules.
pub(super) type Sums = Vec<(String, (u64, u64), Vec<(String, u64, u64)>)>;
/// The same, as a test writes it.
type Expected<'a> = (&'a str, (u64, u64), &'a [(&'a str, u64, u64)]);

pub(super) fn sums<const CLUSTER_WIDE: bool>(index: &Index, now: Timestamp) -> Sums {
    let counts = |stats: TrafficStats| {
        assert_eq!(stats.sessions, 0, "multicast has no sessions");
        (stats.bytes, stats.packets)
    };
    let policies = index.policies::<CLUSTER_WIDE>(None, now).into_iter().map(|policy| {
        let rules = policy.rule_traffic_stats.iter().map(|rule| {
            let (bytes, packets) = counts(rule.traffic_stats.unwrap());
            (rule.name.clone(), bytes, packets)
        });
        let rules = rules.collect();
        (
            policy.metadata.uid.unwrap(),
            counts(policy.traffic_stats.unwrap()),
            rules,
        )
    });
    policies.collect()
}

fn expected(policies: &[Expected<'_>]) -> Sums {
    let policies = policies.iter().map(|(uid, sum, rules)| {
        let rules = rules
            .iter()
            .map(|(name, bytes, packets)| ((*name).to_owned(), *bytes, *packets));
        ((*uid).to_owned(), *sum, rules.collect())
    });
    policies.collect()
}

/// One packet count: of the only namespaced policy.
pub(super) fn packets(index: &Index, now: &str) -> u64 {
    let policies = index.policies::<false>(None, at(now));
    assert_eq!(policies.len(), 1, "{policies:?}");
    policies[0].traffic_stats.unwrap().packets
}

/// These policies as a source finds them, by name and UID, each with a rule for multicast.
pub(super) fn source(policies: &[(&str, &str)]) -> Existing {
    source_with("225.1.1.1/32", policies)
}

/// Each with a rule for this destination.
fn source_with(cidr: &str, policies: &[(&str, &str)]) -> Existing {
    source_to(&json!({"ipBlock": {"cidr": cidr}}), policies)
}

fn source_to(peer: &Value, policies: &[(&str, &str)]) -> Existing {
    let text: String = policies
        .iter()
        .map(|(name, uid)| {
            let (kind, namespace, name) = match name.split_once('/') {
                Some((namespace, name)) => ("NetworkPolicy", namespace, name),
                None => ("ClusterNetworkPolicy", "", *name),
            };
            let metadata = json!({"name": name, "namespace": namespace, "uid": uid});
            let spec = json!({"priority": 1, "appliedTo": [{"podSelector": {}}], "egress": [
                {"name": "r", "action": "Drop", "to": [peer]}
            ]});
            let document =
                json!({"apiVersion": "crd.antrea.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec});
            format!("---\n{document}\n")
        })
        .collect();
    Existing::of(&PolicyObjects {
        objects: read(&text).unwrap(),
        failures: Vec::new(),
        read: true,
        known: true,
    })
    .unwrap()
}

#[test]
fn without_an_own_source_a_policy_goes_with_the_last_node_that_tells_of_it() {
    let rules = || vec![rule("r", "08:00:00", 20, 5)];
    let told = node("n1", "08:00:10").judging(&[("acnp1", "acnp1", rules()), ("mkt/annp1", "annp1", rules())]);
    let also = node("n2", "08:00:10").judging(&[("acnp1", "acnp1", vec![])]);
    let mut index = index([told, also], "08:00:10");
    let count = |index: &Index, now| (sums::<true>(index, at(now)).len(), sums::<false>(index, at(now)).len());
    assert_eq!(count(&index, "08:00:11"), (1, 1));
    index.accept(node("n1", "08:00:20").judging(&[]), at("08:00:20"));
    assert_eq!(
        sums::<true>(&index, at("08:00:20")),
        expected(&[("acnp1", (20, 5), &[("r", 20, 5)])])
    );
    assert_eq!(sums::<false>(&index, at("08:00:20")), []);
    index.accept(node("n2", "08:00:20").judging(&[]), at("08:00:20"));
    assert_eq!(count(&index, "08:00:20"), (0, 0));
}

/// The counters lie in the kernel, with their start; a node that was rebooted begins others.
#[test]
fn an_agent_that_restarts_goes_on_and_a_node_that_reboots_adds() {
    let told = |agent: &str, observed, start, packets| {
        let mut told = node("n1", observed).judging(&[("mkt/p", "u", vec![rule("r", start, 0, packets)])]);
        told.start_time = at(agent);
        told
    };
    let mut index = index([told("07:00:00", "08:00:10", "08:00:00", 10)], "08:00:10");
    // It has not read its policies yet: they are there nevertheless.
    let mut first = node("n1", "08:00:15");
    first.start_time = at("08:00:14");
    index.accept(first, at("08:00:15"));
    let policy = index.policies::<false>(None, at("08:00:15")).remove(0);
    assert_eq!(
        (policy.traffic_stats.unwrap().packets, policy.status.nodes_reporting),
        (10, 0)
    );
    index.accept(told("08:00:14", "08:00:20", "08:00:00", 12), at("08:00:20"));
    let policy = index.policies::<false>(None, at("08:00:20")).remove(0);
    assert_eq!(
        (policy.traffic_stats.unwrap().packets, policy.status.nodes_reporting),
        (12, 1)
    );
    index.accept(told("08:01:00", "08:01:10", "08:01:00", 3), at("08:01:10"));
    let policy = index.policies::<false>(None, at("08:01:10")).remove(0);
    assert_eq!(
        (policy.traffic_stats.unwrap().packets, policy.status.start_time),
        (15, Some(at("08:00:00")))
    );
    assert_eq!(policy.metadata.creation_timestamp, Some(at("08:00:00")));
}

#[test]
fn a_node_that_leaves_keeps_its_share_until_the_policy_goes() {
    let told = |name, observed, packets| {
        node(name, observed).judging(&[("mkt/p", "u", vec![rule("r", "08:00:00", 0, packets)])])
    };
    let mut index = index([told("n1", "08:00:10", 10), told("n2", "08:00:10", 5)], "08:00:10");
    let policy = |index: &Index, now| index.policies::<false>(None, at(now)).remove(0);
    let seen = |index: &Index, now| {
        let policy = policy(index, now);
        (
            policy.traffic_stats.unwrap().packets,
            policy.status.nodes_reporting,
            policy.status.nodes_expected,
        )
    };
    assert_eq!(seen(&index, "08:00:11"), (15, 2, 2));
    index.accept(told("n2", "08:00:50", 6), at("08:00:50"));
    assert_eq!(seen(&index, "08:00:50"), (16, 1, 2), "n1 is silent");
    index.accept(told("n2", "08:20:00", 7), at("08:20:00"));
    assert_eq!(seen(&index, "08:20:00"), (17, 1, 1), "n1 has expired");
    // It applies to no Pod any more, and is there still.
    index.accept(
        node("n2", "08:20:10").judging(&[("mkt/p", "u", vec![])]),
        at("08:20:10"),
    );
    assert_eq!(seen(&index, "08:20:10"), (17, 1, 1));
    index.accept(told("n1", "08:30:00", 11), at("08:30:00"));
    assert_eq!(seen(&index, "08:30:00"), (18, 1, 2));
    for name in ["n1", "n2"] {
        index.accept(node(name, "08:30:10").judging(&[]), at("08:30:10"));
    }
    assert_eq!(sums::<false>(&index, at("08:30:10")), []);
    // What was counted of it went with it.
    index.accept(told("n2", "08:30:20", 1), at("08:30:20"));
    assert_eq!(seen(&index, "08:30:20"), (1, 2, 2));
}

#[test]
fn a_policy_that_is_made_again_begins_at_zero() {
    let told = |observed, uid, start, packets| {
        node("n1", observed).judging(&[("mkt/p", uid, vec![rule("r", start, 0, packets)])])
    };
    for own in [true, false] {
        let mut index = Index::default();
        let follow = |index: &mut Index, uid, now| {
            if own {
                index.follow_policies(source(&[("mkt/p", uid)]), at(now));
            }
        };
        follow(&mut index, "u1", "08:00:00");
        index.accept(told("08:00:10", "u1", "08:00:00", 10), at("08:00:10"));
        assert_eq!(packets(&index, "08:00:10"), 10);
        follow(&mut index, "u2", "08:00:15");
        index.accept(told("08:00:20", "u2", "08:00:16", 2), at("08:00:20"));
        let policy = index.policies::<false>(None, at("08:00:20")).remove(0);
        let began = if own { "08:00:15" } else { "08:00:16" };
        assert_eq!(
            (
                policy.traffic_stats.unwrap().packets,
                policy.metadata.uid.as_deref(),
                policy.metadata.creation_timestamp
            ),
            (2, Some("u2"), Some(at(began))),
            "own source: {own}"
        );
    }
}

/// Policies whose rules name groups: which are about multicast this server cannot tell, but nodes can.
#[test]
fn a_policy_on_groups_is_served_when_nodes_tell_of_it() {
    let mut index = Index::default();
    let policies = [("mkt/web", "w"), ("mkt/feeds", "f")];
    index.follow_policies(source_to(&json!({"group": "g"}), &policies), at("08:00:00"));
    assert_eq!(sums::<false>(&index, at("08:00:00")), []);
    let told = |observed, policies: &[(&str, &str, Vec<Value>)]| node("n1", observed).judging(policies);
    index.accept(told("08:00:10", &[("mkt/feeds", "f", vec![])]), at("08:00:10"));
    let at_zero = expected(&[("f", (0, 0), &[])]);
    assert_eq!(
        sums::<false>(&index, at("08:00:10")),
        at_zero,
        "also where no Pod has it"
    );
    let web = index.policy::<false>("mkt", "web", at("08:00:10"));
    assert_eq!(web, None, "at zero it would contradict what others count of it");
    // The group holds no multicast any more.
    index.accept(told("08:00:20", &[]), at("08:00:20"));
    assert_eq!(sums::<false>(&index, at("08:00:20")), []);
    let counted = [("mkt/feeds", "f", vec![rule("r", "08:00:30", 142, 1)])];
    index.accept(told("08:00:30", &counted), at("08:00:30"));
    index.accept(told("08:00:40", &[]), at("08:00:40"));
    let one = expected(&[("f", (142, 1), &[("r", 142, 1)])]);
    assert_eq!(sums::<false>(&index, at("08:00:40")), one, "what was counted stays");
}

/// Somebody edits it and takes its only rule for multicast out, those on unicast stay: it is the same policy.
#[test]
fn a_policy_that_has_no_rule_for_multicast_for_a_while_keeps_its_sum() {
    let ended = and(rule("r", "08:00:00", 1420, 10), "ended", json!(true));
    for own in [true, false] {
        let mut index = Index::default();
        let follow = |index: &mut Index, cidr, now| {
            if own {
                let policies = [("mkt/p", "u"), ("mkt/idle", "i")];
                index.follow_policies(source_with(cidr, &policies), at(now));
            }
        };
        let told = |observed, policies: &[(&str, &str, Vec<Value>)]| node("n1", observed).judging(policies);
        follow(&mut index, "225.1.1.1/32", "08:00:00");
        let counting = [
            ("mkt/p", "u", vec![rule("r", "08:00:00", 1420, 10)]),
            ("mkt/idle", "i", vec![rule("r", "08:00:00", 0, 0)]),
        ];
        index.accept(told("08:00:10", &counting), at("08:00:10"));
        let idle = ("i", (0, 0), &[("r", 0, 0)][..]);
        let ten = expected(&[("u", (1420, 10), &[("r", 1420, 10)])]);
        let both = expected(&[idle, ("u", (1420, 10), &[("r", 1420, 10)])]);
        assert_eq!(sums::<false>(&index, at("08:00:10")), both, "own source: {own}");
        follow(&mut index, "10.0.0.0/8", "08:00:11");
        if own {
            assert_eq!(sums::<false>(&index, at("08:00:11")), ten);
        }
        index.accept(told("08:00:12", &[("mkt/p", "u", vec![ended.clone()])]), at("08:00:12"));
        assert_eq!(sums::<false>(&index, at("08:00:12")), ten, "own source: {own}");
        let one = index.policy::<false>("mkt", "idle", at("08:00:12"));
        assert_eq!(one, None, "what never counted is left to others");
        follow(&mut index, "225.1.1.1/32", "08:00:13");
        let again = [
            ("mkt/p", "u", vec![ended.clone(), rule("r", "08:00:13", 142, 1)]),
            ("mkt/idle", "i", vec![rule("r", "08:00:13", 0, 0)]),
        ];
        index.accept(told("08:00:20", &again), at("08:00:20"));
        assert_eq!(
            sums::<false>(&index, at("08:00:20")),
            expected(&[idle, ("u", (1562, 11), &[("r", 1562, 11)])]),
            "own source: {own}"
        );
    }
}

#[test]
fn while_nodes_disagree_the_policy_that_was_heard_of_last_is_shown() {
    let told = |name, observed, uid, packets| {
        node(name, observed).judging(&[("mkt/p", uid, vec![rule("r", "08:00:00", 0, packets)])])
    };
    let mut index = index(
        [told("n1", "08:00:10", "u1", 10), told("n2", "08:00:10", "u1", 5)],
        "08:00:10",
    );
    index.accept(told("n2", "08:00:20", "u0", 1), at("08:00:20"));
    assert_eq!(packets(&index, "08:00:20"), 1);
    index.accept(told("n1", "08:00:21", "u0", 2), at("08:00:21"));
    assert_eq!(packets(&index, "08:00:21"), 3);
}

/// Records, what nobody enforced, what a rule does now, over two lives at one node and another node.
#[test]
fn every_number_is_summed_and_the_newest_action_holds() {
    let full = |start, packets: u64, action: &str| {
        let denied = json!({"packets": packets, "messages": 2 * packets, "records": 3 * packets});
        let row = and(rule("r", start, 142 * packets, packets), "wouldDrop", denied);
        and(and(row, "records", json!(7 * packets)), "action", json!(action))
    };
    let ended = and(full("08:00:00", 1, "Drop"), "ended", json!(true));
    let n1 = node("n1", "08:00:10").judging(&[("acnp", "u", vec![ended, full("08:00:05", 10, "Allow")])]);
    let n2 = node("n2", "08:00:10").judging(&[("acnp", "u", vec![full("08:00:02", 100, "Drop")])]);
    let policy = index([n1, n2], "08:00:10")
        .policies::<true>(None, at("08:00:10"))
        .remove(0);
    let value: Value = serde_json::to_value(&policy).unwrap();
    let denied = json!({"packets": 111, "messages": 222, "records": 333});
    let sum = json!({"packets": 111, "bytes": 15_762, "sessions": 0});
    assert_eq!(
        value["ruleTrafficStats"],
        json!([{"name": "r", "trafficStats": sum, "action": "Allow", "startTime": at("08:00:00"), "segments": 111,
                "records": 777, "wouldDrop": denied}])
    );
    assert_eq!((&value["trafficStats"], &value["status"]["wouldDrop"]), (&sum, &denied));
    assert_eq!(
        (&value["kind"], &value["metadata"].get("namespace")),
        (&json!("AntreaClusterNetworkPolicyStats"), &None)
    );
}

proptest! {
    /// Whatever is lost, repeated or overtaken on the way, and however often rules begin anew: nothing falls, and the last
    /// report makes the sum whole. A node tells of its eight newest lives.
    #[test]
    fn the_sum_is_what_the_nodes_counted(
        steps in prop::collection::vec((0..2_usize, 0..20_u64, any::<bool>()), 1..40),
        deliveries in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..60),
    ) {
        let base = at("08:00:00");
        let mut lives: [Vec<(i64, u64)>; 2] = Default::default();
        let mut reports = Vec::new();
        for (step, (place, packets, anew)) in (1_i64..).zip(steps) {
            let of_node = &mut lives[place];
            if anew && of_node.len() < 8 || of_node.is_empty() {
                of_node.push((step, 0));
            }
            of_node.last_mut().unwrap().1 += packets;
            let name = ["n1", "n2"][place];
            let rules = of_node.iter().map(|(start, packets)| {
                let start = base.checked_add(jiff::SignedDuration::from_secs(*start)).unwrap();
                and(rule("r", "08:00:00", 0, *packets), "startTime", json!(start))
            });
            let mut report = node(name, "08:00:00").judging(&[("mkt/p", "u", rules.collect())]);
            report.observed_at = base.checked_add(jiff::SignedDuration::from_secs(step)).unwrap();
            reports.push(report);
        }
        let mut index = Index::default();
        let mut before = 0;
        let last = [0, 1].map(|place| reports.iter().rposition(|report| report.metadata.name == ["n1", "n2"][place]));
        let sent = deliveries.iter().map(|(report, _)| report.index(reports.len()));
        for (number, report) in (0_i64..).zip(sent.chain(last.into_iter().flatten())) {
            let now = base.checked_add(jiff::SignedDuration::from_millis(number)).unwrap();
            index.accept(reports[report].clone(), now);
            let sum = index.policies::<false>(None, now)[0].traffic_stats.unwrap().packets;
            prop_assert!(sum >= before, "{before} before, {sum} now");
            before = sum;
        }
        let truth: u64 = lives.iter().flatten().map(|(_, packets)| packets).sum();
        prop_assert_eq!(before, truth);
    }
}
