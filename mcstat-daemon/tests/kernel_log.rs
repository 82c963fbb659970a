//! The object with debug messages (feature `log` of mcstat-ebpf): it loads, and what it says comes out of its ring.
//!
//! Built here, as the benchmark builds its own: the agent of a test run embeds the object without them.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "../../xtask/src/build_ebpf.rs"]
mod build_ebpf;
mod support;

use std::{
    env,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{EbpfLoader, maps::RingBuf, programs::SchedClassifier};
use build_ebpf::{Job, build, find_linker, find_toolchain};
use mcstat::agent::bpf::sys;
use mcstat_common::abi::WAYS;
use support::{Bpffs, enter, frames, in_netns, open, pod_port};

fn object() -> PathBuf {
    let exe = env::current_exe().unwrap();
    let mut above = exe.ancestors();
    let target = above.find(|path| path.join("CACHEDIR.TAG").is_file());
    let endian = if cfg!(target_endian = "big") { "big" } else { "little" };
    let job = Job {
        workspace: Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(),
        target_dir: &target
            .expect("cargo's target directory holds this program")
            .join("ebpf-log"),
        arch: env::consts::ARCH,
        endian,
        log: true,
    };
    let linker = find_linker().expect("bpf-linker: run `cargo xtask setup`");
    let toolchain = find_toolchain(endian).expect("a Rust toolchain for BPF: run `cargo xtask setup`");
    build(&job, &toolchain, &linker).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_object_with_debug_messages_loads_and_says_what_was_malformed_refused_or_held_back() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        (options.limits.slots_per_port, options.events) = (1, (1, 1));
        let kernel = open(&options);
        enter(&kernel, &pod_port("pod", "lo", 1, &[]));
        let settings = kernel.maps.settings.read(0);
        let slots = kernel.maps.slots.len();
        let (sets, ring) = (slots / WAYS, options.limits.ring_bytes);
        let mut loader = EbpfLoader::new();
        loader.override_global("SETS", &sets, true);
        loader.override_global("SEED", &settings.seed, true);
        for name in ["slots", "counters", "carried"] {
            loader.map_max_entries(name, slots);
        }
        loader.map_max_entries("events", ring);
        let maps = [
            "slots",
            "counters",
            "carried",
            "ports",
            "port_stats",
            "port_carried",
            "settings",
            "event_counts",
            "events",
        ];
        for name in maps {
            loader.map_pin_path(name, options.pins().join(name));
        }
        let mut logging = loader.load_file(object()).unwrap();
        for name in ["mcstat_outbound", "mcstat_inbound", "mcstat_clock"] {
            let program: &mut SchedClassifier = logging.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let mut messages = RingBuf::try_from(logging.take_map("AYA_LOGS").unwrap()).unwrap();
        let program: &SchedClassifier = logging.program("mcstat_outbound").unwrap().try_into().unwrap();
        let run = |frame: &[u8]| {
            sys::test_run(program.fd().unwrap().as_fd(), frame, 1).unwrap();
        };
        let mut said = |frames: &[Vec<u8>]| -> String {
            frames.iter().for_each(|frame| run(frame));
            let mut text = String::new();
            while let Some(message) = messages.next() {
                text.push_str(&String::from_utf8_lossy(&message));
            }
            text
        };
        let igmp = frames::ipv4(
            [10, 0, 0, 2].into(),
            [239, 1, 1, 1].into(),
            2,
            1,
            0,
            &[0x16, 0, 0, 0, 239, 1, 1, 1],
        );
        let mut broken = frames::data("10.0.0.2", "239.1.1.1", 50);
        broken[14] = 0x55;
        let group = |group| frames::data("10.0.0.2", group, 50);
        assert_eq!(
            said(&[group("239.1.1.1"), group("239.1.1.1")]),
            "",
            "nothing from the hot path"
        );
        assert!(said(&[group("239.1.1.2")]).contains("no slot: port at "));
        assert!(said(&[broken]).contains("malformed: ifindex "));
        assert!(said(&[frames::frame4(&igmp), frames::frame4(&igmp)]).contains("event held back: ifindex "));
    });
}
