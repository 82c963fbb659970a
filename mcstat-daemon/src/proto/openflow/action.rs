//! Actions (OpenFlow 1.5 §7.2.6; those of Open vSwitch: `ovs-actions(7)`), as far as Antrea's multicast flows and groups
//! use them. Whoever programmed them with which version, towards 1.5 a switch writes every load of a field as SET_FIELD.

use super::{
    super::cursor::Reader,
    error::DecodeError,
    oxm::{self, Field},
};

const OUTPUT: u16 = 0;
const GROUP: u16 = 22;
const SET_FIELD: u16 = 25;
const EXPERIMENTER: u16 = 0xffff;
/// Nicira, now of Open vSwitch.
const NICIRA: u32 = 0x0000_2320;
const NX_RESUBMIT_TABLE: u16 = 14;
const NX_CONJUNCTION: u16 = 34;

/// Shortest action, and what every length is a multiple of.
const UNIT: usize = 8;

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sends the packet out.
    Output {
        /// The port, or one of the reserved numbers.
        port: u32,
    },
    /// Processes the packet by a group.
    Group {
        /// The group's number.
        id: u32,
    },
    /// Sets a field, or the bits of it that the mask has.
    SetField(Field),
    /// Looks the packet up once more and comes back.
    Resubmit {
        /// The port that it is to have come by; 0xfff8 is its own.
        in_port: u16,
        /// The table; 0xff is this one.
        table: u8,
    },
    /// One dimension of a conjunction (`conjunction(id, k/n)`): the flow's match fulfils this clause.
    Conjunction {
        /// The conjunction.
        id: u32,
        /// The clause that is fulfilled, from 0: one less than `ovs-ofctl` shows.
        clause: u8,
        /// How many the conjunction has.
        clauses: u8,
    },
    /// An action of the standard that this module does not know.
    Unknown {
        /// Type.
        kind: u16,
        /// Whole length in bytes.
        len: u16,
    },
    /// An experimenter's that this module does not know.
    UnknownExperimenter {
        /// Who defined it.
        experimenter: u32,
        /// The experimenter's type, for Nicira's; else 0.
        subtype: u16,
        /// Whole length in bytes.
        len: u16,
    },
}

/// Every action in `bytes`.
pub(super) fn decode_actions(bytes: &[u8], actions: &mut Vec<Action>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while !reader.rest().is_empty() {
        let kind = reader.u16("action header")?;
        let len = reader.u16("action header")?;
        let length = usize::from(len);
        if length < UNIT || length % UNIT != 0 {
            return Err(DecodeError::BadLength {
                what: "an action",
                need: UNIT,
                have: length,
            });
        }
        let body = Reader::new(reader.take(length - 4, "action")?);
        decode_action(kind, len, body, actions)?;
    }
    Ok(())
}

fn decode_action(kind: u16, len: u16, mut body: Reader<'_>, actions: &mut Vec<Action>) -> Result<(), DecodeError> {
    match kind {
        OUTPUT => {
            let port = body.u32("output action")?;
            body.take(8, "output action")?; // max_len for the controller, padding
            actions.push(Action::Output { port });
        }
        GROUP => actions.push(Action::Group {
            id: body.u32("group action")?,
        }),
        SET_FIELD => oxm::decode_field(&mut body, |field| actions.push(Action::SetField(field)))?,
        EXPERIMENTER => actions.push(decode_experimenter(len, body)?),
        _ => actions.push(Action::Unknown { kind, len }),
    }
    Ok(())
}

fn decode_experimenter(len: u16, mut body: Reader<'_>) -> Result<Action, DecodeError> {
    let experimenter = body.u32("experimenter action")?;
    if experimenter != NICIRA {
        return Ok(Action::UnknownExperimenter {
            experimenter,
            subtype: 0,
            len,
        });
    }
    let subtype = body.u16("Nicira action")?;
    Ok(match subtype {
        NX_RESUBMIT_TABLE => {
            let in_port = body.u16("resubmit action")?;
            let table = body.u8("resubmit action")?;
            Action::Resubmit { in_port, table }
        }
        NX_CONJUNCTION => {
            let [clause, clauses] = body.array("conjunction action")?;
            let id = body.u32("conjunction action")?;
            Action::Conjunction { id, clause, clauses }
        }
        _ => Action::UnknownExperimenter {
            experimenter,
            subtype,
            len,
        },
    })
}
