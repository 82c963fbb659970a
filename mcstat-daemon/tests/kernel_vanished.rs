//! An interface that a Pod no longer has: what it had counted stays in the Pod's totals, over a kill of the agent too.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod support;

use std::{
    net::IpAddr,
    os::{fd::AsFd, unix::fs::symlink},
    path::Path,
};

use agent_process::{Node, packets};
use mcstat::agent::bpf::{free, sys, table};
use mcstat_bed::{
    netns::Netns,
    traffic::send::{Plan, Sender},
};
use serde_json::{Value, json};
use support::{Bpffs, enter, frames, in_netns, open, pod_port, read_all, reading, total, wire::eventually};

const GROUPS: [&str; 2] = ["239.1.1.1", "239.1.1.2"];

fn send(pod: &Netns, interface: &str, count: u64) {
    for group in GROUPS {
        let group: IpAddr = group.parse().unwrap();
        let plan = Plan {
            interface: interface.to_owned(),
            ..Plan::new(group, count, 0, 100)
        };
        assert_eq!(Sender::start(pod, plan).wait().unwrap(), count);
    }
}

fn totals(pod: &Value) -> (Value, Value, Value) {
    let status = &pod["status"];
    let outbound = &status["outbound"];
    (
        status["startTime"].clone(),
        outbound["sent"].clone(),
        outbound["bytes"].clone(),
    )
}

#[test]
fn a_vanished_interface_stays_in_the_totals_over_a_restart() {
    let name = |part: &str| format!("mcstat-{}-gone-{part}", std::process::id());
    let (host, pod) = (Netns::new(name("host")).unwrap(), Netns::new(name("pod")).unwrap());
    for (interface, side) in [("eth0", "va0"), ("net1", "va1"), ("net2", "va2")] {
        let netns = pod.name();
        host.ip(&format!(
            "link add {side} type veth peer name {interface} netns {netns}"
        ))
        .unwrap();
        host.ip(&format!("link set {side} up")).unwrap();
        pod.ip(&format!("addr add 10.0.{}.2/24 dev {interface}", &side[2..]))
            .unwrap();
        pod.ip(&format!("link set {interface} up")).unwrap();
    }
    let bpffs = Bpffs::new();
    let pods = tempfile::tempdir().unwrap();
    symlink(Path::new("/run/netns").join(pod.name()), pods.path().join("mkt_feed")).unwrap();
    let mut node = Node::new(
        &bpffs.path(),
        &json!({"kind": "netns", "netns": {"directory": pods.path()}}),
    );
    let start = |node: &mut Node| {
        host.within(|| {
            node.start();
            Ok(())
        })
        .unwrap();
    };
    let read = |node: &Node| node.pod("mkt", "feed").filter(|pod| packets(pod).is_some());
    let interfaces = |pod: &Value| pod["status"]["interfaces"].as_array().unwrap().len();
    let sent = |pod: &Value| pod["status"]["outbound"]["sent"].clone();

    start(&mut node);
    eventually("three interfaces are counted", || {
        read(&node).is_some_and(|pod| interfaces(&pod) == 3)
    });
    // 20, 40 and 60 packets of 142 bytes.
    for (interface, count) in [("eth0", 10), ("net1", 20), ("net2", 30)] {
        send(&pod, interface, count);
    }
    eventually("120 packets", || read(&node).is_some_and(|pod| sent(&pod) == 120));
    let before = totals(&read(&node).unwrap());
    assert_eq!(before.2, 120 * 142);

    // The first interface goes, then an agent is killed, then the second one goes.
    for (gone, left) in [("va0", 2), ("va1", 1)] {
        host.ip(&format!("link del {gone}")).unwrap();
        eventually("the interface is gone", || {
            read(&node).is_some_and(|pod| interfaces(&pod) == left)
        });
        assert_eq!(totals(&read(&node).unwrap()), before, "{gone} went");
        node.kill();
        start(&mut node);
        eventually("the agent is back", || read(&node).is_some());
        assert_eq!(totals(&read(&node).unwrap()), before, "restarted after {gone} went");
    }
    send(&pod, "net2", 5);
    eventually("ten more", || read(&node).is_some_and(|pod| sent(&pod) == 130));
    assert_eq!(totals(&read(&node).unwrap()).0, before.0);

    // The Pod goes: the next of its name is another one, and nothing of this is left.
    host.ip("link del va2").unwrap();
    eventually("nothing is counted", || read(&node).is_none());
    eventually("nothing is remembered", || kept(&bpffs, "vanished") == 0);
}

/// A kill while a port is given back: half of it is gone. It is not read again, and what was kept of it stays.
#[test]
fn a_port_that_is_half_given_back_is_not_read() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut kernel = open(&bpffs.options());
        let port = pod_port("half", "lo", 1, &["10.0.0.2"]);
        let entry = enter(&kernel, &port);
        let program = kernel.programs.program("mcstat_outbound").unwrap().fd().unwrap();
        sys::test_run(program.as_fd(), &frames::data("10.0.0.2", GROUPS[0], 100), 50).unwrap();
        assert_eq!(total(&reading(&kernel, "half").outbound).0, 50);
        table::stop(&kernel.maps, &entry);
        free::fold_port(&kernel.maps, entry.port.id, || Ok(())).unwrap();
        kernel.maps.kept.remember(&kernel.maps, &entry).unwrap();
        table::end(&kernel.maps, &entry);
        // The first thing that giving the entry back does.
        kernel
            .maps
            .port_carried
            .write(2 * entry.position, zerocopy::FromZeros::new_zeroed());
        drop(kernel);
        let kernel = open(&bpffs.options());
        let clock = kernel.clock.read(&kernel.maps).unwrap();
        let ports = read_all(&kernel).ports;
        assert!(ports.is_empty(), "{ports:?}");
        let kept = kernel.maps.kept.vanished_readings(&clock);
        assert_eq!(kept.len(), 1);
        assert_eq!(total(&kept[0].0.outbound).0, 50);
    });
}

/// Elements of a pinned map, as bpftool sees it.
fn kept(bpffs: &Bpffs, map: &str) -> usize {
    let path = bpffs.path().join("mcstat/v1").join(map);
    let output = std::process::Command::new("bpftool")
        .args(["-j", "map", "dump", "pinned"])
        .arg(&path)
        .output()
        .expect("bpftool is installed");
    let elements: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    elements.as_array().map_or(0, Vec::len)
}
