//! OVSDB (RFC 7047 and ovsdb-server(7)) as far as a reader of Bridge, Port and Interface rows needs it.
//!
//! [`Session`] is the whole client without the socket: it is fed received bytes and says what to send. It promises that
//! its [`Store`] holds either nothing or one complete, consistent reading. It never writes to the database: no
//! `transact` can be built with this module.

mod error;
mod framer;
mod rpc;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod value;

pub use error::{DecodeError, FrameError, SessionError};
pub use framer::{Framer, MAX_MESSAGE_BYTES};
pub use rpc::{Message, monitor_request};
pub use session::Session;
pub use store::{BridgeRow, InterfaceRow, PortRow, Store};
pub use value::RowId;
