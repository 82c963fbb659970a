//! What reading a switch costs, next to `ovs-ofctl dump-flows` for the same tables: 500 Pods, then 20 groups of 500
//! members besides.
//!
//! Promises: all ways read the same flows and must count the same, else it panics; they take turns in every round. It
//! needs root and Open vSwitch, makes a network namespace and a switch of its own and leaves nothing behind. It does not
//! judge times: the reader does.
//!
//! `--quick` (or `MCSTAT_BENCH_QUICK=1`) runs three rounds: a check of the work, not of times.
#![allow(clippy::unwrap_used, reason = "as in tests: a broken run must end with what broke")]

#[path = "../../tests/pods_lab/mod.rs"]
mod pods_lab;
#[path = "../packet/stats.rs"]
#[expect(dead_code, reason = "the packet benchmark uses the rest")]
mod stats;
#[path = "../../tests/switch_lab/mod.rs"]
mod switch_lab;

use std::{env, fmt::Write as _, fs, process::Command};

use mcstat::{
    agent::ovs::{Ovs, Reading},
    ledger::switch::{Switch as Meaning, Table},
};
use stats::{Series, cpu_ns, wall_ns};
use switch_lab::Switch;
use tokio::runtime::Runtime;

const PODS: u32 = 500;
const GROUPS: u32 = 20;
/// Flows of a Pod-metric table that are no Pod's: IGMP and the table miss, and as many as a real one has besides.
const OTHERS: u32 = 5;
/// Numbers of the tables of counters; the pipeline begins at 32.
const EGRESS: u32 = 34;
const INGRESS: u32 = 38;
/// The ways compared.
const OURS: &str = "kept connection, decoded";
const NO_NAMES: &str = "ovs-ofctl --no-names";
const NAMES: &str = "ovs-ofctl --names, as antrea-agent";

fn main() {
    let quick = env::args().any(|argument| argument == "--quick")
        || env::var_os("MCSTAT_BENCH_QUICK").is_some_and(|set| set == "1");
    let rounds = if quick { 3 } else { 41 };
    println!("{}", stats::machine());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let switch = Switch::new("b");
    switch.vsctl("set bridge br-int protocols=OpenFlow10,OpenFlow15");
    counters_only(&switch, &runtime, rounds);
    everything(&switch, &runtime, rounds);
}

/// Two tables of 505 flows, by the reader and by `ovs-ofctl`.
fn counters_only(switch: &Switch, runtime: &Runtime, rounds: usize) {
    switch.vsctl(&format!(
        "-- --id=@a create Flow_Table name={} -- --id=@b create Flow_Table name={} -- \
         set bridge br-int flow_tables:{EGRESS}=@a flow_tables:{INGRESS}=@b",
        Table::EgressPodMetric.name(),
        Table::IngressPodMetric.name()
    ));
    switch.ofctl_with("--bundle add-flows", &counters());
    let mut ovs = Ovs::new(switch.run_dir(), "br-int");
    // Connected and named.
    read(runtime, &mut ovs);
    let flows = PODS + OTHERS;
    println!("\n## Two tables of {flows} flows (ms, min–med–max of {rounds} rounds)\n");
    println!("| way | wall | CPU of the reader | CPU of the switch |");
    println!("|---|---:|---:|---:|");
    let mut ways: [(&str, [Series; 3]); 3] = [
        (OURS, Default::default()),
        (NO_NAMES, Default::default()),
        (NAMES, Default::default()),
    ];
    for _ in 0..rounds {
        for (way, series) in &mut ways {
            let (cpu, switch_cpu, wall) = (reader_ns(), switch_ns(switch), wall_ns());
            let lines = match *way {
                NO_NAMES => dump(switch, "--no-names"),
                NAMES => dump(switch, "--names"),
                _ => {
                    let description = read(runtime, &mut ovs).description;
                    description.tables.values().map(Vec::len).sum()
                }
            };
            let spent = [wall_ns() - wall, reader_ns() - cpu, switch_ns(switch) - switch_cpu];
            assert_eq!(lines, 2 * flows as usize, "{way}");
            for (series, nanos) in series.iter_mut().zip(spent) {
                series.0.push(nanos as f64 / 1e6);
            }
        }
    }
    for (way, [wall, cpu, switch]) in &ways {
        println!(
            "| {way} | {} | {} | {} |",
            wall.spread(2),
            cpu.spread(2),
            switch.spread(2)
        );
    }
    let ours = ways[0].1[0].median();
    for (way, [wall, ..]) in &ways[1..] {
        println!("\n{way} takes {:.0} times as long.", wall.median() / ours);
    }
}

/// All seven tables, with 20 groups of 500 members.
fn everything(switch: &Switch, runtime: &Runtime, rounds: usize) {
    switch_lab::pipeline::name(switch, 32);
    let (mut groups, mut routes) = (String::new(), String::new());
    for group in 0..GROUPS {
        write!(groups, "group_id={},type=all", group + 1).unwrap();
        for port in 1..=PODS {
            write!(
                groups,
                ",bucket=bucket_id:{port},actions=set_field:0x200000/0x600000->reg0,set_field:{port}->reg1,resubmit(,36)"
            )
            .unwrap();
        }
        groups.push('\n');
        writeln!(
            routes,
            "cookie=0x1050000000000,table=35,priority=200,ip,nw_dst=239.1.1.{},actions=group:{}",
            group + 1,
            group + 1
        )
        .unwrap();
    }
    switch.ofctl_with("add-groups", &groups);
    switch.ofctl_with("--bundle add-flows", &routes);
    let mut ovs = Ovs::new(switch.run_dir(), "br-int");
    read(runtime, &mut ovs);
    let mut series: [Series; 4] = Default::default();
    for _ in 0..rounds {
        let (switch_cpu, cpu, wall) = (switch_ns(switch), cpu_ns(), wall_ns());
        let reading = read(runtime, &mut ovs);
        let (wall, read) = (wall_ns() - wall, cpu_ns());
        let meaning = Meaning::new(&reading.description);
        let understood = cpu_ns() - read;
        let spent = [wall, read - cpu, switch_ns(switch) - switch_cpu, understood];
        let members: usize = meaning
            .groups
            .iter()
            .flat_map(|group| &group.members)
            .map(Vec::len)
            .sum();
        assert_eq!(members, (GROUPS * PODS) as usize);
        assert_eq!(meaning.outbound.map(|pods| pods.len()), Some(PODS as usize));
        for (series, nanos) in series.iter_mut().zip(spent) {
            series.0.push(nanos as f64 / 1e6);
        }
    }
    println!("\n## {PODS} Pods in {GROUPS} groups, all tables (ms, min–med–max of {rounds} readings)\n");
    println!("| part | ms |");
    println!("|---|---:|");
    let parts = [
        "wall",
        "CPU of the reader",
        "CPU of the switch",
        "CPU of making sense of it",
    ];
    for (part, series) in parts.iter().zip(series) {
        println!("| {part} | {} |", series.spread(2));
    }
}

/// The flows of the two tables.
fn counters() -> String {
    let mut flows = String::new();
    for pod in 0..PODS {
        let (high, low) = (pod / 250, pod % 250 + 1);
        writeln!(
            flows,
            "cookie=0x1050000000000,table={EGRESS},priority=200,ip,nw_src=10.10.{high}.{low},actions=goto_table:35\n\
             cookie=0x1050000000000,table={INGRESS},priority=200,ip,reg1={},actions=goto_table:39",
            pod + 1
        )
        .unwrap();
    }
    for (table, next) in [(EGRESS, 35), (INGRESS, 39)] {
        for other in 0..OTHERS {
            writeln!(
                flows,
                "cookie=0x1050000000000,table={table},priority={},ip,nw_proto=2,actions=goto_table:{next}",
                210 + other
            )
            .unwrap();
        }
    }
    flows
}

fn read(runtime: &Runtime, ovs: &mut Ovs) -> Reading {
    runtime.block_on(ovs.read()).unwrap()
}

/// Flows that `ovs-ofctl` prints of both tables, run as antrea-agent runs it: by a shell, with names.
fn dump(switch: &Switch, names: &str) -> usize {
    let mut flows = 0;
    for table in [EGRESS, INGRESS] {
        let filter = format!("table={table},cookie=0x1050000000000/0xffffffffffffffff");
        let output = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("ovs-ofctl -O OpenFlow15 dump-flows br-int {filter} {names}"))
            .env("OVS_RUNDIR", switch.run_dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        flows += text.lines().filter(|line| line.contains("n_packets=")).count();
    }
    flows
}

/// CPU time of this thread and of the children it has waited for, in nanoseconds.
fn reader_ns() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    cpu_ns() + (micros(usage.user_time()) + micros(usage.system_time())) * 1000
}

/// CPU time of the switch's main thread, which answers on the management socket, in nanoseconds.
fn switch_ns(switch: &Switch) -> u64 {
    let pid = switch.switch.as_ref().unwrap().id();
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}
