//! Where policies come from, and what they refer to: one value, from a source.
//!
//! A source (`files`) sends all objects whenever one of them changes, over a `tokio::sync::watch` channel. What the
//! objects mean is `ledger::verdict`'s business; here they are only found, read and kept.

mod document;
pub mod files;

use std::path::PathBuf;

pub use document::{BadDocument, DocumentError, read};

use crate::ledger::verdict::{Object, ObjectKey};

/// All objects of a source at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyObjects {
    /// Each once. What did not change is shared with the value before.
    pub objects: Vec<Object>,
    /// What could not be taken over; what was good before it still stands in `objects`.
    pub failures: Vec<Failure>,
    /// Whether the source has been read. Before that there is no policy to judge by, which is not the same as none.
    pub known: bool,
}

/// Why a part of a source is not used, or not in its newest form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The file's last good state is used.
    #[error("{}, {bad}; the file's last good state holds", .file.display())]
    Document {
        /// Which file.
        file: PathBuf,
        /// The document, and what is wrong with it.
        bad: BadDocument,
    },
    /// The file's last good state is used.
    #[error("{} cannot be read: {reason}; its last good state holds", .file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: String,
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
}
