//! Cuts the byte stream of a JSON-RPC connection into messages (RFC 7047 §4: JSON texts follow each other with nothing
//! between them, so the end of a message is where its braces close).
//!
//! Promises: every byte is looked at once however the stream is split, and no message above the limit is ever buffered
//! in full. It does not check the JSON: that is the parser's part.

use bytes::{Bytes, BytesMut};

use super::error::FrameError;

/// Largest message accepted, in bytes. A node with 500 Pods has a first reading of about 0.4 MB.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Finds the ends of JSON objects in a growing buffer.
#[derive(Debug)]
pub struct Framer {
    limit: usize,
    /// Bytes at the front of the buffer that were looked at already.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    failed: Option<FrameError>,
}

impl Framer {
    /// A framer for messages of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            failed: None,
        }
    }

    /// Takes the next complete message off the front of `input`, or `None` when more bytes are needed.
    ///
    /// `input` must be the same buffer at every call, only appended to by the caller.
    ///
    /// # Errors
    /// [`FrameError`]; the stream's position is lost then, and every later call returns the same error.
    pub fn next_message(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.scan(input).inspect_err(|error| self.failed = Some(*error))
    }

    fn scan(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        if self.depth == 0 {
            let blank = input.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            drop(input.split_to(blank));
        }
        let mut end = None;
        for (position, byte) in input.iter().copied().enumerate().skip(self.scanned) {
            if self.depth == 0 && byte != b'{' {
                return Err(FrameError::NotAnObject { byte });
            }
            if position >= self.limit {
                return Err(FrameError::TooLong { limit: self.limit });
            }
            self.step(byte);
            if self.depth == 0 {
                end = Some(position.saturating_add(1));
                break;
            }
        }
        match end {
            Some(end) => {
                self.scanned = 0;
                Ok(Some(input.split_to(end).freeze()))
            }
            None => {
                self.scanned = input.len();
                Ok(None)
            }
        }
    }

    /// Braces and brackets count outside strings only; a backslash hides the next byte of a string.
    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
