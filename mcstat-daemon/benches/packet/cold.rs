//! 500 ports × 20 groups in pseudo-random order, picked inside the program.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use mcstat::ledger::snapshot::PortReading;

use crate::{
    Scale,
    objects::{Subjects, ns_per_packet},
    stats::{interleave, last_cpu},
    support::{self, Bpffs, frames, in_netns},
};

const PORTS: usize = 500;
const GROUPS: usize = 20;
/// Enough that every entry has been visited before the first round: the odds that one of 10,000 is not are 2 × 10⁻⁵.
const FIRST: u32 = 200_000;

const PROGRAMS: [(&str, &str); 6] = [
    ("bench_empty", "empty"),
    ("bench_empty_b", "empty again"),
    ("bench_pick", "picking alone"),
    ("bench_cold", "mcstat"),
    ("bench_cold_hash", "hash"),
    ("bench_cold_bare", "bare hash"),
];
const PICK: usize = 2;
const MCSTAT: usize = 3;

/// Measures and prints goal 3.
pub(crate) fn run(scale: Scale) {
    in_netns(move || {
        support::pin_to(last_cpu());
        let bpffs = Bpffs::new();
        let mut subjects = Subjects::open(&bpffs);
        for ifindex in 1..=PORTS as u32 {
            let name = format!("pod-{ifindex}");
            support::enter(
                &subjects.kernel,
                &support::pod_port(&name, "lo", ifindex, &["10.0.0.2"]),
            );
        }
        let programs = PROGRAMS.map(|(name, _)| subjects.program(name));
        let frame = frames::data("10.0.0.2", "239.1.2.3", 22);
        programs.iter().for_each(|program| {
            ns_per_packet(program, &frame, FIRST);
        });
        let series = interleave(scale.rounds, programs.len(), |program| {
            ns_per_packet(&programs[program], &frame, scale.repeat)
        });
        let slots = check(
            &subjects,
            u64::from(FIRST) + scale.rounds as u64 * u64::from(scale.repeat),
        );
        println!("\n## {PORTS} ports × {GROUPS} groups in pseudo-random order (ns of CPU a packet, min–med–max)\n");
        println!(
            "{} of the {} keys have a slot (table of {}); the others are counted in *other groups*.\n",
            slots,
            PORTS * GROUPS,
            subjects.kernel.maps.slots.len()
        );
        println!(
            "| program | ns | Δ to empty | Δ to picking alone | ÷ hash, of Δ to empty | ÷ hash, of Δ to picking |"
        );
        println!("|---|---:|---:|---:|---:|---:|");
        let above = |program: usize, base: usize| series[program].above(&series[base]);
        for (at, (_, name)) in PROGRAMS.iter().enumerate() {
            let ratio = |base| {
                if at < MCSTAT {
                    "–".into()
                } else {
                    format!("{:.2}", above(at, base) / above(4, base))
                }
            };
            println!(
                "| {name} | {} | {:+.1} | {:+.1} | {} | {} |",
                series[at].spread(1),
                above(at, 0),
                above(at, PICK),
                ratio(0),
                ratio(PICK),
            );
        }
    });
}

/// How often each entry was picked in `steps` steps: the same generator as in the program.
fn picks(steps: u64) -> Vec<u64> {
    let mut counts = vec![0; PORTS * GROUPS];
    let mut state = 0u64;
    for _ in 0..steps {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        counts[(((state >> 33) * (PORTS * GROUPS) as u64) >> 31) as usize] += 1;
    }
    counts
}

fn group(at: usize) -> Ipv4Addr {
    Ipv4Addr::from(0xef01_0001 + at as u32)
}

/// Every group of every port, and what went to *other groups*; the number of slots.
fn check(subjects: &Subjects, steps: u64) -> usize {
    let wanted = picks(steps);
    let kernel = &subjects.kernel;
    let ports = support::read_all(kernel).ports;
    assert_eq!(ports.len(), PORTS);
    let mut slots = 0;
    for port in &ports {
        let first = (port.ifindex as usize - 1) * GROUPS;
        let mut without_slot = 0;
        for at in 0..GROUPS {
            let address = IpAddr::V4(group(at));
            match port.outbound.groups.iter().find(|reading| reading.group == address) {
                Some(reading) => {
                    slots += 1;
                    assert_eq!(
                        reading.admitted.packets,
                        wanted[first + at],
                        "{} {address}",
                        port.pod.name
                    );
                }
                None => without_slot += wanted[first + at],
            }
        }
        assert_eq!(
            port.outbound.other[0].admitted.packets, without_slot,
            "{}: other groups",
            port.pod.name
        );
    }
    check_hashes(subjects, &ports, &wanted);
    slots
}

fn check_hashes(subjects: &Subjects, ports: &[PortReading], wanted: &[u64]) {
    let ifindex_of: BTreeMap<u32, u32> = ports.iter().map(|port| (port.id, port.ifindex)).collect();
    for map in ["hash_entries", "bare_entries"] {
        let entries = subjects.hash_entries(map);
        assert_eq!(entries.len(), PORTS * GROUPS, "entries in {map}");
        for (owner, address, packets, _) in entries {
            let ifindex = if map == "hash_entries" {
                ifindex_of[&owner]
            } else {
                owner
            };
            let at = (0..GROUPS).find(|at| address == IpAddr::V4(group(*at))).unwrap();
            let wanted = wanted[(ifindex as usize - 1) * GROUPS + at];
            assert_eq!(packets, wanted, "{map}: {ifindex} {address}");
        }
    }
}
