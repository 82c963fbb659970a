//! Open vSwitch's kernel datapath and the programs on the same veths: two ledgers of the same packets.
//!
//! Few machines that build mcstat have openvswitch.ko, so a plain run leaves these out and says so; `cargo xtask
//! kernel-matrix` runs them on Debian's kernels, which have it. Where they run and it is missing, they fail.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod pods_lab;
mod support;
mod switch_lab;

use std::{fs::File, net::UdpSocket, os::fd::AsRawFd, thread, time::Duration};

use agent_process::Node;
use mcstat::{agent::bpf::Kernel, ledger::snapshot::DirectionReading};
use nix::sched::{CloneFlags, setns};
use pods_lab::sh;
use serde_json::{Value, json};
use support::{Bpffs, enter, open, pod_port, reading, total, wire::eventually};
use switch_lab::{Switch, pipeline};

const GROUP: &str = "239.1.1.1";
/// Name, host side, address and port number; Pods b and c are in the group (see `pipeline`).
const PODS: [(&str, &str, &str, u32); 3] = [
    ("a", "hosta", "10.10.0.11", 10),
    ("b", "hostb", "10.10.0.12", 11),
    ("c", "hostc", "10.10.0.13", 12),
];
/// Where the pipeline begins, and its tables MulticastEgressPodMetric and MulticastIngressPodMetric from there.
const FIRST: u8 = 32;
const EGRESS_POD_METRIC: u8 = FIRST + 2;
const INGRESS_POD_METRIC: u8 = FIRST + 6;

/// Packets, bytes, segments.
type Counts = (u64, u64, u64);

fn switch(tag: &str) -> Switch {
    sh("modprobe openvswitch");
    let switch = Switch::with_datapath(tag, "system");
    switch.vsctl("set bridge br-int protocols=OpenFlow10,OpenFlow15");
    for (pod, host, address, number) in PODS {
        switch.lab.add_netns(pod);
        switch.lab.add_veth(pod, "eth0", host, &format!("{address}/24"));
        let more = format!("external_ids:ip-address={address} -- set interface {host} ofport_request={number}");
        switch.add_port(pod, host, pod, &more);
    }
    pipeline::name(&switch, FIRST);
    pipeline::program(&switch, FIRST);
    assert!(switch.appctl("dpif/show").starts_with("system@"), "the datapath");
    switch
}

/// In the node's namespace: the programs on all Pods' host sides.
fn attached(bpffs: &Bpffs) -> Kernel {
    let mut kernel = open(&bpffs.options());
    for (pod, host, address, _) in PODS {
        let entry = enter(&kernel, &pod_port(pod, host, support::ifindex(host), &[address]));
        kernel.programs.attach(&entry).unwrap();
    }
    kernel
}

/// Pod a sends `count` datagrams, one each 2 ms; `segment` makes each one skb for several of that size (UDP_SEGMENT).
fn send(switch: &Switch, count: usize, length: usize, segment: Option<u16>) {
    let netns = File::open(format!("/run/netns/{}a", switch.lab.prefix)).unwrap();
    let work = move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind((PODS[0].2, 0)).unwrap();
        socket.set_multicast_ttl_v4(8).unwrap();
        socket.set_multicast_loop_v4(false).unwrap();
        if let Some(segment) = segment {
            let segment = libc::c_int::from(segment);
            // SAFETY: a live integer of the size named.
            let set = unsafe {
                let value = (&raw const segment).cast();
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, 4)
            };
            assert_eq!(set, 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
        }
        let payload = vec![0x5a; length];
        for _ in 0..count {
            assert_eq!(socket.send_to(&payload, (GROUP, 5001)).unwrap(), length);
            thread::sleep(Duration::from_millis(2));
        }
    };
    thread::spawn(work).join().unwrap();
}

/// Packets and bytes of the one flow of `table` that matches `field`, as the switch counts them.
fn flow(switch: &Switch, table: u8, field: &str) -> (u64, u64) {
    let text = switch.ofctl("dump-flows", &format!("table={table}"));
    let mut lines = text.lines().filter(|line| line.contains(field));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        panic!("not one flow with {field} in:\n{text}");
    };
    let number = |key: &str| {
        let rest = line.split_once(key).unwrap().1;
        rest.split(',').next().unwrap().parse().unwrap()
    };
    (number("n_packets="), number("n_bytes="))
}

/// What each ledger says of Pod a's outbound, then of the inbound of Pods b and c, once the datapath has handed its
/// counters to the switch, which knows no segments.
fn ledgers(switch: &Switch, kernel: &Kernel) -> ([Counts; 3], [(u64, u64); 3]) {
    switch.appctl("revalidator/wait");
    // All of a direction: two CPUs that meet a new group at the same moment put a packet into *other groups*.
    let numbers = |direction: &DirectionReading| {
        let (packets, segments, bytes) = total(direction);
        (packets, bytes, segments)
    };
    let inbound = |pod: &str| numbers(&reading(kernel, pod).inbound);
    let outbound = numbers(&reading(kernel, "a").outbound);
    let flows = [
        flow(switch, EGRESS_POD_METRIC, "nw_src=10.10.0.11"),
        flow(switch, INGRESS_POD_METRIC, "reg1=0xb"),
        flow(switch, INGRESS_POD_METRIC, "reg1=0xc"),
    ];
    ([outbound, inbound("b"), inbound("c")], flows)
}

#[test]
#[ignore = "needs openvswitch.ko; `cargo xtask kernel-matrix` runs it"]
fn both_ledgers_count_the_same_packets_and_bytes() {
    let switch = switch("k");
    switch.lab.run(|| async {
        let bpffs = Bpffs::new();
        let kernel = attached(&bpffs);
        let (mut packets, mut bytes) = (0, 0);
        // 42 bytes of headers; 4,000 bytes go in three fragments: 1,480, 1,480 and 1,048 behind 34 bytes each.
        for (count, length, each, wire) in [(1000, 100, 1, 142), (500, 1400, 1, 1442), (100, 4000, 3, 4110)] {
            send(&switch, count, length, None);
            packets += count as u64 * each;
            bytes += count as u64 * wire;
            let (ours, theirs) = ledgers(&switch, &kernel);
            println!("mcstat {ours:?}, switch {theirs:?}");
            let what = format!("after {count} datagrams of {length} bytes");
            assert_eq!(ours, [(packets, bytes, packets); 3], "mcstat, {what}");
            assert_eq!(theirs, [(packets, bytes); 3], "the switch, {what}");
        }
    });
}

#[test]
#[ignore = "needs openvswitch.ko; `cargo xtask kernel-matrix` runs it"]
fn a_segmented_first_packet_makes_the_switch_count_more() {
    let switch = switch("g");
    switch.lab.run(|| async {
        let bpffs = Bpffs::new();
        let kernel = attached(&bpffs);
        send(&switch, 1, 14_000, Some(1400));
        eventually("a flow in the datapath", || {
            switch.appctl("dpctl/dump-flows").contains(GROUP)
        });
        send(&switch, 19, 14_000, Some(1400));
        let (ours, theirs) = ledgers(&switch, &kernel);
        println!("mcstat {ours:?}, switch {theirs:?}");
        // 20 skbs of 14,042 bytes leave the Pod. The first meets no flow and goes to ovs-vswitchd as 10 of 1,442.
        assert_eq!(ours[0], (20, 280_840, 200));
        assert_eq!((19 + 10, 19 * 14_042 + 10 * 1442), (29, 281_218));
        assert_eq!(theirs, [(29, 281_218); 3]);
        assert_eq!(ours[1..], [(29, 281_218, 200); 2]);
    });
}

/// The same as the agent tells it: named, listed, and no disagreement.
#[test]
#[ignore = "needs openvswitch.ko; `cargo xtask kernel-matrix` runs it"]
fn the_agent_names_what_an_upcall_has_segmented() {
    let switch = switch("n");
    switch.lab.run(|| async {
        let bpffs = Bpffs::new();
        let source = json!({"kind": "ovsdb", "ovsdb": {"socket": switch.path("db.sock"), "bridge": "br-int"}});
        let mut node = Node::with(&bpffs.path(), &source, &json!({"tick": "500ms"}));
        node.start();
        let status = || node.pod("mkt", "a").map(|pod| pod["status"].clone());
        let agrees = |status: &Value| {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let mut agree = conditions.filter(|condition| condition["type"] == "LedgersAgree");
            agree.next().is_some_and(|condition| condition["status"] == "True")
        };
        eventually("the ledgers agree", || status().as_ref().is_some_and(agrees));
        send(&switch, 1, 14_000, Some(1400));
        eventually("a flow in the datapath", || {
            switch.appctl("dpctl/dump-flows").contains(GROUP)
        });
        send(&switch, 19, 14_000, Some(1400));
        let found = |status: &Value| {
            status["ledgers"]["discrepancies"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        eventually("it is named", || {
            status().is_some_and(|status| !found(&status).is_empty())
        });
        let status = status().unwrap();
        println!("{status:#}");
        let found = found(&status);
        assert_eq!(found.len(), 1, "{found:?}");
        let shown = ["direction", "cause", "more", "packets", "bytes"].map(|key| found[0][key].clone());
        // 9 packets more, each with one header of 42 bytes.
        assert_eq!(
            Value::from(shown.to_vec()),
            json!(["outbound", "GsoUpcall", "switch", 9, 378])
        );
        assert!(agrees(&status), "{status:#}");
        assert_eq!(status["outbound"]["switchDropped"], 0);
    });
}
