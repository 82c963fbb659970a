//! Values of RFC 9776 §8 with its defaults, the election of §6.6.2, and what Antrea's burst of three versions looks like.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn query(source: &str, version: u8) -> Query {
    Query {
        source: source.parse().unwrap(),
        direction: Direction::Inbound,
        version,
        group: None,
        sources: Vec::new(),
        suppress: false,
        robustness: None,
        interval: None,
        max_response: SignedDuration::from_secs(10),
    }
}

fn version_3(source: &str, robustness: u8, interval: i64) -> Query {
    Query {
        robustness: Some(robustness),
        interval: Some(SignedDuration::from_secs(interval)),
        ..query(source, 3)
    }
}

#[test]
fn defaults_give_the_intervals_of_the_standard() {
    let timers = Queriers::default().timers(at(0));
    assert_eq!(timers.membership(), SignedDuration::from_secs(260));
    assert_eq!(timers.last_member(None), SignedDuration::from_secs(2));
    assert!(timers.assumed);
    let mut queriers = Queriers::default();
    queriers.heard(&query("10.0.0.1", 2), at(0));
    let (_, querier) = queriers.elected(at(254)).unwrap();
    assert_eq!(querier.other_querier_present(), SignedDuration::from_secs(255));
    assert!(queriers.elected(at(255)).is_none());
    assert!(!queriers.timers(at(254)).assumed && queriers.timers(at(255)).assumed);
}

#[test]
fn the_elected_queriers_values_hold_and_outlive_it() {
    let mut queriers = Queriers::default();
    queriers.heard(&version_3("10.0.0.2", 3, 20), at(0));
    queriers.heard(&version_3("10.0.0.1", 2, 60), at(1));
    queriers.heard(&version_3("0.0.0.0", 7, 7), at(2));
    let (address, _) = queriers.elected(at(3)).unwrap();
    assert_eq!(address.to_string(), "10.0.0.1");
    assert_eq!(queriers.timers(at(3)).membership(), SignedDuration::from_secs(130));
    // 10.0.0.1 is gone after 2 × 60 + 5 s; of those silent the last one heard is remembered.
    assert_eq!(queriers.timers(at(1000)).membership(), SignedDuration::from_secs(59));
    assert!(queriers.timers(at(1000)).assumed);
}

/// RFC 9776 §4.1.6 and §4.1.7: whoever hears 0 falls back to the defaults, not to what was said before. Versions without
/// these fields say nothing of them.
#[test]
fn a_value_of_zero_means_the_default_and_older_versions_mean_nothing() {
    let mut queriers = Queriers::default();
    queriers.heard(&version_3("10.0.0.1", 4, 50), at(0));
    queriers.heard(&query("10.0.0.1", 2), at(1));
    assert_eq!(queriers.timers(at(1)).membership(), SignedDuration::from_secs(210));
    let zero = Query {
        robustness: None,
        ..version_3("10.0.0.1", 0, 50)
    };
    queriers.heard(&zero, at(2));
    assert_eq!(queriers.timers(at(2)).membership(), SignedDuration::from_secs(110));
    let zero = Query {
        robustness: None,
        interval: None,
        ..query("10.0.0.1", 3)
    };
    queriers.heard(&zero, at(3));
    assert_eq!(queriers.timers(at(3)).membership(), SignedDuration::from_secs(260));
}

#[test]
fn a_proxy_query_counts_only_where_nobody_else_asks() {
    let mut queriers = Queriers::default();
    queriers.heard(&query("0.0.0.0", 2), at(0));
    assert!(queriers.elected(at(1)).unwrap().0.is_unspecified());
    queriers.heard(&query("192.168.0.1", 2), at(1));
    assert!(!queriers.elected(at(2)).unwrap().0.is_unspecified());
}

/// Antrea asks in versions 1, 2 and 3 within a millisecond; its version 3 has QRV 0.
#[test]
fn a_burst_of_three_versions_is_one_question_of_one_querier() {
    let mut queriers = Queriers::default();
    for round in 0..4 {
        for version in 1..=3 {
            queriers.heard(&query("10.0.0.1", version), at(round * 10));
        }
    }
    let (_, querier) = queriers.elected(at(30)).unwrap();
    assert_eq!(querier.version(), 3);
    assert_eq!(querier.questions, [Some(at(20)), Some(at(30))]);
    assert_eq!(queriers.oldest_version(at(31)), Some((1, at(0))));
    assert_eq!(queriers.rivals(at(31)), None);
}

#[test]
fn an_older_version_is_forgotten_after_older_host_present() {
    let mut queriers = Queriers::default();
    queriers.heard(&query("10.0.0.9", 1), at(0));
    queriers.heard(&version_3("10.0.0.1", 2, 125), at(10));
    assert_eq!(queriers.oldest_version(at(259)), Some((1, at(0))));
    queriers.heard(&version_3("10.0.0.1", 2, 125), at(135));
    assert_eq!(queriers.oldest_version(at(260)), Some((3, at(10))));
}

#[test]
fn a_hand_over_is_no_rivalry() {
    let mut queriers = Queriers::default();
    for second in [0, 10, 20] {
        queriers.heard(&version_3("10.0.0.2", 2, 10), at(second));
    }
    // The lower address appears; the other hears it and stops.
    for second in [25, 35, 45] {
        queriers.heard(&version_3("10.0.0.1", 2, 10), at(second));
    }
    assert_eq!(queriers.rivals(at(45)), None);
}

#[test]
fn two_that_both_keep_asking_are_rivals_until_one_falls_silent() {
    let mut queriers = Queriers::default();
    queriers.heard(&version_3("10.0.0.2", 2, 10), at(0));
    queriers.heard(&version_3("10.0.0.1", 2, 10), at(5));
    queriers.heard(&version_3("10.0.0.2", 2, 10), at(10));
    queriers.heard(&version_3("10.0.0.1", 2, 10), at(15));
    assert_eq!(
        queriers.rivals(at(15)),
        None,
        "10.0.0.2 has asked once since the other appeared"
    );
    queriers.heard(&version_3("10.0.0.2", 2, 10), at(20));
    let (one, other) = queriers.rivals(at(20)).unwrap();
    assert_eq!(
        (one.to_string(), other.to_string()),
        ("10.0.0.1".into(), "10.0.0.2".into())
    );
    // 2 × 10 + 5 s after its last query the first one counts as gone.
    assert!(queriers.rivals(at(39)).is_some());
    assert_eq!(queriers.rivals(at(40)), None);
}

#[test]
fn made_up_queriers_are_bounded() {
    let mut queriers = Queriers::default();
    for n in 0..1000u32 {
        let source = IpAddr::from(n.to_be_bytes());
        queriers.heard(
            &Query {
                source,
                ..query("10.0.0.1", 3)
            },
            at(i64::from(n)),
        );
    }
    assert_eq!(queriers.all().count(), MAX_QUERIERS);
}
