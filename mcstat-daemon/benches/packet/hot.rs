//! The same packet again and again: what passes by, and what hits a READY slot.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    Scale,
    objects::{Subjects, ns_per_packet},
    stats::{Series, interleave, last_cpu},
    support::{self, Bpffs, frames, in_netns},
};

const PROGRAMS: [&str; 5] = [
    "bench_empty",
    "bench_empty_b",
    "mcstat_outbound",
    "bench_hash",
    "bench_hash_bare",
];
const EMPTY: usize = 0;
const EMPTY_B: usize = 1;
const MCSTAT: usize = 2;
const HASH: usize = 3;
const BARE: usize = 4;

/// A packet; the group that it is counted in, if any.
struct Packet {
    name: &'static str,
    group: Option<&'static str>,
    frame: Vec<u8>,
}

fn packets() -> Vec<Packet> {
    let unicast = |protocol| {
        let packet = frames::ipv4(
            "10.0.0.2".parse().unwrap(),
            "10.0.0.3".parse().unwrap(),
            protocol,
            64,
            0,
            &frames::udp(22),
        );
        let mut frame = frames::frame4(&packet);
        frame[..6].copy_from_slice(&[0x02, 0x42, 0xac, 0x11, 0x00, 0x03]);
        frame
    };
    let mut arp = frames::ethernet(0x0806);
    arp[..6].fill(0xff);
    arp.resize(64, 0);
    let data = |name, group| Packet {
        name,
        group: Some(group),
        frame: frames::data(if group.contains(':') { "fd00::2" } else { "10.0.0.2" }, group, 22),
    };
    let tagged = |packet: Packet| Packet {
        frame: frames::tagged(&packet.frame, 0x8100, 5),
        ..packet
    };
    let passed = |name, frame| Packet {
        name,
        group: None,
        frame,
    };
    vec![
        passed("unicast TCP", unicast(6)),
        passed("unicast UDP", unicast(17)),
        passed("ARP", arp),
        data("IPv4", "239.1.2.3"),
        data("IPv6", "ff0e::1:3"),
        data("SSM IPv4", "232.1.2.3"),
        data("SSM IPv6", "ff3e::1:3"),
        tagged(data("IPv4, VLAN tag in the frame", "239.1.2.4")),
        tagged(data("IPv6, VLAN tag in the frame", "ff0e::1:4")),
    ]
}

/// Measures and prints goals 1 and 2.
pub(crate) fn run(scale: Scale) {
    in_netns(move || {
        support::pin_to(last_cpu());
        let bpffs = Bpffs::new();
        let mut subjects = Subjects::open(&bpffs);
        support::enter(&subjects.kernel, &support::pod_port("hot", "lo", 1, &["10.0.0.2"]));
        let programs = PROGRAMS.map(|name| subjects.program(name));
        println!("\n## One packet again and again (ns of CPU a packet, min–med–max)\n");
        println!(
            "| packet | empty | empty again: Δ | mcstat | **mcstat: Δ** | × empty | hash: Δ | bare hash: Δ | **mcstat Δ ÷ hash Δ** |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        let packets = packets();
        for packet in &packets {
            // The first inserts.
            programs.iter().for_each(|program| {
                ns_per_packet(program, &packet.frame, 1);
            });
            let series = interleave(scale.rounds, programs.len(), |program| {
                ns_per_packet(&programs[program], &packet.frame, scale.repeat)
            });
            print_row(packet, &series);
        }
        check(&subjects, &packets, 1 + scale.rounds as u64 * u64::from(scale.repeat));
    });
}

fn print_row(packet: &Packet, series: &[Series]) {
    let above = |program: usize| series[program].above(&series[EMPTY]);
    let factor = series[MCSTAT].paired(&series[EMPTY], |a, b| a / b).median();
    let ratio = if packet.group.is_some() {
        format!("{:.2}", above(MCSTAT) / above(HASH))
    } else {
        "–".into()
    };
    println!(
        "| {} | {} | {:+.1} | {} | **{:+.1}** | {factor:.2} | {:+.1} | {:+.1} | **{ratio}** |",
        packet.name,
        series[EMPTY].spread(1),
        above(EMPTY_B),
        series[MCSTAT].spread(1),
        above(MCSTAT),
        above(HASH),
        above(BARE),
    );
}

/// Every group's packets and bytes, in the slots and in both kinds of hash entries.
fn check(subjects: &Subjects, packets: &[Packet], sent: u64) {
    let wanted: BTreeMap<IpAddr, (u64, u64)> = packets
        .iter()
        .filter_map(|packet| {
            let group = packet.group?.parse().unwrap();
            Some((group, (sent, sent * packet.frame.len() as u64)))
        })
        .collect();
    let port = support::reading(&subjects.kernel, "hot");
    let counted: BTreeMap<IpAddr, (u64, u64)> = port
        .outbound
        .groups
        .iter()
        .map(|group| (group.group, (group.admitted.packets, group.admitted.bytes)))
        .collect();
    assert_eq!(counted, wanted, "mcstat's slots");
    assert_eq!(support::total(&port.outbound).0, sent * wanted.len() as u64);
    for map in ["hash_entries", "bare_entries"] {
        let counted: BTreeMap<IpAddr, (u64, u64)> = subjects
            .hash_entries(map)
            .into_iter()
            .map(|(_, group, packets, bytes)| (group, (packets, bytes)))
            .collect();
        assert_eq!(counted, wanted, "{map}");
    }
}
