//! kill -9 of the real agent, again and again, while its Pod sends and receives: no packet is lost, no time begins anew.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod support;

use std::{
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use agent_process::{Node, packets};
use serde_json::{Value, json};
use support::{
    Bpffs, Random, frames, in_netns,
    wire::{Sender, Wire, eventually},
};

const GROUPS: [&str; 3] = ["239.1.1.1", "232.1.1.2", "ff05::1:3"];

fn frames() -> Vec<Vec<u8>> {
    vec![
        frames::data("10.0.0.2", GROUPS[0], 100),
        frames::data("10.0.0.2", GROUPS[1], 60),
        frames::data("fd00::2", GROUPS[2], 200),
    ]
}

/// Sends bursts until told to stop, with room between them for everything else on the machine; packets sent.
fn send_until(stop: &AtomicBool, interface: &str) -> u64 {
    let (sender, frames) = (Sender::on(interface), frames());
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
        sent += sender.send(&frames, 20).0;
        thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// Ends the traffic when the test ends, however it does: a scope waits for its threads.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What must never begin anew: the Pod's start and each group's.
fn times(pod: &Value) -> (String, Vec<(String, String)>) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("a time in {pod}")).to_owned();
    let groups = pod["status"]["groups"].as_array().unwrap().iter();
    // A group that is only joined has no series.
    let series = groups.filter(|group| !group["startTime"].is_null());
    let starts = series.map(|group| (text(&group["group"]), text(&group["startTime"])));
    (text(&pod["status"]["startTime"]), starts.collect())
}

#[test]
fn an_agent_killed_again_and_again_loses_no_packet_and_no_start_time() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let wire = Wire::new("mkt-feed-0");
        wire.up(1500);
        let pods = tempfile::tempdir().unwrap();
        symlink(wire.pod.path(), pods.path().join("mkt_feed-0")).unwrap();
        let source = json!({"kind": "netns", "netns": {"directory": pods.path()}});
        let mut node = Node::new(&bpffs.path(), &source);
        let counted = |node: &Node| node.pod("mkt", "feed-0").filter(|pod| packets(pod).is_some());

        node.start();
        eventually("the Pod is counted", || counted(&node).is_some());
        let stop = AtomicBool::new(false);
        let (sent, received) = thread::scope(|scope| {
            let stopping = Stop(&stop);
            let outbound = scope.spawn(|| wire.pod.run(|| send_until(&stop, "eth0")));
            let host = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            let inbound = scope.spawn(|| {
                nix::sched::setns(host, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                send_until(&stop, "mkt-feed-0")
            });
            let all_groups = |pod: &Value| times(pod).1.len() == GROUPS.len();
            eventually("every group", || counted(&node).is_some_and(|pod| all_groups(&pod)));
            let first = counted(&node).unwrap();
            let mut random = Random(9);
            for round in 0..12 {
                node.kill();
                // Counting goes on with no agent at all.
                thread::sleep(Duration::from_millis(20));
                node.start();
                if round % 3 == 2 {
                    eventually("the Pod is counted again", || counted(&node).is_some());
                    assert_eq!(times(&counted(&node).unwrap()), times(&first), "after kill {round}");
                } else {
                    // Somewhere in its start: loading, taking the links over, the first reading.
                    thread::sleep(Duration::from_millis(random.below(300)));
                }
            }
            drop(stopping);
            let totals = (outbound.join().unwrap(), inbound.join().unwrap());
            let mut last = Value::Null;
            eventually(&format!("{totals:?} packets; {}", node.log()), || {
                last = counted(&node).unwrap_or_default();
                packets(&last) == Some(totals)
            });
            assert_eq!(times(&last), times(&first));
            totals
        });
        // The devices' own numbers: what was sent did arrive.
        assert_eq!((wire.received().0, wire.received().2), (sent, 0));
        assert_eq!((wire.transmitted().0, wire.transmitted().2), (received, 0));
        node.kill();
    });
}
