//! OpenFlow 1.5 messages as a switch writes them, made by hand.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::BufMut as _;

const ECHO_REPLY: u8 = 3;
const MULTIPART_REPLY: u8 = 19;

pub(crate) fn message(version: u8, kind: u8, xid: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version, kind];
    bytes.put_u16(u16::try_from(8 + body.len()).unwrap());
    bytes.put_u32(xid);
    bytes.put_slice(body);
    bytes
}

pub(crate) fn hello() -> Vec<u8> {
    message(6, 0, 77, &[0, 1, 0, 8, 0, 0, 0, 0x42])
}

pub(crate) fn part(xid: u32, kind: u16, flags: u16, entries: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16(kind);
    body.put_u16(flags);
    body.put_u32(0);
    body.put_slice(entries);
    message(6, MULTIPART_REPLY, xid, &body)
}

/// A flow without statistics: OXM fields, then instructions.
pub(crate) fn flow(cookie: u64, oxm: &[u8], instructions: &[u8]) -> Vec<u8> {
    let padding = (4 + oxm.len()).next_multiple_of(8) - 4 - oxm.len();
    let length = 24 + 4 + oxm.len() + padding + 8 + instructions.len();
    let mut bytes = Vec::new();
    bytes.put_u16(u16::try_from(length).unwrap());
    bytes.put_u16(0);
    bytes.put_slice(&[9, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.put_u64(cookie);
    bytes.put_u16(1);
    bytes.put_u16(u16::try_from(4 + oxm.len()).unwrap());
    bytes.put_slice(oxm);
    bytes.put_bytes(0, padding);
    bytes.put_slice(&[0, 0, 0, 4, 0, 0, 0, 0]);
    bytes.put_slice(instructions);
    bytes
}

/// The echo behind the request of this xid has come back.
pub(crate) fn echo(xid: u32) -> Vec<u8> {
    message(6, ECHO_REPLY, xid + 1, &[])
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
