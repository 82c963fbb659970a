//! Policies from a directory of YAML files, for nodes without Kubernetes, for labs and demonstrations.
//!
//! Files `*.yaml`, `*.yml` and `*.json` are read in the order of their names; subdirectories and hidden files are not. A
//! thread of its own looks once a second, which costs one listing and one `stat` a file; a file is read again when its
//! inode, size or times have changed. There is no inotify here: it tells nothing about network file systems, and a mounted
//! ConfigMap is exchanged by a symbolic link.
//!
//! A policy without a UID gets one by its name, so that every process that reads the directory gives it the same; when
//! it goes and comes back it gets another one. A process that did not see it go cannot know that: only what [`made_of`] says
//! of a UID is the same everywhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, Metadata},
    future::Future,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tracing::debug;

use super::{
    Failure, PolicyObjects, complain,
    document::{self, Placed},
    publish,
};
use crate::ledger::verdict::{Object, ObjectKey};

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Greatest file that is read, in bytes: many times what a cluster has.
const MAX_BYTES: u64 = 16 << 20;

/// Why this source ended.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The thread could not be started.
    #[error("the thread that reads policy files cannot be started: {0}; check the limits on tasks")]
    Thread(io::Error),
    /// The thread panicked.
    #[error("the thread that reads policy files died; restart the agent and report this")]
    Died,
}

/// Publishes the objects of the directory until `shutdown` completes, or until this future is dropped. `earlier`: UIDs of
/// an earlier run, which a policy of the same name goes on with.
///
/// # Errors
/// [`FilesError`]; a directory, file or document that cannot be read is no error: what was good holds, and a log line
/// says why.
pub async fn run(
    directory: PathBuf,
    earlier: Vec<Arc<str>>,
    out: watch::Sender<PolicyObjects>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), FilesError> {
    // Dropping the sender ends the thread, whichever way this future ends.
    let (stop, stopped) = sync_channel::<()>(0);
    let (done, outcome) = oneshot::channel();
    std::thread::Builder::new()
        .name("policy-files".to_owned())
        .spawn(move || {
            follow(Files::new(directory, &earlier), &out, &stopped);
            // Nobody listens any more when the future was dropped.
            let _ = done.send(());
        })
        .map_err(FilesError::Thread)?;
    tokio::select! {
        () = shutdown => {
            drop(stop);
            Ok(())
        }
        outcome = outcome => outcome.map_err(|_| FilesError::Died),
    }
}

/// The thread's life.
fn follow(mut files: Files, out: &watch::Sender<PolicyObjects>, stopped: &Receiver<()>) {
    let mut complaints = Vec::new();
    loop {
        let new = match files.look() {
            Ok(objects) => {
                let new = objects.failures.iter().map(Failure::to_string).collect();
                publish(objects, out);
                new
            }
            Err(error) => vec![format!(
                "policy.files {} cannot be listed: {error}; the last policies hold",
                files.directory.display()
            )],
        };
        complain(&mut complaints, new);
        if !matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            debug!(directory = %files.directory.display(), "no longer following policy files");
            return;
        }
    }
}

/// What tells that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[derive(Debug, Default)]
struct File {
    /// `None`: to be read at the next look, whatever it looks like.
    stamp: Option<Stamp>,
    /// Whether it was good once.
    good: bool,
    /// Of the last good state.
    objects: Vec<Placed>,
    failures: Vec<Failure>,
}

/// The directory as it was last seen.
#[derive(Debug)]
struct Files {
    directory: PathBuf,
    files: BTreeMap<PathBuf, File>,
    births: Births,
}

/// How policies get the UIDs that they lack.
#[derive(Debug)]
struct Births {
    /// Policies that are there, and how often each was made again. Those that are gone stay known.
    known: HashMap<ObjectKey, Birth>,
    /// How often each was made again in an earlier run, by what is the same in all its UIDs.
    earlier: HashMap<String, u32>,
}

#[derive(Debug, Default)]
struct Birth {
    again: u32,
    present: bool,
}

impl Files {
    fn new(directory: PathBuf, earlier: &[Arc<str>]) -> Self {
        let mut counts: HashMap<String, u32> = HashMap::new();
        for uid in earlier.iter().filter(|uid| is_made_up(uid)) {
            let count = counts.entry(made_of(uid).to_owned()).or_default();
            *count = again(uid).max(*count);
        }
        Self {
            directory,
            files: BTreeMap::new(),
            births: Births {
                known: HashMap::new(),
                earlier: counts,
            },
        }
    }

    /// Everything that is there now, or was good last.
    ///
    /// # Errors
    /// The directory cannot be listed; then nothing has changed.
    fn look(&mut self) -> io::Result<PolicyObjects> {
        let names = fs::read_dir(&self.directory)?.collect::<Result<Vec<_>, _>>()?;
        let paths = names
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| is_wanted(path));
        let mut before = std::mem::take(&mut self.files);
        for path in paths {
            let mut file = before.remove(&path).unwrap_or_default();
            // Neither a directory nor anything that reading might wait for; gone since the listing: not there.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => file.update(&path, &metadata),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => file.fail(&path, error.to_string()),
            }
            self.files.insert(path, file);
        }
        Ok(self.merge())
    }

    fn merge(&mut self) -> PolicyObjects {
        let mut merged = PolicyObjects {
            read: true,
            known: true,
            ..PolicyObjects::default()
        };
        let mut first: BTreeMap<&ObjectKey, &PathBuf> = BTreeMap::new();
        let mut places = Vec::new();
        for (path, file) in &self.files {
            merged.failures.extend_from_slice(&file.failures);
            for placed in &file.objects {
                match first.get(&placed.object.key) {
                    Some(known) => merged.failures.push(Failure::Twice {
                        file: path.clone(),
                        first: (*known).clone(),
                        object: placed.object.key.clone(),
                    }),
                    None => {
                        first.insert(&placed.object.key, path);
                        merged.objects.push(placed.object.clone());
                        places.push((path, placed));
                    }
                }
            }
        }
        self.births.name(&mut merged.objects);
        leave_twins_out(&mut merged, &places);
        merged
    }
}

/// Of policies with one UID the first counts: their rules would share a counter. `places` are those of the objects.
fn leave_twins_out(merged: &mut PolicyObjects, places: &[(&PathBuf, &Placed)]) {
    let mut first: HashMap<Arc<str>, (&PathBuf, &Placed)> = HashMap::new();
    let objects = std::mem::take(&mut merged.objects);
    for (object, place) in objects.into_iter().zip(places) {
        if object.key.kind.is_policy() {
            if let Some((first_file, first)) = first.get(&object.uid) {
                merged.failures.push(Failure::SameUid {
                    file: place.0.clone(),
                    document: place.1.document,
                    line: place.1.line,
                    object: object.key,
                    first: first.object.key.clone(),
                    first_file: (*first_file).clone(),
                });
                continue;
            }
            first.insert(Arc::clone(&object.uid), *place);
        }
        merged.objects.push(object);
    }
}

impl Births {
    /// Gives a UID to each policy that has none.
    fn name(&mut self, objects: &mut [Object]) {
        let policies = objects.iter_mut().filter(|object| object.key.kind.is_policy());
        let mut present = BTreeSet::new();
        for object in policies.filter(|object| object.uid.is_empty()) {
            let birth = self.known.entry(object.key.clone()).or_insert_with(|| Birth {
                again: self.earlier.get(&uid(&object.key, 0)).copied().unwrap_or(0),
                present: true,
            });
            if !birth.present {
                birth.again += 1;
                birth.present = true;
            }
            object.uid = uid(&object.key, birth.again).into();
            present.insert(object.key.clone());
        }
        for (key, birth) in &mut self.known {
            birth.present = present.contains(key);
        }
    }
}

/// `file:Kind/namespace/name`, and `#n` when it was made again for the nth time.
fn uid(key: &ObjectKey, again: u32) -> String {
    let name = match &*key.namespace {
        "" => format!("file:{}/{}", key.kind, key.name),
        namespace => format!("file:{}/{namespace}/{}", key.kind, key.name),
    };
    match again {
        0 => name,
        again => format!("{name}#{again}"),
    }
}

/// What of a UID is the same however often the policy was made again, in this process or in another: a UID that comes
/// from a file without its count, any other whole.
#[must_use]
pub fn made_of(uid: &str) -> &str {
    match uid.split_once('#') {
        Some((name, _)) if is_made_up(uid) => name,
        _ => uid,
    }
}

/// How often the policy with this UID was made again, as the process knows that gave it.
fn again(uid: &str) -> u32 {
    let count = uid.split_once('#').filter(|_| is_made_up(uid));
    count.and_then(|(_, count)| count.parse().ok()).unwrap_or(0)
}

/// Whether the policy with the first UID was made again and has the second one now. A count that went back tells nothing of
/// the policy: who counts has forgotten what was.
#[must_use]
pub fn is_made_again(before: &str, uid: &str) -> bool {
    made_of(before) == made_of(uid) && again(before) < again(uid)
}

/// Whether a UID comes from a file without one.
#[must_use]
pub fn is_made_up(uid: &str) -> bool {
    uid.starts_with("file:")
}

impl File {
    fn update(&mut self, path: &Path, metadata: &Metadata) {
        let stamp = Stamp::of(metadata);
        if self.stamp == Some(stamp) {
            return;
        }
        if metadata.len() > MAX_BYTES {
            self.fail(path, format!("it has {} bytes, more than {MAX_BYTES}", metadata.len()));
            return;
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.fail(path, error.to_string());
                return;
            }
        };
        self.stamp = Some(stamp);
        self.failures.clear();
        match document::read_placed(&text) {
            // Objects that say the same stay the same, so that what rests on them need not be done again.
            Ok(mut objects) => {
                for placed in &mut objects {
                    if let Some(known) = self.objects.iter().find(|known| known.object == placed.object) {
                        placed.object = known.object.clone();
                    }
                }
                self.objects = objects;
                self.good = true;
            }
            Err(bad) => {
                let holds = self.good;
                let failures = bad.into_iter().map(|bad| Failure::Document {
                    file: path.to_owned(),
                    bad,
                    holds,
                });
                self.failures.extend(failures);
            }
        }
    }

    fn fail(&mut self, path: &Path, reason: String) {
        self.stamp = None;
        self.failures = vec![Failure::File {
            file: path.to_owned(),
            reason,
            holds: self.good,
        }];
    }
}

fn is_wanted(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
