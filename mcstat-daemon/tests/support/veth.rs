//! A veth in this thread's network namespace: programs go on the host side, frames are sent from the other.

use std::{
    fs, io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use mcstat::agent::pods::PodPort;

/// A veth pair without IPv6, so that nothing passes but what the test sends.
pub struct Veth {
    pub host: String,
    pub pod: String,
}

impl Veth {
    pub fn new(host: &str) -> Self {
        let pod = format!("{host}p");
        super::ip(&format!("link add {host} type veth peer name {pod}"));
        for name in [host, &pod] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
            super::ip(&format!("link set {name} up"));
        }
        Self {
            host: host.to_owned(),
            pod,
        }
    }

    /// The Pod port of this veth.
    pub fn port(&self, name: &str) -> PodPort {
        super::pod_port(name, &self.host, super::ifindex(&self.host), &["10.0.0.2"])
    }

    /// Sends as the Pod does.
    pub fn pod_socket(&self) -> PacketSocket {
        PacketSocket::new(super::ifindex(&self.pod))
    }

    /// Sends to the Pod, as the switch does.
    pub fn host_socket(&self) -> PacketSocket {
        PacketSocket::new(super::ifindex(&self.host))
    }

    /// Packets and bytes that the host side received: what the device says, not what we hope.
    pub fn host_received(&self) -> (u64, u64) {
        let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{}:", self.host)))
            .unwrap();
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (numbers[1], numbers[0])
    }
}

/// A raw packet socket on one interface.
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    pub fn new(ifindex: u32) -> Self {
        // SAFETY: no pointers but to a live, zeroed sockaddr_ll.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "packet socket: {} (CAP_NET_RAW)", io::Error::last_os_error());
            let fd = OwnedFd::from_raw_fd(fd);
            let mut address: libc::sockaddr_ll = zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = ifindex as i32;
            let length = size_of::<libc::sockaddr_ll>() as u32;
            let bound = libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), length);
            assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
            Self { fd }
        }
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: a live buffer of that length.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "send: {}", io::Error::last_os_error());
    }
}
