//! What a watcher's events leave behind.

use serde_json::json;

use super::*;

const KINDS: [Kind; 3] = [Kind::ClusterNetworkPolicy, Kind::NetworkPolicy, Kind::Tier];

/// A NetworkPolicy `ns/p` whose one rule does `action`.
fn policy(uid: &str, action: &str) -> DynamicObject {
    let object = json!({"apiVersion": "crd.antrea.io/v1beta1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "ns", "name": "p", "uid": uid},
        "spec": {"priority": 1, "appliedTo": [{"podSelector": {}}],
            "egress": [{"name": "r", "action": action, "to": [{"ipBlock": {"cidr": "225.1.1.1/32"}}]}]}});
    serde_json::from_value(object).unwrap()
}

fn listed() -> Store {
    let mut store = Store::new(KINDS);
    for kind in KINDS {
        store.take(kind, Event::Init);
        store.take(kind, Event::InitDone);
    }
    store
}

/// The policy's UID, its rule's action, and what failed.
fn state(store: &Store) -> (Vec<(String, String)>, Vec<String>) {
    let objects = store.objects();
    let policies = objects.objects.iter().map(|object| match &object.content {
        crate::ledger::verdict::Content::Policy(policy) => {
            (object.uid.to_string(), format!("{:?}", policy.rules[0].action))
        }
        other => panic!("{other:?}"),
    });
    (
        policies.collect(),
        objects.failures.iter().map(ToString::to_string).collect(),
    )
}

fn is(uid: &str, action: &str) -> Vec<(String, String)> {
    vec![(uid.to_owned(), action.to_owned())]
}

#[test]
fn a_list_counts_when_it_is_whole() {
    let mut store = Store::new(KINDS);
    let kind = Kind::NetworkPolicy;
    assert!(!store.objects().known && !store.complete());
    store.take(kind, Event::Init);
    store.take(kind, Event::InitApply(policy("1", "Drop")));
    assert_eq!(state(&store).0, [], "the list has not ended");
    store.take(kind, Event::InitDone);
    assert_eq!(state(&store).0, is("1", "Drop"));
    assert!(!store.objects().known, "the tiers may matter");
    assert!(store.absent(Kind::ClusterNetworkPolicy) && store.absent(Kind::Tier));
    assert!(!store.absent(Kind::Tier), "that is no news");
    assert!(store.objects().known && store.complete());
    // A list that begins anew takes nothing away before its end.
    store.take(kind, Event::Init);
    assert_eq!(state(&store).0, is("1", "Drop"));
    store.take(kind, Event::InitDone);
    assert_eq!(state(&store).0, []);
}

#[test]
fn without_any_kind_of_policy_there_is_no_source() {
    let mut store = listed();
    assert!(store.objects().known);
    store.take(Kind::NetworkPolicy, Event::Apply(policy("1", "Drop")));
    store.absent(Kind::ClusterNetworkPolicy);
    assert!(store.objects().known);
    store.absent(Kind::NetworkPolicy);
    let objects = store.objects();
    assert!(!objects.known && objects.objects.is_empty() && store.complete());
}

/// What may take long to list, or may not be listed at all, does not matter then.
#[test]
fn without_any_kind_of_policy_nothing_else_is_waited_for() {
    let mut store = Store::new(KINDS);
    store.absent(Kind::NetworkPolicy);
    assert!(
        !store.complete() && !store.objects().read,
        "the other kind may be there"
    );
    store.absent(Kind::ClusterNetworkPolicy);
    assert!(store.complete());
    let objects = store.objects();
    assert_eq!((objects.read, objects.known), (true, false));
    // The CRDs appear: the first list of one kind is no whole state yet.
    store.take(Kind::NetworkPolicy, Event::Init);
    store.take(Kind::NetworkPolicy, Event::InitDone);
    assert!(!store.complete(), "the tiers may matter");
    store.absent(Kind::Tier);
    assert!(store.complete() && store.objects().known);
}

#[test]
fn a_bad_object_is_named_and_its_last_good_state_holds() {
    let mut store = listed();
    let mut apply = |object| {
        store.take(Kind::NetworkPolicy, Event::Apply(object));
        state(&store)
    };
    assert_eq!(apply(policy("1", "Drop")), (is("1", "Drop"), vec![]));
    let refused = "NetworkPolicy ns/p is not used as it is now: NetworkPolicy ns/p, rule r: multicast and IGMP know the \
                   actions Allow and Drop, not Reject";
    let (policies, failures) = apply(policy("1", "Reject"));
    assert_eq!(policies, is("1", "Drop"));
    assert_eq!(failures, [format!("{refused}; its last good state holds")]);
    let mut malformed = policy("1", "Drop");
    malformed.data["spec"]["priority"] = json!("high");
    let (policies, failures) = apply(malformed);
    assert_eq!(policies, is("1", "Drop"));
    assert!(failures[0].contains("\"high\", expected f64"), "{failures:?}");
    assert_eq!(apply(policy("1", "Allow")), (is("1", "Allow"), vec![]));
    // Another object of that name never was good.
    assert_eq!(
        apply(policy("2", "Reject")),
        (vec![], vec![format!("{refused}; it is left out")])
    );
    store.take(Kind::NetworkPolicy, Event::Delete(policy("2", "Reject")));
    assert_eq!(state(&store), (vec![], vec![]));
}

#[test]
fn what_says_the_same_is_the_same_value() {
    let mut store = listed();
    let rules = |store: &Store| match &store.objects().objects[0].content {
        crate::ledger::verdict::Content::Policy(policy) => std::sync::Arc::clone(policy),
        other => panic!("{other:?}"),
    };
    store.take(Kind::NetworkPolicy, Event::Apply(policy("1", "Drop")));
    let before = rules(&store);
    store.take(Kind::NetworkPolicy, Event::Init);
    store.take(Kind::NetworkPolicy, Event::InitApply(policy("1", "Drop")));
    store.take(Kind::NetworkPolicy, Event::InitDone);
    assert!(std::sync::Arc::ptr_eq(&before, &rules(&store)));
}
