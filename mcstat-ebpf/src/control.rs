//! IGMP, MLD, neighbour discovery and malformed frames: counted per port and direction; messages handed to the agent.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_jiffies64, bpf_ringbuf_query, bpf_skb_load_bytes},
};
use mcstat_common::{
    abi::{EVENT_JUMBO, EVENT_MTU, EVENT_SMALL, EventCounts, EventHeader, OUTBOUND, PortStats, Settings},
    frame::{CONTROL_COUNTERS, NEIGHBOUR_DISCOVERY},
};

use crate::{
    atomic,
    maps::{EVENT_COUNTS, EVENTS, REPORT_WALK, SETTINGS, port_of, port_stats, ring_half},
    report,
    skb::opaque,
};

/// Counts one frame in the counter at `index` of `ControlCounts`.
#[inline(never)]
pub(crate) fn tally(skb: *mut __sk_buff, index: u32, direction: u32) {
    // SAFETY: the context of a classifier.
    let ifindex = unsafe { (*skb).ifindex };
    let Some((position, _)) = port_of(ifindex) else { return };
    let Some(stats) = port_stats(position, direction as u8 & 1) else {
        return;
    };
    bump(stats, index);
    if index != NEIGHBOUR_DISCOVERY {
        debug!(
            "malformed: ifindex {}, direction {}, counter {}",
            ifindex, direction, index
        );
    }
}

#[inline(always)]
fn bump(stats: *mut PortStats, index: u32) {
    if index >= CONTROL_COUNTERS {
        return;
    }
    // SAFETY: ControlCounts is CONTROL_COUNTERS u64; the index is checked above.
    unsafe { atomic::add((&raw mut (*stats).control).cast::<u64>().add(index as usize), 1) };
}

/// Counts an IGMP or MLD message, judges it if the Pod sent it, and hands it to the agent, within the port's event rate.
/// `place` is where the message begins in the frame, and in the lower half how long it is.
#[inline(never)]
pub(crate) fn message(skb: *mut __sk_buff, kind: u32, ip_offset: u32, direction: u32, place: u64) {
    let direction = direction as u8 & 1;
    let (kind, ip_offset) = (opaque(kind as u64, skb) as u32, opaque(ip_offset as u64, skb) as u32);
    let place = opaque(place, skb);
    // SAFETY: the context of a classifier.
    let ifindex = unsafe { (*skb).ifindex };
    let Some((position, port)) = port_of(ifindex) else {
        return;
    };
    let Some(stats) = port_stats(position, direction) else {
        return;
    };
    let Some(walk) = REPORT_WALK.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own map value.
    unsafe { atomic::store(&raw mut (*walk).kind, kind) };
    bump(stats, kind);
    if direction == OUTBOUND {
        report::walk_report(skb, position, ip_offset, place);
    }
    let Some(settings) = SETTINGS.get_ptr(0) else { return };
    let Some(bucket_owner) = port_stats(position, OUTBOUND) else {
        return;
    };
    let Some(counts) = EVENT_COUNTS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: map values; the verifier checks the accesses. The context likewise.
    unsafe {
        let jiffies = bpf_jiffies64();
        if !admit(&raw mut (*bucket_owner).bucket, settings, jiffies) {
            atomic::add(&raw mut (*stats).events_limited, 1);
            (*counts).limited += 1;
            debug!(
                "event held back: ifindex {}, direction {}, counter {}",
                ifindex, direction as u32, kind
            );
            return;
        }
        let length = (*skb).len;
        if ip_offset >= length {
            return;
        }
        let header = EventHeader {
            jiffies,
            ifindex,
            port: (*port).id,
            original_length: length - ip_offset,
            captured: 0,
            direction: direction as u32,
            pad: 0,
        };
        hand_up(skb, ip_offset, header, counts);
    }
}

/// Generic cell rate algorithm (ITU-T I.371 Annex A): the bucket holds the theoretical arrival time of the next
/// message, in 1/256 jiffies. A lost exchange means that another CPU took the token: limited.
#[inline(always)]
fn admit(bucket: *mut u64, settings: *const Settings, jiffies: u64) -> bool {
    // SAFETY: map values.
    let (cost, burst) = unsafe { ((*settings).event_cost as u64, (*settings).event_burst as u64) };
    let now = jiffies << 8;
    for _ in 0..2 {
        let arrival = atomic::load(bucket);
        let base = if arrival > now { arrival } else { now };
        if base + cost > now + burst {
            return false;
        }
        if atomic::cmpxchg(bucket, arrival, base + cost) == arrival {
            return true;
        }
    }
    false
}

#[inline(always)]
fn hand_up(skb: *mut __sk_buff, ip_offset: u32, header: EventHeader, counts: *mut EventCounts) {
    let length = header.original_length as usize;
    let handed = if length <= EVENT_SMALL - size_of::<EventHeader>() {
        record::<{ EVENT_SMALL / 8 }>(skb, ip_offset, header)
    } else if length <= EVENT_MTU - size_of::<EventHeader>() {
        record::<{ EVENT_MTU / 8 }>(skb, ip_offset, header)
    } else {
        record::<{ EVENT_JUMBO / 8 }>(skb, ip_offset, header)
    };
    // SAFETY: this CPU's own map value.
    unsafe {
        if handed {
            (*counts).handed += 1
        } else {
            (*counts).lost += 1
        }
    }
}

/// Reserves, fills and submits a record of `WORDS` words; false when the ring buffer is full.
#[inline(always)]
fn record<const WORDS: usize>(skb: *mut __sk_buff, ip_offset: u32, mut header: EventHeader) -> bool {
    let Some(mut entry) = EVENTS.reserve_untyped::<[u64; WORDS]>(0) else {
        return false;
    };
    let room = WORDS * 8 - size_of::<EventHeader>();
    let captured = within(header.original_length as u64, room as u64) as u32;
    let start = entry.as_mut_ptr().cast::<EventHeader>();
    // SAFETY: the record holds a header and `room` bytes, and `captured` is at most that.
    unsafe {
        let copied = bpf_skb_load_bytes(skb.cast(), ip_offset, start.add(1).cast(), captured) == 0;
        header.captured = if copied { captured } else { 0 };
        start.write(header);
    }
    entry.submit(wakeup());
    true
}

/// At least 1, which every message is, and at most the limit, as the verifier must see it: compared and limited in one
/// register. The compiler would compare a copy, and Linux 6.1 does not carry a bound from a 32-bit copy to its original.
#[inline(always)]
fn within(value: u64, limit: u64) -> u64 {
    let mut bounded = value;
    // SAFETY: registers only.
    unsafe {
        asm!(
            "if {v} <= {l} goto +1",
            "{v} = {l}",
            "if {v} > 0 goto +1",
            "{v} = 1",
            v = inout(reg) bounded,
            l = in(reg) limit
        );
    }
    bounded
}

/// The agent reads on a timer: a wake-up a message would cost thirty times the message. A filling ring wakes it.
#[inline(always)]
fn wakeup() -> u64 {
    // SAFETY: the helper only reads positions of the ring.
    let waiting = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), BPF_RB_AVAIL_DATA as u64) };
    if waiting > ring_half() {
        BPF_RB_FORCE_WAKEUP as u64
    } else {
        BPF_RB_NO_WAKEUP as u64
    }
}
