//! What the kernel tests stand on: an own BPF file system and an own network namespace for every test.
//!
//! Nothing is skipped: without root or a kernel feature these functions panic and say what is missing.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod frames;
pub mod linear;
pub mod veth;
pub mod wire;

use std::{net::IpAddr, path::PathBuf, process::Command, thread};

use mcstat::{
    agent::{
        bpf::{
            Kernel,
            attach::Hook,
            layout::Limits,
            maps::Options,
            read::{self, Reader, Reading},
            table::{self, Entry},
        },
        pods::PodPort,
    },
    ledger::snapshot::{DirectionReading, GroupReading, PodRef, PortReading},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::{Pid, geteuid},
};

/// A BPF file system of its own, unmounted on drop with everything pinned in it.
pub struct Bpffs {
    dir: tempfile::TempDir,
}

impl Bpffs {
    pub fn new() -> Self {
        assert!(
            geteuid().is_root(),
            "kernel tests need root: run `cargo xtask test` as root"
        );
        let dir = tempfile::Builder::new().prefix("mcstat-bpffs").tempdir().unwrap();
        mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mount a BPF file system (CAP_SYS_ADMIN)");
        Self { dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn options(&self) -> Options {
        Options {
            bpffs: self.path(),
            abi: mcstat_common::abi::ABI_VERSION,
            limits: Limits {
                memory_bytes: 64 << 20,
                slots: 0,
                slots_per_port: 256,
                ports: 512,
                ring_bytes: 1 << 20,
            },
            events: (100, 400),
            test_delay: 0,
        }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}

/// Runs `test` on a thread in a network namespace of its own; loopback is up.
pub fn in_netns<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("an own network namespace (CAP_SYS_ADMIN)");
        ip("link set lo up");
        test()
    };
    match thread::spawn(run).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `ip` in this thread's network namespace.
pub fn ip(arguments: &str) {
    run("ip", arguments);
}

/// Runs a command in this thread's network namespace; panics with its output when it fails.
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run `cargo xtask setup`"));
    assert!(
        output.status.success(),
        "{program} {arguments}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Pins this thread to one CPU.
pub fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// Opens the kernel side on the hook that the agent takes; panics with the agent's own message.
pub fn open(options: &Options) -> Kernel {
    let kernel = open_with(options, Hook::Tcx);
    assert_eq!(kernel.programs.hook(), agents_hook(), "Linux {:?}", release());
    kernel
}

/// TCX where the kernel has it.
pub fn agents_hook() -> Hook {
    if release() >= (6, 6) { Hook::Tcx } else { Hook::Clsact }
}

/// For tests of what only TCX has: they fail on other kernels. Their names begin with `on_tcx`.
pub fn need_tcx() {
    let release = release();
    assert!(
        release >= (6, 6),
        "this test needs TCX, and Linux {release:?} has none (6.6)"
    );
}

/// Major and minor number of the running kernel.
pub fn release() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// As [`open`], with the hook that the programs are to be put on.
pub fn open_with(options: &Options, hook: Hook) -> Kernel {
    Kernel::open(options, hook).unwrap_or_else(|error| panic!("{error}"))
}

pub fn pod_port(name: &str, host_interface: &str, ifindex: u32, addresses: &[&str]) -> PodPort {
    PodPort {
        pod: PodRef {
            namespace: "test".into(),
            name: name.into(),
            sandbox: format!("sandbox-{name}"),
        },
        interface: "eth0".into(),
        host_interface: host_interface.into(),
        ifindex,
        addresses: addresses
            .iter()
            .map(|address| address.parse::<IpAddr>().unwrap())
            .collect(),
        ofport: None,
        netns: None,
    }
}

/// Enters a port without attaching anything: for programs that are run by BPF_PROG_TEST_RUN.
pub fn enter(kernel: &Kernel, port: &PodPort) -> Entry {
    let now = mcstat::agent::bpf::now().as_millisecond() as u64;
    mcstat::agent::bpf::maps::update_settings(&kernel.maps, |settings| settings.fair_share = u32::MAX);
    let mut entry = table::reserve(&kernel.maps, port).expect("room in the ports table");
    table::begin(&kernel.maps, &mut entry, now);
    entry
}

/// Enters the Pod of a wire and puts the programs on its host side.
pub fn attach(kernel: &mut Kernel, name: &str, wire: &wire::Wire, addresses: &[&str]) -> Entry {
    let entry = enter(kernel, &pod_port(name, &wire.host, wire.ifindex, addresses));
    kernel
        .programs
        .attach(&entry)
        .unwrap_or_else(|error| panic!("attach to {}: {error}", wire.host));
    entry
}

/// The reading of one group, or of one (source, group).
pub fn group<'a>(direction: &'a DirectionReading, group: &str, source: Option<&str>) -> &'a GroupReading {
    let address: IpAddr = group.parse().unwrap();
    let source: Option<IpAddr> = source.map(|source| source.parse().unwrap());
    direction
        .groups
        .iter()
        .find(|reading| reading.group == address && reading.source == source)
        .unwrap_or_else(|| panic!("no slot of {group} from {source:?} in {:?}", direction.groups))
}

/// Reads everything.
pub fn read_all(kernel: &Kernel) -> Reading {
    let clock = kernel.clock.read(&kernel.maps).unwrap();
    read::read(&kernel.maps, &mut Reader::new(&kernel.maps), &clock).unwrap()
}

/// Reads one port.
pub fn reading(kernel: &Kernel, name: &str) -> PortReading {
    let mut ports = read_all(kernel).ports.into_iter();
    ports
        .find(|port| port.pod.name == name)
        .unwrap_or_else(|| panic!("no port of {name}"))
}

/// Packets, segments and bytes of a direction: slots and *other groups*.
pub fn total(direction: &DirectionReading) -> (u64, u64, u64) {
    let groups = direction.groups.iter().map(|group| group.admitted);
    let other = direction.other.iter().map(|other| other.admitted);
    groups.chain(other).fold((0, 0, 0), |sum, traffic| {
        (sum.0 + traffic.packets, sum.1 + traffic.segments, sum.2 + traffic.bytes)
    })
}

/// ifindex of an interface of this thread's network namespace.
pub fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// Numbers that are the same in every run of one seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
