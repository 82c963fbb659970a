//! Finding a process for each namespace that lacks one: by the id under which the agent's own namespace knows it.
//!
//! A look at all processes costs about 4 µs for each, so there is none while every namespace has a process, and it is
//! repeated ever more rarely while the same namespaces stay without.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::agent::pods::link::RouteSocket;

/// The first pause after a look that did not find all.
const MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX: Duration = Duration::from_secs(32);

/// When to look again. Time comes in as a parameter.
#[derive(Debug, Default)]
pub(super) struct Search {
    missing: BTreeSet<String>,
    wait: Duration,
    next: Option<Instant>,
}

impl Search {
    /// Whether to look now, where the namespaces of these sandboxes have no process: at once for one that has just come
    /// to lack it, else 1, 2, 4, … 32 seconds after the last look.
    pub(super) fn due(&mut self, missing: BTreeSet<String>, now: Instant) -> bool {
        let newcomer = !missing.is_subset(&self.missing);
        self.missing = missing;
        if self.missing.is_empty() || !newcomer && self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.wait = if newcomer { MIN } else { (self.wait * 2).clamp(MIN, MAX) };
        self.next = Some(now + self.wait);
        true
    }
}

/// A process in each of the namespaces with these ids, as far as one is visible: that with the lowest number, which in a
/// Pod is the one that holds the sandbox.
pub(super) fn processes(socket: &mut RouteSocket, ids: &BTreeSet<i32>) -> BTreeMap<i32, u32> {
    let mut found = BTreeMap::new();
    let Ok(directory) = std::fs::read_dir("/proc") else {
        return found;
    };
    let numbers = directory.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // procfs lists processes in ascending order. This one is in the agent's namespace.
    for process in numbers.filter(|process| *process != std::process::id()) {
        // Gone in between is no error.
        let Ok(Some(id)) = socket.id_of_process(process) else {
            continue;
        };
        if ids.contains(&id) {
            found.entry(id).or_insert(process);
        }
        if found.len() == ids.len() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_same_namespaces_are_looked_for_ever_more_rarely() {
        let (mut search, start) = (Search::default(), Instant::now());
        let looks: Vec<u64> = (0..130)
            .filter(|second| search.due(set(&["a"]), start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(looks, [0, 1, 3, 7, 15, 31, 63, 95, 127]);
    }

    #[test]
    fn a_newcomer_is_looked_for_at_once() {
        let (mut search, start) = (Search::default(), Instant::now());
        let mut due = |names: &[&str], second| search.due(set(names), start + Duration::from_secs(second));
        assert!(due(&["a"], 0) && due(&["a"], 1) && !due(&["a"], 2));
        assert!(due(&["a", "b"], 2), "b is new");
        assert!(!due(&["b"], 2) && due(&["b"], 3));
        assert!(!due(&[], 20), "nothing to look for");
        assert!(due(&["b"], 20), "b has lost its process again");
    }
}
