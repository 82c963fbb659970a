//! What a restart, a new program or a new ABI must not change: totals and start times.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use mcstat::{
    agent::bpf::{Kernel, attach::Hook, sys, table, upgrade},
    api::rule::{PolicyReference, RuleReference},
    ledger::Denials,
};
use mcstat_common::abi::{DENIED_ENTRIES, PortBook};
use support::{Bpffs, enter, frames, in_netns, need_tcx, open, pod_port, reading, total, veth::Veth};

const GROUPS: [&str; 3] = ["239.1.1.1", "239.1.1.2", "ff3e::1:3"];

fn frames() -> Vec<Vec<u8>> {
    vec![
        frames::data("10.0.0.2", "239.1.1.1", 100),
        frames::data("10.0.0.2", "239.1.1.2", 60),
        frames::data("fd00::2", "ff3e::1:3", 200),
    ]
}

/// Sends until told to stop; returns how many frames and bytes went out.
fn sender(veth: &Veth) -> (Arc<AtomicBool>, thread::JoinHandle<(u64, u64)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let socket = veth.pod_socket();
    let handle = thread::spawn({
        let stop = stop.clone();
        move || {
            let frames = frames();
            let (mut packets, mut bytes) = (0, 0);
            while !stop.load(Ordering::SeqCst) {
                for frame in &frames {
                    socket.send(frame);
                    packets += 1;
                    bytes += frame.len() as u64;
                }
            }
            (packets, bytes)
        }
    });
    (stop, handle)
}

#[test]
fn ten_program_replacements_during_a_burst_lose_nothing() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let veth = Veth::new("mch0");
        let mut kernel = open(&bpffs.options());
        let entry = enter(&kernel, &veth.port("pod"));
        kernel.programs.attach(&entry).unwrap();
        let socket = veth.pod_socket();
        let burst = thread::spawn(move || {
            let frame = frames::data("10.0.0.2", "239.1.1.1", 100);
            (0..200_000).for_each(|_| socket.send(&frame));
        });
        for _ in 0..10 {
            // A new object each time, as a restarted agent has.
            drop(kernel);
            kernel = open(&bpffs.options());
            kernel.programs.attach(&entry).unwrap();
        }
        burst.join().unwrap();
        let (packets, bytes) = veth.host_received();
        let port = reading(&kernel, "pod");
        assert_eq!(total(&port.outbound), (packets, packets, bytes));
        assert!(packets > 190_000, "the device itself lost too many: {packets}");
    });
}

#[test]
fn a_new_abi_takes_every_total_over_while_packets_pass() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let veth = Veth::new("mch0");
        let mut old_options = bpffs.options();
        old_options.limits.slots = 1024;
        let mut kernel = open(&old_options);
        let entry = enter(&kernel, &veth.port("pod"));
        kernel.programs.attach(&entry).unwrap();
        let (stop, handle) = sender(&veth);
        thread::sleep(Duration::from_millis(300));
        let before = reading(&kernel, "pod");
        assert!(total(&before.outbound).0 > 0);
        // What is kept of a port beside its counters.
        let book = PortBook {
            sent: 7,
            ..PortBook::default()
        };
        kernel.maps.kept.write_books([(before.id, book)].into_iter()).unwrap();
        let denials = denials(&[(before.id, "239.1.1.1"), (before.id, "ff0e::1")]);
        let kept = denials.iter().map(|(key, rule)| (*key, rule));
        kernel.maps.kept.write_denied(kept).unwrap();
        let gone = enter(&kernel, &pod_port("gone", "lo", 1, &[]));
        kernel.maps.kept.remember(&kernel.maps, &gone).unwrap();
        table::leave(&kernel.maps, &gone);
        drop(kernel);

        // The test ABI: the next version, another size of table, another seed.
        let mut new_options = bpffs.options();
        new_options.abi += 1;
        new_options.limits.slots = 4096;
        let kernel = Kernel::open_and_upgrade(&new_options, Hook::Tcx, &[old_options.abi]).unwrap();
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::SeqCst);
        let (sent, _) = handle.join().unwrap();

        let (packets, bytes) = veth.host_received();
        assert!(packets > sent / 2);
        let after = reading(&kernel, "pod");
        assert_eq!(total(&after.outbound), (packets, packets, bytes));
        assert_eq!(after.start, before.start);
        assert_eq!(after.id, before.id);
        assert_eq!(kernel.maps.kept.books(), [(before.id, book)].into());
        assert_eq!(kernel.maps.kept.denied(), denials);
        let vanished = kernel.maps.kept.vanished();
        assert_eq!(vanished.keys().collect::<Vec<_>>(), [&gone.port.id]);
        assert_eq!(vanished[&gone.port.id].port, gone.port);
        for group in GROUPS {
            let of = |port: &mcstat::ledger::snapshot::PortReading| {
                port.outbound
                    .groups
                    .iter()
                    .find(|reading| reading.group == group.parse::<std::net::IpAddr>().unwrap())
                    .cloned()
                    .unwrap()
            };
            assert_eq!(of(&after).since, of(&before).since, "{group}");
            assert!(of(&after).admitted.packets > of(&before).admitted.packets, "{group}");
        }
        assert!(!old_options.pins().exists(), "the pins of the old ABI are gone");
        assert_eq!(fs::read_dir(bpffs.path().join("mcstat")).unwrap().count(), 1);
    });
}

fn denials(of: &[(u32, &str)]) -> Denials {
    let rule = RuleReference {
        policy: PolicyReference {
            kind: "NetworkPolicy".to_owned(),
            namespace: "mkt".to_owned(),
            name: "p".to_owned(),
        },
        rule: "no-reports".to_owned(),
        action: "Drop".to_owned(),
    };
    let denials = of
        .iter()
        .map(|(port, group)| ((*port, group.parse().unwrap()), rule.clone()));
    denials.collect()
}

/// The first maps of this ABI had no `denied`: it is made, and the others stay.
#[test]
fn maps_of_before_there_were_denials_are_used_again() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut kernel = open(&bpffs.options());
        enter(&kernel, &pod_port("pod", "lo", 1, &[]));
        let program = kernel.programs.program("mcstat_outbound").unwrap().fd().unwrap();
        sys::test_run(program.as_fd(), &frames::data("10.0.0.2", "239.1.1.1", 100), 5).unwrap();
        drop(kernel);
        fs::remove_file(bpffs.options().pins().join("denied")).unwrap();

        let kernel = open(&bpffs.options());
        assert!(!kernel.fresh);
        let read = reading(&kernel, "pod");
        assert_eq!(total(&read.outbound).0, 5);
        assert_eq!(kernel.maps.kept.denied(), Denials::new());
        let write = |kernel: &Kernel, all: &Denials| {
            let all = all.iter().map(|(key, rule)| (*key, rule));
            kernel.maps.kept.write_denied(all).unwrap();
        };
        let both = denials(&[(read.id, "239.1.1.1"), (read.id, "239.1.1.2")]);
        write(&kernel, &both);
        drop(kernel);
        let kernel = open(&bpffs.options());
        assert_eq!(kernel.maps.kept.denied(), both);
        // What is not said any more is forgotten.
        let one = denials(&[(read.id, "239.1.1.2")]);
        write(&kernel, &one);
        drop(kernel);
        assert_eq!(open(&bpffs.options()).maps.kept.denied(), one);
    });
}

/// The map is bounded: what has no room is an error, and room comes back.
#[test]
fn a_full_map_of_denials_is_told_and_takes_more_when_there_is_room() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let kernel = open(&bpffs.options());
        let many = |count: u32| {
            let groups: Vec<String> = (0..count).map(|n| format!("239.1.{}.{}", n / 256, n % 256)).collect();
            denials(&groups.iter().map(|group| (1, group.as_str())).collect::<Vec<_>>())
        };
        let write = |all: &Denials| {
            kernel
                .maps
                .kept
                .write_denied(all.iter().map(|(key, rule)| (*key, rule)))
        };
        write(&many(DENIED_ENTRIES)).unwrap();
        write(&many(DENIED_ENTRIES + 1)).unwrap_err();
        assert_eq!(kernel.maps.kept.denied(), many(DENIED_ENTRIES));
        // A denial in front of all others finds no room; the rule of the last one has another name, and that is taken.
        let mut crowded = many(DENIED_ENTRIES);
        let mut wanted = crowded.clone();
        let last = |all: &mut Denials| all.last_entry().unwrap().get_mut().rule = "renamed".to_owned();
        crowded.extend(denials(&[(0, "239.1.0.0")]));
        last(&mut crowded);
        last(&mut wanted);
        write(&crowded).unwrap_err();
        assert_eq!(kernel.maps.kept.denied(), wanted);
        let mut others = many(DENIED_ENTRIES + 1);
        others.pop_first();
        write(&others).unwrap();
        assert_eq!(kernel.maps.kept.denied(), others);
    });
}

#[test]
fn an_unknown_abi_is_kept_aside_and_goes_on_counting() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        options.abi = 77;
        let mut strange = open(&options);
        enter(&strange, &pod_port("pod", "lo", 1, &[]));
        let program: OwnedFd = strange
            .programs
            .program("mcstat_outbound")
            .unwrap()
            .fd()
            .unwrap()
            .as_fd()
            .try_clone_to_owned()
            .unwrap();
        drop(strange);
        assert_eq!(upgrade::find(&bpffs.options(), upgrade::KNOWN), [0u32; 0]);
        let kernel = open(&bpffs.options());
        sys::test_run(program.as_fd(), &frames::data("10.0.0.2", "239.1.1.1", 100), 5).unwrap();
        drop(kernel);
        assert_eq!(total(&reading(&open(&options), "pod").outbound).0, 5);
    });
}

#[test]
fn on_tcx_links_of_no_port_are_taken_off_at_the_start() {
    need_tcx();
    in_netns(|| {
        let bpffs = Bpffs::new();
        let (veth, left) = (Veth::new("mch0"), Veth::new("mch1"));
        let mut kernel = open(&bpffs.options());
        for (name, veth) in [("stays", &veth), ("left", &left)] {
            let entry = enter(&kernel, &veth.port(name));
            kernel.programs.attach(&entry).unwrap();
            if name == "left" {
                table::leave(&kernel.maps, &entry);
            }
        }
        let pins = || {
            let files = fs::read_dir(bpffs.options().pins().join("links")).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(pins().len(), 4);
        drop(kernel);
        let _kernel = open(&bpffs.options());
        assert_eq!(pins(), ["1-inbound", "1-outbound"].map(str::to_owned).into());
    });
}

#[test]
fn two_agents_do_not_share_maps() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let _first = open(&bpffs.options());
        let Err(error) = Kernel::open(&bpffs.options(), Hook::Tcx) else {
            panic!("a second agent opened the maps")
        };
        assert!(error.to_string().starts_with("another mcstat agent uses "), "{error}");
    });
}
