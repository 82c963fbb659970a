//! Groups: what they hold, what they make of a rule, and when they select nothing.

use super::*;

fn group(spec: &str) -> Result<Object, Refusal> {
    let text =
        format!("{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {{name: g}}, spec: {{{spec}}}}}");
    read(serde_yaml::from_str(&text).unwrap())
}

#[test]
fn groups_hold_multicast_or_unicast() {
    assert!(group("ipBlocks: [{cidr: 224.0.0.0/24}]").is_ok());
    let refusal = group("ipBlocks: [{cidr: 224.0.0.0/24}, {cidr: 10.0.0.10/32}]").unwrap_err();
    assert_eq!(refusal.reason, Reason::MixedAddresses);
    assert!(refusal.to_string().starts_with("ClusterGroup g: "), "{refusal}");
}

/// A rule with a group may be one for unicast: only what the group holds makes it one for multicast.
#[test]
fn a_group_can_make_a_rule_one_for_multicast() {
    let policy =
        "{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: p}, spec: {priority: 1,
        appliedTo: [{podSelector: {}}], egress: [{name: r, action: ACTION, to: [{group: g}]}]}}";
    let groups = "
--- {apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: g}, spec: {childGroups: [one, two]}}
--- {apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: one}, spec: {ipBlocks: [{cidr: 225.1.0.0/16, except: [225.1.2.0/24]}]}}
--- {apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: two}, spec: {ipBlocks: [{cidr: 10.0.0.0/8}]}}
";
    let mut node = Node::new(&["ns/a"]);
    let change = node.set(objects(&policy.replace("ACTION", "Pass")));
    assert_eq!(
        (change.problems, node.tables.entries()),
        (vec![], 0),
        "no such group: nothing is known of multicast"
    );
    node.set(objects(&(policy.replace("ACTION", "Drop") + groups)));
    assert_eq!(node.data("ns/a", [225, 1, 1, 1], 1), drop("p/r"));
    assert_eq!(node.data("ns/a", [225, 1, 2, 1], 1), no_rule());
    // Antrea refuses unicast beside multicast in the blocks of one rule or group; what groups bring together it takes.
    let beside = policy
        .replace("ACTION", "Drop")
        .replace("{group: g}", "{group: one}, {ipBlock: {cidr: 10.0.0.0/8}}");
    let change = node.set(objects(&(beside + groups)));
    assert_eq!(change.problems, []);
    assert_eq!(node.data("ns/a", [225, 1, 1, 1], 1), drop("p/r"));
    let change = node.set(objects(&(policy.replace("ACTION", "Pass") + groups)));
    let problems = change.problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    assert_eq!(
        problems,
        ["ClusterNetworkPolicy p, rule r: multicast and IGMP know the actions Allow and Drop, not Pass"]
    );
    assert_eq!(node.data("ns/a", [225, 1, 1, 1], 1), no_rule());
}

/// What is told of a policy at zero is about multicast; a rule on a group is so when the group holds such addresses.
#[test]
fn a_policy_is_about_multicast_by_its_rules_or_its_groups() {
    let policy = |rules: &str| {
        format!(
            "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p}}, spec: {{priority: 1, \
             appliedTo: [{{podSelector: {{}}}}], egress: [{{name: r, action: Allow, {rules}}}]}}}}"
        )
    };
    let groups = "
--- {apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: web}, spec: {podSelector: {}}}
--- {apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: feeds}, spec: {ipBlocks: [{cidr: 225.1.0.0/16}]}}
--- {apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: both}, spec: {childGroups: [web, feeds]}}
";
    for (rules, by_itself, expected) in [
        ("to: [{ipBlock: {cidr: 225.1.1.1/32}}]", Some(true), true),
        ("protocols: [{igmp: {}}]", Some(true), true),
        ("to: [{ipBlock: {cidr: 10.0.0.0/8}}]", Some(false), false),
        ("to: [{group: web}]", None, false),
        ("to: [{group: nowhere}]", None, false),
        ("to: [{group: feeds}]", None, true),
        ("to: [{group: web}, {group: both}]", None, true),
        ("to: [{group: web}, {ipBlock: {cidr: 225.1.1.1/32}}]", Some(true), true),
    ] {
        let model: Model = objects(&(policy(rules) + groups)).into_iter().collect();
        let (key, _, policy) = model.all_policies().next().unwrap();
        let found = (policy.is_multicast(), model.is_multicast(key, policy));
        assert_eq!(found, (by_itself, expected), "{rules}");
    }
}

/// A group that selects nothing for another reason than that nothing fits is told, and so is one inside another.
#[test]
fn groups_that_select_nothing_are_named() {
    let group = |name: &str, spec: &str| {
        format!(
            "--- {{apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
        )
    };
    let groups = group("service", "serviceReference: {name: s, namespace: ns}")
        + &group("external", "externalEntitySelector: {}")
        + &group("parent", "childGroups: [pods, gone, service]")
        + &group("pods", "podSelector: {}, serviceReference: null");
    for (applied_to, faults, judged) in [
        (
            "service",
            &["service has a serviceReference, which is not looked up"][..],
            false,
        ),
        (
            "external",
            &["external has an externalEntitySelector, and external entities are not judged"],
            false,
        ),
        (
            "parent",
            &[
                "gone does not exist",
                "service has a serviceReference, which is not looked up",
            ],
            true,
        ),
        ("pods", &[], true),
    ] {
        let policy = format!(
            "--- {{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p}}, spec: {{priority: 1, \
             appliedTo: [{{group: {applied_to}}}], egress: [{{name: r, action: Drop, protocols: [{{igmp: {{}}}}]}}]}}}}"
        );
        let mut node = Node::new(&["ns/a"]);
        let change = node.set(objects(&(groups.clone() + &policy)));
        let problems = change.problems.iter().map(Problem::to_string).collect::<Vec<_>>();
        let wanted = faults
            .iter()
            .map(|fault| format!("ClusterNetworkPolicy p, rule r: group {fault}; it selects nothing"));
        assert_eq!(problems, wanted.collect::<Vec<_>>());
        assert_eq!(
            node.report("ns/a", 2, [225, 1, 1, 1]) == drop("p/r"),
            judged,
            "{applied_to}"
        );
    }
}
