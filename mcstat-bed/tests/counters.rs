//! The bed checked by itself: what the switch's flows count, read by `ovs-ofctl`, is what was sent and received.
//!
//! Needs root and Open vSwitch. The frame sizes are those of Ethernet, IPv4 and UDP: 42 bytes around the payload.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr};

use mcstat_bed::{
    Bed, Options,
    pipeline::{query::Query, tables::Table},
    traffic::Count,
};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);

/// Sends to one member and checks both flows and the member's socket: `frames` for the switch, `payload` for the socket.
fn exact(bed: &Bed, size: u32, count: u64, pps: u32, frames: Count) {
    let pipeline = bed.pipeline();
    let before = [pipeline.outbound("feed").unwrap(), pipeline.inbound("rec").unwrap()].map(Option::unwrap);
    let receiver = bed.pod("rec").unwrap().receive(&[IpAddr::V4(GROUP)]).unwrap();
    let sent = bed
        .pod("feed")
        .unwrap()
        .send(IpAddr::V4(GROUP), count, pps, size)
        .wait()
        .unwrap();
    assert_eq!(sent, count);
    let since = |count: Count, before: Count| Count::new(count.packets - before.packets, count.bytes - before.bytes);
    let read = || {
        let now = [pipeline.outbound("feed").unwrap(), pipeline.inbound("rec").unwrap()].map(Option::unwrap);
        [since(now[0], before[0]), since(now[1], before[1])]
    };
    bed.eventually(&format!("{frames:?} in both flows"), || Ok(read() == [frames; 2]))
        .unwrap();
    let got = receiver.finish().unwrap()[&IpAddr::V4(GROUP)];
    assert_eq!(got, Count::new(count, count * u64::from(size)));
    bed.ovs.revalidate().unwrap();
    assert_eq!(read(), [frames; 2], "and no more after that");
}

#[test]
fn flows_count_what_was_sent_and_received() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec"), ("mkt", "idle")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    exact(&bed, 100, 1000, 1000, Count::new(1000, 142_000));
    exact(&bed, 1400, 500, 500, Count::new(500, 721_000));
    // 4,000 bytes are three fragments: 1,514 + 1,514 + 1,082 bytes.
    exact(&bed, 4000, 100, 100, Count::new(300, 411_000));
    assert_eq!(bed.pipeline().inbound("idle").unwrap(), Some(Count::default()));
    assert_eq!(bed.pipeline().inbound("feed").unwrap(), Some(Count::default()));
    assert_eq!(bed.ovs.queue_drops().unwrap(), 0);
}

/// Joins and leaves are frames of the Pod, and none of them is in the two flows that count it.
#[test]
fn igmp_is_punted_and_queries_are_delivered_uncounted() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    let pipeline = bed.pipeline();
    let punted = || {
        let flows = pipeline.dump(Table::MulticastRouting).unwrap();
        let punt = flows
            .into_iter()
            .find(|flow| flow.matches == "priority=210,ip,reg0=0x3/0xf,nw_proto=2");
        punt.unwrap_or_else(|| panic!("{:?}", pipeline.dump(Table::MulticastRouting)))
            .count
    };
    let receiver = bed.pod("rec").unwrap().receive(&[IpAddr::V4(GROUP)]).unwrap();
    // An IGMPv3 report with one record and Router Alert: 14 + 24 + 16 bytes, sent at least once.
    bed.eventually("a report at the switch", || Ok(punted().packets > 0))
        .unwrap();
    let reports = punted();
    assert_eq!(reports.bytes, reports.packets * 54);
    receiver.finish().unwrap();
    bed.eventually("the report of leaving", || Ok(punted().packets > reports.packets))
        .unwrap();

    for query in [Query::V1, Query::V2, Query::V3(125)] {
        pipeline.query(query).unwrap();
    }
    let delivered = || {
        let flows = pipeline.dump(Table::MulticastIngressPodMetric).unwrap();
        let igmp = flows
            .into_iter()
            .find(|flow| flow.matches == "priority=210,ip,nw_proto=2");
        igmp.unwrap().count
    };
    // Three queries to two Pods each: 42 + 42 + 46 bytes.
    bed.eventually("six queries", || Ok(delivered() == Count::new(6, 260)))
        .unwrap();
    for pod in ["feed", "rec"] {
        assert_eq!(pipeline.outbound(pod).unwrap(), Some(Count::default()));
        assert_eq!(pipeline.inbound(pod).unwrap(), Some(Count::default()));
    }
}

/// As with Antrea's gate AntreaPolicy off: no tables of rules, and buckets that pass by the inbound counter.
#[test]
fn without_policies_inbound_stays_zero() {
    let options = Options {
        policies: false,
        ..Options::default()
    };
    let bed = Bed::with(options, &[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    let pipeline = bed.pipeline();
    pipeline.set_group(GROUP, &["rec"]).unwrap();
    let receiver = bed.pod("rec").unwrap().receive(&[IpAddr::V4(GROUP)]).unwrap();
    bed.pod("feed")
        .unwrap()
        .send(IpAddr::V4(GROUP), 50, 500, 100)
        .wait()
        .unwrap();
    let sent = Some(Count::new(50, 7100));
    bed.eventually("50 packets out", || Ok(pipeline.outbound("feed")? == sent))
        .unwrap();
    assert_eq!(receiver.finish().unwrap()[&IpAddr::V4(GROUP)], Count::new(50, 5000));
    bed.ovs.revalidate().unwrap();
    assert_eq!(pipeline.inbound("rec").unwrap(), Some(Count::default()));
    assert_eq!(pipeline.table(Table::MulticastEgressMetric), None);
    assert!(
        pipeline
            .add_egress_rule(1, &["feed"], "239.0.0.0/8", mcstat_bed::pipeline::Verdict::Drop)
            .is_err()
    );
}

/// What the spoof guard drops reaches no counter, and nobody.
#[test]
fn a_forged_source_is_dropped_before_the_counters() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    let pipeline = bed.pipeline();
    pipeline.set_group(GROUP, &["rec"]).unwrap();
    let receiver = bed.pod("rec").unwrap().receive(&[IpAddr::V4(GROUP)]).unwrap();
    let plan = mcstat_bed::traffic::send::Plan {
        source: Some(Ipv4Addr::new(10, 10, 0, 77)),
        ..mcstat_bed::traffic::send::Plan::new(IpAddr::V4(GROUP), 20, 500, 100)
    };
    let feed = bed.pod("feed").unwrap();
    assert_eq!(feed.send_as(plan).wait().unwrap(), 20);
    assert_eq!(feed.send(IpAddr::V4(GROUP), 10, 500, 100).wait().unwrap(), 10);
    let guarded = || {
        let flows = pipeline.dump(Table::SpoofGuard).unwrap();
        flows
            .into_iter()
            .find(|flow| flow.matches == "priority=0")
            .unwrap()
            .count
    };
    bed.eventually("20 forged packets at the guard", || {
        Ok(guarded() == Count::new(20, 2840))
    })
    .unwrap();
    let honest = Some(Count::new(10, 1420));
    bed.eventually("10 honest ones", || Ok(pipeline.outbound("feed")? == honest))
        .unwrap();
    assert_eq!(pipeline.inbound("rec").unwrap(), honest);
    assert_eq!(receiver.finish().unwrap()[&IpAddr::V4(GROUP)], Count::new(10, 1000));
}

/// What an unpaced sender loses is lost in the kernel's queue before the switch, and in no other counter.
#[test]
fn an_overflow_is_seen_where_it_happens() {
    let bed = Bed::up(&[("mkt", "feed")]).unwrap();
    let sent = 20_000;
    // Nothing else is to be in the queue: no router solicitations, no MLD reports.
    let quiet = || Ok(std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1")?);
    bed.pod("feed").unwrap().netns.within(quiet).unwrap();
    // Stopped, the switch takes nothing off its queue: it overflows on any machine.
    let switch = bed.ovs.vswitchd_pid().unwrap();
    mcstat_bed::command::sh(&format!("kill -STOP {switch}")).unwrap();
    let sender = bed.pod("feed").unwrap().send(IpAddr::V4(GROUP), sent, 0, 1300);
    let result = sender.wait();
    mcstat_bed::command::sh(&format!("kill -CONT {switch}")).unwrap();
    assert_eq!(result.unwrap(), sent);
    let counted = || bed.pipeline().outbound("feed").unwrap().unwrap().packets;
    let drops = || bed.ovs.queue_drops().unwrap();
    bed.eventually("flow and drops together make what was sent", || {
        Ok(counted() + drops() == sent)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {} and {}", counted(), drops()));
    assert!(drops() > 0);
}
