//! The entry points: one classifier for each direction of a Pod's host-side veth, and the clock.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_jiffies64, macros::classifier, programs::TcContext};
use mcstat_common::{
    abi::{INBOUND, OUTBOUND},
    frame::{Class, NEIGHBOUR_DISCOVERY, classify},
};

use crate::{
    atomic, control,
    data::{self, Frame},
    maps::SETTINGS,
    skb::{Copied, Direct},
};

/// Let the next program on the hook decide; TCX_NEXT on TCX (include/uapi/linux/bpf.h).
const TC_ACT_UNSPEC: i32 = -1;

/// tc ingress of the host-side veth: what the Pod sent.
#[classifier]
pub(crate) fn mcstat_outbound(ctx: TcContext) -> i32 {
    run(ctx.skb.skb, OUTBOUND);
    TC_ACT_UNSPEC
}

/// tc egress of the host-side veth: what is handed to the Pod.
#[classifier]
pub(crate) fn mcstat_inbound(ctx: TcContext) -> i32 {
    run(ctx.skb.skb, INBOUND);
    TC_ACT_UNSPEC
}

/// Run by the agent through BPF_PROG_TEST_RUN: the kernel's clock that the other programs stamp with.
#[classifier]
pub(crate) fn mcstat_clock(_ctx: TcContext) -> i32 {
    if let Some(settings) = SETTINGS.get_ptr_mut(0) {
        // SAFETY: a map value; jiffies is inlined by the verifier on 64-bit machines.
        unsafe { atomic::store(&raw mut (*settings).clock_jiffies, bpf_jiffies64()) };
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn run(skb: *mut __sk_buff, direction: u8) {
    let direct = Direct::new(skb);
    let missed = match classify(&direct) {
        Class::Data(datagram) => {
            // SAFETY: the context of a classifier.
            let ifindex = unsafe { (*skb).ifindex };
            data::account(skb, &direct, ifindex, &datagram, direction)
        }
        Class::Unreachable => {
            let mut frame = MaybeUninit::uninit();
            let filled = nonlinear(skb, direction as u32, frame.as_mut_ptr());
            // SAFETY: it says so.
            (filled != 0).then(|| unsafe { frame.assume_init() })
        }
        class => {
            not_data(skb, class, direction);
            None
        }
    };
    if let Some(frame) = missed {
        data::judge_and_count(skb, frame);
    }
}

/// A frame with a header outside the linear part: the same work on copies. A function of its own, so that the path of
/// a READY hit holds no helper call. 1 when it is data, of which `frame` is filled.
#[inline(never)]
fn nonlinear(skb: *mut __sk_buff, direction: u32, frame: *mut Frame) -> u32 {
    match classify(&Copied::new(skb)) {
        Class::Data(datagram) => {
            if let Some(found) = data::account_copied(skb, &datagram, direction as u8) {
                // SAFETY: the caller's stack.
                unsafe { frame.write(found) };
                return 1;
            }
        }
        class => not_data(skb, class, direction as u8),
    }
    0
}

#[inline(always)]
fn not_data(skb: *mut __sk_buff, class: Class, direction: u8) {
    match class {
        Class::Control(message) => {
            let place = (message.offset as u64) << 32 | message.length as u64;
            let kind = message.kind as u32;
            control::message(skb, kind, message.ip_offset as u32, direction as u32, place);
        }
        Class::NeighbourDiscovery => control::tally(skb, NEIGHBOUR_DISCOVERY, direction as u32),
        Class::Malformed(reason) => control::tally(skb, reason as u32, direction as u32),
        // What even the helper cannot reach is not there: such a frame has been classified as truncated.
        Class::Foreign | Class::Data(_) | Class::Unreachable => {}
    }
}
