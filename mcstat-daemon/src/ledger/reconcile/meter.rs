//! Evidence by a cumulative counter: how much it has grown lately and was not yet used to explain something.
//!
//! Lately means: since nothing could be hidden in the ledgers' difference, and two such ticks before that, since counters
//! of different sources come with different delays. Older growth explains nothing.

/// A counter and what of it is evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Meter {
    /// At the last three ticks that agreed, oldest first.
    held: [u64; 3],
    now: u64,
}

impl Meter {
    /// A counter of which nothing so far is evidence.
    pub(super) fn new(now: u64) -> Self {
        Self { held: [now; 3], now }
    }

    /// Takes in one tick. A counter that fell began again at 0.
    pub(super) fn update(&mut self, now: u64) {
        if now < self.now {
            self.held = [0; 3];
        }
        self.now = now;
    }

    /// Nothing can be hidden at this tick.
    pub(super) fn agree(&mut self) {
        let [_, second, third] = self.held;
        self.held = [second, third, self.now.max(third)];
    }

    /// What it can explain.
    pub(super) fn available(&self) -> u64 {
        let [oldest, ..] = self.held;
        self.now.saturating_sub(oldest)
    }

    /// So much of it has explained something.
    pub(super) fn spend(&mut self, count: u64) {
        let now = self.now;
        self.held = self.held.map(|held| held.saturating_add(count).min(now.max(held)));
    }
}
