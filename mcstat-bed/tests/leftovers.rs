//! A bed that ends leaves nothing: no namespace, file, mount or process, after a panic too. Needs root and Open vSwitch.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{fs, panic, path::Path, thread};

use mcstat_bed::{Bed, pair::Pair};

/// Everything on this machine that carries the name `bed`: namespaces, files, mounts, command lines.
fn left_of(bed: &str) -> Vec<String> {
    let entries = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut found: Vec<String> = [Path::new("/run/netns"), &std::env::temp_dir()]
        .into_iter()
        .flat_map(entries)
        .map(|path| path.display().to_string())
        .collect();
    found.extend(fs::read_to_string("/proc/mounts").unwrap().lines().map(str::to_owned));
    let commands = entries(Path::new("/proc")).into_iter();
    let commands = commands.filter_map(|path| fs::read_to_string(path.join("cmdline")).ok());
    found.extend(commands.map(|command| command.replace('\0', " ")));
    found.retain(|text| text.contains(bed));
    found
}

fn name(bed: &Bed) -> String {
    bed.dir().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn nothing_is_left_after_a_drop() {
    let bed = Bed::up(&[("mkt", "a"), ("mkt", "b")]).unwrap();
    let name = name(&bed);
    // Two daemons, node and two Pods, a directory and its bpffs.
    assert!(left_of(&name).len() >= 7, "{:?}", left_of(&name));
    let pause = pids_of(&bed);
    drop(bed);
    assert_eq!(left_of(&name), Vec::<String>::new());
    assert!(
        pause.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()),
        "{pause:?}"
    );
}

/// The processes of the Pods, which have nobody's name in their command lines.
fn pids_of(bed: &Bed) -> Vec<String> {
    let pids = bed
        .pods
        .iter()
        .map(|pod| mcstat_bed::command::sh(&format!("ip netns pids {}", pod.netns.name())));
    let pids: Vec<String> = pids
        .flat_map(|pids| pids.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(pids.len(), bed.pods.len());
    pids
}

#[test]
fn nothing_is_left_after_a_panic_while_traffic_runs() {
    let pair = Pair::up(&[("mkt", "feed")], &[("mkt", "rec")]).unwrap();
    let names = [name(&pair.left), name(&pair.right)];
    let panicked = thread::spawn(move || {
        let group = "239.1.1.1".parse().unwrap();
        let _receiver = pair.right.pod("rec").unwrap().receive(&[group]).unwrap();
        let _sender = pair.left.pod("feed").unwrap().send(group, 1_000_000, 100, 100);
        panic::resume_unwind(Box::new("in the middle"));
    });
    assert!(panicked.join().is_err());
    for name in names {
        assert_eq!(left_of(&name), Vec::<String>::new());
    }
}

/// The thread that made a bed may end before it: its daemons live on.
#[test]
fn a_bed_outlives_the_thread_that_made_it() {
    let bed = thread::spawn(|| Bed::up(&[("mkt", "a")])).join().unwrap().unwrap();
    bed.ovs.revalidate().unwrap();
    assert_eq!(pids_of(&bed).len(), 1);
}
