//! Real Linux hosts as Pods of one node: an agent and an aggregator as processes, a real kubectl that asks all the time,
//! a querier that speaks to every Pod.
//!
//! Hosts live in network namespaces of their own behind veths, forced to a protocol version; their sockets are made by
//! threads that enter. A host can be made *shy*: its kernel's tables are then too large to be read, and what is known of it
//! comes from its reports alone.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    net::IpAddr,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::symlink,
    },
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mcstat::proto::{
    control::{encode_igmp, encode_mld},
    igmp::{IgmpMessage, IgmpQuery},
    mld::{MldMessage, MldQuery},
    wire::{QueryTail, Record, RecordKind, Report},
};
use serde_json::{Value, json};

use crate::{
    agent_process::Node,
    api_support::{Aggregator, Kubectl},
    support::{
        Bpffs, ifindex, ip,
        wire::{Netns, Sender, Wire, sysctl},
    },
};

/// How long a test waits for what must come: longer than any timer that it waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a host is.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// `force_igmp_version`.
    pub igmp: u32,
    /// `force_mld_version`.
    pub mld: u32,
    /// Its kernel cannot be asked.
    pub shy: bool,
}

/// A Pod: namespace `mkt`, interface `eth0`, one IPv4 address.
pub struct Host {
    pub kind: Kind,
    pub wire: Wire,
    pub address: IpAddr,
    ifindex: u32,
    /// Holds the memberships that make a host shy.
    _crowd: Option<Vec<Socket>>,
}

/// Groups of each of 20 sockets: enough that `/proc/net/igmp` is over the 128 KiB that the agent reads of a Pod.
const CROWD: u8 = 200;

impl Host {
    /// Number `number` of the node, up, with 10.9.0.`number`.
    fn new(kind: Kind, number: u8) -> Self {
        let wire = Wire::with_ipv6(&format!("mkt-{}", kind.name));
        let (ifindex, crowd) = wire.pod.run(|| {
            for (name, value) in [
                ("ipv4/conf/eth0/force_igmp_version", kind.igmp),
                ("ipv6/conf/eth0/force_mld_version", kind.mld),
                ("ipv6/conf/eth0/accept_dad", 0),
            ] {
                sysctl(&format!("net/{name}"), value);
            }
            ip(&format!("address add 10.9.0.{number}/24 dev eth0"));
            (ifindex("eth0"), kind.shy.then(crowd))
        });
        wire.up(1500);
        wire.pod.run(|| ip("route add 224.0.0.0/4 dev eth0"));
        Self {
            kind,
            wire,
            address: IpAddr::from([10, 9, 0, number]),
            ifindex,
            _crowd: crowd,
        }
    }

    /// A socket of the group's family inside.
    pub fn socket(&self, group: IpAddr) -> Socket {
        self.wire.pod.run(|| Socket::new(group.is_ipv4(), self.ifindex))
    }

    /// Whether a message of this JSON object is about this host.
    pub fn is(&self, object: &Value) -> bool {
        object["namespace"] == "mkt" && (object["pod"] == self.kind.name || object["name"] == self.kind.name)
    }
}

/// Joins a crowd of groups on loopback, in this thread's namespace.
fn crowd() -> Vec<Socket> {
    sysctl("net/ipv4/igmp_max_memberships", CROWD.into());
    let loopback = ifindex("lo");
    // What one socket may remember is bounded (`optmem_max`).
    let join = |n: u8| {
        let socket = Socket::new(true, loopback);
        (0..CROWD).for_each(|m| socket.join(IpAddr::from([235, 1, n, m])));
        socket
    };
    (0..20).map(join).collect()
}

/// A UDP socket of one host.
pub struct Socket {
    fd: OwnedFd,
    ipv4: bool,
    ifindex: u32,
}

/// `linux/in.h`; the same numbers for both families.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_LEAVE_GROUP: i32 = 45;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;

impl Socket {
    fn new(ipv4: bool, ifindex: u32) -> Self {
        let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: the arguments are plain numbers.
        let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        Self {
            // SAFETY: the descriptor is new and owned by nobody else.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            ipv4,
            ifindex,
        }
    }

    pub fn join(&self, group: IpAddr) {
        self.request(MCAST_JOIN_GROUP, &[group]).unwrap();
    }

    /// Joins as far as the kernel lets it; how many it did.
    pub fn join_as_many(&self, groups: impl Iterator<Item = IpAddr>) -> usize {
        groups
            .take_while(|group| self.request(MCAST_JOIN_GROUP, &[*group]).is_ok())
            .count()
    }

    pub fn leave(&self, group: IpAddr) {
        self.request(MCAST_LEAVE_GROUP, &[group]).unwrap();
    }

    pub fn include(&self, group: IpAddr, source: IpAddr) {
        self.request(MCAST_JOIN_SOURCE_GROUP, &[group, source]).unwrap();
    }

    pub fn block(&self, group: IpAddr, source: IpAddr) {
        self.request(MCAST_BLOCK_SOURCE, &[group, source]).unwrap();
    }

    /// `group_req` of interface and group, or `group_source_req` with a source too (RFC 3678 §5).
    fn request(&self, option: i32, addresses: &[IpAddr]) -> std::io::Result<()> {
        let mut value = [self.ifindex.to_ne_bytes(), [0; 4]].concat();
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
        let level = if self.ipv4 {
            libc::IPPROTO_IP
        } else {
            libc::IPPROTO_IPV6
        };
        let (pointer, length) = (value.as_ptr().cast(), value.len() as libc::socklen_t);
        // SAFETY: the pointer and the length are those of a live slice.
        match unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, pointer, length) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

/// What a querier says of its timers.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// Of version 3; 1 and 2 ask as such.
    pub igmp: u8,
    /// QQIC, below 128: seconds.
    pub interval: u8,
    /// Max Resp Time in tenths of a second, below 128.
    pub response: u8,
}

/// A general query of IGMP and one of MLD as frames, from 10.9.0.`last` and fe80::`last`.
pub fn queries(timers: Timers, last: u8) -> Vec<Vec<u8>> {
    fn tail<A>(timers: Timers) -> QueryTail<A> {
        QueryTail {
            suppress: false,
            robustness: 2,
            interval_code: timers.interval,
            sources: Vec::new(),
            missing: 0,
        }
    }
    let igmp = IgmpMessage::Query(IgmpQuery {
        max_response_code: if timers.igmp == 1 { 0 } else { timers.response },
        group: [0; 4].into(),
        tail: (timers.igmp == 3).then(|| tail(timers)),
    });
    let mld = MldMessage::Query(MldQuery {
        max_response_code: u16::from(timers.response) * 100,
        group: [0; 16].into(),
        tail: Some(tail(timers)),
    });
    let igmp = encode_igmp(
        [10, 9, 0, last].into(),
        [224, 0, 0, 1].into(),
        1,
        timers.igmp > 1,
        &igmp,
    )
    .unwrap();
    let source = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into());
    let mld = encode_mld(source, "ff02::1".parse().unwrap(), 1, true, &mld).unwrap();
    vec![
        ethernet([0x01, 0, 0x5e, 0, 0, 1], 0x0800, &igmp),
        ethernet([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &mld),
    ]
}

/// A join as a frame: IS_EX {} of version 3, or a report of version 2.
pub fn join_report(source: IpAddr, group: std::net::Ipv4Addr, version: u8) -> Vec<u8> {
    let IpAddr::V4(source) = source else { unreachable!() };
    let (message, to) = match version {
        3 => {
            let record = Record {
                kind: RecordKind::ModeIsExclude,
                group,
                sources: Vec::new(),
                aux_words: 0,
            };
            let report = Report {
                records: vec![record],
                missing: 0,
            };
            (IgmpMessage::V3Report(report), [224, 0, 0, 22].into())
        }
        _ => (IgmpMessage::V2Report { group }, group),
    };
    let [_, b, c, d] = to.octets();
    let packet = encode_igmp(source, to, 1, true, &message).unwrap();
    ethernet([0x01, 0, 0x5e, b & 0x7f, c, d], 0x0800, &packet)
}

fn ethernet(destination: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let source = [0x02, 0, 0, 0, 0, 0xfe];
    [&destination[..], &source, &ethertype.to_be_bytes(), packet].concat()
}

/// One node: hosts, agent, aggregator, and the newest answers of kubectl.
pub struct Lab {
    pub hosts: Vec<Host>,
    seen: Arc<Seen>,
    agent: Node,
    _aggregator: Aggregator,
    _pods: tempfile::TempDir,
    _bpffs: Bpffs,
}

/// What kubectl said last, and when it was asked.
#[derive(Default)]
struct Seen {
    last: Mutex<Option<Arc<View>>>,
    changed: Condvar,
    stop: AtomicBool,
}

/// One look at the cluster.
pub struct View {
    asked: Instant,
    pub groups: Vec<Value>,
    pub pods: Vec<Value>,
}

impl View {
    pub fn group(&self, group: IpAddr) -> Option<&Value> {
        self.groups.iter().find(|object| object["group"] == group.to_string())
    }

    /// The membership of a host, as `multicastgroups` tells it.
    pub fn member(&self, host: &Host, group: IpAddr) -> Option<&Value> {
        let members = self.group(group)?["status"]["members"].as_array()?;
        members.iter().find(|member| host.is(member))
    }

    /// Whether the host stands in PODS of the group.
    pub fn is_listed(&self, host: &Host, group: IpAddr) -> bool {
        let pods = self.group(group).and_then(|object| object["pods"].as_array());
        pods.is_some_and(|pods| pods.iter().any(|pod| host.is(pod)))
    }

    pub fn pod(&self, host: &Host) -> &Value {
        let name = host.kind.name;
        let found = self.pods.iter().find(|pod| pod["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no row of {name}"))
    }
}

impl Lab {
    /// Everything up and every host counted, in this thread's network namespace.
    pub fn new(kinds: &[Kind]) -> Self {
        let (bpffs, pods) = (Bpffs::new(), tempfile::tempdir().unwrap());
        let hosts: Vec<Host> = (1..)
            .zip(kinds)
            .map(|(number, kind)| Host::new(*kind, number))
            .collect();
        for host in &hosts {
            symlink(
                host.wire.pod.path(),
                pods.path().join(format!("mkt_{}", host.kind.name)),
            )
            .unwrap();
        }
        let aggregator = Aggregator::start("127.0.0.1:0");
        let source = json!({"kind": "netns", "netns": {"directory": pods.path()}});
        // The intervals of a real node.
        let more = json!({"tick": "1s", "window": "10s", "publish": {"targets": [aggregator.url()]}});
        let mut agent = Node::with(&bpffs.path(), &source, &more);
        agent.start();
        let seen = Arc::new(Seen::default());
        let (watcher, kubectl) = (Arc::clone(&seen), Kubectl::new(&aggregator.url()));
        let node = Netns::current();
        thread::spawn(move || node.run(|| watch(&kubectl, &watcher)));
        let lab = Self {
            hosts,
            seen,
            agent,
            _aggregator: aggregator,
            _pods: pods,
            _bpffs: bpffs,
        };
        lab.until("every host is counted", |view| {
            let counted = |pod: &&Value| pod["status"]["inbound"].is_object();
            view.pods.iter().filter(counted).count() == kinds.len()
        });
        lab
    }

    /// Waits until an answer to a question that was asked after this call is as wanted; how long that took.
    pub fn until(&self, what: &str, wanted: impl Fn(&View) -> bool) -> Duration {
        self.until_within(PATIENCE, what, wanted)
    }

    /// The same with a patience of its own.
    pub fn until_within(&self, patience: Duration, what: &str, wanted: impl Fn(&View) -> bool) -> Duration {
        let start = Instant::now();
        let mut last = self.seen.last.lock().unwrap();
        loop {
            if let Some(view) = last.as_ref().filter(|view| view.asked >= start)
                && wanted(view)
            {
                return start.elapsed();
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                let told = last.as_ref().map(|view| (json!(view.groups), json!(view.pods)));
                panic!(
                    "never: {what}; kubectl says {told:#?}; the agent says {}",
                    self.agent.log()
                );
            }
            last = self.seen.changed.wait_timeout(last, left).unwrap().0;
        }
    }

    /// The next answer that kubectl gives.
    pub fn look(&self) -> Arc<View> {
        let start = Instant::now();
        let mut last = self.seen.last.lock().unwrap();
        loop {
            match last.as_ref().filter(|view| view.asked >= start) {
                Some(view) => return Arc::clone(view),
                None => last = self.seen.changed.wait_timeout(last, PATIENCE).unwrap().0,
            }
            assert!(
                start.elapsed() < PATIENCE,
                "kubectl gives no answer; the agent says {}",
                self.agent.log()
            );
        }
    }

    /// Asks every host by these timers, from 10.9.0.`last`, until `stop`.
    pub fn query_until(&self, stop: &AtomicBool, timers: Timers, last: u8, hosts: &[&Host]) {
        let senders: Vec<Sender> = hosts.iter().map(|host| Sender::on(&host.wire.host)).collect();
        let frames = queries(timers, last);
        let every = Duration::from_secs(timers.interval.into());
        let mut next = Instant::now();
        while !stop.load(Ordering::SeqCst) {
            if Instant::now() >= next {
                next += every;
                for sender in &senders {
                    sender.send(&frames, 1);
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::SeqCst);
    }
}

fn watch(kubectl: &Kubectl, seen: &Seen) {
    let list = |arguments: &[&str]| -> Option<Vec<Value>> {
        let answer = kubectl.run(arguments);
        let list: Value = serde_json::from_str(&answer.stdout).ok()?;
        list["items"].as_array().cloned()
    };
    while !seen.stop.load(Ordering::SeqCst) {
        let asked = Instant::now();
        // The two lists are of two moments: a test looks at one of them at a time.
        let groups = list(&["get", "multicastgroups", "-o", "json"]);
        let pods = list(&["get", "podmulticaststats", "-A", "-o", "json"]);
        if let (Some(groups), Some(pods)) = (groups, pods) {
            *seen.last.lock().unwrap() = Some(Arc::new(View { asked, groups, pods }));
            seen.changed.notify_all();
        }
        thread::sleep(Duration::from_millis(100));
    }
}
