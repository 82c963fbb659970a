//! aggregator.
