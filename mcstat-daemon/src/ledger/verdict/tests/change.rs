//! What a change touches, what it keeps, and when ids come back.

use std::sync::Arc;

use mcstat_common::policy::PortList;

use super::*;

fn policy(name: &str, app: &str, rules: &str) -> Object {
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {{namespace: ns, name: {name}}}, spec: \
         {{priority: 1, appliedTo: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}], egress: [{rules}]}}}}"
    );
    objects(&text).remove(0)
}

fn pods() -> Vec<Object> {
    let pod = |(name, app): (&str, &str)| {
        format!(
            "--- {{apiVersion: v1, kind: Pod, metadata: {{namespace: ns, name: {name}, labels: {{app: {app}}}}}}}\n"
        )
    };
    objects(&[("a1", "a"), ("a2", "a"), ("b", "b"), ("c", "c")].map(pod).concat())
}

fn with(policies: &[Object]) -> Vec<Object> {
    [pods(), policies.to_vec()].concat()
}

fn names(change: &Change) -> Vec<&str> {
    change.flips.iter().map(|(pod, _)| &*pod.name).collect()
}

const ONE: &str = "{name: one, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1/32}}]}";
const ONE_ALLOWED: &str = "{name: one, action: Allow, to: [{ipBlock: {cidr: 225.1.1.1/32}}]}";
const TWO: &str = "{name: two, action: Drop, to: [{ipBlock: {cidr: 225.1.1.2/32}}]}";

#[test]
fn a_change_touches_only_the_pods_concerned() {
    let mut node = Node::new(&["ns/a1", "ns/a2", "ns/b", "ns/c"]);
    let change = node.set(with(&[policy("p", "a", ONE), policy("q", "b", TWO)]));
    assert_eq!(names(&change), ["a1", "a2", "b"]);
    assert_eq!(change.sets.len(), 2, "Pods with the same rules share a set");
    let before: Vec<u16> = change.sets.iter().map(|set| set.id).collect();
    assert_eq!(change.rules.len(), 2);

    let change = node.set(with(&[policy("p", "a", ONE), policy("q", "b", TWO)]));
    assert_eq!(change, Change::default(), "nothing changed");

    let model = with(&[policy("p", "a", ONE_ALLOWED), policy("q", "b", TWO)])
        .into_iter()
        .collect();
    let mut change = node.compiler.compile(&model, &node.pods).unwrap();
    assert_eq!(names(&change), ["a1", "a2"]);
    assert_eq!(change.sets.len(), 1);
    assert!(
        !before.contains(&change.sets[0].id),
        "the new set stands beside the old one"
    );
    let retired: Vec<u16> = change.retired.sets.iter().map(|set| set.id).collect();
    assert_eq!(retired, [before[0]]);
    let rows: Vec<_> = change
        .rules
        .iter()
        .map(|rule| (&*rule.id.name, rule.slot, rule.action))
        .collect();
    assert_eq!(rows, [("one", 1, Action::Allow)], "the rule keeps its slot");
    assert!(change.retired.rules.is_empty());
    // Until the flip the old set judges, and afterwards the new one, whole.
    node.tables.insert(&change);
    let judge = |node: &Node| {
        node.tables
            .judge(&node.pods[0], SPACE_DATA, [225, 1, 1, 1].into(), Transport::Udp(1))
    };
    assert_eq!(judge(&node).action, Action::Drop);
    node.tables.flip(&change);
    assert_eq!(judge(&node).action, Action::Allow);
    node.tables.delete(&change.retired);
    assert_eq!(judge(&node).action, Action::Allow);
    node.compiler.release(std::mem::take(&mut change.retired));

    let change = node.set(with(&[policy("q", "b", TWO)]));
    assert_eq!(names(&change), ["a1", "a2"]);
    assert!(change.flips.iter().all(|(_, set)| set.is_none()));
    assert_eq!(node.tables.entries(), 1);
}

#[test]
fn a_pods_labels_move_it_alone() {
    let mut node = Node::new(&["ns/a1", "ns/a2", "ns/b", "ns/c"]);
    let policies = [policy("p", "a", ONE), policy("q", "b", TWO)];
    node.set(with(&policies));
    let text = "{apiVersion: v1, kind: Pod, metadata: {namespace: ns, name: c, labels: {app: a}}}";
    let change = node.set([with(&policies), objects(text)].concat());
    assert_eq!(names(&change), ["c"]);
    assert_eq!(
        (change.sets.len(), change.rules.len()),
        (0, 0),
        "the set is there already"
    );
    assert_eq!(node.data("ns/c", [225, 1, 1, 1], 1), drop("p/one"));

    node.pods.retain(|pod| *pod.name != *"c");
    let change = node.set(with(&policies));
    let flips = vec![(PodName::new("ns", "c"), None)];
    let nothing_else = Change::default();
    assert_eq!(
        change,
        Change { flips, ..nothing_else },
        "a Pod that is gone has no set"
    );
    assert_eq!(node.compiler.set_of(&PodName::new("ns", "c")), None);
}

/// An id stands for something else only after it was released.
#[test]
fn ids_wait_for_their_release() {
    let limits = Limits {
        sets: 2,
        rules: 2,
        lists: 2,
        entries: 10,
    };
    let mut node = Node::with(limits, &["ns/a1"]);
    let by_port = |name: &str, port: u16| {
        let rule = format!(
            "{{name: {name}, action: Drop, to: [{{ipBlock: {{cidr: 225.1.1.1/32}}}}], ports: [{{protocol: UDP, port: {port}}}]}}"
        );
        with(&[policy("p", "a", &rule)]).into_iter().collect::<Model>()
    };
    let mut compile = |model| node.compiler.compile(&model, &node.pods);
    let first = compile(by_port("x", 1)).unwrap();
    assert_eq!((first.sets[0].id, first.lists[0].0, first.rules[0].slot), (1, 1, 1));
    let second = compile(by_port("y", 2)).unwrap();
    assert_eq!((second.sets[0].id, second.lists[0].0, second.rules[0].slot), (2, 2, 2));
    assert_eq!(second.retired.rules[0].id.name, "x".into());
    // Both rules may be counting on some CPU: there is no third.
    let refused = compile(by_port("z", 3)).unwrap();
    assert!(matches!(&*refused.problems, [Problem::Room { room: Room::Rules, .. }]));
    node.compiler.release(second.retired);
    let third = node.compiler.compile(&by_port("z", 3), &node.pods).unwrap();
    assert_eq!((third.sets[0].id, third.lists[0].0, third.rules[0].slot), (1, 1, 1));
    assert_eq!(third.problems, []);
}

/// A policy that is deleted and made again, under the same name, has other rules.
#[test]
fn another_uid_is_another_rule() {
    let mut node = Node::new(&["ns/a1"]);
    node.set(with(&[policy("p", "a", ONE)]));
    let again = Object {
        uid: "again".into(),
        ..policy("p", "a", ONE)
    };
    let change = node.set(with(&[again]));
    assert_eq!(change.rules.len(), 1);
    assert_eq!(change.rules[0].id.uid, "again".into());
    assert_eq!(change.rules[0].slot, 2, "its counters begin at zero");
}

#[test]
fn a_set_says_in_which_spaces_it_has_entries() {
    let mut node = Node::new(&["ns/a1", "ns/b"]);
    let query = "{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {namespace: ns, name: q}, spec: {priority: 1,
        appliedTo: [{podSelector: {matchLabels: {app: b}}}], ingress: [{name: q, action: Drop, protocols: [{igmp: {igmpType: 0x11}}]}]}}";
    node.set([with(&[policy("p", "a", ONE)]), objects(query)].concat());
    let spaces = |pod: usize| node.compiler.set_of(&node.pods[pod]).unwrap().spaces;
    assert_eq!((spaces(0), spaces(1)), (1 << SPACE_DATA, 1 << SPACE_QUERY));
    let set = node.compiler.set_of(&node.pods[1]).unwrap();
    assert_eq!(
        (set.entries.len(), set.queries.len()),
        (0, 1),
        "no program judges queries: they take no room in the trie"
    );
    assert_eq!(
        node.query("ns/b", [224, 0, 0, 1]),
        drop("q/q"),
        "a query rule without a group is for all hosts"
    );
    assert_eq!(node.query("ns/b", [224, 0, 0, 2]), no_rule());
}

#[test]
fn a_compiler_for_maps_of_an_earlier_run_keeps_what_says_the_same_and_replaces_the_rest() {
    let mut node = Node::new(&["ns/a1", "ns/a2", "ns/b", "ns/c"]);
    let before = node.set(with(&[
        policy("p", "a", ONE),
        policy("q", "b", TWO),
        policy("r", "c", TWO),
    ]));
    // What the maps would hold: a rule of a policy that is gone, sets, and lists that no rule asks for any more.
    let list = |port| {
        let mut list = PortList::default();
        (list.rules[0].first, list.rules[0].last, list.rules[0].decision) = (port, port, 9);
        list
    };
    let stored = Stored {
        rules: node.compiler.rules().cloned().collect(),
        sets: before.sets.clone(),
        lists: vec![(1, list(7)), (3, list(5)), (4, list(5))],
    };
    let slot = |compiler: &Compiler, uid: &str| {
        let rule = compiler.rules().find(|rule| &*rule.id.uid == uid);
        rule.map(|rule| rule.slot)
    };
    let slots = ["ns/p", "ns/q", "ns/r"].map(|uid| slot(&node.compiler, uid).unwrap());
    let mut compiler = Compiler::adopting(Limits::default(), stored);
    let by_port =
        "{name: new, action: Allow, to: [{ipBlock: {cidr: 225.1.1.3/32}}], ports: [{protocol: UDP, port: 5}]}";
    let model = with(&[policy("q", "b", TWO), policy("p", "a", ONE), policy("s", "c", by_port)]);
    let change = compiler.compile(&model.into_iter().collect(), &node.pods).unwrap();
    assert_eq!(["ns/p", "ns/q"].map(|uid| slot(&compiler, uid).unwrap()), slots[..2]);
    assert!(
        !slots.contains(&slot(&compiler, "ns/s").unwrap()),
        "not the slot of a rule that still has counters"
    );
    // The sets of p and of q say the same as before, and the one of r is nobody's.
    let ids = |sets: &[Arc<PolicySet>]| sets.iter().map(|set| set.id).collect::<Vec<_>>();
    let (old, new) = (ids(&before.sets), ids(&change.sets));
    assert_eq!((old.len(), new.len()), (3, 3));
    assert_eq!(new.iter().filter(|id| old.contains(id)).count(), 2);
    let retired = ids(&change.retired.sets);
    assert_eq!(retired.len(), 1);
    assert!(old.contains(&retired[0]) && !new.contains(&retired[0]));
    assert_eq!(change.retired.lists, [1, 3, 4]);
    assert_eq!(change.lists.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2]);
    let gone: Vec<_> = change
        .retired
        .rules
        .iter()
        .map(|rule| (&*rule.id.uid, rule.slot))
        .collect();
    assert_eq!(gone, [("ns/r", slots[2])]);
    // Its numbers come back like any others, and once.
    compiler.release(change.retired);
    let again = compiler.compile(&with(&[]).into_iter().collect(), &node.pods).unwrap();
    assert_eq!(again.retired.rules.len(), 3);
}

#[test]
fn a_pod_that_is_gone_is_forgotten() {
    let mut node = Node::new(&["ns/a1", "ns/a2"]);
    node.set(with(&[policy("p", "a", ONE)]));
    node.pods.pop();
    let change = node.set(with(&[policy("p", "a", ONE)]));
    assert_eq!(change.flips, [(PodName::new("ns", "a2"), None)]);
    assert_eq!(node.data("ns/a2", [225, 1, 1, 1], 1), no_rule());
    node.pods.push(PodName::new("ns", "a2"));
    let change = node.set(with(&[policy("p", "a", ONE)]));
    assert_eq!(
        (names(&change), change.sets.len()),
        (vec!["a2"], 0),
        "the set is there still"
    );
}
