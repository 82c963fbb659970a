//! The message header, and cutting a byte stream into messages.
//!
//! ```text
//! |    version    |     type      |            length             |
//! |                              xid                              |
//! ```

use bytes::{Bytes, BytesMut};

use super::{super::cursor::Reader, error::DecodeError};

/// Length of the header, which the length field counts in.
pub(super) const HEADER_BYTES: usize = 8;

/// One message of any version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Wire version: 1 is OpenFlow 1.0, 6 is OpenFlow 1.5.
    pub version: u8,
    /// Type; what it means depends on the version.
    pub kind: u8,
    /// Transaction: an answer has the one of its question.
    pub xid: u32,
    /// What follows the header.
    pub body: Bytes,
}

/// Takes the next message off the front of `input`, or `None` when more bytes are needed.
///
/// No message is longer than 65,535 bytes: that is what its length field can say, and so what is buffered at most.
///
/// # Errors
/// [`DecodeError::BadLength`] when a header claims less than its own length. Nothing is consumed then: the position in
/// the stream is lost, and every later call says the same.
pub fn next_message(input: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
    let mut reader = Reader::new(input);
    let (Ok([version, kind]), Ok(length), Ok(xid)) =
        (reader.array("header"), reader.u16("header"), reader.u32("header"))
    else {
        return Ok(None);
    };
    let length = usize::from(length);
    if length < HEADER_BYTES {
        return Err(DecodeError::BadLength {
            what: "a message",
            need: HEADER_BYTES,
            have: length,
        });
    }
    if input.len() < length {
        return Ok(None);
    }
    let body = input.split_to(length).freeze().split_off(HEADER_BYTES);
    Ok(Some(Message {
        version,
        kind,
        xid,
        body,
    }))
}
