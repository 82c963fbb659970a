//! The kernel's clock of the counters: jiffies, and what time of day they are.
//!
//! HZ is not in any API, so it is measured once for the life of the maps, and an anchor (jiffies, time of day) is kept
//! with them: a slot's insertion time converts to the same moment for ever, whatever the wall clock does later.

use jiff::{SignedDuration, Timestamp};

/// The rates at which Linux can be built to tick (kernel/Kconfig.hz).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// The rate nearest to `ticks` in `elapsed`.
///
/// # Errors
/// `None` when nothing ticked, or no known rate is within 15 %.
pub fn rate(ticks: u64, elapsed: std::time::Duration) -> Option<u32> {
    let measured = ticks as f64 / elapsed.as_secs_f64();
    let best = RATES.into_iter().min_by(|a, b| {
        let (a, b) = ((f64::from(*a) - measured).abs(), (f64::from(*b) - measured).abs());
        a.total_cmp(&b)
    })?;
    ((f64::from(best) - measured).abs() < f64::from(best) * 0.15).then_some(best)
}

/// Converts jiffies of this boot to time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Ticks a second.
    pub hz: u32,
    /// `jiffies64` at the anchor.
    pub anchor_jiffies: u64,
    /// Time of day at the anchor.
    pub anchor: Timestamp,
    /// `jiffies64` now.
    pub now_jiffies: u64,
    /// Time of day now.
    pub now: Timestamp,
}

impl Clock {
    /// When a 64-bit stamp was taken, by the anchor: stable over restarts of the agent.
    pub fn fixed(&self, jiffies: u64) -> Timestamp {
        let ticks = i128::from(jiffies) - i128::from(self.anchor_jiffies);
        shift(self.anchor, ticks, self.hz)
    }

    /// When the last packet passed, by the low half of its stamp and the time now; 0 is never.
    pub fn recent(&self, low: u32) -> Option<Timestamp> {
        if low == 0 {
            return None;
        }
        let age = self.age(low);
        Some(shift(self.now, -i128::from(age), self.hz))
    }

    /// Ticks since a low-half stamp. Stamps carry bit 0 as "set", and a CPU may be a tick ahead: at most now.
    pub fn age(&self, low: u32) -> u32 {
        let age = (self.now_jiffies as u32).wrapping_sub(low);
        if age > u32::MAX / 2 { 0 } else { age }
    }

    /// As [`recent`](Self::recent), for a 64-bit stamp.
    pub fn recent64(&self, jiffies: u64) -> Option<Timestamp> {
        if jiffies == 0 {
            return None;
        }
        let age = self.now_jiffies.saturating_sub(jiffies);
        Some(shift(self.now, -i128::from(age), self.hz))
    }
}

fn shift(from: Timestamp, ticks: i128, hz: u32) -> Timestamp {
    let millis = ticks * 1000 / i128::from(hz.max(1));
    let millis = i64::try_from(millis).unwrap_or(0);
    from.checked_add(SignedDuration::from_millis(millis)).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_told_apart() {
        assert_eq!(rate(25, Duration::from_millis(100)), Some(250));
        assert_eq!(rate(30, Duration::from_millis(100)), Some(300));
        assert_eq!(rate(24, Duration::from_millis(100)), Some(250));
        assert_eq!(rate(100, Duration::from_millis(101)), Some(1000));
        assert_eq!(rate(10, Duration::from_millis(100)), Some(100));
        assert_eq!(rate(0, Duration::from_millis(100)), None);
        assert_eq!(rate(60, Duration::from_millis(100)), None);
    }

    #[test]
    fn stamps_survive_the_wrap_of_the_low_half() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let clock = Clock {
            hz: 250,
            anchor_jiffies: 1000,
            anchor: now,
            now_jiffies: (1 << 32) + 250,
            now,
        };
        assert_eq!(
            clock.recent((0u32).wrapping_sub(250)).unwrap().to_string(),
            "2026-11-24T11:59:58Z"
        );
        assert_eq!(clock.recent(0), None);
        // One tick ahead of the reading is now, not 198 days ago.
        assert_eq!(clock.recent(251), Some(now));
        assert_eq!(clock.fixed(1000 + 500).to_string(), "2026-11-24T12:00:02Z");
        assert_eq!(clock.fixed(750).to_string(), "2026-11-24T11:59:59Z");
    }
}
