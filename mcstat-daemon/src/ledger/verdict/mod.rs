//! Which rule allows or drops a packet or an IGMP record: Antrea's policies, as far as they concern multicast, compiled
//! into what the maps hold.
//!
//! ```text
//! documents ─▶ read  checked objects ─▶ Model ─▶ resolve ─▶ flatten ─▶ compile ─▶ Change ─▶ the maps
//!                                                                                       └─▶ Tables, the same in user space
//! ```
//! Pure: where documents come from, and how a [`Change`] gets into the kernel, is the agent's business. Nothing here
//! enforces. IPv6 and MLD have no Antrea policy; ICMP and other protocols to multicast addresses are judged by the rules
//! that name neither ports nor protocols.

mod change;
mod compile;
mod document;
mod flatten;
mod ids;
mod model;
mod object;
mod prefix;
mod problem;
mod reach;
mod read;
mod read_rule;
mod resolve;
mod room;
mod select;
mod selector;
mod state;
mod tables;
#[cfg(test)]
mod tests;

pub use change::{Change, CompileError, Limits, PolicySet, Retired, RuleRow, Stored};
pub use compile::Compiler;
pub use document::Header;
pub use model::{Model, PodName};
pub use object::{
    Action, AppliedTo, Content, Group, Igmp, IgmpKind, Kind, Object, ObjectKey, Pod, PodSelector, Policy, Ports,
    Reason, Refusal, Rule, Subject,
};
pub use prefix::{Block, Prefix};
pub use problem::{GroupFault, Problem, Room};
pub use reach::{Reach, RuleReach};
pub use read::{ReadError, UnknownKind};
pub use resolve::RuleId;
pub use selector::{LabelSelector, Labels, Operator, Requirement};
pub use tables::{Tables, Transport, Verdict};
