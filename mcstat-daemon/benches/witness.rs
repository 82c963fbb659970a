//! What the second witness costs: `cargo bench -p mcstat-daemon --bench witness`. Needs root and iproute2.
//!
//! 100 Pods with 20 IPv4 and 20 IPv6 groups each are read for 200 ticks, through a process each and by entering them; then once more as hosts of versions
//! whose reports name no sources, whose source tables are read each tick.
//! Printed is CPU time, of user and kernel, for one Pod and tick; it is not judged.
#![allow(clippy::unwrap_used, missing_docs, reason = "bench")]

#[path = "../tests/pods_lab/mod.rs"]
mod pods_lab;
#[path = "../tests/witness_lab/mod.rs"]
mod witness_lab;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use mcstat::agent::{pods::PodPort, witness::Witness};
use nix::time::{ClockId, clock_gettime};
use pods_lab::Lab;
use witness_lab::{Mcast, Process, Socket, groups, ifindex, port};

const PODS: u32 = 100;
const GROUPS: u8 = 20;
const TICKS: u32 = 200;

fn join(lab: &Lab, pod: &str, family: impl Fn(u8) -> IpAddr) -> Socket {
    let socket = Socket::new(&format!("{}{pod}", lab.prefix), family(0));
    let eth0 = ifindex(lab, pod, "eth0");
    (0..GROUPS).for_each(|number| socket.mcast(Mcast::JoinGroup, eth0, &[family(number)]));
    socket
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

fn measure(what: &str, ports: &[PodPort], older: bool) {
    let mut witness = Witness::open().unwrap();
    witness.follow(ports);
    let reported: BTreeSet<_> = ports.iter().filter(|_| older).map(|port| &port.pod).collect();
    // The first reading searches and reads everything.
    witness.read(&reported, Instant::now());
    let before = cpu();
    for _ in 0..TICKS {
        let readings = witness.read(&reported, Instant::now());
        assert_eq!(readings.len(), PODS as usize);
        assert_eq!(groups(&readings[0], "eth0").len(), 2 * usize::from(GROUPS));
    }
    let each = (cpu() - before) / (TICKS * PODS);
    println!(
        "{what:<40} {:>6.1} µs a Pod and tick, {:>6.1} ms a tick of 500 Pods",
        each.as_nanos() as f64 / 1e3,
        each.as_nanos() as f64 / 2e3
    );
}

fn main() {
    let lab = Lab::new("wbench");
    lab.run(async || {
        let mut sockets = Vec::new();
        let names: Vec<String> = (0..PODS).map(|number| format!("p{number}")).collect();
        for name in &names {
            lab.add_netns(name);
            lab.add_veth(name, "eth0", &format!("v{name}"), "10.0.0.1/24");
            sockets.push(join(&lab, name, |number| IpAddr::from([239, 1, 1, number])));
            sockets.push(join(&lab, name, |number| {
                IpAddr::from([0xff05, 0, 0, 0, 0, 0, 1, number.into()])
            }));
        }
        let namespace = |name: &String| format!("{}{name}", lab.prefix);
        let ports = |path: bool| -> Vec<PodPort> {
            let of = |name: &String| {
                let path = path.then(|| format!("/run/netns/{}", namespace(name)));
                port(&lab, name, &format!("v{name}"), path.as_deref())
            };
            names.iter().map(of).collect()
        };
        measure("entered, no process visible", &ports(true), false);
        let _processes: Vec<Process> = names.iter().map(|name| Process::idle(&namespace(name))).collect();
        measure("through a process", &ports(false), false);
        measure("through a process, older versions", &ports(false), true);
    });
}
