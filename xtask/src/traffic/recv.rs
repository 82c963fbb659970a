//! The receiver: one socket for each group, so that each count is that group's.

use std::{
    io::{self, Read as _},
    net::{IpAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{PORT, interface_index, ipv4_address, multicast, set_option};

/// Large enough for a whole test at full speed: a receiver must not be the one that loses packets.
const RECEIVE_BUFFER: i32 = 64 << 20;
/// Linux: `IPV6_MULTICAST_ALL` (include/uapi/linux/in6.h), which libc does not define.
const IPV6_MULTICAST_ALL: i32 = 29;

/// What to join.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A group, IPv4 or IPv6; may be given more than once
    #[arg(long = "group", required = true, value_parser = multicast)]
    groups: Vec<IpAddr>,
    /// UDP port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// The interface to join on
    #[arg(long, default_value = "eth0")]
    interface: String,
}

/// Joins, counts until standard input ends, then prints `{"groups": {GROUP: {"packets": N, "bytes": N}}}`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let sockets: Vec<UdpSocket> = args
        .groups
        .iter()
        .map(|group| join(args, *group))
        .collect::<Result<_>>()?;
    println!("ready");
    let ending = AtomicBool::new(false);
    let counts: Vec<Result<Value>> = thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .iter()
            .map(|socket| scope.spawn(|| count(socket, &ending)))
            .collect();
        let ended = io::stdin()
            .read_to_end(&mut Vec::new())
            .context("cannot read standard input");
        ending.store(true, Ordering::Relaxed);
        let counted = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a receiver panicked")));
        counted
            .map(|count| ended.as_ref().map_err(|error| anyhow::anyhow!("{error:#}")).and(count))
            .collect()
    });
    let mut groups = Map::new();
    for (group, count) in args.groups.iter().zip(counts) {
        groups.insert(group.to_string(), count?);
    }
    println!("{}", json!({"groups": groups}));
    Ok(())
}

fn join(args: &Args, group: IpAddr) -> Result<UdpSocket> {
    // Bound to the group's address: other groups on the same port do not arrive here.
    let socket =
        UdpSocket::bind((group, args.port)).with_context(|| format!("cannot bind {group} port {}", args.port))?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    match group {
        IpAddr::V4(group) => {
            set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)?;
            socket.join_multicast_v4(&group, &ipv4_address(&args.interface)?)
        }
        IpAddr::V6(group) => {
            set_option(&socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)?;
            socket.join_multicast_v6(&group, interface_index(&args.interface)?)
        }
    }
    .with_context(|| format!("cannot join {group} on {}", args.interface))?;
    Ok(socket)
}

/// Counts until `ending` is set and the socket is empty.
fn count(socket: &UdpSocket, ending: &AtomicBool) -> Result<Value> {
    let mut buffer = vec![0; 65_536];
    let (mut packets, mut bytes) = (0u64, 0u64);
    loop {
        match socket.recv(&mut buffer) {
            Ok(size) => {
                packets += 1;
                bytes += u64::try_from(size)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error).context("cannot receive"),
            Err(_) if ending.load(Ordering::Relaxed) => return Ok(json!({"packets": packets, "bytes": bytes})),
            Err(_) => {}
        }
    }
}
