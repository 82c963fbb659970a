//! How the process tells what it does: logs. Metrics come with a later version.

pub mod log;
