//! Flow descriptions: the entries of an OFPMP_FLOW_DESC reply (OpenFlow 1.5 §7.3.5.2).
//!
//! ```text
//! |            length             |              pad              |
//! |   table_id    |      pad      |           priority            |
//! |         idle_timeout          |         hard_timeout          |
//! |             flags             |          importance           |
//! |                            cookie                             |
//! |                          (64 bits)                            |
//! | match: type, length, OXM fields, padded to 8                  |
//! | stats: reserved, length, OXS fields, padded to 8              |
//! | instructions                                                  |
//! ```

use std::time::Duration;

use super::{
    super::cursor::Reader,
    action::{Action, decode_actions},
    error::DecodeError,
    oxm::{Field, decode_match},
};

/// Length of the fixed part.
const FIXED: usize = 24;
/// Type and length before match, stats and instructions.
const TLV: usize = 4;
/// What matches, stats and instructions are padded to.
const UNIT: usize = 8;
/// The only match type left in 1.5.
const MATCH_OXM: u16 = 1;
/// OXS class of the standard's statistics.
const OXS_BASIC: u16 = 0x8002;
const GOTO_TABLE: u16 = 1;
const APPLY_ACTIONS: u16 = 4;

/// One flow with its statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowDesc {
    /// The table that it is in.
    pub table: u8,
    /// Priority: the highest that matches wins.
    pub priority: u16,
    /// The controller's own mark.
    pub cookie: u64,
    /// What it matches; empty: everything.
    pub fields: Vec<Field>,
    /// What it has counted.
    pub stats: FlowStats,
    /// What it does to a packet, in order.
    pub actions: Vec<Action>,
    /// Where the packet goes on.
    pub goto_table: Option<u8>,
    /// Instructions that this module does not know.
    pub unknown: Vec<UnknownInstruction>,
}

impl FlowDesc {
    /// Whether a packet ends here: no action, no further table, and nothing unknown that might be either.
    pub fn drops(&self) -> bool {
        self.actions.is_empty() && self.goto_table.is_none() && self.unknown.is_empty()
    }
}

/// The statistics of a flow; what the switch did not say is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// How long the flow has existed. Begins anew when the flow is added again.
    pub duration: Option<Duration>,
    /// How long no packet has met it.
    pub idle: Option<Duration>,
    /// Packets. Open vSwitch counts them up to half a second late.
    pub packets: Option<u64>,
    /// Bytes, Ethernet header included.
    pub bytes: Option<u64>,
}

/// The header of an unknown instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnknownInstruction {
    /// Type.
    pub kind: u16,
    /// Whole length in bytes.
    pub len: u16,
}

/// Appends every flow of one part of a reply.
///
/// # Errors
/// [`DecodeError`]; flows before the wrong one are in `flows` then.
pub fn decode_flows(part: &[u8], flows: &mut Vec<FlowDesc>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(part);
    while !reader.rest().is_empty() {
        let length = usize::from(reader.u16("a flow")?);
        if length < FIXED {
            return Err(DecodeError::BadLength {
                what: "a flow",
                need: FIXED,
                have: length,
            });
        }
        flows.push(decode_flow(Reader::new(reader.take(length - 2, "a flow")?))?);
    }
    Ok(())
}

fn decode_flow(mut entry: Reader<'_>) -> Result<FlowDesc, DecodeError> {
    entry.take(2, "flow")?;
    let [table, _] = entry.array("flow")?;
    let priority = entry.u16("flow")?;
    entry.take(8, "flow")?; // timeouts, flags, importance
    let cookie = entry.u64("flow")?;
    let (kind, oxm) = padded(&mut entry, "a match")?;
    if kind != MATCH_OXM {
        return Err(DecodeError::Unexpected {
            what: "type of a match",
            need: MATCH_OXM,
            have: kind,
        });
    }
    let (_, oxs) = padded(&mut entry, "the statistics")?;
    let mut flow = FlowDesc {
        table,
        priority,
        cookie,
        fields: decode_match(oxm)?,
        stats: decode_stats(oxs)?,
        actions: Vec::new(),
        goto_table: None,
        unknown: Vec::new(),
    };
    while !entry.rest().is_empty() {
        decode_instruction(&mut entry, &mut flow)?;
    }
    Ok(flow)
}

/// First field and content of a part whose length counts its header but not its padding.
fn padded<'a>(entry: &mut Reader<'a>, what: &'static str) -> Result<(u16, &'a [u8]), DecodeError> {
    let first = entry.u16(what)?;
    let length = usize::from(entry.u16(what)?);
    if length < TLV {
        return Err(DecodeError::BadLength {
            what,
            need: TLV,
            have: length,
        });
    }
    let content = entry.take(length - TLV, what)?;
    entry.take(length.next_multiple_of(UNIT) - length, "padding")?;
    Ok((first, content))
}

/// OXS fields look like OXM fields without masks.
fn decode_stats(bytes: &[u8]) -> Result<FlowStats, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut stats = FlowStats::default();
    while !reader.rest().is_empty() {
        let class = reader.u16("OXS header")?;
        let [bits, len] = reader.array("OXS header")?;
        let content = reader.take(len.into(), "OXS value")?;
        match (class, bits >> 1) {
            (OXS_BASIC, 0) => stats.duration = Some(duration(content)?),
            (OXS_BASIC, 1) => stats.idle = Some(duration(content)?),
            (OXS_BASIC, 4) => stats.packets = Some(u64::from_be_bytes(eight(content)?)),
            (OXS_BASIC, 5) => stats.bytes = Some(u64::from_be_bytes(eight(content)?)),
            _ => {}
        }
    }
    Ok(stats)
}

/// Seconds, then nanoseconds; more of those than a second has are added up.
fn duration(content: &[u8]) -> Result<Duration, DecodeError> {
    let both = u64::from_be_bytes(eight(content)?);
    let (seconds, nanoseconds) = (both >> 32, both & 0xffff_ffff);
    Ok(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
}

fn eight(content: &[u8]) -> Result<[u8; 8], DecodeError> {
    content.try_into().map_err(|_| DecodeError::BadLength {
        what: "an OXS value",
        need: 8,
        have: content.len(),
    })
}

fn decode_instruction(entry: &mut Reader<'_>, flow: &mut FlowDesc) -> Result<(), DecodeError> {
    let kind = entry.u16("instruction header")?;
    let len = entry.u16("instruction header")?;
    let length = usize::from(len);
    if length < UNIT || length % UNIT != 0 {
        return Err(DecodeError::BadLength {
            what: "an instruction",
            need: UNIT,
            have: length,
        });
    }
    let mut body = Reader::new(entry.take(length - TLV, "instruction")?);
    match kind {
        GOTO_TABLE => flow.goto_table = Some(body.u8("goto-table instruction")?),
        APPLY_ACTIONS => {
            body.take(4, "apply-actions instruction")?;
            decode_actions(body.rest(), &mut flow.actions)?;
        }
        _ => flow.unknown.push(UnknownInstruction { kind, len }),
    }
    Ok(())
}
