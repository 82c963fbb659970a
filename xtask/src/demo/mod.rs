//! `cargo xtask demo`: mcstat on real multicast, end to end, with every number checked.
//!
//! A node with four Pods and a querier, a policy, one agent, one aggregator; senders and kernel receivers; then the tables of
//! Pods, groups and policies by kubectl, one Pod as JSON, the same numbers by bpftool, and ✓ or ✗ for each number, each
//! group's members, each rule and each STATUS that the traffic implies. It succeeds only if all hold.

mod check;
mod denied;
mod maps;
mod node;
mod plan;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::{
    node::Node,
    plan::{PODS, STREAMS, Stream},
};
use crate::{
    bed::{Bed, signal, traffic::recv::Receiver},
    setup, tasks,
};

/// The querier asks this often.
const QUERY_SECONDS: u8 = 2;

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave it running afterwards, until Ctrl-C, and print what to type
    #[arg(long)]
    keep: bool,
}

/// `cargo xtask demo`.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure()?;
    tasks::build()?;
    let start = Instant::now();
    let bed = bed()?;
    step("one mcstat agent, one mcstat aggregator");
    let mut node = Node::start(&bed)?;
    node.wait_for_pods(PODS.len())?;
    let receivers = traffic(&bed)?;
    let expected = plan::expected();
    let limit = Duration::from_secs(15);
    let pods = |list: &Value| {
        let lines = [
            check::check(&expected, list),
            denied::check(list),
            check::check_statuses(list),
        ];
        lines.concat()
    };
    let list = node.wait_for("podmulticaststats -A", limit, |list| hold(&pods(list)))?;
    let groups = node.wait_for("multicastgroups", limit, |list| hold(&check::check_groups(list)))?;
    let policies = node.wait_for("antreanetworkpolicystats -A", limit, |list| {
        hold(&denied::check_rules(list))
    })?;
    let wrong_maps = show(&bed, &node, &expected)?;
    // They were members until here.
    received(receivers)?;
    let lines = [
        pods(&list),
        check::check_groups(&groups),
        denied::check_rules(&policies),
    ]
    .concat();
    let wrong = wrong_maps + verdict(&lines);
    println!(
        "\n{} facts, {wrong} wrong, {:.1} s",
        lines.len(),
        start.elapsed().as_secs_f64()
    );
    if args.keep {
        println!(
            "\nIt keeps running. Type, in another terminal:\n{}\nCtrl-C here removes everything.",
            node.hints()
        );
        signal::wait_for_ever();
    }
    if wrong > 0 {
        bail!(
            "{wrong} of {} facts are not what was sent and joined; `cargo xtask demo --keep` leaves everything to look at",
            lines.len()
        );
    }
    Ok(())
}

fn hold(lines: &[check::Line]) -> bool {
    lines.iter().all(|line| line.holds)
}

/// `cargo xtask bed`: the same without mcstat, for whoever doubts the bed.
pub(crate) fn run_bed(args: &Args) -> Result<()> {
    let bed = bed()?;
    received(traffic(&bed)?)?;
    if args.keep {
        println!(
            "it keeps running as {}; Ctrl-C here removes everything",
            bed.node.name()
        );
        signal::wait_for_ever();
    }
    Ok(())
}

fn bed() -> Result<Bed> {
    step("a node with four Pods on an Open vSwitch bridge");
    let mut bed = Bed::up(&PODS)?;
    bed.start_querier(QUERY_SECONDS)?;
    for stream in &STREAMS {
        bed.forward(stream.group, stream.members)?;
    }
    denied::install(&bed)?;
    Ok(bed)
}

fn step(what: &str) {
    println!("\n== {what}");
}

/// Those that pass, and the one that is denied.
fn streams() -> impl Iterator<Item = &'static Stream> {
    STREAMS.iter().chain(std::iter::once(&denied::DENIED))
}

/// Runs all streams at once. The receivers, by name of their Pods, are still members when this returns.
fn traffic(bed: &Bed) -> Result<Vec<(&'static str, Receiver)>> {
    step("two seconds of multicast");
    let receivers = PODS.iter().filter_map(|(_, name)| {
        let joined = streams().filter(|stream| stream.members.contains(name));
        let groups: Vec<_> = joined.map(|stream| stream.group).collect();
        (!groups.is_empty()).then_some((*name, groups))
    });
    let receivers: Vec<_> = receivers
        .map(|(name, groups)| Ok((name, bed.pod(name)?.receive(&groups)?)))
        .collect::<Result<_>>()?;
    let send = |stream: &Stream| {
        let sender = bed.pod(stream.sender)?;
        Ok(sender.send(stream.group, stream.packets, stream.pps, stream.size))
    };
    let senders: Vec<_> = streams().map(send).collect::<Result<_>>()?;
    for (stream, sender) in streams().zip(senders) {
        let sent = sender.wait()?;
        println!(
            "{:<7} sent {sent:>4} to {:<12} members: {}",
            stream.sender,
            stream.group,
            stream.members.join(", ")
        );
        signal::check()?;
    }
    Ok(receivers)
}

/// Ends the receivers. One that lost something is an error of the bed, not of mcstat.
fn received(receivers: Vec<(&'static str, Receiver)>) -> Result<()> {
    for (name, receiver) in receivers {
        let report = receiver.finish()?;
        for stream in STREAMS.iter().filter(|stream| stream.members.contains(&name)) {
            let got = report.get(&stream.group).map(|count| count.packets);
            if got != Some(stream.packets) {
                let sent = stream.packets;
                bail!(
                    "{name}'s own socket got {got:?} of {sent} packets to {}: this machine is too busy; run it again",
                    stream.group
                );
            }
        }
    }
    Ok(())
}

/// What a user sees. Returns how many numbers are wrong in the kernel's maps.
fn show(bed: &Bed, node: &Node, expected: &[plan::Expected]) -> Result<usize> {
    for words in [
        "podmulticaststats -A",
        "podmulticaststats -A -o wide",
        "multicastgroups -o wide",
        "antreanetworkpolicystats -A",
    ] {
        step(&format!("{} get {words}", node.client_name()));
        print!("{}", node.client(&format!("get {words}"))?);
    }
    step(&format!(
        "{} get podmulticaststats -n mkt rec-0 -o json (its groups)",
        node.client_name()
    ));
    let pod: Value = serde_json::from_str(&node.client("get podmulticaststats -n mkt rec-0 -o json")?)
        .context("the answer is no JSON")?;
    println!("{}", serde_json::to_string_pretty(&pod["status"]["groups"])?);
    step("the kernel's own counters, by bpftool alone");
    let of_pod: Vec<_> = expected
        .iter()
        .filter(|expected| expected.pod == "rec-0")
        .copied()
        .collect();
    maps::show(bed, "rec-0", &of_pod)
}

/// Prints a mark for each fact and returns how many are wrong.
fn verdict(lines: &[check::Line]) -> usize {
    step("every fact against what was sent and joined");
    for line in lines {
        println!("{} {}", if line.holds { '✓' } else { '✗' }, line.text);
    }
    lines.iter().filter(|line| !line.holds).count()
}
