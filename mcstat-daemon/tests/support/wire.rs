//! Real veths: a Pod's network namespace, packet sockets that send at full speed, a capture, and the device's own
//! numbers. The caller's thread is the host side; both namespaces go with the last descriptor or thread.

use std::{
    fs::File,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{ifindex, ip, run};

/// A network namespace without a name.
pub struct Netns {
    file: File,
}

impl Netns {
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("an own network namespace (CAP_SYS_ADMIN)");
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Self {
            file: thread::spawn(make).join().unwrap(),
        }
    }

    /// The one of this thread.
    pub fn current() -> Self {
        Self {
            file: File::open("/proc/thread-self/ns/net").unwrap(),
        }
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter the Pod's network namespace");
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Another handle of it.
    pub fn share(&self) -> Self {
        Self {
            file: self.file.try_clone().unwrap(),
        }
    }

    /// A name that `ip` understands.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// A Pod: `eth0` in a namespace of its own, `host` in the caller's.
pub struct Wire {
    pub pod: Netns,
    pub host: String,
    pub ifindex: u32,
}

impl Wire {
    /// A veth, both sides down, without IPv6 (so that the kernels at its ends send nothing of their own).
    pub fn new(host: &str) -> Self {
        Self::make(host, false)
    }

    /// A veth, both sides down; IPv6 is as the kernel makes it.
    pub fn with_ipv6(host: &str) -> Self {
        Self::make(host, true)
    }

    fn make(host: &str, ipv6: bool) -> Self {
        let pod = Netns::new();
        sysctl("net/ipv6/conf/default/disable_ipv6", u32::from(!ipv6));
        pod.run(|| {
            sysctl("net/ipv6/conf/default/disable_ipv6", u32::from(!ipv6));
            ip("link set lo up");
        });
        ip(&format!(
            "link add {host} type veth peer name eth0 netns {}",
            pod.path()
        ));
        Self {
            pod,
            host: host.to_owned(),
            ifindex: ifindex(host),
        }
    }

    /// Sets the MTU of both sides and brings them up.
    pub fn up(&self, mtu: u32) {
        ip(&format!("link set {} mtu {mtu} up", self.host));
        self.pod.run(|| ip(&format!("link set eth0 mtu {mtu} up")));
    }

    /// Packets and bytes that the host side received, and packets that were lost on the way there, as the device says.
    pub fn received(&self) -> (u64, u64, u64) {
        let (packets, bytes, _) = statistics(&self.host, "rx");
        let (_, _, dropped) = self.pod.run(|| statistics("eth0", "tx"));
        (packets, bytes, dropped)
    }

    /// Packets and bytes that the host side handed to the Pod, and what it could not, as the device says.
    pub fn transmitted(&self) -> (u64, u64, u64) {
        statistics(&self.host, "tx")
    }
}

/// Writes a setting of this thread's network namespace.
pub fn sysctl(name: &str, value: u32) {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value.to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Packets, bytes, drops of an interface of this thread's namespace, by netlink: /sys shows another one's.
fn statistics(interface: &str, way: &str) -> (u64, u64, u64) {
    let text = run("ip", &format!("-s -j link show dev {interface}"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of = |key: &str| json[0]["stats64"][way][key].as_u64().expect("a number from ip -s -j");
    (of("packets"), of("bytes"), of("dropped"))
}

/// A packet socket on an interface of this thread's namespace.
pub struct Sender {
    socket: OwnedFd,
}

fn packet_socket(interface: &str, protocol: u16, flags: libc::c_int) -> OwnedFd {
    let protocol = protocol.to_be();
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | flags, i32::from(protocol)) };
    assert!(fd >= 0, "a packet socket (CAP_NET_RAW): {}", io::Error::last_os_error());
    // SAFETY: a descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zero is a value of this plain struct.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = ifindex(interface) as i32;
    // SAFETY: a live address of the size named.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    assert_eq!(bound, 0, "bind to {interface}: {}", io::Error::last_os_error());
    socket
}

impl Sender {
    pub fn on(interface: &str) -> Self {
        Self {
            socket: packet_socket(interface, 0, 0),
        }
    }

    /// Sends `frames` one after the other, `times` times, as fast as sendmmsg(2) takes them. Returns packets and bytes.
    pub fn send<F: AsRef<[u8]>>(&self, frames: &[F], times: usize) -> (u64, u64) {
        let mut bytes = 0u64;
        let mut queue: Vec<&[u8]> = Vec::with_capacity(64);
        let total = frames.len() * times;
        for at in 0..total {
            let frame = frames[at % frames.len()].as_ref();
            bytes += frame.len() as u64;
            queue.push(frame);
            if queue.len() == 64 || at + 1 == total {
                self.batch(&queue);
                queue.clear();
            }
        }
        (total as u64, bytes)
    }

    /// Sends one frame; false when tc dropped it on the way out.
    pub fn passes(&self, frame: &[u8]) -> bool {
        // SAFETY: a live buffer of the length named.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        let error = io::Error::last_os_error();
        assert!(
            sent >= 0 || error.raw_os_error() == Some(libc::ENOBUFS),
            "send: {error}"
        );
        sent >= 0
    }

    fn batch(&self, frames: &[&[u8]]) {
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all zero is a value of this plain struct.
                let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut done = 0;
        while done < messages.len() {
            let rest = &mut messages[done..];
            // SAFETY: `rest` points to live vectors of the lengths they name.
            let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            assert!(sent > 0, "sendmmsg: {}", io::Error::last_os_error());
            done += sent as usize;
        }
    }
}

/// Sees every frame of an interface as the kernel does before tc; the judge of what a kernel host sent.
pub struct Capture {
    socket: OwnedFd,
}

/// A captured frame; the outer VLAN tag is not in it.
pub struct Seen {
    pub frame: Vec<u8>,
    /// The interface sent it; else it came in.
    pub outgoing: bool,
}

impl Capture {
    pub fn on(interface: &str) -> Self {
        let socket = packet_socket(interface, libc::ETH_P_ALL as u16, libc::SOCK_NONBLOCK);
        let bytes: libc::c_int = 16 << 20;
        // SAFETY: a live integer of the size named.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        assert_eq!(set, 0, "SO_RCVBUFFORCE: {}", io::Error::last_os_error());
        Self { socket }
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut buffer = vec![0u8; 65536];
        loop {
            // SAFETY: all zero is a value of this plain struct.
            let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
            let mut length = size_of::<libc::sockaddr_ll>() as u32;
            // SAFETY: live buffers of the lengths named.
            let got = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut address).cast(),
                    &raw mut length,
                )
            };
            if got < 0 {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "capture: {error}");
                return seen;
            }
            seen.push(Seen {
                frame: buffer[..got as usize].to_vec(),
                outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
            });
        }
    }
}

/// Asks until `ready` says so; panics with `what` after 20 s. For what a kernel does in its own time.
pub fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
