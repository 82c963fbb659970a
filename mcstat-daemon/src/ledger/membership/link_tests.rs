//! What the messages on one interface tell, by RFC 9776 and RFC 9777 with their defaults: 260 s, and 2 s after a leave.

use super::*;
use crate::{
    api::stats::FilterMode,
    ledger::{lines, verdict::PodName},
};

/// Second `n` of the tests.
fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
    after(start, SignedDuration::from_secs(seconds))
}

fn hear(link: &mut Link, seconds: i64, text: &str) {
    let event = lines::event(&format!("{} 1 {text}", at(seconds))).unwrap();
    link.heard(&event, &Judge::new(None, &PodName::new("mkt", "pod-1")), None);
}

fn linked(texts: &[(i64, &str)]) -> Link {
    let mut link = Link::default();
    texts.iter().for_each(|(seconds, text)| hear(&mut link, *seconds, text));
    link
}

/// Who is joined at that second: `group` or `group INCLUDE|EXCLUDE source,…`.
fn joined(link: &mut Link, seconds: i64) -> Vec<String> {
    link.expire(at(seconds));
    let live = link.groups.iter().filter(|(_, reported)| !reported.filter.is_empty());
    let text = |(group, reported): (&IpAddr, &Reported)| {
        let wanted = reported.filter.wanted(at(seconds));
        let sources: Vec<_> = wanted.sources.iter().map(IpAddr::to_string).collect();
        match wanted.mode {
            FilterMode::Exclude if sources.is_empty() => group.to_string(),
            FilterMode::Exclude => format!("{group} EXCLUDE {}", sources.join(",")),
            FilterMode::Include => format!("{group} INCLUDE {}", sources.join(",")),
        }
    };
    live.map(text).collect()
}

fn ignored(link: &Link) -> Vec<(&'static str, u64)> {
    link.ignored.iter().map(|(reason, count)| (*reason, *count)).collect()
}

const A: &str = "out 10.10.0.5";
const B: &str = "out 10.10.0.6";

#[test]
fn the_only_host_leaves_at_once_one_of_several_after_the_last_member_query_time() {
    let mut alone = linked(&[
        (0, &format!("{A} igmpv2-report 239.1.1.1")),
        (10, &format!("{A} igmpv2-leave 239.1.1.1")),
    ]);
    assert_eq!(joined(&mut alone, 10), Vec::<String>::new());
    let ended = alone.groups.values().next().unwrap().ended.unwrap();
    assert_eq!((ended.at, ended.expired), (at(10), false));

    let mut shared = linked(&[
        (0, &format!("{B} igmpv2-report 239.9.9.9")),
        (0, &format!("{A} igmpv2-report 239.1.1.1")),
        (10, &format!("{A} igmpv2-leave 239.1.1.1")),
    ]);
    assert_eq!(joined(&mut shared, 11), ["239.1.1.1", "239.9.9.9"]);
    assert_eq!(joined(&mut shared, 12), ["239.9.9.9"]);
}

#[test]
fn a_host_that_answers_within_that_time_keeps_the_group() {
    let mut link = linked(&[
        (0, &format!("{A} igmpv2-report 239.1.1.1")),
        (0, &format!("{B} igmpv2-report 239.1.1.1")),
        (10, &format!("{A} igmpv2-leave 239.1.1.1")),
        (11, &format!("{B} igmpv2-report 239.1.1.1")),
    ]);
    assert_eq!(joined(&mut link, 270), ["239.1.1.1"]);
    assert_eq!(joined(&mut link, 271), Vec::<String>::new());
}

#[test]
fn a_host_that_was_silent_for_the_membership_interval_is_forgotten() {
    let mut link = linked(&[
        (0, &format!("{B} igmpv2-report 239.1.1.1")),
        (100, &format!("{A} igmpv2-report 239.1.1.1")),
        (260, &format!("{A} igmpv2-leave 239.1.1.1")),
    ]);
    assert_eq!(joined(&mut link, 260), Vec::<String>::new(), "the only host left");
}

/// Five IPv6 hosts do not hide that there are two IPv4 ones.
#[test]
fn hosts_of_one_family_do_not_crowd_out_those_of_the_other() {
    let mut link = Link::default();
    for host in 1..=5 {
        hear(&mut link, 0, &format!("out fe80::{host} mldv2-report IS_EX(ff0e::1)"));
    }
    hear(&mut link, 1, &format!("{A} igmpv2-report 239.1.1.1"));
    hear(&mut link, 1, &format!("{B} igmpv2-report 239.1.1.1"));
    hear(&mut link, 2, &format!("{A} igmpv2-leave 239.1.1.1"));
    assert_eq!(joined(&mut link, 3), ["239.1.1.1", "ff0e::1"]);
    assert!(link.hosts.len() <= 2 * MAX_HOSTS);
}

#[test]
fn what_the_only_host_says_of_its_state_is_the_whole_of_it() {
    let report = |records: &str| format!("{A} igmpv3-report {records}");
    let mut link = linked(&[
        (0, &report("TO_IN(232.1.1.1; 192.0.2.1,192.0.2.2)")),
        (5, &report("IS_IN(232.1.1.1; 192.0.2.2,192.0.2.3)")),
    ]);
    assert_eq!(joined(&mut link, 5), ["232.1.1.1 INCLUDE 192.0.2.2,192.0.2.3"]);
    hear(&mut link, 6, &report("IS_EX(232.1.1.1; 192.0.2.9)"));
    assert_eq!(joined(&mut link, 6), ["232.1.1.1 EXCLUDE 192.0.2.9"]);
    hear(&mut link, 7, &report("IS_IN(232.1.1.1)"));
    assert_eq!(joined(&mut link, 7), Vec::<String>::new());
}

/// Duplicate records of one message add to each other, as at a router.
#[test]
fn records_of_one_group_in_one_message_do_not_replace_each_other() {
    let mut link = linked(&[(
        0,
        &format!(
            "{A} igmpv3-report IS_IN(232.1.1.1; 192.0.2.1) IS_IN(232.1.1.1; 192.0.2.2) IS_EX(239.1.1.1) IS_EX(239.1.1.1)"
        ),
    )]);
    assert_eq!(
        joined(&mut link, 0),
        ["232.1.1.1 INCLUDE 192.0.2.1,192.0.2.2", "239.1.1.1"]
    );
    let reports: Vec<_> = link.groups.values().map(|reported| reported.reports).collect();
    assert_eq!(reports, [1, 1], "messages, not records");
}

#[test]
fn block_unknown_records_and_empty_lists_make_no_member() {
    let mut link = linked(&[(
        0,
        &format!(
            "{A} igmpv3-report BLOCK(239.1.1.1; 192.0.2.1) TYPE7(239.1.1.2; 192.0.2.1) TYPE0(239.1.1.3) IS_IN(239.1.1.4) \
             TO_IN(239.1.1.5) ALLOW(239.1.1.6) TO_EX(239.1.1.7)"
        ),
    )]);
    assert_eq!(joined(&mut link, 0), ["239.1.1.7"]);
    assert_eq!(link.groups.len(), 1, "no trace of the others");
    hear(&mut link, 5, &format!("{A} igmpv3-report TYPE7(239.1.1.7)"));
    let known = link.groups.values().next().unwrap();
    assert_eq!((known.reports, known.last_report), (1, at(0)), "no report of the group");
}

/// RFC 9776 §7.3.2: with an IGMPv1 host nobody's leave counts; with an IGMPv2 host BLOCK and source lists do not.
#[test]
fn compatibility_modes_of_igmp() {
    let mut link = linked(&[
        (0, &format!("{A} igmpv1-report 239.1.1.1")),
        (1, &format!("{A} igmpv2-leave 239.1.1.1")),
        (2, &format!("{A} igmpv3-report TO_IN(239.1.1.1)")),
        (3, &format!("{A} igmpv3-report IS_IN(239.1.1.1)")),
        (4, &format!("{A} igmpv3-report BLOCK(239.1.1.1; 192.0.2.1)")),
    ]);
    assert_eq!(joined(&mut link, 259), ["239.1.1.1"]);
    assert_eq!(joined(&mut link, 260), Vec::<String>::new());

    let mut link = linked(&[
        (0, &format!("{A} igmpv2-report 239.1.1.1")),
        (1, &format!("{A} igmpv3-report TO_EX(239.1.1.1; 192.0.2.1)")),
        (2, &format!("{A} igmpv3-report BLOCK(239.1.1.1; 192.0.2.2)")),
    ]);
    assert_eq!(joined(&mut link, 2), ["239.1.1.1"]);
    // The IGMPv2 host was last heard at second 0: from 260 on lists count again.
    hear(
        &mut link,
        260,
        &format!("{A} igmpv3-report TO_EX(239.1.1.1; 192.0.2.1)"),
    );
    assert_eq!(joined(&mut link, 260), ["239.1.1.1 EXCLUDE 192.0.2.1"]);
    hear(&mut link, 261, &format!("{A} igmpv2-leave 239.1.1.1"));
    assert_eq!(
        joined(&mut link, 261),
        Vec::<String>::new(),
        "a leave makes no IGMPv2 host present"
    );
}

/// RFC 9777 §8.3.2: MLDv1 hosts do leave.
#[test]
fn compatibility_mode_of_mld() {
    let host = "out fe80::5";
    let mut link = linked(&[
        (0, &format!("{host} mldv1-report ff0e::1")),
        (1, &format!("{host} mldv2-report BLOCK(ff0e::1; 2001:db8::1)")),
        (2, &format!("{host} mldv2-report TO_EX(ff0e::1; 2001:db8::1)")),
    ]);
    assert_eq!(joined(&mut link, 2), ["ff0e::1"]);
    hear(&mut link, 3, &format!("{host} mldv1-done ff0e::1"));
    assert_eq!(joined(&mut link, 3), Vec::<String>::new());
}

#[test]
fn timers_follow_the_querier() {
    let mut link = linked(&[
        (0, "in 10.0.0.1 igmpv3-query qrv=3 qqic=20 max=50"),
        (1, &format!("{A} igmpv3-report IS_EX(239.1.1.1)")),
    ]);
    // 3 × 20 s + 5 s.
    assert_eq!(joined(&mut link, 65), ["239.1.1.1"]);
    assert_eq!(joined(&mut link, 66), Vec::<String>::new());
}

/// RFC 9776 §6.6.1: without S, timers go down to robustness × Max Resp Time of the query.
#[test]
fn a_group_specific_query_lowers_timers_unless_it_says_not_to() {
    let query = |extra: &str| format!("in 10.0.0.1 igmpv3-query group=239.1.1.1 max=10 {extra}");
    let join = format!("{A} igmpv3-report TO_EX(239.1.1.1)");
    let mut link = linked(&[(0, &join), (10, &query("suppress"))]);
    assert_eq!(joined(&mut link, 20), ["239.1.1.1"]);
    hear(&mut link, 20, &query(""));
    assert_eq!(joined(&mut link, 21), ["239.1.1.1"]);
    assert_eq!(joined(&mut link, 22), Vec::<String>::new());
    let ended = link.groups.values().next().unwrap().ended.unwrap();
    assert_eq!((ended.at, ended.expired), (at(22), true));

    let mut link = linked(&[(0, &join), (10, "in 10.0.0.1 igmpv1-query group=239.1.1.1")]);
    assert_eq!(joined(&mut link, 100), ["239.1.1.1"], "IGMPv1 asks for everything");
}

#[test]
fn what_cannot_be_believed_is_counted_by_reason_and_changes_nothing() {
    let mut link = linked(&[
        (0, &format!("{A} igmpv2-report 239.1.1.1 bad-checksum")),
        (0, &format!("{A} igmpv3-report TO_EX(239.1.1.1) cut=38")),
        (0, "out 224.0.0.9 igmpv2-report 239.1.1.1"),
        (0, "out 127.0.0.1 igmpv2-report 239.1.1.1"),
        (0, &format!("{A} igmpv2-report 10.1.1.1")),
        (0, "out raw 00"),
        // IPv4, protocol 2, and no IGMP message.
        (0, "out raw 4500001400000000010200000a0a0005e0000001"),
    ]);
    assert_eq!(joined(&mut link, 0), Vec::<String>::new());
    assert!(link.groups.is_empty());
    assert_eq!(
        ignored(&link),
        [
            ("bad_checksum", 1),
            ("bad_source", 2),
            ("bad_version", 1),
            ("cut", 1),
            ("not_multicast", 1),
            ("too_short", 1)
        ]
    );
}

/// What another host sends to this one is counted there; a query that cannot be believed is counted here.
#[test]
fn reports_of_others_change_and_count_nothing() {
    let mut link = linked(&[
        (0, "in 10.10.0.9 igmpv3-report TO_EX(239.1.1.1)"),
        (0, "in 10.10.0.9 igmpv2-report 239.1.1.1 bad-checksum"),
        (0, "in 10.0.0.1 igmpv3-query bad-checksum"),
    ]);
    assert_eq!(joined(&mut link, 0), Vec::<String>::new());
    assert_eq!(ignored(&link), [("bad_checksum", 1)]);
    assert_eq!((link.silenced(true), link.ipv4.last_general), (None, None));
    hear(&mut link, 1, "in 10.10.0.9 igmpv2-report 239.1.1.1");
    assert_eq!((link.silenced(true), link.silenced(false)), (Some(at(1)), None));
}

/// IGMP as real hosts send it; MLD as RFC 9777 §6.2 wants it.
#[test]
fn igmp_is_taken_with_another_envelope_and_mld_is_not() {
    let mut link = linked(&[
        (0, "out 10.10.0.5 igmpv2-report 239.1.1.1 no-alert ttl=64 to=224.0.0.22"),
        (0, "out 0.0.0.0 igmpv2-report 239.1.1.2"),
        (0, "out fe80::5 mldv2-report TO_EX(ff0e::1) no-alert"),
        (0, "out fe80::5 mldv2-report TO_EX(ff0e::2) ttl=64"),
        (0, "out 2001:db8::5 mldv2-report TO_EX(ff0e::3)"),
        (0, "out :: mldv2-report TO_EX(ff02::1:ff00:5)"),
        (0, "out :: mldv1-done ff02::1:ff00:5"),
        (0, "in :: mldv2-query"),
    ]);
    assert_eq!(joined(&mut link, 0), ["239.1.1.1", "239.1.1.2", "ff02::1:ff00:5"]);
    assert_eq!(ignored(&link), [("bad_envelope", 2), ("bad_source", 3)]);
}

#[test]
fn other_traffic_of_protocol_2_changes_nothing() {
    let mut link = linked(&[(0, &format!("{A} igmp-other 19")), (0, &format!("{A} igmp-other 31"))]);
    assert_eq!(joined(&mut link, 0), Vec::<String>::new());
    assert!(link.ignored.is_empty());
}

#[test]
fn groups_are_bounded_and_only_joins_are_refused() {
    let mut link = Link::default();
    for block in 0..8 {
        hear(&mut link, 0, &format!("{A} igmpv3-report TO_EX(239.1.{block}.0 x183)"));
    }
    assert_eq!(
        (link.groups.len(), link.groups_refused),
        (MAX_GROUPS, 8 * 183 - MAX_GROUPS as u64)
    );
    // What joins nothing is no refusal and pushes nothing out.
    let before = link.groups_refused;
    hear(&mut link, 1, &format!("{A} igmpv3-report TO_IN(239.9.0.0 x183)"));
    hear(
        &mut link,
        1,
        &format!("{A} igmpv3-report BLOCK(239.9.0.1; 192.0.2.1) IS_IN(239.9.0.2) TYPE9(239.9.0.3)"),
    );
    assert_eq!((link.groups.len(), link.groups_refused), (MAX_GROUPS, before));
    hear(&mut link, 1, &format!("{A} igmpv3-report TO_IN(239.9.0.0; 192.0.2.1)"));
    assert_eq!(link.groups_refused, before + 1);
    // One that has ended makes room.
    hear(&mut link, 2, &format!("{A} igmpv3-report TO_IN(239.1.0.0)"));
    hear(&mut link, 3, &format!("{A} igmpv3-report TO_EX(239.9.0.0)"));
    assert_eq!((link.groups.len(), link.groups_refused), (MAX_GROUPS, before + 1));
    assert!(link.groups.contains_key(&IpAddr::from([239, 9, 0, 0])));
}

#[test]
fn an_ended_group_is_remembered_for_ten_minutes() {
    let mut link = linked(&[
        (0, &format!("{A} igmpv2-report 239.1.1.1")),
        (10, &format!("{A} igmpv2-leave 239.1.1.1")),
    ]);
    link.expire(at(609));
    assert_eq!(link.groups.len(), 1);
    link.expire(at(610));
    assert!(link.groups.is_empty());
}
