//! The second witness against real namespaces, processes and sockets: joins, filters, lost datagrams, and above all that
//! no Pod is given another one's tables. Needs root and iproute2.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "witness_kernel/drops.rs"]
mod drops;
#[path = "witness_kernel/identity.rs"]
mod identity;
mod pods_lab;
mod witness_lab;

use std::{collections::BTreeSet, net::IpAddr, ops::Range, time::Instant};

use mcstat::agent::witness::Witness;
use pods_lab::{Lab, sh};
use witness_lab::{Mcast, Process, Socket, groups, ifindex, pod_ref, port, read, shown};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A lab with Pods, each with eth0; their namespaces' names.
fn pods<const N: usize>(lab: &Lab, names: [&str; N]) -> [String; N] {
    for (number, name) in names.iter().enumerate() {
        lab.add_netns(name);
        lab.add_veth(name, "eth0", &format!("v{name}"), &format!("10.0.{number}.1/24"));
    }
    names.map(|name| format!("{}{name}", lab.prefix))
}

/// Joins, source changes and leaves, one reading after each. `path` is how to enter the namespace.
fn follow_one_pod(lab: &Lab, namespace: &str, path: Option<&str>) {
    let mut witness = Witness::open().unwrap();
    witness.follow(&[port(lab, "a", "va", path)]);
    let eth0 = ifindex(lab, "a", "eth0");
    let mut now = || shown(&groups(&read(&mut witness, "a"), "eth0"));
    assert_eq!(now(), [""; 0]);

    let (v4, v6) = (address("239.1.1.1"), address("ff05::1:3"));
    let first = Socket::new(namespace, v4);
    first.mcast(Mcast::JoinGroup, eth0, &[v4]);
    assert_eq!(now(), ["239.1.1.1×1 Exclude[]"]);
    let second = Socket::new(namespace, v4);
    second.mcast(Mcast::JoinGroup, eth0, &[v4]);
    let sixth = Socket::new(namespace, v6);
    sixth.mcast(Mcast::JoinGroup, eth0, &[v6]);
    assert_eq!(now(), ["239.1.1.1×2 Exclude[]", "ff05::1:3×1 Exclude[]"]);
    first.mcast(Mcast::LeaveGroup, eth0, &[v4]);
    assert_eq!(now(), ["239.1.1.1×1 Exclude[]", "ff05::1:3×1 Exclude[]"]);
    second.mcast(Mcast::LeaveGroup, eth0, &[v4]);
    sixth.mcast(Mcast::LeaveGroup, eth0, &[v6]);
    assert_eq!(now(), [""; 0]);

    let ssm = address("232.1.1.1");
    let (one, two) = (address("192.0.2.1"), address("192.0.2.2"));
    first.mcast(Mcast::JoinSourceGroup, eth0, &[ssm, two]);
    assert_eq!(now(), ["232.1.1.1×1 Include[192.0.2.2]"]);
    // The group table does not change now; the source table holds a line, so it is read.
    first.mcast(Mcast::JoinSourceGroup, eth0, &[ssm, one]);
    assert_eq!(now(), ["232.1.1.1×1 Include[192.0.2.1 192.0.2.2]"]);
    first.mcast(Mcast::LeaveGroup, eth0, &[ssm]);
    assert_eq!(now(), [""; 0]);
}

#[test]
fn a_pod_is_followed_through_one_of_its_processes() {
    let lab = Lab::new("wkp");
    lab.run(async || {
        let [a] = pods(&lab, ["a"]);
        let _process = Process::idle(&a);
        follow_one_pod(&lab, &a, None);
    });
}

#[test]
fn a_pod_without_processes_is_followed_by_entering_its_namespace() {
    let lab = Lab::new("wke");
    lab.run(async || {
        let [a] = pods(&lab, ["a"]);
        follow_one_pod(&lab, &a, Some(&format!("/run/netns/{a}")));
    });
}

/// A socket that joined without sources and blocks one later: nothing in the group table changes.
#[test]
fn a_blocked_source_is_seen_with_its_report_or_within_ten_ticks() {
    let lab = Lab::new("wkb");
    lab.run(async || {
        let [a] = pods(&lab, ["a"]);
        let _process = Process::idle(&a);
        let mut witness = Witness::open().unwrap();
        witness.follow(&[port(&lab, "a", "va", None)]);
        let (eth0, pod) = (ifindex(&lab, "a", "eth0"), pod_ref("a"));
        let reported = BTreeSet::from([&pod]);
        for (group, source) in [("239.1.1.1", "192.0.2.9"), ("ff05::1:3", "2001:db8::9")] {
            let (group, source) = (address(group), address(source));
            let socket = Socket::new(&a, group);
            socket.mcast(Mcast::JoinGroup, eth0, &[group]);
            assert_eq!(
                shown(&groups(&read(&mut witness, "a"), "eth0")),
                [format!("{group}×1 Exclude[]")]
            );
            socket.mcast(Mcast::BlockSource, eth0, &[group, source]);
            let readings = witness.read(&reported, Instant::now());
            assert_eq!(
                shown(&groups(&readings[0], "eth0")),
                [format!("{group}×1 Exclude[{source}]")]
            );
            socket.mcast(Mcast::LeaveGroup, eth0, &[group]);

            let socket = Socket::new(&a, group);
            socket.mcast(Mcast::JoinGroup, eth0, &[group]);
            assert_eq!(
                shown(&groups(&read(&mut witness, "a"), "eth0")),
                [format!("{group}×1 Exclude[]")]
            );
            socket.mcast(Mcast::BlockSource, eth0, &[group, source]);
            let last = (0..10).map(|_| read(&mut witness, "a")).last().unwrap();
            assert_eq!(shown(&groups(&last, "eth0")), [format!("{group}×1 Exclude[{source}]")]);
            socket.mcast(Mcast::LeaveGroup, eth0, &[group]);
            assert_eq!(groups(&read(&mut witness, "a"), "eth0"), []);
        }
    });
}

#[test]
fn each_interface_has_its_own_groups_and_version() {
    let lab = Lab::new("wki");
    lab.run(async || {
        let [a] = pods(&lab, ["a"]);
        // Fifteen bytes, the longest name there is; the source table cuts it after six.
        let long = "multicast-net-1";
        lab.add_veth("a", long, "vl", "10.0.9.1/24");
        sh(&format!(
            "ip netns exec {a} sysctl -qw net.ipv4.conf.eth0.force_igmp_version=2"
        ));
        let mut witness = Witness::open().unwrap();
        witness.follow(&[port(&lab, "a", "va", Some(&format!("/run/netns/{a}")))]);
        let group = address("232.1.1.1");
        let socket = Socket::new(&a, group);
        for (interface, source) in [("eth0", "192.0.2.1"), (long, "192.0.2.2")] {
            socket.mcast(
                Mcast::JoinSourceGroup,
                ifindex(&lab, "a", interface),
                &[group, address(source)],
            );
        }
        let reading = read(&mut witness, "a");
        assert_eq!(shown(&groups(&reading, "eth0")), ["232.1.1.1×1 Include[192.0.2.1]"]);
        assert_eq!(shown(&groups(&reading, long)), ["232.1.1.1×1 Include[192.0.2.2]"]);
        let versions: Vec<_> = reading
            .interfaces
            .iter()
            .map(|i| (i.name.as_str(), i.igmp_version))
            .collect();
        let (v2, v3) = (("eth0", Some(2)), (long, Some(3)));
        assert_eq!(
            versions.iter().filter(|(name, _)| *name != "lo").collect::<Vec<_>>(),
            [&v2, &v3]
        );
    });
}

/// What one Pod can cost is bounded; its neighbour is read all the same.
#[test]
fn a_pod_with_thousands_of_groups_is_not_read() {
    let lab = Lab::new("wkl");
    lab.run(async || {
        let [a, _] = pods(&lab, ["a", "b"]);
        sh(&format!(
            "ip netns exec {a} sysctl -qw net.ipv4.igmp_max_memberships=100"
        ));
        let mut witness = Witness::open().unwrap();
        let ports = ["a", "b"].map(|pod| {
            port(
                &lab,
                pod,
                &format!("v{pod}"),
                Some(&format!("/run/netns/{}{pod}", lab.prefix)),
            )
        });
        witness.follow(&ports);
        let eth0 = ifindex(&lab, "a", "eth0");
        // A socket has memory for some hundred memberships.
        let sockets: Vec<Socket> = (0..40).map(|_| Socket::new(&a, address("239.0.0.1"))).collect();
        let change = |what: Mcast, numbers: Range<u16>| {
            for number in numbers {
                let [high, low] = number.to_be_bytes();
                sockets[usize::from(number) / 100].mcast(what, eth0, &[[239, 1, high, low].into()]);
            }
        };
        change(Mcast::JoinGroup, 0..2000);
        assert_eq!(groups(&read(&mut witness, "a"), "eth0").len(), 2000);
        change(Mcast::JoinGroup, 2000..4000);
        let reading = read(&mut witness, "a");
        let found = (reading.unavailable.as_deref(), reading.interfaces.len());
        assert_eq!(found, (Some("TooLarge"), 0));
        assert_eq!(groups(&read(&mut witness, "b"), "eth0"), []);
        // Fewer again, and it is known again.
        change(Mcast::LeaveGroup, 1000..4000);
        assert_eq!(groups(&read(&mut witness, "a"), "eth0").len(), 1000);
    });
}
