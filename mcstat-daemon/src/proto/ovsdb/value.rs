//! OVSDB's notation of column values (RFC 7047 §5.1) and of their differences (ovsdb-server(7), "update2").
//!
//! A set of one element is written as the bare element, an empty optional value as an empty set. A *difference* of a
//! set lists the elements to toggle. A difference of a map lists pairs: a pair that is already there goes, any other is
//! put in. A column that holds at most one value comes as the new value itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::error::DecodeError;

/// A row's UUID as the server writes it. It is stable for the life of the row and means nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub(super) String);

/// `["tag", inner]`.
fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a Value> {
    match value.as_array()?.as_slice() {
        [Value::String(name), inner] if name == tag => Some(inner),
        _ => None,
    }
}

/// The elements of a set, however it is written.
fn elements(value: &Value) -> Result<&[Value], DecodeError> {
    match tagged(value, "set") {
        Some(Value::Array(elements)) => Ok(elements),
        Some(_) => Err(DecodeError::Shape {
            what: "set",
            need: "[\"set\", [...]]",
        }),
        None => Ok(std::slice::from_ref(value)),
    }
}

pub(super) fn string(value: &Value) -> Result<String, DecodeError> {
    value.as_str().map(str::to_owned).ok_or(DecodeError::Shape {
        what: "text column",
        need: "a string",
    })
}

fn integer(value: &Value) -> Result<i64, DecodeError> {
    value.as_i64().ok_or(DecodeError::Shape {
        what: "integer column",
        need: "a 64-bit integer",
    })
}

fn row_id(value: &Value) -> Result<RowId, DecodeError> {
    match tagged(value, "uuid") {
        Some(Value::String(uuid)) => Ok(RowId(uuid.clone())),
        _ => Err(DecodeError::Shape {
            what: "reference column",
            need: "[\"uuid\", \"...\"]",
        }),
    }
}

/// A column of at most one value.
fn optional<T>(value: &Value, element: fn(&Value) -> Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
    match elements(value)? {
        [] => Ok(None),
        [one] => element(one).map(Some),
        _ => Err(DecodeError::Shape {
            what: "optional column",
            need: "at most one value",
        }),
    }
}

pub(super) fn optional_string(value: &Value) -> Result<Option<String>, DecodeError> {
    optional(value, string)
}

pub(super) fn optional_integer(value: &Value) -> Result<Option<i64>, DecodeError> {
    optional(value, integer)
}

/// Toggles each element; on an empty set that is the same as filling it, so whole values come this way too.
pub(super) fn toggle_references(set: &mut BTreeSet<RowId>, value: &Value) -> Result<(), DecodeError> {
    for element in elements(value)? {
        let id = row_id(element)?;
        if !set.remove(&id) {
            set.insert(id);
        }
    }
    Ok(())
}

/// Applies a map's difference; on an empty map that is the same as filling it.
pub(super) fn change_map(map: &mut BTreeMap<String, String>, value: &Value) -> Result<(), DecodeError> {
    let Some(Value::Array(pairs)) = tagged(value, "map") else {
        return Err(DecodeError::Shape {
            what: "map",
            need: "[\"map\", [...]]",
        });
    };
    for pair in pairs {
        let Some([Value::String(key), Value::String(new)]) = pair.as_array().map(Vec::as_slice) else {
            return Err(DecodeError::Shape {
                what: "map entry",
                need: "a pair of strings",
            });
        };
        if map.get(key) == Some(new) {
            map.remove(key);
        } else {
            map.insert(key.clone(), new.clone());
        }
    }
    Ok(())
}
