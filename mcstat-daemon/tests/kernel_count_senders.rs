//! What real kernel senders and receive offloads make of datagrams: fragments, UDP GSO, GRO, and frames whose headers
//! lie outside the linear part of the skb.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::net::{SocketAddr, UdpSocket};

use mcstat::{
    agent::bpf::Kernel,
    ledger::snapshot::{DirectionReading, PortReading, Traffic},
};
use mcstat_common::control::ControlCounts;
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use support::{
    Bpffs, attach, frames, group, ifindex, in_netns, ip, open, reading, run,
    wire::{Capture, Sender, Wire},
};

const ETHERNET: u64 = 14;
const IPV4_UDP: u64 = 20 + 8;

struct Bench {
    wire: Wire,
    kernel: Kernel,
    // Unmounted after everything that is pinned in it is closed.
    _bpffs: Bpffs,
}

impl Bench {
    /// A Pod with addresses and routes, MTU 1,500.
    fn new() -> Self {
        let bpffs = Bpffs::new();
        let mut kernel = open(&bpffs.options());
        let wire = Wire::with_ipv6("pod-a");
        attach(&mut kernel, "a", &wire, &["10.0.0.2"]);
        wire.up(1500);
        wire.pod.run(|| {
            ip("addr add 10.0.0.2/24 dev eth0");
            ip("-6 addr add fd00::2/64 dev eth0 nodad");
            ip("route add 239.0.0.0/8 dev eth0");
        });
        ip("addr add 10.0.0.1/24 dev pod-a");
        ip("-6 addr add fd00::1/64 dev pod-a nodad");
        ip("route add 239.0.0.0/8 dev pod-a");
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

/// A socket of this thread's namespace, connected to a group on `interface`.
fn socket(group: &str, interface: &str) -> UdpSocket {
    let mut group: SocketAddr = group.parse().unwrap();
    let any = if group.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    if let SocketAddr::V6(group) = &mut group {
        group.set_scope_id(ifindex(interface));
    }
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(group).unwrap();
    socket
}

/// Packets and bytes to a group in a capture; the judge who knows neither the sender nor the counters.
fn seen(capture: &Capture, destination_at: usize, destination: &[u8]) -> (u64, u64) {
    let frames = capture.take().into_iter().map(|seen| seen.frame);
    frames
        .filter(|frame| frame.get(destination_at..destination_at + destination.len()) == Some(destination))
        .fold((0, 0), |sum, frame| (sum.0 + 1, sum.1 + frame.len() as u64))
}

#[test]
fn all_fragments_of_a_datagram_count_to_its_group() {
    in_netns(|| {
        let bench = Bench::new();
        let capture = Capture::on("pod-a");
        // 4,000 bytes and the UDP header in fragments of at most 1,480 (IPv4) and 1,448 (IPv6) bytes: 3 each.
        let wanted4 = 3 * (ETHERNET + 20) + 4008;
        let wanted6 = 3 * (ETHERNET + 40 + 8) + 4008;
        let send = |interface: &str| {
            let (v4, v6) = (
                socket("239.2.2.2:5000", interface),
                socket("[ff05::22]:5000", interface),
            );
            for _ in 0..200 {
                assert_eq!(v4.send(&[7; 4000]).unwrap(), 4000);
                assert_eq!(v6.send(&[7; 4000]).unwrap(), 4000);
            }
        };
        bench.wire.pod.run(|| send("eth0"));
        let judge = (seen(&capture, 30, &[239, 2, 2, 2]), 600, 200 * wanted4);
        assert_eq!(judge.0, (judge.1, judge.2), "what arrived, IPv4");
        send("pod-a");
        let reading = bench.reading();
        for direction in [&reading.outbound, &reading.inbound] {
            let traffic = |name: &str| group(direction, name, None).admitted;
            let three_fragments = |bytes| Traffic {
                packets: 600,
                segments: 600,
                bytes: 200 * bytes,
            };
            assert_eq!(traffic("239.2.2.2"), three_fragments(wanted4));
            assert_eq!(traffic("ff05::22"), three_fragments(wanted6));
            assert_eq!(direction.groups.len(), 2, "{:?}", direction.groups);
            assert_eq!(direction.control.truncated + direction.control.bad_length, 0);
        }
    });
}

/// Sends `times` × 14,000 bytes in segments of 1,400 (UDP_SEGMENT, linux/udp.h).
fn send_segments(group: &str, interface: &str, times: usize) {
    let socket = socket(group, interface);
    setsockopt(&socket, UdpGsoSegment, &1400).expect("UDP_SEGMENT (Linux 4.18)");
    for _ in 0..times {
        assert_eq!(socket.send(&[3; 14_000]).unwrap(), 14_000);
    }
}

#[test]
fn a_segmented_send_is_one_packet_of_many_segments() {
    in_netns(|| {
        let bench = Bench::new();
        let capture = Capture::on("pod-a");
        let (v4, v6) = ("239.3.3.3:5000", "[ff05::33]:5000");
        let send = |interface: &str| {
            send_segments(v4, interface, 20);
            send_segments(v6, interface, 20);
        };
        bench.wire.pod.run(|| send("eth0"));
        assert_eq!(
            seen(&capture, 30, &[239, 3, 3, 3]),
            (20, 280_840),
            "the kernel segmented by itself"
        );
        send("pod-a");
        let reading = bench.reading();
        for direction in [&reading.outbound, &reading.inbound] {
            let once = |bytes| Traffic {
                packets: 20,
                segments: 200,
                bytes,
            };
            assert_eq!(
                group(direction, "239.3.3.3", None).admitted,
                once(20 * (14_000 + ETHERNET + IPV4_UDP))
            );
            assert_eq!(
                group(direction, "ff05::33", None).admitted,
                once(20 * (14_000 + ETHERNET + 48))
            );
        }
        // With the offload off the sender's kernel segments before the veth: the same segments, each a packet.
        bench.wire.pod.run(|| {
            run("ethtool", "-K eth0 tx-udp-segmentation off");
            send_segments("239.3.3.4:5000", "eth0", 20);
        });
        let wanted = Traffic {
            packets: 200,
            segments: 200,
            bytes: 200 * (1400 + ETHERNET + IPV4_UDP),
        };
        assert_eq!(group(&bench.reading().outbound, "239.3.3.4", None).admitted, wanted);
    });
}

#[test]
fn receive_offload_joins_packets_but_keeps_segments() {
    in_netns(|| {
        let bench = Bench::new();
        run("ethtool", "-K pod-a gro on rx-udp-gro-forwarding on");
        bench.wire.pod.run(|| {
            let socket = socket("239.4.4.4:5000", "eth0");
            (0..2000).for_each(|_| assert_eq!(socket.send(&[1; 1000]).unwrap(), 1000));
        });
        // NAPI works in its own time, but the last datagram to come is the last to be counted.
        support::wire::eventually("2,000 segments", || {
            bench
                .reading()
                .outbound
                .groups
                .iter()
                .map(|group| group.admitted.segments)
                .sum::<u64>()
                == 2000
        });
        let Traffic { packets, bytes, .. } = group(&bench.reading().outbound, "239.4.4.4", None).admitted;
        assert!((1..=2000).contains(&packets), "{packets}");
        // A joined skb has one header for all its segments.
        assert_eq!(bytes, 2000 * 1000 + packets * (ETHERNET + IPV4_UDP));
    });
}

/// A packet socket puts a frame of more than a page into page fragments and leaves 14 bytes linear
/// (net/packet/af_packet.c, packet_alloc_skb): the IP header is then out of reach of direct packet access.
const BEYOND_A_PAGE: usize = 6000;

#[test]
fn headers_outside_the_linear_part_count_too() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut kernel = open(&bpffs.options());
        let wire = Wire::new("pod-a");
        attach(&mut kernel, "a", &wire, &["10.0.0.2"]);
        wire.up(9000);
        let frames = [
            frames::data("10.0.0.2", "239.5.5.5", BEYOND_A_PAGE),
            frames::data("10.9.9.9", "232.5.5.5", BEYOND_A_PAGE),
            frames::tagged(&frames::data("fd00::2", "ff05::55", BEYOND_A_PAGE), 0x8100, 5),
            frames::frame4(&frames::ipv4([10, 0, 0, 2].into(), [224, 0, 0, 22].into(), 2, 1, 0, &{
                let mut report = vec![0x22, 0, 0, 0, 0, 0, 0, 1];
                report.resize(BEYOND_A_PAGE, 0);
                report
            })),
        ];
        wire.pod.run(|| Sender::on("eth0").send(&frames, 1000));
        Sender::on("pod-a").send(&frames, 1000);
        let reading = reading(&kernel, "a");
        let sides: [(&DirectionReading, u64); 2] = [(&reading.outbound, 4), (&reading.inbound, 0)];
        for (direction, untagged) in sides {
            let wanted = |frame: &Vec<u8>, untagged| Traffic {
                packets: 1000,
                segments: 1000,
                bytes: 1000 * (frame.len() as u64 - untagged),
            };
            assert_eq!(group(direction, "239.5.5.5", None).admitted, wanted(&frames[0], 0));
            assert_eq!(
                group(direction, "232.5.5.5", Some("10.9.9.9")).admitted,
                wanted(&frames[1], 0)
            );
            assert_eq!(
                group(direction, "ff05::55", None).admitted,
                wanted(&frames[2], untagged)
            );
            let control = ControlCounts {
                igmpv3_report: 1000,
                ..ControlCounts::default()
            };
            assert_eq!(direction.control, control);
        }
        assert_eq!(reading.outbound.foreign_source, 1000);
    });
}

/// The control of the test above: such a frame does have its IP header outside the linear part.
#[test]
fn those_frames_are_what_they_are_said_to_be() {
    in_netns(|| {
        let wire = Wire::new("pod-a");
        wire.up(9000);
        // One that fits a page is linear: the same filter passes it on, so that zero below means something.
        for (length, reached) in [(1000, 100), (BEYOND_A_PAGE, 0)] {
            let frames = [frames::data("10.0.0.2", "239.5.5.5", length)];
            assert_eq!(support::linear::reached(&wire, &frames, 100), reached, "{length} bytes");
        }
    });
}
