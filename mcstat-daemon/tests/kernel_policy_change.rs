//! Policies that change under traffic: every packet and every report is judged by one policy, whole.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod policy_lab;
mod support;

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use mcstat::{
    agent::bpf::{now, policy, policy::PolicyError, sys},
    ledger::{
        snapshot::RuleReading,
        verdict::{Action, Object, Transport},
    },
};
use policy_lab::{
    ENFORCED, Lab,
    messages::{Record, data, v3},
    policy_of,
};
use support::{Bpffs, Random, in_netns};

const CHANGES: u32 = 500;
/// Packets of one system call: many policies change between two of them.
const BATCH: u32 = 32;

/// A policy of its own name, so that its rules have slots of their own.
///
/// - To 239.1.1.1 and 239.1.1.2 reports are denied and allowed, or the other way round: a report of both has one denied
///   record, whatever the policy, and two of the same policy's rules decide it.
/// - Data to 239.1.3.1, port 5000, is for the rule `port`: `rest` would get it from a list that is not there any more.
/// - Data to 239.1.4.1 is for the rule `data` of every policy, with a random action.
fn random_policy(random: &mut Random, number: u32) -> Vec<Object> {
    let action = |drop: bool| if drop { "Drop" } else { "Allow" };
    let (first, data) = (random.below(2) == 0, random.below(2) == 0);
    let mut rules = vec![
        format!(
            "{{name: a, action: {}, protocols: [{{igmp: {{groupAddress: 239.1.1.1}}}}]}}",
            action(first)
        ),
        format!(
            "{{name: b, action: {}, protocols: [{{igmp: {{groupAddress: 239.1.1.2}}}}]}}",
            action(!first)
        ),
        format!(
            "{{name: port, action: {}, to: [{{ipBlock: {{cidr: 239.1.3.0/24}}}}], ports: [{{protocol: UDP, port: 5000}}, \
             {{protocol: UDP, port: {}}}]}}",
            action(random.below(2) == 0),
            6000 + random.below(1000)
        ),
        "{name: rest, action: Allow, to: [{ipBlock: {cidr: 239.1.3.0/24}}]}".to_owned(),
        format!(
            "{{name: data, action: {}, to: [{{ipBlock: {{cidr: 239.1.4.{}/32}}}}, {{ipBlock: {{cidr: 239.1.4.0/2{}}}}}]}}",
            action(data),
            random.below(2),
            random.below(8)
        ),
    ];
    for extra in 0..random.below(20) {
        rules.push(format!(
            "{{name: x{extra}, action: Allow, to: [{{ipBlock: {{cidr: 239.{}.0.0/16}}}}]}}",
            10 + random.below(200)
        ));
    }
    policy_of(&format!("p{number}"), 5, &rules.join(", "))
}

/// What the sender sends again and again: data twice, a report of both groups.
fn frames() -> [Vec<u8>; 3] {
    [
        data([239, 1, 3, 1].into(), Transport::Udp(5000)),
        data([239, 1, 4, 1].into(), Transport::Udp(5000)),
        v3(&[Record::join([239, 1, 1, 1]), Record::join([239, 1, 1, 2])]),
    ]
}

#[test]
fn five_hundred_changes_under_traffic_never_mix_two_policies() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut random = Random(500);
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.enforce(ENFORCED);
        lab.set(random_policy(&mut random, 0));
        let stop = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let (stop, program) = (Arc::clone(&stop), lab.program());
            move || {
                let (frames, mut sent) = (frames(), 0u64);
                while !stop.load(Ordering::SeqCst) {
                    for frame in &frames {
                        sys::test_run(program.as_fd(), frame, BATCH).unwrap();
                    }
                    sent += u64::from(BATCH);
                }
                sent
            }
        });
        let mut all: Vec<RuleReading> = Vec::new();
        for number in 1..=CHANGES {
            all.extend(lab.set(random_policy(&mut random, number)));
        }
        stop.store(true, Ordering::SeqCst);
        let sent = sender.join().unwrap();
        all.extend(lab.rules());
        println!("{sent} of each frame during {CHANGES} changes");
        assert!(sent > u64::from(CHANGES), "the sender hardly ran: {sent}");
        hold(&lab, &all, sent);
        let stored = policy::stored(&lab.kernel.maps).unwrap();
        assert_eq!(
            (stored.sets.len(), stored.lists.len()),
            (1, 1),
            "nothing of before is left"
        );
    });
}

fn hold(lab: &Lab, all: &[RuleReading], sent: u64) {
    let mut policies: BTreeMap<String, BTreeMap<String, &RuleReading>> = BTreeMap::new();
    for rule in all {
        let rules = policies.entry(rule.row.policy.name.to_string()).or_default();
        assert!(
            rules.insert(rule.row.id.name.to_string(), rule).is_none(),
            "{rule:?} twice"
        );
    }
    assert_eq!(policies.len(), CHANGES as usize + 1);
    let (mut by_port, mut by_data, mut reports, mut denied, mut busy) = (0, 0, 0, 0, 0);
    for (name, rules) in &policies {
        let [a, b, port, rest, data] = ["a", "b", "port", "rest", "data"].map(|rule| rules[rule]);
        assert_eq!(
            (a.records, a.messages),
            (b.records, b.messages),
            "{name}: one report, two policies"
        );
        assert_eq!(a.records, a.messages, "{name}");
        assert_eq!(rest.data.packets, 0, "{name}: without its list");
        by_port += port.data.packets;
        by_data += data.data.packets;
        reports += a.records;
        busy += u32::from(a.records > 0);
        for rule in [port, data] {
            denied += if rule.row.action == Action::Drop {
                rule.data.packets
            } else {
                0
            };
        }
    }
    // Each packet was judged, by exactly one rule, and the Pod's numbers say the same of it.
    assert_eq!([by_port, by_data, reports], [sent; 3]);
    assert_eq!(lab.data(), [2 * sent - denied, denied, 0]);
    let found = lab.reading().outbound.reports;
    assert_eq!(
        (found.records, found.dropped_messages, found.dropped_records),
        (2 * sent, sent, sent)
    );
    println!("{busy} policies decided at least one report");
    assert!(busy > CHANGES / 10, "{busy}");
}

/// A change that is larger than the room beside the old sets is made in steps, Pod by Pod.
#[test]
fn a_change_larger_than_the_room_is_made_in_steps() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        // A quarter of the memory at 128 bytes a prefix: 16,384.
        options.limits.memory_bytes = 8 << 20;
        options.limits.slots = 256;
        let mut lab = Lab::new(&options);
        lab.enter();
        assert_eq!(lab.kernel.maps.trie_entries, 16_384);
        let pods: Vec<_> = (0..13)
            .map(|n| mcstat::ledger::verdict::PodName::new("mkt", &format!("b{n}")))
            .collect();
        lab.pods.extend(pods);
        // 1,000 prefixes for each of 14 Pods, and a set of its own for each.
        let policies = |third: u32| {
            let own = |pod: &str| {
                let blocks: Vec<_> = (0..999)
                    .map(|n| format!("{{ipBlock: {{cidr: 239.{third}.{}.{}/32}}}}", n / 250, n % 250))
                    .collect();
                policy_lab::objects(&format!(
                    "{{apiVersion: v1, kind: Pod, metadata: {{namespace: mkt, name: {pod}, labels: {{pod: {pod}}}}}}}\n---\n\
                     {{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {{namespace: mkt, name: p-{pod}}}, \
                     spec: {{priority: 1, appliedTo: [{{podSelector: {{matchLabels: {{pod: {pod}}}}}}}], \
                     egress: [{{name: r, action: Allow, to: [{}]}}]}}}}",
                    blocks.join(", ")
                ))
            };
            lab_pods().iter().flat_map(|pod| own(pod)).collect::<Vec<_>>()
        };
        lab.set(policies(1));
        let entries = |lab: &Lab| -> usize {
            let stored = policy::stored(&lab.kernel.maps).unwrap();
            stored.sets.iter().map(|set| set.entries.len()).sum()
        };
        assert_eq!(entries(&lab), 14 * 999);
        let old = policy::set_of(&lab.kernel.maps, &lab.pod);
        lab.set(policies(2));
        assert_eq!(entries(&lab), 14 * 999);
        assert_ne!(policy::set_of(&lab.kernel.maps, &lab.pod), old);
        lab.send(&data([239, 2, 0, 7].into(), Transport::Udp(1)), 4);
        lab.send(&data([239, 1, 0, 7].into(), Transport::Udp(1)), 4);
        let decided: u64 = lab.rules().iter().map(|rule| rule.data.packets).sum();
        assert_eq!(decided, 4);
    });
}

fn lab_pods() -> Vec<String> {
    std::iter::once("a".to_owned())
        .chain((0..13).map(|n| format!("b{n}")))
        .collect()
}

/// One set that is larger than half of the trie: the next one does not fit beside it.
#[test]
fn a_change_without_room_is_not_begun_and_is_made_without_the_policy_that_asks_for_most() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        options.limits.memory_bytes = 8 << 20;
        options.limits.slots = 256;
        // 9,000 prefixes of the trie's 16,384.
        let large = |octet: u32| many("large", octet, 9000);
        let mut lab = Lab::new(&options);
        lab.enter();
        lab.set(large(1));
        let (old, stored) = (policy::set_of(&lab.kernel.maps, &lab.pod), lab.stored());
        let first = data([239, 1, 0, 7].into(), Transport::Udp(1));
        let decided = |lab: &Lab| lab.rule("large").data.packets;

        // A change that renames nothing and moves every prefix; and a rule of another policy that would have a slot.
        let change = lab.compile([large(2), many("small", 3, 1)].concat());
        let error = policy::apply(&lab.kernel.maps, &change, now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the policy set of mkt/a has 9001 prefixes, and beside the 9000 in force there is room for 7384 in the map \
             policies"
        );
        assert_eq!(lab.stored(), stored, "nothing was touched");
        assert_eq!(policy::set_of(&lab.kernel.maps, &lab.pod), old);
        lab.send(&first, 4);
        assert_eq!(decided(&lab), 4, "the old policy is in force, whole");

        lab.compiler.no_room(&change.sets[0]);
        let prefixes = |lab: &Lab| lab.stored().sets.iter().map(|set| set.entries.len()).sum::<usize>();
        let second = data([239, 2, 0, 7].into(), Transport::Udp(1));
        // The large one waits for what it had to go: it is judged by neither form, and keeps what it counted.
        lab.set([large(2), many("small", 3, 1)].concat());
        assert_eq!(prefixes(&lab), 1);
        lab.send(&data([239, 3, 0, 0].into(), Transport::Udp(1)), 2);
        lab.send(&first, 1);
        lab.send(&second, 1);
        assert_eq!((decided(&lab), lab.rule("small").data.packets), (4, 2));
        lab.set([large(2), many("small", 3, 1)].concat());
        assert_eq!(prefixes(&lab), 9001);
        lab.send(&second, 3);
        lab.send(&first, 5);
        assert_eq!((decided(&lab), lab.rule("small").data.packets), (7, 2));
    });
}

/// After a restart every set is compiled anew. One that says the same stays where it is, or it would need room twice.
#[test]
fn a_restart_needs_no_room_for_what_judges_already() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut options = bpffs.options();
        options.limits.memory_bytes = 8 << 20;
        options.limits.slots = 256;
        let objects = || {
            let by_port = policy_of(
                "ports",
                4,
                "{name: port, action: Drop, to: [{ipBlock: {cidr: 239.9.0.0/16}}], ports: [{protocol: UDP, port: 5000}]}",
            );
            [many("large", 1, 9000), by_port].concat()
        };
        let mut lab = Lab::new(&options);
        lab.enter();
        lab.set(objects());
        let (old, stored) = (policy::set_of(&lab.kernel.maps, &lab.pod), lab.stored());
        assert_eq!(stored.lists.len(), 1);
        drop(lab);
        let mut lab = Lab::new(&options);
        let judged = |lab: &Lab| {
            let verdict = lab
                .tables
                .judge(&lab.pod, 0, [239, 9, 1, 1].into(), Transport::Udp(5000));
            verdict.action
        };
        assert_eq!(judged(&lab), Action::Drop, "in user space, too");
        lab.set(objects());
        assert_eq!(policy::set_of(&lab.kernel.maps, &lab.pod), old);
        assert_eq!(lab.stored(), stored);
        assert_eq!(judged(&lab), Action::Drop);
        // Nothing of it is lost: another set takes its place as ever.
        lab.set(many("large", 2, 5));
        assert_eq!(lab.stored().sets.len(), 1);
        assert_ne!(policy::set_of(&lab.kernel.maps, &lab.pod), old);
    });
}

/// A policy with one rule of so many prefixes.
fn many(name: &str, octet: u32, prefixes: u32) -> Vec<Object> {
    let block = |n| format!("{{ipBlock: {{cidr: 239.{octet}.{}.{}/32}}}}", n / 250, n % 250);
    let blocks: Vec<_> = (0..prefixes).map(block).collect();
    policy_of(
        name,
        5,
        &format!("{{name: {name}, action: Allow, to: [{}]}}", blocks.join(", ")),
    )
}

/// What fails half-way is made whole by making it again, and no counter begins anew.
#[test]
fn a_change_whose_wait_failed_can_be_made_again() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut random = Random(7);
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(random_policy(&mut random, 1));
        let mut change = lab.compile(random_policy(&mut random, 2));
        let refused = || Err(std::io::ErrorKind::PermissionDenied.into());
        let error = policy::apply_with(&lab.kernel.maps, &change, now(), refused).unwrap_err();
        assert!(matches!(error, PolicyError::System { .. }), "{error}");
        let frame = data([239, 1, 3, 1].into(), Transport::Udp(5000));
        lab.send(&frame, 5);
        let last = policy::apply(&lab.kernel.maps, &change, now()).unwrap();
        lab.compiler.release(std::mem::take(&mut change.retired));
        assert_eq!(last.iter().map(|rule| rule.data.packets).sum::<u64>(), 0);
        lab.send(&frame, 5);
        let port = lab.rule("port");
        assert_eq!(port.data.packets + port.would_drop.packets, 10);
        let stored = policy::stored(&lab.kernel.maps).unwrap();
        assert_eq!((stored.sets.len(), stored.lists.len()), (1, 1));
    });
}
