//! A cumulative count over time: whether and when it grew.

use jiff::Timestamp;

/// A cumulative count as of the last tick, and when it grew last. The first count seen is where it begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Growth {
    count: Option<u64>,
    grew: Option<Timestamp>,
}

impl Growth {
    /// A count that is known to have been this before the first tick.
    pub(super) fn from(count: u64) -> Self {
        Self {
            count: Some(count),
            grew: None,
        }
    }

    /// Takes in one tick.
    pub(super) fn update(&mut self, count: u64, now: Timestamp) {
        if self.count.is_some_and(|before| before < count) {
            self.grew = Some(now);
        }
        self.count = Some(count);
    }

    /// The count as of the last tick; 0 before the first.
    pub(super) fn count(&self) -> u64 {
        self.count.unwrap_or(0)
    }

    /// When it grew last.
    pub(super) fn grew(&self) -> Option<Timestamp> {
        self.grew
    }
}
