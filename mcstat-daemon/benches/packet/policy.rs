//! What policies cost: a packet that hits a slot, by what decides it; a report, by its records and by how full the trie is.

use std::net::Ipv4Addr;

use mcstat::ledger::verdict::{Kind, Object, Transport};
use serde_json::json;

use crate::{
    Scale,
    objects::{Subjects, ns_per_packet},
    policy_lab::{
        ENFORCED, Lab,
        messages::{Record, data, short, v3},
        policy_of,
    },
    stats::{Series, interleave, last_cpu},
    support::{self, Bpffs, in_netns},
};

/// Records of the long report.
const RECORDS: usize = 60;

/// Measures and prints goals 4 and 5, and the policies' part of goal 2.
pub(crate) fn run(scale: Scale) {
    in_netns(move || {
        support::pin_to(last_cpu());
        hits(scale);
        reports(scale);
    });
}

fn group(last: u8) -> Ipv4Addr {
    [239, 1, 2, last].into()
}

/// Sixteen ranges, the last of which the packets have.
fn sixteen_ports() -> String {
    let ports = (0..16).map(|n| format!("{{protocol: UDP, port: {}}}", 4985 + 3 * n));
    let ports: Vec<_> = ports.collect();
    format!(
        "{{name: allow, action: Allow, to: [{{ipBlock: {{cidr: 239.1.2.1/32}}}}]}}, \
         {{name: drop, action: Drop, to: [{{ipBlock: {{cidr: 239.1.2.2/32}}}}]}}, \
         {{name: ports, action: Allow, to: [{{ipBlock: {{cidr: 239.1.2.3/32}}}}], ports: [{}]}}",
        ports.join(", ")
    )
}

fn hits(scale: Scale) {
    let (plain_fs, judged_fs) = (Bpffs::new(), Bpffs::new());
    let mut plain = Subjects::open(&plain_fs);
    support::enter(&plain.kernel, &support::pod_port("a", "lo", 1, &["10.0.0.2"]));
    let mut lab = Lab::new(&judged_fs.options());
    lab.enter();
    lab.enforce(ENFORCED);
    lab.set(policy_of("bench", 5, &sixteen_ports()));
    let programs = [
        plain.program("bench_empty"),
        plain.program("bench_empty_b"),
        plain.program("mcstat_outbound"),
        lab.program(),
    ];
    println!("\n## A packet that hits a slot, judged (ns of CPU a packet, min–med–max)\n");
    println!("| decided by | empty again: Δ | no policy: Δ to empty | **judged: Δ to no policy** |");
    println!("|---|---:|---:|---:|");
    let cases = [
        ("no rule of the Pod's", 9),
        ("a rule that allows", 1),
        ("a rule that drops", 2),
        ("the last of 16 rules with ports", 3),
    ];
    for (name, last) in cases {
        let frame = data(group(last), Transport::Udp(5030));
        let series = interleave(scale.rounds, programs.len(), |program| {
            ns_per_packet(&programs[program], &frame, scale.repeat)
        });
        println!(
            "| {name} | {:+.1} | {:+.1} | **{:+.1}** |",
            series[1].above(&series[0]),
            series[2].above(&series[0]),
            series[3].above(&series[2]),
        );
    }
    let sent = scale.rounds as u64 * u64::from(scale.repeat);
    assert_eq!(lab.data(), [3 * sent, sent, 0], "admitted, dropped, would be dropped");
    for rule in ["allow", "drop", "ports"] {
        assert_eq!(lab.rule(rule).data.packets, sent, "{rule}");
    }
}

/// One rule that allows so many groups, none of them one that is reported.
fn many_groups(count: u32) -> Object {
    let group = |n: u32| Ipv4Addr::from(0xe600_0000 + 7 * n).to_string();
    let messages: Vec<_> = (0..count)
        .map(|n| json!({"igmp": {"igmpType": 0x22, "groupAddress": group(n)}}))
        .collect();
    let document = json!({
        "apiVersion": "crd.antrea.io/v1beta1", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "many", "uid": "many"},
        "spec": {"priority": 6, "appliedTo": [{"podSelector": {}}],
                 "egress": [{"name": "many", "action": "Allow", "protocols": messages}]},
    });
    Object::read(Kind::ClusterNetworkPolicy, document).unwrap()
}

const ANY_REPORT: &str = "{name: any, action: Allow, protocols: [{igmp: {}}]}";

fn reports(scale: Scale) {
    println!("\n## A report, judged and held back by the event rate (ns of CPU above an empty program)\n");
    println!("| policies | prefixes | IGMPv2: Δ | IGMPv3, 1 record: Δ | 60 records: Δ | **each further record** |");
    println!("|---|---:|---:|---:|---:|---:|");
    let repeat = scale.repeat / 10;
    for (name, prefixes) in [
        ("none", None),
        ("one rule", Some(0)),
        ("more", Some(1_200)),
        ("many", Some(100_000)),
    ] {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        options.events = (1, 1);
        let mut lab = Lab::new(&options);
        lab.enter();
        let mut empty = Subjects::open(&Bpffs::new());
        if let Some(prefixes) = prefixes {
            let mut objects = policy_of("bench", 5, ANY_REPORT);
            objects.extend((prefixes > 0).then(|| many_groups(prefixes)));
            lab.set(objects);
        }
        let programs = [empty.program("bench_empty"), lab.program()];
        let records: Vec<_> = (0..RECORDS).map(|n| Record::join(group(n as u8))).collect();
        let frames = [short(0x16, group(1)), v3(&records[..1]), v3(&records)];
        let series: Vec<Vec<Series>> = frames
            .iter()
            .map(|frame| {
                interleave(scale.rounds, 2, |program| {
                    ns_per_packet(&programs[program], frame, repeat)
                })
            })
            .collect();
        let [v2, one, sixty] = [0, 1, 2].map(|at| series[at][1].above(&series[at][0]));
        println!(
            "| {name} | {} | {v2:+.1} | {one:+.1} | {sixty:+.1} | **{:.1}** |",
            lab.tables.entries(),
            (sixty - one) / (RECORDS - 1) as f64
        );
        let sent = scale.rounds as u64 * u64::from(repeat);
        let records = sent * (2 + RECORDS as u64);
        assert_eq!(lab.reading().outbound.reports.records, records);
        if prefixes.is_some() {
            assert_eq!((lab.rule("any").records, lab.rule("any").messages), (records, 3 * sent));
        }
    }
}
