//! What the kernel of a Pod says of one interface.

use std::net::IpAddr;

use super::link;
use crate::ledger::snapshot::{KernelGroup, NamespaceReading};

/// The groups that a kernel has joined on one interface, as far as they are kept.
#[derive(Debug)]
pub(super) struct KernelTable {
    /// Sorted by address.
    pub(super) groups: Vec<KernelGroup>,
    /// Groups beyond [`link::MAX_GROUPS`]: what is not among those kept is then unknown.
    pub(super) beyond: u64,
}

impl KernelTable {
    /// What the namespace says of an interface. Most often it is what it said before, which is then kept.
    pub(super) fn of(namespace: &NamespaceReading, interface: &str, before: Option<Self>) -> Self {
        let found = namespace.interfaces.iter().find(|found| found.name == interface);
        let all = found.map(|found| found.groups.as_slice()).unwrap_or_default();
        let kept = all.get(..link::MAX_GROUPS).unwrap_or(all);
        let beyond = all.len().saturating_sub(kept.len()) as u64;
        match before {
            Some(before) if before.groups == kept => Self { beyond, ..before },
            _ => {
                let mut groups = kept.to_vec();
                groups.sort_by_key(|joined| joined.group);
                Self { groups, beyond }
            }
        }
    }

    /// Whether it has joined.
    pub(super) fn has(&self, group: IpAddr) -> bool {
        self.groups.binary_search_by_key(&group, |joined| joined.group).is_ok()
    }

    /// `Some(None)`: it is no member. `None`: it does not say.
    pub(super) fn says(&self, group: IpAddr) -> Option<Option<&KernelGroup>> {
        let index = self.groups.binary_search_by_key(&group, |joined| joined.group);
        let found = index.ok().and_then(|index| self.groups.get(index));
        (found.is_some() || self.beyond == 0).then_some(found)
    }
}
