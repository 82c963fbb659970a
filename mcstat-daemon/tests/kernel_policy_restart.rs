//! Policies in the kernel over restarts of the agent and a new ABI: what stays, and what is replaced.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod policy_lab;
mod support;

use mcstat::{
    agent::bpf::{Kernel, policy, table},
    ledger::{
        snapshot::RuleReading,
        verdict::{PodName, Tables, Transport},
    },
};
use policy_lab::{
    DROP_ONE, ENFORCED, Lab,
    messages::{Record, data, v3},
    objects, policy_of,
};
use support::{Bpffs, in_netns, read_all, veth::Veth};

#[test]
fn a_restart_keeps_slots_and_totals_of_rules_and_replaces_sets_that_say_something_else() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(
            [
                policy_of("p", 5, DROP_ONE),
                policy_of(
                    "gone",
                    6,
                    "{name: g, action: Allow, to: [{ipBlock: {cidr: 239.2.0.0/16}}]}",
                ),
            ]
            .concat(),
        );
        lab.enforce(ENFORCED);
        let frames =
            [[239, 1, 1, 1], [239, 1, 1, 9], [239, 2, 0, 1]].map(|group| data(group.into(), Transport::Udp(5000)));
        frames.iter().for_each(|frame| lab.send(frame, 10));
        let before = lab.rules();
        let set = policy::set_of(&lab.kernel.maps, &lab.pod);
        drop(lab);

        let mut lab = Lab::new(&bpffs.options());
        assert_eq!(lab.rules(), before);
        assert_eq!(policy::enforced(&lab.kernel.maps), ENFORCED);
        assert_eq!(policy::set_of(&lab.kernel.maps, &lab.pod), set);
        // The old sets judge until the first change.
        frames.iter().for_each(|frame| lab.send(frame, 10));
        let packets = |lab: &Lab| ["one", "others"].map(|rule| lab.rule(rule).data.packets);
        assert_eq!(packets(&lab), [20, 20]);
        let last = lab.set(policy_of("p", 5, DROP_ONE));
        let last: Vec<_> = last
            .iter()
            .map(|rule| (&*rule.row.id.name, rule.data.packets))
            .collect();
        assert_eq!(last, [("g", 20)], "the rule that is gone, read for the last time");
        assert_ne!(
            policy::set_of(&lab.kernel.maps, &lab.pod),
            set,
            "without g it says something else"
        );
        frames.iter().for_each(|frame| lab.send(frame, 10));
        assert_eq!(packets(&lab), [30, 30]);
        let slots = |rules: &[RuleReading]| {
            let rows = rules.iter().filter(|rule| &*rule.row.id.name != "g");
            rows.map(|rule| (rule.row.clone(), rule.start)).collect::<Vec<_>>()
        };
        assert_eq!(slots(&lab.rules()), slots(&before), "rows and start times");
        let stored = policy::stored(&lab.kernel.maps).unwrap();
        assert_eq!(
            (stored.sets.len(), stored.rules.len()),
            (1, 3),
            "nothing of before is left"
        );
        // A rule that comes again begins anew.
        lab.set(
            [
                policy_of("p", 5, DROP_ONE),
                policy_of(
                    "gone",
                    6,
                    "{name: g, action: Allow, to: [{ipBlock: {cidr: 239.2.0.0/16}}]}",
                ),
            ]
            .concat(),
        );
        assert_eq!(lab.rule("g").data.packets, 0);
        // And without any policy nothing is left at all.
        lab.set([]);
        let stored = policy::stored(&lab.kernel.maps).unwrap();
        assert_eq!((stored.sets.len(), stored.rules.len(), stored.lists.len()), (0, 0, 0));
        let entries = table::entries(&lab.kernel.maps);
        assert!(entries.iter().all(|entry| entry.port.policy_set == 0));
    });
}

/// Two Pods share a set. While no agent runs one of them loses its label: the set, which stays, is not its any more.
#[test]
fn a_pod_that_no_rule_is_for_any_more_loses_a_set_that_stays() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let [a, x] = ["a", "x"].map(|name| PodName::new("mkt", name));
        let pods = [x.clone(), a.clone()];
        let mut lab = Lab::with(&bpffs.options(), &x, &pods);
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        let set = policy::set_of(&lab.kernel.maps, &a);
        assert_eq!((set.is_some(), policy::set_of(&lab.kernel.maps, &x)), (true, set));
        drop(lab);
        // Only the other one is there now, so nothing is for x.
        let mut lab = Lab::with(&bpffs.options(), &x, std::slice::from_ref(&a));
        let stored = policy::stored(&lab.kernel.maps).unwrap();
        lab.tables = Tables::adopting(&stored, policy::pods(&lab.kernel.maps));
        assert!(lab.tables.has_rules(&x));
        lab.set(policy_of("p", 5, DROP_ONE));
        assert_eq!(policy::set_of(&lab.kernel.maps, &a), set, "it stayed where it was");
        assert_eq!(policy::set_of(&lab.kernel.maps, &x), None);
        assert!(!lab.tables.has_rules(&x));
        lab.enforce(ENFORCED);
        lab.send(&data([239, 1, 1, 1].into(), Transport::Udp(5000)), 10);
        assert_eq!(lab.data(), [10, 0, 0], "admitted, dropped, would be dropped");
        assert_eq!(lab.rule("one").data.packets, 0);
    });
}

/// Rules that match nothing here make a set without entries. Its id is in use: after a restart nobody else gets it.
#[test]
fn a_set_without_entries_keeps_its_id_over_a_restart() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        let entry = lab.enter();
        lab.set(policy_of(
            "tcp",
            5,
            "{name: tcp, action: Drop, to: [{ipBlock: {cidr: 239.1.1.1/32}}], ports: [{protocol: TCP, port: 80}]}",
        ));
        let set = lab.kernel.maps.ports.read(entry.position).policy_set;
        assert_ne!(set, 0);
        let stored = policy::stored(&lab.kernel.maps).unwrap();
        let found: Vec<_> = stored.sets.iter().map(|set| (set.id, set.entries.len())).collect();
        assert_eq!(found, [(set, 0)]);
        drop(lab);
        let mut again = Lab::new(&bpffs.options());
        again.set(policy_of("p", 5, DROP_ONE));
        let now = again.kernel.maps.ports.read(entry.position).policy_set;
        assert_ne!(now, set, "another set has another id");
    });
}

/// The switch may be away when the agent comes back, and the Pod that comes then is the only one.
#[test]
fn a_node_without_pods_knows_over_a_restart_what_is_enforced() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        Lab::new(&bpffs.options()).enforce(ENFORCED);
        let mut lab = Lab::new(&bpffs.options());
        assert_eq!(policy::enforced(&lab.kernel.maps), ENFORCED);
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        lab.send(&data([239, 1, 1, 1].into(), Transport::Udp(5000)), 10);
        assert_eq!(lab.data(), [0, 10, 0], "admitted, dropped, would be dropped");
    });
}

/// A Pod that no document names any more loses the set of the run before.
#[test]
fn after_a_restart_without_policies_nobody_is_judged() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let mut lab = Lab::new(&bpffs.options());
        lab.enter();
        lab.set(policy_of("p", 5, DROP_ONE));
        drop(lab);
        let mut lab = Lab::new(&bpffs.options());
        let last = lab.set(objects("{apiVersion: v1, kind: Namespace, metadata: {name: mkt}}"));
        assert_eq!(last.len(), 3);
        lab.send(&data([239, 1, 1, 1].into(), Transport::Udp(5000)), 3);
        assert_eq!(lab.data(), [3, 0, 0]);
        let stored = policy::stored(&lab.kernel.maps).unwrap();
        assert_eq!((stored.sets.len(), stored.rules.len()), (0, 0));
    });
}

#[test]
fn a_new_abi_takes_policies_and_totals_of_rules_over() {
    in_netns(|| {
        let bpffs = Bpffs::new();
        let old = bpffs.options();
        let mut lab = Lab::new(&old);
        let veth = Veth::new("mch0");
        let mut port = veth.port("a");
        port.pod.namespace = "mkt".into();
        let entry = support::enter(&lab.kernel, &port);
        lab.kernel.programs.attach(&entry).unwrap();
        lab.set(policy_of("p", 5, DROP_ONE));
        lab.enforce(ENFORCED);
        let socket = veth.pod_socket();
        let frames = [[239, 1, 1, 1], [239, 1, 1, 9]].map(|group| data(group.into(), Transport::Udp(5000)));
        let report = v3(&[Record::join([239, 1, 1, 1]), Record::join([239, 1, 1, 9])]);
        let send = || (0..10).for_each(|_| frames.iter().chain([&report]).for_each(|frame| socket.send(frame)));
        send();
        let before = lab.rules();
        let counted: u64 = before.iter().map(|rule| rule.data.packets + rule.records).sum();
        assert_eq!(counted, 30);
        drop(lab);
        let mut new = bpffs.options();
        new.abi += 1;
        let kernel = Kernel::open_and_upgrade(&new, support::agents_hook(), &[old.abi]).unwrap();
        assert_eq!(read_all(&kernel).rules, before);
        assert_eq!(policy::enforced(&kernel.maps), ENFORCED);
        send();
        let after = read_all(&kernel).rules;
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((&before.row, before.start), (&after.row, after.start));
            let grown = (2 * before.data.packets, 2 * before.records, 2 * before.messages);
            assert_eq!((after.data.packets, after.records, after.messages), grown);
        }
        let reports = support::reading(&kernel, "a").outbound.reports;
        assert_eq!(
            (reports.records, reports.dropped_messages, reports.dropped_records),
            (40, 20, 20)
        );
    });
}
