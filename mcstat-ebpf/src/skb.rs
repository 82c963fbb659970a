//! The frame as the kernel holds it: directly (the linear part), or copied out by a helper.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use mcstat_common::{
    frame::{self, Packet, Plain},
    policy::TRANSPORT_FRAGMENT,
};

/// [`frame::transport`] of the whole frame: a function of its own, off the path of a hit.
#[inline(never)]
pub(crate) fn transport(skb: *mut __sk_buff) -> u32 {
    // A classified frame holds all of its headers.
    frame::transport(&Copied::new(skb)).unwrap_or(TRANSPORT_FRAGMENT)
}

/// The linear part of the frame, without any helper call.
pub(crate) struct Direct {
    data: usize,
    end: usize,
    length: usize,
}

impl Direct {
    /// [`frame::transport_plain`]; `None` where that takes a helper.
    #[inline(always)]
    pub(crate) fn transport(&self) -> Option<u32> {
        frame::transport_plain(self)
    }

    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        // SAFETY: the context of a classifier; the verifier rewrites these loads.
        unsafe {
            Self {
                data: (*skb).data as usize,
                end: (*skb).data_end as usize,
                length: (*skb).len as usize,
            }
        }
    }
}

impl Packet for Direct {
    #[inline(always)]
    fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        let at = self.data + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: checked above in the form that the verifier understands; T is plain.
        Some(unsafe { (at as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }
}

/// The whole frame, one helper call for each read: for frames whose headers lie outside the linear part.
pub(crate) struct Copied {
    skb: *mut __sk_buff,
}

impl Copied {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }
}

impl Packet for Copied {
    #[inline(always)]
    fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes exactly size_of::<T>() bytes or fails; T is plain.
        unsafe {
            let result = bpf_skb_load_bytes(
                self.skb.cast(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            );
            if result == 0 { Some(value.assume_init()) } else { None }
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: as in `Direct::new`.
        unsafe { (*self.skb).len as usize }
    }
}

/// The same value, of which the verifier knows nothing more: it walks through what follows once, not once for each value that
/// it has seen.
#[inline(always)]
pub(crate) fn opaque(value: u64, skb: *mut __sk_buff) -> u64 {
    let mut value = value;
    // SAFETY: the context of a classifier; registers only.
    unsafe {
        let any = (*skb).len as u64;
        asm!("{v} ^= {a}", "{v} ^= {a}", v = inout(reg) value, a = in(reg) any);
    }
    value
}
