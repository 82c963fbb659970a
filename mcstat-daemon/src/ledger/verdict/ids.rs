//! Small numbers for what lies in the maps. A number that was given back waits until the kernel cannot know it any more.

use std::collections::BTreeSet;

/// Numbers from 1 to a most; 0 always means none.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    most: u16,
    /// The lowest number never used.
    fresh: u32,
    /// Given back and released.
    free: Vec<u16>,
}

impl Ids {
    /// All numbers up to the most but for those that are in use already.
    pub(super) fn without(most: u16, taken: impl IntoIterator<Item = u16>) -> Self {
        let taken = taken.into_iter().collect::<BTreeSet<_>>();
        let last = taken.last().copied().unwrap_or(0).min(most);
        Self {
            most,
            fresh: u32::from(last) + 1,
            free: (1..=last).rev().filter(|id| !taken.contains(id)).collect(),
        }
    }

    /// How many numbers there are.
    pub(super) fn most(&self) -> u16 {
        self.most
    }

    /// `None` while all are in use or not yet released.
    pub(super) fn take(&mut self) -> Option<u16> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        let id = u16::try_from(self.fresh).ok().filter(|id| *id <= self.most)?;
        self.fresh += 1;
        Some(id)
    }

    /// Takes numbers back that nobody knows any more.
    pub(super) fn release(&mut self, ids: impl IntoIterator<Item = u16>) {
        let most = self.most;
        self.free.extend(ids.into_iter().filter(|id| *id <= most));
    }
}
