//! The querier: general queries of IGMPv3 and MLDv2 as whole frames, by a packet socket.
//!
//! It always asks and never yields: the bed has no other one.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use super::interface_index;
use crate::netns::Netns;

/// Queries come from here: addresses that no Pod of the bed has.
const IPV4: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Robustness variable, in the low bits of its byte.
const ROBUSTNESS: u8 = 2;
/// Max Resp Time: half a second, in tenths (IGMP) and in milliseconds (MLD).
const RESPONSE_TENTHS: u8 = 5;
const RESPONSE_MILLISECONDS: u16 = 500;

/// A running querier. Dropping it stops it.
pub struct Querier {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Querier {
    /// Asks by `interface` of `netns` every so many seconds (below 128), and says so in its queries.
    pub fn start(netns: &Netns, interface: &str, every: u8) -> Result<Self> {
        let socket = netns.within(|| packet_socket(interface))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || ask(&socket, every, &stopping)));
        Ok(Self { stop, thread })
    }
}

impl Drop for Querier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The panic of a querier has been told where it happened.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn ask(socket: &OwnedFd, every: u8, stop: &AtomicBool) {
    // Turns of 10 ms, so that an end does not wait for the next question.
    let turns = usize::from(every.max(1)) * 100;
    for question in (0..turns).cycle().map(|turn| turn == 0) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for frame in question.then(|| [igmp(every), mld(every)]).into_iter().flatten() {
            // SAFETY: the pointer and the length are those of a live vector; the descriptor is open.
            let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            // Not sent while the switch is away, and its interface with it: there will be a next question.
            let _ = sent;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A packet socket that sends by this interface.
fn packet_socket(interface: &str) -> Result<OwnedFd> {
    let index = interface_index(interface)?;
    // SAFETY: the arguments are plain numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("a packet socket needs CAP_NET_RAW");
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zero is a value of this plain struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_ifindex = index.cast_signed();
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the pointer and the size describe `address`, which outlives the call; the descriptor is open.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if bound != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot bind to {interface}"));
    }
    Ok(socket)
}

fn ethernet(destination: [u8; 6], ethertype: u16) -> Vec<u8> {
    let source = [0x02, 0, 0, 0, 0, 0x01];
    [&destination[..], &source, &ethertype.to_be_bytes()].concat()
}

/// A general query of IGMPv3 (RFC 9776 §4.1) in IPv4 with router alert.
fn igmp(every: u8) -> Vec<u8> {
    let mut message = vec![0x11, RESPONSE_TENTHS, 0, 0, 0, 0, 0, 0, ROBUSTNESS, every, 0, 0];
    let sum = checksum(&message);
    message.splice(2..4, sum.to_be_bytes());
    // 24 bytes of header and 12 of message; TTL 1, protocol 2; router alert.
    let mut packet = vec![0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, 2, 0, 0];
    packet.extend(IPV4.octets());
    packet.extend(ALL_HOSTS.octets());
    packet.extend([148, 4, 0, 0]);
    let sum = checksum(&packet);
    packet.splice(10..12, sum.to_be_bytes());
    packet.extend(message);
    [ethernet([0x01, 0, 0x5e, 0, 0, 1], 0x0800), packet].concat()
}

/// A general query of MLDv2 (RFC 9777 §5.1) in IPv6 behind a hop-by-hop header with router alert.
fn mld(every: u8) -> Vec<u8> {
    let mut message = vec![130, 0, 0, 0];
    message.extend(RESPONSE_MILLISECONDS.to_be_bytes());
    message.extend([0; 2 + 16]);
    message.extend([ROBUSTNESS, every, 0, 0]);
    let addresses = [IPV6.octets(), ALL_NODES.octets()].concat();
    // The pseudo-header of RFC 8200 §8.1: addresses, length, next header.
    let sum = checksum(&[&addresses[..], &[0, 0, 0, 28, 0, 0, 0, 58], &message].concat());
    message.splice(2..4, sum.to_be_bytes());
    // 8 bytes of hop-by-hop and 28 of message; hop limit 1.
    let mut packet = vec![0x60, 0, 0, 0, 0, 36, 0, 1];
    packet.extend(addresses);
    packet.extend([58, 0, 5, 2, 0, 0, 1, 0]);
    packet.extend(message);
    [ethernet([0x33, 0x33, 0, 0, 0, 1], 0x86dd), packet].concat()
}

/// The checksum of RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::{checksum, igmp, mld};

    /// RFC 1071 §3: the sum over a message with its right checksum is all ones.
    #[test]
    fn checksums_are_right() {
        let igmp = igmp(2);
        assert_eq!(igmp.len(), 14 + 36);
        assert_eq!((checksum(&igmp[14..38]), checksum(&igmp[38..])), (0, 0));
        let mld = mld(2);
        assert_eq!(mld.len(), 14 + 40 + 36);
        let pseudo = [&mld[22..54], &[0, 0, 0, 28, 0, 0, 0, 58], &mld[62..]].concat();
        assert_eq!(checksum(&pseudo), 0);
    }
}
