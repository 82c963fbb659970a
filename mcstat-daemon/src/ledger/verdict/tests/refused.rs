//! What is refused, what is let pass, and whom a policy is for.

use super::*;

fn acnp(spec: &str) -> Result<Object, Refusal> {
    policy("ClusterNetworkPolicy", spec)
}

fn policy(kind: &str, spec: &str) -> Result<Object, Refusal> {
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: {kind}, metadata: {{name: p, namespace: ns}}, spec: {{priority: 1, {spec}}}}}"
    );
    read(serde_yaml::from_str(&text).unwrap())
}

fn rules(object: &Object) -> usize {
    match &object.content {
        Content::Policy(policy) => policy.rules.len(),
        other => panic!("{other:?}"),
    }
}

const ALL: &str = "appliedTo: [{podSelector: {}}]";

/// What Antrea's admission refuses of multicast rules, each with the name of the policy and the rule.
#[test]
fn what_antrea_refuses_is_refused_by_name() {
    let cases = [
        (
            "egress",
            "{name: r, action: Drop, protocols: [{igmp: {}}, {icmp: {icmpType: 8}}]}",
            Reason::MixedIgmp,
        ),
        (
            "egress",
            "{name: r, action: Drop, protocols: [{igmp: {}}], ports: [{port: 1}]}",
            Reason::MixedIgmp,
        ),
        (
            "egress",
            "{name: r, action: Drop, protocols: [{igmp: {}}], to: [{podSelector: {}}]}",
            Reason::MixedIgmp,
        ),
        (
            "ingress",
            "{name: r, action: Drop, protocols: [{igmp: {}}], from: [{podSelector: {}}]}",
            Reason::MixedIgmp,
        ),
        (
            "egress",
            "{name: r, action: Pass, protocols: [{igmp: {}}]}",
            Reason::Action("Pass"),
        ),
        (
            "egress",
            "{name: r, action: Reject, protocols: [{igmp: {}}]}",
            Reason::Action("Reject"),
        ),
        (
            "egress",
            "{name: r, action: Pass, to: [{ipBlock: {cidr: 225.1.1.1/32}}]}",
            Reason::Action("Pass"),
        ),
        (
            "egress",
            "{name: r, to: [{ipBlock: {cidr: 225.1.1.1/32}}]}",
            Reason::NoAction,
        ),
        (
            "egress",
            "{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1/32}}, {ipBlock: {cidr: 10.0.0.0/8}}]}",
            Reason::MixedAddresses,
        ),
        (
            "egress",
            "{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1/32}, podSelector: {}}]}",
            Reason::MixedPeer,
        ),
        (
            "egress",
            "{name: r, action: Drop, protocols: [{igmp: {igmpType: 0x11}}]}",
            Reason::IgmpType {
                given: 0x11,
                allowed: "0x12, 0x16, 0x22",
            },
        ),
        (
            "ingress",
            "{name: r, action: Drop, protocols: [{igmp: {igmpType: 0x22}}]}",
            Reason::IgmpType {
                given: 0x22,
                allowed: "0x11",
            },
        ),
        (
            "egress",
            "{name: r, action: Drop, protocols: [{igmp: {groupAddress: 10.0.0.1}}]}",
            Reason::GroupAddress("10.0.0.1".to_owned()),
        ),
        (
            "egress",
            "{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1}}]}",
            Reason::Cidr("225.1.1.1".to_owned()),
        ),
        (
            "egress",
            "{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.0/24, except: [225.1.2.0/25]}}]}",
            Reason::Except {
                except: "225.1.2.0/25".to_owned(),
                cidr: "225.1.1.0/24".to_owned(),
            },
        ),
        (
            "egress",
            "{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1/32}}], ports: [{protocol: UDP, port: 9, endPort: 8}]}",
            Reason::Port(9, 8),
        ),
        (
            "egress",
            "{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1/32}}], ports: [{protocol: UDP, endPort: 8}]}",
            Reason::EndPort(8),
        ),
        (
            "egress",
            "{name: r, action: Drop, to: [{ipBlock: {cidr: 225.1.1.1/32}}], ports: [{protocol: UDP, sourcePort: 8}]}",
            Reason::SourcePort,
        ),
    ];
    for (direction, rule, reason) in cases {
        let refusal = acnp(&format!("{ALL}, {direction}: [{rule}]")).unwrap_err();
        assert_eq!(refusal.reason, reason, "{rule}");
        let text = refusal.to_string();
        assert!(text.starts_with("ClusterNetworkPolicy p, rule r: "), "{text}");
    }
    let query = "protocols: [{igmp: {igmpType: 0x11}}]";
    let cases = [
        (
            format!("{ALL}, ingress: [{{name: r, action: Drop, {query}}}, {{name: r, action: Allow, from: []}}]"),
            Reason::SameName,
        ),
        (
            format!("ingress: [{{name: r, action: Drop, {query}}}]"),
            Reason::AppliedTo,
        ),
        (
            format!("{ALL}, ingress: [{{name: r, action: Drop, {ALL}, {query}}}]"),
            Reason::AppliedTo,
        ),
        (
            format!("ingress: [{{name: r, action: Drop, {ALL}, {query}}}], egress: [{{name: s, action: Drop}}]"),
            Reason::AppliedTo,
        ),
        (
            format!("appliedTo: [{{group: g, podSelector: {{}}}}], ingress: [{{name: r, action: Drop, {query}}}]"),
            Reason::AppliedToEntry,
        ),
    ];
    for (spec, reason) in cases {
        assert_eq!(acnp(&spec).unwrap_err().reason, reason, "{spec}");
    }
    let spec = format!("appliedTo: [{{namespaceSelector: {{}}}}], ingress: [{{name: r, action: Drop, {query}}}]");
    let refusal = policy("NetworkPolicy", &spec).unwrap_err();
    assert_eq!(refusal.reason, Reason::AppliedToNamespace);
    assert!(refusal.to_string().starts_with("NetworkPolicy ns/p: "), "{refusal}");
}

/// Names that the maps would cut tell no rules apart, and none is the same after a restart.
#[test]
fn names_that_the_maps_do_not_hold_are_refused() {
    let named = |name: &str| {
        acnp(&format!(
            "{ALL}, egress: [{{name: \"{name}\", action: Drop, protocols: [{{igmp: {{}}}}]}}]"
        ))
    };
    assert_eq!(rules(&named(&"n".repeat(247)).unwrap()), 1);
    let refusal = named(&"n".repeat(248)).unwrap_err().to_string();
    assert!(
        refusal.starts_with("ClusterNetworkPolicy p, rule nnn")
            && refusal.ends_with(": the name of the rule has 248 bytes; it has at most 247, and no NUL among them"),
        "{refusal}"
    );
    let (what, most) = ("the name of the rule", 247);
    assert_eq!(
        named("a\\0b").unwrap_err().reason,
        Reason::Name { what, bytes: 3, most }
    );
    let unicast = "egress: [{name: NAME, action: Drop}]".replace("NAME", &"n".repeat(248));
    assert_eq!(
        rules(&acnp(&format!("{ALL}, {unicast}")).unwrap()),
        0,
        "it is nobody's business here"
    );
    // What Kubernetes takes for names of objects fits; files may say more.
    let text = |name: usize, uid: usize| {
        format!(
            "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: {}, uid: {}}}, spec: \
             {{priority: 1, {ALL}, egress: [{{action: Drop, protocols: [{{igmp: {{}}}}]}}]}}}}",
            "p".repeat(name),
            "u".repeat(uid)
        )
    };
    let read = |name, uid| read(serde_yaml::from_str(&text(name, uid)).unwrap());
    assert_eq!(rules(&read(253, 343).unwrap()), 1);
    for (name, uid, what) in [(256, 1, "metadata.name"), (1, 344, "metadata.uid")] {
        match read(name, uid).unwrap_err().reason {
            Reason::Name { what: found, .. } => assert_eq!(found, what),
            other => panic!("{other}"),
        }
    }
}

/// Rules that do not concern multicast are nobody's business here, whatever they say.
#[test]
fn other_rules_are_let_pass() {
    for (direction, rule) in [
        ("egress", "{action: Pass, to: [{ipBlock: {cidr: 10.0.0.0/8}}]}"),
        (
            "egress",
            "{action: Reject, to: [{podSelector: {}}], ports: [{protocol: TCP, port: http}]}",
        ),
        ("egress", "{action: Drop, to: [{fqdn: '*.example.com'}]}"),
        ("egress", "{action: Drop}"),
        ("egress", "{action: Drop, to: [{ipBlock: {cidr: 0.0.0.0/0}}]}"),
        ("egress", "{action: Drop, to: [{ipBlock: {cidr: 'ff05::/16'}}]}"),
        ("egress", "{action: Allow, toServices: [{name: s}]}"),
        ("egress", "{action: Allow, l7Protocols: [{http: {}}], to: null}"),
        ("ingress", "{action: Drop, from: [{ipBlock: {cidr: 225.1.1.0/24}}]}"),
    ] {
        let object = acnp(&format!("{ALL}, {direction}: [{rule}]")).unwrap();
        assert_eq!(rules(&object), 0, "{rule}");
    }
    let object = acnp(&format!(
        "{ALL}, egress: [{{action: Pass}}, {{action: Drop, protocols: [{{igmp: {{}}}}]}}]"
    ))
    .unwrap();
    let Content::Policy(policy) = &object.content else {
        panic!()
    };
    let [rule] = &*policy.rules else { panic!() };
    assert_eq!(
        (&*rule.name, rule.index),
        ("egress-1", 1),
        "a rule without a name is called by its place"
    );
}

/// Whom each list of `appliedTo` is for, of three Pods in two namespaces.
#[test]
fn policies_are_for_whom_they_are_applied_to() {
    let world = "
{apiVersion: v1, kind: Namespace, metadata: {name: red, labels: {colour: red}}}
--- {apiVersion: v1, kind: Pod, metadata: {namespace: red, name: a, labels: {app: a}}, spec: {serviceAccountName: sa}}
--- {apiVersion: v1, kind: Pod, metadata: {namespace: red, name: b, labels: {app: b}}}
--- {apiVersion: v1, kind: Pod, metadata: {namespace: blue, name: a, labels: {app: a}}, spec: {serviceAccountName: sa}}
--- {apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: g}, spec: {podSelector: {matchLabels: {app: a}}}}
--- {apiVersion: crd.antrea.io/v1beta1, kind: Group, metadata: {namespace: red, name: g}, spec: {podSelector: {matchLabels: {app: b}}}}
--- {apiVersion: crd.antrea.io/v1beta1, kind: Group, metadata: {namespace: red, name: far}, spec: {namespaceSelector: {}}}
--- ";
    let pods = ["red/a", "red/b", "red/unknown", "blue/a"];
    let cases = [
        ("ClusterNetworkPolicy", "{podSelector: {}}", [true, true, true, true]),
        (
            "ClusterNetworkPolicy",
            "{podSelector: {matchLabels: {app: a}}}",
            [true, false, false, true],
        ),
        (
            "ClusterNetworkPolicy",
            "{namespaceSelector: {matchLabels: {colour: red}}}",
            [true, true, true, false],
        ),
        (
            "ClusterNetworkPolicy",
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: blue}}}",
            [false, false, false, true],
        ),
        (
            "ClusterNetworkPolicy",
            "{podSelector: {matchLabels: {app: a}}, namespaceSelector: {matchLabels: {colour: red}}}",
            [true, false, false, false],
        ),
        ("ClusterNetworkPolicy", "{group: g}", [true, false, false, true]),
        ("ClusterNetworkPolicy", "{group: missing}", [false; 4]),
        (
            "ClusterNetworkPolicy",
            "{serviceAccount: {namespace: red, name: sa}}",
            [true, false, false, false],
        ),
        ("ClusterNetworkPolicy", "{nodeSelector: {}}", [false; 4]),
        (
            "ClusterNetworkPolicy",
            "{podSelector: {matchLabels: {app: b}}}, {group: g}",
            [true, true, false, true],
        ),
        ("NetworkPolicy", "{podSelector: {}}", [true, true, true, false]),
        (
            "NetworkPolicy",
            "{podSelector: {matchLabels: {app: a}}}",
            [true, false, false, false],
        ),
        ("NetworkPolicy", "{group: g}", [false, true, false, false]),
        ("NetworkPolicy", "{group: far}", [false; 4]),
    ];
    for (kind, list, expected) in cases {
        for in_spec in [true, false] {
            let rule = "name: r, action: Drop, protocols: [{igmp: {}}]";
            let spec = match in_spec {
                true => format!("appliedTo: [{list}], egress: [{{{rule}}}]"),
                false => format!("egress: [{{{rule}, appliedTo: [{list}]}}]"),
            };
            let policy = format!(
                "{{apiVersion: crd.antrea.io/v1beta1, kind: {kind}, metadata: {{name: p, namespace: red}}, \
                 spec: {{priority: 1, {spec}}}}}"
            );
            let mut node = Node::new(&pods);
            let change = node.set(objects(&(world.to_owned() + &policy)));
            let denied = pods.map(|pod| node.report(pod, 2, [225, 1, 1, 1]) == drop("p/r"));
            assert_eq!(denied, expected, "{kind} {list}");
            let at_fault = list.contains("missing") || list.contains("far");
            assert_eq!(change.problems.len(), usize::from(at_fault), "{:?}", change.problems);
        }
    }
}

#[test]
fn a_policy_of_an_unknown_tier_is_not_judged() {
    let object = acnp(&format!(
        "tier: nowhere, {ALL}, egress: [{{name: r, action: Drop, protocols: [{{igmp: {{}}}}]}}]"
    ));
    let mut node = Node::new(&["ns/a"]);
    let change = node.set([object.unwrap()]);
    let problems = change.problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    assert_eq!(
        problems,
        ["ClusterNetworkPolicy p: tier nowhere does not exist; the policy is not judged"]
    );
    assert_eq!(node.report("ns/a", 1, [225, 1, 1, 1]), no_rule());
}
