//! Every finding, provoked by real hosts and real frames, seen by kubectl, and gone when its cause is gone; and none of
//! them at a Pod that is well. Prints how long each took to come and to go; asserts no time.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod api_support;
mod hosts_lab;
mod support;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use hosts_lab::{Host, Kind, Lab, Timers, View};
use serde_json::Value;
use support::{
    frames, in_netns,
    wire::{Netns, Sender},
};

const VERSION_3: Timers = Timers {
    igmp: 3,
    interval: 2,
    response: 5,
};
const VERSION_2: Timers = Timers { igmp: 2, ..VERSION_3 };

const fn kind(name: &'static str) -> Kind {
    Kind {
        name,
        igmp: 0,
        mld: 0,
        shy: false,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Findings of a Pod by type, those of one group alone when one is named.
fn has(view: &View, host: &Host, kind: &str, group: Option<&str>) -> bool {
    let findings = view.pod(host)["status"]["findings"].as_array();
    findings.is_some_and(|findings| {
        findings
            .iter()
            .any(|finding| finding["type"] == kind && group.is_none_or(|group| finding["group"] == group))
    })
}

/// Findings of a group by type.
fn group_has(view: &View, group: &str, kind: &str) -> bool {
    let findings = view
        .group(address(group))
        .and_then(|group| group["status"]["findings"].as_array());
    findings.is_some_and(|findings| findings.iter().any(|finding| finding["type"] == kind))
}

/// The lab, and what its threads share.
struct Scene<'a> {
    lab: &'a Lab,
    node: &'a Netns,
    took: &'a Mutex<Vec<String>>,
}

impl Scene<'_> {
    fn host(&self, name: &str) -> &Host {
        let found = self.lab.hosts.iter().find(|host| host.kind.name == name);
        found.unwrap_or_else(|| panic!("no host {name}"))
    }

    fn note(&self, what: &str, took: Duration) {
        self.took
            .lock()
            .unwrap()
            .push(format!("{:6.1} s  {what}", took.as_secs_f64()));
    }

    fn comes(&self, what: &str, holds: impl Fn(&View) -> bool) {
        self.note(
            &format!("{what} comes"),
            self.lab.until(&format!("{what} comes"), holds),
        );
    }

    fn goes(&self, what: &str, holds: impl Fn(&View) -> bool) {
        self.note(
            &format!("{what} goes"),
            self.lab.until(&format!("{what} goes"), |view| !holds(view)),
        );
    }

    /// Two frames a second towards the host while `body` runs, as a switch would deliver them.
    fn arriving<T>(&self, host: &Host, source: &str, group: &str, body: impl FnOnce() -> T) -> T {
        let frame = frames::data(source, group, 100);
        self.sending(
            || self.node.run(|| Sender::on(&host.wire.host)),
            move |sender| drop_counts(sender, &frame),
            body,
        )
    }

    /// Two datagrams a second by a socket of the host while `body` runs.
    fn leaving<T>(&self, host: &Host, ttl: u32, group: &str, body: impl FnOnce() -> T) -> T {
        let open = || {
            host.wire.pod.run(|| {
                let socket = UdpSocket::bind(SocketAddr::new(host.address, 0)).unwrap();
                socket.set_multicast_ttl_v4(ttl).unwrap();
                socket
            })
        };
        let to = SocketAddr::new(address(group), 5001);
        self.sending(
            open,
            move |socket| assert_eq!(socket.send_to(&[0; 100], to).unwrap(), 100),
            body,
        )
    }

    fn sending<S: Send, T>(
        &self,
        open: impl FnOnce() -> S + Send,
        send: impl Fn(&S) + Send + Sync,
        body: impl FnOnce() -> T,
    ) -> T {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let stopping = Stop(&stop);
            scope.spawn(|| {
                let sender = open();
                while !stop.load(Ordering::SeqCst) {
                    send(&sender);
                    thread::sleep(Duration::from_millis(500));
                }
            });
            let result = body();
            drop(stopping);
            result
        })
    }

    fn joined_no_traffic(&self) {
        let (host, group) = (self.host("quiet"), "239.2.1.1");
        let socket = host.socket(address(group));
        socket.join(address(group));
        let holds = |view: &View| has(view, host, "JoinedNoTraffic", Some(group));
        self.comes("JoinedNoTraffic", |view| {
            // It is also the Pod's STATUS and the row's finding.
            let status = &view.pod(host)["status"];
            let rows = status["groups"].as_array().unwrap();
            let row = rows.iter().find(|row| row["group"] == group).unwrap_or(&Value::Null);
            holds(view) && status["summary"] == "JoinedNoTraffic" && row["finding"] == "JoinedNoTraffic"
        });
        self.arriving(host, "192.0.2.1", group, || self.goes("JoinedNoTraffic", holds));
    }

    fn traffic_not_joined(&self) {
        let (host, group) = (self.host("flooded"), "239.2.2.2");
        let holds = |view: &View| has(view, host, "TrafficNotJoined", Some(group));
        self.arriving(host, "192.0.2.1", group, || {
            self.comes("TrafficNotJoined", holds);
            let socket = host.socket(address(group));
            socket.join(address(group));
            self.goes("TrafficNotJoined", holds);
        });
    }

    fn sent_nobody_joined(&self) {
        let (host, group) = (self.host("lonely"), "239.2.3.3");
        let holds = |view: &View| group_has(view, group, "SentNobodyJoined");
        self.leaving(host, 16, group, || {
            self.comes("SentNobodyJoined", holds);
            let receiver = self.host("lonely2").socket(address(group));
            receiver.join(address(group));
            self.goes("SentNobodyJoined", holds);
        });
    }

    fn membership_limit(&self) {
        let host = self.host("full");
        let groups = || (1..=30).map(|last| IpAddr::from([239, 3, 0, last]));
        let socket = host.socket(address("239.3.0.1"));
        assert_eq!(
            socket.join_as_many(groups()),
            20,
            "igmp_max_memberships is 20 in a new namespace"
        );
        let holds = |view: &View| has(view, host, "MembershipLimit", None);
        self.comes("MembershipLimit", holds);
        socket.leave(address("239.3.0.1"));
        self.goes("MembershipLimit", holds);
    }

    fn ttl1(&self) {
        let (host, group) = (self.host("short"), "239.2.4.4");
        let holds = |view: &View| has(view, host, "TTL1", Some(group));
        self.leaving(host, 1, group, || self.comes("TTL1", holds));
        self.leaving(host, 2, group, || self.goes("TTL1", holds));
    }

    fn source_filtered(&self) {
        let (host, group) = (self.host("picky"), "239.2.6.6");
        let socket = host.socket(address(group));
        socket.join(address(group));
        socket.block(address(group), address("192.0.2.1"));
        let holds = |view: &View| has(view, host, "SourceFiltered", Some(group));
        self.arriving(host, "192.0.2.1", group, || self.comes("SourceFiltered", holds));
        self.arriving(host, "192.0.2.9", group, || self.goes("SourceFiltered", holds));
    }

    fn mac_collision(&self) {
        let (host, one, other) = (self.host("twins"), "239.4.1.1", "239.132.1.1");
        let socket = host.socket(address(one));
        socket.join(address(one));
        socket.join(address(other));
        let holds =
            |view: &View| has(view, host, "MacCollision", Some(one)) && has(view, host, "MacCollision", Some(other));
        self.comes("MacCollision", holds);
        socket.leave(address(other));
        self.goes("MacCollision", |view| has(view, host, "MacCollision", None));
    }

    /// First two queriers, then none, then one again.
    fn queriers(&self, first: &AtomicBool) {
        let all: Vec<&Host> = self
            .lab
            .hosts
            .iter()
            .filter(|host| host.kind.name != "forced")
            .collect();
        let two = |view: &View| group_has(view, WELL, "TwoQueriers");
        let lost = |view: &View| group_has(view, WELL, "QuerierLost");
        let ask = |last: u8, body: &dyn Fn()| {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let stopping = Stop(&stop);
                scope.spawn(|| self.node.run(|| self.lab.query_until(&stop, VERSION_3, last, &all)));
                body();
                drop(stopping);
            });
        };
        ask(253, &|| self.comes("TwoQueriers", two));
        self.goes("TwoQueriers", two);
        first.store(true, Ordering::SeqCst);
        self.comes("QuerierLost", lost);
        ask(254, &|| self.goes("QuerierLost", lost));
    }
}

fn drop_counts(sender: &Sender, frame: &[u8]) {
    sender.send(&[frame], 1);
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The group of the Pods that are well.
const WELL: &str = "239.1.1.1";

const NAMES: [&str; 10] = [
    "feed", "well", "quiet", "flooded", "lonely", "lonely2", "full", "short", "picky", "twins",
];

#[test]
fn every_finding_comes_with_its_cause_and_goes_with_it() {
    in_netns(|| {
        let lab = Lab::new(&NAMES.map(kind));
        let (node, took) = (Netns::current(), Mutex::new(Vec::new()));
        let scene = Scene {
            lab: &lab,
            node: &node,
            took: &took,
        };
        let (done, first_stops, looked) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        let (feed, well) = (scene.host("feed"), scene.host("well"));
        let member = well.socket(address(WELL));
        member.join(address(WELL));
        let all: Vec<&Host> = lab.hosts.iter().collect();
        thread::scope(|scope| {
            let ending = Stop(&done);
            let first_ending = Stop(&first_stops);
            scope.spawn(|| node.run(|| lab.query_until(&first_stops, VERSION_3, 254, &all)));
            // Two Pods are well all the time, whatever the others do.
            let watch_well = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let view = lab.look();
                    for host in [feed, well] {
                        let status = &view.pod(host)["status"];
                        assert_eq!(
                            (&status["summary"], &status["findings"]),
                            (&Value::from("OK"), &Value::Null),
                            "{status:#}"
                        );
                    }
                    looked.fetch_add(1, Ordering::SeqCst);
                }
            });
            scene.leaving(feed, 16, WELL, || {
                scene.arriving(well, "10.9.0.1", WELL, || {
                    thread::scope(|scope| {
                        scope.spawn(|| scene.joined_no_traffic());
                        scope.spawn(|| scene.traffic_not_joined());
                        scope.spawn(|| scene.sent_nobody_joined());
                        scope.spawn(|| scene.membership_limit());
                        scope.spawn(|| scene.ttl1());
                        scope.spawn(|| scene.source_filtered());
                        scope.spawn(|| scene.mac_collision());
                    });
                    scene.queriers(&first_stops);
                });
            });
            drop((first_ending, ending));
            watch_well
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        assert!(looked.into_inner() > 20, "the Pods that are well were hardly looked at");
        took.into_inner().unwrap().iter().for_each(|line| println!("{line}"));
    });
}

/// Linux falls back whatever it is forced to, so a stack that does not is played: its reports are sent by a packet socket of
/// the Pod, whose kernel cannot be asked.
#[test]
fn a_member_that_does_not_fall_back_is_told() {
    in_netns(|| {
        let lab = Lab::new(&[Kind {
            shy: true,
            ..kind("stubborn")
        }]);
        let (host, group) = (&lab.hosts[0], "239.2.5.5");
        let (stop, old) = (AtomicBool::new(false), AtomicBool::new(false));
        let node = Netns::current();
        let report = |version: u8| {
            let IpAddr::V4(address) = address(group) else {
                unreachable!()
            };
            hosts_lab::join_report(host.address, address, version)
        };
        let holds = |view: &View| has(view, host, "VersionMismatch", Some(group));
        thread::scope(|scope| {
            let stopping = Stop(&stop);
            scope.spawn(|| node.run(|| lab.query_until(&stop, VERSION_2, 254, &[host])));
            scope.spawn(|| {
                host.wire.pod.run(|| {
                    let sender = Sender::on("eth0");
                    while !stop.load(Ordering::SeqCst) {
                        sender.send(&[report(if old.load(Ordering::SeqCst) { 2 } else { 3 })], 1);
                        thread::sleep(Duration::from_millis(500));
                    }
                });
            });
            let took = lab.until("VersionMismatch comes", holds);
            println!("{:6.1} s  VersionMismatch comes", took.as_secs_f64());
            old.store(true, Ordering::SeqCst);
            let took = lab.until("VersionMismatch goes", |view| !holds(view));
            println!("{:6.1} s  VersionMismatch goes", took.as_secs_f64());
            drop(stopping);
        });
    });
}

/// Nobody asks for 255 s; the first query ends it. This is the time that the finding needs, and so this test.
#[test]
fn a_node_without_a_querier_says_so_after_its_time() {
    in_netns(|| {
        let lab = Lab::new(&[kind("alone")]);
        let host = &lab.hosts[0];
        let member = host.socket(address("239.5.1.1"));
        member.join(address("239.5.1.1"));
        let holds = |view: &View| group_has(view, "239.5.1.1", "NoQuerier");
        lab.until("the group", |view| {
            view.is_listed(host, address("239.5.1.1")) && !holds(view)
        });
        let took = lab.until_within(Duration::from_secs(320), "NoQuerier", holds);
        println!("{:6.1} s  NoQuerier comes", took.as_secs_f64());
        assert_ne!(
            lab.look().pod(host)["status"]["summary"],
            "NoQuerier",
            "a querier's finding is no Pod's STATUS"
        );
        let stop = AtomicBool::new(false);
        let node = Netns::current();
        thread::scope(|scope| {
            let stopping = Stop(&stop);
            scope.spawn(|| node.run(|| lab.query_until(&stop, VERSION_3, 254, &[host])));
            let took = lab.until("NoQuerier goes", |view| !holds(view));
            println!("{:6.1} s  NoQuerier goes", took.as_secs_f64());
            drop(stopping);
        });
    });
}
