//! The bed while agent, switch, database, Pods and groups change: what real counters do then.
//!
//! Needs root and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr};

use mcstat_bed::{
    Bed,
    pipeline::{Verdict, tables::Table},
    traffic::Count,
};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const TEN: Option<Count> = Some(Count::new(10, 1420));

fn send(bed: &Bed, pod: &str, count: u64) {
    let sender = bed.pod(pod).unwrap().send(IpAddr::V4(GROUP), count, 200, 100);
    assert_eq!(sender.wait().unwrap(), count);
}

/// J1: the switch counts a sender's own copy and does not send it. J3: an agent's restart keeps the counters.
#[test]
fn own_copies_are_counted_and_a_new_cookie_keeps_counters() {
    let bed = Bed::up(&[("mkt", "both"), ("mkt", "rec")]).unwrap();
    let pipeline = bed.pipeline();
    pipeline.set_group(GROUP, &["both", "rec"]).unwrap();
    let receivers = ["both", "rec"].map(|pod| bed.pod(pod).unwrap().receive(&[GROUP.into()]).unwrap());
    send(&bed, "both", 10);
    let read = || {
        [
            pipeline.outbound("both"),
            pipeline.inbound("both"),
            pipeline.inbound("rec"),
        ]
        .map(Result::unwrap)
    };
    bed.eventually("10 packets in three flows", || Ok(read() == [TEN; 3]))
        .unwrap();
    let got = receivers.map(|receiver| receiver.finish().unwrap()[&GROUP.into()].packets);
    assert_eq!(
        got,
        [0, 10],
        "the sender's own socket gets none: the switch gives nothing back"
    );

    pipeline.re_add_pod_flows(2).unwrap();
    assert_eq!(read(), [TEN; 3]);
    let cookies = |priority: &str| -> Vec<u64> {
        let flows = pipeline.dump(Table::MulticastEgressPodMetric).unwrap().into_iter();
        flows
            .filter(|flow| flow.matches.starts_with(priority))
            .map(|flow| flow.cookie)
            .collect()
    };
    assert_eq!(cookies("priority=200,"), [0x2_0500_0000_0000; 2]);
    // The whole agent, with everything it installs.
    pipeline.install(3).unwrap();
    assert_eq!(read(), [TEN; 3]);
    assert_eq!(cookies("priority="), [0x3_0500_0000_0000; 4]);
    send(&bed, "both", 10);
    let twenty = Some(Count::new(20, 2840));
    bed.eventually("10 more", || Ok(read() == [twenty; 3])).unwrap();
    pipeline.reset_pod_flows(4).unwrap();
    assert_eq!(read(), [Some(Count::default()); 3]);
}

/// A restarted switch has no flows until the agent has installed them again; the bed still knows groups and rules.
#[test]
fn switch_and_database_restart() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    let pipeline = bed.pipeline();
    pipeline.set_group(GROUP, &["rec"]).unwrap();
    pipeline
        .add_egress_rule(5, &["feed"], "239.9.9.9/32", Verdict::Drop)
        .unwrap();
    let receiver = bed.pod("rec").unwrap().receive(&[GROUP.into()]).unwrap();
    send(&bed, "feed", 10);
    bed.eventually("10 packets", || Ok(pipeline.inbound("rec")? == TEN))
        .unwrap();

    bed.ovs.restart_vswitchd().unwrap();
    assert_eq!(pipeline.dump(Table::MulticastIngressPodMetric).unwrap(), []);
    send(&bed, "feed", 10);
    pipeline.install(2).unwrap();
    assert_eq!(pipeline.inbound("rec").unwrap(), Some(Count::default()));
    send(&bed, "feed", 10);
    bed.eventually("10 packets again", || Ok(pipeline.inbound("rec")? == TEN))
        .unwrap();
    assert_eq!(pipeline.rule(5).unwrap(), Some(Count::default()));

    bed.ovs.restart_ovsdb().unwrap();
    send(&bed, "feed", 10);
    let twenty = Some(Count::new(20, 2840));
    bed.eventually("20 packets", || Ok(pipeline.inbound("rec")? == twenty))
        .unwrap();
    assert_eq!(
        receiver.finish().unwrap()[&GROUP.into()].packets,
        30,
        "all but those of the gap"
    );
    // The names of the tables are in the database, and the switch has them again.
    let names = bed.ovs.vsctl("--columns=name --no-headings list Flow_Table").unwrap();
    assert!(names.contains("MulticastEgressPodMetric"), "{names}");
}

/// A Pod that is made anew gets address and port number again, and counters from 0.
#[test]
fn pods_come_and_go() {
    let mut bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    send(&bed, "feed", 10);
    bed.eventually("10 packets", || Ok(bed.pipeline().inbound("rec")? == TEN))
        .unwrap();
    let first = bed.pod("rec").unwrap();
    let (ofport, ipv4, container) = (first.ofport, first.ipv4, first.container.clone());
    bed.remove_pod("rec").unwrap();
    assert!(!bed.node.ip("-o link").unwrap().contains("rec-"));
    send(&bed, "feed", 10);
    bed.add_pod("mkt", "rec").unwrap();
    let second = bed.pod("rec").unwrap();
    assert_eq!((second.ofport, second.ipv4), (ofport, ipv4));
    assert_ne!(second.container, container);
    assert_eq!(bed.pipeline().inbound("rec").unwrap(), Some(Count::default()));
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    let receiver = bed.pod("rec").unwrap().receive(&[GROUP.into()]).unwrap();
    send(&bed, "feed", 10);
    bed.eventually(
        "10 packets to the new Pod",
        || Ok(bed.pipeline().inbound("rec")? == TEN),
    )
    .unwrap();
    assert_eq!(receiver.finish().unwrap()[&GROUP.into()].packets, 10);
    // Nobody's any more: the group's packets end at the gateway.
    bed.pipeline().remove_group(GROUP).unwrap();
    send(&bed, "feed", 10);
    let sent = Some(Count::new(40, 5680));
    bed.eventually("40 packets out", || Ok(bed.pipeline().outbound("feed")? == sent))
        .unwrap();
    assert_eq!(bed.pipeline().inbound("rec").unwrap(), TEN);
}
