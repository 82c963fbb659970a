//! A cursor over received bytes that never reads past their end; the binary decoders share it.

use thiserror::Error;

/// A part of a message lies beyond the bytes that are there. Every decoder has a variant of its own for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{what} needs {need} bytes, {have} are there")]
pub(super) struct Short {
    /// The part of the message.
    pub(super) what: &'static str,
    /// Bytes that it needs.
    pub(super) need: usize,
    /// Bytes that are there.
    pub(super) have: usize,
}

/// A position in a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `need` bytes; on an error nothing is consumed.
    pub(super) fn take(&mut self, need: usize, what: &'static str) -> Result<&'a [u8], Short> {
        let have = self.rest.len();
        let (taken, rest) = self.rest.split_at_checked(need).ok_or(Short { what, need, have })?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array; on an error nothing is consumed.
    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Short> {
        let have = self.rest.len();
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Short { what, need: N, have })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// The next byte.
    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, Short> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// The next two bytes in network order.
    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Short> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// The next four bytes in network order.
    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Short> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// The next eight bytes in network order.
    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Short> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_consumes_nothing_on_an_error() {
        let mut reader = Reader::new(&[1, 2, 3]);
        let error = Short {
            what: "four",
            need: 4,
            have: 3,
        };
        assert_eq!(reader.array::<4>("four"), Err(error));
        assert_eq!(reader.take(4, "four"), Err(error));
        assert_eq!(reader.u32("four"), Err(error));
        assert_eq!(reader.rest(), [1, 2, 3]);
        assert_eq!(reader.u16("two"), Ok(0x0102));
        assert_eq!(reader.u8("one"), Ok(3));
    }
}
