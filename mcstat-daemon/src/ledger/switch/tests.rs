//! On recorded descriptions (`tests/golden/openflow/README.md`) and on flows as Antrea's own tests have them.

use std::time::Duration;

use super::*;
use crate::proto::openflow::{Action, Bucket, Field, FlowStats, GroupKind, UnknownField, decode_flows, decode_groups};

/// After the HELLO and the header of the multipart reply.
const ENTRIES: usize = 32;

fn recorded() -> Description {
    let mut description = Description::default();
    let tables: [&[u8]; 7] = [
        include_bytes!("../../../tests/golden/openflow/flow-dump-of15-table32.s2c.bin"),
        include_bytes!("../../../tests/golden/openflow/flow-dump-of15-table33.s2c.bin"),
        include_bytes!("../../../tests/golden/openflow/flow-dump-of15-table34.s2c.bin"),
        include_bytes!("../../../tests/golden/openflow/flow-dump-of15-table35.s2c.bin"),
        include_bytes!("../../../tests/golden/openflow/flow-dump-of15-table36.s2c.bin"),
        include_bytes!("../../../tests/golden/openflow/flow-dump-of15-table37.s2c.bin"),
        include_bytes!("../../../tests/golden/openflow/flow-dump-of15-table38.s2c.bin"),
    ];
    for (table, bytes) in Table::ALL.into_iter().zip(tables) {
        let flows = description.tables.entry(table).or_default();
        decode_flows(&bytes[ENTRIES..], flows).unwrap();
    }
    let bytes = include_bytes!("../../../tests/golden/openflow/group-desc-of15.s2c.bin");
    decode_groups(&bytes[ENTRIES..], &mut description.groups).unwrap();
    description
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// Key, packets and bytes.
fn numbers<K: Copy>(counts: Option<&BTreeMap<K, FlowCount>>) -> Vec<(K, u64, u64)> {
    let counts = counts.expect("the table is there");
    counts
        .iter()
        .map(|(key, count)| (*key, count.packets, count.bytes))
        .collect()
}

/// The numbers are those that `ovs-ofctl` printed for the recordings.
#[test]
fn recorded_counters_of_pods_and_rules() {
    let switch = Switch::new(&recorded());
    let sent = [
        (ip("10.10.0.11"), 3670, 521_140),
        (ip("10.10.0.12"), 0, 0),
        (ip("10.10.0.13"), 0, 0),
    ];
    assert_eq!(numbers(switch.outbound.as_ref()), sent);
    let received = [(10, 0, 0), (11, 3670, 521_140), (12, 3670, 521_140)];
    assert_eq!(numbers(switch.inbound.as_ref()), received);
    let rules = [((3, Verdict::Drop), 0, 0), ((4, Verdict::Allow), 3670, 521_140)];
    assert_eq!(numbers(switch.egress.as_ref()), rules);
    assert_eq!(numbers(switch.ingress.as_ref()), [((5, Verdict::Drop), 0, 0)]);
    let first = switch.outbound.as_ref().unwrap()[&ip("10.10.0.11")];
    assert_eq!(first.duration, Duration::from_millis(687_810));
    assert_eq!(first.cookie, 0x1_0500_0000_0000);
    assert!(switch.unknown.is_empty(), "{:?}", switch.unknown);
    assert!(switch.has_metrics());
}

/// The recorded bridge has the tables of policies and sends IGMP to the controller.
#[test]
fn what_a_bridge_enforces_shows_in_its_tables() {
    let enforced = |description: &Description| Switch::new(description).enforced();
    let mut description = recorded();
    let both = Enforced {
        data: true,
        reports: true,
        sources: true,
    };
    assert_eq!(enforced(&description), Some(both));
    let routing = description.tables.get_mut(&Table::Routing).unwrap();
    routing.retain(|flow| !flow.fields.contains(&Field::IpProto(2)));
    let data = Enforced { reports: false, ..both };
    assert_eq!(enforced(&description), Some(data), "nobody decides about reports");
    let mut description = recorded();
    description.tables.remove(&Table::EgressMetric);
    let sources = Enforced {
        sources: true,
        ..Enforced::default()
    };
    assert_eq!(enforced(&description), Some(sources), "AntreaPolicy is off");
    description.tables.insert(Table::EgressMetric, Vec::new());
    description.tables.insert(Table::Routing, Vec::new());
    assert_eq!(enforced(&description), None, "named and not yet programmed");
    assert_eq!(enforced(&Description::default()), None);
}

#[test]
fn recorded_rules() {
    let switch = Switch::new(&recorded());
    let host = |text: &str| Prefix {
        address: ip(text),
        bits: 32,
    };
    let egress = [
        Rule {
            id: 3,
            priority: 14_599,
            sources: ["10.10.0.11", "10.10.0.12", "10.10.0.13"].map(host).to_vec(),
            groups: vec![host("239.9.9.9")],
            verdict: Some(Verdict::Drop),
            ..Rule::default()
        },
        Rule {
            id: 4,
            priority: 14_600,
            sources: vec![host("10.10.0.11")],
            groups: vec![host("239.1.1.1")],
            // The recording has the deny mark on it; that its metric goes on is what counts.
            verdict: Some(Verdict::Allow),
            ..Rule::default()
        },
    ];
    assert_eq!(switch.egress_rules, egress);
    let ingress = Rule {
        id: 5,
        priority: 14_600,
        groups: vec![host("239.1.1.2")],
        ofports: vec![12],
        verdict: Some(Verdict::Drop),
        ..Rule::default()
    };
    assert_eq!(switch.ingress_rules, [ingress]);
}

#[test]
fn recorded_groups() {
    let description = recorded();
    assert_eq!(
        description.routed_groups().into_iter().collect::<Vec<u32>>(),
        [101, 102]
    );
    let switch = Switch::new(&description);
    let members = |ports: &[u32]| {
        let member = |ofport: &u32| Member {
            ofport: *ofport,
            tunnel_dst: None,
            table: Some(36),
        };
        Some(ports.iter().map(member).collect::<Vec<Member>>())
    };
    let groups: Vec<_> = switch
        .groups
        .iter()
        .map(|group| (group.group, group.id, group.members.clone(), group.unknown_buckets))
        .collect();
    let expected = [
        (ip("239.1.1.1"), 101, members(&[2, 11, 12]), 0),
        (ip("239.1.1.2"), 102, members(&[2, 10, 11, 12]), 0),
    ];
    assert_eq!(groups, expected);
    let ports: Vec<_> = switch.groups_by_port().into_iter().collect();
    let both = vec![ip("239.1.1.1"), ip("239.1.1.2")];
    let expected = [
        (2, both.clone()),
        (10, vec![ip("239.1.1.2")]),
        (11, both.clone()),
        (12, both),
    ];
    assert_eq!(ports, expected);
}

#[test]
fn a_bridge_of_another_kind_has_no_metrics() {
    let switch = Switch::new(&Description::default());
    assert_eq!(switch, Switch::default());
    assert!(!switch.has_metrics());
}

/// A flow as [`metrics`] wants it, with goto: 11 packets of 142 bytes in round 1.
fn flow(category: u64, fields: Vec<Field>) -> FlowDesc {
    FlowDesc {
        table: 9,
        priority: 200,
        cookie: 1 << 48 | category << 40,
        fields,
        stats: FlowStats {
            duration: Some(Duration::from_secs(7)),
            idle: None,
            packets: Some(11),
            bytes: Some(1562),
        },
        actions: Vec::new(),
        goto_table: Some(10),
        unknown: Vec::new(),
    }
}

fn reg(number: u8, value: u32) -> Field {
    Field::Register {
        number,
        value,
        mask: u32::MAX,
    }
}

fn deny_mark() -> Field {
    Field::Register {
        number: 0,
        value: 0x400,
        mask: 0x400,
    }
}

fn src(text: &str) -> Field {
    Field::Ipv4Src {
        address: ip(text),
        mask: Ipv4Addr::BROADCAST,
    }
}

fn dst(text: &str, mask: &str) -> Field {
    Field::Ipv4Dst {
        address: ip(text),
        mask: ip(mask),
    }
}

fn switch_of(table: Table, flows: Vec<FlowDesc>) -> Switch {
    Switch::new(&Description {
        tables: BTreeMap::from([(table, flows)]),
        groups: Vec::new(),
    })
}

const IP: Field = Field::EthType(IPV4);

/// The lines of Antrea's test of its own parser: an allowed and a dropped rule, a resubmitted one.
#[test]
fn rule_metrics_of_antreas_tests() {
    let mut dropped = flow(2, vec![deny_mark(), reg(3, 3)]);
    dropped.goto_table = None;
    (dropped.stats.packets, dropped.stats.bytes) = (Some(230), Some(32_660));
    let switch = switch_of(Table::EgressMetric, vec![flow(2, vec![reg(3, 4)]), dropped]);
    let expected = [((3, Verdict::Drop), 230, 32_660), ((4, Verdict::Allow), 11, 1562)];
    assert_eq!(numbers(switch.egress.as_ref()), expected);

    let mut resubmitted = flow(2, vec![reg(3, 3)]);
    resubmitted.goto_table = None;
    resubmitted.actions = vec![Action::Resubmit {
        in_port: 0xfff8,
        table: 38,
    }];
    (resubmitted.stats.packets, resubmitted.stats.bytes) = (Some(18), Some(780));
    let switch = switch_of(Table::IngressMetric, vec![resubmitted]);
    assert_eq!(numbers(switch.ingress.as_ref()), [((3, Verdict::Allow), 18, 780)]);
}

/// What Antrea's parser skips, and what it never gets to see since its dump asks for one cookie.
#[test]
fn stale_and_foreign_flows_are_no_rule_metrics() {
    let mut output = flow(2, vec![reg(3, 6)]);
    output.goto_table = None;
    output.actions = vec![Action::Output { port: 2 }];
    let flows = vec![
        flow(2, vec![IP, dst("10.0.0.0", "255.255.255.0")]),
        flow(2, vec![reg(3, 0)]),
        flow(2, vec![IP, reg(1, 7)]),
        flow(5, vec![reg(3, 4)]),
        flow(2, vec![reg(3, 4), unknown_field()]),
        output,
    ];
    let missed = u32::try_from(flows.len()).unwrap();
    let switch = switch_of(Table::EgressMetric, flows);
    assert!(numbers(switch.egress.as_ref()).is_empty());
    assert_eq!(switch.unknown, BTreeMap::from([(Table::EgressMetric, missed)]));
}

/// Pod 10.10.0.66 at port 100, in Antrea's test.
#[test]
fn pod_metrics_of_antreas_tests() {
    let switch = switch_of(Table::EgressPodMetric, vec![flow(5, vec![IP, src("10.10.0.66")])]);
    assert_eq!(numbers(switch.outbound.as_ref()), [(ip("10.10.0.66"), 11, 1562)]);
    assert!(switch.inbound.is_none());
    for fields in [vec![IP, reg(1, 0x64)], vec![reg(1, 0x64), IP]] {
        let switch = switch_of(Table::IngressPodMetric, vec![flow(5, fields)]);
        assert_eq!(numbers(switch.inbound.as_ref()), [(100, 11, 1562)]);
    }
}

fn unknown_field() -> Field {
    Field::Unknown(UnknownField {
        class: 0x8000,
        field: 13,
        has_mask: false,
        len: 2,
    })
}

#[test]
fn a_pod_metric_is_nothing_more_and_nothing_less() {
    let igmp = FlowDesc {
        priority: 210,
        ..flow(5, vec![IP, Field::IpProto(2)])
    };
    let miss = FlowDesc {
        priority: 0,
        ..flow(0, vec![])
    };
    let uncounted = FlowDesc {
        stats: FlowStats::default(),
        ..flow(5, vec![IP, src("10.10.0.3")])
    };
    let masked = Field::Ipv4Src {
        address: ip("10.10.0.0"),
        mask: ip("255.255.255.0"),
    };
    let flows = vec![
        // No metrics and not meant to be: not unknown either.
        igmp,
        miss,
        // Unknown.
        uncounted,
        flow(5, vec![IP, src("10.10.0.1"), unknown_field()]),
        flow(5, vec![IP, src("10.10.0.1"), dst("239.1.1.1", "255.255.255.255")]),
        flow(5, vec![IP, masked]),
        flow(5, vec![IP]),
        flow(2, vec![IP, src("10.10.0.1")]),
        // The metric, in another round than the others.
        FlowDesc {
            cookie: 0x2_0500_0000_0000,
            ..flow(5, vec![IP, src("10.10.0.2")])
        },
    ];
    let switch = switch_of(Table::EgressPodMetric, flows);
    assert_eq!(numbers(switch.outbound.as_ref()), [(ip("10.10.0.2"), 11, 1562)]);
    assert_eq!(switch.unknown, BTreeMap::from([(Table::EgressPodMetric, 6)]));
}

/// As Antrea writes rules: the deny mark on denials only; with logging, the packet goes on by a group.
#[test]
fn the_deny_mark_speaks_where_no_metric_does() {
    let set = |field| Action::SetField(field);
    let allow = FlowDesc {
        priority: 14_500,
        actions: vec![set(reg(3, 7))],
        ..flow(2, vec![Field::ConjunctionId(7)])
    };
    let deny = FlowDesc {
        priority: 14_501,
        actions: vec![set(reg(3, 8)), set(deny_mark()), Action::Group { id: 4 }],
        goto_table: None,
        ..flow(2, vec![Field::ConjunctionId(8)])
    };
    let clause = |id, clause, field: Vec<Field>| FlowDesc {
        priority: 14_500,
        actions: vec![Action::Conjunction { id, clause, clauses: 2 }],
        goto_table: None,
        ..flow(2, field)
    };
    // One match for two rules, a CIDR, a UDP port that is unknown here, and a rule whose action is not there yet.
    let mut shared = clause(7, 1, vec![IP, dst("239.1.0.0", "255.255.0.0")]);
    shared.actions.push(Action::Conjunction {
        id: 8,
        clause: 1,
        clauses: 3,
    });
    let direct = FlowDesc {
        priority: 14_400,
        actions: vec![set(reg(3, 10)), set(deny_mark())],
        ..flow(2, vec![IP, dst("224.0.0.0", "240.0.0.0")])
    };
    let flows = vec![
        allow,
        deny,
        shared,
        clause(8, 2, vec![IP, Field::IpProto(17), unknown_field()]),
        clause(9, 0, vec![Field::InPort(12)]),
        direct,
        flow(2, vec![IP]),
    ];
    let switch = switch_of(Table::EgressRule, flows);
    let prefix = |text: &str, bits| Prefix {
        address: ip(text),
        bits,
    };
    let expected = [
        Rule {
            id: 7,
            priority: 14_500,
            groups: vec![prefix("239.1.0.0", 16)],
            verdict: Some(Verdict::Allow),
            ..Rule::default()
        },
        Rule {
            id: 8,
            priority: 14_501,
            groups: vec![prefix("239.1.0.0", 16)],
            unexpressed: 1,
            verdict: Some(Verdict::Drop),
            ..Rule::default()
        },
        Rule {
            id: 9,
            priority: 14_500,
            ofports: vec![12],
            ..Rule::default()
        },
        Rule {
            id: 10,
            priority: 14_400,
            groups: vec![prefix("224.0.0.0", 4)],
            verdict: Some(Verdict::Drop),
            ..Rule::default()
        },
    ];
    assert_eq!(switch.egress_rules, expected);
    assert_eq!(switch.unknown, BTreeMap::from([(Table::EgressRule, 1)]));
}

/// As in encap mode: a bucket with the tunnel for each remote node, straight to the output table.
#[test]
fn remote_members_are_told_from_local_ones() {
    let route = |group: &str, id| {
        let mut route = flow(5, vec![IP, dst(group, "255.255.255.255")]);
        (route.goto_table, route.actions) = (None, vec![Action::Group { id }]);
        route
    };
    let bucket = |actions: Vec<Action>| Bucket { id: 0, actions };
    let to = |table| Action::Resubmit { in_port: 0xfff8, table };
    let port = |value| Action::SetField(reg(1, value));
    let tunnel = Action::SetField(Field::TunnelDst {
        address: ip("172.18.0.3"),
        mask: Ipv4Addr::BROADCAST,
    });
    let group = GroupDesc {
        id: 1,
        kind: GroupKind::All,
        buckets: vec![
            bucket(vec![port(5), to(36)]),
            bucket(vec![port(1), tunnel, to(39)]),
            bucket(vec![Action::Output { port: 6 }]),
            bucket(vec![to(36)]),
            bucket(vec![port(7), Action::Unknown { kind: 18, len: 8 }, to(36)]),
        ],
    };
    let description = Description {
        tables: BTreeMap::from([(
            Table::Routing,
            vec![route("239.0.0.9", 2), route("239.0.0.1", 1), flow(5, vec![IP])],
        )]),
        groups: vec![group],
    };
    let switch = Switch::new(&description);
    let member = |ofport, tunnel_dst: Option<&str>, table| Member {
        ofport,
        tunnel_dst: tunnel_dst.map(ip),
        table,
    };
    let expected = [
        SwitchGroup {
            group: ip("239.0.0.1"),
            id: 1,
            members: Some(vec![
                member(5, None, Some(36)),
                member(1, Some("172.18.0.3"), Some(39)),
                member(6, None, None),
            ]),
            unknown_buckets: 2,
        },
        SwitchGroup {
            group: ip("239.0.0.9"),
            id: 2,
            members: None,
            unknown_buckets: 0,
        },
    ];
    assert_eq!(switch.groups, expected);
    assert_eq!(switch.unknown, BTreeMap::from([(Table::Routing, 1)]));
    let ports: Vec<u32> = switch.groups_by_port().into_keys().collect();
    assert_eq!(ports, [5, 6]);
}
