//! A bridge without Antrea's tables that snoops by itself: what it takes a report for, beside what the report says (RFC 9776)
//! and what the Pod's kernel has. Four reports that Open vSwitch reads differently, or not.
//!
//! Needs root, a kernel for the programs and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod pods_lab;
mod support;
mod switch_lab;

use std::{
    fs::File,
    net::Ipv4Addr,
    process::{Child, Command},
    thread,
};

use agent_process::Node;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use support::{
    Bpffs, frames,
    wire::{Sender, eventually},
};
use switch_lab::Switch;

const TO_IN: u8 = 3;
const TO_EX: u8 = 4;
const BLOCK: u8 = 6;
/// Of no version of IGMP.
const UNKNOWN: u8 = 9;

/// One record, RFC 9776 §4.2.
fn record(kind: u8, group: Ipv4Addr, sources: &[Ipv4Addr], aux_words: u8) -> Vec<u8> {
    let mut record = vec![kind, aux_words, 0, u8::try_from(sources.len()).unwrap()];
    record.extend(group.octets());
    record.extend(sources.iter().flat_map(Ipv4Addr::octets));
    record.extend(vec![0xaa; usize::from(aux_words) * 4]);
    record
}

/// An IGMPv3 report in IPv4 with Router Alert, in Ethernet.
fn report(source: Ipv4Addr, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, u8::try_from(records.len()).unwrap()];
    message.extend(records.concat());
    let sum = frames::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = u8::try_from(24 + message.len()).unwrap();
    let mut packet = vec![0x46, 0xc0, 0, length, 0, 0, 0x40, 0, 1, 2, 0, 0];
    packet.extend(source.octets());
    packet.extend([224, 0, 0, 22, 0x94, 4, 0, 0]);
    let sum = frames::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    let mut frame = vec![1, 0, 0x5e, 0, 0, 22, 2, 0, 0, 0, 0, 9, 8, 0];
    frame.extend(packet);
    frame
}

/// A Pod on the bridge; with a process in its namespace its kernel can be asked.
fn pod(switch: &Switch, name: &str, host: &str, address: Ipv4Addr, number: u32) {
    switch.lab.add_netns(name);
    switch.lab.add_veth(name, "eth0", host, &format!("{address}/24"));
    let more = format!("external_ids:ip-address={address} -- set interface {host} ofport_request={number}");
    switch.add_port(name, host, name, &more);
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn send(switch: &Switch, pod: &str, frame: Vec<u8>) {
    let netns = File::open(format!("/run/netns/{}{pod}", switch.lab.prefix)).unwrap();
    let work = move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Sender::on("eth0").passes(&frame));
    };
    thread::spawn(work).join().unwrap();
}

fn differences(status: &Value) -> Vec<(String, String)> {
    let found = status["ledgers"]["memberships"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found
        .map(|found| (text(&found["group"]), text(&found["difference"])))
        .collect()
}

#[test]
fn reports_that_the_switch_reads_differently() {
    let switch = Switch::new("x");
    switch.vsctl("set bridge br-int mcast_snooping_enable=true protocols=OpenFlow10,OpenFlow15");
    switch.ofctl("add-flow", "actions=NORMAL");
    let (mute, known) = (Ipv4Addr::new(10, 0, 0, 11), Ipv4Addr::new(10, 0, 0, 12));
    pod(&switch, "mute", "va0", mute, 11);
    pod(&switch, "known", "vb0", known, 12);
    // A kernel that can be asked tells that a group is not joined; of the other Pod only reports are known.
    let netns = format!("{}known", switch.lab.prefix);
    let inside = Command::new("ip")
        .args(["netns", "exec", &netns, "sleep", "infinity"])
        .spawn()
        .unwrap();
    let _process = Process(inside);
    let [first, second, third, fourth, fifth] =
        [[1, 1], [1, 2], [2, 2], [3, 3], [4, 4]].map(|[c, d]| Ipv4Addr::new(239, 1, c, d));
    switch.lab.run(|| async {
        let bpffs = Bpffs::new();
        let source = json!({"kind": "ovsdb", "ovsdb": {"socket": switch.path("db.sock"), "bridge": "br-int"}});
        let mut node = Node::new(&bpffs.path(), &source);
        node.start();
        let status = |pod: &str| node.pod("mkt", pod).map(|mut pod| pod["status"].take());
        let counted = |pod: &str| {
            node.pod("mkt", pod)
                .is_some_and(|pod| agent_process::packets(&pod).is_some())
        };
        eventually("both Pods are counted", || counted("mute") && counted("known"));
        // Auxiliary data is counted in words; Open vSwitch 3.1 takes it for bytes and loses the second record.
        let aux = [record(TO_EX, first, &[], 2), record(TO_EX, second, &[], 0)];
        send(&switch, "mute", report(mute, &aux));
        // A record of an unknown type is stepped over; Open vSwitch stays there.
        let unknown = [record(UNKNOWN, first, &[], 0), record(TO_EX, third, &[], 0)];
        send(&switch, "mute", report(mute, &unknown));
        // Joined and left: both know.
        let left = [record(TO_EX, fourth, &[], 0), record(TO_IN, fourth, &[], 0)];
        send(&switch, "mute", report(mute, &left));
        // Blocking a source of a group that is not joined joins nothing; Open vSwitch joins.
        let block = [record(BLOCK, fifth, &[Ipv4Addr::new(192, 0, 2, 1)], 0)];
        send(&switch, "known", report(known, &block));
        let wanted = |found: &[(Ipv4Addr, &str)]| -> Vec<_> {
            let named = found.iter();
            named
                .map(|(group, difference)| (group.to_string(), (*difference).to_owned()))
                .collect()
        };
        let mute = wanted(&[(second, "NotInSwitch"), (third, "NotInSwitch")]);
        let known = wanted(&[(fifth, "SwitchOnly")]);
        let found = || [status("mute"), status("known")].map(|status| status.as_ref().map(differences));
        // Named when they have lasted 15 s.
        let begun = std::time::Instant::now();
        while found() != [Some(mute.clone()), Some(known.clone())] {
            let printed = switch.appctl("mdb/show br-int");
            assert!(begun.elapsed().as_secs() < 40, "{:?}; {printed}", found());
            thread::sleep(std::time::Duration::from_millis(200));
        }
        let status = status("known").unwrap();
        let conditions = status["conditions"].as_array().unwrap();
        let agree = conditions
            .iter()
            .find(|condition| condition["type"] == "LedgersAgree")
            .unwrap();
        assert_eq!(
            (&agree["status"], &agree["reason"]),
            (&"Unknown".into(), &"NoMetricTables".into())
        );
        // A bridge that no longer snoops says nothing of memberships.
        switch.vsctl("set bridge br-int mcast_snooping_enable=false");
        eventually("no differences", || found() == [Some(Vec::new()), Some(Vec::new())]);
    });
}
