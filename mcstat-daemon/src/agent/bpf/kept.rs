//! What the ledger must not forget while no agent runs and no packet needs it: what was booked against the switch, and the
//! totals of interfaces that a living Pod sandbox no longer has.
//!
//! Two pinned hash maps that only the agent touches. The kernel replaces an element whole, so a kill at any moment leaves
//! the old or the new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, Map, MapData, MapError};
use mcstat_common::abi::{PortBook, Vanished};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    KernelError,
    clock::Clock,
    maps::Maps,
    read,
    table::{self, Entry},
};
use crate::ledger::snapshot::{PodRef, PortReading};

type Bytes<const N: usize> = HashMap<MapData, u32, [u8; N]>;

const BOOK: usize = size_of::<PortBook>();
const VANISHED: usize = size_of::<Vanished>();

/// The two maps.
#[derive(Debug)]
pub struct Kept {
    books: Mutex<Bytes<BOOK>>,
    vanished: Mutex<Bytes<VANISHED>>,
}

impl Kept {
    pub(super) fn new(books: MapData, vanished: MapData) -> Result<Self, KernelError> {
        Ok(Self {
            books: Mutex::new(HashMap::try_from(Map::HashMap(books))?),
            vanished: Mutex::new(HashMap::try_from(Map::HashMap(vanished))?),
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

fn to_bytes<T: IntoBytes + zerocopy::Immutable, const N: usize>(value: &T) -> [u8; N] {
    let mut bytes = [0; N];
    // The sizes are the same: `BOOK` and `VANISHED`.
    for (to, from) in bytes.iter_mut().zip(value.as_bytes()) {
        *to = *from;
    }
    bytes
}

fn from_bytes<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_bytes(bytes).ok()
}
