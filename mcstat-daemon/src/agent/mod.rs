//! The I/O around the ledger: Pods and ports, programs and maps, the tick, the push and the local API.

pub mod bpf;
pub mod pods;
