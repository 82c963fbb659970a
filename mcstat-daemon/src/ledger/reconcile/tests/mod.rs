//! The two ledgers on hand-made accounts: each cause and what does not name it, life over restarts, healthy traffic.
//!
//! A [`Lab`] is a node with a few Pods; a test says what the veth and what the switch counted between two ticks.

mod causes;
mod judged;
mod life;
mod losses;
mod memberships;
mod properties;
mod scenarios;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use mcstat_common::abi::PortBook;

use crate::{
    api::{
        ledgers::{Account, Cause, Ledgers},
        stats::Status,
    },
    ledger::{
        Ledger, Node, WINDOW_SECONDS,
        snapshot::{
            ControlEvent, DirectionReading, GroupReading, KernelReading, NamespaceReading, PodRef, PolicyReading,
            PortReading, Snapshot, SwitchAccount, SwitchPort, SwitchReading, Traffic, UncountedPort,
        },
        switch::{FlowCount, Member, Prefix, Rule, Switch, SwitchGroup, Verdict},
    },
};

/// A frame of 100 bytes of payload.
const FRAME: u64 = 142;
const ROUND_1: u64 = 0x1_0500_0000_0000;
const ROUND_2: u64 = 0x2_0500_0000_0000;

const AGREE: (&str, &str) = ("True", "Agree");
const DIFFER: (&str, &str) = ("False", "Differ");

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn start() -> Timestamp {
    "2026-11-24T08:00:00Z".parse().unwrap()
}

/// A flow of the switch.
#[derive(Debug, Clone, Copy)]
struct Flow {
    packets: u64,
    bytes: u64,
    added: Timestamp,
    cookie: u64,
}

struct Lab {
    ledger: Ledger,
    now: Timestamp,
    ports: Vec<PortReading>,
    outbound: BTreeMap<usize, Flow>,
    inbound: BTreeMap<usize, Flow>,
    rules: Vec<Rule>,
    rule_drops: BTreeMap<u32, u64>,
    groups: BTreeMap<Ipv4Addr, Vec<u32>>,
    groups_known: bool,
    queue_drops: BTreeMap<u32, u64>,
    detached: BTreeMap<u32, Timestamp>,
    uncounted: Vec<UncountedPort>,
    connection: u64,
    away: bool,
    /// The switch does not answer in time: its last account is seen again.
    late: bool,
    account: Option<Box<SwitchAccount>>,
    has_metrics: bool,
    has_ingress: bool,
    messages: Vec<ControlEvent>,
    namespaces: Vec<NamespaceReading>,
    policy: Option<PolicyReading>,
}

fn new_ledger() -> Ledger {
    Ledger::new(Node {
        name: "n7".to_owned(),
        start_time: start(),
        push_interval_seconds: 10,
        window_seconds: WINDOW_SECONDS,
    })
}

fn address(pod: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, 0, 10 + u8::try_from(pod).unwrap())
}

fn ofport(pod: usize) -> u32 {
    10 + u32::try_from(pod).unwrap()
}

fn id(pod: usize) -> u32 {
    1 + u32::try_from(pod).unwrap()
}

impl Lab {
    /// So many Pods with flows at zero, and two ticks: baseline, and the first that agrees.
    fn new(pods: usize) -> Self {
        let mut lab = Self::unread(pods);
        lab.ticks(2);
        lab
    }

    /// The same before the first tick.
    fn unread(pods: usize) -> Self {
        let port = |pod: usize| PortReading {
            id: id(pod),
            pod: PodRef {
                namespace: "mkt".to_owned(),
                name: format!("pod-{pod}"),
                sandbox: format!("sandbox-{pod}"),
            },
            interface: "eth0".to_owned(),
            host_interface: format!("veth{pod}"),
            ifindex: 100 + id(pod),
            start: start(),
            outbound: DirectionReading::default(),
            inbound: DirectionReading::default(),
        };
        let flow = Flow {
            packets: 0,
            bytes: 0,
            added: start() - SignedDuration::from_secs(60),
            cookie: ROUND_1,
        };
        Self {
            ledger: new_ledger(),
            now: start(),
            ports: (0..pods).map(port).collect(),
            outbound: (0..pods).map(|pod| (pod, flow)).collect(),
            inbound: (0..pods).map(|pod| (pod, flow)).collect(),
            rules: Vec::new(),
            rule_drops: BTreeMap::new(),
            groups: BTreeMap::new(),
            groups_known: true,
            queue_drops: BTreeMap::new(),
            detached: BTreeMap::new(),
            uncounted: Vec::new(),
            connection: 1,
            away: false,
            late: false,
            account: None,
            has_metrics: true,
            has_ingress: true,
            messages: Vec::new(),
            namespaces: Vec::new(),
            policy: None,
        }
    }

    /// The Pod sends; only its veth knows.
    fn sends(&mut self, pod: usize, group: &str, packets: u64) {
        let seen = self.now + SignedDuration::from_millis(10);
        let traffic = (packets, packets, packets * FRAME);
        add(&mut self.ports[pod].outbound, group, traffic, seen);
    }

    /// The veth hands over; only it knows.
    fn handed(&mut self, pod: usize, group: &str, packets: u64) {
        let seen = self.now + SignedDuration::from_millis(10);
        let traffic = (packets, packets, packets * FRAME);
        add(&mut self.ports[pod].inbound, group, traffic, seen);
    }

    /// The switch counts what the Pod sent.
    fn counts_sent(&mut self, pod: usize, packets: u64) {
        count(self.outbound.get_mut(&pod).unwrap(), packets);
    }

    /// The switch decides on copies for the Pod.
    fn counts_copies(&mut self, pod: usize, packets: u64) {
        count(self.inbound.get_mut(&pod).unwrap(), packets);
    }

    /// Both agree on what was sent.
    fn both_sent(&mut self, pod: usize, group: &str, packets: u64) {
        self.sends(pod, group, packets);
        self.counts_sent(pod, packets);
    }

    /// Both agree on what was handed over.
    fn both_handed(&mut self, pod: usize, group: &str, packets: u64) {
        self.handed(pod, group, packets);
        self.counts_copies(pod, packets);
    }

    fn members(&mut self, group: &str, pods: &[usize]) {
        let ports = pods.iter().map(|pod| ofport(*pod)).collect();
        self.groups.insert(ip(group), ports);
    }

    fn drop_rule(&mut self, id: u32, pods: &[usize], group: &str) {
        let host = |address| Prefix { address, bits: 32 };
        self.rules.push(Rule {
            id,
            priority: 14_000,
            sources: pods.iter().map(|pod| host(address(*pod))).collect(),
            groups: vec![host(ip(group))],
            verdict: Some(Verdict::Drop),
            ..Rule::default()
        });
        self.rule_drops.insert(id, 0);
    }

    /// What the switch says now.
    fn switch(&self, asked: Timestamp) -> Switch {
        let age = |added| Duration::from_millis(u64::try_from(asked.duration_since(added).as_millis()).unwrap());
        let flow = |flow: &Flow| FlowCount {
            packets: flow.packets,
            bytes: flow.bytes,
            duration: age(flow.added),
            cookie: flow.cookie,
        };
        let drops = |(id, packets): (&u32, &u64)| {
            let count = FlowCount {
                packets: *packets,
                bytes: packets * FRAME,
                duration: Duration::from_secs(9),
                cookie: 0x1_0200_0000_0000,
            };
            ((*id, Verdict::Drop), count)
        };
        let group = |(group, ports): (&Ipv4Addr, &Vec<u32>)| {
            let member = |ofport: &u32| Member {
                ofport: *ofport,
                tunnel_dst: None,
                table: Some(36),
            };
            SwitchGroup {
                group: *group,
                id: group.to_bits(),
                members: Some(ports.iter().map(member).collect()),
                unknown_buckets: 0,
            }
        };
        let (sent, copies) = (self.outbound.iter(), self.inbound.iter());
        let ingress = self.has_ingress && self.has_metrics;
        Switch {
            outbound: self
                .has_metrics
                .then(|| sent.map(|(pod, f)| (address(*pod), flow(f))).collect()),
            inbound: self
                .has_metrics
                .then(|| copies.map(|(pod, f)| (ofport(*pod), flow(f))).collect()),
            egress: ingress.then(|| self.rule_drops.iter().map(drops).collect()),
            ingress: ingress.then(BTreeMap::new),
            egress_rules: self.rules.clone(),
            groups: self.groups.iter().map(group).collect(),
            ..Switch::default()
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let before = self.now - SignedDuration::from_millis(4);
        let account = SwitchAccount {
            before,
            after: self.now - SignedDuration::from_millis(2),
            connection: self.connection,
            switch: self.switch(before),
            groups_known: self.groups_known,
            queue_drops: self.queue_drops.clone(),
        };
        let account = match self.account.take().filter(|_| self.late) {
            Some(last) => last,
            None => Box::new(account),
        };
        self.account = Some(account.clone());
        let port = |pod: usize| SwitchPort {
            ofport: ofport(pod),
            addresses: vec![address(pod)],
        };
        Snapshot {
            at: self.now,
            ports: self.ports.clone(),
            uncounted: self.uncounted.clone(),
            kernel: KernelReading::default(),
            namespaces: self.namespaces.clone(),
            switch: if self.away {
                SwitchReading::Away { since: start() }
            } else {
                SwitchReading::Read(account)
            },
            switch_ports: (0..self.ports.len()).map(|pod| (id(pod), port(pod))).collect(),
            policy: self.policy.clone(),
            policy_awaited: false,
            detached: self.detached.clone(),
            messages: std::mem::take(&mut self.messages),
        }
    }

    /// A second passes and everything is read.
    fn tick(&mut self) -> BTreeMap<usize, Status> {
        self.tick_after(1000)
    }

    fn tick_after(&mut self, milliseconds: i64) -> BTreeMap<usize, Status> {
        self.now += SignedDuration::from_millis(milliseconds);
        let snapshot = self.snapshot();
        let summary = self.ledger.tick(&snapshot);
        summary.pods.into_iter().map(|pod| pod.status).enumerate().collect()
    }

    /// So many ticks without traffic.
    fn ticks(&mut self, ticks: usize) -> BTreeMap<usize, Status> {
        (0..ticks).map(|_| self.tick()).last().unwrap()
    }

    /// Another agent process with the books of this one.
    fn restart_agent(&mut self) {
        let books: BTreeMap<u32, PortBook> = self.ledger.books().collect();
        self.ledger = new_ledger();
        self.ledger.restore(books, &[]);
    }
}

fn add(reading: &mut DirectionReading, group: &str, (packets, segments, bytes): (u64, u64, u64), seen: Timestamp) {
    let group = group.parse().unwrap();
    if !reading.groups.iter().any(|series| series.group == group) {
        reading.groups.push(GroupReading {
            group,
            source: None,
            admitted: Traffic::default(),
            dropped: 0,
            would_drop: 0,
            ttl1: 0,
            last_source: None,
            source_changes: 0,
            last_seen: None,
            since: seen,
        });
        reading.groups.sort_by_key(|series| series.group);
    }
    let mut series = reading.groups.iter_mut();
    let series = series.find(|series| series.group == group).unwrap();
    series.admitted.packets += packets;
    series.admitted.segments += segments;
    series.admitted.bytes += bytes;
    series.last_seen = Some(seen);
}

fn count(flow: &mut Flow, packets: u64) {
    flow.packets += packets;
    flow.bytes += packets * FRAME;
}

fn ledgers(status: &Status) -> &Ledgers {
    status.ledgers.as_ref().expect("a switch is read")
}

/// Direction, cause, who has more, packets and bytes of each discrepancy.
fn listed(status: &Status) -> Vec<(&str, Cause, Account, u64, Option<u64>)> {
    let discrepancies = ledgers(status).discrepancies.iter();
    let listed = discrepancies.map(|found| {
        let direction = found.direction.strip_suffix("bound").expect("a direction");
        (direction, found.cause, found.more, found.packets, found.bytes)
    });
    listed.collect()
}

/// `switchDropped` and `INBOUND_DROPPED`.
fn dropped(status: &Status) -> [Option<u64>; 2] {
    let (outbound, inbound) = (status.outbound.as_ref().unwrap(), status.inbound.as_ref().unwrap());
    [outbound.switch_dropped, inbound.dropped]
}

/// Status and reason of the condition.
fn agrees(status: &Status) -> (&str, &str) {
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|condition| condition.kind == "LedgersAgree");
    let condition = condition.expect("the condition is there");
    (&condition.status, &condition.reason)
}
