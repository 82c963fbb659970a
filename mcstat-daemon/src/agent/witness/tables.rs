//! What one namespace's tables said last, and one reading of them: raw bytes first, and taken over only once the caller
//! is sure whose they are.
//!
//! What was read before decides what is read: the source tables where the group table changed, or where they held a line;
//! the socket tables where the drop counters grew. A group table that is equal to the last one is not decoded again.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::filter::filter;
use crate::{
    ledger::snapshot::{KernelGroup, KernelInterface, LosingSocket},
    proto::procnet::{self, Interface, ProcNetError, Socket, Source},
};

/// How often a source table is read between two group tables that do not agree.
const ATTEMPTS: usize = 3;

/// More than so many bytes of a table are not read: some 3,000 IPv4 or 1,500 IPv6 groups, 1,000 sockets. A Pod cannot
/// make the agent slow by joining more.
const LIMIT: usize = 128 << 10;

/// What is to be read beyond the group tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The source tables, whatever the group tables say.
    pub(super) sources: bool,
    /// The drop counters.
    pub(super) counters: bool,
}

/// Which files make up a family's tables, and how they are decoded.
struct Family {
    groups: &'static str,
    sources: &'static str,
    decode_groups: fn(&[u8]) -> Result<Vec<Interface>, ProcNetError>,
    decode_sources: fn(&[u8]) -> Result<Vec<Source>, ProcNetError>,
}

const FAMILIES: [Family; 2] = [
    Family {
        groups: "igmp",
        sources: "mcfilter",
        decode_groups: procnet::igmp,
        decode_sources: procnet::mcfilter,
    },
    Family {
        groups: "igmp6",
        sources: "mcfilter6",
        decode_groups: procnet::igmp6,
        decode_sources: procnet::mcfilter6,
    },
];

/// One reading that is not taken over yet; its buffers are used again for every namespace.
#[derive(Debug, Default)]
pub(super) struct Raw {
    families: [RawFamily; 2],
    counters: Option<RawCounters>,
    buffer: Vec<u8>,
}

#[derive(Debug, Default)]
struct RawFamily {
    groups: Vec<u8>,
    again: Vec<u8>,
    sources: Option<Vec<Source>>,
    /// Joins and leaves went on while the sources were read.
    torn: bool,
}

#[derive(Debug)]
struct RawCounters {
    total: u64,
    /// Those that have lost something, where they were read.
    sockets: Option<Vec<Socket>>,
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    /// A file cannot be read.
    #[error("/proc/net/{file} cannot be read: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file is longer than [`LIMIT`].
    #[error("/proc/net/{0} is longer than {LIMIT} bytes: the Pod has joined too many groups")]
    TooLarge(&'static str),
    /// A file is not understood.
    #[error(transparent)]
    Decode(#[from] ProcNetError),
}

/// What one namespace's tables said last.
#[derive(Debug, Default)]
pub(super) struct Tables {
    families: [KnownFamily; 2],
    /// Sorted by name.
    pub(super) interfaces: Vec<KernelInterface>,
    /// Datagrams that found a full receive buffer; `None` before the first reading.
    pub(super) drops: Option<u64>,
    /// Sockets that lost datagrams between the last two readings of the counters.
    pub(super) losing: Vec<LosingSocket>,
    /// Drops of each socket that has any, by inode.
    sockets: BTreeMap<u64, u32>,
}

#[derive(Debug, Default)]
struct KnownFamily {
    groups: Vec<u8>,
    sources: Vec<Source>,
    torn: bool,
}

impl Tables {
    /// Reads what is to be read below `directory`, a `…/net` of procfs. Nothing is open when this returns.
    pub(super) fn gather(&self, directory: &Path, plan: Plan, raw: &mut Raw) -> Result<(), TableError> {
        let Raw {
            families,
            counters,
            buffer,
        } = raw;
        for ((family, known), raw) in FAMILIES.iter().zip(&self.families).zip(families) {
            read(directory, family.groups, &mut raw.groups)?;
            (raw.sources, raw.torn) = (None, false);
            let quiet = raw.groups == known.groups && known.sources.is_empty();
            if plan.sources || !quiet {
                read_sources(directory, family, quiet, raw, buffer)?;
            }
        }
        *counters = match plan.counters {
            true => Some(self.read_counters(directory, buffer)?),
            false => None,
        };
        Ok(())
    }

    fn read_counters(&self, directory: &Path, buffer: &mut Vec<u8>) -> Result<RawCounters, TableError> {
        read(directory, "snmp", buffer)?;
        let mut total = procnet::receive_errors(buffer)?;
        // A kernel without IPv6 has no such file.
        if read(directory, "snmp6", buffer)? {
            total += procnet::receive_errors6(buffer)?;
        }
        let sockets = match total == self.drops.unwrap_or(0) {
            true => None,
            // More sockets than are read: the sum stands, none is named.
            false => match read_sockets(directory, buffer) {
                Err(TableError::TooLarge(_)) => None,
                other => Some(other?),
            },
        };
        Ok(RawCounters { total, sockets })
    }

    /// Takes a reading over.
    ///
    /// # Errors
    /// A table that is not understood; what was known before stays.
    pub(super) fn take(&mut self, raw: &mut Raw) -> Result<(), ProcNetError> {
        if let Some(counters) = raw.counters.take() {
            self.take_counters(counters);
        }
        let changed = |(raw, known): (&RawFamily, &KnownFamily)| {
            raw.groups != known.groups
                || raw
                    .sources
                    .as_ref()
                    .is_some_and(|sources| *sources != known.sources || raw.torn != known.torn)
        };
        if !raw.families.iter().zip(&self.families).any(changed) {
            return Ok(());
        }
        let mut interfaces: BTreeMap<u32, KernelInterface> = BTreeMap::new();
        for ((family, raw), known) in FAMILIES.iter().zip(&mut raw.families).zip(&self.families) {
            let sources = raw.sources.as_ref().unwrap_or(&known.sources);
            for interface in (family.decode_groups)(&raw.groups)? {
                add(&mut interfaces, interface, sources, raw.torn);
            }
        }
        for (raw, known) in raw.families.iter_mut().zip(&mut self.families) {
            known.groups.clone_from(&raw.groups);
            if let Some(sources) = raw.sources.take() {
                (known.sources, known.torn) = (sources, raw.torn);
            }
        }
        self.interfaces = interfaces.into_values().collect();
        for interface in &mut self.interfaces {
            interface.groups.sort_unstable_by_key(|group| group.group);
        }
        self.interfaces.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    fn take_counters(&mut self, counters: RawCounters) {
        let first = self.drops.replace(counters.total).is_none();
        self.losing.clear();
        let Some(sockets) = counters.sockets else { return };
        if !first {
            let grown = sockets.iter().filter(|socket| {
                self.sockets
                    .get(&socket.inode)
                    .is_none_or(|before| *before != socket.drops)
            });
            self.losing = grown
                .map(|socket| LosingSocket {
                    address: socket.address,
                    port: socket.port,
                    drops: u64::from(socket.drops),
                })
                .collect();
            self.losing
                .sort_unstable_by_key(|socket| (socket.address, socket.port, socket.drops));
        }
        self.sockets = sockets.iter().map(|socket| (socket.inode, socket.drops)).collect();
    }
}

/// Adds an interface's groups of one family; the sources are sorted.
fn add(interfaces: &mut BTreeMap<u32, KernelInterface>, from: Interface, sources: &[Source], torn: bool) {
    let ifindex = from.ifindex;
    let into = interfaces.entry(ifindex).or_insert_with(|| KernelInterface {
        name: from.name,
        igmp_version: None,
        groups: Vec::new(),
    });
    into.igmp_version = into.igmp_version.or(from.version);
    into.groups.extend(from.groups.into_iter().map(|group| {
        let key = (ifindex, group.group);
        let from = sources.partition_point(|source| (source.ifindex, source.group) < key);
        let to = sources.partition_point(|source| (source.ifindex, source.group) <= key);
        let of_group = sources.get(from..to).unwrap_or_default();
        KernelGroup {
            group: group.group,
            users: group.users,
            filter: filter(group.users, of_group.iter()).filter(|_| !torn || of_group.is_empty()),
        }
    }));
}

/// Reads a source table that belongs to the group table in `raw`: neither changes with the other under one lock, so the
/// group table is read again until it is the same before and after. The numbers of users have to be of that very moment;
/// only where it has been `quiet` and still no source is named do they not matter.
fn read_sources(
    directory: &Path,
    family: &Family,
    quiet: bool,
    raw: &mut RawFamily,
    buffer: &mut Vec<u8>,
) -> Result<(), TableError> {
    for _ in 0..ATTEMPTS {
        read(directory, family.sources, buffer)?;
        let sources = raw.sources.insert((family.decode_sources)(buffer)?);
        sources.sort_unstable_by_key(|source| (source.ifindex, source.group, source.source));
        if quiet && sources.is_empty() {
            break;
        }
        read(directory, family.groups, &mut raw.again)?;
        std::mem::swap(&mut raw.groups, &mut raw.again);
        // Timers run in the text, but not in what is decoded.
        raw.torn =
            raw.groups != raw.again && (family.decode_groups)(&raw.groups)? != (family.decode_groups)(&raw.again)?;
        if !raw.torn {
            break;
        }
    }
    Ok(())
}

/// The UDP sockets that have lost something.
fn read_sockets(directory: &Path, buffer: &mut Vec<u8>) -> Result<Vec<Socket>, TableError> {
    read(directory, "udp", buffer)?;
    let mut sockets = procnet::udp(buffer)?;
    if read(directory, "udp6", buffer)? {
        sockets.append(&mut procnet::udp6(buffer)?);
    }
    sockets.retain(|socket| socket.drops > 0);
    Ok(sockets)
}

/// A whole file; empty, and `false`, where the kernel has none.
fn read(directory: &Path, name: &'static str, into: &mut Vec<u8>) -> Result<bool, TableError> {
    into.clear();
    let file = match File::open(directory.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other,
    };
    file.and_then(|file| file.take(LIMIT as u64 + 1).read_to_end(into))
        .map_err(|source| TableError::Read { file: name, source })?;
    match into.len() > LIMIT {
        true => Err(TableError::TooLarge(name)),
        false => Ok(true),
    }
}
