//! What the IGMP and MLD decoders share: the error, group records and query tails.
//!
//! Promises that no length taken from the wire is used before it was compared with the bytes that are there, and that
//! every list is bounded by the length of its message. Does not know IP headers or checksums.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use thiserror::Error;

pub(super) use super::cursor::Reader;
use super::cursor::Short;

/// Why bytes could not be decoded. Counted by [`reason`](Self::reason), never logged per packet.
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
    /// A length field contradicts the header or the packet that carries it.
    #[error("{what} is {have} where the limit is {need}")]
    BadLength {
        /// The length field.
        what: &'static str,
        /// The limit that it crosses, in bytes.
        need: usize,
        /// Its value, in bytes.
        have: usize,
    },
    /// The packet is neither IPv4 nor IPv6.
    #[error("IP version {have} is neither 4 nor 6")]
    BadVersion {
        /// The version field.
        have: u8,
    },
    /// A well-formed packet of something else than IGMP or MLD.
    #[error("{what} {have} is neither IGMP nor MLD")]
    NotControl {
        /// The field that tells.
        what: &'static str,
        /// Its value.
        have: u8,
    },
    /// A fragment: control messages are decoded from whole packets only.
    #[error("a fragment at offset {offset} is not decoded")]
    Fragment {
        /// Fragment offset in bytes.
        offset: u16,
    },
    /// More IPv6 extension headers than are followed.
    #[error("more than {most} IPv6 extension headers")]
    TooManyHeaders {
        /// How many are followed.
        most: usize,
    },
}

impl DecodeError {
    /// One word for a metric label; stable across releases.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "too_short",
            Self::BadLength { .. } => "bad_length",
            Self::BadVersion { .. } => "bad_version",
            Self::NotControl { .. } => "not_control",
            Self::Fragment { .. } => "fragment",
            Self::TooManyHeaders { .. } => "too_many_headers",
        }
    }
}

/// Why a message could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A list or a message is longer than its length field can say.
    #[error("{what}: {have} do not fit into a field whose largest value is {most}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The largest value of the field.
        most: usize,
        /// How many there are.
        have: usize,
    },
}

impl From<Short> for DecodeError {
    fn from(Short { what, need, have }: Short) -> Self {
        Self::TooShort { what, need, have }
    }
}

/// An address as it stands in a message.
pub trait Address: Copy + Eq {
    /// Its length in bytes.
    const LENGTH: usize;
    /// Appends its bytes in network order.
    fn write(self, out: &mut Vec<u8>);
    /// The address in the first [`LENGTH`](Self::LENGTH) bytes, or `None` when there are fewer.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Address for Ipv4Addr {
    const LENGTH: usize = 4;

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<4>().map(|octets| Self::from(*octets))
    }
}

impl Address for Ipv6Addr {
    const LENGTH: usize = 16;

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<16>().map(|octets| Self::from(*octets))
    }
}

/// Kind of a group record (RFC 9776 §4.2.13, RFC 9777 §5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// 1, IS_IN: current state, receives from these sources.
    ModeIsInclude,
    /// 2, IS_EX: current state, receives from all but these sources.
    ModeIsExclude,
    /// 3, TO_IN: the mode changed; with no sources the membership ends.
    ChangeToInclude,
    /// 4, TO_EX: the mode changed; with no sources this is the join of IGMPv2.
    ChangeToExclude,
    /// 5, ALLOW: these sources are wanted in addition.
    AllowNewSources,
    /// 6, BLOCK: these sources are no longer wanted. Never creates a membership.
    BlockOldSources,
    /// Any other: the record means nothing, the ones after it stand.
    Unknown(u8),
}

impl From<u8> for RecordKind {
    fn from(kind: u8) -> Self {
        match kind {
            1 => Self::ModeIsInclude,
            2 => Self::ModeIsExclude,
            3 => Self::ChangeToInclude,
            4 => Self::ChangeToExclude,
            5 => Self::AllowNewSources,
            6 => Self::BlockOldSources,
            unknown => Self::Unknown(unknown),
        }
    }
}

impl From<RecordKind> for u8 {
    fn from(kind: RecordKind) -> Self {
        match kind {
            RecordKind::ModeIsInclude => 1,
            RecordKind::ModeIsExclude => 2,
            RecordKind::ChangeToInclude => 3,
            RecordKind::ChangeToExclude => 4,
            RecordKind::AllowNewSources => 5,
            RecordKind::BlockOldSources => 6,
            RecordKind::Unknown(unknown) => unknown,
        }
    }
}

/// One group record of an IGMPv3 or MLDv2 report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<A> {
    /// What the record says.
    pub kind: RecordKind,
    /// The group, as sent: nothing checks that it is a multicast address.
    pub group: A,
    /// Sources, as sent: duplicates are kept.
    pub sources: Vec<A>,
    /// Length of the auxiliary data in 32-bit words. The data itself is skipped: neither RFC defines any.
    pub aux_words: u8,
}

/// An IGMPv3 or MLDv2 report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<A> {
    /// The records in the order sent, unknown kinds included.
    pub records: Vec<Record<A>>,
    /// Records that the message claims but the capture does not hold; 0 unless the message is cut.
    pub missing: u16,
}

/// The part of a query that only IGMPv3 and MLDv2 have (RFC 9776 §4.1, RFC 9777 §5.1).
///
/// ```text
/// | Resv  |S| QRV |     QQIC      |     Number of Sources (N)     |
/// |                       Source Address [1]                      |
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryTail<A> {
    /// S: receiving routers do not lower their timers.
    pub suppress: bool,
    /// QRV, 0 to 7; 0 says nothing about the robustness variable.
    pub robustness: u8,
    /// QQIC as sent; [`query_interval`](Self::query_interval) decodes it.
    pub interval_code: u8,
    /// The sources asked for; none in a general or group-specific query.
    pub sources: Vec<A>,
    /// Sources that the message claims but the capture does not hold; 0 unless the message is cut.
    pub missing: u16,
}

impl<A> QueryTail<A> {
    /// The querier's query interval (RFC 9776 §4.1.7).
    pub fn query_interval(&self) -> Duration {
        Duration::from_secs(float8(self.interval_code).into())
    }
}

/// The 8-bit floating-point code of RFC 9776 §4.1.1 and §4.1.7: linear below 128.
pub fn float8(code: u8) -> u32 {
    match code {
        0..128 => code.into(),
        128.. => (u32::from(code & 0x0f) | 0x10) << (u32::from((code >> 4) & 0x07) + 3),
    }
}

/// The 16-bit floating-point code of RFC 9777 §5.1.3: linear below 32,768.
pub fn float16(code: u16) -> u32 {
    match code {
        0..0x8000 => code.into(),
        0x8000.. => (u32::from(code & 0x0fff) | 0x1000) << (u32::from((code >> 12) & 0x07) + 3),
    }
}

/// `declared` group records. With `cut`, what lies beyond the capture is left out; otherwise it is an error: a
/// receiver of the whole message finds it malformed too.
pub(super) fn records<A: Address>(reader: &mut Reader<'_>, declared: u16, cut: bool) -> Result<Report<A>, DecodeError> {
    let mut records = Vec::new();
    for done in 0..declared {
        match record(reader, cut) {
            Ok(record) => records.push(record),
            Err(_) if cut => {
                return Ok(Report {
                    records,
                    missing: declared - done,
                });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Report { records, missing: 0 })
}

fn record<A: Address>(reader: &mut Reader<'_>, cut: bool) -> Result<Record<A>, DecodeError> {
    let [kind, aux_words, high, low] = reader.array("group record header")?;
    let group = address(reader, "group of a record")?;
    let sources = addresses(reader, u16::from_be_bytes([high, low]).into(), "sources of a record")?;
    let aux_bytes = usize::from(aux_words) * 4;
    // The record itself is whole when only its auxiliary data are cut: the next one will find nothing to read.
    let skip = if cut {
        aux_bytes.min(reader.rest().len())
    } else {
        aux_bytes
    };
    reader.take(skip, "auxiliary data of a record")?;
    Ok(Record {
        kind: kind.into(),
        group,
        sources,
        aux_words,
    })
}

/// The tail of an IGMPv3 or MLDv2 query; `cut` as in [`records`].
pub(super) fn query_tail<A: Address>(reader: &mut Reader<'_>, cut: bool) -> Result<QueryTail<A>, DecodeError> {
    let [flags, interval_code, high, low] = reader.array("query header")?;
    let declared = u16::from_be_bytes([high, low]);
    let there = reader.rest().len() / A::LENGTH;
    let whole = if cut {
        usize::from(declared).min(there)
    } else {
        declared.into()
    };
    let sources = addresses(reader, whole, "sources of a query")?;
    Ok(QueryTail {
        suppress: flags & 0x08 != 0,
        robustness: flags & 0x07,
        interval_code,
        // `whole` is at most `declared`, a u16.
        missing: declared.saturating_sub(u16::try_from(whole).unwrap_or(u16::MAX)),
        sources,
    })
}

pub(super) fn address<A: Address>(reader: &mut Reader<'_>, what: &'static str) -> Result<A, DecodeError> {
    let too_short = DecodeError::TooShort {
        what,
        need: A::LENGTH,
        have: reader.rest().len(),
    };
    A::read(reader.take(A::LENGTH, what)?).ok_or(too_short)
}

/// Takes the bytes of all addresses at once, so that no allocation is larger than what is there.
fn addresses<A: Address>(reader: &mut Reader<'_>, count: usize, what: &'static str) -> Result<Vec<A>, DecodeError> {
    let bytes = reader.take(count * A::LENGTH, what)?;
    Ok(bytes.chunks_exact(A::LENGTH).filter_map(A::read).collect())
}

/// Appends a report's record count and records; the auxiliary data are zeros.
pub(super) fn write_records<A: Address>(out: &mut Vec<u8>, report: &Report<A>) -> Result<(), EncodeError> {
    out.extend_from_slice(&count16(report.records.len(), "group records")?);
    for record in &report.records {
        out.extend_from_slice(&[record.kind.into(), record.aux_words]);
        out.extend_from_slice(&count16(record.sources.len(), "sources of a record")?);
        record.group.write(out);
        record.sources.iter().for_each(|source| source.write(out));
        out.resize(out.len() + usize::from(record.aux_words) * 4, 0);
    }
    Ok(())
}

/// Appends the tail of a query.
pub(super) fn write_query_tail<A: Address>(out: &mut Vec<u8>, tail: &QueryTail<A>) -> Result<(), EncodeError> {
    let flags = (u8::from(tail.suppress) << 3) | (tail.robustness & 0x07);
    out.extend_from_slice(&[flags, tail.interval_code]);
    out.extend_from_slice(&count16(tail.sources.len(), "sources of a query")?);
    tail.sources.iter().for_each(|source| source.write(out));
    Ok(())
}

pub(super) fn count16(have: usize, what: &'static str) -> Result<[u8; 2], EncodeError> {
    let most = usize::from(u16::MAX);
    u16::try_from(have)
        .map(u16::to_be_bytes)
        .map_err(|_| EncodeError::TooMany { what, most, have })
}

/// Writes a checksum where IGMP and ICMPv6 both have it: bytes 2 and 3.
pub(super) fn put_checksum(message: &mut [u8], checksum: u16) {
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of the tables that RFC 9776 §4.1.1 and RFC 9777 §5.1.3 define by formula, worked out by
    /// hand at both ends of each segment.
    #[test]
    fn codes_are_linear_first_and_floating_point_from_the_threshold_on() {
        for (code, value) in [
            (0, 0),
            (127, 127),
            (128, 128),
            (129, 136),
            (0x8f, 248),
            (0x90, 256),
            (0xff, 31_744),
        ] {
            assert_eq!(float8(code), value, "float8({code})");
        }
        for (code, value) in [
            (0, 0),
            (32_767, 32_767),
            (32_768, 32_768),
            (0x8001, 32_776),
            (0xffff, 8_387_584),
        ] {
            assert_eq!(float16(code), value, "float16({code})");
        }
    }

    #[test]
    fn every_kind_keeps_its_number() {
        for number in 0..=u8::MAX {
            assert_eq!(u8::from(RecordKind::from(number)), number);
        }
        assert_eq!(RecordKind::from(7), RecordKind::Unknown(7));
        assert_eq!(RecordKind::from(0), RecordKind::Unknown(0));
    }
}
