//! The kernel-user ABI of mcstat and its packet logic: the same source in the eBPF programs, the agent and the tests.
#![cfg_attr(not(test), no_std)]

pub mod control;
