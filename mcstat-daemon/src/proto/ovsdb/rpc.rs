//! JSON-RPC 1.0 messages as OVSDB uses them (RFC 7047 §4), and the one request that is more than a method name:
//! `monitor_cond` (ovsdb-server(7), "Monitor_cond").

use bytes::BytesMut;
use serde_json::{Map, Value, json};

use super::error::DecodeError;

/// One JSON-RPC message, in either direction.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Wants a response with the same id.
    Request {
        /// Chosen by the sender, any JSON but null.
        id: Value,
        /// What to do.
        method: String,
        /// Its arguments.
        params: Vec<Value>,
    },
    /// The answer to a request.
    Response {
        /// The request's id.
        id: Value,
        /// The result, or the error object (RFC 7047 §4.1: exactly one of them is not null).
        result: Result<Value, Value>,
    },
    /// Wants no answer.
    Notification {
        /// What happened.
        method: String,
        /// Its arguments.
        params: Vec<Value>,
    },
}

impl Message {
    /// Decodes one message as the framer cut it.
    ///
    /// # Errors
    /// [`DecodeError::Json`] or [`DecodeError::Shape`].
    pub fn decode(text: &[u8]) -> Result<Self, DecodeError> {
        let value: Value =
            serde_json::from_slice(text).map_err(|error| DecodeError::Json { column: error.column() })?;
        let Value::Object(mut object) = value else {
            return Err(DecodeError::Shape {
                what: "message",
                need: "a JSON object",
            });
        };
        let id = object.remove("id").unwrap_or(Value::Null);
        match object.remove("method") {
            Some(method) => Self::decode_call(id, method, object),
            None => Self::decode_response(id, object),
        }
    }

    fn decode_call(id: Value, method: Value, mut object: Map<String, Value>) -> Result<Self, DecodeError> {
        let Value::String(method) = method else {
            return Err(DecodeError::Shape {
                what: "method",
                need: "a string",
            });
        };
        let Some(Value::Array(params)) = object.remove("params") else {
            return Err(DecodeError::Shape {
                what: "params",
                need: "an array",
            });
        };
        Ok(if id.is_null() {
            Self::Notification { method, params }
        } else {
            Self::Request { id, method, params }
        })
    }

    fn decode_response(id: Value, mut object: Map<String, Value>) -> Result<Self, DecodeError> {
        if !object.contains_key("result") && !object.contains_key("error") {
            return Err(DecodeError::Shape {
                what: "message",
                need: "a request, a response or a notification",
            });
        }
        let result = match object.remove("error") {
            None | Some(Value::Null) => Ok(object.remove("result").unwrap_or(Value::Null)),
            Some(error) => Err(error),
        };
        Ok(Self::Response { id, result })
    }

    /// The answer that keeps a connection alive: `echo` wants its own params back (RFC 7047 §4.1.11).
    pub fn echo_reply(id: Value, params: Vec<Value>) -> Self {
        Self::Response {
            id,
            result: Ok(Value::Array(params)),
        }
    }

    /// Appends the message's bytes.
    pub fn encode(&self, output: &mut BytesMut) {
        let value = match self {
            Self::Request { id, method, params } => json!({ "id": id, "method": method, "params": params }),
            Self::Notification { method, params } => json!({ "id": null, "method": method, "params": params }),
            Self::Response { id, result: Ok(result) } => json!({ "id": id, "result": result, "error": null }),
            Self::Response { id, result: Err(error) } => json!({ "id": id, "result": null, "error": error }),
        };
        output.extend_from_slice(value.to_string().as_bytes());
    }
}

/// Asks for every Bridge, Port and Interface row, and for every later change of the columns that [`Store`] keeps.
///
/// `id` becomes the request's id and the monitor's name. There is no where-clause on Port: a port that loses its
/// `antrea-type` would then come as a delete, and the joined tables could not be told from a broken update.
///
/// [`Store`]: super::Store
pub fn monitor_request(id: &str) -> Message {
    let columns = json!({
        "Bridge": [{ "columns": ["name", "ports", "datapath_type"] }],
        "Port": [{ "columns": ["name", "external_ids", "interfaces"] }],
        "Interface": [{ "columns": ["name", "ofport", "ifindex", "type", "error", "mac_in_use"] }],
    });
    Message::Request {
        id: Value::from(id),
        method: "monitor_cond".to_owned(),
        params: vec![Value::from("Open_vSwitch"), Value::from(id), columns],
    }
}
