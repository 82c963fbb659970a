//! mcstat: what every Pod of a Kubernetes cluster sends and receives by multicast.
//!
//! Data flows one way: `agent` reads the kernel and the switch into a [`ledger::snapshot::Snapshot`]; `ledger` turns it
//! into an [`api::summary::NodeStatsSummary`]; `aggregator` indexes the summaries and serves `api` types; `cli` and
//! `render` show them. `proto` holds sans-IO codecs.

// Tests of pure code read IGMP and MLD messages as the scenarios do, from the same lines.
#[cfg(test)]
extern crate self as mcstat;

pub mod agent;
pub mod aggregator;
pub mod api;
pub mod cli;
pub mod ledger;
pub mod proto;
pub mod render;
pub mod telemetry;
