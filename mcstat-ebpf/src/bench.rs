//! The programs that the benchmark compares mcstat with. An object of its own (feature `bench`): nothing of it is shipped.
//!
//! They stand on the same sources as the shipped programs: same parsing, same table, same counting. What differs is what
//! is compared: nothing at all (`bench_empty`), a per-CPU hash in place of the slot index, and an entry picked inside the
//! program, so that 500 ports × 20 groups come in pseudo-random order without a system call for each packet.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[macro_use]
mod debug;

#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "no frame here has headers outside its linear part")]
mod data;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "no control messages here, so no ring buffer")]
mod maps;
#[cfg(target_arch = "bpf")]
mod policy;
#[cfg(target_arch = "bpf")]
mod skb;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::__sk_buff,
        btf_maps::{PerCpuArray, PerCpuHashMap},
        macros::{btf_map, classifier},
        programs::TcContext,
    };
    use mcstat_common::{
        abi::{Counter, OUTBOUND},
        frame::{Class, Datagram, classify, is_ssm, mapped},
        policy::PORTS_ALL,
        slot::{self, Key},
    };

    use crate::{
        atomic,
        data::{self, Size, count, is_foreign},
        maps::{port_of, port_stats},
        skb::Direct,
    };

    const TC_ACT_UNSPEC: i32 = -1;
    /// As many as `slots` has.
    const ENTRIES: usize = 16_384;
    /// Ports × groups of the random order, and the groups of a port.
    const PICKED: u64 = 10_000;
    const GROUPS: u64 = 20;
    const NOEXIST: u64 = 1; // BPF_NOEXIST, include/uapi/linux/bpf.h

    /// The key of the hash: what the slot index compares.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(crate) struct HashKey {
        owner: u64,
        group: [u64; 2],
        source: [u64; 2],
    }

    /// Per CPU: the counter, and the cached verdict that lies in the slot otherwise.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(crate) struct HashValue {
        counter: Counter,
        verdict: u64,
    }

    const ZERO: HashValue = HashValue {
        counter: Counter {
            packets: 0,
            bytes: 0,
            segments: 0,
            ttl1: 0,
            source_changes: 0,
            source: [0; 16],
            last_seen: 0,
            pad: 0,
        },
        verdict: 0,
    };

    type Hash = PerCpuHashMap<HashKey, HashValue, ENTRIES>;

    #[btf_map(name = "hash_entries")]
    static HASH: Hash = PerCpuHashMap::new();
    #[btf_map(name = "bare_entries")]
    static BARE: Hash = PerCpuHashMap::new();
    /// State of the picking, one for each program that picks.
    #[btf_map(name = "pick_states")]
    static PICKS: PerCpuArray<u64, 4> = PerCpuArray::new();

    #[classifier]
    pub(crate) fn bench_empty(_ctx: TcContext) -> i32 {
        TC_ACT_UNSPEC
    }

    /// The same again: what differs from `bench_empty` is noise.
    #[classifier]
    pub(crate) fn bench_empty_b(_ctx: TcContext) -> i32 {
        TC_ACT_UNSPEC
    }

    /// mcstat's work with a per-CPU hash: port, foreign source, verdict and counters are the same.
    #[classifier]
    pub(crate) fn bench_hash(ctx: TcContext) -> i32 {
        let skb = ctx.skb.skb;
        if let Class::Data(datagram) = classify(&Direct::new(skb)) {
            // SAFETY: the context of a classifier.
            hash(skb, unsafe { (*skb).ifindex }, &datagram);
        }
        TC_ACT_UNSPEC
    }

    /// A per-CPU hash keyed by ifindex and the counters, no more: no port table, no foreign source, no verdict.
    #[classifier]
    pub(crate) fn bench_hash_bare(ctx: TcContext) -> i32 {
        let skb = ctx.skb.skb;
        if let Class::Data(datagram) = classify(&Direct::new(skb)) {
            // SAFETY: the context of a classifier.
            hash_bare(skb, unsafe { (*skb).ifindex }, &datagram);
        }
        TC_ACT_UNSPEC
    }

    /// The cost of picking: parse, pick, and nothing else.
    #[classifier]
    pub(crate) fn bench_pick(ctx: TcContext) -> i32 {
        if let Some((_, _, datagram)) = picked(&ctx, 0) {
            core::hint::black_box(datagram.group[1]);
        }
        TC_ACT_UNSPEC
    }

    /// mcstat with picked ports and groups.
    #[classifier]
    pub(crate) fn bench_cold(ctx: TcContext) -> i32 {
        if let Some((skb, ifindex, datagram)) = picked(&ctx, 1) {
            if let Some(frame) = data::account(skb, &Direct::new(skb), ifindex, &datagram, OUTBOUND) {
                data::judge_and_count(skb, frame);
            }
        }
        TC_ACT_UNSPEC
    }

    /// `bench_hash` with picked ports and groups.
    #[classifier]
    pub(crate) fn bench_cold_hash(ctx: TcContext) -> i32 {
        if let Some((skb, ifindex, datagram)) = picked(&ctx, 2) {
            hash(skb, ifindex, &datagram);
        }
        TC_ACT_UNSPEC
    }

    /// `bench_hash_bare` with picked ports and groups.
    #[classifier]
    pub(crate) fn bench_cold_bare(ctx: TcContext) -> i32 {
        if let Some((skb, ifindex, datagram)) = picked(&ctx, 3) {
            hash_bare(skb, ifindex, &datagram);
        }
        TC_ACT_UNSPEC
    }

    /// The packet with the next ifindex (1 to 500) and group (239.1.0.1 to 239.1.0.20) in place of its own.
    #[inline(always)]
    fn picked(ctx: &TcContext, program: u32) -> Option<(*mut __sk_buff, u32, Datagram)> {
        let skb = ctx.skb.skb;
        let Class::Data(mut datagram) = classify(&Direct::new(skb)) else {
            return None;
        };
        let state = PICKS.get_ptr_mut(program)?;
        // SAFETY: this CPU's own map value.
        let next = unsafe {
            // Knuth's MMIX generator; its upper bits are the random ones.
            *state = (*state)
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *state
        };
        let entry = ((next >> 33) * PICKED) >> 31;
        // entry ÷ 20 without a division; exact below 16,388.
        let port = (entry * 3277) >> 16;
        let group = entry - port * GROUPS;
        datagram.group = mapped((0xef01_0001 + group as u32).to_be());
        Some((skb, 1 + port as u32, datagram))
    }

    #[inline(always)]
    fn hash(skb: *mut __sk_buff, ifindex: u32, datagram: &Datagram) {
        let Some((position, port)) = port_of(ifindex) else {
            return;
        };
        let foreign = is_foreign(port, datagram);
        let slot_key = data::key(port, datagram, OUTBOUND, foreign);
        if foreign && let Some(stats) = port_stats(position, OUTBOUND) {
            // SAFETY: a map value.
            atomic::add(unsafe { &raw mut (*stats).foreign_source }, 1);
        }
        let key = HashKey {
            owner: slot_key.owner,
            group: slot_key.group,
            source: slot_key.source,
        };
        let Some(value) = look_up(&HASH, &key) else { return };
        // SAFETY: map values; the hash's is this CPU's own.
        unsafe {
            let generation = (*port).generation;
            if slot::verdict_generation((*value).verdict) != generation {
                (*value).verdict = slot::verdict_word(generation, 0, PORTS_ALL);
            }
            count(Size::of(skb), &raw mut (*value).counter, datagram);
        }
    }

    #[inline(always)]
    fn hash_bare(skb: *mut __sk_buff, ifindex: u32, datagram: &Datagram) {
        let key = HashKey {
            owner: Key::owner(ifindex, OUTBOUND, datagram.family, false),
            group: datagram.group,
            source: if is_ssm(datagram) { datagram.source } else { [0; 2] },
        };
        if let Some(value) = look_up(&BARE, &key) {
            // SAFETY: this CPU's own map value.
            count(Size::of(skb), unsafe { &raw mut (*value).counter }, datagram);
        }
    }

    /// The entry of a key; a new one the first time.
    #[inline(always)]
    fn look_up(map: &Hash, key: &HashKey) -> Option<*mut HashValue> {
        if let Some(value) = map.get_ptr_mut(key) {
            return Some(value);
        }
        let _ = map.insert(key, &ZERO, NOEXIST);
        map.get_ptr_mut(key)
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
