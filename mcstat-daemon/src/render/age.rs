//! Ages as kubectl prints them: `95s`, `5m10s`, `3h7m`, `12d`.
//!
//! The same steps as `HumanDuration` in Kubernetes' `k8s.io/apimachinery/pkg/util/duration`, so that LAST and SINCE
//! read like the AGE column beside them. Pure: both times are parameters.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The age at `now` of something that happened at `then`.
///
/// Up to two seconds in the future is `0s` (two clocks never agree better); further ahead is `<invalid>`, which says
/// that the clocks of node and server differ.
#[must_use]
pub fn since(then: Timestamp, now: Timestamp) -> String {
    human(now.duration_since(then).as_secs())
}

/// A duration of whole seconds in at most two units; the larger it is, the coarser.
#[must_use]
pub fn human(seconds: i64) -> String {
    let s = seconds;
    match s {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if s < 2 * MINUTE => format!("{s}s"),
        _ if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        _ if s < 3 * HOUR => format!("{}m", s / MINUTE),
        _ if s < 8 * HOUR => two(s / HOUR, "h", s / MINUTE % 60, "m"),
        _ if s < 2 * DAY => format!("{}h", s / HOUR),
        _ if s < 8 * DAY => two(s / DAY, "d", s / HOUR % 24, "h"),
        _ if s < 2 * YEAR => format!("{}d", s / DAY),
        _ if s < 8 * YEAR => two(s / YEAR, "y", s / DAY % 365, "d"),
        _ => format!("{}y", s / YEAR),
    }
}

/// Two units, the second only when it is not zero.
fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides of every boundary in `HumanDuration`, in seconds.
    #[test]
    fn steps_are_those_of_kubernetes() {
        let cases: &[(i64, &str)] = &[
            (-3600, "<invalid>"),
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (70, "70s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (599, "9m59s"),
            (600, "10m"),
            (70 * 60, "70m"),
            (179 * 60, "179m"),
            (180 * 60, "3h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (3 * 3600 + 65 * 60, "4h5m"),
            (8 * 3600 - 60, "7h59m"),
            (8 * 3600, "8h"),
            (2 * 86400, "2d"),
            (5 * 86400 + 2 * 3600, "5d2h"),
            (8 * 86400 - 3600, "7d23h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            (2 * 365 * 86400 + 10 * 86400, "2y10d"),
            (8 * 365 * 86400 - 86400, "7y364d"),
            (8 * 365 * 86400, "8y"),
            (9 * 365 * 86400 + 3 * 86400, "9y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(*seconds), *text, "{seconds} s");
        }
    }

    #[test]
    fn an_age_counts_from_then_to_now() {
        let then: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        assert_eq!(since(then, "2026-11-24T08:01:35.9Z".parse().unwrap()), "95s");
        assert_eq!(since(then, "2026-11-24T07:00:00Z".parse().unwrap()), "<invalid>");
    }
}
