//! One connection to a switch, without the socket: what to send first, what to answer, and the replies.
//!
//! Several requests may be on their way at once; parts are brought together by xid. Behind every request goes an echo
//! request, and an answer counts only when its echo has come back: a switch that wrote a wrong length and lost its place
//! cannot pass for one that said less. A session lasts as long as its connection and is thrown away with it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    super::cursor::Reader,
    error::{DecodeError, RequestError, SessionError},
    flow::{FlowDesc, decode_flows},
    group::{GroupDesc, decode_groups},
    message::{Message, next_message},
    request::{ECHO_REPLY, ECHO_REQUEST, ERROR, HELLO, Outgoing, Request, VERSION_BITMAP, Version},
    table::{TableEntry, decode_tables},
};

/// Longest reply accepted, all parts together. 20 groups of 500 members and their flows are under 1 MB.
pub const MAX_REPLY_BYTES: usize = 32 * 1024 * 1024;
/// How much of the switch's error text is kept.
const REASON_CHARS: usize = 200;
/// Flag of a part that others follow.
const MORE: u16 = 1;
/// Error type of a negotiation that failed.
const HELLO_FAILED: u16 = 0;

/// A complete reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Flows`].
    Flows(Vec<FlowDesc>),
    /// To [`Request::Group`]; empty when there is no such group.
    Groups(Vec<GroupDesc>),
    /// To [`Request::Tables`].
    Tables(Vec<TableEntry>),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The request.
    pub request: Request,
    /// Its reply.
    pub result: Result<Reply, RequestError>,
}

/// The client's state on one connection.
#[derive(Debug)]
pub struct Session {
    version: Version,
    greeted: bool,
    xid: u32,
    waiting: VecDeque<Waiting>,
}

/// A request on its way, and the parts of its reply so far.
#[derive(Debug)]
struct Waiting {
    xid: u32,
    /// The echo request behind it.
    echo: u32,
    request: Request,
    bytes: usize,
    /// The last part was there, or an error in place of a reply.
    complete: bool,
    /// The first thing that went wrong. The parts after it are only waited for.
    result: Result<Reply, RequestError>,
}

impl Session {
    /// Begins a session in `version`: the greeting is put into `output`.
    pub fn start(version: Version, output: &mut BytesMut) -> Self {
        let mut session = Self {
            version,
            greeted: false,
            xid: 0,
            waiting: VecDeque::new(),
        };
        session.send(&Outgoing::Hello(version), output);
        session
    }

    /// Whether the switch has greeted back in a common version: now it may be asked.
    pub fn ready(&self) -> bool {
        self.greeted
    }

    /// How many requests have no answer yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a request into `output`; its answer comes out of [`receive`](Self::receive).
    ///
    /// # Errors
    /// [`SessionError::CannotAsk`] when the session's version does not have it; nothing is sent then.
    pub fn request(&mut self, request: Request, output: &mut BytesMut) -> Result<(), SessionError> {
        if request.version() != self.version {
            return Err(SessionError::CannotAsk(self.version));
        }
        let xid = self.send(&Outgoing::Request(request), output);
        let echo = self.send(&Outgoing::EchoRequest(self.version), output);
        let reply = match request {
            Request::Flows { .. } => Reply::Flows(Vec::new()),
            Request::Group(_) => Reply::Groups(Vec::new()),
            Request::Tables => Reply::Tables(Vec::new()),
        };
        self.waiting.push_back(Waiting {
            xid,
            echo,
            request,
            bytes: 0,
            complete: false,
            result: Ok(reply),
        });
        Ok(())
    }

    /// Consumes what was received until an answer is complete; `None` when more bytes are needed. To be called until
    /// then. What the switch wants answered goes into `output`.
    ///
    /// `input` must be the same buffer at every call, only appended to by the caller.
    ///
    /// # Errors
    /// [`SessionError`]; the session is over.
    pub fn receive(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<Option<Answer>, SessionError> {
        while let Some(message) = next_message(input).map_err(SessionError::Frame)? {
            if let Some(answer) = self.handle(message, output)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn send(&mut self, message: &Outgoing, output: &mut BytesMut) -> u32 {
        self.xid = self.xid.wrapping_add(1);
        message.encode(self.xid, output);
        self.xid
    }

    /// Once greeted, every header has the common version. Another one is no header: Open vSwitch 3.1 describes a group of
    /// more than 64 KiB (some 1,170 buckets) with a length that is 64 KiB too small, and goes on in the middle of it.
    fn handle(&mut self, message: Message, output: &mut BytesMut) -> Result<Option<Answer>, SessionError> {
        let ours = self.version.wire();
        if self.greeted && message.kind != HELLO && message.version != ours {
            return Err(SessionError::Frame(DecodeError::Unexpected {
                what: "version of a message",
                need: ours.into(),
                have: message.version.into(),
            }));
        }
        match message.kind {
            HELLO => self.hello(&message).map(|()| None),
            ERROR => self.refused(&message).map(|()| None),
            kind if !self.greeted => Err(SessionError::NoHello { kind }),
            ECHO_REQUEST => {
                Outgoing::EchoReply(self.version, message.body).encode(message.xid, output);
                Ok(None)
            }
            ECHO_REPLY => Ok(self.echoed(message.xid)),
            kind if kind == self.version.multipart() + 1 => {
                if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.xid == message.xid) {
                    waiting.part(self.version, &message);
                }
                Ok(None)
            }
            // Packet-ins and port changes.
            _ => Ok(None),
        }
    }

    /// The bitmap decides; without one, every version up to the header's is on offer.
    fn hello(&mut self, message: &Message) -> Result<(), SessionError> {
        let ours = self.version.wire();
        let offered = match version_bitmap(&message.body) {
            Some(bitmap) => bitmap & (1 << ours) != 0,
            None => message.version >= ours,
        };
        if !offered {
            return Err(SessionError::Version(self.version));
        }
        self.greeted = true;
        Ok(())
    }

    fn refused(&mut self, message: &Message) -> Result<(), SessionError> {
        let mut body = Reader::new(&message.body);
        let kind = body.u16("error").unwrap_or(u16::MAX);
        let code = body.u16("error").unwrap_or(u16::MAX);
        if !self.greeted || kind == HELLO_FAILED {
            let text = String::from_utf8_lossy(body.rest());
            return Err(SessionError::Refused {
                reason: text.chars().take(REASON_CHARS).collect(),
            });
        }
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.xid == message.xid) {
            waiting.result = Err(RequestError::Refused { kind, code });
            waiting.complete = true;
        }
        Ok(())
    }

    /// The answer whose echo this is.
    fn echoed(&mut self, xid: u32) -> Option<Answer> {
        let position = self.waiting.iter().position(|waiting| waiting.echo == xid)?;
        let waiting = self.waiting.remove(position)?;
        let result = if waiting.complete {
            waiting.result
        } else {
            waiting.result.and(Err(RequestError::Unfinished))
        };
        Some(Answer {
            request: waiting.request,
            result,
        })
    }
}

impl Waiting {
    /// Adds a part; one behind the last is no part.
    fn part(&mut self, version: Version, message: &Message) {
        if self.complete {
            return;
        }
        let (more, entries) = match part_header(version, self.request, message) {
            Ok(part) => part,
            Err(error) => {
                self.result = Err(error.into());
                return;
            }
        };
        self.complete = !more;
        self.bytes = self.bytes.saturating_add(entries.len());
        let Ok(reply) = &mut self.result else { return };
        let decoded = match reply {
            Reply::Flows(flows) => decode_flows(entries, flows),
            Reply::Groups(groups) => decode_groups(entries, groups),
            Reply::Tables(tables) => decode_tables(entries, tables),
        };
        if let Err(error) = decoded {
            self.result = Err(error.into());
        } else if self.bytes > MAX_REPLY_BYTES {
            self.result = Err(RequestError::TooLong { limit: MAX_REPLY_BYTES });
        }
    }
}

/// Whether other parts follow, and the entries of this one.
fn part_header(version: Version, request: Request, message: &Message) -> Result<(bool, &[u8]), DecodeError> {
    let mut body = Reader::new(&message.body);
    let (need, have) = (request.kind(), body.u16("multipart header")?);
    if have != need {
        let what = "type of a multipart reply";
        return Err(DecodeError::Unexpected { what, need, have });
    }
    let flags = body.u16("multipart header")?;
    if version == Version::V15 {
        body.take(4, "multipart header")?;
    }
    Ok((flags & MORE != 0, body.rest()))
}

/// The first word of a HELLO's version bitmap, if it has one. Elements of other types are stepped over.
fn version_bitmap(body: &Bytes) -> Option<u32> {
    let mut reader = Reader::new(body);
    loop {
        let kind = reader.u16("HELLO element").ok()?;
        let length = usize::from(reader.u16("HELLO element").ok()?);
        let mut element = Reader::new(reader.take(length.checked_sub(4)?, "HELLO element").ok()?);
        if kind == VERSION_BITMAP {
            return element.u32("version bitmap").ok();
        }
        reader.take(length.next_multiple_of(8) - length, "padding").ok()?;
    }
}
