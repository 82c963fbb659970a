//! Where policies are judged: the veth's own account has what rules dropped, and what the switch misses of the rest is a
//! discrepancy and nothing else.

use super::*;
use crate::ledger::scene::{ENFORCED, policy};

const G: &str = "239.1.1.1";
const DENIED: &str = "239.9.9.9";

impl Lab {
    /// So many Pods whose policies drop what is sent to [`DENIED`], and two ticks.
    fn judged(pods: usize) -> Self {
        let mut lab = Self::unread(pods);
        lab.judge();
        lab.ticks(2);
        lab
    }

    fn judge(&mut self) {
        let text = "{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {namespace: mkt, name: p}, \
                    spec: {priority: 5, appliedTo: [{podSelector: {}}], \
                    egress: [{name: no, action: Drop, to: [{ipBlock: {cidr: 239.9.9.9/32}}]}]}}";
        self.policy = Some(policy(text, &self.ports, ENFORCED));
    }

    /// The Pod sends, and the kernel's verdict is that an enforced rule denies it.
    fn denied(&mut self, pod: usize, packets: u64) {
        let seen = self.now + SignedDuration::from_millis(10);
        let outbound = &mut self.ports[pod].outbound;
        add(outbound, DENIED, (0, 0, 0), seen);
        let mut series = outbound.groups.iter_mut();
        series.find(|series| series.group == ip(DENIED)).unwrap().dropped += packets;
    }

    /// Foreign frames, dropped at once or admitted.
    fn spoofs(&mut self, pod: usize, packets: u64, dropped: bool) {
        if dropped {
            self.ports[pod].outbound.other[0].dropped += packets;
        } else {
            self.sends(pod, G, packets);
        }
        self.ports[pod].outbound.foreign_source += packets;
    }
}

fn outbound_dropped(status: &Status) -> (u64, Option<u64>) {
    let outbound = status.outbound.as_ref().unwrap();
    (outbound.dropped, outbound.switch_dropped)
}

/// Antrea's test of data: 10 packets to each of two groups, one of them denied. The veth says so, the switch agrees, and
/// nothing is dropped twice.
#[test]
fn what_a_rule_dropped_is_the_veths_alone() {
    let mut lab = Lab::unread(1);
    lab.judge();
    lab.drop_rule(3, &[0], DENIED);
    lab.ticks(2);
    lab.both_sent(0, G, 10);
    lab.denied(0, 10);
    lab.rule_drops.insert(3, 10);
    for _ in 0..3 {
        let status = &lab.tick()[&0];
        assert!(listed(status).is_empty(), "{:?}", listed(status));
        assert_eq!(outbound_dropped(status), (10, None));
        assert_eq!((agrees(status), status.summary.as_str()), (AGREE, "Dropping"));
    }
    let status = &lab.ticks(10)[&0];
    assert_eq!(status.summary, "OK");
    let outbound = ledgers(status).outbound.as_ref().unwrap();
    assert_eq!((outbound.wire.packets, outbound.wire.bytes), (10, 1420));
    assert_eq!(outbound.wire, outbound.switch);
}

/// The rule's counter grew by what the veth has counted as dropped already: it explains nothing of what else is missing.
#[test]
fn what_else_is_missing_is_a_discrepancy_and_not_booked() {
    let mut lab = Lab::unread(1);
    lab.judge();
    lab.drop_rule(3, &[0], DENIED);
    lab.queue_drops.insert(101, 0);
    lab.ticks(2);
    lab.denied(0, 10);
    lab.rule_drops.insert(3, 10);
    lab.sends(0, DENIED, 7);
    lab.queue_drops.insert(101, 3);
    let status = &lab.ticks(2)[&0];
    let expected = [
        ("out", Cause::QueueOverflow, Account::Wire, 3, Some(426)),
        ("out", Cause::Unexplained, Account::Wire, 4, Some(568)),
    ];
    assert_eq!(listed(status), expected);
    assert_eq!((agrees(status), outbound_dropped(status)), (DIFFER, (10, None)));
    let status = &lab.ticks(9)[&0];
    assert_eq!(
        status.summary, "OK",
        "the rule dropped more than ten seconds ago, and nothing else counts as dropped"
    );
}

/// Inbound goes on as before.
#[test]
fn inbound_losses_are_booked_all_the_same() {
    let mut lab = Lab::judged(1);
    lab.both_handed(0, G, 20);
    lab.counts_copies(0, 4);
    let status = &lab.ticks(2)[&0];
    assert_eq!(
        (dropped(status), status.summary.as_str()),
        ([None, Some(4)], "Dropping")
    );
}

/// What is compared changes with the policies. Neither change is a loss, and what was booked before stays.
#[test]
fn policies_that_come_and_go_lose_nothing() {
    let mut lab = Lab::new(1);
    lab.sends(0, G, 7);
    assert_eq!(dropped(&lab.ticks(2)[&0])[0], Some(7));
    lab.ticks(10);
    lab.judge();
    lab.both_sent(0, G, 20);
    lab.denied(0, 10);
    lab.ticks(3);
    lab.denied(0, 5);
    let status = &lab.ticks(3)[&0];
    assert_eq!((outbound_dropped(status), agrees(status)), ((15, Some(7)), AGREE));
    lab.policy = None;
    lab.both_sent(0, G, 20);
    let status = &lab.ticks(4)[&0];
    assert_eq!((outbound_dropped(status), agrees(status)), ((15, Some(7)), AGREE));
    lab.sends(0, G, 2);
    assert_eq!(dropped(&lab.ticks(2)[&0])[0], Some(9), "booked again");
    lab.ticks(10);
    // The switch is behind by what was sent just now, and so it stays.
    for _ in 0..4 {
        lab.judge();
        lab.sends(0, G, 20);
        let late = lab.now + SignedDuration::from_millis(900);
        let series = lab.ports[0].outbound.groups.iter_mut();
        series.for_each(|series| series.last_seen = Some(late));
        let status = &lab.tick()[&0];
        assert_ne!(agrees(status), DIFFER);
        lab.counts_sent(0, 20);
    }
    let status = &lab.ticks(2)[&0];
    assert_eq!((outbound_dropped(status), agrees(status)), ((15, Some(9)), AGREE));
}

/// Another agent process begins before its policies are read, while the kernel still judges by those of before.
#[test]
fn another_process_books_nothing_of_what_was_judged() {
    for sends_meanwhile in [false, true] {
        let mut lab = Lab::judged(1);
        lab.both_sent(0, G, 10);
        lab.denied(0, 10);
        lab.ticks(2);
        lab.restart_agent();
        lab.policy = None;
        for _ in 0..3 {
            if sends_meanwhile {
                lab.denied(0, 10);
                lab.both_sent(0, G, 1);
            }
            let status = &lab.tick()[&0];
            assert_eq!(outbound_dropped(status).1.unwrap_or(0), 0);
        }
        lab.judge();
        let status = &lab.ticks(3)[&0];
        assert!(listed(status).is_empty(), "{:?}", listed(status));
        assert_eq!(outbound_dropped(status).1, None);
        assert_eq!(agrees(status), AGREE);
    }
}

/// The switch counts no foreign frame, whether they count as dropped or as admitted here.
#[test]
fn foreign_frames_are_in_no_comparison() {
    for dropped in [false, true] {
        let mut lab = Lab::judged(1);
        for _ in 0..5 {
            lab.spoofs(0, 12, dropped);
            lab.both_sent(0, G, 10);
            lab.tick();
        }
        let status = &lab.ticks(3)[&0];
        let listed: Vec<_> = listed(status).into_iter().map(|(_, cause, ..)| cause).collect();
        assert_eq!((listed, agrees(status)), (vec![Cause::ForeignSource], AGREE));
        lab.sends(0, G, 3);
        let status = &lab.ticks(2)[&0];
        assert_eq!(agrees(status), DIFFER, "it still counts");
    }
}
