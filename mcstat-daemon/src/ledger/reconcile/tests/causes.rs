//! The causes that are no drop, by what speaks for each, and the same numbers without that.

use super::*;

const G: &str = "239.1.1.1";

/// Twenty sends of 14,000 bytes in segments of 1,400; the first one is segmented by the upcall. Measured numbers.
#[test]
fn segmentation_by_an_upcall_is_no_difference() {
    let gso = |bytes: u64| {
        let mut lab = Lab::new(1);
        let seen = lab.now + SignedDuration::from_millis(10);
        add(&mut lab.ports[0].outbound, G, (20, 200, 280_840), seen);
        let flow = lab.outbound.get_mut(&0).unwrap();
        (flow.packets, flow.bytes) = (29, bytes);
        lab.ticks(3).remove(&0).unwrap()
    };
    let status = gso(281_218);
    assert_eq!(
        listed(&status),
        [("out", Cause::GsoUpcall, Account::Switch, 9, Some(378))]
    );
    assert_eq!((agrees(&status), dropped(&status)), (AGREE, [Some(0), Some(0)]));
    // One byte more is not what headers account for.
    let status = gso(281_219);
    assert_eq!(
        listed(&status),
        [("out", Cause::Unexplained, Account::Switch, 9, Some(379))]
    );
    assert_eq!((agrees(&status), dropped(&status)), (DIFFER, [Some(0), Some(0)]));
}

/// More packets than there are segments, or none segmented at all.
#[test]
fn packets_without_segments_are_not_those_of_an_upcall() {
    for (segments, extra) in [(20, 9), (25, 9)] {
        let mut lab = Lab::new(1);
        let seen = lab.now + SignedDuration::from_millis(10);
        add(&mut lab.ports[0].outbound, G, (20, segments, 280_840), seen);
        let flow = lab.outbound.get_mut(&0).unwrap();
        (flow.packets, flow.bytes) = (20 + extra, 280_840 + extra * 42);
        let status = &lab.ticks(3)[&0];
        let expected = [("out", Cause::Unexplained, Account::Switch, extra, Some(extra * 42))];
        assert_eq!(listed(status), expected, "{segments} segments");
    }
}

/// A leave and a join during traffic: half a second goes to the wrong port. Nothing is booked, before or after.
#[test]
fn a_change_of_buckets_books_nothing_from_around_it() {
    for (joins, switch, more) in [(true, 238, Account::Switch), (false, 202, Account::Wire)] {
        let (alone, both): (&[usize], &[usize]) = (&[1], &[0, 1]);
        let mut lab = Lab::unread(2);
        lab.members(G, if joins { alone } else { both });
        lab.ticks(2);
        lab.handed(0, G, 220);
        lab.both_handed(1, G, 500);
        lab.counts_copies(0, switch);
        lab.members(G, if joins { both } else { alone });
        let pods = lab.ticks(2);
        let expected = [("in", Cause::MembershipChange, more, 18, Some(18 * FRAME))];
        assert_eq!(listed(&pods[&0]), expected);
        assert_eq!((agrees(&pods[&0]), dropped(&pods[&0])), (DIFFER, [Some(0), Some(0)]));
        assert!(listed(&pods[&1]).is_empty());
        // Afterwards it counts again.
        lab.both_handed(1, G, 10);
        lab.counts_copies(1, 2);
        assert_eq!(dropped(&lab.ticks(3)[&1]), [Some(0), Some(2)]);
    }
}

/// The same numbers while somebody else's group changes are a loss.
#[test]
fn a_change_of_other_buckets_excuses_nothing() {
    let mut lab = Lab::unread(2);
    lab.members(G, &[0]);
    lab.members("239.2.2.2", &[1]);
    lab.ticks(2);
    lab.handed(0, G, 220);
    lab.counts_copies(0, 238);
    lab.members("239.2.2.2", &[]);
    let status = &lab.ticks(2)[&0];
    assert_eq!(
        listed(status),
        [("in", Cause::Unexplained, Account::Switch, 18, Some(2556))]
    );
    assert_eq!(dropped(status), [Some(0), Some(18)]);
}

/// Without the groups nothing can be said of copies, and nothing is.
#[test]
fn without_groups_nothing_inbound_is_booked() {
    let mut lab = Lab::new(1);
    lab.groups_known = false;
    lab.counts_copies(0, 18);
    let status = &lab.ticks(3)[&0];
    assert_eq!((listed(status).len(), dropped(status)), (0, [Some(0), Some(0)]));
    lab.groups_known = true;
    let status = &lab.ticks(3)[&0];
    assert_eq!((listed(status).len(), dropped(status)), (0, [Some(0), Some(0)]));
    assert_eq!(agrees(status), AGREE);
}

/// Copies to itself that cannot be counted: no slot, a rule that is not understood. Nothing is booked.
#[test]
fn copies_to_itself_that_are_not_known_book_nothing() {
    let mut lab = Lab::unread(1);
    lab.members(G, &[0]);
    lab.ticks(2);
    let outbound = &mut lab.ports[0].outbound;
    outbound.other[0].admitted = Traffic {
        packets: 9,
        segments: 9,
        bytes: 9 * FRAME,
    };
    outbound.other[0].last_seen = Some(lab.now);
    outbound.overflow.port_limit = 9;
    lab.counts_sent(0, 9);
    lab.counts_copies(0, 9);
    let status = &lab.ticks(4)[&0];
    assert_eq!((listed(status).len(), dropped(status)), (0, [Some(0), Some(0)]));

    lab.rules.push(Rule {
        id: 5,
        unexpressed: 1,
        verdict: Some(Verdict::Drop),
        ..Rule::default()
    });
    lab.both_sent(0, G, 4);
    lab.counts_copies(0, 4);
    let status = &lab.ticks(4)[&0];
    assert_eq!((listed(status).len(), dropped(status)), (0, [Some(0), Some(0)]));
}

/// What a rule denies never comes back as a copy.
#[test]
fn a_denied_packet_is_no_copy_to_itself() {
    let mut lab = Lab::unread(1);
    lab.drop_rule(3, &[0], G);
    lab.members(G, &[0]);
    lab.ticks(2);
    lab.sends(0, G, 6);
    lab.rule_drops.insert(3, 6);
    let status = &lab.ticks(3)[&0];
    assert_eq!(listed(status), [("out", Cause::RuleDrop, Account::Wire, 6, Some(852))]);
    assert_eq!((agrees(status), dropped(status)), (AGREE, [Some(6), Some(0)]));
}

/// A member's own packets lost before the switch: a loss outbound, and no wonder inbound.
#[test]
fn own_packets_lost_before_the_switch_are_no_copies() {
    let mut lab = Lab::unread(1);
    lab.members(G, &[0]);
    lab.queue_drops.insert(101, 0);
    lab.ticks(2);
    lab.queue_drops.insert(101, 3);
    lab.sends(0, G, 10);
    lab.counts_sent(0, 7);
    lab.counts_copies(0, 7);
    let status = &lab.ticks(4)[&0];
    assert_eq!(dropped(status), [Some(3), Some(0)]);
    let causes = listed(status).into_iter().map(|(side, cause, ..)| (side, cause));
    let causes: Vec<_> = causes.collect();
    assert_eq!(causes, [("in", Cause::SelfDelivery), ("out", Cause::QueueOverflow)]);
}

#[test]
fn programs_that_were_off_are_no_drop() {
    let mut lab = Lab::new(1);
    lab.both_handed(0, G, 5);
    lab.tick();
    // The switch sends on; the veth does not count.
    lab.counts_copies(0, 8);
    lab.counts_sent(0, 6);
    lab.detached.insert(1, lab.now);
    let status = &lab.ticks(2)[&0];
    let expected = [
        ("in", Cause::NotAttached, Account::Switch, 8, Some(1136)),
        ("out", Cause::NotAttached, Account::Switch, 6, Some(852)),
    ];
    assert_eq!(listed(status), expected);
    assert_eq!((agrees(status), dropped(status)), (DIFFER, [Some(0), Some(0)]));
    // The same time once more is no news.
    lab.counts_copies(0, 3);
    let status = &lab.ticks(3)[&0];
    assert_eq!(dropped(status), [Some(0), Some(3)]);
}

#[test]
fn a_program_before_ours_explains_what_is_not_seen() {
    let mut lab = Lab::new(1);
    lab.uncounted.push(UncountedPort {
        pod: lab.ports[0].pod.clone(),
        interface: "eth0".to_owned(),
        reason: "BehindAnotherProgram".to_owned(),
        message: String::new(),
    });
    lab.counts_copies(0, 8);
    let status = &lab.ticks(2)[&0];
    assert_eq!(
        listed(status),
        [("in", Cause::NotAttached, Account::Switch, 8, Some(1136))]
    );
    assert_eq!(dropped(status), [Some(0), Some(0)]);
}

#[test]
fn a_foreign_source_is_listed_and_not_compared() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 100);
    lab.sends(0, G, 12);
    lab.ports[0].outbound.foreign_source = 12;
    let status = &lab.ticks(3)[&0];
    let foreign = ("out", Cause::ForeignSource, Account::Wire, 12, None);
    assert_eq!(listed(status), [foreign]);
    assert_eq!((agrees(status), dropped(status)), (AGREE, [Some(0), Some(0)]));
    // Not counted as foreign they are missing.
    lab.sends(0, G, 2);
    let status = &lab.ticks(2)[&0];
    assert_eq!(dropped(status), [Some(2), Some(0)]);
    let lost = ("out", Cause::Unexplained, Account::Wire, 2, Some(284));
    assert_eq!(listed(status), [foreign, lost]);
}

/// 100 sent, 1 seen, and the flow goes: 99 were never written down.
#[test]
fn a_flow_that_goes_takes_what_it_had_not_written_down() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 1);
    lab.tick();
    lab.sends(0, G, 99);
    lab.outbound.remove(&0);
    let status = &lab.tick()[&0];
    let lost = [("out", Cause::UnpushedLost, Account::Wire, 99, Some(14_058))];
    assert_eq!(listed(status), lost);
    assert_eq!((agrees(status), dropped(status)), (DIFFER, [Some(0), Some(0)]));
    assert_eq!(agrees(&lab.ticks(10)[&0]), ("Unknown", "NoFlow"));
}

/// The same when the packets are younger than the lag: nothing will ever write them down.
#[test]
fn a_flow_that_goes_at_once_takes_them_too() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 1);
    lab.tick();
    lab.sends(0, G, 99);
    lab.handed(0, G, 5);
    lab.outbound.remove(&0);
    lab.inbound.remove(&0);
    let lost = [
        ("in", Cause::UnpushedLost, Account::Wire, 5, Some(710)),
        ("out", Cause::UnpushedLost, Account::Wire, 99, Some(14_058)),
    ];
    assert_eq!(listed(&lab.tick_after(100)[&0]), lost);
}

#[test]
fn a_flow_that_goes_with_everything_written_down_has_lost_nothing() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 100);
    lab.ticks(2);
    lab.outbound.remove(&0);
    assert!(listed(&lab.tick()[&0]).is_empty());
}
