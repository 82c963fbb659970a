//! Two ledgers of the same packets: the agent's, read by `mcstat get`, and the switch's flows, read by `ovs-ofctl`. They
//! are equal, packet by packet and byte by byte, but for what they mean differently; that difference is exact, too.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod ledgers_lab;

use std::net::Ipv4Addr;

use agent_process::packets;
use ledgers_lab::{Agent, NONE, frames, receive, send};
use mcstat_bed::{
    Bed,
    pair::Pair,
    pipeline::{Verdict, query::Query},
    traffic::Count,
};

#[test]
fn plain_large_and_fragmented_traffic_is_the_same_in_both() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec"), ("mkt", "idle")]).unwrap();
    let agent = Agent::start(&bed);
    let group = Ipv4Addr::new(239, 1, 1, 1);
    bed.pipeline().set_group(group, &["rec"]).unwrap();
    let _receiver = receive(&bed, "rec", &[group]);
    let mut total = NONE;
    // Payload, datagrams, rate; frames. 4,000 bytes are three fragments: 1,514 + 1,514 + 1,082.
    for (size, count, pps, packets, bytes) in [
        (100, 1000, 1000, 1000, 142_000),
        (1400, 500, 500, 500, 721_000),
        (4000, 100, 100, 300, 411_000),
    ] {
        send(&bed, "feed", group, count, pps, size);
        total = Count::new(total.packets + packets, total.bytes + bytes);
        let (feed, rec) = ((NONE, total), (total, NONE));
        let idle = (NONE, NONE);
        agent.holds(
            &format!("{count} × {size} bytes"),
            &[("feed", feed, feed), ("rec", rec, rec), ("idle", idle, idle)],
        );
    }
}

/// A1 and A3 of Antrea's test of multicast statistics, on one node. What a rule drops is on the veth and in no Pod's flow.
#[test]
fn rules_are_the_difference_and_nothing_else() {
    let pods = [
        "test3-sender-1",
        "test3-sender-2",
        "test3-receiver-1",
        "test3-receiver-2",
    ];
    let bed = Bed::up(&pods.map(|pod| ("e2e", pod))).unwrap();
    let agent = Agent::start(&bed);
    let [first, second, one, other] = pods;
    let pipeline = bed.pipeline();
    let [denied, allowed] = [2, 3].map(|last| Ipv4Addr::new(225, 20, 1, last));
    pipeline
        .add_egress_rule(1, &[first], "225.20.1.3/32", Verdict::Allow)
        .unwrap();
    pipeline
        .add_egress_rule(2, &[first], "225.20.1.2/32", Verdict::Drop)
        .unwrap();
    pipeline.set_group(denied, &[one, other]).unwrap();
    pipeline.set_group(allowed, &[other]).unwrap();
    let _receivers = [one, other].map(|pod| receive(&bed, pod, &[denied, allowed]));
    pipeline.query(Query::V3(10)).unwrap();
    for sender in [first, second] {
        for group in [denied, allowed] {
            send(&bed, sender, group, 10, 50, 100);
        }
    }
    agent.holds(
        "A3",
        &[
            (first, (NONE, frames(20)), (NONE, frames(10))),
            (second, (NONE, frames(20)), (NONE, frames(20))),
            (one, (frames(10), NONE), (frames(10), NONE)),
            (other, (frames(30), NONE), (frames(30), NONE)),
        ],
    );
    assert_eq!([1, 2].map(|rule| pipeline.rule(rule).unwrap()), [Some(frames(10)); 2]);
    // Which the switch's flows of Pods do not say: which group it was.
    assert_eq!(agent.group(other, denied), Some(frames(10)));
    assert_eq!(agent.group(other, allowed), Some(frames(20)));
}

/// J1: a sender's own copies are counted by the switch and never on its veth. J2: asked by name or in a list, the numbers are
/// the same (a filter by source and group finds no flow in Antrea's). J3: another cookie changes neither.
#[test]
fn own_copies_are_the_switch_s_alone() {
    let bed = Bed::up(&[("mkt", "both"), ("mkt", "rec")]).unwrap();
    let agent = Agent::start(&bed);
    let group = Ipv4Addr::new(239, 1, 1, 1);
    bed.pipeline().set_group(group, &["both", "rec"]).unwrap();
    let _receivers = ["both", "rec"].map(|pod| receive(&bed, pod, &[group]));
    send(&bed, "both", group, 10, 100, 100);
    let ten = frames(10);
    let expected = [("both", (NONE, ten), (ten, ten)), ("rec", (ten, NONE), (ten, NONE))];
    agent.holds("10 packets", &expected);
    let list = agent.node.pods("mkt");
    let listed: Vec<_> = list
        .iter()
        .map(|pod| (&pod["metadata"]["name"], packets(pod)))
        .collect();
    assert_eq!(
        listed,
        [(&"both".into(), Some((10, 0))), (&"rec".into(), Some((0, 10)))]
    );
    bed.pipeline().install(2).unwrap();
    agent.holds("10 packets after an agent's restart", &expected);
}

/// Two nodes and a tunnel: the sender's node counts what was sent, once, and the other what came through.
#[test]
fn a_tunnel_changes_no_number() {
    let pair = Pair::up(&[("mkt", "feed"), ("mkt", "near")], &[("mkt", "far")]).unwrap();
    let (left, right) = (Agent::start(&pair.left), Agent::start(&pair.right));
    let group = Ipv4Addr::new(225, 1, 2, 3);
    let far = [pair.right.vtep().unwrap()];
    pair.left.pipeline().set_group_with(group, &["near"], &far).unwrap();
    pair.right.pipeline().set_group(group, &["far"]).unwrap();
    let _receivers = [
        receive(&pair.left, "near", &[group]),
        receive(&pair.right, "far", &[group]),
    ];
    send(&pair.left, "feed", group, 300, 300, 100);
    let all = frames(300);
    let (sent, got) = ((NONE, all), (all, NONE));
    right.holds("300 packets through the tunnel", &[("far", got, got)]);
    left.holds("300 packets sent", &[("feed", sent, sent), ("near", got, got)]);
}
