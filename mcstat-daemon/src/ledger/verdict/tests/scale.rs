//! How long compiling takes. No time is asserted: the numbers are printed (`--nocapture`), the result is checked.

use std::time::Instant;

use super::{seed::Random, *};

const RULES: usize = 1000;
const PODS: usize = 500;
const EACH: usize = 100;

/// One policy with one rule, for 100 of 500 Pods, which a label selects.
fn policy(number: usize, action: &str) -> Object {
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p{number}}}, spec: {{priority: {}, \
         appliedTo: [{{podSelector: {{matchLabels: {{in-{number}: 'yes'}}}}}}], egress: [{{name: r, action: {action}, to: \
         [{{ipBlock: {{cidr: 225.{}.{}.0/24}}}}]}}]}}}}",
        1 + number % 7,
        number / 256,
        number % 256
    );
    objects(&text).remove(0)
}

/// Each rule is for 100 Pods of its own choice, so that no two Pods have the same rules.
fn world() -> Vec<Object> {
    let mut random = Random::new(1);
    let mut labels = vec![Labels::new(); PODS];
    for rule in 0..RULES {
        let mut left = EACH;
        for (pod, labels) in labels.iter_mut().enumerate() {
            // Chosen with the chance that makes exactly so many of them.
            if random.below(PODS - pod) < left {
                left -= 1;
                labels.insert(format!("in-{rule}"), "yes".to_owned());
            }
        }
    }
    let pod = |(number, labels)| Object {
        key: ObjectKey {
            kind: Kind::Pod,
            namespace: "ns".into(),
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
    let policies = (0..RULES).map(|number| policy(number, "Drop"));
    policies.chain(labels.into_iter().enumerate().map(pod)).collect()
}

#[test]
fn a_thousand_rules_on_five_hundred_pods() {
    let mut objects = world();
    let names: Vec<_> = (0..PODS).map(|pod| PodName::new("ns", &format!("pod-{pod}"))).collect();
    let limits = Limits {
        entries: 200_000,
        ..Limits::default()
    };
    let mut compiler = Compiler::new(limits);
    let start = Instant::now();
    let model: Model = objects.iter().cloned().collect();
    let change = compiler.compile(&model, &names).unwrap();
    let whole = start.elapsed();
    assert_eq!(change.problems, []);
    assert_eq!(change.flips.len(), PODS);
    assert_eq!(change.rules.len(), RULES);
    let (sets, entries) = (
        change.sets.len(),
        change.sets.iter().map(|set| set.entries.len()).sum::<usize>(),
    );
    compiler.release(change.retired);

    objects[RULES / 2] = policy(RULES / 2, "Allow");
    let start = Instant::now();
    let model: Model = objects.iter().cloned().collect();
    let change = compiler.compile(&model, &names).unwrap();
    let one = start.elapsed();
    println!("{RULES} rules, {PODS} Pods: {sets} sets, {entries} prefixes in {whole:?}; one rule's change in {one:?}");
    assert_eq!((change.flips.len(), change.rules.len()), (EACH, 1));
    assert_eq!(change.sets.len(), change.retired.sets.len());
}

/// What a tenant can do at worst with one prefix: many rules for it, each with exceptions of its own.
#[test]
fn many_exceptions_of_one_prefix() {
    const EXCEPTIONS: usize = 20;
    let rules = (0..RULES).map(|rule| {
        let except = (0..EXCEPTIONS).map(|n| format!("239.{}.{}.{n}/32", rule / 256, rule % 256));
        let except = except.collect::<Vec<_>>().join(", ");
        format!("{{name: r{rule}, action: Drop, to: [{{ipBlock: {{cidr: 224.0.0.0/4, except: [{except}]}}}}]}}")
    });
    let text = format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: p}}, spec: {{priority: 1, \
         appliedTo: [{{podSelector: {{}}}}], egress: [{}]}}}}",
        rules.collect::<Vec<_>>().join(", ")
    );
    let objects = objects(&text);
    let mut node = Node::new(&["ns/a"]);
    let start = Instant::now();
    node.set(objects);
    println!(
        "{RULES} rules with {EXCEPTIONS} exceptions each in {:?}",
        start.elapsed()
    );
    assert_eq!(node.data("ns/a", [224, 1, 2, 3], 1), drop("p/r0"));
    assert_eq!(
        node.data("ns/a", [239, 0, 0, 19], 1),
        drop("p/r1"),
        "the exceptions of the first leave it to the second"
    );
    assert_eq!(
        node.data("ns/a", [239, 3, 231, 19], 1),
        drop("p/r0"),
        "those of the last are covered by the first"
    );
    assert_eq!(node.tables.entries(), 1 + EXCEPTIONS);
}
