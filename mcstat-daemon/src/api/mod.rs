//! The served types: what users get as JSON, and what an agent tells the aggregator. Types only, no I/O.

pub mod group;
mod group_columns;
pub mod ledgers;
mod pod_columns;
pub mod policy;
mod policy_columns;
pub mod resource;
pub mod rule;
pub mod scope;
pub mod stats;
pub mod status;
pub mod summary;
pub mod table;
