//! What policies cost: a packet that hits a slot, by what decides it; a report, by its records and by how full the trie is.

use std::{cell::Cell, collections::BTreeMap, net::Ipv4Addr, time::Instant};

use mcstat::{
    agent::bpf::{now, policy, rcu},
    ledger::verdict::{Action, Content, Kind, Model, Object, ObjectKey, Pod, PodName, Transport},
};
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
    support::{self, Bpffs, Random, in_netns},
};

/// Records of the long report.
const RECORDS: usize = 60;

/// Measures and prints goals 4 and 5, and the policies' part of goal 2.
pub(crate) fn run(scale: Scale) {
    in_netns(move || {
        support::pin_to(last_cpu());
        hits(scale);
        reports(scale);
        in_force();
    });
}

fn group(last: u8) -> Ipv4Addr {
    [239, 1, 2, last].into()
}

/// One rule for each case: no port, one port, and sixteen, of which the packets have the last.
fn rules() -> String {
    let rule = |name: &str, action: &str, last: u8, ports: &[String]| {
        format!(
            "{{name: {name}, action: {action}, to: [{{ipBlock: {{cidr: {}/32}}}}], ports: [{}]}}",
            group(last),
            ports.join(", ")
        )
    };
    let port = |port: u16| format!("{{protocol: UDP, port: {port}}}");
    let sixteen: Vec<String> = (0..16).map(|n| port(4985 + 3 * n)).collect();
    [
        rule("allow", "Allow", 1, &[]),
        rule("drop", "Drop", 2, &[]),
        rule("port", "Allow", 3, &[port(PORT)]),
        rule("ports", "Allow", 4, &sixteen),
    ]
    .join(", ")
}

/// Where the packets go.
const PORT: u16 = 5030;

/// Rounds with a program of their own for each that other parts have, of so many packets fewer.
const LOADS: usize = 5;

/// What decides a packet, and the group that it is sent to.
const DECIDED_BY: [(&str, u8); 5] = [
    ("no rule of the Pod's", 9),
    ("a rule that allows", 1),
    ("a rule that drops", 2),
    ("a rule with one port", 3),
    ("the last of 16 rules with ports", 4),
];

fn hits(scale: Scale) {
    let bpffs = Bpffs::new();
    let mut subjects = Subjects::open(&bpffs);
    let [empty, again] = ["bench_empty", "bench_empty_b"].map(|name| subjects.program(name));
    let mut series = vec![Series::default(); 3 + DECIDED_BY.len()];
    for round in 0..LOADS * scale.rounds {
        let repeat = scale.repeat / LOADS as u32;
        let [empty, again] = [&empty, &again].map(|program| ns_per_packet(program, &to(9), repeat));
        let judged = hits_once(round, repeat);
        for (series, ns) in series.iter_mut().zip([empty, again].into_iter().chain(judged)) {
            series.0.push(ns);
        }
    }
    println!("\n## A packet that hits a slot, judged (ns of CPU a packet, min–med–max)\n");
    println!("empty again: Δ {:+.1}\n", series[1].above(&series[0]));
    println!("| decided by | ns | Δ to empty | **Δ to no policies** |");
    println!("|---|---:|---:|---:|");
    let names = ["(no policies)"].into_iter().chain(DECIDED_BY.map(|(name, _)| name));
    for (name, run) in names.zip(&series[2..]) {
        println!(
            "| {name} | {} | {:+.1} | **{:+.1}** |",
            run.spread(1),
            run.above(&series[0]),
            run.above(&series[2]),
        );
    }
}

fn to(last: u8) -> Vec<u8> {
    data(group(last), Transport::Udp(PORT))
}

/// The same program without policies, then with them by each of [`DECIDED_BY`]. Loaded for this round alone: where the
/// kernel happens to put a program makes a difference of up to 3 ns, which must not fall on one of the candidates.
fn hits_once(round: usize, repeat: u32) -> Vec<f64> {
    let bpffs = Bpffs::new();
    let mut lab = Lab::new(&bpffs.options());
    lab.enter();
    lab.enforce(ENFORCED);
    let program = lab.program();
    // The first inserts or judges.
    let run = |last: u8| {
        ns_per_packet(&program, &to(last), 1);
        ns_per_packet(&program, &to(last), repeat)
    };
    let mut ns = vec![run(9)];
    lab.set(policy_of("bench", 5, &rules()));
    let mut judged = [0.0; DECIDED_BY.len()];
    for step in 0..DECIDED_BY.len() {
        let at = (round + step) % DECIDED_BY.len();
        judged[at] = run(DECIDED_BY[at].1);
    }
    ns.extend(judged);
    let sent = 1 + u64::from(repeat);
    assert_eq!(lab.data(), [5 * sent, sent, 0], "admitted, dropped, would be dropped");
    for rule in ["allow", "drop", "port", "ports"] {
        assert_eq!(lab.rule(rule).data.packets, sent, "{rule}");
    }
    ns
}

/// One rule that allows so many groups; those that are reported lie between them.
fn many_groups(count: u32) -> Object {
    let group = |n: u32| Ipv4Addr::from(0xe600_0000 + 7 * n).to_string();
    let messages: Vec<_> = (0..count)
        .map(|n| json!({"igmp": {"igmpType": 0x22, "groupAddress": group(n)}}))
        .collect();
    let document = json!({
        "apiVersion": "crd.antrea.io/v1beta1", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "many", "uid": "many"},
        "spec": {"priority": 4, "appliedTo": [{"podSelector": {}}],
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
        let reported = |n: u32| {
            let beside = u64::from(n) * u64::from(prefixes.unwrap_or(0)) / RECORDS as u64;
            Ipv4Addr::from(0xe600_0003 + 7 * beside as u32)
        };
        let records: Vec<_> = (0..RECORDS as u32).map(|n| Record::join(reported(n))).collect();
        let frames = [short(0x16, reported(1)), v3(&records[..1]), v3(&records)];
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

const RULES: u32 = 1_000;
const PODS: u64 = 500;
const EACH: u64 = 100;

/// Each rule is for 100 of 500 Pods of its own choice, so that no two Pods have the same rules.
fn many_pods() -> Vec<Object> {
    let mut random = Random(1);
    let mut labels = vec![BTreeMap::new(); PODS as usize];
    for rule in 0..RULES {
        let mut left = EACH;
        for (pod, labels) in labels.iter_mut().enumerate() {
            if random.below(PODS - pod as u64) < left {
                left -= 1;
                labels.insert(format!("in-{rule}"), "yes".to_owned());
            }
        }
    }
    let pod = |(number, labels)| Object {
        key: ObjectKey {
            kind: Kind::Pod,
            namespace: "mkt".into(),
            name: format!("pod-{number}").into(),
        },
        uid: "".into(),
        content: Content::Pod(
            Pod {
                labels,
                service_account: String::new(),
            }
            .into(),
        ),
    };
    labels.into_iter().enumerate().map(pod).collect()
}

fn one_of_many(number: u32, action: Action) -> Object {
    let document = json!({
        "apiVersion": "crd.antrea.io/v1beta1", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("p{number}"), "uid": format!("p{number}")},
        "spec": {"priority": 5, "appliedTo": [{"podSelector": {"matchLabels": {format!("in-{number}"): "yes"}}}],
                 "egress": [{"name": "r", "action": format!("{action:?}"),
                             "to": [{"ipBlock": {"cidr": format!("225.{}.{}.0/24", number / 256, number % 256)}}]}]},
    });
    Object::read(Kind::ClusterNetworkPolicy, document).unwrap()
}

/// From objects to the moment when the last Pod has its new set, and until what is old is gone.
fn in_force() {
    let bpffs = Bpffs::new();
    let mut lab = Lab::new(&bpffs.options());
    lab.pods = (0..PODS)
        .map(|pod| PodName::new("mkt", &format!("pod-{pod}")))
        .collect();
    let mut objects = many_pods();
    objects.extend((0..RULES).map(|number| one_of_many(number, Action::Drop)));
    println!("\n## {RULES} rules, each for {EACH} of {PODS} Pods (ms)\n");
    println!("| change | prefixes written | compiled | **in force** | old sets gone |");
    println!("|---|---:|---:|---:|---:|");
    for (name, change) in [
        ("all", None),
        ("one rule", Some(500)),
        ("one rule back", Some(500)),
        ("all gone", None),
    ] {
        match (name, change) {
            ("one rule", Some(number)) => objects.push(one_of_many(number, Action::Allow)),
            ("one rule back", Some(_)) => drop(objects.pop()),
            ("all gone", _) => objects.clear(),
            _ => {}
        }
        let start = Instant::now();
        // Of two objects of one name the last counts.
        let model: Model = objects.iter().cloned().collect();
        let mut change = lab.compiler.compile(&model, &lab.pods).unwrap();
        let compiled = start.elapsed();
        assert_eq!(change.problems, []);
        let flipped = Cell::new(compiled);
        policy::apply_with(&lab.kernel.maps, &change, now(), || {
            flipped.set(start.elapsed());
            rcu::wait()
        })
        .unwrap();
        let applied = start.elapsed();
        let flipped = if flipped.get() == compiled {
            applied
        } else {
            flipped.get()
        };
        let written: usize = change.sets.iter().map(|set| set.entries.len()).sum();
        lab.compiler.release(std::mem::take(&mut change.retired));
        println!(
            "| {name} | {written} | {:.1} | **{:.1}** | {:.1} |",
            compiled.as_secs_f64() * 1e3,
            flipped.as_secs_f64() * 1e3,
            applied.as_secs_f64() * 1e3
        );
    }
    let stored = policy::stored(&lab.kernel.maps).unwrap();
    assert_eq!((stored.sets.len(), stored.rules.len()), (0, 0));
}
