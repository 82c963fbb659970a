//! Senders and receivers of multicast: plain kernel sockets in a network namespace. And a querier.
//!
//! Sender and receiver promise exact counts of what the socket took or gave, and nothing about what was lost between.

pub mod query;
pub mod recv;
pub mod send;

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context, Result};
use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};

/// The UDP port of both sides when none is given.
pub const PORT: u16 = 5001;

/// Packets and bytes. What the bytes are of (payload, frames) is said where the value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    /// This many packets and bytes.
    pub const fn new(packets: u64, bytes: u64) -> Self {
        Self { packets, bytes }
    }
}

/// Sets a socket option of type int that the standard library does not know.
fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) -> Result<()> {
    let size = libc::socklen_t::try_from(size_of::<i32>())?;
    // SAFETY: the pointer and the size describe `value`, which outlives the call; the descriptor is open.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if result != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("socket option {level}/{option} = {value}"));
    }
    Ok(())
}

fn interface_index(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("no interface {name} in this network namespace"))
}

fn ipv4_address(interface: &str) -> Result<Ipv4Addr> {
    let addresses = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let mut ipv4 = addresses.filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()));
    ipv4.next().with_context(|| format!("{interface} has no IPv4 address"))
}
