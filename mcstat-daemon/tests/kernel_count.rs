//! Data over real veths: every counter is what was sent and what the device received, packet by packet.
//!
//! Three judges who do not know of each other: the number of frames handed to the packet socket, the device's own
//! statistics before and after, and the counters.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::net::Ipv4Addr;

use mcstat::{
    agent::bpf::{Kernel, attach::Hook, now},
    ledger::snapshot::{DirectionReading, PortReading, Traffic},
};
use support::{
    Bpffs, agents_hook, attach, frames, group, in_netns, ip, open_with, reading, total,
    wire::{Sender, Wire},
};

/// What the issue of this project demands, to each group.
const EACH: usize = 10_000;

/// One family's three groups: a label, then one frame for each of them.
struct Kind {
    label: &'static str,
    frames: [Vec<u8>; 3],
    groups: [&'static str; 3],
}

const V4: [&str; 3] = ["239.1.1.1", "239.1.1.2", "224.0.0.251"];
const V6: [&str; 3] = ["ff05::1:3", "ff0e::101", "ff02::fb"];

/// A hop-by-hop header (RFC 8200 §4.3) of 8 bytes before `next`: a PadN option alone.
fn hop_by_hop(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0, 1, 4, 0, 0, 0, 0];
    header.extend_from_slice(rest);
    header
}

fn ipv6_with_options(group: &str) -> Vec<u8> {
    let destination_options = hop_by_hop(17, &frames::udp(64));
    let payload = hop_by_hop(60, &destination_options);
    frames::frame6(&frames::ipv6(
        "fd00::2".parse().unwrap(),
        group.parse().unwrap(),
        0,
        16,
        &payload,
    ))
}

fn later_fragment(group: &str) -> Vec<u8> {
    let source = Ipv4Addr::new(10, 0, 0, 2);
    frames::frame4(&frames::ipv4(source, group.parse().unwrap(), 17, 16, 185, &[0x55; 700]))
}

fn kinds() -> Vec<Kind> {
    let v4 = |length| V4.map(|group| frames::data("10.0.0.2", group, length));
    let v6 = |length| V6.map(|group| frames::data("fd00::2", group, length));
    let kind = |label, frames, groups| Kind { label, frames, groups };
    vec![
        kind("IPv4", v4(100), V4),
        kind("IPv6", v6(1000), V6),
        kind(
            "IPv4, 802.1Q",
            v4(200).map(|frame| frames::tagged(&frame, 0x8100, 42)),
            V4,
        ),
        kind(
            "IPv6, 802.1Q",
            v6(18).map(|frame| frames::tagged(&frame, 0x8100, 42)),
            V6,
        ),
        kind(
            "IPv4, 802.1ad and 802.1Q",
            v4(64).map(|frame| frames::tagged(&frames::tagged(&frame, 0x8100, 42), 0x88a8, 7)),
            V4,
        ),
        kind(
            "IPv6, 802.1ad and 802.1Q",
            v6(64).map(|frame| frames::tagged(&frames::tagged(&frame, 0x8100, 42), 0x88a8, 7)),
            V6,
        ),
        kind(
            "IPv6, hop-by-hop and destination options",
            V6.map(ipv6_with_options),
            V6,
        ),
        kind("IPv4, later fragments", V4.map(later_fragment), V4),
    ]
}

/// One port with programs on it.
struct Bench {
    wire: Wire,
    kernel: Kernel,
    // Unmounted after everything that is pinned in it is closed.
    _bpffs: Bpffs,
}

impl Bench {
    fn new(hook: Hook, mtu: u32) -> Self {
        let bpffs = Bpffs::new();
        let mut kernel = open_with(&bpffs.options(), hook);
        let wire = Wire::new("pod-a");
        attach(&mut kernel, "a", &wire, &["10.0.0.2"]);
        wire.up(mtu);
        Self {
            wire,
            kernel,
            _bpffs: bpffs,
        }
    }

    fn reading(&self) -> PortReading {
        reading(&self.kernel, "a")
    }
}

/// The growth of a group's traffic.
fn growth(before: &DirectionReading, after: &DirectionReading, name: &str) -> Traffic {
    let of = |direction: &DirectionReading| {
        let found = direction
            .groups
            .iter()
            .find(|reading| reading.group.to_string() == name);
        found.map_or_else(Traffic::default, |reading| reading.admitted)
    };
    let (before, after) = (of(before), of(after));
    Traffic {
        packets: after.packets - before.packets,
        segments: after.segments - before.segments,
        bytes: after.bytes - before.bytes,
    }
}

/// Sends a kind in one direction and holds the counters against sender and device. `untagged` is what the kernel takes
/// off a frame before tc sees it.
fn check(bench: &Bench, kind: &Kind, inbound: bool, untagged: u64) {
    let device = || {
        if inbound {
            bench.wire.transmitted()
        } else {
            bench.wire.received()
        }
    };
    let side = |reading: PortReading| if inbound { reading.inbound } else { reading.outbound };
    let (before, device_before) = (side(bench.reading()), device());
    let (packets, bytes) = if inbound {
        Sender::on(&bench.wire.host).send(&kind.frames, EACH)
    } else {
        bench.wire.pod.run(|| Sender::on("eth0").send(&kind.frames, EACH))
    };
    let (after, device_after) = (side(bench.reading()), device());
    let label = format!("{}, {}", kind.label, if inbound { "inbound" } else { "outbound" });
    assert_eq!(device_after.2 - device_before.2, 0, "{label}: the device lost packets");
    assert_eq!(
        device_after.0 - device_before.0,
        packets,
        "{label}: packets of the device"
    );
    assert_eq!(device_after.1 - device_before.1, bytes, "{label}: bytes of the device");
    for (frame, name) in kind.frames.iter().zip(kind.groups) {
        let wanted = Traffic {
            packets: EACH as u64,
            segments: EACH as u64,
            bytes: EACH as u64 * (frame.len() as u64 - untagged),
        };
        assert_eq!(growth(&before, &after, name), wanted, "{label}: {name}");
    }
    let (was, is) = (total(&before), total(&after));
    assert_eq!(is.0 - was.0, packets, "{label}: the port's total");
    assert_eq!(after.other, before.other, "{label}: nothing may fall to other groups");
    assert_eq!(
        after.control, before.control,
        "{label}: nothing of it is control or malformed"
    );
}

fn ten_thousand_to_each_of_three_groups(hook: Hook) {
    in_netns(move || {
        let bench = Bench::new(hook, 1500);
        for kind in kinds() {
            // On receive the kernel moves the outer tag to skb->vlan_tci, so tc ingress sees a frame of 4 bytes less.
            let tagged = [[0x81, 0x00], [0x88, 0xa8]]
                .iter()
                .any(|tpid| kind.frames[0][12..14] == *tpid);
            check(&bench, &kind, false, if tagged { 4 } else { 0 });
            check(&bench, &kind, true, 0);
        }
        let reading = bench.reading();
        assert_eq!(reading.outbound.foreign_source, 0);
        assert_eq!(reading.outbound.groups.len(), 6);
    });
}

#[test]
fn ten_thousand_frames_to_each_of_three_groups_by_the_agents_hook() {
    ten_thousand_to_each_of_three_groups(agents_hook());
}

#[test]
fn ten_thousand_frames_to_each_of_three_groups_by_clsact() {
    ten_thousand_to_each_of_three_groups(Hook::Clsact);
}

#[test]
fn in_the_ssm_ranges_each_source_has_its_own_slot() {
    in_netns(|| {
        let bench = Bench::new(agents_hook(), 1500);
        let sent = [
            ("232.1.2.3", "10.0.0.2", 300),
            ("232.1.2.3", "10.9.9.9", 500),
            ("232.1.2.4", "10.0.0.2", 700),
            ("239.1.2.3", "10.0.0.2", 11),
            ("239.1.2.3", "10.9.9.9", 13),
            ("ff3e::8000:1", "fd00::2", 17),
            ("ff3e::8000:1", "fd00::3", 19),
            ("ff3e:30:fd00::1", "fd00::2", 23),
            ("ff3e:30:fd00::1", "fd00::3", 29),
        ];
        for (name, source, times) in sent {
            Sender::on(&bench.wire.host).send(&[frames::data(source, name, 50)], times);
        }
        let inbound = bench.reading().inbound;
        for (name, source, times) in &sent[..3] {
            assert_eq!(
                group(&inbound, name, Some(source)).admitted.packets,
                *times as u64,
                "{name}"
            );
        }
        for (name, source, times) in &sent[5..7] {
            assert_eq!(
                group(&inbound, name, Some(source)).admitted.packets,
                *times as u64,
                "{name}"
            );
        }
        // Not SSM (RFC 4607 §1: ff3x::/32 only), though unicast-prefix-based (RFC 3306): one slot for all sources.
        assert_eq!(group(&inbound, "239.1.2.3", None).admitted.packets, 24);
        assert_eq!(group(&inbound, "ff3e:30:fd00::1", None).admitted.packets, 52);
        assert_eq!(inbound.groups.len(), 7);
    });
}

#[test]
fn sources_ttl_and_time_of_the_last_packet() {
    in_netns(|| {
        let bench = Bench::new(agents_hook(), 1500);
        let wire = &bench.wire;
        let (own, foreign) = (
            frames::data("10.0.0.2", "239.7.7.7", 30),
            frames::data("10.6.6.6", "239.7.7.7", 30),
        );
        let none = frames::data("0.0.0.0", "239.7.7.8", 30);
        let before = now();
        wire.pod.run(|| {
            // One CPU: each keeps its own last source.
            support::pin_to(0);
            let sender = Sender::on("eth0");
            sender.send(std::slice::from_ref(&own), 5);
            sender.send(&[&foreign, &own], 3);
            // Two slots: within one jiffy (10 ms at most) nobody can say which was the later.
            std::thread::sleep(std::time::Duration::from_millis(30));
            sender.send(&[&foreign], 1);
            sender.send(&[&none], 4);
        });
        let after = now();
        let outbound = bench.reading().outbound;
        let slot = group(&outbound, "239.7.7.7", None);
        assert_eq!(slot.admitted.packets, 12);
        // The Pod's own source and the foreign one have a slot each, in which nothing changes.
        assert_eq!(slot.source_changes, 0);
        assert_eq!(slot.last_source, Some("10.6.6.6".parse().unwrap()));
        assert_eq!(slot.ttl1, 0);
        // Four frames of 10.6.6.6; 0.0.0.0 is a host without an address, no stranger.
        assert_eq!(outbound.foreign_source, 4);
        assert_eq!(group(&outbound, "239.7.7.8", None).admitted.packets, 4);
        let tick = jiff::SignedDuration::from_millis(30);
        let seen = slot.last_seen.expect("a packet has passed");
        assert!(seen >= before - tick && seen <= after + tick, "{before} {seen} {after}");
        // Two conversions of one clock: they may differ by a tick.
        assert!(
            slot.since >= before - tick && slot.since <= seen + tick,
            "{} {seen}",
            slot.since
        );

        let short = |group: &str, ttl| {
            let source = Ipv4Addr::new(10, 0, 0, 9);
            frames::frame4(&frames::ipv4(
                source,
                group.parse().unwrap(),
                17,
                ttl,
                0,
                &frames::udp(8),
            ))
        };
        let short6 = |ttl| {
            let (source, group) = ("fd00::2".parse().unwrap(), "ff05::7".parse().unwrap());
            frames::frame6(&frames::ipv6(source, group, 17, ttl, &frames::udp(8)))
        };
        let sender = Sender::on(&wire.host);
        sender.send(&[short("239.7.7.9", 1), short("239.7.7.9", 2)], 10);
        sender.send(&[short6(1), short6(2), short6(0)], 10);
        let inbound = bench.reading().inbound;
        assert_eq!(group(&inbound, "239.7.7.9", None).ttl1, 10);
        assert_eq!(group(&inbound, "ff05::7", None).ttl1, 20);
        assert_eq!(inbound.foreign_source, 0, "inbound nobody is foreign");
    });
}

#[test]
fn unicast_broadcast_and_arp_are_not_counted() {
    in_netns(|| {
        let bench = Bench::new(agents_hook(), 1500);
        let mut arp = frames::ethernet(0x0806);
        arp.resize(60, 0);
        let frames = [
            frames::data("10.0.0.2", "10.0.0.3", 30),
            frames::data("10.0.0.2", "255.255.255.255", 30),
            frames::data("fd00::2", "fd00::3", 30),
            arp,
        ];
        bench.wire.pod.run(|| Sender::on("eth0").send(&frames, 100));
        Sender::on(&bench.wire.host).send(&frames, 100);
        let (packets, ..) = bench.wire.received();
        assert_eq!(packets, 400, "they did pass");
        let reading = bench.reading();
        for direction in [reading.outbound, reading.inbound] {
            assert_eq!(direction, DirectionReading::default());
        }
    });
}

#[test]
fn the_programs_let_every_frame_pass() {
    in_netns(|| {
        for hook in [agents_hook(), Hook::Clsact] {
            let bench = Bench::new(hook, 1500);
            // A filter behind ours that takes one group away: it must still be asked.
            if hook == Hook::Tcx {
                support::run("tc", &format!("qdisc add dev {} clsact", bench.wire.host));
            }
            support::run(
                "tc",
                &format!(
                    "filter add dev {} egress pref 100 protocol ip u32 match ip dst 239.1.1.2/32 action mirred egress redirect dev lo",
                    bench.wire.host
                ),
            );
            let before = bench.wire.transmitted().0;
            Sender::on(&bench.wire.host).send(&V4.map(|group| frames::data("10.0.0.2", group, 100)), 100);
            assert_eq!(
                bench.wire.transmitted().0 - before,
                200,
                "{hook:?}: the filter behind ours was not asked"
            );
            assert_eq!(total(&bench.reading().inbound).0, 300, "{hook:?}");
            ip(&format!("link del {}", bench.wire.host));
        }
    });
}
