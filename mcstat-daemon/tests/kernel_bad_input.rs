//! What others do to us: maps that are not ours where ours belong, and a Pod that floods messages.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::{collections::BTreeMap, fs, net::Ipv4Addr, sync::Arc};

use aya::maps::MapInfo;
use mcstat::{
    agent::bpf::{
        Kernel, KernelError,
        attach::Hook,
        maps::{Options, update_settings},
        ring,
    },
    ledger::snapshot::KernelReading,
};
use mcstat_common::{abi::ABI_VERSION, control::ControlCounts};
use support::{
    Bpffs, attach, frames, in_netns, open, read_all, reading, run, total,
    wire::{Sender, Wire},
};

fn refused(options: &Options) -> KernelError {
    match Kernel::open(options, Hook::Tcx) {
        Ok(_) => panic!("the agent took the maps"),
        Err(error) => error,
    }
}

/// A map in place of ours: its name, what `bpftool map create` is told, and what the refusal says of it.
const STRANGE: [(&str, &str, &str); 6] = [
    (
        "ports",
        "type hash key 4 value 512 entries 1024",
        "Hash, key 4 B, value 512 B, 1024 entries",
    ),
    (
        "port_stats",
        "type array key 4 value 8 entries 2048",
        "Array, key 4 B, value 8 B, 2048 entries",
    ),
    (
        "counters",
        "type percpu_array key 4 value 64 entries 8",
        "PerCpuArray, key 4 B, value 64 B, 8 entries",
    ),
    (
        "carried",
        "type percpu_array key 4 value 80 entries 16384",
        "PerCpuArray, key 4 B, value 80 B, 16384 entries",
    ),
    (
        "settings",
        "type array key 4 value 16 entries 1",
        "Array, key 4 B, value 16 B, 1 entries",
    ),
    (
        "events",
        "type array key 4 value 4 entries 4096",
        "Array, key 4 B, value 4 B, 4096 entries",
    ),
];

#[test]
fn a_map_that_is_not_ours_is_refused_by_name_and_nothing_is_lost() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let options = bpffs.options();
        let wire = Wire::new("pod-a");
        let mut kernel = open(&options);
        attach(&mut kernel, "a", &wire, &["10.0.0.2"]);
        wire.up(1500);
        drop(kernel);
        let frame = [frames::data("10.0.0.2", "239.1.1.1", 100)];
        let aside = bpffs.path().join("aside");
        for (name, map, found) in STRANGE {
            let pin = options.pins().join(name);
            fs::rename(&pin, &aside).unwrap();
            run("bpftool", &format!("map create {} {map} name strange", pin.display()));
            let id = MapInfo::from_pin(&pin).unwrap().id();
            let error = refused(&options);
            let text = error.to_string();
            assert!(matches!(error, KernelError::ForeignMap { .. }), "{name}: {error:?}");
            assert!(text.starts_with(&format!("{} is not the map", pin.display())), "{text}");
            assert!(text.contains(&format!("it is {found}, wanted ")), "{name}: {text}");
            // Counting goes on meanwhile, and the strange map is where it was.
            wire.pod.run(|| Sender::on("eth0").send(&frame, 100));
            assert_eq!(MapInfo::from_pin(&pin).unwrap().id(), id, "{name}");
            fs::remove_file(&pin).unwrap();
            fs::rename(&aside, &pin).unwrap();
        }
        let bytes = 600 * frame[0].len() as u64;
        assert_eq!(total(&reading(&open(&options), "a").outbound), (600, 600, bytes));
    });
}

#[test]
fn maps_of_another_abi_in_our_directory_are_refused_and_kept() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let options = bpffs.options();
        let wire = Wire::new("pod-a");
        let mut kernel = open(&options);
        attach(&mut kernel, "a", &wire, &["10.0.0.2"]);
        wire.up(1500);
        let maps = Arc::clone(&kernel.maps);
        update_settings(&maps, |settings| settings.abi = 99);
        drop(kernel);
        let text = refused(&options).to_string();
        let wanted = format!(
            "{} holds maps of ABI 99, this mcstat knows {ABI_VERSION}; ",
            options.pins().display()
        );
        assert!(text.starts_with(&wanted), "{text}");
        wire.pod
            .run(|| Sender::on("eth0").send(&[frames::data("10.0.0.2", "239.1.1.1", 100)], 50));
        update_settings(&maps, |settings| settings.abi = ABI_VERSION);
        drop(maps);
        assert_eq!(total(&reading(&open(&options), "a").outbound).0, 50);
    });
}

/// An IGMPv2 report for a group (RFC 2236 §2), with the router alert option left out.
fn report(group: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0x16, 0, 0, 0];
    message.extend_from_slice(&group);
    let sum = frames::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frames::frame4(&frames::ipv4(
        Ipv4Addr::new(10, 0, 0, 2),
        group.into(),
        2,
        1,
        0,
        &message,
    ))
}

/// What a flood of `FLOOD` reports beside `FEW` of another Pod left behind.
struct Flood {
    kernel: KernelReading,
    limited: [u64; 2],
    control: [ControlCounts; 2],
    /// Messages taken from the ring, by port.
    taken: BTreeMap<u32, u64>,
    ids: [u32; 2],
}

const FLOOD: u64 = 5000;
const FEW: u64 = 50;

fn flood(ring_bytes: u32, events: (u32, u32)) -> Flood {
    in_netns(move || {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        (options.limits.ring_bytes, options.events) = (ring_bytes, events);
        let mut kernel = open(&options);
        let wires = [Wire::new("flooding"), Wire::new("other")];
        let ids = wires.each_ref().map(|wire| {
            let entry = attach(&mut kernel, &wire.host, wire, &["10.0.0.2"]);
            wire.up(1500);
            entry.port.id
        });
        let [flooding, other] = &wires;
        let frames: Vec<_> = (0..50).map(|group| report([239, 1, 1, group])).collect();
        // The other Pod's messages in the middle of the flood.
        for part in 0..10 {
            flooding.pod.run(|| Sender::on("eth0").send(&frames, 10));
            if part == 5 {
                other.pod.run(|| Sender::on("eth0").send(&frames, 1));
            }
        }
        let mut taken = BTreeMap::new();
        for event in ring::drain(&mut kernel.ring) {
            assert_eq!(event.header.captured, 28, "an IPv4 header and eight bytes");
            *taken.entry(event.header.port).or_default() += 1;
        }
        let health = read_all(&kernel).kernel;
        let outbound = wires.each_ref().map(|wire| reading(&kernel, &wire.host).outbound);
        Flood {
            kernel: health,
            limited: outbound.each_ref().map(|outbound| outbound.events_limited),
            control: outbound.each_ref().map(|outbound| outbound.control),
            taken,
            ids,
        }
    })
}

#[test]
fn a_flood_of_messages_costs_the_flooding_pod_its_own_events_only() {
    let flood = flood(1 << 20, (100, 400));
    let reports = |count| ControlCounts {
        igmpv2_report: count,
        ..ControlCounts::default()
    };
    assert_eq!(
        flood.control,
        [reports(FLOOD), reports(FEW)],
        "every message is counted"
    );
    let [flooding, other] = flood.ids;
    let handed = flood.taken[&flooding];
    assert_eq!(flood.taken[&other], FEW, "every message of the other Pod is handed up");
    assert_eq!(flood.limited, [FLOOD - handed, 0], "limited is what was not handed up");
    assert!(handed >= 400, "the burst: {handed}");
    assert!(flood.limited[0] > FLOOD / 2, "no flood: {:?}", flood.limited);
    let health = flood.kernel;
    assert_eq!((health.events_handed, health.events_lost), (handed + FEW, 0));
    assert_eq!(health.events_limited, FLOOD - handed);
}

#[test]
fn what_the_ring_has_no_room_for_is_lost_and_said_so() {
    // Room for 327 records of 192 bytes and their 8-byte heads, and no rate to speak of.
    let flood = flood(1 << 16, (100_000, 1_000_000));
    let health = flood.kernel;
    assert_eq!(flood.taken.values().sum::<u64>(), health.events_handed);
    assert_eq!((health.events_handed, health.events_limited), ((1 << 16) / 200, 0));
    assert_eq!(health.events_handed + health.events_lost, FLOOD + FEW);
    assert_eq!(
        flood.control[0].igmpv2_report + flood.control[1].igmpv2_report,
        FLOOD + FEW
    );
}
