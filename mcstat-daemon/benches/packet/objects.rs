//! The shipped programs and the ones to compare with, on the same maps.

use std::{
    env,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::OnceLock,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuHashMap},
    programs::SchedClassifier,
};
use mcstat::agent::bpf::{Kernel, sys};
use mcstat_common::abi::WAYS;

use crate::{
    build_ebpf::{Job, build_bin, find_linker, find_toolchain},
    stats, support,
};

/// The shipped object as the agent holds it, and the benchmark's beside it.
pub(crate) struct Subjects {
    pub(crate) kernel: Kernel,
    pub(crate) bench: Ebpf,
}

impl Subjects {
    /// Both objects, loaded, on the maps pinned in `bpffs`.
    pub(crate) fn open(bpffs: &support::Bpffs) -> Self {
        Self::open_with(bpffs, bpffs.options().events)
    }

    /// The same with another event rate: messages a second, and at once.
    pub(crate) fn open_with(bpffs: &support::Bpffs, events: (u32, u32)) -> Self {
        let mut options = bpffs.options();
        options.events = events;
        let kernel = support::open(&options);
        let settings = kernel.maps.settings.read(0);
        let sets = kernel.maps.slots.len() / WAYS;
        let mut loader = EbpfLoader::new();
        loader.override_global("SETS", &sets, true);
        loader.override_global("SEED", &settings.seed, true);
        for name in ["slots", "counters"] {
            loader.map_max_entries(name, kernel.maps.slots.len());
        }
        for name in ["slots", "counters", "ports", "port_stats", "settings"] {
            loader.map_pin_path(name, options.pins().join(name));
        }
        let mut bench = loader
            .load_file(bench_object())
            .unwrap_or_else(|error| panic!("the benchmark's object: {error}"));
        for (name, program) in bench.programs_mut() {
            let program: &mut SchedClassifier = program.try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        Self { kernel, bench }
    }

    /// A program to run: `mcstat_…` of the shipped object, `bench_…` of the other.
    pub(crate) fn program(&mut self, name: &str) -> OwnedFd {
        let program = if name.starts_with("mcstat_") {
            self.kernel.programs.program(name).unwrap()
        } else {
            self.classifier(name)
        };
        program.fd().unwrap().as_fd().try_clone_to_owned().unwrap()
    }

    /// A program of the benchmark's object, to attach.
    pub(crate) fn classifier(&mut self, name: &str) -> &mut SchedClassifier {
        let program = self.bench.program_mut(name);
        program
            .unwrap_or_else(|| panic!("the benchmark's object has no program {name}"))
            .try_into()
            .unwrap()
    }

    /// What a hash (`hash_entries`, `bare_entries`) counted: (port id or ifindex, group, packets, bytes) over all CPUs.
    pub(crate) fn hash_entries(&self, name: &str) -> Vec<(u32, IpAddr, u64, u64)> {
        let map = self.bench.map(name).unwrap();
        let hash = PerCpuHashMap::<&MapData, [u64; 5], [u64; 9]>::try_from(map).unwrap();
        hash.iter()
            .map(|entry| {
                let (key, values) = entry.unwrap();
                let mut group = [0; 16];
                group[..8].copy_from_slice(&key[1].to_ne_bytes());
                group[8..].copy_from_slice(&key[2].to_ne_bytes());
                let sum = |at: usize| values.iter().map(|value| value[at]).sum();
                (key[0] as u32, Ipv6Addr::from(group).to_canonical(), sum(0), sum(1))
            })
            .collect()
    }
}

/// Builds the benchmark's object, once for this process.
fn bench_object() -> &'static Path {
    static OBJECT: OnceLock<std::path::PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let exe = env::current_exe().unwrap();
        let target = exe
            .ancestors()
            .find(|path| path.join("CACHEDIR.TAG").is_file())
            .expect("cargo's target directory holds this program");
        let endian = if cfg!(target_endian = "big") { "big" } else { "little" };
        let linker = find_linker().expect("bpf-linker: run `cargo xtask setup`");
        let toolchain = find_toolchain(endian).expect("a Rust toolchain for BPF: run `cargo xtask setup`");
        let job = Job {
            workspace,
            target_dir: &target.join("ebpf"),
            arch: env::consts::ARCH,
            endian,
            log: false,
        };
        build_bin(&job, &toolchain, &linker, "mcstat-bench", Some("bench")).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// CPU nanoseconds a packet of one test run.
pub(crate) fn ns_per_packet(program: &OwnedFd, frame: &[u8], repeat: u32) -> f64 {
    let before = stats::cpu_ns();
    sys::test_run(program.as_fd(), frame, repeat).unwrap();
    (stats::cpu_ns() - before) as f64 / f64::from(repeat)
}
