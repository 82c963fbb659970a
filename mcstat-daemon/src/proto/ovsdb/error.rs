//! What can be wrong with bytes from an OVSDB server. Every error here ends the connection: after it the stream's
//! position or the store's content is no longer known, and a new connection begins with a complete reading.

use thiserror::Error;

/// The byte stream is no sequence of JSON objects of bearable size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A message is longer than the framer accepts.
    #[error("message of more than {limit} bytes from the ovsdb server")]
    TooLong {
        /// The framer's limit in bytes.
        limit: usize,
    },
    /// A byte between two messages, or the first one of a message, begins no JSON object.
    #[error("byte {byte:#04x} where a JSON object must begin")]
    NotAnObject {
        /// The offending byte.
        byte: u8,
    },
}

/// A message is not what RFC 7047 or ovsdb-server(7) says it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not valid JSON.
    #[error("invalid JSON at column {column} of a message")]
    Json {
        /// Column of the first error, from 1.
        column: usize,
    },
    /// Valid JSON of the wrong shape.
    #[error("{what} is not {need}")]
    Shape {
        /// The part of the message.
        what: &'static str,
        /// What it has to be.
        need: &'static str,
    },
    /// An update changes or deletes a row that was never announced.
    #[error("update of an unknown row in table {table}")]
    UnknownRow {
        /// The row's table.
        table: &'static str,
    },
}

impl DecodeError {
    /// One word for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json { .. } => "json",
            Self::Shape { .. } => "shape",
            Self::UnknownRow { .. } => "unknown_row",
        }
    }
}

/// Why a session cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The stream cannot be cut into messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message cannot be understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The server refused the monitor.
    #[error(
        "the ovsdb server refused monitor_cond: {reason}; it needs Open vSwitch 2.6 or newer with an Open_vSwitch database"
    )]
    Refused {
        /// The server's error text, at most 200 characters.
        reason: String,
    },
    /// The server ended the monitor, as it does when the database's schema is converted.
    #[error("the ovsdb server cancelled the monitor")]
    Cancelled,
}
