//! What is missing, and what explains it: rules, the queue, nothing; each with what does not explain it.

use super::*;

const G: &str = "239.1.1.1";

/// Loses so many packets on the way to the switch and waits for two quiet ticks.
fn lose(lab: &mut Lab, packets: u64) -> Status {
    lab.sends(0, G, packets);
    lab.ticks(2).remove(&0).unwrap()
}

#[test]
fn what_nothing_speaks_for_is_unexplained_and_booked() {
    let mut lab = Lab::new(1);
    let status = lose(&mut lab, 7);
    assert_eq!(
        listed(&status),
        [("out", Cause::Unexplained, Account::Wire, 7, Some(994))]
    );
    assert_eq!(dropped(&status), [Some(7), Some(0)]);
    assert_eq!((agrees(&status), status.summary.as_str()), (DIFFER, "Dropping"));
    assert_eq!(ledgers(&status).differing, 1);
    // Ten seconds later it is listed still, and no longer a disagreement.
    let status = &lab.ticks(10)[&0];
    assert_eq!(listed(status).len(), 1);
    assert_eq!((agrees(status), ledgers(status).differing), (AGREE, 0));
}

#[test]
fn inbound_losses_are_booked_too() {
    let mut lab = Lab::new(1);
    lab.both_handed(0, G, 20);
    lab.counts_copies(0, 4);
    assert_eq!(dropped(&lab.tick()[&0]), [Some(0), Some(0)]);
    let status = &lab.tick()[&0];
    assert_eq!(dropped(status), [Some(0), Some(4)]);
    assert_eq!(
        listed(status),
        [("in", Cause::Unexplained, Account::Switch, 4, Some(568))]
    );
    assert_eq!(agrees(status), DIFFER);
}

#[test]
fn the_queue_explains_what_its_socket_dropped() {
    let mut lab = Lab::unread(1);
    lab.queue_drops.insert(101, 1000);
    lab.ticks(2);
    lab.queue_drops.insert(101, 1005);
    let status = lose(&mut lab, 7);
    let expected = [
        ("out", Cause::QueueOverflow, Account::Wire, 5, Some(710)),
        ("out", Cause::Unexplained, Account::Wire, 2, Some(284)),
    ];
    assert_eq!(listed(&status), expected);
    assert_eq!((dropped(&status), ledgers(&status).differing), ([Some(7), Some(0)], 2));
}

/// What the socket of another interface dropped, or this one long ago, says nothing.
#[test]
fn another_queue_and_old_drops_explain_nothing() {
    let mut lab = Lab::unread(2);
    lab.queue_drops = BTreeMap::from([(101, 0), (102, 0)]);
    lab.ticks(2);
    lab.queue_drops.insert(101, 50);
    lab.ticks(4);
    lab.queue_drops.insert(102, 9);
    let status = lose(&mut lab, 7);
    assert_eq!(
        listed(&status),
        [("out", Cause::Unexplained, Account::Wire, 7, Some(994))]
    );
}

/// The rule drops packets of both Pods: it explains to each what that one sent to the rule's group, and no more.
#[test]
fn a_rule_explains_only_what_was_sent_to_its_groups() {
    let mut lab = Lab::unread(2);
    lab.drop_rule(3, &[0, 1], "239.9.9.9");
    lab.ticks(2);
    lab.sends(1, "239.9.9.9", 100);
    lab.rule_drops.insert(3, 102);
    lab.sends(0, "239.9.9.9", 2);
    lab.sends(0, G, 5);
    let pods = lab.ticks(2);
    let expected = [
        ("out", Cause::RuleDrop, Account::Wire, 2, Some(284)),
        ("out", Cause::Unexplained, Account::Wire, 5, Some(710)),
    ];
    assert_eq!(listed(&pods[&0]), expected);
    let expected = [("out", Cause::RuleDrop, Account::Wire, 100, Some(14_200))];
    assert_eq!(listed(&pods[&1]), expected);
    assert_eq!([dropped(&pods[&0])[0], dropped(&pods[&1])[0]], [Some(7), Some(100)]);
}

#[test]
fn a_rule_for_others_or_one_that_dropped_nothing_explains_nothing() {
    let mut lab = Lab::unread(2);
    lab.drop_rule(3, &[1], G);
    lab.drop_rule(4, &[0], G);
    lab.ticks(2);
    lab.rule_drops.insert(3, 7);
    let status = lose(&mut lab, 7);
    assert_eq!(
        listed(&status),
        [("out", Cause::Unexplained, Account::Wire, 7, Some(994))]
    );
}

/// A steady denied stream beside an allowed one: the last of it is hidden by the lag until it is quiet, and is the rule's
/// all the same.
#[test]
fn a_rule_still_explains_what_lag_had_hidden() {
    let mut lab = Lab::unread(1);
    lab.drop_rule(3, &[0], "239.9.9.9");
    lab.ticks(2);
    let mut drops = 0;
    for second in 0..40 {
        if second < 20 {
            lab.sends(0, "239.9.9.9", 10);
            drops += 10;
            lab.rule_drops.insert(3, drops);
        }
        // The switch is behind: what is sent now is counted by the next tick.
        if second > 0 {
            lab.counts_sent(0, 50);
        }
        lab.sends(0, G, 50);
        let late = lab.now + SignedDuration::from_millis(900);
        let series = lab.ports[0].outbound.groups.iter_mut();
        series.for_each(|series| series.last_seen = Some(late));
        lab.tick();
    }
    lab.counts_sent(0, 50);
    let status = &lab.ticks(4)[&0];
    assert_eq!(
        listed(status),
        [("out", Cause::RuleDrop, Account::Wire, 200, Some(28_400))]
    );
    assert_eq!(dropped(status), [Some(200), Some(0)]);
}

/// A Pod with two addresses has two flows and meets a rule on both: nothing counts twice.
#[test]
fn two_addresses_are_one_pod() {
    let mut lab = Lab::unread(1);
    let other = ip("10.20.0.1");
    lab.drop_rule(3, &[0], "239.9.9.9");
    lab.rules[0].sources.push(Prefix {
        address: other,
        bits: 32,
    });
    let tick = |lab: &mut Lab, dropped| {
        lab.rule_drops.insert(3, dropped);
        lab.now += SignedDuration::from_secs(1);
        let mut snapshot = lab.snapshot();
        snapshot.switch_ports.get_mut(&1).unwrap().addresses.push(other);
        if let SwitchReading::Read(account) = &mut snapshot.switch {
            let outbound = account.switch.outbound.as_mut().unwrap();
            let first = outbound[&address(0)];
            let second = FlowCount {
                packets: 2 * first.packets,
                bytes: 2 * first.bytes,
                ..first
            };
            outbound.insert(other, second);
        }
        lab.ledger.tick(&snapshot).pods.remove(0).status
    };
    tick(&mut lab, 0);
    tick(&mut lab, 0);
    lab.sends(0, "239.9.9.9", 4);
    lab.sends(0, G, 33);
    lab.counts_sent(0, 10);
    tick(&mut lab, 4);
    let status = tick(&mut lab, 4);
    let expected = [
        ("out", Cause::RuleDrop, Account::Wire, 4, Some(568)),
        ("out", Cause::Unexplained, Account::Wire, 3, Some(426)),
    ];
    assert_eq!((listed(&status), dropped(&status)[0]), (expected.to_vec(), Some(7)));
}

/// The switch was only late: the difference goes, and with it what was listed. What was booked stays.
#[test]
fn a_difference_that_heals_goes_away() {
    let mut lab = Lab::new(1);
    let status = lose(&mut lab, 7);
    assert_eq!(dropped(&status), [Some(7), Some(0)]);
    lab.counts_sent(0, 7);
    let status = &lab.ticks(2)[&0];
    assert!(listed(status).is_empty(), "{:?}", listed(status));
    assert_eq!((agrees(status), dropped(status)), (AGREE, [Some(7), Some(0)]));
}

#[test]
fn bytes_alone_differ_too() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 5);
    lab.outbound.get_mut(&0).unwrap().bytes += 20;
    let status = &lab.ticks(2)[&0];
    assert_eq!(
        listed(status),
        [("out", Cause::Unexplained, Account::Switch, 0, Some(20))]
    );
    assert_eq!(dropped(status), [Some(0), Some(0)]);
}
