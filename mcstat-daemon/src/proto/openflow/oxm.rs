//! Match fields (OXM, OpenFlow 1.5 §7.2.3; NXM, `ovs-fields(7)`).
//!
//! ```text
//! |             class             |    field    |M|    length     |
//! | value, and with M a mask of the same length ...
//! ```
//! Towards OpenFlow 1.5 a switch writes the register `reg1` of a match as one half of the 64-bit packet register `xreg0`
//! (class 0x8001); in actions the 32-bit NXM field stands too. Both come out as [`Field::Register`].

use std::net::Ipv4Addr;

use super::{super::cursor::Reader, error::DecodeError};

/// Fields of Nicira's extension (`NXM_NX_*`).
const NXM_1: u16 = 0x0001;
/// The fields of the standard.
const BASIC: u16 = 0x8000;
/// Packet registers, 64 bits each.
const PACKET_REGISTERS: u16 = 0x8001;

/// One field of a match, or the new content of one in an action. Bits outside a mask are zero in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// The port that the packet came in by.
    InPort(u32),
    /// Ethernet type.
    EthType(u16),
    /// IP protocol.
    IpProto(u8),
    /// IPv4 source.
    Ipv4Src {
        /// The address.
        address: Ipv4Addr,
        /// Its bits that count.
        mask: Ipv4Addr,
    },
    /// IPv4 destination.
    Ipv4Dst {
        /// The address.
        address: Ipv4Addr,
        /// Its bits that count.
        mask: Ipv4Addr,
    },
    /// IPv4 destination of the tunnel's outer packet.
    TunnelDst {
        /// The address.
        address: Ipv4Addr,
        /// Its bits that count.
        mask: Ipv4Addr,
    },
    /// One of the 32-bit registers.
    Register {
        /// Which: 0 to 15.
        number: u8,
        /// Its value.
        value: u32,
        /// Its bits that count; never 0.
        mask: u32,
    },
    /// The conjunction that was fulfilled.
    ConjunctionId(u32),
    /// A field that this module does not know.
    Unknown(UnknownField),
}

/// The header of an unknown field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnknownField {
    /// Class; 0xffff is an experimenter's.
    pub class: u16,
    /// Field within the class.
    pub field: u8,
    /// Whether half of the content is a mask.
    pub has_mask: bool,
    /// Length of the content in bytes.
    pub len: u8,
}

/// Every field in `bytes`.
pub(super) fn decode_match(bytes: &[u8]) -> Result<Vec<Field>, DecodeError> {
    let mut reader = Reader::new(bytes);
    // Most flows match on two or three fields.
    let mut fields = Vec::with_capacity(3);
    while !reader.rest().is_empty() {
        decode_field(&mut reader, |field| fields.push(field))?;
    }
    Ok(fields)
}

/// Takes one OXM off the reader: one field, or up to two where a packet register is two registers.
pub(super) fn decode_field(reader: &mut Reader<'_>, mut field: impl FnMut(Field)) -> Result<(), DecodeError> {
    let class = reader.u16("OXM header")?;
    let [bits, len] = reader.array("OXM header")?;
    let (number, has_mask) = (bits >> 1, bits & 1 == 1);
    let content = reader.take(len.into(), "OXM value")?;
    match (class, number, has_mask) {
        (BASIC, 0, false) => field(Field::InPort(u32::from_be_bytes(exact(content)?))),
        (BASIC, 5, false) => field(Field::EthType(u16::from_be_bytes(exact(content)?))),
        (BASIC, 10, false) => field(Field::IpProto(u8::from_be_bytes(exact(content)?))),
        (BASIC, 11, _) => {
            let (address, mask) = address(content, has_mask)?;
            field(Field::Ipv4Src { address, mask });
        }
        (BASIC, 12, _) => {
            let (address, mask) = address(content, has_mask)?;
            field(Field::Ipv4Dst { address, mask });
        }
        (NXM_1, 32, _) => {
            let (address, mask) = address(content, has_mask)?;
            field(Field::TunnelDst { address, mask });
        }
        (NXM_1, 37, false) => field(Field::ConjunctionId(u32::from_be_bytes(exact(content)?))),
        (NXM_1, 0..=15, _) => {
            let (value, mask) = masked(content, has_mask)?;
            register(number, u32::from_be_bytes(value), u32::from_be_bytes(mask), field);
        }
        (PACKET_REGISTERS, 0..=7, _) => {
            let (value, mask) = masked(content, has_mask)?;
            let (value, mask) = (u64::from_be_bytes(value), u64::from_be_bytes(mask));
            // xreg N is reg 2N, then reg 2N + 1.
            register(2 * number, (value >> 32) as u32, (mask >> 32) as u32, &mut field);
            register(2 * number + 1, value as u32, mask as u32, &mut field);
        }
        _ => field(Field::Unknown(UnknownField {
            class,
            field: number,
            has_mask,
            len,
        })),
    }
    Ok(())
}

/// A register of which no bit counts says nothing.
fn register(number: u8, value: u32, mask: u32, mut field: impl FnMut(Field)) {
    if mask != 0 {
        field(Field::Register {
            number,
            value: value & mask,
            mask,
        });
    }
}

fn address(content: &[u8], has_mask: bool) -> Result<(Ipv4Addr, Ipv4Addr), DecodeError> {
    let (value, mask) = masked::<4>(content, has_mask)?;
    let mask = Ipv4Addr::from(mask);
    Ok((Ipv4Addr::from(value) & mask, mask))
}

/// Value and mask; without a mask every bit counts.
fn masked<const N: usize>(content: &[u8], has_mask: bool) -> Result<([u8; N], [u8; N]), DecodeError> {
    if !has_mask {
        return Ok((exact(content)?, [0xff; N]));
    }
    let mut reader = Reader::new(content);
    let value = reader.array("masked OXM value")?;
    Ok((value, exact(reader.rest())?))
}

fn exact<const N: usize>(content: &[u8]) -> Result<[u8; N], DecodeError> {
    content.try_into().map_err(|_| DecodeError::BadLength {
        what: "an OXM value",
        need: N,
        have: content.len(),
    })
}
