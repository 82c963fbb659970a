//! The maps. Sizes here are the defaults with which the object also loads by `bpftool prog loadall`; the agent sets
//! its own before it loads. Names are what users type: 15 characters at most, telling.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};
use mcstat_common::{
    abi::{
        Carry, Counter, DENIED_ENTRIES, Denied, DeniedKey, EventCounts, PORT_ENTRIES, PORT_WINDOW, Port, PortBook,
        PortStats, ReportWalk, RuleCounter, RuleName, Settings, Slot, VANISHED_ENTRIES, Vanished, WAYS,
    },
    policy::{PolicyValue, PortList},
};

const MMAPABLE: usize = 1 << 10; // BPF_F_MMAPABLE, include/uapi/linux/bpf.h
const NO_PREALLOC: usize = 1; // BPF_F_NO_PREALLOC
const DEFAULT_SETS: u32 = 2048;
const DEFAULT_SLOTS: usize = (DEFAULT_SETS * WAYS) as usize;
const DEFAULT_RING_BYTES: usize = 1 << 20;
const DEFAULT_RULES: usize = 1024;
const DEFAULT_PREFIXES: usize = 131_072;

/// The data of a `mcstat_common::policy::PolicyKey`, so that bpftool prints it by parts.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PolicyPrefix {
    set: [u8; 2],
    pad: u8,
    space: u8,
    address: [u8; 4],
}

/// Number of sets in `slots`; frozen at load, so that the verifier knows it.
#[unsafe(no_mangle)]
static SETS: Global<u32> = Global::new(DEFAULT_SETS);
/// Seed of the slot hash; the agent draws it once for the life of the maps.
#[unsafe(no_mangle)]
static SEED: Global<u64> = Global::new(0);
/// Half the size of the ring buffer: from there on the reader is woken.
#[unsafe(no_mangle)]
static RING_HALF: Global<u64> = Global::new(DEFAULT_RING_BYTES as u64 / 2);
/// For the race test alone: iterations to wait between finding a slot and counting in it. While it is 0 the verifier
/// removes the call.
#[unsafe(no_mangle)]
static TEST_DELAY: Global<u32> = Global::new(0);

#[btf_map(name = "slots")]
pub(crate) static SLOTS: Array<Slot, DEFAULT_SLOTS, MMAPABLE> = Array::new();
#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<Counter, DEFAULT_SLOTS> = PerCpuArray::new();
/// Not touched by the programs; declared here so that the object describes all maps.
#[btf_map(name = "carried")]
pub(crate) static CARRIED: Array<Carry, DEFAULT_SLOTS, MMAPABLE> = Array::new();
#[btf_map(name = "ports")]
pub(crate) static PORTS: Array<Port, { PORT_ENTRIES as usize }, MMAPABLE> = Array::new();
#[btf_map(name = "port_stats")]
pub(crate) static PORT_STATS: Array<PortStats, { 2 * PORT_ENTRIES as usize }, MMAPABLE> = Array::new();
/// Not touched by the programs, as `carried`.
#[btf_map(name = "port_carried")]
pub(crate) static PORT_CARRIED: Array<PortStats, { 2 * PORT_ENTRIES as usize }, MMAPABLE> = Array::new();
/// Not touched by the programs, as `carried`.
#[btf_map(name = "books")]
pub(crate) static BOOKS: HashMap<u32, PortBook, { PORT_ENTRIES as usize }, NO_PREALLOC> = HashMap::new();
/// Not touched by the programs, as `carried`.
#[btf_map(name = "vanished")]
pub(crate) static VANISHED: HashMap<u32, Vanished, { VANISHED_ENTRIES as usize }, NO_PREALLOC> = HashMap::new();
/// Not touched by the programs, as `carried`.
#[btf_map(name = "denied")]
pub(crate) static DENIED: HashMap<DeniedKey, Denied, { DENIED_ENTRIES as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "settings")]
pub(crate) static SETTINGS: Array<Settings, 1, MMAPABLE> = Array::new();
/// What judges: {set, space, prefix} → decision.
#[btf_map(name = "policies")]
pub(crate) static POLICIES: LpmTrie<PolicyPrefix, PolicyValue, DEFAULT_PREFIXES> = LpmTrie::new();
#[btf_map(name = "policy_ports")]
pub(crate) static POLICY_PORTS: Array<PortList, DEFAULT_RULES, MMAPABLE> = Array::new();
#[btf_map(name = "rules")]
pub(crate) static RULES: PerCpuArray<RuleCounter, DEFAULT_RULES> = PerCpuArray::new();
/// Not touched by the programs, as `carried`.
#[btf_map(name = "rule_names")]
pub(crate) static RULE_NAMES: Array<RuleName, DEFAULT_RULES, MMAPABLE> = Array::new();
#[btf_map(name = "report_walk")]
pub(crate) static REPORT_WALK: PerCpuArray<ReportWalk, 1> = PerCpuArray::new();
#[btf_map(name = "event_counts")]
pub(crate) static EVENT_COUNTS: PerCpuArray<EventCounts, 1> = PerCpuArray::new();
#[btf_map(name = "events")]
pub(crate) static EVENTS: RingBuf<(), DEFAULT_RING_BYTES> = RingBuf::new();

#[inline(always)]
pub(crate) fn sets() -> u32 {
    SETS.load()
}

#[inline(always)]
pub(crate) fn seed() -> u64 {
    SEED.load()
}

#[inline(always)]
pub(crate) fn ring_half() -> u64 {
    RING_HALF.load()
}

#[inline(always)]
pub(crate) fn test_delay() -> u32 {
    TEST_DELAY.load()
}

/// The port of a host-side interface and its position, or `None` while the agent has not entered it.
#[inline(always)]
pub(crate) fn port_of(ifindex: u32) -> Option<(u32, *const Port)> {
    let mut position = ifindex & (PORT_ENTRIES - 1);
    for _ in 0..PORT_WINDOW {
        let port = PORTS.get_ptr(position)?;
        // SAFETY: a map value; the verifier checks the access.
        if crate::atomic::load(unsafe { &raw const (*port).ifindex }) == ifindex {
            return Some((position, port));
        }
        position = (position + 1) & (PORT_ENTRIES - 1);
    }
    None
}

/// The entry at a position that [`port_of`] found.
#[inline(always)]
pub(crate) fn port_at(position: u32) -> Option<*const Port> {
    PORTS.get_ptr(position)
}

/// The off-path counters of a port and direction.
#[inline(always)]
pub(crate) fn port_stats(position: u32, direction: u8) -> Option<*mut PortStats> {
    PORT_STATS.get_ptr_mut(2 * position + direction as u32)
}
