//! The kernel-user ABI of mcstat and its packet logic: the same source in the eBPF programs, the agent and the tests.
//!
//! Nothing here allocates, panics or does I/O. ABI types are `repr(C)` without padding, fixed-width, addresses in
//! network order; a change of any of them is a new [`abi::ABI_VERSION`].
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod control;
pub mod frame;
pub mod policy;
pub mod slot;
