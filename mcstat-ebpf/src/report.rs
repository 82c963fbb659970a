//! IGMP and MLD reports that a Pod sends: every record judged by itself.
//!
//! Work is bounded: at most [`MAX_RECORDS`] records, which is all that a message below 9,600 bytes can hold; those beyond
//! are neither counted nor judged. A record that does not lie wholly in its message ends the walk, whatever number of
//! records the message claims. Whether the checksum is right is for user space: what is counted here is what the Pod
//! sent. IGMPv2 leaves, MLD, and messages sent to a unicast address, which never meet a switch's multicast tables, are
//! counted and allowed by no rule.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_loop};
use mcstat_common::{
    abi::{OUTBOUND, PORT_REPORTS_ENFORCED, PortStats, ReportWalk},
    frame::{Kind, Packet, Plain},
    policy::{DECISION_DROP, SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3},
};

use crate::{
    atomic,
    maps::{REPORT_WALK, port_at, port_stats},
    policy::{self, Judges},
    skb::{Copied, Direct},
};

/// Records of one message that are walked.
const MAX_RECORDS: u32 = 1200;
/// Head of the message in front of the records, and of a record (RFC 9776 §4.2, RFC 9777 §5.2).
const MESSAGE_HEAD: u32 = 8;
const IGMP_RECORD: u32 = 8;
const MLD_RECORD: u32 = 20;

/// What the callback of `bpf_loop` gets: its context must lie on the stack, so what changes does not.
struct Context {
    skb: *mut __sk_buff,
    walk: *mut ReportWalk,
}

/// Judges and counts the records of a message that the Pod sent. `ip_offset` and `place` as in `control::message`.
#[inline(never)]
pub(crate) fn walk_report(skb: *mut __sk_buff, position: u32, ip_offset: u32, place: u64) {
    let (Some(port), Some(stats)) = (port_at(position), port_stats(position, OUTBOUND)) else {
        return;
    };
    let Some(walk) = REPORT_WALK.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own map value.
    let kind = atomic::load(unsafe { &raw const (*walk).kind });
    let (offset, length) = ((place >> 32) as u32, place as u32);
    let judges = Judges::of(port);
    // SAFETY: map values, this CPU's own but for the port; the context of a classifier.
    unsafe {
        let walk = &mut *walk;
        walk.message += 1;
        walk.offset = offset + MESSAGE_HEAD;
        walk.end = offset + length;
        walk.set = judges.set as u32;
        walk.enforced = (judges.flags & PORT_REPORTS_ENFORCED) as u32;
        (walk.records, walk.denied) = (0, 0);
        walk.frame = (*skb).len;
        (walk.head, walk.source) = (IGMP_RECORD, 4);
    }
    if !is_multicast(skb, ip_offset) {
        // SAFETY: as above.
        unsafe { (*walk).set = 0 };
    }
    if kind == Kind::Igmpv3Report as u32 {
        space(walk, SPACE_REPORT_V3);
        records(skb, walk, offset);
    } else if kind == Kind::Mldv2Report as u32 {
        // SAFETY: as above.
        unsafe { ((*walk).set, (*walk).head, (*walk).source) = (0, MLD_RECORD, 16) };
        records(skb, walk, offset);
    } else if kind == Kind::Igmpv1Report as u32 {
        space(walk, SPACE_REPORT_V1);
        one(skb, walk, offset);
    } else if kind == Kind::Igmpv2Report as u32 {
        space(walk, SPACE_REPORT_V2);
        one(skb, walk, offset);
    } else if kind == Kind::Igmpv2Leave as u32 || kind == Kind::Mldv1Report as u32 || kind == Kind::Mldv1Done as u32 {
        // SAFETY: as above.
        unsafe { (*walk).records = 1 };
    }
    add(stats, walk);
}

#[inline(always)]
fn space(walk: *mut ReportWalk, space: u8) {
    // SAFETY: this CPU's own map value.
    unsafe { (*walk).space = space as u32 };
}

/// The only record of an IGMPv1 or v2 report.
#[inline(always)]
fn one(skb: *mut __sk_buff, walk: *mut ReportWalk, offset: u32) {
    if let Some(group) = read::<u32>(skb, offset + 4) {
        record(walk, group);
    }
}

/// Whether the message was sent to an IPv4 multicast address. Of IPv6, which has no policies, it does not matter.
#[inline(always)]
fn is_multicast(skb: *mut __sk_buff, ip_offset: u32) -> bool {
    const DESTINATION: u32 = 16;
    matches!(read::<[u8; 4]>(skb, ip_offset + DESTINATION), Some([224..=239, ..]))
}

/// All records of an IGMPv3 or MLDv2 report.
#[inline(always)]
fn records(skb: *mut __sk_buff, walk: *mut ReportWalk, offset: u32) {
    let Some(claimed) = read::<u16>(skb, offset + 6) else {
        return;
    };
    let claimed = u16::from_be(claimed) as u32;
    let count = if claimed < MAX_RECORDS { claimed } else { MAX_RECORDS };
    let mut context = Context { skb, walk };
    // SAFETY: the callback's signature is the one that the helper demands.
    unsafe { bpf_loop(count, record_step as *mut _, (&raw mut context).cast(), 0) };
}

/// One record of a walk; 1 ends it.
#[inline(never)]
extern "C" fn record_step(_index: u32, context: *mut Context) -> i64 {
    // SAFETY: the helper's context is `context` of `records`; this CPU's own map value.
    unsafe {
        let (skb, walk) = ((*context).skb, (*context).walk);
        let (offset, end) = ((*walk).offset, (*walk).end);
        if offset + (*walk).head > end {
            return 1;
        }
        let Some(head) = read::<u64>(skb, offset) else { return 1 };
        // Type, length of the auxiliary data in words, number of sources; in IGMP the group.
        let auxiliary = (head >> 8) as u32 & 0xff;
        let sources = u16::from_be((head >> 16) as u16) as u32;
        let next = offset + (*walk).head + 4 * auxiliary + (*walk).source * sources;
        if next > end {
            return 1;
        }
        (*walk).offset = next;
        record(walk, (head >> 32) as u32);
    }
    0
}

/// What lies at this offset: directly where it can be, since a helper call costs as much as the rest of a record.
#[inline(always)]
fn read<T: Plain>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    /// Offsets that the verifier lets be added to a packet's address.
    const NEAR: u32 = 0x3fff;
    let near = offset & NEAR;
    if near == offset
        && let Some(value) = Direct::new(skb).read::<T>(near as usize)
    {
        return Some(value);
    }
    Copied::new(skb).read::<T>(offset as usize)
}

/// Counts a record, for the rule that decides it too.
#[inline(always)]
fn record(walk: *mut ReportWalk, group: u32) {
    // SAFETY: this CPU's own map values.
    unsafe {
        let walk = &mut *walk;
        walk.records += 1;
        // Also of what is no multicast address: as Antrea, which asks the rules before anything else.
        if walk.set == 0 {
            return;
        }
        let decision = policy::look_up(walk.set as u16, walk.space as u8, group).decision;
        let denied = decision & DECISION_DROP != 0;
        if denied {
            walk.denied += 1;
        }
        let Some(counter) = policy::rule(decision) else { return };
        let counter = &mut *counter;
        // A rule that decides several records of a message has decided one message.
        let first = counter.last_message != walk.message;
        counter.last_message = walk.message;
        if denied && walk.enforced == 0 {
            counter.would_drop_records += 1;
            counter.would_drop_messages += first as u64;
        } else {
            counter.records += 1;
            if first {
                counter.messages += 1;
                counter.message_bytes += walk.frame as u64;
            }
        }
    }
}

/// Adds what the walk found to the port's counters.
#[inline(always)]
fn add(stats: *mut PortStats, walk: *const ReportWalk) {
    // SAFETY: map values.
    unsafe {
        let (records, denied) = ((*walk).records as u64, (*walk).denied as u64);
        let reports = &raw mut (*stats).reports;
        if records != 0 {
            atomic::add(&raw mut (*reports).records, records);
        }
        if denied == 0 {
            return;
        }
        if (*walk).enforced != 0 {
            atomic::add(&raw mut (*reports).dropped_messages, 1);
            atomic::add(&raw mut (*reports).dropped_records, denied);
        } else {
            atomic::add(&raw mut (*reports).would_drop_messages, 1);
            atomic::add(&raw mut (*reports).would_drop_records, denied);
        }
    }
}
