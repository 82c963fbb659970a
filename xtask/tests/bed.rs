//! The demo's bed is what the demo's numbers stand on: it must deliver every packet, and leave nothing behind.
//!
//! Needs root and Open vSwitch (`cargo xtask setup`); without them these tests fail.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(args).stdout(Stdio::piped()).spawn().expect("xtask starts")
}

/// Reads standard output up to a line that begins with `start`.
fn read_until(output: &mut impl BufRead, start: &str) {
    let mut lines = output.lines().map(|line| line.expect("standard output is text"));
    assert!(
        lines.any(|line| line.starts_with(start)),
        "the bed ended without {start:?}; its reason stands above"
    );
}

/// Everything that carries the name of the bed of process `pid`: namespaces, files, mounts, processes in its directory.
fn left_of(pid: u32) -> Vec<String> {
    let name = format!("mcstat-{pid}");
    let entries = |dir: &Path| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let files = entries(Path::new("/run/netns")).chain(entries(&env::temp_dir()));
    let mut left: Vec<String> = files.map(|path| path.display().to_string()).collect();
    left.extend(
        fs::read_to_string("/proc/mounts")
            .expect("/proc is mounted")
            .lines()
            .map(str::to_owned),
    );
    let commands = entries(Path::new("/proc")).filter_map(|path| fs::read_to_string(path.join("cmdline")).ok());
    left.extend(commands.map(|command| command.replace('\0', " ")));
    left.retain(|text| {
        text.contains(&format!("{name}-")) || text.contains(&format!("{name}/")) || text.ends_with(&name)
    });
    left
}

#[test]
fn delivers_every_packet_and_leaves_nothing() {
    let mut child = start(&["bed"]);
    let pid = child.id();
    let mut said = String::new();
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("standard output is text");
    // `bed` itself compares what each receiver's sockets got with what was sent.
    assert!(child.wait().expect("a child can be waited for").success(), "{said}");
    assert!(said.contains("feed-0  sent  600 to 239.1.1.1"), "{said}");
    assert_eq!(left_of(pid), Vec::<String>::new());
}

#[test]
fn ctrl_c_in_the_middle_removes_everything() {
    let mut child = start(&["bed"]);
    let pid = child.id();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    read_until(&mut output, "== two seconds of multicast");
    assert!(left_of(pid).len() >= 5, "the bed was up: {:?}", left_of(pid));
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).expect("our child can be signalled");
    let status = child.wait().expect("a child can be waited for");
    assert_eq!(status.code(), Some(130));
    assert_eq!(left_of(pid), Vec::<String>::new());
}

#[test]
fn sigterm_while_kept_removes_everything() {
    let mut child = start(&["bed", "--keep"]);
    let pid = child.id();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    read_until(&mut output, "it keeps running");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("our child can be signalled");
    assert!(child.wait().expect("a child can be waited for").success());
    assert_eq!(left_of(pid), Vec::<String>::new());
}
