//! Where policies come from, and what they refer to: one value, from a source.
//!
//! A source (`files`, `kubernetes`) sends all objects whenever one of them changes, over a `tokio::sync::watch` channel. What the
//! objects mean is `ledger::verdict`'s business; here they are only found, read and kept.

mod document;
pub mod files;
pub mod kubernetes;
mod store;

use std::path::PathBuf;

pub use document::{BadDocument, DocumentError, read};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::ledger::verdict::{Kind, Object, ObjectKey};

/// All objects of a source at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyObjects {
    /// Each once. What did not change is shared with the value before.
    pub objects: Vec<Object>,
    /// What could not be taken over; what was good before it still stands in `objects`.
    pub failures: Vec<Failure>,
    /// Whether the source has told anything yet.
    pub read: bool,
    /// Whether it has policies to tell of, be it none. What is told without it says that there is nothing to judge by: the
    /// cluster has no such kinds.
    pub known: bool,
}

/// Why a part of a source is not used, or not in its newest form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The file's last good state is used.
    #[error("{}, {bad}; {}", .file.display(), instead(*.holds))]
    Document {
        /// Which file.
        file: PathBuf,
        /// The document, and what is wrong with it.
        bad: BadDocument,
        /// Whether there is a last good state.
        holds: bool,
    },
    /// The file's last good state is used.
    #[error("{} cannot be read: {reason}; {}", .file.display(), instead(*.holds))]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: String,
        /// Whether there is a last good state.
        holds: bool,
    },
    /// The first in the order of file names counts.
    #[error("{}: {object} is in {} too, which counts", .file.display(), .first.display())]
    Twice {
        /// The file that does not count.
        file: PathBuf,
        /// The one that does.
        first: PathBuf,
        /// What both hold.
        object: ObjectKey,
    },
    /// The first in the order of file names counts: rules are told apart by the UID of their policy. The Kubernetes API
    /// gives no UID twice.
    #[error("{}, document {document}, line {line}: {object} has the metadata.uid of {first} in {}, which counts; take it \
             out of one of them", .file.display(), .first_file.display())]
    SameUid {
        /// The file that has the policy that does not count.
        file: PathBuf,
        /// The document, counted from 1.
        document: usize,
        /// The line on which it begins.
        line: usize,
        /// The policy that does not count.
        object: ObjectKey,
        /// The one that does.
        first: ObjectKey,
        /// Where that is.
        first_file: PathBuf,
    },
    /// An object of the Kubernetes API.
    #[error("{kind} {name} is not used as it is now: {reason}; {}",
        if *.holds { "its last good state holds" } else { "it is left out" })]
    Object {
        /// Its kind.
        kind: Kind,
        /// Its name, after its namespace where it has one.
        name: String,
        /// What is wrong.
        reason: String,
        /// Whether there is a last good state.
        holds: bool,
    },
}

/// What is used of a file that is not good.
fn instead(holds: bool) -> &'static str {
    if holds {
        "the file's last good state holds"
    } else {
        "nothing in the file is used, since it has not been good yet"
    }
}

/// Tells the objects to those who wait for them, if they are others than before.
fn publish(objects: PolicyObjects, out: &watch::Sender<PolicyObjects>) {
    out.send_if_modified(|published| {
        let changed = *published != objects;
        if changed {
            info!(
                objects = objects.objects.len(),
                failures = objects.failures.len(),
                "policies changed"
            );
            *published = objects;
        }
        changed
    });
}

/// Says each complaint when it begins, and not again while it lasts.
pub(super) fn complain(known: &mut Vec<String>, new: Vec<String>) {
    new.iter()
        .filter(|text| !known.contains(text))
        .for_each(|text| warn!("{text}"));
    *known = new;
}
