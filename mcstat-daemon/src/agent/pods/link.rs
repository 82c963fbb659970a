//! The links and addresses of one network namespace, read by rtnetlink with blocking calls.
//!
//! A [`RouteSocket`] stays in the namespace that its thread was in when it was opened, and keeps that namespace alive:
//! close it with the reading. The kernel answers such requests inside `send`, so "blocking" never means waiting for
//! anybody; it is used without an executor because the reading of another namespace has to happen on a thread of its own.
//! Nothing is changed in any namespace.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use thiserror::Error;

/// How often an interrupted listing is begun again before it is given up.
const ATTEMPTS: usize = 5;
/// Namespace id, `linux/net_namespace.h`.
const NETNSA_NSID: u16 = 1;
/// Process in the namespace asked for, `linux/net_namespace.h`.
const NETNSA_PID: u16 = 2;
/// File descriptor of the namespace asked for, `linux/net_namespace.h`.
const NETNSA_FD: u16 = 3;

/// What a device is, as far as counting is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair.
    Veth,
    /// Any other software device, with the kernel's word for it: `macvlan`, `bridge`, `openvswitch`, ...
    Other(String),
    /// A device without such a word: a physical function, an SR-IOV virtual function, loopback.
    Plain,
}

impl std::fmt::Display for LinkKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Veth => formatter.write_str("veth"),
            Self::Other(kind) => formatter.write_str(kind),
            Self::Plain => formatter.write_str("physical device"),
        }
    }
}

/// One network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index; unique within the namespace at one time.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Whether it is switched on (`IFF_UP`).
    pub up: bool,
    /// Whether there is a carrier (`IFF_LOWER_UP`): for a veth, whether both ends are switched on.
    pub carrier: bool,
    /// Index of the device it belongs to: the other end of a veth, the parent of a macvlan.
    pub peer: Option<u32>,
    /// The namespace id of [`peer`](Self::peer), as numbered in this link's namespace; `None` where both are in the same.
    pub peer_nsid: Option<i32>,
}

/// Why a namespace could not be read.
#[derive(Debug, Error)]
pub enum LinkError {
    /// A system call failed, or the kernel answered with an error.
    #[error("{what} failed: {source}")]
    Io {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's answer is cut off.
    #[error("{what}: the kernel's answer is cut off")]
    CutOff {
        /// What was asked for.
        what: &'static str,
    },
    /// Devices or addresses came and went faster than they could be listed.
    #[error("{what} was interrupted {ATTEMPTS} times by changes")]
    Interrupted {
        /// What was asked for.
        what: &'static str,
    },
}

/// A question to rtnetlink in one namespace.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The system has no file descriptor or memory left.
    pub fn open() -> Result<Self, LinkError> {
        let io = |source| LinkError::Io {
            what: "opening a netlink socket",
            source,
        };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(io)?;
        socket.bind_auto().map_err(io)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The cookie of the socket's namespace (`SO_NETNS_COOKIE`, Linux 5.14): never used again while the system runs.
    ///
    /// # Errors
    /// The kernel is older.
    pub fn netns_cookie(&self) -> Result<u64, LinkError> {
        let mut cookie = 0_u64;
        let mut length: libc::socklen_t = 8;
        // SAFETY: both pointers are to live variables of the sizes that the call is told.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        match result {
            0 => Ok(cookie),
            _ => Err(LinkError::Io {
                what: "reading a namespace's cookie",
                source: io::Error::last_os_error(),
            }),
        }
    }

    /// All links of the namespace, by index.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn links(&mut self) -> Result<BTreeMap<u32, Link>, LinkError> {
        const WHAT: &str = "listing links";
        // struct ifinfomsg, all zero, and one attribute.
        let mut request = vec![0; 16];
        push_attribute(
            &mut request,
            libc::IFLA_EXT_MASK,
            libc::RTEXT_FILTER_SKIP_STATS.unsigned_abs(),
        );
        let answers = self.list(WHAT, libc::RTM_GETLINK, &request)?;
        let links = answers.iter().filter(|answer| answer.kind == libc::RTM_NEWLINK);
        links
            .map(|answer| {
                let link = read_link(&answer.body).ok_or(LinkError::CutOff { what: WHAT })?;
                Ok((link.ifindex, link))
            })
            .collect()
    }

    /// All addresses of the namespace, by the index of their link, each list sorted.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn addresses(&mut self) -> Result<BTreeMap<u32, Vec<IpAddr>>, LinkError> {
        // struct ifaddrmsg, all zero: every family.
        let answers = self.list("listing addresses", libc::RTM_GETADDR, &[0; 8])?;
        let mut found: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        for (ifindex, address) in answers
            .iter()
            .filter(|answer| answer.kind == libc::RTM_NEWADDR)
            .filter_map(|answer| read_address(&answer.body))
        {
            found.entry(ifindex).or_default().push(address);
        }
        found.values_mut().for_each(|addresses| addresses.sort_unstable());
        Ok(found)
    }

    /// The id that this namespace knows another one by, if it has given it one (`RTM_GETNSID`). Links that have their
    /// other end there carry it as [`Link::peer_nsid`].
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn id_of(&mut self, namespace: BorrowedFd<'_>) -> Result<Option<i32>, LinkError> {
        self.id(NETNSA_FD, namespace.as_raw_fd().unsigned_abs())
    }

    /// As [`id_of`](Self::id_of), of the namespace that a process is in. The kernel asks for no right to look at the
    /// process, unlike for its `/proc/<pid>/ns/net`; it only has to be visible in the caller's PID namespace.
    ///
    /// # Errors
    /// [`LinkError`]; there is no such process (`ESRCH`).
    pub fn id_of_process(&mut self, process: u32) -> Result<Option<i32>, LinkError> {
        self.id(NETNSA_PID, process)
    }

    fn id(&mut self, attribute: u16, value: u32) -> Result<Option<i32>, LinkError> {
        const WHAT: &str = "asking for a namespace's id";
        // struct rtgenmsg with its padding.
        let mut request = vec![0; 4];
        push_attribute(&mut request, attribute, value);
        self.send(WHAT, libc::RTM_GETNSID, libc::NLM_F_REQUEST, &request)?;
        let (answers, _) = self.receive(WHAT, false)?;
        let id = answers
            .iter()
            .find(|answer| answer.kind == libc::RTM_NEWNSID)
            .and_then(|answer| attributes(answer.body.get(4..)?).find(|(kind, _)| *kind == NETNSA_NSID));
        // -1 says that there is none.
        Ok(id
            .and_then(|(_, value)| native_u32(value))
            .map(u32::cast_signed)
            .filter(|id| *id >= 0))
    }

    /// A whole listing; begun again where the kernel says that it changed in between (`NLM_F_DUMP_INTR`).
    pub(in crate::agent) fn list(
        &mut self,
        what: &'static str,
        kind: u16,
        request: &[u8],
    ) -> Result<Vec<Answer>, LinkError> {
        for _ in 0..ATTEMPTS {
            self.send(what, kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, request)?;
            let (answers, interrupted) = self.receive(what, true)?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(LinkError::Interrupted { what })
    }

    fn send(&mut self, what: &'static str, kind: u16, flags: libc::c_int, request: &[u8]) -> Result<(), LinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + request.len()).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(HEADER + request.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags as u16).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(request);
        let kernel = SocketAddr::new(0, 0);
        self.socket
            .send_to(&message, &kernel, 0)
            .map_err(|source| LinkError::Io { what, source })?;
        Ok(())
    }

    /// The answers to the last request, and whether the kernel called the listing interrupted.
    fn receive(&mut self, what: &'static str, dump: bool) -> Result<(Vec<Answer>, bool), LinkError> {
        let (mut answers, mut interrupted) = (Vec::new(), false);
        loop {
            let (datagram, _) = self
                .socket
                .recv_from_full()
                .map_err(|source| LinkError::Io { what, source })?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let (answer, next) = read_answer(rest).ok_or(LinkError::CutOff { what })?;
                rest = next;
                // What an earlier, failed request left behind.
                if answer.sequence != self.sequence {
                    continue;
                }
                interrupted |= i32::from(answer.flags) & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(answer.kind) {
                    libc::NLMSG_DONE => return Ok((answers, interrupted)),
                    libc::NLMSG_ERROR => {
                        // struct nlmsgerr begins with a negative errno, or 0 where it only acknowledges.
                        let code = native_u32(&answer.body).map_or(0, u32::cast_signed);
                        let source = io::Error::from_raw_os_error(code.saturating_neg());
                        return Err(LinkError::Io { what, source });
                    }
                    _ => answers.push(answer),
                }
            }
            if !dump {
                return Ok((answers, interrupted));
            }
        }
    }
}

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// One netlink message from the kernel.
#[derive(Debug)]
pub(in crate::agent) struct Answer {
    pub(in crate::agent) kind: u16,
    flags: u16,
    sequence: u32,
    pub(in crate::agent) body: Vec<u8>,
}

fn native_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().copied().map(u16::from_ne_bytes)
}

pub(in crate::agent) fn native_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// The first message and what follows it. Messages and attributes are padded to four bytes.
fn read_answer(bytes: &[u8]) -> Option<(Answer, &[u8])> {
    let length = usize::try_from(native_u32(bytes)?).ok()?;
    let answer = Answer {
        kind: native_u16(bytes.get(4..)?)?,
        flags: native_u16(bytes.get(6..)?)?,
        sequence: native_u32(bytes.get(8..)?)?,
        body: bytes.get(HEADER..length)?.to_vec(),
    };
    Some((answer, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn push_attribute(message: &mut Vec<u8>, kind: u16, value: u32) {
    message.extend(8_u16.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value.to_ne_bytes());
}

/// Attributes as (type, value); ends at the first one that does not fit. Flag bits of the type are taken off.
pub(in crate::agent) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(native_u16(bytes)?);
        let kind = native_u16(bytes.get(2..)?)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Text with or without its closing NUL.
pub(in crate::agent) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// `struct ifinfomsg` (family, type, index at 4, flags at 8, change) and its attributes.
fn read_link(body: &[u8]) -> Option<Link> {
    let flags = native_u32(body.get(8..)?)?.cast_signed();
    let mut link = Link {
        ifindex: native_u32(body.get(4..)?)?,
        name: String::new(),
        kind: LinkKind::Plain,
        loopback: flags & libc::IFF_LOOPBACK != 0,
        up: flags & libc::IFF_UP != 0,
        carrier: flags & libc::IFF_LOWER_UP != 0,
        peer: None,
        peer_nsid: None,
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_LINK => link.peer = native_u32(value).filter(|peer| *peer != 0),
            libc::IFLA_LINK_NETNSID => link.peer_nsid = native_u32(value).map(u32::cast_signed),
            libc::IFLA_LINKINFO => link.kind = read_kind(value),
            _ => {}
        }
    }
    Some(link)
}

fn read_kind(details: &[u8]) -> LinkKind {
    match attributes(details)
        .find(|(kind, _)| *kind == libc::IFLA_INFO_KIND)
        .map(|(_, value)| text(value))
    {
        Some(kind) if kind == "veth" => LinkKind::Veth,
        Some(kind) => LinkKind::Other(kind),
        None => LinkKind::Plain,
    }
}

/// `struct ifaddrmsg` (family, prefix length, flags, scope, index at 4) and its attributes. `IFA_LOCAL` is the link's
/// own address where the link is point-to-point; `IFA_ADDRESS` is the other end's then.
fn read_address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let ifindex = native_u32(body.get(4..)?)?;
    let (mut local, mut address) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => local = read_ip(value),
            libc::IFA_ADDRESS => address = read_ip(value),
            _ => {}
        }
    }
    Some((ifindex, local.or(address)?))
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct nlmsghdr` (length, type, flags, sequence, port) and a body, in the byte order of the machine.
    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), 0_u16.to_ne_bytes()].concat());
        bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_length_that_does_not_fit_is_refused() {
        let good = message(libc::RTM_NEWLINK, 1, &[1, 2, 3, 4]);
        let (answer, rest) = read_answer(&good).unwrap();
        assert_eq!(
            (answer.kind, answer.sequence, answer.body.as_slice(), rest),
            (16, 1, &[1, 2, 3, 4][..], &[][..])
        );
        for length in [0_u32, 15, 21, u32::MAX] {
            let mut bad = good.clone();
            bad.splice(..4, length.to_ne_bytes());
            assert!(read_answer(&bad).is_none(), "{length}");
        }
    }

    #[test]
    fn attributes_end_where_they_stop_making_sense() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 7, 1);
        push_attribute(&mut bytes, 0x8008, 2);
        let read = |bytes: &[u8]| attributes(bytes).map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(read(&bytes), [7, 8], "the nested flag is no part of the type");
        for length in [0_u16, 3, 9] {
            bytes.splice(8..10, length.to_ne_bytes());
            assert_eq!(read(&bytes), [7], "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = read_answer(&bytes);
            let _ = read_link(&bytes);
            let _ = read_address(&bytes);
            let _ = read_kind(&bytes);
        }
    }
}
