//! Maps that do not hold everything, or not beside what is retired.

use super::*;

const LIMITS: Limits = Limits {
    rules: 10,
    lists: 10,
    sets: 30,
    entries: 100,
};

/// A policy for every Pod: a rule `r` for 225.1.1.`group`, by these ports.
fn policy(name: &str, uid: &str, group: u8, ports: &str) -> Object {
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: {name}, uid: {uid}}}, spec: \
         {{priority: 1, appliedTo: [{{podSelector: {{}}}}], egress: [{{name: r, action: Drop, to: [{{ipBlock: {{cidr: \
         225.1.1.{group}/32}}}}], ports: [{ports}]}}]}}}}"
    );
    objects(&text).remove(0)
}

/// Policies p0, p1 and so on, made for the n-th time.
fn eight(made: u32) -> Vec<Object> {
    (0..8)
        .map(|n| policy(&format!("p{n}"), &format!("u{n}-{made}"), n, ""))
        .collect()
}

fn by_port(number: u8, port: u16) -> Object {
    let ports = format!("{{protocol: UDP, port: {port}}}");
    policy(&format!("p{number}"), &format!("u{number}"), number, &ports)
}

fn left_out(change: &Change) -> Vec<String> {
    change
        .problems
        .iter()
        .map(|problem| match problem {
            Problem::Room { policy, .. } => policy.name.to_string(),
            other => panic!("{other}"),
        })
        .collect()
}

/// Compiles as the agent does: a change that is not all is followed by the next. All of them.
fn settle(node: &mut Node, objects: &[Object]) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        assert!(changes.len() < 10, "it never ends: {changes:#?}");
        let change = node.set(objects.to_vec());
        let again = change.again;
        changes.push(change);
        if !again {
            return changes;
        }
    }
}

fn judged(node: &Node, port: u16) -> usize {
    let judged = |n: &u8| node.data("ns/a", [225, 1, 1, *n], port) == drop(&format!("p{n}/r"));
    (0..8).filter(judged).count()
}

/// All policies are made again in one look: the slots of before come back only afterwards.
#[test]
fn what_does_not_fit_beside_the_retired_is_judged_once_they_are_released() {
    let mut node = Node::with(LIMITS, &["ns/a"]);
    assert_eq!(settle(&mut node, &eight(1)).len(), 1);
    let changes = settle(&mut node, &eight(2));
    let left_out: Vec<_> = changes.iter().map(|change| left_out(change).len()).collect();
    assert_eq!(left_out, [6, 0], "two of ten slots are free");
    assert_eq!(judged(&node, 1), 8);
    assert_eq!(node.set(eight(2)), Change::default(), "nothing is left to do");
}

/// Lists of ports in place of rules: the same rules keep their slots, so their totals go on.
#[test]
fn a_policy_that_waits_for_lists_keeps_its_slots() {
    let mut node = Node::with(LIMITS, &["ns/a"]);
    let all = |port| (0..8).map(move |n| by_port(n, port)).collect::<Vec<_>>();
    settle(&mut node, &all(5000));
    let before: Vec<RuleRow> = node.compiler.rules().cloned().collect();
    let changes = settle(&mut node, &all(6000));
    assert!(!left_out(&changes[0]).is_empty());
    assert_eq!((judged(&node, 5000), judged(&node, 6000)), (0, 8));
    assert_eq!(node.compiler.rules().cloned().collect::<Vec<_>>(), before);
    assert!(changes.iter().all(|change| change.retired.rules.is_empty()));
    let reach = node.compiler.reach();
    assert!(before.iter().all(|row| reach.of(&row.id).unwrap().pods() == [0]));
}

/// A restart with most lists in use: what says the same is the same list, and no rule loses its slot.
#[test]
fn a_compiler_for_maps_of_an_earlier_run_shares_their_lists() {
    let mut node = Node::with(LIMITS, &["ns/a"]);
    let all = || (0..8).map(|n| by_port(n, 5000)).collect::<Vec<_>>();
    let first = node.set(all());
    let rows: Vec<RuleRow> = node.compiler.rules().cloned().collect();
    let stored = Stored {
        rules: rows.clone(),
        sets: first.sets.clone(),
        lists: first.lists.clone(),
    };
    node.compiler = Compiler::adopting(LIMITS, stored);
    let change = node.set(all());
    assert_eq!((&*change.problems, change.again), (&[][..], false));
    assert_eq!((&*change.lists, &*change.retired.lists), (&[][..], &[][..]));
    assert_eq!(node.compiler.rules().cloned().collect::<Vec<_>>(), rows);
    assert_eq!(judged(&node, 5000), 8);
    // They go like any others when nobody asks for them any more.
    let change = node.set([]);
    assert_eq!(change.flips.len(), 1);
    assert_eq!(settle(&mut node, &all()).len(), 1, "all ten lists are free");
}

/// Half of the policies change: the other half has all that it needs, and is judged all the time.
#[test]
fn only_what_changes_waits() {
    let mut node = Node::with(LIMITS, &["ns/a"]);
    let half = |port| {
        let port = move |n| if n < 4 { port } else { 5000 };
        (0..8).map(|n| by_port(n, port(n))).collect::<Vec<_>>()
    };
    settle(&mut node, &half(5000));
    for change in settle(&mut node, &half(6000)) {
        let stay = ["p4", "p5", "p6", "p7"];
        assert!(left_out(&change).iter().all(|policy| !stay.contains(&&**policy)));
    }
    assert_eq!((judged(&node, 5000), judged(&node, 6000)), (4, 4));
}

/// Where the maps are too small for good, no more than needed is left out, whatever was there before.
#[test]
fn no_more_than_needed_is_left_out() {
    let sixteen: Vec<_> = (0..16)
        .map(|n| policy(&format!("p{n}"), &format!("u{n}"), n, ""))
        .collect();
    let mut node = Node::with(LIMITS, &["ns/a"]);
    let changes = settle(&mut node, &sixteen);
    // Each asks for the same: those that count last are left out, and p9 comes after p15.
    let last = ["p9", "p8", "p7", "p6", "p5", "p4"];
    assert_eq!(
        (changes.len(), left_out(&changes[0])),
        (1, last.map(String::from).to_vec())
    );
    let first: Vec<_> = sixteen[4..10].to_vec();
    let mut node = Node::with(LIMITS, &["ns/a"]);
    settle(&mut node, &first);
    let changes = settle(&mut node, &sixteen);
    assert_eq!(
        left_out(changes.last().unwrap()),
        last,
        "the same, although these were there first"
    );
    assert_eq!(node.set(sixteen).problems.len(), 6);
}

/// Every change comes to an end and to the same as in empty maps, whatever was there before.
#[test]
fn any_change_settles_as_in_empty_maps() {
    let mut random = seed::Random::new(6);
    let mut node = Node::with(LIMITS, &["ns/a", "ns/b"]);
    let (mut short, mut steps) = (0, 0);
    for round in 0..200 {
        let mut policies = Vec::new();
        for n in 0..12_u8 {
            let ports = match random.below(3) {
                0 => String::new(),
                _ => format!("{{protocol: UDP, port: {}}}", random.below(60_000)),
            };
            let (group, made) = (random.below(4) as u8 * 4 + n % 4, random.below(3));
            if random.below(6) > 0 {
                policies.push(policy(&format!("p{n}"), &format!("u{n}-{made}"), group, &ports));
            }
        }
        let changes = settle(&mut node, &policies);
        let mut fresh = Node::with(LIMITS, &["ns/a", "ns/b"]);
        let wanted = fresh.set(policies);
        assert!(!wanted.again);
        assert_eq!(changes.last().unwrap().problems, wanted.problems, "round {round}");
        for group in 0..16 {
            for port in [5, 5000] {
                let address = [225, 1, 1, group];
                assert_eq!(node.data("ns/a", address, port), fresh.data("ns/a", address, port));
            }
        }
        assert_eq!(node.tables.entries(), fresh.tables.entries());
        short += usize::from(!wanted.problems.is_empty());
        steps += usize::from(changes.len() > 1);
    }
    assert!(
        short > 20 && steps > 20,
        "worth their number: {short} too large, {steps} in steps"
    );
}

/// A policy for every Pod whose rule is for these addresses in 225.1.`number`.0/24.
fn of_groups(number: u8, groups: &[u8]) -> Object {
    let block = |group: &u8| format!("{{ipBlock: {{cidr: 225.1.{number}.{group}/32}}}}");
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p{number}}}, spec: {{priority: 1, \
         appliedTo: [{{podSelector: {{}}}}], egress: [{{name: r, action: Drop, to: [{}]}}]}}}}",
        groups.iter().map(block).collect::<Vec<_>>().join(", ")
    );
    objects(&text).remove(0)
}

/// The addresses that a policy decides for a Pod.
fn groups_of(node: &Node, pod: &str, number: u8) -> Vec<u8> {
    let decided = |group: &u8| node.data(pod, [225, 1, number, *group], 1) == drop(&format!("p{number}/r"));
    (0..=255).filter(decided).collect()
}

/// Compiles as the agent does where the trie has room for so many prefixes, those that are there already among them. What
/// is in force is looked at after each change.
fn settle_beside(node: &mut Node, objects: &[Object], most: usize, look: impl Fn(&Node, &Change)) -> usize {
    let model: Model = objects.iter().cloned().collect();
    let mut made = 0;
    for _ in 0..40 {
        let mut change = node.compiler.compile(&model, &node.pods).unwrap();
        let wanted: usize = change.sets.iter().map(|set| set.entries.len()).sum();
        if let Some(largest) = change.sets.iter().max_by_key(|set| set.entries.len())
            && node.tables.entries() + wanted > most
        {
            node.compiler.no_room(largest);
            continue;
        }
        made += 1;
        node.tables.apply(&change);
        look(node, &change);
        node.compiler.release(std::mem::take(&mut change.retired));
        if !change.again {
            return made;
        }
    }
    panic!("it never ends");
}

const BESIDE: Limits = Limits { entries: 14, ..LIMITS };

/// Nine prefixes of sixteen, to be replaced by nine others: what asks for less does not wait for that, and what asks for
/// nothing new is judged all the time.
#[test]
fn what_has_no_room_beside_its_old_form_is_judged_once_that_is_gone() {
    let of_large = |first: u8| of_groups(0, &(first..first + 9).collect::<Vec<_>>());
    let mut node = Node::with(BESIDE, &["ns/a"]);
    settle(&mut node, &[of_large(0), of_groups(1, &[1]), of_groups(2, &[1])]);
    let before: Vec<RuleRow> = node.compiler.rules().cloned().collect();
    let wanted = [of_large(100), of_groups(1, &[2]), of_groups(2, &[1])];
    let seen = std::cell::RefCell::new(Vec::new());
    let made = settle_beside(&mut node, &wanted, 16, |node, change| {
        let groups = [0, 1, 2].map(|number| groups_of(node, "ns/a", number));
        seen.borrow_mut().push((left_out(change), groups));
        assert_eq!(change.retired.rules, [], "no total is lost");
    });
    let others = (vec![2], vec![1]);
    let [none, new] = [vec![], (100..109).collect()].map(|large| [large, others.0.clone(), others.1.clone()]);
    assert_eq!(made, 2);
    assert_eq!(*seen.borrow(), [(vec!["p0".to_owned()], none), (vec![], new)]);
    assert_eq!(node.compiler.rules().cloned().collect::<Vec<_>>(), before);
    // The one that stands in the way is left out, not the one that changes beside it.
    let wanted = [of_large(100), of_groups(1, &[3]), of_groups(2, &[1])];
    let first = std::cell::RefCell::new(Vec::new());
    settle_beside(&mut node, &wanted, 16, |_, change| {
        first.borrow_mut().push(left_out(change));
    });
    assert_eq!(*first.borrow(), [vec!["p0".to_owned()], vec![]]);
}

/// Every change comes to an end and to all that fits into the trie alone; meanwhile a policy is judged as it is to be, or
/// not at all.
#[test]
fn any_change_without_room_settles_and_is_never_judged_by_half() {
    let mut random = seed::Random::new(66);
    let pods = ["ns/a", "ns/b", "ns/c"];
    let mut node = Node::with(BESIDE, &pods[..1]);
    let (mut short, mut steps) = (0, 0);
    for round in 0..300 {
        node.pods = pods[..1 + random.below(3)]
            .iter()
            .map(|pod| PodName::new("ns", &pod[3..]))
            .collect();
        let mut wanted = Vec::new();
        for number in 0..6_u8 {
            if random.below(5) > 0 {
                let first = random.below(4) as u8 * 50;
                let groups: Vec<u8> = (first..=first + random.below(5) as u8).collect();
                wanted.push((number, groups));
            }
        }
        let policies: Vec<_> = wanted
            .iter()
            .map(|(number, groups)| of_groups(*number, groups))
            .collect();
        let slots = |node: &Node| -> BTreeMap<RuleId, u16> {
            let rules = node.compiler.rules();
            rules.map(|row| (row.id.clone(), row.slot)).collect()
        };
        let before = slots(&node);
        let made = settle_beside(&mut node, &policies, 15, |node, change| {
            let left_out = left_out(change);
            for ((number, groups), pod) in wanted.iter().flat_map(|of| pods.map(|pod| (of, pod))) {
                let there = node.pods.iter().any(|name| name.to_string() == pod);
                let judged = there && !left_out.contains(&format!("p{number}"));
                let whole = if judged { &groups[..] } else { &[] };
                assert_eq!(groups_of(node, pod, *number), whole, "round {round}: {left_out:?}");
            }
        });
        let mut fresh = Node::with(BESIDE, &[]);
        fresh.pods.clone_from(&node.pods);
        let lasting = left_out(&fresh.set(policies));
        for (number, groups) in &wanted {
            let whole = if lasting.contains(&format!("p{number}")) {
                &[]
            } else {
                &groups[..]
            };
            assert_eq!(groups_of(&node, "ns/a", *number), whole, "round {round}");
        }
        let after = slots(&node);
        let kept = |(id, slot): (&RuleId, &u16)| after.get(id).is_none_or(|now| now == slot);
        assert!(before.iter().all(kept), "round {round}: a rule has lost its slot");
        short += usize::from(!lasting.is_empty());
        steps += usize::from(made > 1);
    }
    assert!(short > 20 && steps > 20, "{short} too large, {steps} in steps");
}
