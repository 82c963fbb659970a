//! Objects of the Kubernetes API as they were last good, kind by kind. Pure: a watcher's events in, [`PolicyObjects`] out.
//!
//! An object that cannot be used is named, and what it said before holds. That ends when it is deleted, or is another
//! object of the same name. Nothing here is forgotten while the API is away.

use std::collections::{BTreeMap, HashMap};

use kube::{api::DynamicObject, runtime::watcher::Event};
use serde_json::Value;

use super::{Failure, PolicyObjects};
use crate::ledger::verdict::{Kind, Object, ReadError};

/// The kinds without which there is nothing to judge by.
const POLICIES: [Kind; 2] = [Kind::ClusterNetworkPolicy, Kind::NetworkPolicy];

/// One kind's objects, by namespace and name.
type Entries = HashMap<(String, String), Entry>;

/// What is known of one object.
#[derive(Debug, Default, PartialEq)]
struct Entry {
    /// `metadata.uid` of what was read last, good or bad.
    uid: String,
    /// As it was last good.
    object: Option<Object>,
    /// Why its newest form is not used.
    failure: Option<Failure>,
}

/// One kind as the API tells it.
#[derive(Debug, Default)]
struct Watched {
    entries: Entries,
    /// What a list that has not ended has told so far.
    listing: Option<Entries>,
    state: State,
}

/// Whether a kind is known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was read yet.
    #[default]
    Unknown,
    /// The API has no such resource.
    Absent,
    /// It was listed whole.
    Listed,
}

/// All kinds.
#[derive(Debug)]
pub(super) struct Store(BTreeMap<Kind, Watched>);

impl Store {
    /// A store that knows nothing of these kinds.
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self(kinds.into_iter().map(|kind| (kind, Watched::default())).collect())
    }

    /// Takes in what a watcher told.
    pub(super) fn take(&mut self, kind: Kind, event: Event<DynamicObject>) {
        let watched = self.0.entry(kind).or_default();
        match event {
            Event::Init => watched.listing = Some(Entries::new()),
            Event::InitApply(object) => {
                let (name, entry) = read(kind, object, &watched.entries);
                watched.listing.get_or_insert_default().insert(name, entry);
            }
            Event::InitDone => {
                watched.entries = watched.listing.take().unwrap_or_default();
                watched.state = State::Listed;
            }
            Event::Apply(object) => {
                let (name, entry) = read(kind, object, &watched.entries);
                watched.entries.insert(name, entry);
            }
            Event::Delete(object) => {
                watched.entries.remove(&name(&object));
            }
        }
    }

    /// The API has no such resource (any more): its objects are gone with it. Whether that is news.
    pub(super) fn absent(&mut self, kind: Kind) -> bool {
        let watched = self.0.entry(kind).or_default();
        let news = watched.state != State::Absent;
        *watched = Watched {
            state: State::Absent,
            ..Watched::default()
        };
        news
    }

    /// Everything. It is known when every kind is, and when there is any kind of policy at all.
    pub(super) fn objects(&self) -> PolicyObjects {
        let read = self.complete();
        let known = read && POLICIES.iter().any(|kind| self.state(*kind) == State::Listed);
        let entries = || self.0.values().flat_map(|watched| watched.entries.values());
        let mut objects: Vec<Object> = entries().filter_map(|entry| entry.object.clone()).collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let mut failures: Vec<Failure> = entries().filter_map(|entry| entry.failure.clone()).collect();
        failures.sort_by_key(Failure::to_string);
        PolicyObjects {
            objects,
            failures,
            read,
            known,
        }
    }

    /// Whether every kind was told of, be it as absent. Where there are no policies at all, nobody asks for the rest.
    pub(super) fn complete(&self) -> bool {
        let told = self.0.values().all(|watched| watched.state != State::Unknown);
        told || POLICIES.iter().all(|kind| self.state(*kind) == State::Absent)
    }

    fn state(&self, kind: Kind) -> State {
        self.0.get(&kind).map_or(State::Absent, |watched| watched.state)
    }
}

fn name(object: &DynamicObject) -> (String, String) {
    let metadata = &object.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// The object's new entry. What says the same as before is the same value, so that what rests on it need not be done again.
fn read(kind: Kind, object: DynamicObject, before: &Entries) -> ((String, String), Entry) {
    let name = name(&object);
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let known = before.get(&name).filter(|known| known.uid == uid);
    let known = known.and_then(|known| known.object.as_ref());
    let read = serde_json::to_value(object)
        .map_err(ReadError::Malformed)
        .and_then(|document: Value| Object::read(kind, document));
    let (object, failure) = match read {
        Ok(object) => match known {
            Some(known) if *known == object => (Some(known.clone()), None),
            _ => (Some(object), None),
        },
        Err(error) => {
            let failure = Failure::Object {
                kind,
                name: match &*name.0 {
                    "" => name.1.clone(),
                    namespace => format!("{namespace}/{}", name.1),
                },
                reason: match error {
                    ReadError::Malformed(error) => error.to_string(),
                    ReadError::Refused(refusal) => refusal.to_string(),
                },
                holds: known.is_some(),
            };
            (known.cloned(), Some(failure))
        }
    };
    (name, Entry { uid, object, failure })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
