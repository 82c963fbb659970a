//! MLDv1 (RFC 2710) and MLDv2 (RFC 9777): bytes to typed messages and back.
//!
//! Takes the ICMPv6 message without its IPv6 headers. Keeps every value as it was sent and judges none of them: envelope
//! and checksum belong to [`control`](super::control), membership to the ledger.

use std::{net::Ipv6Addr, time::Duration};

use super::{
    checksum,
    wire::{self, Address, DecodeError, EncodeError, QueryTail, Reader, Report},
};

/// Length of every MLDv1 message, and the shortest query.
pub const V1_LENGTH: usize = 24;

const QUERY: u8 = 130;
const V1_REPORT: u8 = 131;
const V1_DONE: u8 = 132;
const V2_REPORT: u8 = 143;

/// One MLD message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MldMessage {
    /// 130, of any version.
    Query(MldQuery),
    /// 131.
    V1Report {
        /// The group joined.
        group: Ipv6Addr,
    },
    /// 132.
    V1Done {
        /// The group left.
        group: Ipv6Addr,
    },
    /// 143.
    V2Report(Report<Ipv6Addr>),
    /// A query of 25 to 27 bytes, a length that no version has (RFC 9777 §8.1 says to ignore it).
    Other {
        /// The type field.
        kind: u8,
    },
}

/// A multicast listener query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MldQuery {
    /// Maximum Response Code as sent; [`max_response`](Self::max_response) decodes it.
    pub max_response_code: u16,
    /// The group asked for; `::` in a general query.
    pub group: Ipv6Addr,
    /// What only MLDv2 has.
    pub tail: Option<QueryTail<Ipv6Addr>>,
}

impl MldQuery {
    /// 1 or 2, by length (RFC 9777 §8.1).
    pub fn version(&self) -> u8 {
        if self.tail.is_some() { 2 } else { 1 }
    }

    /// How long a listener may wait with its answer. The floating-point form came with MLDv2.
    pub fn max_response(&self) -> Duration {
        let code = self.max_response_code;
        let milliseconds = if self.tail.is_some() {
            wire::float16(code)
        } else {
            code.into()
        };
        Duration::from_millis(milliseconds.into())
    }

    /// Whether all groups are asked for.
    pub fn is_general(&self) -> bool {
        self.group.is_unspecified()
    }
}

/// Decodes `message`, of which `declared` bytes were sent. With fewer at hand the message is cut: lists then end where
/// the capture does.
///
/// ```text
/// |     Type      |     Code      |           Checksum            |
/// |     Maximum Response Code     |           Reserved            |    and in a v2 report:
/// |           Reserved            |Nr of Mcast Address Records (M)|
/// ```
///
/// # Errors
/// When the type is none of MLD's, the fixed part is not there, or an uncut message claims more records or sources
/// than it holds.
pub fn decode(message: &[u8], declared: usize) -> Result<MldMessage, DecodeError> {
    let cut = message.len() < declared;
    let mut reader = Reader::new(message);
    let [kind, _, _, _] = reader.array("ICMPv6 header")?;
    match kind {
        QUERY | V1_REPORT | V1_DONE if declared < V1_LENGTH => {
            return Err(DecodeError::TooShort {
                what: "MLD message",
                need: V1_LENGTH,
                have: declared,
            });
        }
        QUERY | V1_REPORT | V1_DONE | V2_REPORT => {}
        have => {
            return Err(DecodeError::NotControl {
                what: "ICMPv6 type",
                have,
            });
        }
    }
    let [code_high, code_low, high, low] = reader.array("MLD header")?;
    if kind == V2_REPORT {
        let report = wire::records(&mut reader, u16::from_be_bytes([high, low]), cut)?;
        return Ok(MldMessage::V2Report(report));
    }
    let group = wire::address(&mut reader, "MLD group")?;
    Ok(match kind {
        V1_REPORT => MldMessage::V1Report { group },
        V1_DONE => MldMessage::V1Done { group },
        _ => {
            let tail = match declared {
                V1_LENGTH => None,
                28.. => Some(wire::query_tail(&mut reader, cut)?),
                _ => return Ok(MldMessage::Other { kind }),
            };
            MldMessage::Query(MldQuery {
                max_response_code: u16::from_be_bytes([code_high, code_low]),
                group,
                tail,
            })
        }
    })
}

/// The bytes of `message` with the checksum for these addresses. [`MldMessage::Other`] becomes its type and 24 zeros
/// with a checksum.
///
/// # Errors
/// When a list has more than 65,535 entries.
pub fn encode(message: &MldMessage, source: Ipv6Addr, destination: Ipv6Addr) -> Result<Vec<u8>, EncodeError> {
    let (kind, code) = match message {
        MldMessage::Query(query) => (QUERY, query.max_response_code),
        MldMessage::V1Report { .. } => (V1_REPORT, 0),
        MldMessage::V1Done { .. } => (V1_DONE, 0),
        MldMessage::V2Report(_) => (V2_REPORT, 0),
        MldMessage::Other { kind } => (*kind, 0),
    };
    let [code_high, code_low] = code.to_be_bytes();
    let mut out = vec![kind, 0, 0, 0, code_high, code_low];
    match message {
        MldMessage::Query(query) => {
            out.extend_from_slice(&[0, 0]);
            query.group.write(&mut out);
            if let Some(tail) = &query.tail {
                wire::write_query_tail(&mut out, tail)?;
            }
        }
        MldMessage::V1Report { group } | MldMessage::V1Done { group } => {
            out.extend_from_slice(&[0, 0]);
            group.write(&mut out);
        }
        MldMessage::V2Report(report) => wire::write_records(&mut out, report)?,
        MldMessage::Other { .. } => out.resize(V1_LENGTH + 1, 0),
    }
    let checksum = checksum::icmpv6(source, destination, &out);
    wire::put_checksum(&mut out, checksum);
    Ok(out)
}
