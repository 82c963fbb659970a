//! Every cause of a difference between the two ledgers, made for real: by a real switch with Antrea's pipeline, real senders
//! and receivers. The agent names it, and books it only if it is a drop.
//!
//! `GsoUpcall` needs the kernel datapath and is in `ovs_kernel_datapath`. Needs root, a kernel for the programs and Open
//! vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod ledgers_lab;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use ledgers_lab::{Agent, receive, send};
use mcstat_bed::{
    Bed,
    command::sh,
    ovs::BRIDGE,
    pipeline::{Verdict, tables::Table},
    traffic::send::Plan,
};
use serde_json::{Value, json};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 2);

/// What a Pod's ledgers say.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    /// Packets by direction and cause.
    causes: BTreeMap<(String, String), u64>,
    /// `LedgersAgree`: status and reason.
    agree: (String, String),
    /// INBOUND_DROPPED and `switchDropped`.
    dropped: [Option<u64>; 2],
    differing: u64,
}

fn told(pod: &Value) -> Told {
    let status = &pod["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = status["ledgers"]["discrepancies"].as_array().into_iter().flatten();
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut agree = conditions.filter(|condition| condition["type"] == "LedgersAgree");
    Told {
        causes: found
            .map(|found| {
                let key = (text(&found["direction"]), text(&found["cause"]));
                (key, found["packets"].as_u64().unwrap_or_default())
            })
            .collect(),
        agree: agree.next().map_or_else(Default::default, |condition| {
            (text(&condition["status"]), text(&condition["reason"]))
        }),
        dropped: [
            status["inbound"]["dropped"].as_u64(),
            status["outbound"]["switchDropped"].as_u64(),
        ],
        differing: status["ledgers"]["differing"].as_u64().unwrap_or_default(),
    }
}

fn causes(causes: &[(&str, &str, u64)]) -> BTreeMap<(String, String), u64> {
    let named = causes.iter();
    named
        .map(|(direction, cause, packets)| (((*direction).to_owned(), (*cause).to_owned()), *packets))
        .collect()
}

/// Asks until the Pod's ledgers are as wanted. Never longer than the bed waits for anything.
fn until(agent: &Agent<'_>, pod: &str, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
    let mut last = Told::default();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        last = agent.pod(pod).as_ref().map(told).unwrap_or_default();
        if wanted(&last) {
            println!("{what}: after {:.1} s", begun.elapsed().as_secs_f64());
            return last;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!(
        "never: {what}; {pod} tells {last:?}; the agent says: {}",
        agent.node.log()
    );
}

/// An agent on a bed whose Pods' ledgers agree.
fn agreeing(bed: &Bed) -> Agent<'_> {
    agreeing_with(bed, &Value::Null)
}

/// The same with more keys in its configuration.
fn agreeing_with<'bed>(bed: &'bed Bed, more: &Value) -> Agent<'bed> {
    let agent = Agent::with(bed, more);
    for pod in &bed.pods {
        until(&agent, &pod.name, "the ledgers agree", |told| told.agree.0 == "True");
    }
    agent
}

/// Nothing more comes: the same after the lag and two more ticks.
fn stays(agent: &Agent<'_>, pod: &str, expected: &Told) {
    thread::sleep(Duration::from_millis(1500));
    let now = told(&agent.pod(pod).unwrap());
    assert_eq!((&now.causes, now.dropped), (&expected.causes, expected.dropped));
}

fn true_agree() -> (String, String) {
    ("True".to_owned(), "Agree".to_owned())
}

/// A1: without a policy source what a rule denies is the switch's drop, and no disagreement. With the default tick.
#[test]
fn a_rule_drop() {
    let bed = Bed::up(&[("e2e", "test1-sender-1")]).unwrap();
    let agent = agreeing_with(&bed, &json!({"tick": "1s", "window": "10s"}));
    let [denied, allowed] = [2, 3].map(|last| Ipv4Addr::new(225, 20, 2, last));
    let (pod, pipeline) = ("test1-sender-1", bed.pipeline());
    pipeline
        .add_egress_rule(1, &[pod], "225.20.2.3/32", Verdict::Allow)
        .unwrap();
    pipeline
        .add_egress_rule(2, &[pod], "225.20.2.2/32", Verdict::Drop)
        .unwrap();
    for group in [denied, allowed] {
        send(&bed, pod, group, 10, 20, 100);
    }
    let told = until(&agent, pod, "switchDropped 10", |told| told.dropped[1] == Some(10));
    assert_eq!(told.causes, causes(&[("outbound", "RuleDrop", 10)]));
    assert_eq!((told.agree.clone(), told.differing), (true_agree(), 0));
    stays(&agent, pod, &told);
    let status = agent.pod(pod).unwrap()["status"].take();
    assert_eq!(
        (&status["outbound"]["sent"], &status["inbound"]["packets"]),
        (&20.into(), &0.into())
    );
}

#[test]
fn self_delivery() {
    let bed = Bed::up(&[("mkt", "both"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["both", "rec"]).unwrap();
    let _receivers = ["both", "rec"].map(|pod| receive(&bed, pod, &[GROUP]));
    let agent = agreeing(&bed);
    send(&bed, "both", GROUP, 100, 200, 100);
    let own = causes(&[("inbound", "SelfDelivery", 100)]);
    let told = until(&agent, "both", "100 own copies", |told| told.causes == own);
    assert_eq!((told.dropped, told.agree.clone()), ([Some(0); 2], true_agree()));
    stays(&agent, "both", &told);
    assert_eq!(
        until(&agent, "rec", "agrees", |told| told.agree.0 == "True").causes,
        causes(&[])
    );
}

/// The switch stands still for a moment: what its socket cannot hold is lost, and only the socket knows.
#[test]
fn a_queue_overflow() {
    let bed = Bed::up(&[("mkt", "feed")]).unwrap();
    let quiet = || Ok(std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1")?);
    bed.pod("feed").unwrap().netns.within(quiet).unwrap();
    let agent = agreeing(&bed);
    let switch = bed.ovs.vswitchd_pid().unwrap();
    sh(&format!("kill -STOP {switch}")).unwrap();
    let sent = bed.pod("feed").unwrap().send(GROUP.into(), 3000, 0, 1300).wait();
    sh(&format!("kill -CONT {switch}")).unwrap();
    assert_eq!(sent.unwrap(), 3000);
    let told = until(&agent, "feed", "packets lost before the switch", |told| {
        told.dropped[1].is_some_and(|dropped| dropped > 0)
    });
    let lost = bed.ovs.queue_drops().unwrap();
    let expected = causes(&[("outbound", "QueueOverflow", lost)]);
    let told = until(&agent, "feed", "all of them", |now| {
        now.causes == expected || now.causes != told.causes
    });
    assert_eq!(told.causes, expected);
    assert_eq!(told.dropped, [Some(0), Some(lost)]);
    assert_eq!(told.agree, ("False".to_owned(), "Differ".to_owned()));
    stays(&agent, "feed", &told);
    // It is history after the window: listed, and no disagreement any more.
    until(&agent, "feed", "agrees again", |told| told.agree == true_agree());
}

/// Added again, a flow's counters go on; added again with `reset_counts`, they begin at 0.
#[test]
fn a_flow_reset() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    let _receiver = receive(&bed, "rec", &[GROUP]);
    let agent = agreeing(&bed);
    send(&bed, "feed", GROUP, 100, 200, 100);
    bed.eventually("100 packets", || Ok(agent.switch("rec").0.packets == 100))
        .unwrap();
    bed.pipeline().re_add_pod_flows(2).unwrap();
    thread::sleep(Duration::from_millis(1500));
    for pod in ["feed", "rec"] {
        let told = until(&agent, pod, "agrees, counters kept", |told| told.agree.0 == "True");
        assert_eq!((told.causes, told.dropped), (causes(&[]), [Some(0); 2]), "{pod}");
    }
    bed.pipeline().reset_pod_flows(3).unwrap();
    for (pod, direction) in [("feed", "outbound"), ("rec", "inbound")] {
        let reset = causes(&[(direction, "FlowReset", 100)]);
        let told = until(&agent, pod, "the reset", |told| told.causes == reset);
        assert_eq!(told.dropped, [Some(0); 2]);
        until(&agent, pod, "agrees again", |told| told.agree == true_agree());
        stays(&agent, pod, &told);
    }
}

/// What a flow had not yet written down goes with it.
#[test]
fn unpushed_counts_of_a_flow_that_goes() {
    let bed = Bed::up(&[("mkt", "feed")]).unwrap();
    let agent = agreeing(&bed);
    // The first packet is written down at once, the others twice a second.
    send(&bed, "feed", GROUP, 100, 1000, 100);
    bed.pipeline().delete_pod_flows("feed").unwrap();
    let told = until(&agent, "feed", "no flow", |told| {
        told.agree.1 == "NoFlow" && !told.causes.is_empty()
    });
    let lost = told.causes[&("outbound".to_owned(), "UnpushedLost".to_owned())];
    assert!((1..100).contains(&lost), "{told:?}");
    assert_eq!((told.causes.len(), told.dropped), (1, [Some(0); 2]));
}

/// Members come and go in traffic: the switch credits its last half second to the new buckets.
#[test]
fn a_membership_change() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec"), ("mkt", "more")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec", "more"]).unwrap();
    let _receivers = ["rec", "more"].map(|pod| receive(&bed, pod, &[GROUP]));
    let agent = agreeing(&bed);
    let sender = bed.pod("feed").unwrap().send(GROUP.into(), 100_000, 500, 100);
    for members in [["rec"].as_slice(), &["rec", "more"], &["rec"], &["rec", "more"]] {
        thread::sleep(Duration::from_millis(2300));
        bed.pipeline().set_group(GROUP, members).unwrap();
    }
    thread::sleep(Duration::from_millis(2000));
    sender.stop().unwrap();
    let name = ("inbound".to_owned(), "MembershipChange".to_owned());
    let told = until(&agent, "more", "named", |told| told.causes.contains_key(&name));
    for pod in ["feed", "rec", "more"] {
        let told = until(&agent, pod, "agrees again", |told| told.agree == true_agree());
        assert_eq!(told.dropped, [Some(0); 2], "{pod}");
        assert!(told.causes.keys().all(|cause| *cause == name), "{pod}: {told:?}");
    }
    assert_eq!(told.causes.len(), 1);
}

/// Somebody takes the programs off the veths, in traffic, while the agent does not look: two seconds pass uncounted, more than
/// the switch's counters may be late.
#[test]
fn programs_not_attached() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    let _receiver = receive(&bed, "rec", &[GROUP]);
    let agent = agreeing(&bed);
    let sender = bed.pod("feed").unwrap().send(GROUP.into(), 100_000, 500, 100);
    thread::sleep(Duration::from_millis(1500));
    agent.node.pause();
    let links = bed.bpffs().join("mcstat/v1/links");
    for link in std::fs::read_dir(&links).unwrap() {
        sh(&format!(
            "bpftool link detach pinned {}",
            link.unwrap().path().display()
        ))
        .unwrap();
    }
    thread::sleep(Duration::from_secs(2));
    agent.node.resume();
    for (pod, direction) in [("feed", "outbound"), ("rec", "inbound")] {
        let name = (direction.to_owned(), "NotAttached".to_owned());
        let told = until(&agent, pod, "named", |told| told.causes.contains_key(&name));
        assert_eq!((told.causes.len(), told.dropped), (1, [Some(0); 2]), "{pod}: {told:?}");
    }
    sender.stop().unwrap();
    for pod in ["feed", "rec"] {
        let told = until(&agent, pod, "agrees again", |told| told.agree == true_agree());
        assert_eq!((told.causes.len(), told.dropped), (1, [Some(0); 2]), "{pod}: {told:?}");
    }
}

#[test]
fn a_foreign_source() {
    let bed = Bed::up(&[("mkt", "feed")]).unwrap();
    let agent = agreeing(&bed);
    let plan = Plan {
        source: Some(Ipv4Addr::new(10, 10, 0, 77)),
        ..Plan::new(IpAddr::V4(GROUP), 20, 100, 100)
    };
    assert_eq!(bed.pod("feed").unwrap().send_as(plan).wait().unwrap(), 20);
    send(&bed, "feed", GROUP, 10, 100, 100);
    // Antrea's guard drops them; the veth's account says so.
    let outbound = |pod: &Value| ["sent", "dropped", "admitted"].map(|key| pod["status"]["outbound"][key].as_u64());
    bed.eventually("30 sent, 20 dropped", || {
        Ok(agent.pod("feed").as_ref().map(outbound) == Some([Some(30), Some(20), Some(10)]))
    })
    .unwrap();
    let foreign = causes(&[("outbound", "ForeignSource", 20)]);
    let told = until(&agent, "feed", "20 foreign frames", |told| told.causes == foreign);
    assert_eq!((told.dropped, told.agree.clone()), ([Some(0); 2], true_agree()));
    stays(&agent, "feed", &told);
}

/// The switch does not answer for a while and lives on; what it lost meanwhile is listed and not booked.
#[test]
fn a_switch_that_was_away() {
    let bed = Bed::up(&[("mkt", "feed")]).unwrap();
    let quiet = || Ok(std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1")?);
    bed.pod("feed").unwrap().netns.within(quiet).unwrap();
    let agent = agreeing(&bed);
    let switch = bed.ovs.vswitchd_pid().unwrap();
    sh(&format!("kill -STOP {switch}")).unwrap();
    let told = until(&agent, "feed", "away", |told| told.agree.1 == "SwitchAway");
    assert_eq!(told.agree.0, "Unknown");
    let sent = bed.pod("feed").unwrap().send(GROUP.into(), 3000, 0, 1300).wait();
    sh(&format!("kill -CONT {switch}")).unwrap();
    assert_eq!(sent.unwrap(), 3000);
    let told = until(&agent, "feed", "agrees again", |told| told.agree == true_agree());
    let lost = bed.ovs.queue_drops().unwrap();
    assert!(lost > 0);
    assert_eq!(
        (told.causes.clone(), told.dropped),
        (causes(&[("outbound", "SwitchAway", lost)]), [Some(0); 2])
    );
    stays(&agent, "feed", &told);
}

/// Packets that somebody's flows drop, before and behind the counters: nothing speaks for them.
#[test]
fn unexplained() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    let _receiver = receive(&bed, "rec", &[GROUP]);
    let agent = agreeing(&bed);
    let rec = bed.pod("rec").unwrap().ofport;
    let table = |table| bed.pipeline().table(table).unwrap();
    let before = format!(
        "table={},priority=65000,ip,nw_dst={OTHER},actions=drop",
        table(Table::MulticastEgressRule)
    );
    let behind = format!(
        "table={},priority=65000,ip,reg1={rec},actions=drop",
        table(Table::MulticastOutput)
    );
    bed.ovs.ofctl(&["add-flow", BRIDGE, &before]).unwrap();
    send(&bed, "feed", OTHER, 40, 200, 100);
    send(&bed, "feed", GROUP, 30, 200, 100);
    let lost = causes(&[("outbound", "Unexplained", 40)]);
    let told = until(&agent, "feed", "40 lost", |told| told.causes == lost);
    assert_eq!(told.dropped, [Some(0), Some(40)]);
    assert_eq!(told.agree, ("False".to_owned(), "Differ".to_owned()));
    bed.ovs.ofctl(&["add-flow", BRIDGE, &behind]).unwrap();
    // Until then the datapath's flow of the packets before lets some of these through.
    bed.ovs.revalidate().unwrap();
    send(&bed, "feed", GROUP, 25, 200, 100);
    let lost = causes(&[("inbound", "Unexplained", 25)]);
    let told = until(&agent, "rec", "25 lost", |told| told.causes == lost);
    assert_eq!((told.dropped, told.differing), ([Some(25), Some(0)], 1));
    stays(&agent, "rec", &told);
}

/// Two minutes of ordinary traffic: plain, large, fragmented, to members and to nobody.
#[test]
fn two_healthy_minutes_name_nothing() {
    let bed = Bed::up(&[("mkt", "feed"), ("mkt", "more"), ("mkt", "rec")]).unwrap();
    bed.pipeline().set_group(GROUP, &["rec"]).unwrap();
    bed.pipeline().set_group(OTHER, &["rec", "feed"]).unwrap();
    let _receivers = [receive(&bed, "rec", &[GROUP, OTHER]), receive(&bed, "feed", &[OTHER])];
    let agent = agreeing_with(&bed, &json!({"tick": "1s", "window": "10s"}));
    let [feed, more] = ["feed", "more"].map(|pod| bed.pod(pod).unwrap());
    let senders = [
        feed.send(GROUP.into(), 100_000, 150, 100),
        feed.send(Ipv4Addr::new(239, 9, 9, 9).into(), 100_000, 20, 1400),
        more.send(OTHER.into(), 100_000, 50, 1400),
        more.send(GROUP.into(), 100_000, 10, 4000),
    ];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        thread::sleep(Duration::from_millis(500));
        for pod in ["feed", "more", "rec"] {
            let told = told(&agent.pod(pod).unwrap());
            let at = begun.elapsed();
            assert_eq!(
                (&told.causes, told.dropped),
                (&causes(&[]), [Some(0); 2]),
                "{pod} after {at:?}"
            );
            assert_eq!(told.agree, true_agree(), "{pod} after {at:?}");
        }
    }
    for sender in senders {
        sender.stop().unwrap();
    }
    assert_eq!(bed.ovs.queue_drops().unwrap(), 0);
}
