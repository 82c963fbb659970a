//! What the ledger must not forget while no agent runs and no packet needs it: what was booked against the switch, and the
//! totals of interfaces that a living Pod sandbox no longer has, and the rules that denied reports.
//!
//! Three pinned hash maps that only the agent touches. The kernel replaces an element whole, so a kill at any moment leaves
//! the old or the new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, Map, MapData, MapError};
use mcstat_common::abi::{PortBook, Vanished};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    KernelError,
    clock::Clock,
    denied::DeniedMap,
    maps::Maps,
    read,
    table::{self, Entry},
};
use crate::{
    api::rule::RuleReference,
    ledger::{
        Denials,
        snapshot::{PodRef, PortReading},
    },
};

type Bytes<const N: usize> = HashMap<MapData, u32, [u8; N]>;

const BOOK: usize = size_of::<PortBook>();
const VANISHED: usize = size_of::<Vanished>();

/// The maps.
#[derive(Debug)]
pub struct Kept {
    books: Mutex<Bytes<BOOK>>,
    vanished: Mutex<Bytes<VANISHED>>,
    /// `None`: maps of an older ABI may be without.
    denied: Option<Mutex<DeniedMap>>,
}

impl Kept {
    pub(super) fn new(books: MapData, vanished: MapData, denied: Option<MapData>) -> Result<Self, KernelError> {
        Ok(Self {
            books: Mutex::new(HashMap::try_from(Map::HashMap(books))?),
            vanished: Mutex::new(HashMap::try_from(Map::HashMap(vanished))?),
            denied: denied.map(DeniedMap::new).transpose()?.map(Mutex::new),
        })
    }

    /// Writes the books of ports down.
    ///
    /// # Errors
    /// What the kernel says; the ones before are written.
    pub fn write_books(&self, books: impl Iterator<Item = (u32, PortBook)>) -> Result<(), MapError> {
        let mut map = lock(&self.books);
        for (id, book) in books {
            map.insert(id, to_bytes(&book), 0)?;
        }
        Ok(())
    }

    /// Every port's book.
    pub fn books(&self) -> BTreeMap<u32, PortBook> {
        all(&lock(&self.books)).collect()
    }

    /// Writes down which rules denied the last reports of which groups; what was written before and is not among them goes.
    ///
    /// # Errors
    /// What the kernel says: the map may be full. What is left is written at the next call.
    pub fn write_denied<'a>(
        &self,
        denials: impl Iterator<Item = ((u32, IpAddr), &'a RuleReference)>,
    ) -> Result<(), MapError> {
        self.denied.as_ref().map_or(Ok(()), |map| lock(map).write(denials))
    }

    /// What [`write_denied`](Self::write_denied) wrote last, be it in an earlier run.
    pub fn denied(&self) -> Denials {
        self.denied
            .as_ref()
            .map(|map| lock(map).all().clone())
            .unwrap_or_default()
    }

    /// Every interface that is remembered, by port id.
    pub fn vanished(&self) -> BTreeMap<u32, Vanished> {
        all(&lock(&self.vanished)).collect()
    }

    /// The remembered interfaces as readings, with what was booked of each.
    pub fn vanished_readings(&self, clock: &Clock) -> Vec<(PortReading, PortBook)> {
        let vanished = self.vanished();
        vanished
            .values()
            .map(|gone| (read::vanished(gone, clock), gone.book))
            .collect()
    }

    /// Remembers an interface that goes while its sandbox lives. Its slots are folded and nothing counts in it any more.
    ///
    /// # Errors
    /// What the kernel says: the map may be full.
    pub fn remember(&self, maps: &Maps, entry: &Entry) -> Result<(), MapError> {
        let book = lock(&self.books).get(&entry.port.id, 0).ok();
        let gone = Vanished {
            port: entry.port,
            stats: [0, 1].map(|direction| read::all_of(maps, 2 * entry.position + direction)),
            book: book.and_then(|bytes| from_bytes(&bytes)).unwrap_or_default(),
        };
        lock(&self.vanished).insert(entry.port.id, to_bytes(&gone), 0)
    }

    /// Forgets the books of ports that are not in the table, and the interfaces of Pods that live no more.
    ///
    /// # Errors
    /// What the kernel says; what it could not forget is tried again at the next call.
    pub fn forget(&self, maps: &Maps, lives: impl Fn(&PodRef) -> bool) -> Result<(), MapError> {
        let ports: BTreeSet<u32> = table::entries(maps).iter().map(|entry| entry.port.id).collect();
        remove(&mut lock(&self.books), |id, _: &PortBook| ports.contains(&id))?;
        remove(&mut lock(&self.vanished), |_, gone: &Vanished| {
            lives(&read::pod(&gone.port))
        })
    }

    /// Takes over what an older ABI's maps held.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn copy(&self, older: &Self) -> Result<(), MapError> {
        self.write_books(older.books().into_iter())?;
        let denied = older.denied();
        self.write_denied(denied.iter().map(|(key, rule)| (*key, rule)))?;
        let mut map = lock(&self.vanished);
        older
            .vanished()
            .iter()
            .try_for_each(|(id, gone)| map.insert(*id, to_bytes(gone), 0))
    }
}

/// A panic of another thread leaves the map as it is in the kernel: whole.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all<T: FromBytes, const N: usize>(map: &Bytes<N>) -> impl Iterator<Item = (u32, T)> {
    let elements = map.iter().filter_map(Result::ok);
    elements.filter_map(|(id, bytes)| Some((id, from_bytes(&bytes)?)))
}

fn remove<T: FromBytes, const N: usize>(map: &mut Bytes<N>, stays: impl Fn(u32, &T) -> bool) -> Result<(), MapError> {
    let gone: Vec<u32> = all::<T, N>(map)
        .filter(|(id, value)| !stays(*id, value))
        .map(|(id, _)| id)
        .collect();
    gone.iter().try_for_each(|id| map.remove(id))
}

pub(super) fn to_bytes<T: IntoBytes + zerocopy::Immutable, const N: usize>(value: &T) -> [u8; N] {
    let mut bytes = [0; N];
    // The sizes are the same: the callers' constants.
    for (to, from) in bytes.iter_mut().zip(value.as_bytes()) {
        *to = *from;
    }
    bytes
}

pub(super) fn from_bytes<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_bytes(bytes).ok()
}
