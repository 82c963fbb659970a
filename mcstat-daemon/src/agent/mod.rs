//! The I/O around the ledger: Pods and ports, programs and maps, the tick, the push and the local API.

pub mod backoff;
pub mod bpf;
pub mod config;
pub mod local;
pub mod pods;
pub mod publish;
