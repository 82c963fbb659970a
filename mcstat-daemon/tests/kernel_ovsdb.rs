//! The agent on a real Open vSwitch whose database and switch go away and come back while the Pods' traffic runs.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod pods_lab;
mod support;
mod switch_lab;

use std::{
    fs::File,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use agent_process::{Node, packets};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use support::{
    Bpffs, frames,
    wire::{Sender, eventually},
};
use switch_lab::{Switch, kill};

/// Sends from a named namespace until told to stop; packets sent.
fn send_until(stop: &AtomicBool, namespace: &str, interface: &str) -> u64 {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).expect("entering a namespace needs root");
    let sender = Sender::on(interface);
    let frames = [
        frames::data("10.0.0.1", "239.1.1.1", 100),
        frames::data("fd00::1", "ff05::1:3", 60),
    ];
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
        sent += sender.send(&frames, 10).0;
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

#[test]
fn nothing_is_lost_while_database_and_switch_are_away() {
    let bpffs = Bpffs::new();
    let mut switch = Switch::new("k");
    switch.add_pod("feed-0", "feed-0-aaaaaa", "c1", "10.0.0.1");
    let config = switch.config();
    let source = json!({"kind": "ovsdb", "ovsdb": {"socket": config.socket, "bridge": config.bridge}});
    let mut node = Node::new(&bpffs.path(), &source);
    let namespaces = (switch.lab.node.clone(), format!("{}feed-0", switch.lab.prefix));
    // The agent belongs in the node's namespace, which its first thread inherits.
    thread::scope(|scope| {
        let inside = || {
            setns(
                File::open(format!("/run/netns/{}", namespaces.0)).unwrap(),
                CloneFlags::CLONE_NEWNET,
            )
            .unwrap();
            node.start();
        };
        scope.spawn(inside).join().unwrap();
    });
    let counted = |name: &str| node.pod("mkt", name).filter(|pod| packets(pod).is_some());
    eventually("the Pod is counted", || counted("feed-0").is_some());
    let start = counted("feed-0").unwrap()["status"]["startTime"].clone();
    assert!(start.is_string());

    let stop = AtomicBool::new(false);
    let totals = thread::scope(|scope| {
        let _stopping = Stop(&stop);
        let outbound = scope.spawn(|| send_until(&stop, &namespaces.1, "eth0"));
        let inbound = scope.spawn(|| send_until(&stop, &namespaces.0, "feed-0-aaaaaa"));
        let grown = |from: u64| {
            eventually("more packets while the switch is away", || {
                counted("feed-0")
                    .and_then(|pod| packets(&pod))
                    .is_some_and(|(sent, _)| sent > from + 1000)
            });
        };
        for round in 0..2 {
            kill(&mut switch.server);
            if round == 1 {
                // Both: the database comes back without the interfaces' numbers.
                kill(&mut switch.switch);
            }
            let before = packets(&counted("feed-0").expect("the last list holds")).unwrap().0;
            grown(before);
            switch.start_server();
            if round == 1 {
                switch.start_switch();
                switch.vsctl("wait-until interface feed-0-aaaaaa 'ifindex>0'");
            }
            // A new Pod is what tells that the agent follows the database again.
            let (pod, host) = (format!("new-{round}"), format!("new-{round}-cccccc"));
            switch.add_pod(&pod, &host, &format!("n{round}"), &format!("10.0.0.{}", 10 + round));
            eventually("the new Pod is counted", || counted(&pod).is_some());
        }
        stop.store(true, Ordering::SeqCst);
        (outbound.join().unwrap(), inbound.join().unwrap())
    });
    eventually(&format!("{totals:?} packets"), || {
        counted("feed-0").and_then(|pod| packets(&pod)) == Some(totals)
    });
    assert_eq!(counted("feed-0").unwrap()["status"]["startTime"], start);
    assert!(totals.0 > 2000 && totals.1 > 2000, "{totals:?}");
    node.kill();
}
