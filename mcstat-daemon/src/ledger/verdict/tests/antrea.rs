//! Antrea's own tests, as far as they say which rule decides: its end-to-end cases of data, reports and a mix of both,
//! its IGMP processing, and its order of rules.

use super::*;

/// Labels as Antrea's end-to-end tests give them.
fn pod(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: test, name: {name}, labels: {{antrea-e2e: {name}}}}}}}\n---\n"
    )
}

/// The end-to-end case of data: of 20 packets 10 are dropped by one rule and 10 allowed by the other.
#[test]
fn a_data_policy_allows_one_group_and_drops_the_other() {
    let policy = "
apiVersion: crd.antrea.io/v1beta1
kind: NetworkPolicy
metadata:
  name: anp1-multicast
  namespace: test
spec:
  priority: 10
  appliedTo:
    - podSelector:
        matchLabels:
          antrea-e2e: test1-sender-1
  egress:
    - action: Allow
      to:
        - ipBlock:
            cidr: 225.20.2.3/32
      name: allow-multicast-traffic
      enableLogging: false
    - action: Drop
      to:
        - ipBlock:
            cidr: 225.20.2.2/32
      name: drop-multicast-traffic
      enableLogging: false
";
    let mut node = Node::new(&["test/test1-sender-1", "test/other"]);
    let change = node.set(objects(&(pod("test1-sender-1") + policy)));
    assert!(change.problems.is_empty());
    let sender = "test/test1-sender-1";
    assert_eq!(
        node.data(sender, [225, 20, 2, 3], 2234),
        allow("anp1-multicast/allow-multicast-traffic")
    );
    assert_eq!(
        node.data(sender, [225, 20, 2, 2], 2234),
        drop("anp1-multicast/drop-multicast-traffic")
    );
    assert_eq!(node.data(sender, [225, 20, 2, 4], 2234), no_rule());
    assert_eq!(node.data("test/other", [225, 20, 2, 2], 2234), no_rule());
    assert_eq!(
        node.report(sender, 2, [225, 20, 2, 2]),
        no_rule(),
        "data rules say nothing of reports"
    );
}

/// The end-to-end cases of reports and of the mix.
#[test]
fn igmp_policies_decide_by_group_and_direction() {
    let policies = "
apiVersion: crd.antrea.io/v1beta1
kind: NetworkPolicy
metadata: {name: anp1-mixed, namespace: test}
spec:
  priority: 10
  appliedTo: [{podSelector: {matchLabels: {antrea-e2e: test3-sender-1}}}]
  egress:
    - {name: allow-multicast-traffic, action: Allow, to: [{ipBlock: {cidr: 225.20.1.3/32}}]}
    - {name: drop-multicast-traffic, action: Drop, to: [{ipBlock: {cidr: 225.20.1.2/32}}]}
---
apiVersion: crd.antrea.io/v1beta1
kind: NetworkPolicy
metadata: {name: anp2-mixed, namespace: test}
spec:
  priority: 10
  appliedTo: [{podSelector: {matchLabels: {antrea-e2e: test3-receiver-1}}}]
  egress:
    - {name: allow-igmp-report, action: Allow, protocols: [{igmp: {groupAddress: 225.20.1.2}}]}
    - {name: drop-igmp-report, action: Drop, protocols: [{igmp: {groupAddress: 225.20.1.3}}]}
---
apiVersion: crd.antrea.io/v1beta1
kind: NetworkPolicy
metadata: {name: anp3-mixed, namespace: test}
spec:
  priority: 10
  appliedTo: [{podSelector: {matchLabels: {antrea-e2e: test3-receiver-1}}}]
  ingress:
    - {name: allow-igmp-query, action: Allow, protocols: [{igmp: {igmpType: 0x11, groupAddress: 224.0.0.1}}]}
";
    let names = [
        "test3-sender-1",
        "test3-sender-2",
        "test3-receiver-1",
        "test3-receiver-2",
    ];
    let mut node = Node::new(&names.map(|name| format!("test/{name}")).each_ref().map(String::as_str));
    node.set(objects(&(names.map(pod).concat() + policies)));
    let (sender, receiver) = ("test/test3-sender-1", "test/test3-receiver-1");
    assert_eq!(
        node.data(sender, [225, 20, 1, 2], 2234),
        drop("anp1-mixed/drop-multicast-traffic")
    );
    assert_eq!(
        node.data(sender, [225, 20, 1, 3], 2234),
        allow("anp1-mixed/allow-multicast-traffic")
    );
    assert_eq!(node.data("test/test3-sender-2", [225, 20, 1, 2], 2234), no_rule());
    for version in [1, 2, 3] {
        assert_eq!(
            node.report(receiver, version, [225, 20, 1, 2]),
            allow("anp2-mixed/allow-igmp-report")
        );
        assert_eq!(
            node.report(receiver, version, [225, 20, 1, 3]),
            drop("anp2-mixed/drop-igmp-report")
        );
        assert_eq!(
            node.report("test/test3-receiver-2", version, [225, 20, 1, 3]),
            no_rule()
        );
    }
    assert_eq!(
        node.query(receiver, [224, 0, 0, 1]),
        allow("anp3-mixed/allow-igmp-query")
    );
    assert_eq!(node.query(receiver, [225, 20, 1, 2]), no_rule());
    assert_eq!(node.query(sender, [224, 0, 0, 1]), no_rule());
}

/// Policies like those behind Antrea's IGMP unit tests: which rule decides each record.
#[test]
fn records_are_decided_one_by_one() {
    let policies = "
apiVersion: crd.antrea.io/v1beta1
kind: NetworkPolicy
metadata: {name: annp, namespace: default, uid: annp}
spec:
  priority: 5
  tier: securityops
  appliedTo: [{podSelector: {}}]
  egress:
    - {name: allow_1014, action: Allow, protocols: [{igmp: {igmpType: 0x12, groupAddress: 224.1.101.4}}]}
    - {name: block10120, action: Drop, protocols: [{igmp: {groupAddress: 224.1.101.20}}, {igmp: {groupAddress: 224.1.101.24}}]}
    - {name: allow_10122, action: Allow, protocols: [{igmp: {groupAddress: 224.1.101.22}}]}
---
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: acnp, uid: acnp}
spec:
  priority: 5
  appliedTo: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}]
  egress:
    - {name: allow_10123, action: Allow, protocols: [{igmp: {groupAddress: 224.1.101.23}}]}
---
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: acnp2, uid: acnp2}
spec:
  priority: 6
  appliedTo: [{podSelector: {}}]
  egress:
    - {name: test2, action: Allow, protocols: [{igmp: {igmpType: 0x22, groupAddress: 224.1.103.4}}]}
    - {name: test, action: Drop, protocols: [{igmp: {igmpType: 34, groupAddress: 224.1.103.3}}]}
";
    let mut node = Node::new(&["default/p1"]);
    node.set(objects(policies));
    let report = |version, c, d| node.report("default/p1", version, [224, 1, c, d]);
    // Version 1: three groups, of which one matches; then four, of which three do.
    let f1 = [2, 3, 4].map(|d| report(1, 101, d));
    assert_eq!(f1, [no_rule(), no_rule(), allow("annp/allow_1014")]);
    let f2 = [20, 21, 22, 23].map(|d| report(1, 101, d));
    let block = drop("annp/block10120");
    assert_eq!(
        f2,
        [
            block.clone(),
            no_rule(),
            allow("annp/allow_10122"),
            allow("acnp/allow_10123")
        ]
    );
    // Version 2: the same rule drops another group; the rule for version 1 does not match.
    let f4 = [21, 22, 23, 24].map(|d| report(2, 101, d));
    assert_eq!(
        f4,
        [no_rule(), allow("annp/allow_10122"), allow("acnp/allow_10123"), block]
    );
    assert_eq!(report(2, 101, 4), no_rule());
    // Version 3: a join of three groups, then a leave of two, each record for itself.
    let f5 = [2, 3, 4].map(|d| report(3, 103, d));
    assert_eq!(f5, [no_rule(), drop("acnp2/test"), allow("acnp2/test2")]);
    assert_eq!(report(2, 103, 3), no_rule());
}

/// Antrea's test of the order: same tier, same priority; the lower index decides.
#[test]
fn the_lower_index_decides() {
    let policy = "
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: acnp}
spec:
  priority: 10
  tier: securityops
  appliedTo: [{podSelector: {}}]
  egress:
    - {name: rule01, action: Allow, protocols: [{igmp: {igmpType: 0x12, groupAddress: 225.1.2.3}}]}
    - {name: rule02, action: Drop, protocols: [{igmp: {igmpType: 0x12}}]}
";
    let mut node = Node::new(&["ns1/pod1"]);
    node.set(objects(policy));
    assert_eq!(node.report("ns1/pod1", 1, [225, 1, 2, 3]), allow("acnp/rule01"));
    assert_eq!(node.report("ns1/pod1", 1, [225, 1, 2, 4]), drop("acnp/rule02"));
    assert_eq!(
        node.report("ns1/pod1", 1, [10, 0, 0, 1]),
        drop("acnp/rule02"),
        "no address means any, as in Antrea"
    );
    assert_eq!(node.report("ns1/pod1", 2, [225, 1, 2, 4]), no_rule());
}

/// Tier before policy priority before index; a tier by document, one by its fixed name, and the default.
#[test]
fn tiers_come_before_priorities_and_those_before_the_index() {
    let policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: crd.antrea.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}, \
             appliedTo: [{{podSelector: {{}}}}], egress: [{{name: first, action: Allow, to: [{{ipBlock: {{cidr: \
             225.9.9.9/32}}}}]}}, {{name: any, action: Drop, to: [{{ipBlock: {{cidr: 224.0.0.0/4}}}}]}}]}}\n---\n"
        )
    };
    let tier = "{apiVersion: crd.antrea.io/v1beta1, kind: Tier, metadata: {name: mine}, spec: {priority: 60}}\n---\n";
    let all = [
        ("emergency", "tier: Emergency, priority: 100"),
        ("mine", "tier: mine, priority: 1"),
        ("low", "priority: 4.5"),
        ("default", "tier: application, priority: 5"),
        ("baseline", "tier: baseline, priority: 1"),
    ];
    for first in 0..all.len() {
        let mut node = Node::new(&["ns1/pod1"]);
        let policies = all.iter().skip(first).rev().map(|(name, spec)| policy(name, spec));
        node.set(objects(&(tier.to_owned() + &policies.collect::<String>())));
        assert_eq!(
            node.data("ns1/pod1", [226, 0, 0, 1], 1),
            drop(&format!("{}/any", all[first].0))
        );
        assert_eq!(
            node.data("ns1/pod1", [225, 9, 9, 9], 1),
            allow(&format!("{}/first", all[first].0))
        );
    }
}
