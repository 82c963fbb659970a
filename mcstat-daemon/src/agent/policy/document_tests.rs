//! Texts as users write them, good and bad.

use proptest::prelude::*;

use super::*;
use crate::ledger::verdict::{Action, Content, Ports, Subject};

/// In the manner of Antrea's manual: comments, several documents, fields that are not read.
const GOOD: &str = "\
# Multicast of the trading desk.
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata:
  name: acnp-multicast
  annotations:
    note: |
      --  not a marker
spec:
  priority: 5
  tier: securityops
  appliedTo:
    - podSelector:
        matchLabels:
          app: client
  egress:
    - action: Drop
      name: drop-feed
      logLabel: feed
      to:
        - ipBlock:
            cidr: 239.1.0.0/16
            except:
              - 239.1.1.0/24
      ports:
        - protocol: UDP
          port: 5000
          endPort: 5010
      enableLogging: true
  ingress:
    - action: Allow
      name: queries
      protocols:
        - igmp:
            igmpType: 0x11
            groupAddress: 224.0.0.1
status:
  phase: Realized
  currentNodesRealized: 1
---

--- # nothing here
---
apiVersion: v1
kind: Namespace
metadata:
  name: mkt
  labels: {colour: red}
--- {apiVersion: v1, kind: Pod, metadata: {name: feed-0, namespace: mkt}}
...
";

fn failures(text: &str) -> Vec<String> {
    read(text).unwrap_err().iter().map(BadDocument::to_string).collect()
}

#[test]
fn a_text_gives_all_its_objects() {
    for text in [GOOD.to_owned(), GOOD.replace('\n', "\r\n"), format!("\u{feff}{GOOD}")] {
        let objects = read(&text).unwrap();
        let keys: Vec<_> = objects.iter().map(|object| object.key.to_string()).collect();
        assert_eq!(
            keys,
            ["ClusterNetworkPolicy acnp-multicast", "Namespace mkt", "Pod mkt/feed-0"]
        );
        let Content::Policy(policy) = &objects[0].content else {
            panic!()
        };
        assert_eq!(
            (policy.tier.as_deref(), policy.priority, policy.rules.len()),
            (Some("securityops"), 5.0, 2)
        );
        let rule = policy.rules.iter().find(|rule| &*rule.name == "drop-feed").unwrap();
        assert_eq!(rule.action, Action::Drop);
        let Subject::Data { blocks, ports, .. } = &rule.subject else {
            panic!()
        };
        assert_eq!((blocks.len(), blocks[0].except.len()), (1, 1));
        assert_eq!(*ports, Ports::Udp(vec![(5000, 5010)]));
    }
    assert_eq!(read(""), Ok(vec![]));
    assert_eq!(read("---\n# only a comment\n"), Ok(vec![]));
}

#[test]
fn a_list_gives_its_items() {
    let text = "
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: a}
- apiVersion: v1
  kind: Pod
  metadata: {name: b}
";
    let objects = read(text).unwrap();
    let names: Vec<_> = objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(names, ["Pod default/a", "Pod default/b"]);
    let text = text.replace(
        "v1\n  kind: Pod\n  metadata: {name: b}",
        "v1\n  kind: Service\n  metadata: {name: b}",
    );
    assert!(failures(&text)[0].starts_with("document 1, line 2: v1 Service is not used"));
}

/// Each fault by document and line: counted by hand in the text above.
#[test]
fn a_bad_document_is_named_by_number_and_line() {
    for (from, to, expected) in [
        (
            "priority: 5",
            "priority: high",
            "document 1, line 10: spec.priority: invalid type: string \"high\", expected f64",
        ),
        (
            "      name: drop-feed",
            "     name: drop-feed",
            "document 1, line 18: did not find expected",
        ),
        (
            "action: Allow",
            "action: Permit",
            "document 1, line 31: spec.ingress[0].action: unknown variant `Permit`",
        ),
        (
            "action: Drop",
            "action: Reject",
            "document 1, line 2: ClusterNetworkPolicy acnp-multicast, rule drop-feed: multicast",
        ),
        (
            "kind: Namespace",
            "kind: Nmespace",
            "document 2, line 44: v1 Nmespace is not used; known are",
        ),
        (
            "  name: mkt\n",
            "  nom: mkt\n",
            "document 2, line 47: metadata: missing field `name`",
        ),
        (
            "--- {apiVersion: v1, kind: Pod",
            "--- {apiVersion: v1, kind: [Pod",
            "document 3, line 49: ",
        ),
        (
            "name: feed-0",
            "name: [a]",
            "document 3, line 49: metadata.name: invalid type: sequence, expected a string",
        ),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let found = failures(&text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{to}: {found:?}");
    }
}

/// One broken document hides neither the number nor the faults of the others.
#[test]
fn every_bad_document_is_named() {
    let text = "a: [\n---\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n'b\n---\n# twice\n{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n5\n";
    let found = failures(text);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("document 1, line "), "{found:?}");
    assert!(found[1].starts_with("document 3, line "), "{found:?}");
    assert_eq!(found[2], "document 4, line 8: Pod default/a is in this file already");
    assert!(found[3].starts_with("document 5, line 10: "), "{found:?}");
}

#[test]
fn other_policies_are_not_taken_for_antreas() {
    let text = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {}}";
    assert!(failures(text)[0].starts_with("document 1, line 1: networking.k8s.io/v1 NetworkPolicy is not used"));
    let text = "{apiVersion: crd.antrea.io/v1alpha1, kind: NetworkPolicy, metadata: {name: a}, spec: {}}";
    assert!(failures(text)[0].starts_with("document 1, line 1: crd.antrea.io/v1alpha1 NetworkPolicy is not used"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "([-a:{}\\[\\]#&*!|>'\"%. \n\t0-9]|---\n|kind: Pod\n){0,60}") {
        let _ = read(&text);
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(at in 0..GOOD.len(), byte in 0_u8..128) {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = read(text);
        }
    }
}
