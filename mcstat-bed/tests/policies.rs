//! Rules on the bed: Antrea's own acceptance numbers (its e2e test of multicast statistics), by `ovs-ofctl` alone.
//!
//! Needs root and Open vSwitch. 10 packets of 100 bytes to each group, frames of 142 bytes.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
};

use mcstat_bed::{
    Bed,
    pipeline::{Pipeline, Verdict, query::Query},
    traffic::Count,
};

const fn group(third: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(225, 20, third, last)
}

/// Packets of 142 bytes.
fn frames(packets: u64) -> Option<Count> {
    Some(Count::new(packets, packets * 142))
}

/// 10 packets to each group from each sender, one process's worth of threads each, as Antrea's test does it.
fn send(bed: &Bed, senders: &[&str], groups: &[Ipv4Addr]) {
    let plans = senders
        .iter()
        .flat_map(|sender| groups.iter().map(move |group| (sender, group)));
    let running: Vec<_> = plans
        .map(|(sender, group)| bed.pod(sender).unwrap().send(IpAddr::V4(*group), 10, 50, 100))
        .collect();
    for sender in running {
        assert_eq!(sender.wait().unwrap(), 10);
    }
}

/// A Pod as (inbound, outbound) packets.
fn holds(pipeline: &Pipeline<'_>, expected: &[(&str, u64, u64)]) -> bool {
    let same = |(pod, inbound, outbound): &(&str, u64, u64)| {
        pipeline.inbound(pod).unwrap() == frames(*inbound) && pipeline.outbound(pod).unwrap() == frames(*outbound)
    };
    expected.iter().all(same)
}

/// A1: an allowed and a denied group, no receivers.
#[test]
fn a_data_rule_counts_what_it_allows_and_drops() {
    let bed = Bed::up(&[("e2e", "test1-sender-1")]).unwrap();
    let pipeline = bed.pipeline();
    let pods = ["test1-sender-1"];
    pipeline
        .add_egress_rule(1, &pods, "225.20.2.3/32", Verdict::Allow)
        .unwrap();
    pipeline
        .add_egress_rule(2, &pods, "225.20.2.2/32", Verdict::Drop)
        .unwrap();
    send(&bed, &pods, &[group(2, 2), group(2, 3)]);
    let expected = [(pods[0], 0, 10)];
    bed.eventually("A1", || {
        let rules = [pipeline.rule(1)?, pipeline.rule(2)?];
        Ok(rules == [frames(10); 2] && holds(&pipeline, &expected))
    })
    .unwrap();
    // A rule that is gone drops nothing, and its counter is gone with it.
    pipeline.remove_rule(2).unwrap();
    assert!(pipeline.rule(2).is_err());
    send(&bed, &pods, &[group(2, 2)]);
    bed.eventually("10 more", || Ok(holds(&pipeline, &[(pods[0], 0, 20)])))
        .unwrap();
    assert_eq!(pipeline.rule(1).unwrap(), frames(10));
}

/// A3, both nodes' Pods on one: membership is what the policies on reports leave, here said by the test.
#[test]
fn mixed_senders_receivers_and_rules_give_the_table_of_antrea() {
    let (senders, receivers) = (
        ["test3-sender-1", "test3-sender-2"],
        ["test3-receiver-1", "test3-receiver-2"],
    );
    let pods = [senders, receivers].concat();
    let pods: Vec<_> = pods.iter().map(|pod| ("e2e", *pod)).collect();
    let bed = Bed::up(&pods).unwrap();
    let pipeline = bed.pipeline();
    let (two, three) = (group(1, 2), group(1, 3));
    pipeline
        .add_egress_rule(1, &senders[..1], "225.20.1.3/32", Verdict::Allow)
        .unwrap();
    pipeline
        .add_egress_rule(2, &senders[..1], "225.20.1.2/32", Verdict::Drop)
        .unwrap();
    pipeline.add_query_rule(3, &receivers[..1], Verdict::Allow).unwrap();
    pipeline.set_group(two, &receivers).unwrap();
    pipeline.set_group(three, &receivers[1..]).unwrap();
    let joined = receivers.map(|pod| bed.pod(pod).unwrap().receive(&[two.into(), three.into()]).unwrap());
    pipeline.query(Query::V3(10)).unwrap();
    send(&bed, &senders, &[two, three]);
    let expected = [
        (senders[0], 0, 10),
        (senders[1], 0, 20),
        (receivers[0], 10, 0),
        (receivers[1], 30, 0),
    ];
    bed.eventually("A3", || {
        let rules = [pipeline.rule(1)?, pipeline.rule(2)?];
        Ok(rules == [frames(10); 2] && holds(&pipeline, &expected))
    })
    .unwrap();
    assert_eq!(
        pipeline.rule(3).unwrap(),
        Some(Count::new(1, 46)),
        "the query at the first receiver"
    );
    // By group, at the sockets: .2 from sender-2, .3 from both.
    let got = joined.map(|receiver| receiver.finish().unwrap());
    let payload = |packets: u64| Count::new(packets, packets * 100);
    assert_eq!([got[0][&two.into()], got[0][&three.into()]], [payload(10), payload(0)]);
    assert_eq!([got[1][&two.into()], got[1][&three.into()]], [payload(10), payload(20)]);
}

/// A rule at the receiver drops before its counter, and counts what it dropped.
#[test]
fn an_ingress_rule_drops_before_the_inbound_counter() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec-0"), ("mkt", "rec-1")]).unwrap();
    let pipeline = bed.pipeline();
    let address = group(4, 1);
    pipeline.set_group(address, &["rec-0", "rec-1"]).unwrap();
    pipeline
        .add_ingress_rule(7, &["rec-0"], "225.20.4.0/24", Verdict::Drop)
        .unwrap();
    let receivers = ["rec-0", "rec-1"].map(|pod| bed.pod(pod).unwrap().receive(&[address.into()]).unwrap());
    send(&bed, &["feed"], &[address]);
    let expected = [("feed", 0, 10), ("rec-0", 0, 0), ("rec-1", 10, 0)];
    bed.eventually("one of two receivers", || {
        Ok(pipeline.rule(7)? == frames(10) && holds(&pipeline, &expected))
    })
    .unwrap();
    let got = receivers.map(|receiver| receiver.finish().unwrap()[&address.into()].packets);
    assert_eq!(got, [0, 10]);
}

/// Rules hold in the order of their adding, as priorities do.
#[test]
fn the_first_rule_that_matches_holds() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "other")]).unwrap();
    let pipeline = bed.pipeline();
    let pods = ["feed", "other"];
    pipeline
        .add_egress_rule(1, &pods, "225.20.5.1/32", Verdict::Allow)
        .unwrap();
    pipeline
        .add_egress_rule(2, &pods, "225.0.0.0/8", Verdict::Drop)
        .unwrap();
    thread::scope(|scope| {
        scope.spawn(|| send(&bed, &["feed"], &[group(5, 1), group(5, 2)]));
        scope.spawn(|| send(&bed, &["other"], &[group(5, 1)]));
    });
    bed.eventually("20 allowed, 10 dropped", || {
        Ok([pipeline.rule(1)?, pipeline.rule(2)?] == [frames(20), frames(10)])
    })
    .unwrap();
    assert!(holds(&pipeline, &[("feed", 0, 10), ("other", 0, 10)]));
}
