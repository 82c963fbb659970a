//! Policies of files: a UID's count of how often one was made again is each process's own.

use super::tests::{packets, source, sums};
use crate::aggregator::{
    index::Index,
    test_nodes::{at, index, node, rule},
};

const FILE: &str = "file:NetworkPolicy/mkt/p";

/// A UID of a file is made by each process for itself: how often a policy was made again is not the same everywhere.
#[test]
fn a_policy_of_a_file_is_one_whatever_its_count() {
    let again = format!("{FILE}#1");
    let told = |name, observed, uid: &str, start, packets| {
        node(name, observed).judging(&[("mkt/p", uid, vec![rule("r", start, 0, packets)])])
    };
    let mut index = Index::default();
    index.follow_policies(source(&[("mkt/p", FILE)]), at("08:00:00"));
    index.accept(told("n1", "08:00:10", &again, "08:00:00", 10), at("08:00:10"));
    index.accept(told("n2", "08:00:10", FILE, "08:00:00", 5), at("08:00:10"));
    assert_eq!(packets(&index, "08:00:10"), 15);
    // It goes and comes back, here first; n2 never sees it go.
    index.follow_policies(source(&[]), at("08:00:12"));
    assert_eq!(sums::<false>(&index, at("08:00:12")), []);
    index.follow_policies(source(&[("mkt/p", &again)]), at("08:00:14"));
    assert_eq!(packets(&index, "08:00:14"), 0);
    index.accept(told("n1", "08:00:20", &again, "08:00:00", 10), at("08:00:20"));
    index.accept(told("n2", "08:00:20", FILE, "08:00:00", 8), at("08:00:20"));
    assert_eq!(packets(&index, "08:00:20"), 3);
    index.accept(
        told("n1", "08:00:30", &format!("{FILE}#2"), "08:00:16", 4),
        at("08:00:30"),
    );
    assert_eq!(packets(&index, "08:00:30"), 7);
    let policy = index.policies::<false>(None, at("08:00:30")).remove(0);
    assert_eq!(policy.metadata.creation_timestamp, Some(at("08:00:14")));
}

#[test]
fn a_policy_of_a_file_is_made_again_without_an_own_source_too() {
    let again = format!("{FILE}#1");
    let told = |name, observed, uid: &str, start, packets| {
        node(name, observed).judging(&[("mkt/p", uid, vec![rule("r", start, 0, packets)])])
    };
    let mut index = index(
        [
            told("gone", "08:00:00", FILE, "08:00:00", 100),
            told("n1", "08:00:00", FILE, "08:00:00", 10),
        ],
        "08:00:00",
    );
    index.accept(told("n1", "08:20:00", FILE, "08:00:00", 20), at("08:20:00"));
    assert_eq!(packets(&index, "08:20:00"), 120);
    index.accept(told("n1", "08:20:10", &again, "08:20:05", 1), at("08:20:10"));
    assert_eq!(
        packets(&index, "08:20:10"),
        1,
        "neither its own share nor that of the node that is gone"
    );
}

/// The count of a file's UID is each process's own: a node that was rebooted begins at none, and one that saw the file go
/// counts on though this server did not look meanwhile.
#[test]
fn nothing_falls_when_a_node_counts_a_file_otherwise() {
    let again = |n: u32| format!("{FILE}#{n}");
    let told = |observed, uid: &str, start, packets| {
        let mut told = node("n1", observed).judging(&[("mkt/p", uid, vec![rule("r", start, 0, packets)])]);
        told.start_time = at(start);
        told
    };
    for own in [true, false] {
        let mut index = Index::default();
        if own {
            index.follow_policies(source(&[("mkt/p", FILE)]), at("08:00:00"));
        }
        let kept_since = |index: &Index, now| index.policies::<false>(None, at(now))[0].status.kept_since;
        index.accept(told("08:00:10", &again(2), "08:00:00", 10), at("08:00:10"));
        let since = kept_since(&index, "08:00:10");
        // It comes back as another machine would; it had gone for so long that it counted as gone.
        index.accept(told("08:20:10", FILE, "08:20:00", 3), at("08:20:10"));
        assert_eq!(
            (packets(&index, "08:20:10"), kept_since(&index, "08:20:10")),
            (13, since),
            "own source: {own}"
        );
        index.accept(told("08:30:10", &again(1), "08:30:00", 1), at("08:30:10"));
        let expected = if own { (14, since) } else { (1, at("08:30:10")) };
        assert_eq!(
            (packets(&index, "08:30:10"), kept_since(&index, "08:30:10")),
            expected,
            "own source: {own}"
        );
    }
}

#[test]
fn whether_the_node_or_the_own_source_tells_of_a_file_first_is_no_matter() {
    let told = node("n1", "08:00:10").judging(&[
        ("mkt/p", &format!("{FILE}#3"), vec![rule("r", "08:00:00", 0, 10)]),
        (
            "mkt/q",
            "file:NetworkPolicy/mkt/q#3",
            vec![rule("r", "08:00:00", 0, 10)],
        ),
    ]);
    for node_first in [true, false] {
        let mut index = Index::default();
        let follow = |index: &mut Index, now| index.follow_policies(source(&[("mkt/p", FILE)]), at(now));
        if node_first {
            index.accept(told.clone(), at("08:00:10"));
            follow(&mut index, "08:00:11");
        } else {
            follow(&mut index, "08:00:09");
            index.accept(told.clone(), at("08:00:10"));
        }
        assert_eq!(packets(&index, "08:00:11"), 10, "node first: {node_first}");
        // The other one comes into the directory later: what the node has told of it stands.
        let both = source(&[("mkt/p", FILE), ("mkt/q", "file:NetworkPolicy/mkt/q")]);
        index.follow_policies(both, at("08:00:12"));
        let sums = index.policies::<false>(None, at("08:00:12"));
        let counts: Vec<_> = sums
            .iter()
            .map(|policy| policy.traffic_stats.unwrap().packets)
            .collect();
        assert_eq!(counts, [10, 10], "node first: {node_first}");
    }
}

/// Every process looks at the directory once a second, and a node may be the first to see that a policy is back.
#[test]
fn what_a_node_counts_of_a_policy_before_the_own_source_sees_it_again_is_counted() {
    for (first, second, third) in [(0, 1, 2), (3, 4, 5)] {
        let uid = |again| match again {
            0 => FILE.to_owned(),
            again => format!("{FILE}#{again}"),
        };
        let told = |name, observed, again: u32, lives: &[(&str, u64)]| {
            let rules = lives.iter().map(|(start, packets)| rule("r", start, 0, *packets));
            node(name, observed).judging(&[("mkt/p", &uid(again), rules.collect())])
        };
        let mut index = Index::default();
        index.follow_policies(source(&[("mkt/p", &uid(0))]), at("08:00:00"));
        index.accept(told("n1", "08:00:10", first, &[("08:00:00", 10)]), at("08:00:10"));
        index.accept(told("n2", "08:00:10", first, &[("08:00:00", 5)]), at("08:00:10"));
        assert_eq!(packets(&index, "08:00:10"), 15);
        index.follow_policies(source(&[]), at("08:00:11"));
        index.accept(told("n2", "08:00:11", first, &[("08:00:00", 6)]), at("08:00:11"));
        index.accept(told("n1", "08:00:12", second, &[("08:00:11", 3)]), at("08:00:12"));
        assert_eq!(sums::<false>(&index, at("08:00:12")), []);
        index.follow_policies(source(&[("mkt/p", &uid(1))]), at("08:00:12"));
        assert_eq!(
            packets(&index, "08:00:12"),
            3,
            "n1 tells of the new one, n2 of the one before"
        );
        index.accept(told("n1", "08:00:13", second, &[("08:00:11", 4)]), at("08:00:13"));
        index.accept(told("n2", "08:00:13", second, &[("08:00:12", 1)]), at("08:00:13"));
        assert_eq!(packets(&index, "08:00:13"), 5);
        // Once more, and the own source is first: what was counted of the second one is not the third one's.
        index.follow_policies(source(&[]), at("08:00:20"));
        index.follow_policies(source(&[("mkt/p", &uid(2))]), at("08:00:21"));
        assert_eq!(packets(&index, "08:00:21"), 0);
        index.accept(told("n1", "08:00:22", third, &[("08:00:21", 2)]), at("08:00:22"));
        assert_eq!(packets(&index, "08:00:22"), 2);
    }
}

#[test]
fn a_file_that_is_made_again_twice_between_two_looks_is_the_last_one() {
    let told = |observed, uid: &str, start, packets| {
        node("n1", observed).judging(&[("mkt/p", uid, vec![rule("r", start, 0, packets)])])
    };
    let again = |n: u32| format!("{FILE}#{n}");
    let mut index = Index::default();
    index.follow_policies(source(&[("mkt/p", FILE)]), at("08:00:00"));
    index.accept(told("08:00:10", FILE, "08:00:00", 10), at("08:00:10"));
    index.follow_policies(source(&[]), at("08:00:11"));
    index.accept(told("08:00:12", &again(1), "08:00:11", 3), at("08:00:12"));
    index.accept(told("08:00:14", &again(2), "08:00:13", 1), at("08:00:14"));
    index.follow_policies(source(&[("mkt/p", &again(1))]), at("08:00:15"));
    assert_eq!(packets(&index, "08:00:15"), 1);
}

#[test]
fn a_file_that_is_made_again_with_other_rules_has_those_alone() {
    let again = format!("{FILE}#1");
    let told = |observed, uid: &str, name, start, packets| {
        node("n1", observed).judging(&[("mkt/p", uid, vec![rule(name, start, 0, packets)])])
    };
    let mut index = Index::default();
    index.follow_policies(source(&[("mkt/p", FILE)]), at("08:00:00"));
    index.accept(told("08:00:10", FILE, "old", "08:00:00", 10), at("08:00:10"));
    index.follow_policies(source(&[]), at("08:00:11"));
    index.follow_policies(source(&[("mkt/p", &again)]), at("08:00:12"));
    let rules = |index: &Index, now| sums::<false>(index, at(now)).remove(0).2;
    assert_eq!(rules(&index, "08:00:12"), []);
    index.accept(told("08:00:20", &again, "new", "08:00:12", 0), at("08:00:20"));
    assert_eq!(rules(&index, "08:00:20"), [("new".to_owned(), 0, 0)]);
}
