//! One reading of a directory of named network namespaces. Blocking, for a thread of its own.
//!
//! Entering a namespace changes the calling thread: [`Scanner::scan`] returns the thread to the namespace that it came
//! from, or ends in [`ScanError::Stranded`]. No file descriptor of a Pod's namespace outlives a scan: an open one would
//! keep a deleted namespace alive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, fstatfs},
};
use thiserror::Error;

use super::{
    assign::{Inside, assign},
    name::pod_of,
};
use crate::{
    agent::{
        config::NetnsConfig,
        pods::{
            PodPorts,
            link::{Link, LinkError, RouteSocket},
        },
    },
    ledger::snapshot::PodRef,
};

/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS: FsType = FsType(0x6e73_6673);

/// Why there is no reading.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The directory exists but cannot be read.
    #[error("directory {path} cannot be read: {source}; is source.netns.directory right?")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent's own namespace cannot be read.
    #[error("the agent's own network namespace cannot be read: {0}; SO_NETNS_COOKIE needs Linux 5.14")]
    Own(#[from] LinkError),
    /// The thread cannot get back; it must end.
    #[error("no way back to the agent's network namespace: {0}; restart the agent")]
    Stranded(io::Error),
}

/// Why one namespace was left out.
#[derive(Debug, Error)]
enum NamespaceError {
    #[error("{0}")]
    Open(io::Error),
    #[error("entering it failed: {0} (CAP_SYS_ADMIN is needed)")]
    Enter(io::Error),
    #[error(transparent)]
    Links(#[from] LinkError),
    #[error(transparent)]
    Stranded(ScanError),
}

/// A file that may be a Pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    namespace: String,
    pod: String,
    /// Device, inode, seconds and nanoseconds of the change time: what is mounted there, and since when. An inode number
    /// alone is used again at once.
    identity: (u64, u64, i64, i64),
}

/// The cheap part of a reading: while it is equal, no Pod and no veth has come or gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outline {
    entries: Vec<Entry>,
    links: BTreeMap<u32, Link>,
    /// Whether the directory exists.
    pub(super) directory: bool,
}

/// A reading, and what was left out of it.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) ports: PodPorts,
    /// One sentence per namespace that could not be read; what was last read of it is still in `ports`.
    pub(super) failures: Vec<String>,
}

/// What was last read inside a namespace.
type Cache = BTreeMap<PathBuf, ((u64, u64, i64, i64), Inside)>;

/// Reads named namespaces.
#[derive(Debug)]
pub(super) struct Scanner {
    config: NetnsConfig,
    home: OwnedFd,
    links: RouteSocket,
    cookie: u64,
    cache: Cache,
}

impl Scanner {
    /// A scanner for the calling thread, which must be in the agent's network namespace.
    pub(super) fn new(config: NetnsConfig) -> Result<Self, ScanError> {
        let home = File::open("/proc/thread-self/ns/net").map_err(ScanError::Stranded)?;
        let links = RouteSocket::open()?;
        let cookie = links.netns_cookie()?;
        Ok(Self {
            config,
            home: home.into(),
            links,
            cookie,
            cache: Cache::new(),
        })
    }

    /// What can be seen without entering any namespace.
    pub(super) fn outline(&mut self) -> Result<Outline, ScanError> {
        // The links come first: a namespace that is made in between is then new to the next outline at the latest.
        let links = self.links.links()?;
        let entries = self.entries().map_err(|source| ScanError::Directory {
            path: self.config.directory.clone(),
            source,
        })?;
        Ok(Outline {
            directory: entries.is_some(),
            entries: entries.unwrap_or_default(),
            links,
        })
    }

    /// The Pods' files, sorted; `None` while there is no such directory.
    fn entries(&self) -> io::Result<Option<Vec<Entry>>> {
        let directory = match std::fs::read_dir(&self.config.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut entries = Vec::new();
        for file in directory {
            let file = file?;
            let name = file.file_name();
            let Some((namespace, pod)) = name.to_str().and_then(|name| pod_of(name, &self.config.prefix)) else {
                continue;
            };
            // Through the mount and any symbolic link; gone in between is no error.
            let Ok(metadata) = std::fs::metadata(file.path()) else {
                continue;
            };
            if metadata.is_file() {
                let identity = (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
                entries.push(Entry {
                    path: file.path(),
                    namespace,
                    pod,
                    identity,
                });
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(entries))
    }

    /// Enters every namespace of the outline and reads its links and addresses.
    pub(super) fn scan(&mut self, outline: &Outline) -> Result<Reading, ScanError> {
        let mut failures = Vec::new();
        let mut before = std::mem::take(&mut self.cache);
        for entry in &outline.entries {
            let last = before
                .remove(&entry.path)
                .filter(|(identity, _)| *identity == entry.identity);
            let inside = match self.look_inside(entry) {
                Ok(inside) => inside,
                Err(NamespaceError::Stranded(error)) => return Err(error),
                Err(error) => {
                    failures.push(format!("{}: {error}", entry.path.display()));
                    last.map(|(_, inside)| inside)
                }
            };
            if let Some(inside) = inside {
                self.cache.insert(entry.path.clone(), (entry.identity, inside));
            }
        }
        Ok(Reading {
            ports: self.assemble(outline),
            failures,
        })
    }

    /// `None` for a file that holds no namespace (yet), and for the agent's own.
    fn look_inside(&mut self, entry: &Entry) -> Result<Option<Inside>, NamespaceError> {
        let file = match File::open(&entry.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(NamespaceError::Open)?,
        };
        // The file is made before the namespace is mounted over it.
        if fstatfs(&file)
            .map_err(|errno| NamespaceError::Open(errno.into()))?
            .filesystem_type()
            != NSFS
        {
            return Ok(None);
        }
        let mut socket = self.open_inside(&file)?;
        let cookie = socket.netns_cookie()?;
        if cookie == self.cookie {
            return Ok(None);
        }
        let links = socket.links()?;
        let addresses = socket.addresses()?;
        Ok(Some(Inside {
            cookie,
            links,
            addresses,
            id: self.links.id_of(file.as_fd())?,
        }))
    }

    /// A socket in another namespace. The thread is back when this returns.
    fn open_inside(&self, namespace: &File) -> Result<RouteSocket, NamespaceError> {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| NamespaceError::Enter(errno.into()))?;
        let socket = RouteSocket::open();
        setns(&self.home, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NamespaceError::Stranded(ScanError::Stranded(errno.into())))?;
        Ok(socket?)
    }

    fn assemble(&self, outline: &Outline) -> PodPorts {
        let mut ports = PodPorts {
            connected: true,
            ..PodPorts::default()
        };
        let mut seen = BTreeSet::new();
        for entry in &outline.entries {
            let Some((_, inside)) = self.cache.get(&entry.path) else {
                continue;
            };
            // A namespace that is mounted under two names is one Pod, by its first name.
            if !seen.insert(inside.cookie) {
                continue;
            }
            let pod = PodRef {
                namespace: entry.namespace.clone(),
                name: entry.pod.clone(),
                sandbox: format!("netns:{}", inside.cookie),
            };
            assign(&pod, &entry.path, inside, &outline.links, &mut ports);
        }
        ports
            .ports
            .sort_by(|a, b| (&a.pod, &a.interface).cmp(&(&b.pod, &b.interface)));
        ports
            .uncounted
            .sort_by(|a, b| (&a.pod, &a.interface).cmp(&(&b.pod, &b.interface)));
        ports
    }
}
