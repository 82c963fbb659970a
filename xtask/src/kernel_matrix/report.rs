//! What the guest wrote, as rows of a table: one for each kernel and test.
//!
//! The guest's word is the exit code; the numbers come from libtest's closing line. What has no line did not run.

use std::{fmt, fs, path::Path};

/// One test binary on one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    kernel: String,
    test: String,
    /// It ran to an end.
    pub(super) ran: bool,
    /// It ran, nothing failed, and something passed.
    pub(super) passed: bool,
    /// Test functions that passed and failed, by libtest's own account.
    counts: (u32, u32),
    tenths: u64,
    failures: Vec<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = self.counts;
        let word = match (self.ran, self.passed) {
            (_, true) => "passed",
            (true, false) => "FAILED",
            (false, _) => "NOT RUN",
        };
        write!(
            out,
            "{:<24} {:<22} {word:<8} {passed:>6} {failed:>6} {:>7}.{}",
            self.kernel,
            self.test,
            self.tenths / 10,
            self.tenths % 10
        )?;
        self.failures.iter().try_for_each(|name| write!(out, "\n    {name}"))
    }
}

/// All rows, with a head.
pub(super) fn table(rows: &[Row]) -> String {
    let head = format!(
        "{:<24} {:<22} {:<8} {:>6} {:>6} {:>9}\n",
        "KERNEL", "TEST", "RESULT", "OK", "FAILED", "SECONDS"
    );
    rows.iter().fold(head, |text, row| format!("{text}{row}\n"))
}

/// The rows of `tests` as far as the guest has come.
pub(super) fn read(kernel: &str, tests: &[&str], share: &Path) -> Vec<Row> {
    let results = fs::read_to_string(share.join("results")).unwrap_or_default();
    let row = |test: &&str| {
        let log = fs::read_to_string(share.join(format!("{test}.log"))).unwrap_or_default();
        row(kernel, test, &results, &log)
    };
    tests.iter().map(row).collect()
}

fn row(kernel: &str, test: &str, results: &str, log: &str) -> Row {
    // A line that is only half there, while the guest writes, is none.
    let line = results.split_inclusive('\n').find_map(|line| {
        let line = line.strip_suffix('\n')?;
        let (code, tenths) = line.strip_prefix(test)?.strip_prefix('\t')?.split_once('\t')?;
        Some((code.parse::<i32>().ok()?, tenths.parse().ok()?))
    });
    let counts = counts(log).unwrap_or_default();
    let failures = log
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    Row {
        kernel: kernel.to_owned(),
        test: test.to_owned(),
        ran: line.is_some(),
        passed: line.is_some_and(|(code, _)| code == 0) && counts.0 > 0 && counts.1 == 0,
        counts,
        tenths: line.map_or(0, |(_, tenths)| tenths),
        failures: failures.map(str::to_owned).collect(),
    }
}

/// Passed and failed, of `test result: ok. 6 passed; 0 failed; …`.
fn counts(log: &str) -> Option<(u32, u32)> {
    let line = log.lines().rev().find_map(|line| line.strip_prefix("test result: "))?;
    let number = |word: &str| {
        let before = line.split(';').find_map(|part| part.trim().strip_suffix(word))?;
        before.split_whitespace().last()?.parse().ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::{Row, row};

    const OK: &str = "running 6 tests\ntest one ... ok\n\n\
                      test result: ok. 6 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.45s\n";
    const BAD: &str = "running 2 tests\ntest one ... FAILED\ntest two ... ok\n\n\
                       test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2s\n";

    fn of(results: &str, log: &str) -> Row {
        row("6.1", "kernel_count", results, log)
    }

    #[test]
    fn a_test_passes_by_its_exit_code_and_its_own_account() {
        let passed = of("kernel_count_senders\t1\t5\nkernel_count\t0\t123\n", OK);
        assert!(passed.ran && passed.passed);
        assert_eq!((passed.counts, passed.tenths), ((6, 0), 123));
        let failed = of("kernel_count\t101\t5\n", BAD);
        assert!(failed.ran && !failed.passed);
        assert_eq!(failed.counts, (1, 1));
        assert_eq!(failed.failures, ["one"]);
    }

    #[test]
    fn what_did_not_run_to_an_end_or_ran_nothing_has_not_passed() {
        let none = OK.replace("6 passed", "0 passed");
        for (results, log, ran) in [
            ("", OK, false),
            ("kernel_count\t0\t12", OK, false),
            ("kernel_count_senders\t0\t5\n", OK, false),
            ("kernel_count\t124\t6000\n", "running 6 tests\n", true),
            ("kernel_count\t0\t5\n", none.as_str(), true),
            ("kernel_count\t137\t5\n", OK, true),
        ] {
            let row = of(results, log);
            assert_eq!((row.ran, row.passed), (ran, false), "{results:?}");
        }
    }
}
