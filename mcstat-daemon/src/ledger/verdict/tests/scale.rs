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
