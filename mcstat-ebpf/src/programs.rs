//! The entry points: one classifier for each direction of a Pod's host-side veth, and the clock.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_jiffies64, macros::classifier, programs::TcContext};
use mcstat_common::{
    abi::{INBOUND, OUTBOUND},
    frame::{Class, NEIGHBOUR_DISCOVERY, classify},
};

use crate::{
    atomic, control, data,
    maps::SETTINGS,
    skb::{Copied, Direct, Judged},
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
    match dispatch(skb, &Direct::new(skb), direction) {
        Handled::Done => {}
        Handled::Unreachable => nonlinear(skb, direction as u32),
    }
}

enum Handled {
    Done,
    Unreachable,
}

#[inline(always)]
fn dispatch<P: Judged>(skb: *mut __sk_buff, packet: &P, direction: u8) -> Handled {
    match classify(packet) {
        Class::Foreign => {}
        Class::Data(datagram) => {
            // SAFETY: the context of a classifier.
            let ifindex = unsafe { (*skb).ifindex };
            if !data::account(skb, packet, ifindex, &datagram, direction) {
                return Handled::Unreachable;
            }
        }
        Class::Control(message) => {
            let place = (message.offset as u64) << 32 | message.length as u64;
            let kind = message.kind as u32;
            control::message(skb, kind, message.ip_offset as u32, direction as u32, place);
        }
        Class::NeighbourDiscovery => control::tally(skb, NEIGHBOUR_DISCOVERY, direction as u32),
        Class::Malformed(reason) => control::tally(skb, reason as u32, direction as u32),
        Class::Unreachable => return Handled::Unreachable,
    }
    Handled::Done
}

/// A frame with a header outside the linear part: the same work on copies. A function of its own, so that the path of
/// a READY hit holds no helper call.
#[inline(never)]
fn nonlinear(skb: *mut __sk_buff, direction: u32) {
    // What even the helper cannot reach is not there: such a frame has been classified as truncated.
    dispatch(skb, &Copied::new(skb), direction as u8);
}
