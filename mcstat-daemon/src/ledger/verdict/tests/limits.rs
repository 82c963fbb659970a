//! Ports and prefixes where rules meet, and what happens when there are too many.

use super::*;

/// A ClusterNetworkPolicy for every Pod, its rules as given.
fn acnp(name: &str, priority: f64, rules: &[String]) -> Object {
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {{priority: \
         {priority:?}, appliedTo: [{{podSelector: {{}}}}], egress: [{}]}}}}",
        rules.join(", ")
    );
    objects(&text).remove(0)
}

fn rule(name: &str, action: &str, block: &str, ports: &str) -> String {
    let ports = if ports.is_empty() {
        String::new()
    } else {
        format!(", ports: [{ports}]")
    };
    format!("{{name: {name}, action: {action}, to: [{{ipBlock: {block}}}]{ports}}}")
}

const GROUP: [u8; 4] = [225, 1, 2, 3];

#[test]
fn ports_are_looked_at_in_the_order_of_the_rules() {
    let block = "{cidr: 225.1.2.3/32}";
    let rules = [
        rule("one", "Allow", block, "{protocol: UDP, port: 5000}"),
        rule(
            "range",
            "Drop",
            block,
            "{protocol: UDP, port: 5000, endPort: 5010}, {protocol: UDP, port: 6000}",
        ),
        rule("shadowed", "Allow", block, "{protocol: UDP, port: 5001, endPort: 5009}"),
        rule(
            "tcp",
            "Drop",
            block,
            "{port: 7000}, {protocol: TCP, port: 7001}, {protocol: UDP, port: named}",
        ),
        rule("udp", "Allow", block, "{protocol: UDP}"),
        rule("rest", "Drop", block, ""),
        rule("never", "Allow", block, ""),
    ];
    let mut node = Node::new(&["ns/a"]);
    let change = node.set([acnp("p", 1.0, &rules)]);
    for (port, decided) in [
        (5000, allow("p/one")),
        (5001, drop("p/range")),
        (5010, drop("p/range")),
        (5011, allow("p/udp")),
        (6000, drop("p/range")),
        (7000, allow("p/udp")),
        (0, allow("p/udp")),
        (65535, allow("p/udp")),
    ] {
        assert_eq!(node.data("ns/a", GROUP, port), decided, "{port}");
    }
    assert_eq!(
        node.judge("ns/a", SPACE_DATA, GROUP, Transport::UdpFragment),
        allow("p/udp")
    );
    assert_eq!(node.judge("ns/a", SPACE_DATA, GROUP, Transport::Other), drop("p/rest"));
    assert_eq!(node.data("ns/a", [225, 1, 2, 4], 5000), no_rule());
    // One prefix, one list: one, range twice, udp; the shadowed rule is not in it.
    assert_eq!((change.sets[0].entries.len(), change.lists.len()), (1, 1));
    let (_, list) = change.lists[0];
    assert_eq!(list.rules.iter().filter(|rule| rule.decision != 0).count(), 4);
}

/// Ports match no fragment; UDP without a port does.
#[test]
fn fragments_match_no_port() {
    let block = "{cidr: 225.1.2.3/32}";
    let halves = "{protocol: UDP, port: 0, endPort: 40000}";
    let mut node = Node::new(&["ns/a"]);
    let rules = [
        rule("half", "Drop", block, halves),
        rule("rest", "Allow", block, "{protocol: UDP, port: 40001, endPort: 65535}"),
    ];
    node.set([acnp("p", 1.0, &rules)]);
    assert_eq!(node.data("ns/a", GROUP, 40000), drop("p/half"));
    assert_eq!(node.data("ns/a", GROUP, 40001), allow("p/rest"));
    assert_eq!(node.judge("ns/a", SPACE_DATA, GROUP, Transport::UdpFragment), no_rule());
    // Nor do ranges of one rule that touch and hold every port, nor one range of all.
    for all in [
        "{protocol: UDP, port: 0, endPort: 40000}, {protocol: UDP, port: 40001, endPort: 65535}",
        "{protocol: UDP, port: 0, endPort: 65535}",
    ] {
        node.set([acnp("p", 1.0, &[rule("all", "Drop", block, all)])]);
        assert_eq!(node.data("ns/a", GROUP, 40000), drop("p/all"));
        assert_eq!(
            node.judge("ns/a", SPACE_DATA, GROUP, Transport::UdpFragment),
            no_rule(),
            "{all}"
        );
        // What they hold is covered; the fragments are not.
        let rest = [
            rule("all", "Drop", block, all),
            rule("one", "Allow", block, "{protocol: UDP, port: 7}"),
            rule("udp", "Allow", block, "{protocol: UDP, port: 7}, {protocol: UDP}"),
        ];
        let change = node.set([acnp("p", 1.0, &rest)]);
        assert_eq!(
            node.judge("ns/a", SPACE_DATA, GROUP, Transport::UdpFragment),
            allow("p/udp")
        );
        let decisions = change.lists[0].1.rules.iter().filter(|rule| rule.decision != 0);
        assert_eq!(decisions.count(), 2, "{all}");
    }
    // Two rules hold every port between them; the third still gets the fragments.
    let rules = [&rules[..], &[rule("udp", "Drop", block, "{protocol: UDP}")]].concat();
    node.set([acnp("p", 1.0, &rules)]);
    assert_eq!(node.data("ns/a", GROUP, 40001), allow("p/rest"));
    assert_eq!(
        node.judge("ns/a", SPACE_DATA, GROUP, Transport::UdpFragment),
        drop("p/udp")
    );
    assert_eq!(node.judge("ns/a", SPACE_DATA, GROUP, Transport::Other), no_rule());
}

#[test]
fn the_longest_prefix_carries_what_wider_ones_say_first() {
    let rules = [
        rule(
            "wide",
            "Drop",
            "{cidr: 225.0.0.0/8, except: [225.1.2.0/24, 225.1.128.0/17]}",
            "",
        ),
        rule("narrow", "Allow", "{cidr: 225.1.0.0/16}", ""),
        rule("hole", "Drop", "{cidr: 225.1.2.3/32}", ""),
        rule("all", "Allow", "{cidr: 224.0.0.0/4}", ""),
    ];
    let mut node = Node::new(&["ns/a"]);
    node.set([acnp("p", 1.0, &rules)]);
    for (group, decided) in [
        ([225, 0, 0, 1], drop("p/wide")),
        ([225, 1, 1, 1], drop("p/wide")),
        ([225, 1, 2, 2], allow("p/narrow")),
        ([225, 1, 2, 3], allow("p/narrow")),
        ([225, 1, 200, 1], allow("p/narrow")),
        ([225, 2, 0, 1], drop("p/wide")),
        ([226, 0, 0, 1], allow("p/all")),
    ] {
        assert_eq!(node.data("ns/a", group, 1), decided, "{group:?}");
    }
    // Boundaries: /4, /8, and the two exceptions; /16 and the /32 say what is around them.
    assert_eq!(node.tables.entries(), 4);
}

#[test]
fn an_exception_can_leave_nothing() {
    let rules = [rule("r", "Drop", "{cidr: 225.1.0.0/16, except: [225.1.2.0/24]}", "")];
    let mut node = Node::new(&["ns/a"]);
    node.set([acnp("p", 1.0, &rules)]);
    assert_eq!(node.data("ns/a", [225, 1, 1, 1], 1), drop("p/r"));
    assert_eq!(node.data("ns/a", [225, 1, 2, 1], 1), no_rule());
    assert_eq!(node.data("ns/a", [225, 2, 2, 1], 1), no_rule());
}

/// Sixteen rules with ports fit at one address; the policy of the seventeenth is left out whole, and named.
#[test]
fn the_seventeenth_port_rule_is_refused_with_its_policy() {
    let at = |port: usize| {
        rule(
            &format!("r{port}"),
            "Drop",
            "{cidr: 225.1.2.3/32}",
            &format!("{{protocol: UDP, port: {port}}}"),
        )
    };
    let sixteen = acnp("sixteen", 1.0, &(1..=16).map(at).collect::<Vec<_>>());
    let other = rule("other", "Drop", "{cidr: 226.1.2.3/32}", "");
    let more = acnp("more", 2.0, &[at(17), other.clone()]);
    let rest = acnp("rest", 3.0, &[rule("rest", "Allow", "{cidr: 224.0.0.0/4}", "")]);
    let mut node = Node::new(&["ns/a", "ns/b"]);
    let change = node.set([sixteen.clone(), rest.clone()]);
    assert_eq!(change.problems, []);
    assert_eq!(node.data("ns/a", GROUP, 16), drop("sixteen/r16"));

    let change = node.set([sixteen, more, rest.clone()]);
    let problems = change.problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    assert_eq!(
        problems,
        [
            "ClusterNetworkPolicy more: more than 16 rules with UDP ports meet at one address; the policy is not judged for 2 Pods"
        ]
    );
    assert_eq!(node.data("ns/a", GROUP, 16), drop("sixteen/r16"));
    assert_eq!(node.data("ns/a", GROUP, 17), allow("rest/rest"));
    assert_eq!(
        node.data("ns/a", [226, 1, 2, 3], 17),
        allow("rest/rest"),
        "not half of it is judged"
    );

    // A policy that counts before all of them does not push out others than the last.
    let before = acnp("before", 0.5, &[at(18)]);
    let change = node.set([
        acnp("sixteen", 1.0, &(1..=16).map(at).collect::<Vec<_>>()),
        before,
        rest,
    ]);
    assert!(
        change.problems[0]
            .to_string()
            .starts_with("ClusterNetworkPolicy sixteen: "),
        "{:?}",
        change.problems
    );
    assert_eq!(node.data("ns/a", GROUP, 18), drop("before/r18"));
    assert_eq!(node.data("ns/a", GROUP, 1), allow("rest/rest"));
}

/// When the maps are full, the policy that asks for most is left out; the others are judged.
#[test]
fn the_greediest_policy_is_left_out_where_room_is_short() {
    let one = |name: &str, group: &str| acnp(name, 1.0, &[rule("r", "Drop", &format!("{{cidr: {group}/32}}"), "")]);
    let many = |ports: fn(u8) -> String| {
        let rules = (0..20).map(|n| {
            rule(
                &format!("r{n}"),
                "Allow",
                &format!("{{cidr: 227.0.0.{n}/32}}"),
                &ports(n),
            )
        });
        acnp("greedy", 0.5, &rules.collect::<Vec<_>>())
    };
    let plain = many(|_| String::new());
    let by_port = many(|n| format!("{{protocol: UDP, port: {n}}}"));
    let limits = Limits {
        rules: 30,
        lists: 30,
        sets: 30,
        entries: 30,
    };
    for (limits, greedy, room) in [
        (Limits { rules: 10, ..limits }, plain.clone(), Room::Rules),
        (Limits { entries: 10, ..limits }, plain, Room::Entries),
        (Limits { lists: 10, ..limits }, by_port, Room::Lists),
    ] {
        let mut node = Node::with(limits, &["ns/a"]);
        node.set([one("first", "225.1.2.3")]);
        let change = node.set([one("first", "225.1.2.3"), greedy, one("last", "225.1.2.4")]);
        let policy = ObjectKey {
            kind: Kind::ClusterNetworkPolicy,
            namespace: "".into(),
            name: "greedy".into(),
        };
        assert_eq!(change.problems, [Problem::Room { policy, room }]);
        assert_eq!(node.data("ns/a", [225, 1, 2, 3], 1), drop("first/r"));
        assert_eq!(node.data("ns/a", [225, 1, 2, 4], 1), drop("last/r"));
        assert_eq!(node.data("ns/a", [227, 0, 0, 1], 1), no_rule());
    }
}
