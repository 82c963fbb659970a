//! Datagrams lost in receive buffers: how many, and in which socket.

use std::{net::UdpSocket, os::fd::AsRawFd as _};

use mcstat::{agent::witness::Witness, ledger::snapshot::NamespaceReading};

use super::{Lab, address, pods, port, read, sh};
use crate::witness_lab::inside;

/// Room for a datagram or two: the kernel takes the least that it allows.
fn small(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    let size: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of a live variable.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Sends a thousand datagrams that nobody reads until afterwards; returns how many did not arrive.
fn flood(to: &UdpSocket) -> u64 {
    let target = to.local_addr().unwrap();
    let from = UdpSocket::bind((target.ip(), 0)).unwrap();
    for _ in 0..1000 {
        assert_eq!(from.send_to(&[0; 100], target).unwrap(), 100);
    }
    let mut buffer = [0; 200];
    let mut arrived = 0;
    while to.recv(&mut buffer).is_ok() {
        arrived += 1;
    }
    assert!(arrived < 1000, "the buffer took all");
    1000 - arrived
}

/// The last of ten readings: every table has had its turn.
fn ten(witness: &mut Witness) -> NamespaceReading {
    (0..10).map(|_| read(witness, "a")).last().unwrap()
}

fn losing(reading: &NamespaceReading) -> Vec<(String, u16, u64)> {
    let sockets = reading.losing_sockets.iter();
    sockets
        .map(|socket| (socket.address.to_string(), socket.port, socket.drops))
        .collect()
}

/// What an independent reader of the same files finds.
fn by_awk(namespace: &str) -> u64 {
    let sum = sh(&format!(
        "ip netns exec {namespace} awk '/^Udp: [0-9]/ {{n += $6}} /^Udp6RcvbufErrors/ {{n += $2}} END {{print n}}' \
         /proc/net/snmp /proc/net/snmp6"
    ));
    sum.parse().unwrap()
}

#[test]
fn lost_datagrams_are_counted_and_their_socket_is_named() {
    let lab = Lab::new("wkd");
    lab.run(async || {
        let [a] = pods(&lab, ["a"]);
        sh(&format!("ip -n {a} link set lo up"));
        let (old, new) = inside(&a, || (small("127.0.0.1:5000"), small("[::1]:5001")));
        // Lost before anybody looked: counted, but no socket loses now.
        let lost = inside(&a, || flood(&old));
        let mut witness = Witness::open().unwrap();
        witness.follow(&[port(&lab, "a", "va", Some(&format!("/run/netns/{a}")))]);
        let first = read(&mut witness, "a");
        assert_eq!((first.socket_drops, losing(&first)), (Some(lost), vec![]));

        let lost6 = inside(&a, || flood(&new));
        let reading = ten(&mut witness);
        assert_eq!(reading.socket_drops, Some(lost + lost6));
        assert_eq!(by_awk(&a), lost + lost6);
        assert_eq!(losing(&reading), [("::1".to_owned(), 5001, lost6)]);

        // Nothing lost since: the sum stands, nobody is named.
        let quiet = ten(&mut witness);
        assert_eq!((quiet.socket_drops, losing(&quiet)), (Some(lost + lost6), vec![]));

        let more = inside(&a, || flood(&old));
        let reading = ten(&mut witness);
        assert_eq!(reading.socket_drops, Some(lost + lost6 + more));
        assert_eq!(losing(&reading), [("127.0.0.1".to_owned(), 5000, lost + more)]);
    });
}

/// The receiver of the issue: multicast that a socket joined for and is too slow to read.
#[test]
fn multicast_that_a_slow_socket_loses_is_counted() {
    let lab = Lab::new("wkm");
    lab.run(async || {
        let [a] = pods(&lab, ["a"]);
        sh(&format!("ip -n {a} link set lo up"));
        let mut witness = Witness::open().unwrap();
        witness.follow(&[port(&lab, "a", "va", Some(&format!("/run/netns/{a}")))]);
        assert_eq!(read(&mut witness, "a").socket_drops, Some(0));
        let group = "239.7.7.7:7000";
        let (receivers, lost) = inside(&a, || {
            // Two sockets on one port, as two processes of a Pod would have: each loses its own copy.
            let receivers = [small(group), UdpSocket::bind("0.0.0.0:7001").unwrap()];
            let [slow, idle] = &receivers;
            slow.join_multicast_v4(&[239, 7, 7, 7].into(), &[10, 0, 0, 1].into())
                .unwrap();
            idle.join_multicast_v4(&[239, 7, 7, 8].into(), &[10, 0, 0, 1].into())
                .unwrap();
            let from = UdpSocket::bind("10.0.0.1:0").unwrap();
            for _ in 0..500 {
                from.send_to(&[0; 100], group).unwrap();
            }
            let mut buffer = [0; 200];
            let arrived = (0..500).take_while(|_| slow.recv(&mut buffer).is_ok()).count() as u64;
            (receivers, 500 - arrived)
        });
        let reading = ten(&mut witness);
        assert!(lost > 0);
        assert_eq!((reading.socket_drops, by_awk(&a)), (Some(lost), lost));
        let expected = (address("239.7.7.7").to_string(), 7000, lost);
        assert_eq!(losing(&reading), [expected]);
        drop(receivers);
    });
}
