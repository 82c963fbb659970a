//! Everything that is ever sent to a switch.
//!
//! The management socket takes any OpenFlow message, flow modifications included. [`Outgoing`] is the only thing in this
//! program that becomes bytes for it: greetings, echoes, and multipart requests whose body selects what to describe.
//! Multipart requests that write (table features with a body) have no representation. Neither has the one that asks for
//! all groups at once: Open vSwitch 3.1 dies of it when the description of one group exceeds 64 KiB (some 1,170 buckets)
//! and another group follows. Asked for alone, such a group merely comes out garbled.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::message::HEADER_BYTES;

pub(super) const HELLO: u8 = 0;
pub(super) const ERROR: u8 = 1;
pub(super) const ECHO_REQUEST: u8 = 2;
pub(super) const ECHO_REPLY: u8 = 3;
/// HELLO element: a bitmap of the versions spoken (OpenFlow 1.5 §7.5.1).
pub(super) const VERSION_BITMAP: u16 = 1;

/// Wildcard of the selecting bodies: any port, any group.
const ANY: u32 = 0xffff_ffff;
/// Largest number of a group; above it are wildcards.
const GROUP_MAX: u32 = 0xffff_ff00;

/// A version of OpenFlow that something here is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// OpenFlow 1.0: its table statistics carry names.
    V10,
    /// OpenFlow 1.5: everything else.
    V15,
}

impl Version {
    /// The version field of a header.
    pub fn wire(self) -> u8 {
        match self {
            Self::V10 => 1,
            Self::V15 => 6,
        }
    }

    /// Type of a multipart request; the reply's is one more.
    pub(super) fn multipart(self) -> u8 {
        match self {
            Self::V10 => 16,
            Self::V15 => 18,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V10 => "OpenFlow 1.0",
            Self::V15 => "OpenFlow 1.5",
        })
    }
}

/// What can be asked. None of it changes the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// OFPMP_FLOW_DESC: flows with their statistics, over 1.5.
    Flows {
        /// The table's number; 255: all tables.
        table: u8,
    },
    /// OFPMP_GROUP_DESC: one group with its buckets, over 1.5.
    Group(GroupId),
    /// OFPST_TABLE: all tables with their names, over 1.0.
    Tables,
}

/// The number of one group: no wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u32);

impl GroupId {
    /// The number, unless it is a wildcard.
    pub fn new(id: u32) -> Option<Self> {
        (id <= GROUP_MAX).then_some(Self(id))
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl Request {
    /// The version that has it.
    pub fn version(self) -> Version {
        match self {
            Self::Flows { .. } | Self::Group(_) => Version::V15,
            Self::Tables => Version::V10,
        }
    }

    /// The multipart type, which the reply repeats.
    pub(super) fn kind(self) -> u16 {
        match self {
            Self::Flows { .. } => 1,
            Self::Group(_) => 7,
            Self::Tables => 3,
        }
    }
}

/// A message to the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// The greeting, with this version alone on offer.
    Hello(Version),
    /// Asks for a sign of life.
    EchoRequest(Version),
    /// Gives one: the payload of the switch's echo request, as it came.
    EchoReply(Version, Bytes),
    /// Asks for a description.
    Request(Request),
}

impl Outgoing {
    /// Appends the message's bytes.
    pub fn encode(&self, xid: u32, output: &mut BytesMut) {
        match self {
            // 1.0 has no elements in its HELLO; the header's version says it all.
            Self::Hello(Version::V10) => message(Version::V10, HELLO, xid, &[], output),
            Self::Hello(version) => {
                let mut element = BytesMut::new();
                element.put_u16(VERSION_BITMAP);
                element.put_u16(8);
                element.put_u32(1 << version.wire());
                message(*version, HELLO, xid, &element, output);
            }
            Self::EchoRequest(version) => message(*version, ECHO_REQUEST, xid, &[], output),
            Self::EchoReply(version, payload) => message(*version, ECHO_REPLY, xid, payload, output),
            Self::Request(request) => {
                let version = request.version();
                message(version, version.multipart(), xid, &body(*request), output);
            }
        }
    }
}

fn body(request: Request) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(request.kind());
    body.put_u16(0); // flags: no more requests follow
    match request {
        Request::Tables => {}
        Request::Group(id) => {
            body.put_u32(0);
            body.put_u32(id.0);
            body.put_u32(0);
        }
        Request::Flows { table } => {
            body.put_u32(0);
            body.put_u8(table);
            body.put_bytes(0, 3);
            body.put_u32(ANY); // output port
            body.put_u32(ANY); // group
            body.put_u32(0);
            body.put_u64(0); // cookie
            body.put_u64(0); // its mask: any
            body.put_u16(1); // an OXM match
            body.put_u16(4); // that matches everything
            body.put_u32(0);
        }
    }
    body
}

/// Nothing sent here is longer than a message can be: bodies are constant, an echo's payload came in a message itself.
fn message(version: Version, kind: u8, xid: u32, body: &[u8], output: &mut BytesMut) {
    let length = u16::try_from(HEADER_BYTES + body.len()).unwrap_or(u16::MAX);
    output.put_u8(version.wire());
    output.put_u8(kind);
    output.put_u16(length);
    output.put_u32(xid);
    output.extend_from_slice(body.get(..usize::from(length) - HEADER_BYTES).unwrap_or(body));
}
