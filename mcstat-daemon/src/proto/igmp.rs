//! IGMPv1 (RFC 1112), IGMPv2 (RFC 2236) and IGMPv3 (RFC 9776): bytes to typed messages and back.
//!
//! Takes the message without its IP header. Keeps every value as it was sent and judges none of them: envelope and
//! checksum belong to [`control`](super::control), membership to the ledger.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    checksum,
    wire::{self, DecodeError, EncodeError, QueryTail, Reader, Report},
};

/// Shortest message about a membership, in every version.
pub const MIN_LENGTH: usize = 8;
/// Type, code and checksum: what every message has. Multicast router discovery sends messages of no more (RFC 4286 §3.2
/// and §3.3).
const HEADER_LENGTH: usize = 4;

const QUERY: u8 = 0x11;
const V1_REPORT: u8 = 0x12;
const V2_REPORT: u8 = 0x16;
const V2_LEAVE: u8 = 0x17;
const V3_REPORT: u8 = 0x22;

/// One IGMP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IgmpMessage {
    /// 0x11, of any version.
    Query(IgmpQuery),
    /// 0x12.
    V1Report {
        /// The group joined.
        group: Ipv4Addr,
    },
    /// 0x16.
    V2Report {
        /// The group joined.
        group: Ipv4Addr,
    },
    /// 0x17.
    V2Leave {
        /// The group left.
        group: Ipv4Addr,
    },
    /// 0x22.
    V3Report(Report<Ipv4Addr>),
    /// No membership: DVMRP (0x13), PIMv1 (0x14), mtrace (0x1e, 0x1f), router discovery (0x30 to 0x32) and the like, and
    /// a query of a length that no version has (RFC 9776 §7.1 says to ignore it).
    Other {
        /// The type field.
        kind: u8,
    },
}

/// A membership query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgmpQuery {
    /// Max Resp Code as sent; [`max_response`](Self::max_response) decodes it.
    pub max_response_code: u8,
    /// The group asked for; 0.0.0.0 in a general query.
    pub group: Ipv4Addr,
    /// What only IGMPv3 has.
    pub tail: Option<QueryTail<Ipv4Addr>>,
}

impl IgmpQuery {
    /// 1, 2 or 3, by length and code (RFC 9776 §7.1).
    pub fn version(&self) -> u8 {
        match (&self.tail, self.max_response_code) {
            (Some(_), _) => 3,
            (None, 0) => 1,
            (None, _) => 2,
        }
    }

    /// How long a host may wait with its answer. IGMPv1 has no such field: 10 s (RFC 2236 §4).
    pub fn max_response(&self) -> Duration {
        let tenths = match self.version() {
            1 => 100,
            // The floating-point form came with IGMPv3: in IGMPv2 all 256 values are linear (RFC 2236 §2.2).
            2 => self.max_response_code.into(),
            _ => wire::float8(self.max_response_code),
        };
        Duration::from_millis(u64::from(tenths) * 100)
    }

    /// Whether all groups are asked for. IGMPv1 can ask for nothing else: its group is ignored (RFC 1112, appendix I).
    pub fn is_general(&self) -> bool {
        self.group.is_unspecified() || self.version() == 1
    }
}

/// Decodes `message`, of which `declared` bytes were sent. With fewer at hand the message is cut: lists then end where
/// the capture does.
///
/// ```text
/// |     Type      | Max Resp Code |           Checksum            |
/// |                         Group Address                         |    and in a v3 report:
/// |           Reserved            |  Number of Group Records (M)  |
/// ```
///
/// # Errors
/// When the fixed part is not there, or an uncut message claims more records or sources than it holds.
pub fn decode(message: &[u8], declared: usize) -> Result<IgmpMessage, DecodeError> {
    let too_short = |need| DecodeError::TooShort {
        what: "IGMP message",
        need,
        have: declared,
    };
    if declared < HEADER_LENGTH {
        return Err(too_short(HEADER_LENGTH));
    }
    let cut = message.len() < declared;
    let mut reader = Reader::new(message);
    let [kind, code, _, _] = reader.array("IGMP header")?;
    if !matches!(kind, QUERY | V1_REPORT | V2_REPORT | V2_LEAVE | V3_REPORT) {
        return Ok(IgmpMessage::Other { kind });
    }
    if declared < MIN_LENGTH {
        return Err(too_short(MIN_LENGTH));
    }
    let group_field: [u8; 4] = reader.array("IGMP group")?;
    let group = Ipv4Addr::from(group_field);
    Ok(match kind {
        QUERY => query(&mut reader, declared, cut, code, group)?,
        V1_REPORT => IgmpMessage::V1Report { group },
        V2_REPORT => IgmpMessage::V2Report { group },
        V2_LEAVE => IgmpMessage::V2Leave { group },
        _ => {
            let [_, _, high, low] = group_field;
            IgmpMessage::V3Report(wire::records(&mut reader, u16::from_be_bytes([high, low]), cut)?)
        }
    })
}

fn query(
    reader: &mut Reader<'_>,
    declared: usize,
    cut: bool,
    max_response_code: u8,
    group: Ipv4Addr,
) -> Result<IgmpMessage, DecodeError> {
    let tail = match declared {
        MIN_LENGTH => None,
        12.. => Some(wire::query_tail(reader, cut)?),
        _ => return Ok(IgmpMessage::Other { kind: QUERY }),
    };
    Ok(IgmpMessage::Query(IgmpQuery {
        max_response_code,
        group,
        tail,
    }))
}

/// The bytes of `message`, checksum filled in. [`IgmpMessage::Other`] becomes its type and seven zeros with a checksum,
/// save that a query without a version becomes nine bytes long.
///
/// # Errors
/// When a list has more than 65,535 entries.
pub fn encode(message: &IgmpMessage) -> Result<Vec<u8>, EncodeError> {
    let (kind, code) = match message {
        IgmpMessage::Query(query) => (QUERY, query.max_response_code),
        IgmpMessage::V1Report { .. } => (V1_REPORT, 0),
        IgmpMessage::V2Report { .. } => (V2_REPORT, 0),
        IgmpMessage::V2Leave { .. } => (V2_LEAVE, 0),
        IgmpMessage::V3Report(_) => (V3_REPORT, 0),
        IgmpMessage::Other { kind } => (*kind, 0),
    };
    let mut out = vec![kind, code, 0, 0];
    match message {
        IgmpMessage::Query(query) => {
            out.extend_from_slice(&query.group.octets());
            if let Some(tail) = &query.tail {
                wire::write_query_tail(&mut out, tail)?;
            }
        }
        IgmpMessage::V1Report { group } | IgmpMessage::V2Report { group } | IgmpMessage::V2Leave { group } => {
            out.extend_from_slice(&group.octets());
        }
        IgmpMessage::V3Report(report) => {
            out.extend_from_slice(&[0, 0]);
            wire::write_records(&mut out, report)?;
        }
        IgmpMessage::Other { kind: QUERY } => out.resize(MIN_LENGTH + 1, 0),
        IgmpMessage::Other { .. } => out.resize(MIN_LENGTH, 0),
    }
    let checksum = checksum::internet(&out);
    wire::put_checksum(&mut out, checksum);
    Ok(out)
}
