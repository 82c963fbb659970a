//! The numbers of Antrea's own multicast tests, and of its known behaviour, on both ledgers.

use super::*;
use crate::api::ledgers::Comparison;

/// 10 packets to each of two groups, one of them denied: sent 20, dropped 10.
#[test]
fn a_denied_group_is_booked_as_dropped_by_the_switch() {
    let mut lab = Lab::unread(1);
    lab.drop_rule(3, &[0], "225.20.2.2");
    lab.ticks(2);
    lab.sends(0, "225.20.2.2", 10);
    lab.sends(0, "225.20.2.3", 10);
    lab.counts_sent(0, 10);
    lab.rule_drops.insert(3, 10);
    let status = &lab.tick()[&0];
    assert_eq!(dropped(status), [Some(0), Some(0)], "one tick is no proof");
    assert_eq!(agrees(status), AGREE);
    let status = &lab.tick()[&0];
    assert_eq!(dropped(status), [Some(10), Some(0)]);
    assert_eq!(
        listed(status),
        [("out", Cause::RuleDrop, Account::Wire, 10, Some(1420))]
    );
    // A rule drop is no disagreement; it is Dropping.
    assert_eq!(agrees(status), AGREE);
    assert_eq!(status.summary, "Dropping");
    let outbound = ledgers(status).outbound.as_ref().unwrap();
    assert_eq!((outbound.wire.packets, outbound.wire.bytes), (20, 2840));
    assert_eq!((outbound.switch.packets, outbound.switch.bytes), (10, 1420));
    let status = &lab.ticks(11)[&0];
    assert_eq!((dropped(status), status.summary.as_str()), ([Some(10), Some(0)], "OK"));
}

/// Antrea's mixed test on one node, with its bytes: what each Pod sent and got, and what is booked.
#[test]
fn mixed_traffic_of_antreas_test() {
    let (two, three) = ("225.20.1.2", "225.20.1.3");
    let [sender_1, sender_2, receiver_1, receiver_2] = [0, 1, 2, 3];
    let mut lab = Lab::unread(4);
    lab.drop_rule(3, &[sender_1], two);
    lab.members(two, &[receiver_1, receiver_2]);
    // Receiver 1's report for .3 was denied.
    lab.members(three, &[receiver_2]);
    lab.ticks(2);
    for _ in 0..10 {
        lab.sends(sender_1, two, 1);
        lab.rule_drops.entry(3).and_modify(|drops| *drops += 1);
        lab.both_sent(sender_1, three, 1);
        lab.both_sent(sender_2, two, 1);
        lab.both_sent(sender_2, three, 1);
        lab.both_handed(receiver_1, two, 1);
        lab.both_handed(receiver_2, two, 1);
        lab.both_handed(receiver_2, three, 2);
        lab.tick_after(500);
    }
    let pods = lab.ticks(3);
    let packets = |side: &Option<Comparison>| {
        let side = side.as_ref().unwrap();
        (side.wire.packets, side.switch.packets)
    };
    let numbers = |pod: usize| {
        let ledgers = ledgers(&pods[&pod]);
        (
            packets(&ledgers.inbound),
            packets(&ledgers.outbound),
            dropped(&pods[&pod]),
        )
    };
    assert_eq!(numbers(sender_1), ((0, 0), (20, 10), [Some(10), Some(0)]));
    assert_eq!(numbers(sender_2), ((0, 0), (20, 20), [Some(0), Some(0)]));
    assert_eq!(numbers(receiver_1), ((10, 10), (0, 0), [Some(0), Some(0)]));
    assert_eq!(numbers(receiver_2), ((30, 30), (0, 0), [Some(0), Some(0)]));
    let inbound = ledgers(&pods[&receiver_2]).inbound.as_ref().unwrap();
    assert_eq!((inbound.wire.bytes, inbound.switch.bytes), (4260, 4260));
    let outbound = ledgers(&pods[&sender_2]).outbound.as_ref().unwrap();
    assert_eq!((outbound.wire.bytes, outbound.switch.bytes), (2840, 2840));
    let denied = [("out", Cause::RuleDrop, Account::Wire, 10, Some(1420))];
    assert_eq!(listed(&pods[&sender_1]), denied);
    for (pod, status) in &pods {
        assert_eq!(agrees(status), AGREE, "pod {pod}");
    }
}

/// The sender is a member: the switch counts 10 packets of 1,420 bytes for it and sends it none.
#[test]
fn a_sender_that_is_a_member_has_lost_nothing() {
    let mut lab = Lab::unread(2);
    lab.members("239.1.1.1", &[0, 1]);
    lab.ticks(2);
    lab.both_sent(0, "239.1.1.1", 10);
    lab.counts_copies(0, 10);
    lab.both_handed(1, "239.1.1.1", 10);
    let pods = lab.ticks(4);
    assert_eq!(dropped(&pods[&0]), [Some(0), Some(0)]);
    let own = [("in", Cause::SelfDelivery, Account::Switch, 10, Some(1420))];
    assert_eq!(listed(&pods[&0]), own);
    assert_eq!(agrees(&pods[&0]), AGREE);
    assert_eq!(dropped(&pods[&1]), [Some(0), Some(0)]);
    assert!(listed(&pods[&1]).is_empty());
}

/// antrea-agent restarts and adds the same flow with another cookie: the counter is kept, its age is not.
#[test]
fn a_flow_added_again_keeps_its_counter() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, "239.1.1.1", 10);
    lab.ticks(2);
    let flow = lab.outbound.get_mut(&0).unwrap();
    (flow.added, flow.cookie) = (lab.now, ROUND_2);
    lab.both_sent(0, "239.1.1.1", 5);
    for _ in 0..4 {
        let status = &lab.tick()[&0];
        assert!(listed(status).is_empty(), "{:?}", listed(status));
        assert_eq!((dropped(status), agrees(status)), ([Some(0), Some(0)], AGREE));
    }
    // It still counts: what goes missing now is found.
    lab.sends(0, "239.1.1.1", 3);
    let status = &lab.ticks(2)[&0];
    assert_eq!(dropped(status), [Some(3), Some(0)]);
}

/// The same with reset_counts: zeroed. Nothing is booked, and a new baseline begins.
#[test]
fn a_flow_that_was_reset_is_a_new_baseline() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, "239.1.1.1", 10);
    lab.ticks(2);
    let anew = Flow {
        packets: 0,
        bytes: 0,
        added: lab.now,
        cookie: ROUND_2,
    };
    lab.outbound.insert(0, anew);
    let status = &lab.tick()[&0];
    let reset = [("out", Cause::FlowReset, Account::Wire, 10, Some(1420))];
    assert_eq!(listed(status), reset);
    assert_eq!(agrees(status), ("Unknown", "SwitchRestarted"));
    let status = &lab.tick()[&0];
    assert_eq!(agrees(status), ("Unknown", "SwitchRestarted"), "one tick agreed");
    let status = &lab.tick()[&0];
    assert_eq!(agrees(status), DIFFER, "two did; the reset is listed for ten seconds");
    assert_eq!(dropped(status), [Some(0), Some(0)]);
    let status = &lab.ticks(8)[&0];
    assert_eq!(agrees(status), AGREE);
    lab.both_sent(0, "239.1.1.1", 7);
    lab.sends(0, "239.1.1.1", 2);
    assert_eq!(dropped(&lab.ticks(2)[&0]), [Some(2), Some(0)]);
}
