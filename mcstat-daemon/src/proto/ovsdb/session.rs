//! One connection to an OVSDB server, without the socket: what to send first, what to answer, and the rows.
//!
//! [`Session::store`] is `None` until the first reading is complete; from then on it follows every update. A session
//! lasts as long as its connection and is thrown away with it: a new connection asks for everything again, since this
//! database keeps no history to continue from.

use bytes::BytesMut;
use serde_json::Value;

use super::{
    error::{DecodeError, SessionError},
    framer::{Framer, MAX_MESSAGE_BYTES},
    rpc::{Message, monitor_request},
    store::Store,
};

/// Request id and monitor name.
const MONITOR: &str = "mcstat";
/// Request id of our own liveness probe.
const PROBE: &str = "mcstat-echo";
/// How much of the server's error text is kept.
const REASON_CHARS: usize = 200;

/// The client's state on one connection.
#[derive(Debug)]
pub struct Session {
    framer: Framer,
    store: Option<Store>,
}

impl Session {
    /// Begins a session: the monitor request is put into `output`.
    pub fn start(output: &mut BytesMut) -> Self {
        monitor_request(MONITOR).encode(output);
        Self {
            framer: Framer::new(MAX_MESSAGE_BYTES),
            store: None,
        }
    }

    /// Puts an `echo` request into `output`: a living server answers, whatever else is going on (RFC 7047 §4.1.11).
    pub fn probe(&self, output: &mut BytesMut) {
        Message::Request {
            id: Value::from(PROBE),
            method: "echo".to_owned(),
            params: Vec::new(),
        }
        .encode(output);
    }

    /// Consumes what was received so far; answers go into `output`. Returns whether the rows changed.
    ///
    /// `input` must be the same buffer at every call, only appended to by the caller.
    ///
    /// # Errors
    /// [`SessionError`]; the session is over.
    pub fn receive(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<bool, SessionError> {
        let mut changed = false;
        while let Some(text) = self.framer.next_message(input)? {
            changed |= self.handle(Message::decode(&text)?, output)?;
        }
        Ok(changed)
    }

    /// The rows, once the first reading is complete.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    fn handle(&mut self, message: Message, output: &mut BytesMut) -> Result<bool, SessionError> {
        match message {
            Message::Request { id, method, params } if method == "echo" => {
                Message::echo_reply(id, params).encode(output);
                Ok(false)
            }
            Message::Response { id, result } if id == MONITOR => self.first_reading(result),
            Message::Notification { method, params } => self.notified(&method, &params),
            // Answers to our probes, and requests that this client does not serve: the bytes alone proved life.
            Message::Request { .. } | Message::Response { .. } => Ok(false),
        }
    }

    fn first_reading(&mut self, result: Result<Value, Value>) -> Result<bool, SessionError> {
        let rows = result.map_err(|error| SessionError::Refused {
            reason: error.to_string().chars().take(REASON_CHARS).collect(),
        })?;
        let mut store = Store::default();
        store.apply(&rows)?;
        self.store = Some(store);
        Ok(true)
    }

    fn notified(&mut self, method: &str, params: &[Value]) -> Result<bool, SessionError> {
        let (Some(name), rest) = (params.first(), params.get(1)) else {
            return Ok(false);
        };
        if *name != MONITOR {
            return Ok(false);
        }
        match (method, rest) {
            ("update2", Some(updates)) => {
                let store = self.store.as_mut().ok_or(DecodeError::Shape {
                    what: "update2",
                    need: "after the answer to monitor_cond",
                })?;
                store.apply(updates)?;
                Ok(true)
            }
            ("update2", None) => Err(DecodeError::Shape {
                what: "update2",
                need: "a name and table updates",
            }
            .into()),
            ("monitor_canceled", _) => Err(SessionError::Cancelled),
            _ => Ok(false),
        }
    }
}
