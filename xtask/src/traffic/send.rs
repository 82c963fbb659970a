//! The paced sender.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{PORT, interface_index, ipv4_address, multicast, set_option};

/// What to send.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The group, IPv4 or IPv6
    #[arg(long, value_parser = multicast)]
    group: IpAddr,
    /// UDP destination port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// The interface to send by
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// Datagrams
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Datagrams a second; 0 is as fast as it goes
    #[arg(long, default_value_t = 500)]
    pps: u32,
    /// Bytes of payload in each
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// TTL or hop limit
    #[arg(long, default_value_t = 8)]
    ttl: u8,
    /// Let the kernel cut each into segments of this many bytes (`UDP_SEGMENT`)
    #[arg(long)]
    segment: Option<u16>,
}

/// Sends, then prints `{"packets": N, "bytes": N}`: datagrams that the socket took, and their payload.
pub(crate) fn run(args: &Args) -> Result<()> {
    let socket = socket(args)?;
    let payload = vec![0x5a; args.size];
    let group = SocketAddr::new(args.group, args.port);
    let gap = if args.pps == 0 {
        Duration::ZERO
    } else {
        Duration::from_secs(1) / args.pps
    };
    let start = Instant::now();
    for sent in 0..args.count {
        // Against the start and not the packet before: a late one does not slow the rest down.
        thread::sleep((gap * u32::try_from(sent)?).saturating_sub(start.elapsed()));
        while let Err(error) = socket.send_to(&payload, group) {
            // The queue of the device is full: the packet was not sent, and is sent again.
            if error.raw_os_error() != Some(libc::ENOBUFS) && error.kind() != io::ErrorKind::Interrupted {
                return Err(error).with_context(|| format!("cannot send datagram {sent} to {group}"));
            }
        }
    }
    let bytes = args.count * u64::try_from(args.size)?;
    println!(
        "{}",
        json!({"group": args.group, "packets": args.count, "bytes": bytes})
    );
    Ok(())
}

fn socket(args: &Args) -> Result<UdpSocket> {
    let ttl = i32::from(args.ttl);
    let socket = if args.group.is_ipv4() {
        // The source address decides the interface (no route to the group is needed).
        let socket = UdpSocket::bind((ipv4_address(&args.interface)?, 0))?;
        socket.set_multicast_ttl_v4(u32::from(args.ttl))?;
        socket.set_multicast_loop_v4(false)?;
        socket
    } else {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        let index = interface_index(&args.interface)?.cast_signed();
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, ttl)?;
        socket.set_multicast_loop_v6(false)?;
        socket
    };
    if let Some(segment) = args.segment {
        set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(segment))?;
    }
    Ok(socket)
}
