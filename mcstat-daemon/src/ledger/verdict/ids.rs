//! Small numbers for what lies in the maps. A number that was given back waits until the kernel cannot know it any more.

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
    pub(super) fn new(most: u16) -> Self {
        Self {
            most,
            fresh: 1,
            free: Vec::new(),
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
        self.free.extend(ids);
    }
}
