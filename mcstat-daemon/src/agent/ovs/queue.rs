//! Packets that were lost in the queue before the switch: the drop counters of packet sockets, by interface.
//!
//! Open vSwitch's userspace datapath receives through one AF_PACKET socket an interface; when the switch is too slow, the
//! kernel drops there, and neither the interface nor the switch counts it (`ss -0 -m` shows it as `d`). Read by sock_diag
//! (include/uapi/linux/packet_diag.h) in the agent's own network namespace, without any privilege. A capture program that
//! loses packets on the same interface looks the same.

use std::{collections::BTreeMap, io, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `PACKET_SHOW_INFO | PACKET_SHOW_MEMINFO`.
const SHOW: u32 = 0x01 | 0x10;
const PACKET_DIAG_INFO: u16 = 0;
const PACKET_DIAG_MEMINFO: u16 = 6;
/// Place of the drop counter among the memory values (include/uapi/linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;
const HEADER: usize = 16;
/// `struct packet_diag_msg`.
const MESSAGE: usize = 16;

/// The drops of all packet sockets together, cumulative as long as each lives, by ifindex.
///
/// # Errors
/// What the kernel says; kernels without `CONFIG_PACKET_DIAG` say ENOENT.
pub(super) fn drops() -> io::Result<BTreeMap<u32, u64>> {
    let protocol = Some(SockProtocol::NetlinkSockDiag);
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    sendto(
        netlink.as_raw_fd(),
        &request(),
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let (mut drops, mut buffer) = (BTreeMap::new(), vec![0u8; 32 * 1024]);
    loop {
        let length = match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if !take(buffer.get(..length).unwrap_or_default(), &mut drops)? {
            return Ok(drops);
        }
    }
}

/// A dump of all packet sockets.
fn request() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + 20);
    out.extend_from_slice(&36u32.to_ne_bytes());
    out.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    // struct packet_diag_req: family, protocol, pad; inode; show; cookie.
    out.extend_from_slice(&[libc::AF_PACKET as u8, 0, 0, 0]);
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&SHOW.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out
}

/// Adds what one datagram of the answer holds; false after the last one.
fn take(mut datagram: &[u8], drops: &mut BTreeMap<u32, u64>) -> io::Result<bool> {
    while let Some(length) = u32_at(datagram, 0) {
        let length = length as usize;
        let Some(message) = datagram.get(..length).filter(|_| length >= HEADER) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match u16_at(message, 4) {
            Some(NLMSG_DONE) => return Ok(false),
            Some(NLMSG_ERROR) => {
                let errno = u32_at(message, HEADER).map_or(0, |errno| errno as i32);
                return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
            }
            Some(SOCK_DIAG_BY_FAMILY) => add(message.get(HEADER + MESSAGE..).unwrap_or_default(), drops),
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// One socket: its interface and its drops are two of its attributes.
fn add(mut attributes: &[u8], drops: &mut BTreeMap<u32, u64>) {
    let (mut ifindex, mut dropped) = (None, None);
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let Some(value) = attributes.get(4..length) else { return };
        match kind {
            PACKET_DIAG_INFO => ifindex = u32_at(value, 0),
            PACKET_DIAG_MEMINFO => dropped = u32_at(value, 4 * SK_MEMINFO_DROPS),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if let (Some(ifindex), Some(dropped)) = (ifindex.filter(|ifindex| *ifindex != 0), dropped) {
        *drops.entry(ifindex).or_default() += u64::from(dropped);
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One socket of a dump as Linux 6.18 gave it: interface 3, 1,532 drops; then the end.
    #[test]
    fn a_dump_is_read_to_its_end() {
        let attribute = |kind: u16, words: &[u32]| {
            let mut out = (4 + 4 * words.len() as u16).to_ne_bytes().to_vec();
            out.extend_from_slice(&kind.to_ne_bytes());
            words.iter().for_each(|word| out.extend_from_slice(&word.to_ne_bytes()));
            out
        };
        let message = |kind: u16, body: &[u8]| {
            let mut out = (HEADER as u32 + body.len() as u32).to_ne_bytes().to_vec();
            out.extend_from_slice(&kind.to_ne_bytes());
            out.extend_from_slice(&[0; 10]);
            out.extend_from_slice(body);
            out
        };
        let mut socket = vec![0; MESSAGE];
        socket.extend(attribute(PACKET_DIAG_INFO, &[3, 2, 0, 0, 0, 0]));
        socket.extend(attribute(
            PACKET_DIAG_MEMINFO,
            &[0, 212_992, 0, 212_992, 0, 0, 0, 0, 1532],
        ));
        let mut drops = BTreeMap::new();
        assert!(take(&message(SOCK_DIAG_BY_FAMILY, &socket), &mut drops).unwrap());
        assert!(!take(&message(NLMSG_DONE, &[0; 4]), &mut drops).unwrap());
        assert_eq!(drops, BTreeMap::from([(3, 1532)]));
        let refused = take(&message(NLMSG_ERROR, &(-2i32).to_ne_bytes()), &mut drops).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        for end in 0..socket.len() {
            let _ = take(&message(SOCK_DIAG_BY_FAMILY, socket.get(..end).unwrap()), &mut drops);
        }
        assert!(
            take(&[7, 0, 0, 0], &mut drops).is_err(),
            "a length below the header's makes no progress"
        );
    }

    /// A packet socket that is never read, with room for nothing: of 50 frames on loopback, each seen twice (sent and
    /// received), the kernel drops what does not fit, and says the same by PACKET_STATISTICS.
    #[test]
    fn drops_are_those_that_the_socket_itself_tells() {
        use nix::{
            sched::{CloneFlags, unshare},
            sys::socket::{setsockopt, sockopt::RcvBuf},
        };
        let check = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("an own network namespace (CAP_SYS_ADMIN): run the tests as root");
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap();
            assert!(up.success(), "ip link set lo up");
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::empty(),
                SockProtocol::EthAll,
            )
            .unwrap();
            setsockopt(&socket, RcvBuf, &0).unwrap();
            bind_to_loopback(&socket);
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..50 {
                sender.send_to(&[0; 1000], "127.0.0.1:9").unwrap();
            }
            let told = drops().unwrap();
            assert_eq!(told.get(&1).copied(), Some(own_statistics(&socket)), "{told:?}");
        };
        std::thread::spawn(check)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[expect(unsafe_code, reason = "nix has no way to bind a packet socket to an interface")]
    fn bind_to_loopback(socket: &std::os::fd::OwnedFd) {
        // SAFETY: a zeroed sockaddr_ll of the size given, filled with plain integers.
        unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            address.sll_ifindex = 1;
            let size = size_of::<libc::sockaddr_ll>() as u32;
            let bound = libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), size);
            assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        }
    }

    #[expect(unsafe_code, reason = "nix does not know PACKET_STATISTICS")]
    fn own_statistics(socket: &std::os::fd::OwnedFd) -> u64 {
        // struct tpacket_stats: packets, drops.
        let mut statistics = [0u32; 2];
        let mut size = size_of_val(&statistics) as u32;
        // SAFETY: the kernel writes at most `size` bytes to live integers.
        let result = unsafe {
            let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
            libc::getsockopt(
                socket.as_raw_fd(),
                level,
                name,
                statistics.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        let [_, dropped] = statistics;
        assert!(dropped > 0, "nothing was dropped: {statistics:?}");
        dropped.into()
    }
}
