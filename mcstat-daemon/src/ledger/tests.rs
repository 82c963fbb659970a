//! Properties of the ledger over growing inputs. Known numbers are in `tests/scenarios`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::{collection::vec, prelude::*};

use super::{
    snapshot::{
        DirectionReading, GroupReading, KernelReading, OtherGroups, PodRef, PortReading, Snapshot, SwitchReading,
        Traffic,
    },
    *,
};
use crate::api::stats::{PodMulticastStats, Status};

/// What happens to one series of one port between two ticks.
#[derive(Debug, Clone)]
struct Step {
    port: u32,
    inbound: bool,
    group: usize,
    packets: u16,
    dropped: u8,
    /// Afterwards the slot is folded into *other groups*.
    fold: bool,
}

/// One tick: what happened before it, which ports it lists, and how far the clock went.
#[derive(Debug, Clone)]
struct Tick {
    steps: Vec<Step>,
    listed: [bool; PORTS],
    milliseconds: i64,
}

const PORTS: usize = 3;
const GROUPS: [&str; 5] = ["224.0.0.251", "239.1.1.1", "239.1.1.2", "ff02::fb", "ff15::1"];

fn ticks() -> impl Strategy<Value = Vec<Tick>> {
    let step = (
        0..PORTS as u32,
        any::<bool>(),
        0..GROUPS.len(),
        any::<u16>(),
        any::<u8>(),
        proptest::bool::weighted(0.1),
    );
    let step = step.prop_map(|(port, inbound, group, packets, dropped, fold)| Step {
        port,
        inbound,
        group,
        packets,
        dropped,
        fold,
    });
    // Mostly a second, now and then back in time.
    let milliseconds = prop_oneof![8 => 1..3_000i64, 1 => -60_000..0i64, 1 => 20_000..90_000i64];
    let tick = (
        vec(step, 0..8),
        proptest::array::uniform3(proptest::bool::weighted(0.8)),
        milliseconds,
    );
    vec(
        tick.prop_map(|(steps, listed, milliseconds)| Tick {
            steps,
            listed,
            milliseconds,
        }),
        1..25,
    )
}

fn start() -> Timestamp {
    "2026-11-24T08:00:00Z".parse().unwrap()
}

/// Ports 0 and 1 are one Pod's, port 2 another's.
fn ports() -> Vec<PortReading> {
    let port = |id: u32| PortReading {
        id,
        pod: PodRef {
            namespace: "mkt".to_owned(),
            name: format!("pod-{}", id / 2),
            sandbox: format!("sandbox-{}", id / 2),
        },
        interface: format!("net{id}"),
        host_interface: format!("veth{id}"),
        ifindex: id,
        start: start(),
        outbound: DirectionReading::default(),
        inbound: DirectionReading::default(),
    };
    (0..PORTS as u32).map(port).collect()
}

fn apply(ports: &mut [PortReading], step: &Step, at: Timestamp) {
    let port = &mut ports[step.port as usize];
    let reading = if step.inbound {
        &mut port.inbound
    } else {
        &mut port.outbound
    };
    let group = GROUPS[step.group].parse().unwrap();
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
            since: at,
        });
        reading.groups.sort_by_key(|series| series.group);
    }
    let index = reading.groups.iter().position(|series| series.group == group).unwrap();
    let series = &mut reading.groups[index];
    series.admitted.packets += u64::from(step.packets);
    series.admitted.segments += u64::from(step.packets);
    series.admitted.bytes += u64::from(step.packets) * 142;
    series.dropped += u64::from(step.dropped);
    series.would_drop += u64::from(step.packets.min(step.dropped.into()));
    series.last_seen = Some(at);
    if step.fold {
        let ended = reading.groups.remove(index);
        let other = &mut reading.other[usize::from(group.is_ipv6())];
        *other = OtherGroups {
            admitted: Traffic {
                packets: other.admitted.packets + ended.admitted.packets,
                segments: other.admitted.segments + ended.admitted.segments,
                bytes: other.admitted.bytes + ended.admitted.bytes,
            },
            dropped: other.dropped + ended.dropped,
            would_drop: other.would_drop + ended.would_drop,
            last_seen: other.last_seen.max(ended.last_seen),
            ..*other
        };
    }
}

fn ledger() -> Ledger {
    Ledger::new(Node {
        name: "n7".to_owned(),
        start_time: start(),
        push_interval_seconds: 10,
        window_seconds: WINDOW_SECONDS,
    })
}

/// Every count that must never fall while the sandbox is listed.
fn counts(status: &Status) -> [u64; 10] {
    let (inbound, outbound) = (status.inbound.clone().unwrap(), status.outbound.clone().unwrap());
    [
        inbound.packets,
        inbound.bytes,
        inbound.segments,
        inbound.link_local.packets,
        outbound.sent,
        outbound.admitted,
        outbound.dropped,
        outbound.bytes,
        outbound.families.ipv4.packets,
        outbound.link_local.packets,
    ]
}

fn check_sums(status: &Status) -> Result<(), TestCaseError> {
    let (inbound, outbound) = (status.inbound.clone().unwrap(), status.outbound.clone().unwrap());
    prop_assert_eq!(outbound.sent, outbound.admitted + outbound.dropped);
    for (packets, bytes, families) in [
        (inbound.packets, inbound.bytes, inbound.families),
        (outbound.admitted, outbound.bytes, outbound.families),
    ] {
        prop_assert_eq!(packets, families.ipv4.packets + families.ipv6.packets);
        prop_assert_eq!(bytes, families.ipv4.bytes + families.ipv6.bytes);
    }
    let sides = status.groups.iter().filter_map(|group| group.outbound.as_ref());
    let [dropped, would_drop] = sides.fold([0, 0], |[dropped, would_drop], side| {
        [dropped + side.dropped, would_drop + side.would_drop]
    });
    let other = outbound.other_groups;
    prop_assert_eq!(outbound.dropped, dropped + other.dropped);
    prop_assert_eq!(outbound.would_drop, would_drop + other.would_drop);
    let in_groups: u64 = status
        .groups
        .iter()
        .filter_map(|group| group.inbound.as_ref())
        .map(|side| side.packets)
        .sum();
    let out_groups: u64 = status
        .groups
        .iter()
        .filter_map(|group| group.outbound.as_ref())
        .map(|side| side.packets)
        .sum();
    prop_assert_eq!(inbound.packets, in_groups + inbound.other_groups.packets);
    prop_assert_eq!(outbound.admitted, out_groups + outbound.other_groups.packets);
    prop_assert!(inbound.link_local.packets <= inbound.packets);
    let sides = status
        .groups
        .iter()
        .flat_map(|group| [&group.inbound, &group.outbound])
        .flatten();
    let rates = sides
        .filter_map(|side| side.per_second)
        .chain(inbound.per_second)
        .chain(outbound.per_second);
    for rate in rates {
        prop_assert!(rate.is_finite() && rate >= 0.0, "rate {}", rate);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Interfaces come and go, series end and begin again, time jumps: while a sandbox is listed nothing falls.
    #[test]
    fn totals_never_fall_and_always_add_up(ticks in ticks()) {
        let (mut ledger, mut ports, mut at) = (ledger(), ports(), start());
        let mut before: BTreeMap<String, [u64; 10]> = BTreeMap::new();
        for tick in ticks {
            at += SignedDuration::from_millis(tick.milliseconds);
            tick.steps.iter().for_each(|step| apply(&mut ports, step, at));
            let listed = ports.iter().zip(tick.listed).filter(|(_, listed)| *listed).map(|(port, _)| port.clone());
            let snapshot = Snapshot {
                at,
                ports: listed.collect(),
                uncounted: Vec::new(),
                kernel: KernelReading::default(),
                namespaces: Vec::new(),
                switch: SwitchReading::None,
                switch_ports: BTreeMap::new(),
                policy: None,
                policy_awaited: false,
                detached: BTreeMap::new(),
                messages: Vec::new(),
            };
            let summary = ledger.tick(&snapshot);
            let mut now = BTreeMap::new();
            for PodMulticastStats { metadata, status, .. } in &summary.pods {
                check_sums(status)?;
                let counts = counts(status);
                for (now, before) in counts.iter().zip(before.get(&metadata.name).unwrap_or(&[0; 10])) {
                    prop_assert!(now >= before, "{} fell: {:?}", metadata.name, counts);
                }
                now.insert(metadata.name.clone(), counts);
            }
            // A sandbox that was not listed is forgotten: it may begin with what its first snapshot holds.
            before = now;
        }
    }

    /// The order in which a snapshot lists its ports and groups changes nothing.
    #[test]
    fn output_does_not_depend_on_the_order_of_the_input(ticks in ticks()) {
        let (mut one, mut other) = (ledger(), ledger());
        let (mut ports, mut at) = (ports(), start());
        for tick in ticks {
            at += SignedDuration::from_millis(tick.milliseconds);
            tick.steps.iter().for_each(|step| apply(&mut ports, step, at));
            let snapshot = Snapshot {
                at,
                ports: ports.clone(),
                uncounted: Vec::new(),
                kernel: KernelReading::default(),
                namespaces: Vec::new(),
                switch: SwitchReading::None,
                switch_ports: BTreeMap::new(),
                policy: None,
                policy_awaited: false,
                detached: BTreeMap::new(),
                messages: Vec::new(),
            };
            let mut reversed = snapshot.clone();
            reversed.ports.reverse();
            for port in &mut reversed.ports {
                port.inbound.groups.reverse();
                port.outbound.groups.reverse();
            }
            prop_assert_eq!(one.tick(&snapshot), other.tick(&reversed));
        }
    }
}

/// Groups of two families and ports: the order of the list is that of the search.
#[test]
fn joined_groups_are_those_of_their_own_port_only() {
    let kernel = |name: &str, groups: [&str; 3]| {
        serde_json::json!({
            "name": name,
            "groups": groups.map(|group| serde_json::json!({"group": group, "users": 1})),
        })
    };
    let namespace = serde_json::json!({
        "pod": {"namespace": "mkt", "name": "pod-0", "sandbox": "sandbox-0"},
        "interfaces": [kernel("net0", ["239.1.1.1", "239.1.1.3", "ff05::1"]), kernel("net1", ["224.0.0.1", "239.1.1.2", "ff05::2"])],
    });
    let snapshot = Snapshot {
        at: start(),
        ports: ports(),
        uncounted: Vec::new(),
        kernel: KernelReading::default(),
        namespaces: vec![serde_json::from_value(namespace).unwrap()],
        switch: SwitchReading::None,
        switch_ports: BTreeMap::new(),
        policy: None,
        policy_awaited: false,
        detached: BTreeMap::new(),
        messages: Vec::new(),
    };
    let mut ledger = ledger();
    ledger.tick(&snapshot);
    let joined = ledger.joined();
    let has = |port, group: &str| joined.contains(port, group.parse().unwrap());
    assert!(has(0, "239.1.1.1") && has(0, "239.1.1.3") && has(0, "ff05::1"));
    assert!(has(1, "224.0.0.1") && has(1, "239.1.1.2") && has(1, "ff05::2"));
    assert!(!has(0, "239.1.1.2") && !has(1, "ff05::1") && !has(2, "239.1.1.1"));
}
