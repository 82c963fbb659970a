//! YAML text → objects, document by document. Pure; never panics, whatever the text.
//!
//! The text is cut at its `---` lines first, so that one broken document hides neither the number nor the faults of the
//! others. Lists as `kubectl get -o yaml` writes them are taken too.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use serde::Deserialize;
use serde_yaml::{Deserializer, Value};
use thiserror::Error;

use crate::ledger::verdict::{Header, Kind, Object, ObjectKey, ReadError, Refusal, UnknownKind};

/// A document that is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("document {document}, line {line}: {error}")]
pub struct BadDocument {
    /// Counted from 1; empty documents do not count.
    pub document: usize,
    /// Line of the text, from 1: where it is wrong as YAML, else where the document begins.
    pub line: usize,
    /// What is wrong.
    pub error: DocumentError,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// No YAML, or a field that is missing or of the wrong type.
    #[error("{0}")]
    Malformed(String),
    /// Nothing that verdicts rest on.
    #[error(transparent)]
    Kind(UnknownKind),
    /// It says something that cannot be used.
    #[error(transparent)]
    Refused(Refusal),
    /// The file says two things of one object.
    #[error("{0} is in this file already")]
    Twice(ObjectKey),
    /// Two policies of the file say that they are one.
    #[error("{object} has the metadata.uid of {first}; take it out of one of them")]
    SameUid {
        /// The second.
        object: ObjectKey,
        /// The first.
        first: ObjectKey,
    },
}

/// An object, and the document that it is in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    /// Counted from 1; empty documents do not count.
    pub(super) document: usize,
    /// Line on which the document begins, from 1.
    pub(super) line: usize,
    pub(super) object: Object,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Value>,
}

/// The part of a text that is one document.
struct Piece<'a> {
    text: &'a str,
    /// Lines before `text`.
    before: usize,
    /// Line on which something is said first.
    first: usize,
}

/// All objects of a text.
///
/// # Errors
/// Every bad document. Then none of the others is to be used either: together they are one state.
pub fn read(text: &str) -> Result<Vec<Object>, Vec<BadDocument>> {
    Ok(read_placed(text)?.into_iter().map(|placed| placed.object).collect())
}

/// As [`read`], each object with its place.
pub(super) fn read_placed(text: &str) -> Result<Vec<Placed>, Vec<BadDocument>> {
    let mut objects = Vec::new();
    let mut known = Known::default();
    let mut bad = Vec::new();
    for (document, piece) in (1..).zip(pieces(text.trim_start_matches('\u{feff}'))) {
        let line = piece.first;
        let found = read_document(&piece).and_then(|found| match found.iter().find_map(|object| known.add(object)) {
            Some(error) => Err((line, error)),
            None => Ok(found),
        });
        let placed = |object| Placed { document, line, object };
        match found {
            Ok(found) => objects.extend(found.into_iter().map(placed)),
            Err((line, error)) => bad.push(BadDocument { document, line, error }),
        }
    }
    if bad.is_empty() { Ok(objects) } else { Err(bad) }
}

/// What a file has told of so far.
#[derive(Default)]
struct Known {
    keys: BTreeSet<ObjectKey>,
    /// Policies by UID: by it rules are told apart.
    uids: BTreeMap<Arc<str>, ObjectKey>,
}

impl Known {
    /// Adds an object; why it cannot stand beside the others.
    fn add(&mut self, object: &Object) -> Option<DocumentError> {
        if !self.keys.insert(object.key.clone()) {
            return Some(DocumentError::Twice(object.key.clone()));
        }
        if object.uid.is_empty() || !object.key.kind.is_policy() {
            return None;
        }
        match self.uids.entry(Arc::clone(&object.uid)) {
            Entry::Occupied(first) => Some(DocumentError::SameUid {
                object: object.key.clone(),
                first: first.get().clone(),
            }),
            Entry::Vacant(entry) => {
                entry.insert(object.key.clone());
                None
            }
        }
    }
}

/// Pieces between lines that begin with `---`, which YAML allows nowhere else; without those that say nothing.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut before) = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker {
            pieces.extend(piece(text.get(start..offset), before));
            (start, before) = (offset, number);
        }
        offset += line.len();
    }
    pieces.extend(piece(text.get(start..), before));
    pieces
}

fn piece(text: Option<&str>, before: usize) -> Option<Piece<'_>> {
    let text = text?;
    let says = |line: &str| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
    };
    let first = text.lines().position(says)?;
    Some(Piece {
        text,
        before,
        first: before + first + 1,
    })
}

fn read_document(piece: &Piece<'_>) -> Result<Vec<Object>, (usize, DocumentError)> {
    let malformed = |error: serde_yaml::Error| {
        let line = error
            .location()
            .map_or(piece.first, |location| piece.before + location.line());
        // Its own line number counts from the beginning of the piece.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        (line, DocumentError::Malformed(text.to_owned()))
    };
    let refused = |refusal| (piece.first, DocumentError::Refused(refusal));
    let unknown = |kind| (piece.first, DocumentError::Kind(kind));
    let header = Header::deserialize(Deserializer::from_str(piece.text)).map_err(malformed)?;
    if header.kind == "List" {
        let list = List::deserialize(Deserializer::from_str(piece.text)).map_err(malformed)?;
        return list
            .items
            .into_iter()
            .map(|item| {
                let header: Header = serde_yaml::from_value(item.clone()).map_err(malformed)?;
                let kind = Kind::of(&header).map_err(unknown)?;
                object(Object::read(kind, item), malformed, refused)
            })
            .collect();
    }
    let kind = Kind::of(&header).map_err(unknown)?;
    let read = Object::read(kind, Deserializer::from_str(piece.text));
    Ok(vec![object(read, malformed, refused)?])
}

fn object<E>(
    read: Result<Object, ReadError<serde_yaml::Error>>,
    malformed: impl Fn(serde_yaml::Error) -> E,
    refused: impl Fn(Refusal) -> E,
) -> Result<Object, E> {
    read.map_err(|error| match error {
        ReadError::Malformed(error) => malformed(error),
        ReadError::Refused(refusal) => refused(refusal),
    })
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
