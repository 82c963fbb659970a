//! Two cumulative counts of one thing, read at different moments: what is certain of their difference.
//!
//! ```text
//!             low                high
//! expected     ├──────────────────┤          where the difference lies, as far as the baseline tells
//! seen                                 ├───────┤    where it lies now: lag and reading time make it a range
//!                                 └─off┘     certain to have come since
//! ```
//! Promises that healthy counts are never off, however late one of them is within its lag, and that no more is ever
//! established than is certain twice in a row. Knows neither causes nor time.

/// Where a difference lies, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// At least.
    pub(super) low: i64,
    /// At most.
    pub(super) high: i64,
}

impl Range {
    /// `more − less`, where `more` lies in a range.
    pub(super) fn above(more: [u64; 2], less: u64) -> Self {
        let [low, high] = more.map(|more| difference(more, less));
        Self { low, high }
    }

    /// `more − less`, where `less` lies in a range.
    pub(super) fn below(more: u64, less: [u64; 2]) -> Self {
        let [high, low] = less.map(|less| difference(more, less));
        Self { low, high }
    }

    /// Whether both ends are one.
    pub(super) fn is_exact(self) -> bool {
        self.low == self.high
    }
}

/// Counters do not come near the ends of i64 in the life of a node.
fn difference(more: u64, less: u64) -> i64 {
    more.wrapping_sub(less).cast_signed()
}

/// The difference that is expected, and how far off it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Track {
    expected: Range,
    /// Off at the tick before: positive above, negative below.
    before: i64,
}

impl Track {
    /// A baseline: whatever is seen is expected from here on.
    pub(super) fn begin(seen: Range) -> Self {
        Self {
            expected: seen,
            before: 0,
        }
    }

    /// What is expected.
    pub(super) fn expected(&self) -> Range {
        self.expected
    }

    /// How far what is seen is certainly above (positive) or below (negative) what is expected.
    pub(super) fn off(&self, seen: Range) -> i64 {
        if seen.low > self.expected.high {
            seen.low - self.expected.high
        } else if seen.high < self.expected.low {
            seen.high - self.expected.low
        } else {
            0
        }
    }

    /// The change since the baseline: at least and at most.
    pub(super) fn change(&self, seen: Range) -> Range {
        Range {
            low: seen.low - self.expected.high,
            high: seen.high - self.expected.low,
        }
    }

    /// Takes in one tick. Returns what was off at the tick before and still is. What fits narrows the expectation.
    pub(super) fn take(&mut self, seen: Range) -> i64 {
        let off = self.off(seen);
        if off == 0 {
            self.expected.low = self.expected.low.max(seen.low);
            self.expected.high = self.expected.high.min(seen.high);
        }
        let before = std::mem::replace(&mut self.before, off);
        match (before.signum(), off.signum()) {
            (1, 1) => off.min(before),
            (-1, -1) => off.max(before),
            _ => 0,
        }
    }

    /// Whether it was off at the last tick.
    pub(super) fn is_off(&self) -> bool {
        self.before != 0
    }

    /// So much of the difference is accounted for.
    pub(super) fn shift(&mut self, by: i64) {
        self.expected.low += by;
        self.expected.high += by;
        self.before -= by;
    }

    /// Forgets how far off it was: the next tick is the first of two again.
    pub(super) fn rest(&mut self) {
        self.before = 0;
    }
}
