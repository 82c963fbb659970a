//! `cargo xtask kernel-matrix`: the kernel tests on kernels that this machine does not run.
//!
//! It promises: Debian's own kernels, the very test binaries of `cargo test`, a row for each kernel and test, exit 0
//! only if every test passed on every kernel. A test that did not come to run is a failed one. It is no part of CI: an
//! interpreted machine is ten times slower, and the packages it needs are large.

mod debian;
mod guest;
mod report;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::{
    debian::{KERNELS, Kernel, Source},
    report::Row,
};
use crate::{
    bed::signal,
    command::{cargo, command, find, output, path, target_dir, workspace},
    setup::{self, apt::Package},
};

/// Options of `cargo xtask kernel-matrix`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernels to run, such as 6.1; all by default
    kernels: Vec<String>,
    /// Only these tests; all of the matrix by default
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
}

/// Test binaries of mcstat-daemon: those that rest on the kernel and need no compiler.
const TESTS: &[&str] = &[
    "kernel_structure",
    "kernel_count",
    "kernel_count_senders",
    "kernel_bad_input",
    "kernel_neighbours",
    "kernel_restart",
    "kernel_kill",
    "kernel_vanished",
    "kernel_spray",
    "kernel_policy",
    "kernel_policy_reports",
    "kernel_policy_restart",
    "kernel_settle",
    "kernel_race",
    "netns_source",
    "witness_filter",
    "witness_kernel",
    "ovs_kernel_datapath",
];
/// How the names of the tests begin that need TCX, and fail where there is none.
const ON_TCX: &str = "on_tcx";
/// Of kernel_race, in place of 1000: an interpreted machine is ten times slower.
const RACE_ROUNDS: u32 = 50;
/// The longest that one test may take in the guest.
const TEST_LIMIT: Duration = Duration::from_secs(600);
/// The longest that a kernel may take: firmware, boot and every test.
const KERNEL_LIMIT: Duration = Duration::from_secs(1800);

const PROGRAMS: [(&str, Package); 4] = [
    (
        "qemu-system-x86_64",
        Package {
            name: "qemu-system-x86",
            why: "runs the other kernels",
        },
    ),
    (
        "cpio",
        Package {
            name: "cpio",
            why: "packs the guest's first file system",
        },
    ),
    (
        "xz",
        Package {
            name: "xz-utils",
            why: "unpacks kernel modules",
        },
    ),
    (
        "modprobe",
        Package {
            name: "kmod",
            why: "knows which modules need which",
        },
    ),
];

/// What is missing of the packages that only this command needs.
fn missing() -> Vec<Package> {
    let absent = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let mut missing: Vec<Package> = absent.map(|(_, package)| Package { ..*package }).collect();
    // The first process of the guest finds no shared library.
    let linked = |path: PathBuf| output(command("ldd").arg(path)).is_ok_and(|libraries| libraries.contains("=>"));
    if find("busybox").is_none_or(linked) {
        missing.push(Package {
            name: "busybox-static",
            why: "the guest's first process",
        });
    }
    missing
}

/// `cargo xtask kernel-matrix`.
pub(crate) fn run(args: &Args) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the matrix runs on x86-64 only");
    }
    let kernels = choose("kernel", &args.kernels, KERNELS, |kernel: &Source| kernel.name)?;
    let tests: Vec<&str> = choose("test", &args.tests, TESTS, |test| test)?
        .into_iter()
        .copied()
        .collect();
    setup::ensure()?;
    setup::apt::ensure(missing)?;
    let binaries = binaries()?;
    signal::install()?;
    let mut rows = Vec::new();
    for source in kernels {
        rows.extend(run_kernel(source, &tests, &binaries)?);
    }
    println!("\n{}", report::table(&rows));
    let failed = rows.iter().filter(|row| !row.passed).count();
    if failed > 0 {
        bail!(
            "{failed} of {} failed; their output is under {}",
            rows.len(),
            matrix_dir().display()
        );
    }
    Ok(())
}

/// Those of `all` that are named, or all.
fn choose<'a, T>(what: &str, names: &[String], all: &'a [T], name: fn(&T) -> &'static str) -> Result<Vec<&'a T>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |wanted: &String| {
        let known = || all.iter().map(name).collect::<Vec<_>>().join(", ");
        let found = all.iter().find(|one| name(one) == wanted);
        found.with_context(|| format!("there is no {what} {wanted} in the matrix; there are {}", known()))
    };
    names.iter().map(find).collect()
}

fn matrix_dir() -> PathBuf {
    target_dir().join("kernel-matrix")
}

/// The test binaries of mcstat-daemon, built where they are not, by the names of their targets.
fn binaries() -> Result<BTreeMap<String, PathBuf>> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--locked", "--package=mcstat-daemon", "--tests"]);
    let messages = output(build.arg("--message-format=json-render-diagnostics"))?;
    Ok(messages.lines().filter_map(binary).collect())
}

/// The test binary that a line of cargo's JSON names.
fn binary(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let target = message.get("target")?;
    let test = target.get("kind")?.as_array()?.iter().any(|kind| kind == "test");
    let program = message.get("executable")?.as_str()?;
    test.then_some((target.get("name")?.as_str()?.to_owned(), PathBuf::from(program)))
}

fn run_kernel(source: &Source, tests: &[&str], binaries: &BTreeMap<String, PathBuf>) -> Result<Vec<Row>> {
    let kernel = debian::ensure(source)?;
    println!("kernel-matrix: {} under QEMU", kernel.release);
    let dir = matrix_dir().join(source.name);
    let share = dir.join("share");
    let _ = fs::remove_dir_all(&share);
    fs::create_dir_all(&share).with_context(|| format!("cannot make {}", share.display()))?;
    let initramfs = guest::initramfs(&kernel, include_str!("init.sh"), &dir)?;
    fs::write(share.join("run.sh"), include_str!("run.sh"))?;
    fs::write(share.join("environment"), environment(&kernel))?;
    fs::write(share.join("tests"), plan(source, tests, binaries)?)?;
    let mut said = 0;
    let booted = guest::boot(&kernel, &initramfs, &share, KERNEL_LIMIT, || {
        let rows = report::read(&kernel.release, tests, &share);
        let ran = || rows.iter().filter(|row| row.ran);
        ran().skip(said).for_each(|row| println!("{row}"));
        said = ran().count();
    });
    match booted {
        Err(error) if error.is::<signal::Interrupted>() => return Err(error),
        // What did not come to run has failed, and the other kernels are still to be run.
        Err(error) => println!("kernel-matrix: {}: {error:#}", kernel.release),
        Ok(()) => {}
    }
    Ok(report::read(&kernel.release, tests, &share))
}

/// What run.sh reads: a line for each test.
fn plan(source: &Source, tests: &[&str], binaries: &BTreeMap<String, PathBuf>) -> Result<String> {
    // What is ignored elsewhere wants a kernel module that Debian's kernels have.
    let arguments = if source.tcx {
        "--include-ignored".to_owned()
    } else {
        println!(
            "kernel-matrix: {} has no TCX; without the tests named {ON_TCX}…",
            source.name
        );
        format!("--include-ignored --skip {ON_TCX}")
    };
    let line = |name: &&str| {
        let program = binaries
            .get(*name)
            .with_context(|| format!("cargo built no test {name}"))?;
        let (limit, program) = (TEST_LIMIT.as_secs(), program.display());
        Ok(format!("{name}\t{limit}\t{program}\t{arguments}\n"))
    };
    tests.iter().map(line).collect()
}

/// Variables for run.sh and the tests.
fn environment(kernel: &Kernel) -> String {
    let quoted = |value: &Path| format!("'{}'", value.display().to_string().replace('\'', r"'\''"));
    format!(
        "RELEASE={}\nMODULES={}\nPACKAGE={}\nPATH={}\nexport MCSTAT_RACE_ROUNDS={RACE_ROUNDS}\n",
        kernel.release,
        quoted(&kernel.modules()),
        quoted(&workspace().join("mcstat-daemon")),
        quoted(Path::new(&path())),
    )
}

#[cfg(test)]
#[test]
fn only_binaries_of_integration_tests_are_taken_from_cargos_messages() {
    let line = |kind: &str, executable: &str| {
        format!(r#"{{"reason":"x","target":{{"kind":["{kind}"],"name":"kernel_count"}},"executable":{executable}}}"#)
    };
    let found = Some(("kernel_count".to_owned(), PathBuf::from("/t/kernel_count-1")));
    assert_eq!(binary(&line("test", r#""/t/kernel_count-1""#)), found);
    assert_eq!(binary(&line("lib", r#""/t/kernel_count-1""#)), None);
    assert_eq!(binary(&line("test", "null")), None);
    assert_eq!(binary("   Compiling mcstat"), None);
}
