//! What the witness concludes of source filters, against real sockets: every combination of up to three sockets on one
//! group and two sources. Needs root and iproute2.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pods_lab;
mod witness_lab;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mcstat::{agent::witness::Witness, api::stats::FilterMode, ledger::snapshot::SourceFilter};
use pods_lab::Lab;
use witness_lab::{Mcast, Socket, groups, ifindex, port, read};

/// What one socket wants: whether it excludes, and the sources it names, one bit each.
type Wish = (bool, usize);

/// RFC 9776 §3.2, from the sockets' wishes.
fn merged(wishes: &[Wish]) -> (bool, usize) {
    let of = |exclude| wishes.iter().filter(move |wish| wish.0 == exclude).map(|wish| wish.1);
    let wanted = of(false).fold(0, |all, sources| all | sources);
    match of(true).reduce(|all, sources| all & sources) {
        Some(unwanted) => (true, unwanted & !wanted),
        None => (false, wanted),
    }
}

/// What the kernel's tables can say of it: the users, and for each source how often it is included and excluded.
fn table(wishes: &[Wish]) -> Vec<usize> {
    let count = |exclude, bit: usize| {
        wishes
            .iter()
            .filter(|wish| wish.0 == exclude && wish.1 >> bit & 1 == 1)
            .count()
    };
    vec![
        wishes.len(),
        count(false, 0),
        count(true, 0),
        count(false, 1),
        count(true, 1),
    ]
}

fn combinations() -> Vec<Vec<Wish>> {
    let kinds = [
        (true, 0),
        (true, 1),
        (true, 2),
        (true, 3),
        (false, 1),
        (false, 2),
        (false, 3),
    ];
    let mut all = Vec::new();
    for (i, first) in kinds.iter().enumerate() {
        all.push(vec![*first]);
        for (j, second) in kinds.iter().enumerate().skip(i) {
            all.push(vec![*first, *second]);
            all.extend(kinds.iter().skip(j).map(|third| vec![*first, *second, *third]));
        }
    }
    all
}

fn open(namespace: &str, interface: u32, group: IpAddr, sources: [IpAddr; 2], wish: Wish) -> Socket {
    let socket = Socket::new(namespace, group);
    if wish.0 {
        socket.mcast(Mcast::JoinGroup, interface, &[group]);
    }
    let how = if wish.0 {
        Mcast::BlockSource
    } else {
        Mcast::JoinSourceGroup
    };
    for (_, source) in sources
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| wish.1 >> bit & 1 == 1)
    {
        socket.mcast(how, interface, &[group, source]);
    }
    socket
}

fn compare(tag: &str, group: &str, sources: [&str; 2]) {
    let group: IpAddr = group.parse().unwrap();
    let sources = sources.map(|source| source.parse::<IpAddr>().unwrap());
    let mut possible: BTreeMap<Vec<usize>, BTreeSet<(bool, usize)>> = BTreeMap::new();
    for wishes in combinations() {
        possible.entry(table(&wishes)).or_default().insert(merged(&wishes));
    }
    let lab = Lab::new(tag);
    lab.run(async || {
        lab.add_netns("pod");
        lab.add_veth("pod", "eth0", "va0", "10.0.0.1/24");
        let namespace = format!("{}pod", lab.prefix);
        let interface = ifindex(&lab, "pod", "eth0");
        let mut witness = Witness::open().unwrap();
        witness.follow(&[port(&lab, "pod", "va0", Some(&format!("/run/netns/{namespace}")))]);
        let (mut told, mut untold) = (0, 0);
        for wishes in combinations() {
            let sockets: Vec<Socket> = wishes
                .iter()
                .map(|wish| open(&namespace, interface, group, sources, *wish))
                .collect();
            let found = groups(&read(&mut witness, "pod"), "eth0");
            let [found] = found.as_slice() else {
                panic!("{wishes:?}: {found:?}");
            };
            assert_eq!((found.group, found.users as usize), (group, sockets.len()));
            let filters = possible.get(&table(&wishes)).unwrap();
            let proven = (filters.len() == 1).then(|| {
                let (exclude, bits) = merged(&wishes);
                let named = sources.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
                SourceFilter {
                    mode: if exclude {
                        FilterMode::Exclude
                    } else {
                        FilterMode::Include
                    },
                    sources: named.map(|(_, source)| source).collect(),
                }
            });
            assert_eq!(found.filter, proven, "{wishes:?} can be {filters:?}");
            match proven {
                Some(_) => told += 1,
                None => untold += 1,
            }
            for socket in &sockets {
                socket.mcast(Mcast::LeaveGroup, interface, &[group]);
            }
            assert_eq!(groups(&read(&mut witness, "pod"), "eth0"), []);
        }
        // 7 + 28 + 84 multisets of seven kinds.
        assert_eq!(told + untold, 119);
        println!("{group}: {told} told, {untold} not to be told");
        assert!(told > untold, "{told} {untold}");
    });
}

#[test]
fn ipv4_filters_are_told_exactly_where_the_tables_prove_them() {
    compare("wf4", "239.1.1.1", ["192.0.2.1", "192.0.2.2"]);
}

#[test]
fn ipv6_filters_are_told_exactly_where_the_tables_prove_them() {
    compare("wf6", "ff15::1", ["2001:db8::1", "2001:db8::2"]);
}
