//! Pods whose kernel can be asked: sockets and processes inside named network namespaces, and a witness beside them.
//!
//! Sockets are made by a thread that enters the namespace for it, so no process has to be there. Needs root and iproute2.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    process::{Child, Command},
    time::Instant,
};

use mcstat::{
    agent::{pods::PodPort, witness::Witness},
    ledger::snapshot::{KernelGroup, NamespaceReading, PodRef},
};

use crate::pods_lab::Lab;

/// `linux/in.h`; the same numbers for both families.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mcast {
    JoinGroup = 42,
    BlockSource = 43,
    LeaveGroup = 45,
    JoinSourceGroup = 46,
}

/// Runs on a thread inside a named namespace.
pub(crate) fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{name}")).expect("the namespace must be there");
    let enter = || {
        nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering a namespace needs root");
        work()
    };
    match std::thread::scope(|scope| scope.spawn(enter).join()) {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A UDP socket in a namespace. It keeps the namespace alive. Closing it is no way to leave a group: a child that another
/// test starts at that moment holds a copy until it has become its program.
pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    level: i32,
}

impl Socket {
    /// A socket of the group's family.
    pub(crate) fn new(namespace: &str, group: IpAddr) -> Self {
        let (family, level) = match group {
            IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_IP),
            IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_IPV6),
        };
        let fd = inside(namespace, || {
            // SAFETY: the arguments are plain numbers.
            let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
            assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
            // SAFETY: the descriptor is new and owned by nobody else.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        Self { fd, level }
    }

    /// Sets an option; the value is raw.
    pub(crate) fn set(&self, level: i32, option: i32, value: &[u8]) {
        // SAFETY: the pointer and the length are those of a live slice.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                value.as_ptr().cast(),
                value.len() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "option {option}: {}", io::Error::last_os_error());
    }

    /// `group_req` of interface and group, or `group_source_req` with a source too (RFC 3678 §5).
    pub(crate) fn mcast(&self, what: Mcast, ifindex: u32, addresses: &[IpAddr]) {
        // The address begins at eight bytes.
        let mut value = [ifindex.to_ne_bytes(), [0; 4]].concat();
        for address in addresses {
            let at = value.len();
            match address {
                IpAddr::V4(address) => {
                    value.extend((libc::AF_INET as u16).to_ne_bytes());
                    value.extend([0; 2]);
                    value.extend(address.octets());
                }
                IpAddr::V6(address) => {
                    value.extend((libc::AF_INET6 as u16).to_ne_bytes());
                    value.extend([0; 6]);
                    value.extend(address.octets());
                }
            }
            value.resize(at + size_of::<libc::sockaddr_storage>(), 0);
        }
        self.set(self.level, what as i32, &value);
    }
}

/// A process inside a namespace, ended on drop.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(namespace: &str, command: &mut Command) -> Self {
        Self(inside(namespace, || command.spawn().expect("the process must start")))
    }

    /// One that does nothing, as somebody else.
    pub(crate) fn idle(namespace: &str) -> Self {
        use std::os::unix::process::CommandExt as _;
        Self::start(namespace, Command::new("sleep").arg("600").uid(65534).gid(65534))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Pod port of the lab, its path left out where the namespace is to be found by its processes.
pub(crate) fn port(lab: &Lab, pod: &str, host: &str, path: Option<&str>) -> PodPort {
    PodPort {
        pod: pod_ref(pod),
        interface: "eth0".to_owned(),
        host_interface: host.to_owned(),
        ifindex: lab.ifindex(host),
        addresses: Vec::new(),
        ofport: None,
        netns: path.map(str::to_owned),
    }
}

pub(crate) fn pod_ref(name: &str) -> PodRef {
    PodRef {
        namespace: "lab".to_owned(),
        name: name.to_owned(),
        sandbox: format!("sandbox-{name}"),
    }
}

/// Index of an interface inside a Pod.
pub(crate) fn ifindex(lab: &Lab, pod: &str, interface: &str) -> u32 {
    inside(&format!("{}{pod}", lab.prefix), || {
        nix::net::if_::if_nametoindex(interface).expect("the interface must be there")
    })
}

/// One reading of one Pod, now.
pub(crate) fn read(witness: &mut Witness, pod: &str) -> NamespaceReading {
    read_at(witness, pod, Instant::now())
}

/// One reading of one Pod at a given time.
pub(crate) fn read_at(witness: &mut Witness, pod: &str, now: Instant) -> NamespaceReading {
    let readings = witness.read(&BTreeSet::new(), now);
    readings
        .into_iter()
        .find(|reading| reading.pod.name == pod)
        .unwrap_or_else(|| panic!("no reading of {pod}"))
}

/// Groups of an interface that a stack does not join by itself; those that it does are asserted to be there.
pub(crate) fn groups(reading: &NamespaceReading, interface: &str) -> Vec<KernelGroup> {
    assert_eq!(reading.unavailable, None);
    let found = reading.interfaces.iter().find(|found| found.name == interface);
    let found = found.unwrap_or_else(|| panic!("no {interface} in {reading:?}"));
    let own = |group: &IpAddr| match group {
        IpAddr::V4(group) => group.octets() == [224, 0, 0, 1],
        IpAddr::V6(group) => matches!(group.segments(), [0xff01 | 0xff02, ..]),
    };
    let (own, others): (Vec<_>, Vec<_>) = found.groups.iter().cloned().partition(|group| own(&group.group));
    let all_hosts = IpAddr::from([224, 0, 0, 1]);
    assert!(own.iter().any(|group| group.group == all_hosts), "{own:?}");
    others
}

/// `group×users MODE[sources]` of each group.
pub(crate) fn shown(groups: &[KernelGroup]) -> Vec<String> {
    let one = |group: &KernelGroup| {
        let filter = match &group.filter {
            Some(filter) => {
                let sources: Vec<String> = filter.sources.iter().map(ToString::to_string).collect();
                format!("{:?}[{}]", filter.mode, sources.join(" "))
            }
            None => "?".to_owned(),
        };
        format!("{}×{} {filter}", group.group, group.users)
    };
    groups.iter().map(one).collect()
}
