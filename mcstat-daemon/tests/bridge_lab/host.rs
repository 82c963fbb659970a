//! A host behind a port: its kernel forced to a version, its sockets and what each of them wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use mcstat::{api::stats::FilterMode, ledger::snapshot::SourceFilter};

use crate::support::{
    Random, ifindex, ip,
    wire::{Netns, sysctl},
};

/// What a host is forced to speak.
#[derive(Debug, Clone, Copy)]
pub struct Versions {
    pub igmp: u8,
    pub mld: u8,
}

/// Sockets of each family of one host: enough that their wishes are merged.
const SOCKETS: u64 = 2;

pub struct Host {
    pub netns: Netns,
    pub versions: Versions,
    address: Ipv4Addr,
    ifindex: u32,
    sockets: Vec<Socket>,
}

struct Socket {
    fd: OwnedFd,
    ipv4: bool,
    wishes: BTreeMap<IpAddr, Wish>,
}

/// What one socket wants of one group.
pub type Wish = (FilterMode, BTreeSet<IpAddr>);

/// RFC 9776 §3.2, which holds of the sockets of a host and, once all timers have run out, of the hosts behind a port.
pub fn merged<'a>(wishes: impl Iterator<Item = &'a Wish> + Clone) -> Option<Wish> {
    let of = |mode| {
        wishes
            .clone()
            .filter(move |wish| wish.0 == mode)
            .map(|wish| wish.1.clone())
    };
    let wanted: BTreeSet<IpAddr> = of(FilterMode::Include).flatten().collect();
    match of(FilterMode::Exclude).reduce(|all, sources| &all & &sources) {
        Some(unwanted) => Some((FilterMode::Exclude, &unwanted - &wanted)),
        None => (!wanted.is_empty()).then_some((FilterMode::Include, wanted)),
    }
}

impl Host {
    /// A host on `eth0` of a namespace that is not up yet.
    pub fn new(netns: Netns, versions: Versions, address: [u8; 4]) -> Self {
        let (ifindex, sockets) = netns.run(|| {
            for (name, value) in [
                ("ipv4/conf/eth0/force_igmp_version", versions.igmp.into()),
                ("ipv6/conf/eth0/force_mld_version", versions.mld.into()),
                // Every report is sent robustness times; here within milliseconds, not within 1 or 10 s.
                ("ipv4/conf/eth0/igmpv2_unsolicited_report_interval", 10),
                ("ipv4/conf/eth0/igmpv3_unsolicited_report_interval", 10),
                ("ipv6/conf/eth0/mldv1_unsolicited_report_interval", 10),
                ("ipv6/conf/eth0/mldv2_unsolicited_report_interval", 10),
            ] {
                sysctl(&format!("net/{name}"), value);
            }
            let sockets = [true, false]
                .into_iter()
                .flat_map(|ipv4| (0..SOCKETS).map(move |_| Socket::new(ipv4)));
            (ifindex("eth0"), sockets.collect())
        });
        Self {
            netns,
            versions,
            address: address.into(),
            ifindex,
            sockets,
        }
    }

    /// Brings it up with an IPv4 address.
    pub fn up(&self) {
        self.netns.run(|| {
            ip(&format!("address add {}/24 dev eth0", self.address));
            ip("link set eth0 up");
        });
    }

    /// What its interface wants of a group by its sockets, and what its version can say of it.
    pub fn wants(&self, group: IpAddr) -> Option<Wish> {
        let wishes = self.sockets.iter().filter_map(|socket| socket.wishes.get(&group));
        let newest = if group.is_ipv4() {
            self.versions.igmp == 3
        } else {
            self.versions.mld == 2
        };
        let wish = merged(wishes);
        // Older versions know groups and no sources.
        if newest {
            wish
        } else {
            wish.map(|_| (FilterMode::Exclude, BTreeSet::new()))
        }
    }

    /// Takes back every wish of every socket.
    pub fn leave_everything(&mut self) {
        for socket in &mut self.sockets {
            for (group, _) in std::mem::take(&mut socket.wishes) {
                socket.request(MCAST_LEAVE_GROUP, self.ifindex, &[group]);
            }
        }
    }

    /// Changes one wish of one socket; says what was done.
    pub fn step(&mut self, random: &mut Random, groups: &[IpAddr], sources: &[IpAddr]) -> String {
        let group = groups[random.below(groups.len() as u64) as usize];
        let of_family: Vec<usize> = (0..self.sockets.len())
            .filter(|index| self.sockets[*index].ipv4 == group.is_ipv4())
            .collect();
        let number = of_family[random.below(SOCKETS) as usize];
        let subset = |random: &mut Random| {
            let bits = random.below(1 << sources.len());
            let named = |index: &usize| bits >> index & 1 == 1;
            let family = |source: &&IpAddr| source.is_ipv4() == group.is_ipv4();
            let own: Vec<&IpAddr> = sources.iter().filter(family).collect();
            (0..own.len())
                .filter(named)
                .map(|index| *own[index])
                .collect::<BTreeSet<_>>()
        };
        let include = random.below(2) == 0;
        let mut named = subset(random);
        if include && named.is_empty() {
            named.extend(sources.iter().find(|source| source.is_ipv4() == group.is_ipv4()));
        }
        let wish = (
            if include {
                FilterMode::Include
            } else {
                FilterMode::Exclude
            },
            named,
        );
        let leaves = random.below(3) == 0;
        let socket = &mut self.sockets[number];
        let done = socket.change(self.ifindex, group, (!leaves).then_some(wish), random);
        format!("socket {number}: {done}")
    }
}

/// `linux/in.h`; the same numbers for both families.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_LEAVE_GROUP: i32 = 45;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
const MCAST_MSFILTER: i32 = 48;

impl Socket {
    fn new(ipv4: bool) -> Self {
        let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: the arguments are plain numbers.
        let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        Self {
            // SAFETY: the descriptor is new and owned by nobody else.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            ipv4,
            wishes: BTreeMap::new(),
        }
    }

    /// Brings the socket's wish of a group from what it is to `wanted`: by the option that does it in one call where there
    /// is one, and by MCAST_MSFILTER.
    fn change(&mut self, ifindex: u32, group: IpAddr, wanted: Option<Wish>, random: &mut Random) -> String {
        use FilterMode::{Exclude, Include};
        let known = self.wishes.get(&group).cloned();
        let wanted = match (&known, wanted) {
            (None, None) => Some((Exclude, BTreeSet::new())),
            (Some(_), None) => None,
            // Now and then one source more or less, where the mode stays.
            (Some((mode, sources)), Some((other, named))) if mode == &other && random.below(2) == 0 => {
                let one = named.first().or(sources.first()).copied();
                let mut sources = sources.clone();
                if let Some(one) = one
                    && !sources.remove(&one)
                {
                    sources.insert(one);
                }
                Some((other, sources)).filter(|(mode, sources)| *mode == Exclude || !sources.is_empty())
            }
            (_, wanted) => wanted,
        };
        match (&known, &wanted) {
            (None, None) => {}
            (Some(_), None) => self.request(MCAST_LEAVE_GROUP, ifindex, &[group]),
            (None, Some((Exclude, sources))) => {
                self.request(MCAST_JOIN_GROUP, ifindex, &[group]);
                for source in sources {
                    self.request(MCAST_BLOCK_SOURCE, ifindex, &[group, *source]);
                }
            }
            (None, Some((Include, sources))) => {
                for source in sources {
                    self.request(MCAST_JOIN_SOURCE_GROUP, ifindex, &[group, *source]);
                }
            }
            (Some((mode, before)), Some((same, after))) if mode == same && (before ^ after).len() == 1 => {
                let added = after.len() > before.len();
                let option = match (mode, added) {
                    (Exclude, true) => MCAST_BLOCK_SOURCE,
                    (Exclude, false) => MCAST_UNBLOCK_SOURCE,
                    (Include, true) => MCAST_JOIN_SOURCE_GROUP,
                    (Include, false) => MCAST_LEAVE_SOURCE_GROUP,
                };
                let one = (before ^ after).first().copied().unwrap();
                self.request(option, ifindex, &[group, one]);
            }
            (Some(_), Some((mode, sources))) => self.filter(ifindex, group, *mode, sources),
        }
        let done = format!("{group} from {known:?} to {wanted:?}");
        match wanted {
            Some(wish) => self.wishes.insert(group, wish),
            None => self.wishes.remove(&group),
        };
        done
    }

    fn set(&self, option: i32, value: &[u8]) {
        let level = if self.ipv4 {
            libc::IPPROTO_IP
        } else {
            libc::IPPROTO_IPV6
        };
        let length = value.len() as libc::socklen_t;
        // SAFETY: the pointer and the length are those of a live slice.
        let result = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, value.as_ptr().cast(), length) };
        assert_eq!(result, 0, "option {option}: {}", io::Error::last_os_error());
    }

    /// `group_req` of interface and group, or `group_source_req` with a source too (RFC 3678 §5).
    fn request(&self, option: i32, ifindex: u32, addresses: &[IpAddr]) {
        let mut value = [ifindex.to_ne_bytes(), [0; 4]].concat();
        addresses.iter().for_each(|address| storage(&mut value, *address));
        self.set(option, &value);
    }

    /// `group_filter` (RFC 3678 §5.2.1): interface, group, mode, number, sources.
    fn filter(&self, ifindex: u32, group: IpAddr, mode: FilterMode, sources: &BTreeSet<IpAddr>) {
        let mut value = [ifindex.to_ne_bytes(), [0; 4]].concat();
        storage(&mut value, group);
        // MCAST_EXCLUDE is 0, MCAST_INCLUDE 1.
        value.extend(u32::from(mode == FilterMode::Include).to_ne_bytes());
        value.extend((sources.len() as u32).to_ne_bytes());
        sources.iter().for_each(|source| storage(&mut value, *source));
        self.set(MCAST_MSFILTER, &value);
    }
}

/// Appends a `sockaddr_storage`.
fn storage(out: &mut Vec<u8>, address: IpAddr) {
    let at = out.len();
    match address {
        IpAddr::V4(address) => {
            out.extend((libc::AF_INET as u16).to_ne_bytes());
            out.extend([0; 2]);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.extend((libc::AF_INET6 as u16).to_ne_bytes());
            out.extend([0; 6]);
            out.extend(address.octets());
        }
    }
    out.resize(at + size_of::<libc::sockaddr_storage>(), 0);
}

/// A wish as the ledger and the bridge show it.
pub fn shown(wish: Wish) -> SourceFilter {
    SourceFilter {
        mode: wish.0,
        sources: wish.1.into_iter().collect(),
    }
}
