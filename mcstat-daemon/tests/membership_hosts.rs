//! Real Linux hosts join, change their sources, leave and die; kubectl shows it by the kernel's word at once, and by
//! reports alone as soon as their protocol lets it. Prints how long each change took; asserts no time.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod api_support;
mod hosts_lab;
mod support;

use std::{
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hosts_lab::{Host, Kind, Lab, Timers};
use serde_json::{Value, json};
use support::{in_netns, ip};

/// Membership by reports lasts 2 × 2 + 0.5 s.
const QUICK: Timers = Timers {
    igmp: 3,
    interval: 2,
    response: 5,
};
/// A host that speaks IGMPv1 takes up to 10 s to answer, whatever the query says: here reports last 2 × 6 + 0.5 s.
const PATIENT: Timers = Timers {
    igmp: 3,
    interval: 6,
    response: 5,
};

const fn kind(name: &'static str, igmp: u32, mld: u32, shy: bool) -> Kind {
    Kind { name, igmp, mld, shy }
}

const KINDS: [Kind; 6] = [
    kind("v1", 1, 1, false),
    kind("v2", 2, 1, false),
    kind("v3", 3, 2, false),
    kind("shy1", 1, 1, true),
    kind("shy2", 2, 1, true),
    kind("shy3", 3, 2, true),
];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One host's script, and how long kubectl took to show each step.
struct Script<'a> {
    lab: &'a Lab,
    host: &'a Host,
    took: &'a Mutex<Vec<(String, Duration)>>,
}

impl Script<'_> {
    fn step(&self, what: &str, change: impl FnOnce(), wanted: impl Fn(Option<&Value>) -> bool, group: IpAddr) {
        change();
        let what = format!("{}: {what} {group}", self.host.kind.name);
        let took = self.lab.until(&what, |view| {
            let member = view.member(self.host, group);
            member.is_some() == view.is_listed(self.host, group) && wanted(member)
        });
        self.took.lock().unwrap().push((what, took));
    }

    fn witness(&self) -> &'static str {
        if self.host.kind.shy { "report" } else { "kernel" }
    }

    fn is_member(&self, member: Option<&Value>) -> bool {
        let witnesses = member.and_then(|member| member["witness"].as_array());
        witnesses.is_some_and(|witnesses| witnesses.iter().any(|witness| witness == self.witness()))
    }

    /// Joins and leaves by two sockets on one group.
    fn group(&self, group: IpAddr) {
        let (one, other) = (self.host.socket(group), self.host.socket(group));
        self.step("joins", || one.join(group), |member| self.is_member(member), group);
        let version = match (group.is_ipv4(), self.host.kind) {
            (true, kind) => format!("IGMPv{}", kind.igmp),
            (false, kind) => format!("MLDv{}", kind.mld),
        };
        // Both witnesses, in the host's own version.
        self.step(
            "is reported",
            || (),
            |member| {
                let member = member.unwrap_or(&Value::Null);
                let witnesses = member["witness"].as_array().cloned().unwrap_or_default();
                witnesses.contains(&json!("report")) && member["version"] == version
            },
            group,
        );
        if self.host.kind.shy {
            other.join(group);
            one.leave(group);
        } else {
            self.step(
                "joins twice",
                || other.join(group),
                |member| users(member) == Some(2),
                group,
            );
            self.step(
                "leaves once",
                || one.leave(group),
                |member| users(member) == Some(1),
                group,
            );
        }
        self.step("leaves", || other.leave(group), |member| member.is_none(), group);
    }

    /// Source lists, where the host's version has them.
    fn sources(&self, group: IpAddr, [a, b]: [IpAddr; 2]) {
        let (one, other) = (self.host.socket(group), self.host.socket(group));
        let wants = |mode: &'static str, sources: &[IpAddr]| {
            let sources = json!(sources);
            move |member: Option<&Value>| {
                member.is_some_and(|member| member["mode"] == mode && member["sources"] == sources)
            }
        };
        self.step(
            "includes one source of",
            || one.include(group, a),
            wants("INCLUDE", &[a]),
            group,
        );
        self.step(
            "includes two sources of",
            || one.include(group, b),
            wants("INCLUDE", &[a, b]),
            group,
        );
        self.step("leaves", || one.leave(group), |member| member.is_none(), group);
        self.step("joins", || one.join(group), wants("EXCLUDE", &[]), group);
        self.step(
            "blocks a source of",
            || one.block(group, a),
            wants("EXCLUDE", &[a]),
            group,
        );
        // RFC 9776 §3.2: what one socket includes the other cannot exclude for the interface.
        self.step(
            "includes it again in",
            || other.include(group, a),
            wants("EXCLUDE", &[]),
            group,
        );
        self.step(
            "leaves",
            || {
                one.leave(group);
                other.leave(group)
            },
            |member| member.is_none(),
            group,
        );
    }

    /// Its link is cut from inside: it hears no query any more and says nothing.
    fn dies(&self, group: IpAddr) {
        let socket = self.host.socket(group);
        self.step("joins", || socket.join(group), |member| self.is_member(member), group);
        let silence = || {
            self.host
                .wire
                .pod
                .run(|| ip("link set eth0 arp off multicast off down"))
        };
        if self.host.kind.shy {
            self.step("is silent", silence, |member| member.is_none(), group);
        } else {
            // The kernel is a member still, and says so when nobody hears its reports.
            self.step(
                "is silent",
                silence,
                |member| {
                    let member = member.unwrap_or(&Value::Null);
                    member["witness"] == json!(["kernel"])
                },
                group,
            );
        }
    }

    fn run(&self) {
        self.group(address("239.1.1.1"));
        self.group(address("ff15::1:1"));
        if self.host.kind.igmp == 3 {
            self.sources(address("239.1.1.2"), ["192.0.2.1", "192.0.2.2"].map(address));
            self.sources(address("ff15::1:2"), ["2001:db8::1", "2001:db8::2"].map(address));
        }
        self.dies(address("239.1.1.3"));
    }
}

fn users(member: Option<&Value>) -> Option<u64> {
    member?["users"].as_u64()
}

#[test]
fn kubectl_shows_every_join_source_change_leave_and_silent_death() {
    in_netns(|| {
        let lab = Lab::new(&KINDS);
        let (stop, took) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let old = |host: &&Host| host.kind.igmp == 1;
        let node = support::wire::Netns::current();
        thread::scope(|scope| {
            for (timers, hosts) in [
                (QUICK, lab.hosts.iter().filter(|host| !old(host)).collect::<Vec<_>>()),
                (PATIENT, lab.hosts.iter().filter(old).collect()),
            ] {
                let (lab, stop, node) = (&lab, &stop, &node);
                scope.spawn(move || node.run(|| lab.query_until(stop, timers, 254, &hosts)));
            }
            let scripts: Vec<_> = lab
                .hosts
                .iter()
                .map(|host| {
                    let script = Script {
                        lab: &lab,
                        host,
                        took: &took,
                    };
                    scope.spawn(move || script.run())
                })
                .collect();
            let outcomes: Vec<_> = scripts.into_iter().map(|script| script.join()).collect();
            stop.store(true, Ordering::SeqCst);
            outcomes
                .into_iter()
                .for_each(|outcome| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        });
        for (what, took) in took.into_inner().unwrap() {
            println!("{:6.2} s  {what}", took.as_secs_f64());
        }
    });
}
