//! Whether the switch is there, and when to try again when it is not: a pure state machine that is told the time.

use std::time::{Duration, Instant};

use crate::agent::backoff::Backoff;

/// The state of the connection to the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was tried yet.
    New,
    /// It is connected.
    Connected {
        /// Since when.
        since: Instant,
    },
    /// It is not.
    Away {
        /// Since the first failure after the last connection, or ever.
        since: Instant,
        /// When the next attempt is due.
        retry_at: Instant,
    },
}

/// The attempts at one switch.
#[derive(Debug, Clone)]
pub struct Reconnect {
    state: State,
    backoff: Backoff,
    connections: u64,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            state: State::New,
            backoff: Backoff::default(),
            connections: 0,
        }
    }
}

impl Reconnect {
    /// The state as it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// How many connections there were; the last one's number.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// How long an attempt has to wait at `now`; `None`: it is due, or the connection is there.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Away { retry_at, .. } if now < retry_at => Some(retry_at - now),
            _ => None,
        }
    }

    /// An attempt succeeded at `now`.
    pub fn connected(&mut self, now: Instant) {
        self.connections += 1;
        self.backoff.succeeded(now);
        self.state = State::Connected { since: now };
    }

    /// An attempt failed, or the connection was lost, at `now`. Returns when the next is due.
    pub fn lost(&mut self, now: Instant) -> Instant {
        let retry_at = self.backoff.failed(now);
        let since = match self.state {
            State::Away { since, .. } => since,
            State::New | State::Connected { .. } => now,
        };
        self.state = State::Away { since, retry_at };
        retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn attempts_become_rarer_and_the_first_failure_stands() {
        let start = Instant::now();
        let mut reconnect = Reconnect::default();
        assert_eq!((reconnect.state(), reconnect.wait(start)), (State::New, None));
        let mut now = start;
        for wait in [1, 2, 4, 8, 8] {
            let retry_at = reconnect.lost(now);
            assert_eq!(retry_at, now + wait * SECOND);
            assert_eq!(reconnect.state(), State::Away { since: start, retry_at });
            assert_eq!(reconnect.wait(retry_at - SECOND / 2), Some(SECOND / 2));
            assert_eq!(reconnect.wait(retry_at), None);
            now = retry_at;
        }
        assert_eq!(reconnect.connections(), 0);
    }

    #[test]
    fn a_connection_that_lasted_begins_anew() {
        let start = Instant::now();
        let mut reconnect = Reconnect::default();
        reconnect.lost(start);
        reconnect.lost(start + SECOND);
        reconnect.connected(start + 3 * SECOND);
        let since = start + 3 * SECOND;
        assert_eq!(reconnect.state(), State::Connected { since });
        assert_eq!(reconnect.wait(since), None);
        let lost = start + 60 * SECOND;
        let retry_at = lost + SECOND;
        assert_eq!(reconnect.lost(lost), retry_at);
        assert_eq!(reconnect.state(), State::Away { since: lost, retry_at });
        reconnect.connected(retry_at);
        assert_eq!(reconnect.connections(), 2);
    }
}
