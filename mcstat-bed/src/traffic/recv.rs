//! The receiver: one socket for each group, so that each count is that group's.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use super::{Count, interface_index, ipv4_address, set_option};
use crate::netns::Netns;

/// Large enough for a whole test at full speed: a receiver must not be the one that loses packets.
const RECEIVE_BUFFER: i32 = 64 << 20;
/// Linux: `IPV6_MULTICAST_ALL` (include/uapi/linux/in6.h), which libc does not define.
const IPV6_MULTICAST_ALL: i32 = 29;

/// A member of groups by sockets of its own, with a thread that reads each. Dropping it leaves the groups.
pub struct Receiver {
    groups: Vec<Group>,
    ending: Arc<AtomicBool>,
}

struct Group {
    group: IpAddr,
    count: Arc<Counter>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    fn get(&self) -> Count {
        Count::new(self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Receiver {
    /// Joins `groups` on `interface` of `netns`; they are joined when it returns.
    pub fn join(netns: &Netns, interface: &str, groups: &[IpAddr], port: u16) -> Result<Self> {
        netns.within(|| Self::here(interface, groups, port))
    }

    /// The same in the calling thread's network namespace.
    pub fn here(interface: &str, groups: &[IpAddr], port: u16) -> Result<Self> {
        let at = Interface::find(interface)?;
        let sockets: Result<Vec<UdpSocket>> = groups.iter().map(|group| join(&at, *group, port)).collect();
        let sockets = sockets?;
        let ending = Arc::new(AtomicBool::new(false));
        let start = |(group, socket): (&IpAddr, UdpSocket)| {
            let (group, count) = (*group, Arc::new(Counter::default()));
            let (counting, ended) = (Arc::clone(&count), Arc::clone(&ending));
            let thread = thread::spawn(move || {
                let counted = read(&socket, &counting, &ended);
                // By word and not by closing: a child that another thread starts now may hold a copy for a moment.
                leave(&socket, group, &at);
                counted
            });
            Group {
                group,
                count,
                thread: Some(thread),
            }
        };
        Ok(Self {
            groups: groups.iter().zip(sockets).map(start).collect(),
            ending,
        })
    }

    /// What each group's socket gave so far, bytes of payload.
    pub fn counts(&self) -> BTreeMap<IpAddr, Count> {
        self.groups.iter().map(|one| (one.group, one.count.get())).collect()
    }

    /// What one group's socket gave so far, bytes of payload; nothing of a group that was not joined.
    pub fn count(&self, group: IpAddr) -> Count {
        self.counts().get(&group).copied().unwrap_or_default()
    }

    /// Reads what is there, leaves the groups and returns the counts.
    pub fn finish(mut self) -> Result<BTreeMap<IpAddr, Count>> {
        self.end()?;
        Ok(self.counts())
    }

    fn end(&mut self) -> Result<()> {
        self.ending.store(true, Ordering::Relaxed);
        let ended = |group: &mut Group| match group.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(anyhow!("a receiver of {} panicked", group.group)),
            Some(Ok(result)) => result,
            None => Ok(()),
        };
        // All of them, before the first error is told.
        let ended: Vec<_> = self.groups.iter_mut().map(ended).collect();
        ended.into_iter().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // The error of a receiver that nobody asked for its counts is nobody's.
        let _ = self.end();
    }
}

/// The interface of a membership, as each family names it.
#[derive(Clone, Copy)]
struct Interface {
    index: u32,
    address: Ipv4Addr,
}

impl Interface {
    fn find(name: &str) -> Result<Self> {
        Ok(Self {
            index: interface_index(name)?,
            address: ipv4_address(name)?,
        })
    }
}

fn join(at: &Interface, group: IpAddr, port: u16) -> Result<UdpSocket> {
    // Bound to the group's address: other groups on the same port do not arrive here.
    let socket = UdpSocket::bind((group, port)).with_context(|| format!("cannot bind {group} port {port}"))?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    match group {
        IpAddr::V4(group) => {
            set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)?;
            socket.join_multicast_v4(&group, &at.address)
        }
        IpAddr::V6(group) => {
            set_option(&socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)?;
            socket.join_multicast_v6(&group, at.index)
        }
    }
    .with_context(|| format!("cannot join {group}"))?;
    Ok(socket)
}

/// Counts until `ending` is set and the socket is empty.
fn read(socket: &UdpSocket, count: &Counter, ending: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv(&mut buffer) {
            Ok(size) => {
                count.packets.fetch_add(1, Ordering::Relaxed);
                count.bytes.fetch_add(u64::try_from(size)?, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error).context("cannot receive"),
            Err(_) if ending.load(Ordering::Relaxed) => return Ok(()),
            Err(_) => {}
        }
    }
}

fn leave(socket: &UdpSocket, group: IpAddr, at: &Interface) {
    // Fails only when the interface is gone, and the membership with it.
    let _ = match group {
        IpAddr::V4(group) => socket.leave_multicast_v4(&group, &at.address),
        IpAddr::V6(group) => socket.leave_multicast_v6(&group, at.index),
    };
}
