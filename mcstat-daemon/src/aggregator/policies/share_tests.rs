//! What nodes' switches count, and lives of rules, from summaries made by hand.

use serde_json::{Value, json};

use crate::{
    aggregator::{
        index::Index,
        test_nodes::{and, at, index, node, rule},
    },
    api::table::{IncludeObject, Table},
};

/// `switch` as a node tells it: 142 bytes a packet.
fn switch(matched: &str, packets: Option<u64>, wire: u64, rules: u32) -> Value {
    let mut switch = json!({"match": matched, "wire": {"packets": wire, "bytes": wire * 142}, "rules": rules});
    if let Some(packets) = packets {
        (switch["packets"], switch["bytes"]) = (json!(packets), json!(packets * 142));
    }
    switch
}

/// The only rule there is.
fn rule_of(index: &Index) -> Value {
    let policy = index.policies::<true>(None, at("08:00:10")).remove(0);
    assert_eq!(policy.rule_traffic_stats.len(), 1);
    serde_json::to_value(&policy.rule_traffic_stats[0]).unwrap()
}

#[test]
fn what_switches_count_is_summed_and_the_weakest_word_holds() {
    let ended = and(rule("r", "08:00:00", 142, 1), "ended", json!(true));
    let told = |name: &str, counted: Value| {
        let alive = and(rule("r", "08:00:05", 1420, 10), "switch", counted);
        node(name, "08:00:10").judging(&[("acnp", "u", vec![ended.clone(), alive])])
    };
    let mut index = index([told("n1", switch("unique", Some(10), 10, 1))], "08:00:10");
    let counted = |index: &Index| rule_of(index)["switch"].clone();
    assert_eq!(counted(&index), switch("unique", Some(10), 10, 1));
    // Every node tells of every policy: here of one without rules for it, there of a rule that is for no Pod any more.
    index.accept(node("n2", "08:00:10").judging(&[("acnp", "u", vec![])]), at("08:00:10"));
    index.accept(
        node("n3", "08:00:10").judging(&[("acnp", "u", vec![ended.clone()])]),
        at("08:00:10"),
    );
    assert_eq!(
        counted(&index),
        switch("unique", Some(10), 10, 1),
        "one node has the rule"
    );
    let steps = [
        ("n4", switch("unique", Some(7), 8, 1), switch("unique", Some(17), 18, 1)),
        (
            "n5",
            switch("ambiguous", Some(5), 5, 2),
            switch("ambiguous", Some(22), 23, 2),
        ),
        ("n6", switch("none", None, 3, 1), switch("none", None, 26, 2)),
        // It is away, or none is read.
        ("n7", Value::Null, Value::Null),
    ];
    for (name, counted_there, sum) in steps {
        index.accept(told(name, counted_there), at("08:00:10"));
        assert_eq!(counted(&index), sum, "with {name}");
    }
    assert_eq!(
        rule_of(&index)["trafficStats"]["packets"],
        56,
        "lives of before are in the sum"
    );
}

/// Queries that switches dropped: a switch's flow begins anew, and the rule's number does not.
#[test]
fn what_rules_on_queries_counted_is_summed_over_nodes() {
    let told = |name, observed, queries: u64, flow: u64| {
        let counted = and(rule("q", "08:00:00", queries * 46, queries), "records", json!(queries));
        let switch = json!({"match": "unique", "packets": flow, "bytes": flow * 46, "wire": {"packets": 0, "bytes": 0}, "rules": 1});
        node(name, observed).judging(&[("acnp", "u", vec![and(counted, "switch", switch)])])
    };
    let mut index = index([told("n1", "08:00:10", 6, 6), told("n2", "08:00:10", 5, 9)], "08:00:10");
    let numbers = |index: &Index| {
        let rule = rule_of(index);
        let number = |value: &Value| value.as_u64().unwrap();
        let stats = &rule["trafficStats"];
        let own = [&stats["packets"], &stats["bytes"], &rule["records"]].map(number);
        (own, number(&rule["switch"]["packets"]))
    };
    assert_eq!(numbers(&index), ([11, 506, 11], 15));
    index.accept(told("n1", "08:00:20", 7, 1), at("08:00:10"));
    assert_eq!(numbers(&index), ([12, 552, 12], 10));
}

/// A node whose clock was set back tells of the life that goes on with the earliest start: it is counted once.
#[test]
fn a_life_that_goes_on_is_counted_once_whatever_its_start() {
    let mut index = Index::default();
    let mut sum = 0;
    for step in 0..40 {
        let (minutes, packets) = (20 + step / 2, if step < 36 { 1 } else { 100 + step });
        let start = if step < 36 {
            format!("08:{minutes}:00")
        } else {
            "08:01:00".to_owned()
        };
        let life = rule("r", &start, 0, packets);
        let life = if step % 2 == 1 && step < 36 {
            and(life, "ended", json!(true))
        } else {
            life
        };
        let mut report = node("n1", "08:00:00").judging(&[("mkt/p", "u", vec![life])]);
        report.observed_at = at(&format!("09:00:{step:02}"));
        index.accept(report, at("09:00:00"));
        sum = index.policies::<false>(None, at("09:00:00"))[0]
            .traffic_stats
            .unwrap()
            .packets;
    }
    assert_eq!(sum, 18 + 139, "eighteen that ended, and one that goes on");
}

/// What a node does not count adds nothing; where no node counts there is no number, and `-` in tables.
#[test]
fn what_nobody_counts_is_absent() {
    let told = |name: &str, rule: Value| node(name, "08:00:10").judging(&[("acnp", "u", vec![rule])]);
    let uncounted = || json!({"name": "r", "action": "Drop", "startTime": at("08:00:00"), "segments": 0});
    let mut index = index([told("n1", uncounted()), told("n2", uncounted())], "08:00:10");
    // The rule's numbers, the policy's, and its cells.
    let served = |index: &Index| {
        let policy = index.policies::<true>(None, at("08:00:10")).remove(0);
        let table = Table::new([&policy].into_iter(), "v1", IncludeObject::None, None, at("08:00:10"));
        let cells = table.rows[0].cells[1..4].to_vec();
        let policy = serde_json::to_value(policy).unwrap();
        let rule = &policy["ruleTrafficStats"][0];
        let rule = [&rule["trafficStats"], &rule["records"], &rule["wouldDrop"]].map(Value::clone);
        let sums = [&policy["trafficStats"], &policy["status"]["wouldDrop"]].map(Value::clone);
        (rule, sums, cells, table.rows[0].cells[5].clone())
    };
    let dashes = vec![json!("-"); 3];
    let absent = || Value::Null;
    assert_eq!(
        served(&index),
        ([absent(), absent(), absent()], [absent(), absent()], dashes, json!("-"))
    );
    let none = json!({"packets": 0, "messages": 0, "records": 0});
    let counted = and(rule("r", "08:00:00", 46, 1), "records", json!(1));
    let stats = counted["trafficStats"].clone();
    index.accept(told("n3", and(counted, "wouldDrop", none.clone())), at("08:00:10"));
    let expected = (
        [stats.clone(), json!(1), none.clone()],
        [stats, none],
        vec![json!(0), json!(1), json!(46)],
        json!(0),
    );
    assert_eq!(served(&index), expected);
}
