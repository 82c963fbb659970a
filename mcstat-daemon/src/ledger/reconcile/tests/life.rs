//! Baselines, restarts of the switch and of the agent, absence.

use super::*;

const G: &str = "239.1.1.1";

fn anew(added: Timestamp) -> Flow {
    Flow {
        packets: 0,
        bytes: 0,
        added,
        cookie: ROUND_2,
    }
}

/// The first reading says nothing of what was before, the next one already does.
#[test]
fn the_first_reading_is_a_baseline() {
    let mut lab = Lab::unread(1);
    lab.counts_sent(0, 1000);
    lab.counts_copies(0, 50);
    lab.handed(0, G, 20);
    let status = &lab.tick()[&0];
    assert_eq!(agrees(status), ("Unknown", "Baseline"));
    assert_eq!(dropped(status), [Some(0), Some(0)]);
    let status = &lab.ticks(3)[&0];
    assert_eq!((agrees(status), dropped(status)), (AGREE, [Some(0), Some(0)]));
    assert!(listed(status).is_empty());
    let outbound = ledgers(status).outbound.as_ref().unwrap();
    assert_eq!((outbound.wire.packets, outbound.switch.packets), (0, 0));
}

/// No flow survives vswitchd; antrea-agent adds them again after a while.
#[test]
fn a_restarted_switch_is_a_new_baseline() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 100);
    lab.sends(0, G, 4);
    assert_eq!(dropped(&lab.ticks(2)[&0]), [Some(4), Some(0)]);
    lab.away = true;
    lab.sends(0, G, 30);
    let status = &lab.ticks(3)[&0];
    assert_eq!(agrees(status), ("Unknown", "SwitchAway"));
    assert_eq!(dropped(status), [Some(4), Some(0)], "what was booked stays");
    (lab.away, lab.connection) = (false, 2);
    lab.outbound.clear();
    lab.inbound.clear();
    assert_eq!(agrees(&lab.ticks(2)[&0]), ("Unknown", "SwitchRestarted"), "no flow yet");
    lab.outbound.insert(0, anew(lab.now));
    lab.inbound.insert(0, anew(lab.now));
    lab.both_sent(0, G, 8);
    let status = &lab.tick()[&0];
    assert_eq!(agrees(status), ("Unknown", "SwitchRestarted"));
    // Of 142 on the veth the new flow has 8, and 4 were accounted for.
    let reset = ("out", Cause::FlowReset, Account::Wire, 130, Some(130 * FRAME));
    assert!(listed(status).contains(&reset), "{:?}", listed(status));
    assert_eq!(agrees(&lab.tick()[&0]), ("Unknown", "SwitchRestarted"));
    let status = &lab.tick()[&0];
    assert_ne!(agrees(status).0, "Unknown", "the second tick agrees");
    assert_eq!(dropped(status), [Some(4), Some(0)], "nothing from the gap");
    lab.sends(0, G, 2);
    assert_eq!(dropped(&lab.ticks(2)[&0]), [Some(6), Some(0)]);
}

/// Only the connection was lost: the flow lived on.
#[test]
fn a_switch_that_was_away_and_lived_on_is_named() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 100);
    lab.ticks(2);
    lab.away = true;
    lab.both_sent(0, G, 30);
    lab.sends(0, G, 5);
    lab.ticks(3);
    (lab.away, lab.connection) = (false, 2);
    let status = &lab.tick()[&0];
    assert_eq!(
        listed(status),
        [("out", Cause::SwitchAway, Account::Wire, 5, Some(710))]
    );
    assert_eq!(agrees(status), ("Unknown", "SwitchRestarted"));
    let status = &lab.ticks(10)[&0];
    assert_eq!((agrees(status), dropped(status)), (AGREE, [Some(0), Some(0)]));
}

/// One reading failed and the connection lives: what is missing afterwards is a loss as any other.
#[test]
fn a_missed_reading_on_one_connection_changes_nothing() {
    let mut lab = Lab::new(1);
    lab.away = true;
    lab.sends(0, G, 5);
    lab.tick();
    lab.away = false;
    let status = &lab.ticks(2)[&0];
    assert_eq!(dropped(status), [Some(5), Some(0)]);
}

#[test]
fn without_metric_tables_there_is_no_second_ledger() {
    let mut lab = Lab::unread(1);
    lab.has_metrics = false;
    lab.sends(0, G, 5);
    let status = &lab.ticks(3)[&0];
    assert_eq!(agrees(status), ("Unknown", "NoMetricTables"));
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|condition| condition.kind == "LedgersAgree").unwrap();
    assert_eq!(condition.message, "not available: no metric tables");
    assert_eq!(dropped(status), [None, None]);
    assert!(ledgers(status).inbound.is_none() && ledgers(status).outbound.is_none());
}

/// AntreaPolicy off: copies go past the counters. Outbound is compared all the same.
#[test]
fn without_ingress_metrics_inbound_is_unknown() {
    let mut lab = Lab::unread(1);
    lab.has_ingress = false;
    lab.ticks(2);
    lab.handed(0, G, 50);
    lab.both_sent(0, G, 9);
    lab.sends(0, G, 1);
    let status = &lab.ticks(2)[&0];
    assert_eq!(dropped(status), [Some(1), None]);
    assert!(ledgers(status).inbound.is_none());
    assert_eq!(agrees(&lab.ticks(10)[&0]), AGREE);
}

#[test]
fn ipv6_is_not_compared() {
    let mut lab = Lab::new(1);
    lab.sends(0, "ff15::1", 100);
    lab.handed(0, "ff15::1", 40);
    let status = &lab.ticks(3)[&0];
    assert_eq!((dropped(status), listed(status).len()), ([Some(0), Some(0)], 0));
    assert_eq!(agrees(status), AGREE);
}

/// The agent dies and another one takes over: no packet is lost from the account, none is booked twice.
#[test]
fn a_restarted_agent_loses_and_repeats_nothing() {
    let mut lab = Lab::new(2);
    lab.both_sent(0, G, 100);
    lab.sends(0, G, 4);
    lab.both_handed(1, G, 100);
    lab.counts_copies(1, 3);
    let booked = |pods: &BTreeMap<usize, Status>| [dropped(&pods[&0])[0], dropped(&pods[&1])[1]];
    assert_eq!(booked(&lab.ticks(2)), [Some(4), Some(3)]);
    lab.restart_agent();
    // Meanwhile.
    lab.both_sent(0, G, 50);
    lab.sends(0, G, 2);
    lab.both_handed(1, G, 50);
    lab.counts_copies(1, 1);
    lab.now += SignedDuration::from_secs(30);
    assert_eq!(booked(&lab.tick()), [Some(4), Some(3)], "at once, as it was");
    assert_eq!(booked(&lab.ticks(3)), [Some(6), Some(4)], "and what was lost meanwhile");
    assert_eq!(booked(&lab.ticks(20)), [Some(6), Some(4)]);
}

/// It may be restarted again before the switch is back: what was written down is written down again.
#[test]
fn books_survive_a_process_that_never_read_the_switch() {
    let mut lab = Lab::new(1);
    lab.sends(0, G, 4);
    lab.ticks(2);
    lab.away = true;
    lab.restart_agent();
    assert_eq!(dropped(&lab.ticks(2)[&0])[0], Some(4));
    lab.restart_agent();
    lab.ticks(2);
    lab.away = false;
    lab.sends(0, G, 2);
    assert_eq!(dropped(&lab.ticks(3)[&0])[0], Some(6));
}

/// While no agent ran, the flow was made anew: nothing is booked from the gap.
#[test]
fn a_flow_reset_while_no_agent_ran_books_nothing() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 100);
    lab.ticks(2);
    lab.restart_agent();
    lab.now += SignedDuration::from_secs(30);
    lab.outbound.insert(0, anew(lab.now));
    lab.both_sent(0, G, 5);
    let status = &lab.ticks(4)[&0];
    assert_eq!(dropped(status), [Some(0), Some(0)]);
    let reset = [("out", Cause::FlowReset, Account::Wire, 100, Some(14_200))];
    assert_eq!(listed(status), reset);
}

/// The same, and the new flow has come further than the old one ever was: its cookie tells.
#[test]
fn a_flow_made_anew_is_known_by_its_cookie_too() {
    let mut lab = Lab::new(1);
    lab.both_sent(0, G, 10);
    lab.ticks(2);
    lab.restart_agent();
    lab.outbound.insert(0, anew(lab.now + SignedDuration::from_secs(1)));
    lab.both_sent(0, G, 90);
    lab.now += SignedDuration::from_secs(600);
    let status = &lab.ticks(4)[&0];
    assert_eq!(dropped(status), [Some(0), Some(0)]);
    let reset = [("out", Cause::FlowReset, Account::Wire, 10, Some(1420))];
    assert_eq!(listed(status), reset);
}

/// While no agent ran, a member joined another group or sent to its own: what the switch counted for it is not known.
#[test]
fn what_cannot_be_known_of_the_time_without_agent_is_not_booked() {
    for joins in [true, false] {
        let mut lab = Lab::unread(1);
        lab.members(G, &[0]);
        lab.ticks(2);
        lab.both_handed(0, G, 10);
        lab.ticks(2);
        lab.restart_agent();
        if joins {
            lab.members("239.2.2.2", &[0]);
        } else {
            lab.both_sent(0, G, 6);
        }
        lab.counts_copies(0, 6);
        let status = &lab.ticks(5)[&0];
        assert_eq!(dropped(status), [Some(0), Some(0)], "joins: {joins}");
    }
}

/// A vanished interface keeps what was booked for its Pod.
#[test]
fn a_pod_keeps_what_a_vanished_interface_had_booked() {
    let mut lab = Lab::unread(2);
    lab.ports[1].pod = lab.ports[0].pod.clone();
    lab.ports[1].interface = "net1".to_owned();
    lab.ticks(2);
    lab.sends(0, G, 4);
    lab.sends(1, G, 3);
    assert_eq!(dropped(&lab.ticks(2)[&0])[0], Some(7));
    lab.ports.pop();
    assert_eq!(dropped(&lab.ticks(2)[&0])[0], Some(7));
}

/// Time jumps back: no number falls, and the accounts go on.
#[test]
fn time_may_jump_back() {
    let mut lab = Lab::new(1);
    lab.sends(0, G, 4);
    lab.ticks(2);
    lab.now -= SignedDuration::from_secs(30);
    // The switch's clock does not.
    let flows = lab.outbound.values_mut().chain(lab.inbound.values_mut());
    flows.for_each(|flow| flow.added -= SignedDuration::from_secs(30));
    lab.both_sent(0, G, 10);
    assert_eq!(dropped(&lab.tick()[&0])[0], Some(4));
    lab.sends(0, G, 1);
    assert_eq!(dropped(&lab.ticks(3)[&0])[0], Some(5));
}

#[test]
fn no_switch_and_no_port_are_told_apart() {
    let mut lab = Lab::unread(1);
    let mut snapshot = lab.snapshot();
    snapshot.switch_ports.clear();
    let summary = lab.ledger.tick(&snapshot);
    assert_eq!(agrees(&summary.pods[0].status), ("Unknown", "NotOnSwitch"));
    snapshot.switch = SwitchReading::None;
    let summary = lab.ledger.tick(&snapshot);
    assert_eq!(agrees(&summary.pods[0].status), ("Unknown", "NoSwitchLedger"));
    assert!(summary.pods[0].status.ledgers.is_none());
}

/// A switch that answers late leaves the tick its last account. What was off by it is not off twice.
#[test]
fn an_account_that_is_seen_twice_is_one_reading() {
    let mut lab = Lab::new(1);
    lab.sends(0, G, 5);
    assert_eq!(dropped(&lab.tick()[&0]), [Some(0), Some(0)], "off once");
    lab.late = true;
    assert_eq!(dropped(&lab.ticks(2)[&0]), [Some(0), Some(0)], "the same account");
    lab.late = false;
    // It was only late.
    lab.counts_sent(0, 5);
    let status = &lab.ticks(2)[&0];
    assert_eq!((agrees(status), dropped(status)), (AGREE, [Some(0), Some(0)]));
    lab.sends(0, G, 3);
    lab.tick();
    lab.late = true;
    lab.tick();
    lab.late = false;
    assert_eq!(dropped(&lab.tick()[&0]), [Some(3), Some(0)], "off twice");
}

/// What was booked of an interface stays its Pod's when the interface goes, over a restart of the agent too.
#[test]
fn drops_of_a_vanished_interface_stay() {
    let mut lab = Lab::new(2);
    lab.ports[1].pod = lab.ports[0].pod.clone();
    lab.ports[1].interface = "net1".to_owned();
    lab.ledger = new_ledger();
    lab.ticks(2);
    lab.sends(1, G, 7);
    assert_eq!(dropped(&lab.ticks(2)[&0]), [Some(7), Some(0)]);
    let (_, book) = lab.ledger.books().find(|(port, _)| *port == id(1)).unwrap();
    let gone = lab.ports.pop().unwrap();
    let before = lab.tick().remove(&0).unwrap();
    assert_eq!(dropped(&before), [Some(7), Some(0)]);
    let books = lab.ledger.books().collect();
    lab.ledger = new_ledger();
    lab.ledger.restore(books, &[(gone, book)]);
    let after = &lab.ticks(2)[&0];
    assert_eq!(dropped(after), [Some(7), Some(0)]);
    assert_eq!(after.start_time, before.start_time);
    assert_eq!(after.outbound.as_ref().unwrap().sent, 7);
}
