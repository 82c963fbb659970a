//! Time, rounds and their statistics. Pure but for the clock.

use std::fs;

use nix::time::{ClockId, clock_gettime};

/// CPU time of this thread, in nanoseconds.
pub(crate) fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Wall time, in nanoseconds.
pub(crate) fn wall_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// The highest CPU this process may use: device interrupts are most often on the first.
pub(crate) fn last_cpu() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) - 1
}

/// The values of one candidate, round by round.
#[derive(Clone, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

/// Measures `count` candidates in every round, A B C … A B C …, each round beginning with another one.
pub(crate) fn interleave(rounds: usize, count: usize, mut measure: impl FnMut(usize) -> f64) -> Vec<Series> {
    let mut series = vec![Series::default(); count];
    for round in 0..rounds {
        for step in 0..count {
            let candidate = (round + step) % count;
            series[candidate].0.push(measure(candidate));
        }
    }
    series
}

impl Series {
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// Round by round with another series.
    pub(crate) fn paired(&self, other: &Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| with(*a, *b)).collect())
    }

    /// Median of the paired differences.
    pub(crate) fn above(&self, base: &Self) -> f64 {
        self.paired(base, |a, b| a - b).median()
    }

    /// `min–med–max`.
    pub(crate) fn spread(&self, digits: usize) -> String {
        let sorted = self.sorted();
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        format!("{min:.digits$}–{:.digits$}–{max:.digits$}", self.median())
    }
}

/// What the numbers were measured on, without naming it.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map_or("?", |(_, value)| value.trim())
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = release.split(['-', '\n']).next().unwrap_or_default();
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    format!(
        "machine: {}, family {} model {}, {} CPUs, {}, kernel {version}, bpf_jit_enable={}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        last_cpu() + 1,
        if cpuinfo.contains("hypervisor") {
            "virtual"
        } else {
            "bare metal"
        },
        jit.trim()
    )
}
