//! Senders and receivers of multicast: plain kernel sockets, run by the bed inside a Pod's network namespace. And a
//! querier, which the bed runs on the node.
//!
//! Sender and receiver print one line of JSON. They promise exact counts of what the socket took or gave, and nothing
//! about what was lost between.

mod query;
mod recv;
mod send;

use std::{
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context, Result, bail};
use nix::ifaddrs::getifaddrs;

/// The UDP port of both sides when none is given.
const PORT: u16 = 5001;

/// `cargo xtask traffic …`
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Send paced UDP to a group
    Send(send::Args),
    /// Join groups, print `ready`, count until standard input ends, print the counts
    Recv(recv::Args),
    /// Ask by IGMPv3 and MLDv2 who has joined what, until killed
    Query(query::Args),
}

/// Runs one of them.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Send(args) => send::run(args),
        Command::Recv(args) => recv::run(args),
        Command::Query(args) => query::run(args),
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
    let text = CString::new(name)?;
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("no interface {name} in this network namespace"));
    }
    Ok(index)
}

fn ipv4_address(interface: &str) -> Result<Ipv4Addr> {
    let addresses = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let mut ipv4 = addresses.filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()));
    ipv4.next().with_context(|| format!("{interface} has no IPv4 address"))
}

fn multicast(text: &str) -> Result<IpAddr> {
    let group: IpAddr = text.parse()?;
    if !group.is_multicast() {
        bail!("{group} is not a multicast address");
    }
    Ok(group)
}
