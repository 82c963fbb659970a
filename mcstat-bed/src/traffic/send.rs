//! The paced sender.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind};

use super::{Count, PORT, interface_index, ipv4_address, set_option};
use crate::{netns::Netns, signal};

/// A late sender makes up for at most this many packets at once: the switch's queues hold about 270 small ones.
const BURST: u32 = 16;

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The group, IPv4 or IPv6.
    pub group: IpAddr,
    /// UDP destination port.
    pub port: u16,
    /// The interface to send by.
    pub interface: String,
    /// The source address in place of the interface's own, IPv4 only: a forged one may be anything.
    pub source: Option<Ipv4Addr>,
    /// Datagrams.
    pub count: u64,
    /// Datagrams a second; 0 is as fast as it goes. Above 1,000 the userspace datapath loses packets unseen.
    pub pps: u32,
    /// Bytes of payload in each.
    pub size: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Let the kernel cut each into segments of this many bytes (`UDP_SEGMENT`).
    pub segment: Option<u16>,
}

impl Plan {
    /// `count` datagrams of `size` bytes by `eth0`, `pps` a second, TTL 8.
    pub fn new(group: IpAddr, count: u64, pps: u32, size: u32) -> Self {
        Self {
            group,
            port: PORT,
            interface: "eth0".to_owned(),
            source: None,
            count,
            pps,
            size,
            ttl: 8,
            segment: None,
        }
    }
}

/// Sends in the calling thread's network namespace until done or `stop` is set; what the socket took, bytes of payload.
pub fn send(plan: &Plan, stop: &AtomicBool) -> Result<Count> {
    let socket = socket(plan)?;
    let payload = vec![0x5a; usize::try_from(plan.size)?];
    let group = SocketAddr::new(plan.group, plan.port);
    let gap = Duration::from_secs(1).checked_div(plan.pps).unwrap_or_default();
    let mut due = Instant::now();
    let mut sent = Count::default();
    while sent.packets < plan.count && !stop.load(Ordering::Relaxed) {
        signal::check()?;
        let now = Instant::now();
        thread::sleep(due.saturating_duration_since(now));
        due = due.max(now.checked_sub(gap * BURST).unwrap_or(now)) + gap;
        while let Err(error) = socket.send_to(&payload, group) {
            // The queue of the device is full: the packet was not sent, and is sent again.
            if error.raw_os_error() != Some(libc::ENOBUFS) && error.kind() != io::ErrorKind::Interrupted {
                return Err(error).with_context(|| format!("cannot send datagram {} to {group}", sent.packets));
            }
        }
        sent.packets += 1;
        sent.bytes += u64::from(plan.size);
    }
    Ok(sent)
}

fn socket(plan: &Plan) -> Result<UdpSocket> {
    let ttl = i32::from(plan.ttl);
    let socket = if plan.group.is_ipv4() {
        // The source address decides the interface (no route to the group is needed).
        let socket = match plan.source {
            Some(source) => forged(source, &plan.interface)?,
            None => UdpSocket::bind((ipv4_address(&plan.interface)?, 0))?,
        };
        socket.set_multicast_ttl_v4(u32::from(plan.ttl))?;
        socket.set_multicast_loop_v4(false)?;
        socket
    } else {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        let index = interface_index(&plan.interface)?.cast_signed();
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, ttl)?;
        socket.set_multicast_loop_v6(false)?;
        socket
    };
    if let Some(segment) = plan.segment {
        set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(segment))?;
    }
    Ok(socket)
}

/// A socket that sends from an address which is not this namespace's (`IP_TRANSPARENT`).
fn forged(source: Ipv4Addr, interface: &str) -> Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    let socket = UdpSocket::from(fd);
    set_option(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1).context("a forged source needs CAP_NET_ADMIN")?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))
        .with_context(|| format!("cannot bind the forged source {source}"))?;
    let index = interface_index(interface)?.cast_signed();
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: index,
    };
    let size = libc::socklen_t::try_from(size_of_val(&request))?;
    let option = libc::IP_MULTICAST_IF;
    // SAFETY: the pointer and the size describe `request`, which outlives the call; the descriptor is open.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            (&raw const request).cast(),
            size,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error()).context("IP_MULTICAST_IF");
    }
    Ok(socket)
}

/// A running sender. Dropping it stops it.
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Count>>>,
}

impl Sender {
    /// Starts to send from `netns`.
    pub fn start(netns: &Netns, plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (netns, stopping) = (netns.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            netns.enter_here()?;
            send(&plan, &stopping)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Waits for the last packet and returns how many were sent.
    pub fn wait(mut self) -> Result<u64> {
        Ok(self.join()?.packets)
    }

    /// Ends it before its count is full, and returns how many were sent.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.wait()
    }

    fn join(&mut self) -> Result<Count> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(anyhow!("a sender panicked")),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.is_some() {
            // The error of a sender that nobody waited for is nobody's.
            let _ = self.join();
        }
    }
}
