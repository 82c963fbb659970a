//! When to try again: 1, 2, 4, 8, 8, … seconds, as Open vSwitch's `reconnect` does.
//!
//! A pure state machine: time comes in as a parameter, a deadline goes out. A success that did not last at least as long
//! as the last wait does not start over, so that a peer that accepts and dies is not hammered.

use std::time::{Duration, Instant};

/// The first wait.
pub const MIN: Duration = Duration::from_secs(1);
/// The longest wait.
pub const MAX: Duration = Duration::from_secs(8);

/// The waits between attempts at one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    /// The last wait; zero before the first failure.
    wait: Duration,
    /// Since when attempts succeed.
    up_since: Option<Instant>,
}

impl Backoff {
    /// An attempt succeeded at `now`.
    pub fn succeeded(&mut self, now: Instant) {
        self.up_since.get_or_insert(now);
    }

    /// An attempt failed, or a connection was lost, at `now`. Returns when to try again.
    pub fn failed(&mut self, now: Instant) -> Instant {
        let lasted = self
            .up_since
            .take()
            .is_some_and(|since| now.saturating_duration_since(since) >= self.wait);
        self.wait = if lasted || self.wait.is_zero() {
            MIN
        } else {
            (self.wait * 2).min(MAX)
        };
        now + self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: &mut Backoff, start: Instant, count: usize) -> Vec<u64> {
        let mut now = start;
        (0..count)
            .map(|_| {
                let retry = backoff.failed(now);
                let wait = (retry - now).as_secs();
                now = retry;
                wait
            })
            .collect()
    }

    /// `ovs-vswitchd.conf.db(5)`, `max_backoff`: doubling from one second up to 8 s.
    #[test]
    fn waits_double_up_to_eight_seconds() {
        assert_eq!(waits(&mut Backoff::default(), Instant::now(), 6), [1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn a_success_that_lasted_starts_over() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(waits(&mut backoff, start, 3), [1, 2, 4]);
        backoff.succeeded(start);
        backoff.succeeded(start + Duration::from_secs(3));
        assert_eq!(waits(&mut backoff, start + Duration::from_secs(4), 2), [1, 2]);
    }

    #[test]
    fn a_success_shorter_than_the_last_wait_does_not() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(waits(&mut backoff, start, 3), [1, 2, 4]);
        backoff.succeeded(start);
        assert_eq!(waits(&mut backoff, start + Duration::from_secs(3), 2), [8, 8]);
    }
}
