//! Whatever frames arrive, in whatever order and timing: no panic, bounded state, silent members go, and what joins nothing
//! makes no member.

use jiff::SignedDuration;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    api::stats::MembershipLimits,
    ledger::{
        Ledger, Node, WINDOW_SECONDS, lines,
        scene::{at, kernel, series, snapshot},
        snapshot::ControlEvent,
    },
    proto::control,
};

const HOSTS: [&str; 8] = [
    "10.10.0.5",
    "10.10.0.6",
    "0.0.0.0",
    "224.0.0.9",
    "fe80::5",
    "fe80::6",
    "::",
    "2001:db8::5",
];
const GROUPS_V4: [&str; 5] = ["239.1.1.1", "239.1.1.2", "232.1.1.1", "224.0.0.251", "10.1.1.1"];
const GROUPS_V6: [&str; 5] = ["ff0e::1", "ff0e::2", "ff3e::1", "ff02::fb", "2001:db8::1"];

/// One message without time and port.
fn message() -> impl Strategy<Value = String> {
    let host = proptest::sample::select(&HOSTS[..]);
    let direction = prop_oneof![4 => Just("out"), 1 => Just("in")];
    let records = vec(record(), 0..5);
    let query = (0..4usize, any::<u8>(), any::<u8>(), 0..8u8, any::<bool>());
    let spoilt = prop_oneof![8 => Just(""), 1 => Just(" bad-checksum"), 1 => Just(" cut=40"), 1 => Just(" ttl=64")];
    let parts = (host, direction, 0..5usize, 0..8u8, records, query, spoilt);
    parts.prop_map(|(host, direction, group, kind, records, query, spoilt)| {
        let ipv4 = !host.contains(':');
        let group = if ipv4 { GROUPS_V4 } else { GROUPS_V6 }[group];
        let records: Vec<_> = records.iter().map(|record| record.text(ipv4)).collect();
        let (form, qqic, max, qrv, suppress) = query;
        let asked = if form == 0 {
            String::new()
        } else {
            format!(" group={group}")
        };
        let values = format!(" qrv={qrv} qqic={qqic}{}", if suppress { " suppress" } else { "" });
        let said = match (kind, ipv4) {
            (0, true) => format!("igmpv1-report {group}"),
            (0 | 1, false) => format!("mldv1-report {group}"),
            (1, true) => format!("igmpv2-report {group}"),
            (2, true) => format!("igmpv2-leave {group}"),
            (2, false) => format!("mldv1-done {group}"),
            (3, true) => format!("igmpv1-query{asked}"),
            (4, true) => format!("igmpv2-query{asked} max={max}"),
            (5, true) => format!("igmpv3-query{asked} max={max}{values}"),
            (3 | 4, false) => format!("mldv1-query{asked} max={max}"),
            (5, false) => format!("mldv2-query{asked} max={max}{values}"),
            (_, true) => format!("igmpv3-report {}", records.join(" ")),
            (_, false) => format!("mldv2-report {}", records.join(" ")),
        };
        format!("{direction} {host} {said}{spoilt}")
    })
}

#[derive(Debug, Clone)]
struct Spoken {
    kind: u8,
    group: usize,
    times: u8,
    sources: Vec<u8>,
}

impl Spoken {
    fn text(&self, ipv4: bool) -> String {
        let kind = ["IS_IN", "IS_EX", "TO_IN", "TO_EX", "ALLOW", "BLOCK", "TYPE0", "TYPE7"][usize::from(self.kind)];
        let group = if ipv4 { GROUPS_V4 } else { GROUPS_V6 }[self.group];
        let prefix = if ipv4 { "192.0.2." } else { "2001:db8::" };
        let sources: Vec<_> = self.sources.iter().map(|last| format!("{prefix}{last}")).collect();
        format!("{kind}({group} x{}; {})", self.times, sources.join(","))
    }
}

fn record() -> impl Strategy<Value = Spoken> {
    let times = prop_oneof![9 => Just(1u8), 1 => 1..=183u8];
    (0..8u8, 0..5usize, times, vec(0..99u8, 0..4)).prop_map(|(kind, group, times, sources)| Spoken {
        kind,
        group,
        times,
        sources,
    })
}

/// What arrives at a port: a message, a damaged one, or any bytes.
#[derive(Debug, Clone)]
enum Arrival {
    Line(String),
    Bytes(Vec<u8>),
}

impl Arrival {
    fn event(&self, port: u32, at: Timestamp) -> ControlEvent {
        match self {
            Self::Line(line) => lines::event(&format!("{at} {port} {line}")).unwrap(),
            Self::Bytes(bytes) => ControlEvent {
                port,
                direction: Direction::Outbound,
                at,
                original_length: bytes.len() as u32,
                message: control::decode(bytes, bytes.len() as u32),
            },
        }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        9 => message().prop_map(Arrival::Line),
        1 => vec(any::<u8>(), 0..80).prop_map(Arrival::Bytes),
    ]
}

/// One tick of two ports: what arrives, what the kernel of Pod 1 says, and how far the clock goes.
#[derive(Debug, Clone)]
struct Tick {
    arrivals: Vec<(u32, i64, Arrival)>,
    kernel: Option<Vec<usize>>,
    ports: u32,
    lost: u64,
    seconds: i64,
}

fn tick() -> impl Strategy<Value = Tick> {
    // Port 3 is not listed; a message may be older than the tick, or newer.
    let arrivals = vec((1..4u32, -400..10i64, arrival()), 0..12);
    let seconds = prop_oneof![6 => 0..5i64, 3 => 5..400i64, 1 => -100_000..0i64, 1 => 0..100_000i64];
    let kernel = proptest::option::of(vec(0..10usize, 0..6));
    (arrivals, kernel, 0..3u32, 0..2u64, seconds).prop_map(|(arrivals, kernel, ports, lost, seconds)| Tick {
        arrivals,
        kernel,
        ports,
        lost,
        seconds,
    })
}

fn check_bounds(all: &Memberships) -> Result<(), TestCaseError> {
    for (_, port) in all.ports() {
        prop_assert!(port.link.groups().len() <= link::MAX_GROUPS);
        prop_assert!(port.members.len() <= 2 * link::MAX_GROUPS);
        prop_assert!(port.served.len() <= 2 * link::MAX_GROUPS);
        prop_assert!(port.link.hosts() <= 8);
        prop_assert!(port.link.ignored.len() <= 12);
        for ipv4 in [true, false] {
            prop_assert!(port.queriers(ipv4).all().count() <= 16);
        }
        let sources = port
            .memberships()
            .values()
            .map(|membership| membership.sources.len())
            .max();
        prop_assert!(sources.unwrap_or(0) <= filter::MAX_SOURCES);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    /// The whole ledger, findings and summary included; the clock jumps both ways.
    #[test]
    fn nothing_panics_and_everything_is_bounded(ticks in vec(tick(), 1..25)) {
        let mut ledger = Ledger::new(Node {
            name: "n7".to_owned(),
            start_time: at(0),
            push_interval_seconds: 10,
            window_seconds: WINDOW_SECONDS,
        });
        let mut now = 1_000_000;
        let mut lost = 0;
        for tick in ticks {
            now += tick.seconds;
            lost += tick.lost;
            let mut snapshot = snapshot(now, tick.ports, &[]);
            snapshot.kernel.events_lost = lost;
            snapshot.messages = tick.arrivals.iter().map(|(port, late, arrival)| arrival.event(*port, at(now + late))).collect();
            if let Some(groups) = &tick.kernel {
                let groups: Vec<_> = groups.iter().map(|index| GROUPS_V4.iter().chain(&GROUPS_V6).nth(*index).copied().unwrap()).collect();
                snapshot.namespaces.push(kernel(1, &groups));
            }
            if let Some(port) = snapshot.ports.first_mut() {
                port.inbound.groups.push(series("239.1.1.1", now - 7, "192.0.2.1"));
                port.outbound.groups.push(series("239.1.1.2", now, "10.10.0.5"));
            }
            let summary = ledger.tick(&snapshot);
            prop_assert_eq!(summary.pods.len(), tick.ports as usize);
            check_bounds(&ledger.memberships)?;
        }
    }

    /// Reports alone. The querier's values are 3 × 40 s + 10 s and never change: 130 s after a group was last spoken of
    /// nobody is its member, however many hosts spoke and whatever they said.
    #[test]
    fn a_silent_member_is_gone_after_its_membership_interval(ticks in vec((0..80i64, vec((0..10u32, message()), 0..6)), 1..30)) {
        let mut all = Memberships::default();
        let querier = [
            "1 in 10.0.0.1 igmpv3-query qrv=3 qqic=40 max=100",
            "1 in fe80::1 mldv2-query qrv=3 qqic=40 max=10000",
        ];
        all.update(&snapshot(0, 1, &querier));
        let mut spoken: BTreeMap<IpAddr, i64> = BTreeMap::new();
        let mut now = 0;
        for (seconds, messages) in ticks {
            now += seconds;
            let messages: Vec<_> = messages.iter().filter(|(_, line)| !line.contains("query")).map(|(_, line)| format!("1 {line}")).collect();
            let lines: Vec<_> = messages.iter().map(String::as_str).collect();
            let snapshot = snapshot(now, 1, &lines);
            for event in &snapshot.messages {
                for group in event.message.iter().flat_map(|message| groups_of(&message.body)) {
                    spoken.insert(group, now);
                }
            }
            all.update(&snapshot);
            for (group, membership) in all.port(1).unwrap().memberships() {
                let last = spoken.get(group).copied().unwrap_or(i64::MIN);
                prop_assert!(membership.joined && now < last + 130, "{group} at {now}, last spoken of at {last}");
                prop_assert!(membership.expires.is_some_and(|expires| expires <= at(last + 130)));
                prop_assert!(membership.witness == [crate::api::stats::Witness::Report]);
            }
        }
        all.update(&snapshot(now + 130, 1, &[]));
        prop_assert!(all.port(1).unwrap().memberships().is_empty());
    }

    /// BLOCK, unknown kinds, and lists of nobody, from any number of hosts.
    #[test]
    fn what_joins_nothing_makes_no_member(reports in vec((0..6usize, vec(record(), 1..6)), 1..20)) {
        let mut all = Memberships::default();
        for (second, (host, records)) in reports.into_iter().enumerate() {
            let host = ["10.10.0.5", "10.10.0.6", "0.0.0.0", "fe80::5", "fe80::6", "::"][host];
            let ipv4 = !host.contains(':');
            let harmless = records.into_iter().map(|mut record| {
                match record.kind {
                    1 | 3 => record.kind = 5,
                    0 | 2 | 4 => record.sources.clear(),
                    _ => {}
                }
                record.text(ipv4)
            });
            let kind = if ipv4 { "igmpv3-report" } else { "mldv2-report" };
            let line = format!("1 out {host} {kind} {}", harmless.collect::<Vec<_>>().join(" "));
            all.update(&snapshot(second as i64, 1, &[&line]));
            let port = all.port(1).unwrap();
            prop_assert!(port.memberships().is_empty() && port.members.is_empty(), "{}", line);
            prop_assert_eq!(port.limits(), MembershipLimits::default());
        }
    }
}

/// The groups that a report or leave speaks of.
fn groups_of(body: &control::Body) -> Vec<IpAddr> {
    use crate::proto::{igmp::IgmpMessage, mld::MldMessage};
    match body {
        control::Body::Igmp(IgmpMessage::V3Report(report)) => report.records.iter().map(|r| r.group.into()).collect(),
        control::Body::Mld(MldMessage::V2Report(report)) => report.records.iter().map(|r| r.group.into()).collect(),
        control::Body::Igmp(IgmpMessage::V1Report { group } | IgmpMessage::V2Report { group }) => vec![(*group).into()],
        control::Body::Mld(MldMessage::V1Report { group }) => vec![(*group).into()],
        _ => Vec::new(),
    }
}

/// Endless distinct groups from one Pod, and endless sources and queriers: what is kept stays within its bounds.
#[test]
fn floods_are_bounded() {
    let mut all = Memberships::default();
    for second in 0..40u32 {
        let lines: Vec<_> = (0..20u32)
            .map(|n| {
                let number = second * 20 + n;
                let (high, low) = (number >> 8, number & 255);
                match n % 4 {
                    0 => format!("1 out 10.10.{high}.{low} igmpv3-report TO_EX(238.{high}.{low}.0 x183)"),
                    1 => format!("1 out fe80::{number} mldv2-report TO_EX(ff0e::{number}:0 x80)"),
                    2 => format!("1 in 10.{high}.{low}.1 igmpv3-query"),
                    _ => format!("1 out 10.10.0.5 igmpv3-report ALLOW(232.1.1.1; 10.{high}.{low}.1,10.{high}.{low}.2)"),
                }
            })
            .collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        all.update(&snapshot(second.into(), 1, &lines));
        check_bounds(&all).unwrap();
    }
    let limits = all.port(1).unwrap().limits();
    assert!(
        limits.groups_refused > 50_000 && limits.sources_refused > 0,
        "{limits:?}"
    );
    all.update(&snapshot(40 + 260, 1, &[]));
    let long = SignedDuration::from_secs(260 + 600);
    all.update(&snapshot(40 + long.as_secs(), 1, &[]));
    let port = all.port(1).unwrap();
    assert!(
        port.members.is_empty() && port.link.groups().is_empty(),
        "nothing is kept of it"
    );
}
