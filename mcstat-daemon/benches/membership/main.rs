//! What membership costs: decoding and taking in IGMP messages, and the whole ledger's tick, on one core, without a kernel.
//!
//! Prints numbers and asserts none: `cargo xtask bench membership`, then `messages` or `ticks` for a part. Once seen on two
//! virtual cores of 2026, a second's work of one core:
//!
//! | messages of one Pod | a second | each |
//! |---|---|---|
//! | IGMPv2 reports | 5,700,000 | 0.2 µs |
//! | IGMPv3 reports with 1, 16, 183 records | 4,600,000, 500,000, 35,000 | 0.2, 2.0, 29 µs |
//! | 183 records, each denied by a rule of its own | 20,000 | 49 µs; 36 µs beside it when not judged |
//! | endless groups, 1 and 183 a report | 860,000, 43,000 | 1.2, 23 µs |
//! | endless joins and leaves | 2,100,000 | 0.5 µs |
//! | 450 groups by 150 hosts | 1,500,000 | 0.7 µs |
//!
//! A tick of 500 Pods with 20 groups each, all received and joined: 19 ms, 22 ms when every Pod answers a query; 7 ms without
//! memberships. Comparing them with a switch that has all of them as members: 0.6 ms more. To name the rule of each of 10,000
//! series sent: 4 ms.

#![expect(clippy::expect_used, reason = "a benchmark stops where it cannot go on")]

use std::{
    collections::BTreeMap,
    hint::black_box,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use mcstat::{
    ledger::{
        Ledger, Node, WINDOW_SECONDS,
        snapshot::{
            ControlEvent, Direction, DirectionReading, Enforced, GroupReading, KernelGroup, KernelInterface,
            KernelReading, NamespaceReading, PodRef, PolicyReading, PortReading, RuleReading, Snapshot, SwitchAccount,
            SwitchPort, SwitchReading, Traffic, WouldDrop,
        },
        switch::{FlowCount, Member, Switch, SwitchGroup},
        verdict::{Compiler, Limits, PodName, RuleRow, Tables},
    },
    proto::{
        control::{decode, encode_igmp},
        igmp::{IgmpMessage, IgmpQuery},
        wire::{QueryTail, Record, RecordKind, Report},
    },
};

/// Messages of one run: what one core must take in a second.
const MESSAGES: u32 = 10_000;
const RUNS: usize = 5;

fn main() {
    // Cargo adds options of its own.
    let parts: Vec<_> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    for (name, run) in [("messages", all_messages as fn()), ("ticks", ticks)] {
        if parts.is_empty() || parts.iter().any(|part| part == name) {
            run();
        }
    }
}

fn all_messages() {
    println!("{MESSAGES} messages in ten ticks of one Pod: decoding, ledger and summary");
    messages("IGMPv2 reports of 20 groups", |n| v2(host(n, 1), group(n % 20)));
    messages("IGMPv3 reports, 1 record", |n| v3(host(n, 1), group(n % 20), 1));
    messages("IGMPv3 reports, 16 records", |n| v3(host(n, 1), group(0), 16));
    messages("IGMPv3 reports, 183 records", |n| v3(host(n, 1), group(0), 183));
    let denied = policy(&node(1, 0));
    run("IGMPv3 reports, 183 records, all denied", Some(&denied), |n| {
        v3(host(n, 1), group(0), 183)
    });
    messages("IGMPv2 reports, endless groups", |n| v2(host(n, 1), group(n)));
    messages("IGMPv3 reports, 183 endless groups", |n| {
        v3(host(n, 1), group(n * 183), 183)
    });
    messages("IGMPv2 joins and leaves, endless groups", |n| match n % 2 {
        0 => v2(host(n, 1), group(n)),
        _ => packet(host(n, 1), &IgmpMessage::V2Leave { group: group(n - 1) }),
    });
    messages("IGMPv2 reports of 450 groups by 150 hosts", |n| {
        v2(host(n, 150), group(n % 450))
    });
}

fn ticks() {
    println!("ticks of 500 Pods with 20 groups, each received, joined by report and kernel");
    tick("nothing arrives", |_, _| Vec::new());
    tick("every member answers a query", answers);
    println!("ticks of 500 Pods with 20 series each and no membership");
    let mut snapshot = node(500, 20);
    without_members("counters alone", &mut snapshot);
    for port in &mut snapshot.ports {
        std::mem::swap(&mut port.outbound, &mut port.inbound);
    }
    without_members("the same sent", &mut snapshot);
    snapshot.policy = Some(policy(&snapshot));
    without_members("the same sent, a rule for each", &mut snapshot);
    println!("ticks of 500 Pods with 20 series each, beside a switch that has them all as members of 20 groups");
    beside_a_switch();
}

fn ledger() -> Ledger {
    Ledger::new(Node {
        name: "n7".to_owned(),
        start_time: start(),
        push_interval_seconds: 10,
        window_seconds: WINDOW_SECONDS,
    })
}

fn start() -> Timestamp {
    Timestamp::from_second(1_795_000_000).expect("a time")
}

fn later(seconds: u32) -> Timestamp {
    start() + SignedDuration::from_secs(seconds.into())
}

fn host(n: u32, hosts: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a0a_0001 + n % hosts)
}

fn group(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xef01_0000 + n)
}

fn packet(source: Ipv4Addr, message: &IgmpMessage) -> Vec<u8> {
    encode_igmp(source, Ipv4Addr::new(224, 0, 0, 22), 1, true, message).expect("a packet")
}

fn v2(source: Ipv4Addr, group: Ipv4Addr) -> Vec<u8> {
    packet(source, &IgmpMessage::V2Report { group })
}

fn v3(source: Ipv4Addr, first: Ipv4Addr, records: u32) -> Vec<u8> {
    let record = |n| Record {
        kind: RecordKind::ModeIsExclude,
        group: Ipv4Addr::from(u32::from(first) + n),
        sources: Vec::new(),
        aux_words: 0,
    };
    let records = (0..records).map(record).collect();
    packet(source, &IgmpMessage::V3Report(Report { records, missing: 0 }))
}

fn query() -> Vec<u8> {
    let tail = QueryTail {
        suppress: false,
        robustness: 2,
        interval_code: 125,
        sources: Vec::new(),
        missing: 0,
    };
    let query = IgmpQuery {
        max_response_code: 100,
        group: Ipv4Addr::UNSPECIFIED,
        tail: Some(tail),
    };
    packet(Ipv4Addr::new(10, 0, 0, 1), &IgmpMessage::Query(query))
}

fn event(port: u32, direction: Direction, at: Timestamp, packet: &[u8]) -> ControlEvent {
    let original_length = packet.len() as u32;
    ControlEvent {
        port,
        direction,
        at,
        original_length,
        message: decode(packet, original_length),
    }
}

/// 200 rules for each Pod: data and reports of 100 groups are denied one by one, and enforced.
fn policy(snapshot: &Snapshot) -> PolicyReading {
    let rules = (0..100).map(|n| {
        let group = group(n);
        format!(
            "{{name: d{n}, action: Drop, to: [{{ipBlock: {{cidr: {group}/32}}}}]}}, \
             {{name: r{n}, action: Drop, protocols: [{{igmp: {{groupAddress: {group}}}}}]}}"
        )
    });
    let rules: Vec<_> = rules.collect();
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p, uid: p}}, spec: {{priority: 5, \
         appliedTo: [{{namespaceSelector: {{}}}}], egress: [{}]}}}}",
        rules.join(", ")
    );
    let model = mcstat::agent::policy::read(&text)
        .expect("a policy")
        .into_iter()
        .collect();
    let pods = snapshot.ports.iter();
    let pods: Vec<_> = pods
        .map(|port| PodName::new(&port.pod.namespace, &port.pod.name))
        .collect();
    let mut compiler = Compiler::new(Limits::default());
    let mut tables = Tables::default();
    tables.apply(&compiler.compile(&model, &pods).expect("compiles"));
    let rule = |row: &RuleRow| RuleReading {
        row: row.clone(),
        start: start(),
        data: Traffic::default(),
        messages: 0,
        message_bytes: 0,
        records: 0,
        would_drop: WouldDrop::default(),
        flow: None,
    };
    let mut rules: Vec<_> = compiler.rules().map(rule).collect();
    rules.sort_by_key(|rule| rule.row.slot);
    PolicyReading {
        tables: tables.into(),
        rules,
        enforced: Enforced {
            data: true,
            reports: true,
            sources: true,
        },
        ..PolicyReading::default()
    }
}

/// The time of all messages from one Pod, in ten ticks.
fn messages(what: &str, make: impl Fn(u32) -> Vec<u8>) {
    run(what, None, make);
}

fn run(what: &str, policy: Option<&PolicyReading>, make: impl Fn(u32) -> Vec<u8>) {
    let packets: Vec<_> = (0..MESSAGES).map(make).collect();
    let bytes: usize = packets.iter().map(Vec::len).sum();
    let best = (0..RUNS).map(|_| {
        let mut ledger = ledger();
        let mut snapshot = node(1, 0);
        snapshot.policy = policy.cloned();
        let begin = Instant::now();
        for (second, batch) in packets.chunks(packets.len() / 10).enumerate() {
            snapshot.at = later(second as u32);
            let events = batch
                .iter()
                .map(|packet| event(1, Direction::Outbound, snapshot.at, packet));
            snapshot.messages = events.collect();
            black_box(ledger.tick(&snapshot));
        }
        begin.elapsed()
    });
    let best = best.min().expect("a run");
    let rate = f64::from(MESSAGES) / best.as_secs_f64();
    println!(
        "  {what:44} {rate:12.0} /s  {:8.2} µs each  {} bytes",
        best.as_secs_f64() * 1e6 / f64::from(MESSAGES),
        bytes / packets.len()
    );
}

/// A node of Pods with one interface and `groups` inbound series each.
fn node(pods: u32, groups: u32) -> Snapshot {
    let series = |n| GroupReading {
        group: group(n).into(),
        source: None,
        admitted: Traffic {
            packets: 1000,
            segments: 1000,
            bytes: 142_000,
        },
        dropped: 0,
        would_drop: 0,
        ttl1: 0,
        last_source: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        source_changes: 0,
        last_seen: Some(start()),
        since: start(),
    };
    let inbound = DirectionReading {
        groups: (0..groups).map(series).collect(),
        ..DirectionReading::default()
    };
    let port = |id: u32| PortReading {
        id,
        pod: PodRef {
            namespace: format!("market-data-{}", id % 7),
            name: format!("receiver-{id:04}-7d9f"),
            sandbox: format!("{id:064x}"),
        },
        interface: "eth0".to_owned(),
        host_interface: format!("veth{id}"),
        ifindex: id,
        start: start(),
        outbound: DirectionReading::default(),
        inbound: inbound.clone(),
    };
    Snapshot {
        at: start(),
        ports: (1..=pods).map(port).collect(),
        uncounted: Vec::new(),
        kernel: KernelReading::default(),
        namespaces: Vec::new(),
        switch: SwitchReading::None,
        switch_ports: BTreeMap::new(),
        policy: None,
        policy_awaited: false,
        detached: BTreeMap::new(),
        messages: Vec::new(),
    }
}

fn namespaces(snapshot: &Snapshot, groups: u32) -> Vec<NamespaceReading> {
    let joined = |n| KernelGroup {
        group: group(n).into(),
        users: 1,
        filter: None,
    };
    let mut readings: Vec<_> = snapshot
        .ports
        .iter()
        .map(|port| NamespaceReading {
            pod: port.pod.clone(),
            unavailable: None,
            interfaces: vec![KernelInterface {
                name: port.interface.clone(),
                igmp_version: Some(3),
                groups: (0..groups).map(joined).collect(),
            }],
            socket_drops: Some(0),
            losing_sockets: Vec::new(),
        })
        .collect();
    readings.sort_by(|a, b| a.pod.cmp(&b.pod));
    readings
}

/// One report of all 20 groups from every Pod.
fn answers(snapshot: &Snapshot, at: Timestamp) -> Vec<ControlEvent> {
    let report = v3(host(0, 1), group(0), 20);
    let ports = snapshot.ports.iter();
    ports
        .map(|port| event(port.id, Direction::Outbound, at, &report))
        .collect()
}

fn pass(snapshot: &mut Snapshot, second: u32) {
    snapshot.at = later(second);
    let sides = snapshot.ports.iter_mut();
    let sides = sides.flat_map(|port| [&mut port.inbound, &mut port.outbound]);
    for series in sides.flat_map(|side| &mut side.groups) {
        series.admitted.packets += 100;
        series.last_seen = Some(later(second));
    }
}

fn tick(what: &str, arriving: impl Fn(&Snapshot, Timestamp) -> Vec<ControlEvent>) {
    let mut ledger = ledger();
    let mut snapshot = node(500, 20);
    snapshot.namespaces = namespaces(&snapshot, 20);
    let query = query();
    let asked = snapshot
        .ports
        .iter()
        .map(|port| event(port.id, Direction::Inbound, start(), &query));
    snapshot.messages = asked.collect();
    snapshot.messages.extend(answers(&snapshot, start()));
    ledger.tick(&snapshot);
    let times = (1..=100).map(|second| {
        pass(&mut snapshot, second);
        snapshot.messages = arriving(&snapshot, later(second));
        time(&mut ledger, &snapshot)
    });
    print_tick(what, times.collect());
}

fn without_members(what: &str, snapshot: &mut Snapshot) {
    let mut ledger = ledger();
    snapshot.at = start();
    ledger.tick(snapshot);
    let times = (1..=100).map(|second| {
        pass(snapshot, second);
        time(&mut ledger, snapshot)
    });
    print_tick(what, times.collect());
}

/// The same node with and without the switch's account, taking turns: the difference is what comparing costs.
fn beside_a_switch() {
    let (mut alone, mut compared) = (ledger(), ledger());
    let mut snapshot = node(500, 20);
    let mut times = [Vec::new(), Vec::new()];
    for second in 0..=100 {
        if second > 0 {
            pass(&mut snapshot, second);
        }
        let account = account(&snapshot, second);
        let ports = (1..=500).map(|id| (id, switch_port(id)));
        for (which, ledger) in [&mut alone, &mut compared].into_iter().enumerate() {
            (snapshot.switch, snapshot.switch_ports) = match which {
                0 => (SwitchReading::None, BTreeMap::new()),
                _ => (SwitchReading::Read(Box::new(account.clone())), ports.clone().collect()),
            };
            let spent = time(ledger, &snapshot);
            if second > 0 {
                times[which].push(spent);
            }
        }
    }
    let [alone, compared] = times;
    let mut more: Vec<_> = compared
        .iter()
        .zip(&alone)
        .map(|(with, without)| with.saturating_sub(*without))
        .collect();
    print_tick("the veths alone", alone);
    print_tick("and compared with the switch", compared);
    more.sort();
    let median = more.get(more.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!("  {:44} {median:8.2} ms, paired median", "the comparison");
}

fn switch_port(id: u32) -> SwitchPort {
    SwitchPort {
        ofport: id,
        addresses: vec![Ipv4Addr::from(0x0a0a_0000 + id)],
    }
}

/// A switch that has counted what the veths have.
fn account(snapshot: &Snapshot, second: u32) -> SwitchAccount {
    let flow = |packets: u64| FlowCount {
        packets,
        bytes: packets * 142,
        duration: Duration::from_secs(u64::from(second) + 60),
        cookie: 0x1_0500_0000_0000,
    };
    let inbound = |port: &PortReading| port.inbound.groups.iter().map(|series| series.admitted.packets).sum();
    let member = |ofport| Member {
        ofport,
        tunnel_dst: None,
        table: Some(36),
    };
    let described = |n: u32| SwitchGroup {
        group: group(n),
        id: n + 1,
        members: Some((1..=500).map(member).collect()),
        unknown_buckets: 0,
    };
    let ports = &snapshot.ports;
    SwitchAccount {
        before: later(second),
        after: later(second),
        connection: 1,
        switch: Switch {
            outbound: Some(
                ports
                    .iter()
                    .map(|port| (Ipv4Addr::from(0x0a0a_0000 + port.id), flow(0)))
                    .collect(),
            ),
            inbound: Some(ports.iter().map(|port| (port.id, flow(inbound(port)))).collect()),
            egress: Some(BTreeMap::new()),
            ingress: Some(BTreeMap::new()),
            groups: (0..20).map(described).collect(),
            ..Switch::default()
        },
        groups_known: true,
        queue_drops: BTreeMap::new(),
    }
}

fn time(ledger: &mut Ledger, snapshot: &Snapshot) -> Duration {
    let begin = Instant::now();
    black_box(ledger.tick(snapshot));
    begin.elapsed()
}

fn print_tick(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let milliseconds = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!(
        "  {what:44} {:8.2} ms best {:8.2} ms median",
        milliseconds(times.first()),
        milliseconds(times.get(times.len() / 2))
    );
}
