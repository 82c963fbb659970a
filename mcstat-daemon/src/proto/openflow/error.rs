//! What can be wrong with bytes from a switch. A reply that cannot be decoded fails its request and no more: the next
//! message begins where its header said. What leaves the stream's position unknown ends the session.

use thiserror::Error;

use super::{super::cursor::Short, request::Version};

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A part of the message lies beyond the bytes that are there.
    #[error("{what} needs {need} bytes, {have} are there")]
    TooShort {
        /// The part of the message.
        what: &'static str,
        /// Bytes that it needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A length that its part of the message cannot have.
    #[error("the length of {what} is {have} where {need} is the least or the only one")]
    BadLength {
        /// The part of the message.
        what: &'static str,
        /// The least, or the only one that is right.
        need: usize,
        /// Its value.
        have: usize,
    },
    /// A message of another version or kind than it must be.
    #[error("{what} is {have} instead of {need}")]
    Unexpected {
        /// The field that tells.
        what: &'static str,
        /// The value that was asked for.
        need: u16,
        /// Its value.
        have: u16,
    },
}

impl DecodeError {
    /// One word for a metric label; stable across releases.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "too_short",
            Self::BadLength { .. } => "bad_length",
            Self::Unexpected { .. } => "unexpected",
        }
    }
}

impl From<Short> for DecodeError {
    fn from(Short { what, need, have }: Short) -> Self {
        Self::TooShort { what, need, have }
    }
}

/// Why one request has no reply. The session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The reply cannot be understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The switch answered with an error.
    #[error("the switch refused it with error type {kind}, code {code}")]
    Refused {
        /// Type of the error (`ofp_error_type`).
        kind: u16,
        /// Code within the type.
        code: u16,
    },
    /// The switch answered the next question before the reply's last part.
    #[error("the switch went on before its reply was complete")]
    Unfinished,
    /// The parts of the reply together are longer than is accepted.
    #[error("the reply is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Why a session cannot go on, or cannot ask.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The stream cannot be cut into messages.
    #[error("the stream cannot be cut into messages: {0}")]
    Frame(DecodeError),
    /// The switch does not speak the version.
    #[error("the switch does not speak {0} here; the bridge's protocols must contain it")]
    Version(Version),
    /// The switch ended the negotiation.
    #[error("the switch refused the session: {reason}")]
    Refused {
        /// Its own words, at most 200 characters.
        reason: String,
    },
    /// The first message is no HELLO.
    #[error("the first message has type {kind} instead of HELLO")]
    NoHello {
        /// Its type.
        kind: u8,
    },
    /// A request was made that the session's version does not have.
    #[error("this cannot be asked over {0}")]
    CannotAsk(Version),
}
