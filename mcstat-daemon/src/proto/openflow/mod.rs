//! OpenFlow as far as a reader of flow and group descriptions needs it: 1.5 (wire version 6) for both, and of 1.0 the
//! table statistics, which alone carry table names without megabytes of features.
//!
//! [`Session`] is the whole client without the socket: it is fed received bytes and says what to send. It promises to
//! answer the switch's echoes, to bring replies of many parts together by their xid, and to step over whatever else the
//! switch says. The socket that it is meant for may change the switch, so [`Outgoing`] is the only encoder there is, and
//! holds nothing that changes anything.
//!
//! What this module does not know of a match, an action or an instruction it keeps as unknown, with class and length:
//! only lengths that contradict each other are errors.

mod action;
mod error;
mod flow;
mod group;
mod message;
mod oxm;
mod request;
mod session;
mod table;

pub use action::Action;
pub use error::{DecodeError, RequestError, SessionError};
pub use flow::{FlowDesc, FlowStats, UnknownInstruction, decode_flows};
pub use group::{Bucket, GroupDesc, GroupKind, decode_groups};
pub use message::{Message, next_message};
pub use oxm::{Field, UnknownField};
pub use request::{GroupId, Outgoing, Request, Version};
pub use session::{Answer, MAX_REPLY_BYTES, Reply, Session};
pub use table::{TableEntry, decode_tables};
