//! Pods that spray groups, and a Pod that does nothing: neither changes what another Pod is told.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::{net::Ipv4Addr, thread};

use mcstat::{
    agent::bpf::{Kernel, maps::update_settings},
    ledger::snapshot::{DirectionReading, Traffic},
};
use mcstat_common::control::ControlCounts;
use support::{
    Bpffs, attach, frames, in_netns, ip, open, reading, total,
    wire::{Capture, Sender, Wire, eventually},
};

/// Groups that one Pod sprays.
const SPRAYED: u32 = 10_000;

/// One frame to each of `groups` groups from `first` on.
fn spray(first: u32, groups: u32) -> Vec<Vec<u8>> {
    let group = |at| Ipv4Addr::from(first + at).to_string();
    (0..groups)
        .map(|at| frames::data("10.0.0.2", &group(at), 18 + (at % 61) as usize))
        .collect()
}

/// Packets, segments and bytes of one frame each, `times` times.
fn sent(frames: &[Vec<u8>], times: u64) -> (u64, u64, u64) {
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let packets = frames.len() as u64 * times;
    (packets, packets, bytes as u64 * times)
}

/// Packets of a direction that got no slot, by the reasons.
fn refused(direction: &DirectionReading) -> u64 {
    let reasons = direction.overflow;
    reasons.port_limit + reasons.fair_share + reasons.window_full + reasons.contended
}

/// Each sprays in a thread of its own, `times` times; returns when all are done.
fn spray_together(sprayers: [(&Wire, &[Vec<u8>]); 2], times: usize) {
    thread::scope(|scope| {
        for (wire, frames) in sprayers {
            scope.spawn(move || wire.pod.run(|| Sender::on("eth0").send(frames, times)));
        }
    });
}

/// Three Pods, of which the first two spray.
struct Node {
    kernel: Kernel,
    wires: [Wire; 3],
    // Unmounted after everything that is pinned in it is closed.
    _bpffs: Bpffs,
}

const NAMES: [&str; 3] = ["spray-a", "spray-b", "quiet"];

/// `ports`: how many the table is shared out to; the others of them are idle.
fn node(slots: u32, slots_per_port: u32, ports: u32) -> Node {
    let bpffs = Bpffs::new();
    let mut options = bpffs.options();
    (options.limits.slots, options.limits.slots_per_port) = (slots, slots_per_port);
    let mut kernel = open(&options);
    let wires = NAMES.map(|name| {
        let wire = Wire::new(name);
        attach(&mut kernel, name, &wire, &["10.0.0.2"]);
        wire.up(1500);
        wire
    });
    let share = kernel.maps.slots.len() / ports;
    update_settings(&kernel.maps, |settings| settings.fair_share = share);
    Node {
        kernel,
        wires,
        _bpffs: bpffs,
    }
}

impl Node {
    fn outbound(&self, name: &str) -> DirectionReading {
        reading(&self.kernel, name).outbound
    }

    /// What holds of a sprayer whatever the table's state: nothing lost, everything that got no slot has a reason.
    fn check_sprayer(&self, at: usize, frames: &[Vec<u8>], times: u64) -> DirectionReading {
        let outbound = self.outbound(NAMES[at]);
        let name = NAMES[at];
        assert_eq!(total(&outbound), sent(frames, times), "{name}: slots and other groups");
        let (packets, bytes, dropped) = self.wires[at].received();
        let counted = total(&outbound);
        assert_eq!(
            (counted.0, counted.2, 0),
            (packets, bytes, dropped),
            "{name}: the device's numbers"
        );
        assert_eq!(
            refused(&outbound),
            outbound.other[0].admitted.packets,
            "{name}: each has one reason"
        );
        outbound
    }

    /// What holds of the third Pod: a slot for each of its groups, and every packet in it.
    fn check_quiet(&self, frames: &[Vec<u8>], times: u64) {
        let outbound = self.outbound("quiet");
        assert_eq!(outbound.groups.len(), frames.len(), "a slot for each group");
        let first = u32::from(Ipv4Addr::new(239, 77, 0, 0));
        for (at, (group, frame)) in outbound.groups.iter().zip(frames).enumerate() {
            assert_eq!(group.group, Ipv4Addr::from(first + at as u32));
            let wanted = Traffic {
                packets: times,
                segments: times,
                bytes: times * frame.len() as u64,
            };
            assert_eq!(group.admitted, wanted, "{}", group.group);
        }
        assert_eq!(
            (outbound.other, refused(&outbound)),
            Default::default(),
            "nothing of it without a slot"
        );
    }
}

#[test]
fn two_pods_that_spray_ten_thousand_groups_take_no_slot_from_a_third() {
    in_netns(|| {
        // The sizes that the agent has by default.
        let node = node(0, 256, 3);
        let [a, b, quiet] = &node.wires;
        let (from_a, from_b) = (spray(0xef01_0000, SPRAYED), spray(0xef02_0000, SPRAYED));
        spray_together([(a, &from_a), (b, &from_b)], 1);
        // All that one Pod may have, while the others go on.
        let own = spray(0xef4d_0000, 256);
        thread::scope(|scope| {
            scope.spawn(|| spray_together([(a, &from_a), (b, &from_b)], 3));
            scope.spawn(|| quiet.pod.run(|| Sender::on("eth0").send(&own, 100)));
        });
        node.check_quiet(&own, 100);
        for (at, frames) in [&from_a, &from_b].into_iter().enumerate() {
            let outbound = node.check_sprayer(at, frames, 4);
            assert_eq!(outbound.groups.len(), 256, "{}: its own limit", NAMES[at]);
            // No more than its limit has a slot, so at least the others' packets met it.
            let without = 4 * u64::from(SPRAYED - 256);
            let overflow = outbound.overflow;
            assert!(overflow.port_limit + overflow.contended >= without, "{overflow:?}");
            assert_eq!(
                (overflow.fair_share, overflow.window_full),
                (0, 0),
                "{}: {overflow:?}",
                NAMES[at]
            );
        }
    });
}

/// No limit but the table: the shares are what keeps room.
#[test]
fn over_half_a_table_a_pod_with_its_share_gets_no_more() {
    in_netns(|| {
        let (slots, ports) = (12_288, 16);
        let node = node(slots, slots, ports);
        let (half, share) = (slots as usize / 2, (slots / ports) as usize);
        let [a, b, quiet] = &node.wires;
        let (from_a, from_b) = (spray(0xef01_0000, SPRAYED), spray(0xef02_0000, SPRAYED));
        // One after the other: the first takes half the table, since nobody else wants it; the second only its share.
        a.pod.run(|| Sender::on("eth0").send(&from_a, 1));
        b.pod.run(|| Sender::on("eth0").send(&from_b, 1));
        let own = spray(0xef4d_0000, 256);
        quiet.pod.run(|| Sender::on("eth0").send(&own, 100));
        let a = node.check_sprayer(0, &from_a, 1);
        let b = node.check_sprayer(1, &from_b, 1);
        // Sets of 8 ways fill unevenly: some packets meet a full one before the table is half full.
        assert_eq!(a.groups.len(), half, "{:?}", a.overflow);
        assert_eq!(b.groups.len(), share, "{:?}", b.overflow);
        assert!(
            a.overflow.fair_share > 0 && b.overflow.fair_share > 0,
            "{:?} {:?}",
            a.overflow,
            b.overflow
        );
        assert_eq!(a.overflow.port_limit + b.overflow.port_limit, 0);
        // The third is below its share: no limit holds it back, only a set that is full.
        let quiet = node.outbound("quiet");
        assert_eq!(total(&quiet), sent(&own, 100));
        assert_eq!((quiet.overflow.fair_share, quiet.overflow.port_limit), (0, 0));
        assert_eq!(quiet.overflow.window_full, 100 * (256 - quiet.groups.len() as u64));
        assert!(quiet.groups.len() > 128, "{}", quiet.groups.len());
    });
}

/// Neighbour discovery (RFC 4861 §4) and MLD of a captured frame's ICMPv6 type; IPv6 with at most a hop-by-hop header.
fn control_of(frame: &[u8]) -> Option<ControlCounts> {
    assert_eq!(frame[12..14], [0x86, 0xdd], "only IPv6 is expected: {frame:02x?}");
    let at = if frame[20] == 0 { 54 + 8 } else { 54 };
    let mut counts = ControlCounts::default();
    match frame[at] {
        133..=137 => counts.neighbour_discovery = 1,
        143 => counts.mldv2_report = 1,
        _ => return None,
    }
    Some(counts)
}

#[test]
fn an_idle_pod_with_ipv6_has_neighbour_discovery_and_mld_and_no_data() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut kernel = open(&bpffs.options());
        let wire = Wire::with_ipv6("idle");
        attach(&mut kernel, "idle", &wire, &[]);
        // A device that is down cannot be captured on, and one without a carrier sends nothing.
        ip("link set idle up");
        let capture = Capture::on("idle");
        wire.up(1500);
        let (mut outbound, mut inbound) = (ControlCounts::default(), ControlCounts::default());
        // Duplicate address detection and a router solicitation of either side: the counters meet the capture then, and
        // a frame between the two readings is seen in the next round.
        eventually("what two idle kernels send, in both ledgers alike", || {
            for seen in capture.take() {
                let counts = control_of(&seen.frame).unwrap_or_else(|| panic!("no control: {:02x?}", seen.frame));
                let side = if seen.outgoing { &mut inbound } else { &mut outbound };
                side.neighbour_discovery += counts.neighbour_discovery;
                side.mldv2_report += counts.mldv2_report;
            }
            let enough = |side: &ControlCounts| side.neighbour_discovery >= 2 && side.mldv2_report >= 1;
            let reading = reading(&kernel, "idle");
            enough(&inbound)
                && enough(&outbound)
                && (reading.outbound.control, reading.inbound.control) == (outbound, inbound)
        });
        let reading = reading(&kernel, "idle");
        for direction in [&reading.outbound, &reading.inbound] {
            assert_eq!(total(direction), (0, 0, 0));
            assert!(direction.groups.is_empty(), "{:?}", direction.groups);
            assert_eq!(refused(direction), 0);
        }
    });
}
