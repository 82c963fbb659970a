//! The atomic operations that `core` does not offer for BPF targets (no `compare_exchange`; `load` crashes LLVM).

use core::arch::asm;

/// Compares and exchanges; the value found (equal to `expected` on success). A full barrier on every architecture.
#[inline(always)]
pub(crate) fn cmpxchg(target: *mut u64, expected: u64, new: u64) -> u64 {
    let mut found = expected;
    // SAFETY: the verifier proves that `target` is 8 writable, aligned bytes of a map value.
    unsafe {
        asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", p = in(reg) target, n = in(reg) new, inout("r0") found);
    }
    found
}

/// Adds without returning the old value.
#[inline(always)]
pub(crate) fn add(target: *mut u64, value: u64) {
    // SAFETY: as in `cmpxchg`.
    unsafe {
        asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) target, v = in(reg) value);
    }
}

/// A load that the compiler neither repeats nor leaves out.
#[inline(always)]
pub(crate) fn load<T: Copy>(source: *const T) -> T {
    // SAFETY: as in `cmpxchg`.
    unsafe { source.read_volatile() }
}

/// A store that the compiler neither repeats nor leaves out.
#[inline(always)]
pub(crate) fn store<T: Copy>(target: *mut T, value: T) {
    // SAFETY: as in `cmpxchg`.
    unsafe { target.write_volatile(value) }
}
