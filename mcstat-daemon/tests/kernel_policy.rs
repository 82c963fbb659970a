//! Policies judged in the kernel: the same as the definitions say, for packets, records, and what tenants may send.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod policy_lab;
mod support;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
};

use mcstat::{
    agent::bpf::policy,
    ledger::{
        snapshot::{Enforced, ReportVerdicts, RuleReading, Traffic, WouldDrop},
        verdict::{Action, Transport},
    },
};
use mcstat_common::policy::{SPACE_DATA, SPACE_QUERY, SPACE_REPORT_V1, SPACE_REPORT_V2};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use policy_lab::{
    DROP_ONE, ENFORCED, Lab,
    messages::{Record, data, first_fragment, short, short_to, v3},
    policy_of,
    worlds::{self, Packet, Random, World},
};
use support::{Bpffs, frames, in_netns, ip, pod_port, wire::Wire};

const WORLDS: usize = 8;
const PACKETS: usize = 24;
const SEEDS: u64 = 16;

/// What grew, and by how much, between two readings: slot of the rule, growth of data, records and messages.
fn grown(before: &[RuleReading], after: &[RuleReading]) -> Vec<(u16, [u64; 3])> {
    let old: BTreeMap<u16, &RuleReading> = before.iter().map(|rule| (rule.row.slot, rule)).collect();
    let growth = after.iter().map(|rule| {
        let old = old[&rule.row.slot];
        let grown = [
            rule.data.packets - old.data.packets,
            rule.records - old.records,
            rule.messages - old.messages,
        ];
        (rule.row.slot, grown)
    });
    growth.filter(|(_, grown)| *grown != [0; 3]).collect()
}

const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);

/// Three frames that are this packet to a rule: thrice the same, or a first and two later fragments.
fn three_of(packet: &Packet) -> [Vec<u8>; 3] {
    let frame = match packet.space {
        SPACE_DATA => data(packet.address, packet.transport),
        // To all routers, not to the "group", which may be no multicast address.
        SPACE_REPORT_V1 => short_to(ROUTERS, 0x12, packet.address),
        SPACE_REPORT_V2 => short_to(ROUTERS, 0x16, packet.address),
        _ => v3(&[Record::join(packet.address)]),
    };
    let first = match packet.transport {
        Transport::UdpFragment => first_fragment(packet.address),
        _ => frame.clone(),
    };
    [first, frame.clone(), frame]
}

/// Judges a packet three times in the kernel (a data packet: a miss, then two hits) and holds the rule that was counted
/// against both other answers.
fn check(lab: &Lab, world: &World, packet: &Packet) -> Option<(String, String, Action)> {
    let (before, port_before, data_before) = (lab.rules(), lab.reading().outbound, lab.data());
    for frame in three_of(packet) {
        lab.send(&frame, 1);
    }
    let (after, port, data_after) = (lab.rules(), lab.reading().outbound, lab.data());
    let wanted = world.judge(&lab.pod, packet);
    {
        let by_tables = lab
            .tables
            .judge(&lab.pod, packet.space, packet.address, packet.transport);
        let rule = by_tables
            .rule
            .map(|slot| after.iter().find(|rule| rule.row.slot == slot).unwrap());
        let by_tables = rule.map(|rule| {
            let row = &rule.row;
            (row.policy.to_string(), row.id.name.to_string(), by_tables.action)
        });
        assert_eq!(by_tables, wanted, "{packet:?}: the tables");
    }
    let is_data = packet.space == SPACE_DATA;
    let rules = grown(&before, &after);
    let found = rules.iter().map(|(slot, grown)| {
        let growth = if is_data { [3, 0, 0] } else { [0, 3, 3] };
        assert_eq!(*grown, growth, "{packet:?}");
        let row = &after.iter().find(|rule| rule.row.slot == *slot).unwrap().row;
        (row.policy.to_string(), row.id.name.to_string(), row.action)
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::from_iter(wanted.clone()), "{packet:?}");
    // The Pod's own numbers say the same.
    let denied = 3 * u64::from(wanted.as_ref().is_some_and(|(_, _, action)| *action == Action::Drop));
    let (mut data, mut reports) = (data_before, port_before.reports);
    if is_data {
        data = [data[0] + 3 - denied, data[1] + denied, data[2]];
    } else {
        reports.records += 3;
        reports.dropped_messages += denied;
        reports.dropped_records += denied;
    }
    assert_eq!((data_after, port.reports), (data, reports), "{packet:?}");
    wanted
}

/// 2,000 cases and more, over 128 policy worlds that change one into the next under the same slots.
#[test]
fn the_kernel_decides_as_the_definitions_do() {
    let names = worlds::pods();
    let (mut cases, mut decided, mut dropped, mut by_port) = (0, 0, 0, 0);
    in_netns(move || {
        for seed in 0..SEEDS {
            let bpffs = Bpffs::new();
            let mut random = Random::new(seed);
            let mut lab = Lab::with(&bpffs.options(), &names[seed as usize % names.len()], &names);
            lab.enter();
            lab.enforce(ENFORCED);
            let mut world = World::random(&mut random);
            for _ in 0..WORLDS {
                lab.set(world.objects());
                for _ in 0..PACKETS {
                    let packet = worlds::packet(&mut random);
                    if packet.space == SPACE_QUERY {
                        continue;
                    }
                    let found = check(&lab, &world, &packet);
                    cases += 1;
                    decided += usize::from(found.is_some());
                    dropped += usize::from(found.as_ref().is_some_and(|(_, _, action)| *action == Action::Drop));
                    by_port += usize::from(found.is_some_and(|(policy, rule, _)| world.asks_for_ports(&policy, &rule)));
                }
                world = world.changed(&mut random);
            }
        }
        let shares = [decided, dropped, by_port].map(|count| count * 100 / cases);
        println!("{cases} cases: decided, dropped, by a rule with ports: {shares:?} %");
        assert!(cases >= 2_000, "{cases}");
        assert!(shares[0] >= 30 && shares[1] >= 10 && shares[2] >= 3, "{shares:?}");
    });
}

/// Tags, IP options, short datagrams: where the ports lie, and where they do not.
#[test]
fn ports_are_found_behind_tags_and_options_and_nowhere_else() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(policy_of(
            "ports",
            5,
            "{name: port, action: Drop, to: [{ipBlock: {cidr: 239.1.1.0/24}}], ports: [{protocol: UDP, port: 5000}]}, \
             {name: rest, action: Allow, to: [{ipBlock: {cidr: 239.1.1.0/24}}]}",
        ));
        lab.enforce(ENFORCED);
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let plain = data(group, Transport::Udp(5000));
        // Four bytes of options: No Operation (RFC 791 §3.1).
        let mut options = plain.clone();
        options.splice(34..34, [1, 1, 1, 1]);
        (options[14], options[17]) = (0x46, options[17] + 4);
        // Three bytes of UDP, and Ethernet padding that would be the port.
        let mut short = frames::frame4(&frames::ipv4(policy_lab::POD, group, 17, 16, 0, &[0x13, 0x88, 0x13]));
        short.extend_from_slice(&[0x88, 0, 0, 0, 0]);
        let tagged = frames::tagged(&plain, 0x8100, 42);
        for (what, frame, rule) in [
            ("plain", plain.clone(), "port"),
            ("options", options, "port"),
            ("one tag", tagged.clone(), "port"),
            ("two tags", frames::tagged(&tagged, 0x88a8, 7), "port"),
            ("another port", data(group, Transport::Udp(5001)), "rest"),
            ("first fragment", first_fragment(group), "rest"),
            ("later fragment", data(group, Transport::UdpFragment), "rest"),
            ("other protocol", data(group, Transport::Other), "rest"),
            ("cut off", short, "rest"),
        ] {
            let before = lab.rule(rule).data.packets;
            let all: u64 = lab.rules().iter().map(|rule| rule.data.packets).sum();
            lab.send(&frame, 2);
            assert_eq!(lab.rule(rule).data.packets, before + 2, "{what}");
            let now: u64 = lab.rules().iter().map(|rule| rule.data.packets).sum();
            assert_eq!(now, all + 2, "{what}: by one rule alone");
        }
        // What no rule judges: other groups, IPv6, and what is not from the Pod.
        let before = lab.rules();
        lab.send(&data(Ipv4Addr::new(239, 1, 2, 1), Transport::Udp(5000)), 2);
        lab.send(&frames::data("fd00::2", "ff05::1:3", 40), 2);
        lab.send(&frames::data("10.0.0.77", "239.1.1.1", 40), 2);
        assert_eq!(lab.rules(), before);
        assert_eq!(lab.reading().outbound.foreign_source, 2);
    });
}

#[test]
fn a_denial_is_a_drop_only_while_somebody_enforces_it() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        let (denied, report) = (
            data([239, 1, 1, 1].into(), Transport::Udp(5000)),
            short(0x16, [239, 1, 1, 1].into()),
        );
        let length = denied.len() as u64;
        lab.send(&denied, 3);
        lab.send(&report, 3);
        assert_eq!(lab.data(), [3, 0, 3], "admitted, and would be dropped");
        lab.enforce(Enforced {
            data: true,
            reports: false,
            sources: false,
        });
        lab.send(&denied, 5);
        lab.send(&report, 5);
        assert_eq!(lab.data(), [3, 5, 3]);
        lab.enforce(ENFORCED);
        lab.send(&report, 7);
        assert_eq!(
            lab.reading().outbound.reports,
            ReportVerdicts {
                records: 15,
                dropped_messages: 7,
                dropped_records: 7,
                would_drop_messages: 8,
                would_drop_records: 8,
            }
        );
        let (one, igmp) = (lab.rule("one"), lab.rule("igmp"));
        let traffic = |packets| Traffic {
            packets,
            segments: packets,
            bytes: packets * length,
        };
        assert_eq!((one.data, one.would_drop.packets), (traffic(5), 3));
        assert_eq!((igmp.messages, igmp.records), (7, 7));
        assert_eq!(igmp.message_bytes, 7 * report.len() as u64);
        let would_drop = WouldDrop {
            packets: 0,
            messages: 8,
            records: 8,
        };
        assert_eq!((igmp.would_drop, igmp.data), (would_drop, Traffic::default()));
        // A Pod that comes later is told the same.
        let entry = support::enter(&lab.kernel, &pod_port("late", "lo2", 2, &[]));
        assert_eq!(
            entry.port.flags,
            mcstat_common::abi::PORT_DATA_ENFORCED | mcstat_common::abi::PORT_REPORTS_ENFORCED
        );
    });
}

/// Packets without a slot are judged one by one, and counted so in *other groups*.
#[test]
fn packets_without_a_slot_are_judged_too() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        options.limits.slots_per_port = 2;
        let mut lab = Lab::new(&options);
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        lab.enforce(ENFORCED);
        for host in [7, 8, 1, 9] {
            lab.send(&data([239, 1, 1, host].into(), Transport::Udp(5000)), 10);
        }
        let outbound = lab.reading().outbound;
        assert_eq!((outbound.groups.len(), outbound.overflow.port_limit), (2, 20));
        assert_eq!(
            (outbound.other[0].admitted.packets, outbound.other[0].dropped),
            (10, 10)
        );
        assert_eq!(
            (lab.rule("one").data.packets, lab.rule("others").data.packets),
            (10, 30)
        );
    });
}

/// bpftool alone tells which rule decided how much.
#[test]
fn bpftool_tells_rules_by_name_and_field() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        lab.send(&data([239, 1, 1, 9].into(), Transport::Udp(5000)), 3);
        let pins = bpffs.options().pins();
        let dump = |map: &str| -> Vec<serde_json::Value> {
            let text = support::run("bpftool", &format!("-j map dump pinned {}", pins.join(map).display()));
            let entries: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            entries.into_iter().map(|entry| entry["formatted"].clone()).collect()
        };
        let text = |bytes: &serde_json::Value| -> String {
            let bytes = bytes
                .as_array()
                .unwrap()
                .iter()
                .map(|byte| byte.as_u64().unwrap() as u8);
            bytes.take_while(|byte| *byte != 0).map(char::from).collect()
        };
        let names = dump("rule_names");
        let name = names
            .iter()
            .find(|name| text(&name["value"]["rule"]) == "others")
            .unwrap();
        let value = &name["value"];
        assert_eq!(
            (text(&value["policy"]), text(&value["uid"])),
            ("p".into(), "uid-p".into())
        );
        assert_eq!((value["kind"].as_u64(), value["action"].as_u64()), (Some(1), Some(1)));
        let packets = |entries: &[serde_json::Value], key: &serde_json::Value| -> u64 {
            let entry = entries.iter().find(|entry| entry["key"] == *key).unwrap();
            let cpus = entry["values"].as_array().unwrap().iter();
            cpus.map(|cpu| cpu["value"]["packets"].as_u64().unwrap()).sum()
        };
        let slots = dump("slots");
        let decided = |slot: &&serde_json::Value| slot["value"]["decision"] == name["key"];
        let [slot] = slots.iter().filter(decided).collect::<Vec<_>>()[..] else {
            panic!("one slot of the rule that allows");
        };
        let ports = (&slot["value"]["first_port"], &slot["value"]["last_port"]);
        assert_eq!(ports, (&0.into(), &65535.into()), "whatever the port");
        assert_eq!(packets(&dump("counters"), &slot["key"]), 3);
        assert_eq!(packets(&dump("rules"), &name["key"]), 0, "what has no slot");
        let set = policy::set_of(&lab.kernel.maps, &lab.pod).unwrap();
        let prefixes = dump("policies");
        let prefix = |entry: &serde_json::Value| {
            let data = &entry["key"]["data"];
            let bytes = |field: &str| -> Vec<u64> {
                let bytes = data[field].as_array().unwrap().iter();
                bytes.map(|byte| byte.as_u64().unwrap()).collect()
            };
            let length = entry["key"]["prefix_len"].as_u64().unwrap();
            (length, bytes("set"), data["space"].as_u64().unwrap(), bytes("address"))
        };
        let set = vec![u64::from(set >> 8), u64::from(set & 0xff)];
        let wanted = (48, set, 0, vec![239, 1, 0, 0]);
        assert!(prefixes.iter().any(|entry| prefix(entry) == wanted), "{prefixes:?}");
    });
}

/// A packet of the kernel's own UDP_SEGMENT is one packet for a rule, with all of its segments.
#[test]
fn a_rule_counts_the_segments_of_a_segmented_send() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        let wire = Wire::new("pod-a");
        let mut port = pod_port("a", "pod-a", wire.ifindex, &["10.0.0.2"]);
        port.pod.namespace = "mkt".into();
        let entry = support::enter(&lab.kernel, &port);
        lab.kernel.programs.attach(&entry).unwrap();
        wire.up(1500);
        lab.set(policy_of("p", 5, DROP_ONE));
        wire.pod.run(|| {
            ip("addr add 10.0.0.2/24 dev eth0");
            ip("route add 239.0.0.0/8 dev eth0");
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect("239.1.1.9:5000").unwrap();
            (0..5).for_each(|_| assert_eq!(socket.send(&[3; 100]).unwrap(), 100));
            setsockopt(&socket, UdpGsoSegment, &1400).expect("UDP_SEGMENT (Linux 4.18)");
            (0..20).for_each(|_| assert_eq!(socket.send(&[3; 14_000]).unwrap(), 14_000));
        });
        let headers = 14 + 20 + 8;
        let wanted = Traffic {
            packets: 25,
            segments: 5 + 200,
            bytes: 5 * (100 + headers) + 20 * (14_000 + headers),
        };
        assert_eq!(lab.rule("others").data, wanted);
    });
}
