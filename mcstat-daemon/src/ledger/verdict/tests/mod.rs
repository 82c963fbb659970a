//! The compiled form against Antrea's own numbers, against the definitions, and against its limits.

mod antrea;
mod change;
mod groups;
mod limits;
mod random;
mod refused;
mod room;
mod scale;
mod seed;

use std::{collections::BTreeMap, net::Ipv4Addr};

use mcstat_common::policy::{SPACE_DATA, SPACE_QUERY, SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3};
use serde::Deserialize as _;
use serde_yaml::{Deserializer, Value};

use super::*;

/// The objects of a YAML text. A document without a UID gets `namespace/name` for one.
fn objects(yaml: &str) -> Vec<Object> {
    let documents = Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    let documents = documents.filter(|document| !document.is_null());
    documents.map(|document| read(document).unwrap()).collect()
}

fn read(document: Value) -> Result<Object, Refusal> {
    let header: Header = serde_yaml::from_value(document.clone()).unwrap();
    match Object::read(Kind::of(&header).unwrap(), document) {
        Ok(mut object) => {
            if object.uid.is_empty() {
                object.uid = format!("{}/{}", object.key.namespace, object.key.name).into();
            }
            Ok(object)
        }
        Err(ReadError::Refused(refusal)) => Err(refusal),
        Err(ReadError::Malformed(error)) => panic!("{error}"),
    }
}

/// A compiler and the maps that its changes go into.
struct Node {
    compiler: Compiler,
    tables: Tables,
    pods: Vec<PodName>,
}

/// Who decides, as `policy/rule`, and how; `-`: no rule.
type Decided = (String, Action);

fn allow(rule: &str) -> Decided {
    (rule.to_owned(), Action::Allow)
}

fn drop(rule: &str) -> Decided {
    (rule.to_owned(), Action::Drop)
}

fn no_rule() -> Decided {
    allow("-")
}

impl Node {
    fn new(pods: &[&str]) -> Self {
        Self::with(Limits::default(), pods)
    }

    fn with(limits: Limits, pods: &[&str]) -> Self {
        let name = |pod: &&str| {
            let (namespace, name) = pod.split_once('/').unwrap();
            PodName::new(namespace, name)
        };
        Self {
            compiler: Compiler::new(limits),
            tables: Tables::default(),
            pods: pods.iter().map(name).collect(),
        }
    }

    /// Makes the objects hold: compiles them, and makes the change whole.
    fn set(&mut self, objects: impl IntoIterator<Item = Object>) -> Change {
        let model = objects.into_iter().collect();
        let mut change = self.compiler.compile(&model, &self.pods).unwrap();
        self.tables.apply(&change);
        self.compiler.release(std::mem::take(&mut change.retired));
        change
    }

    fn judge(&self, pod: &str, space: u8, address: [u8; 4], transport: Transport) -> Decided {
        let (namespace, name) = pod.split_once('/').unwrap();
        let pod = PodName::new(namespace, name);
        let verdict = self.tables.judge(&pod, space, Ipv4Addr::from(address), transport);
        let rules: BTreeMap<u16, &RuleRow> = self.compiler.rules().map(|rule| (rule.slot, rule)).collect();
        match verdict.rule.map(|slot| rules[&slot]) {
            None => ("-".to_owned(), verdict.action),
            Some(rule) => {
                assert_eq!(
                    rule.action, verdict.action,
                    "the decision carries the action of its rule"
                );
                (format!("{}/{}", rule.policy.name, rule.id.name), verdict.action)
            }
        }
    }

    fn data(&self, pod: &str, group: [u8; 4], port: u16) -> Decided {
        self.judge(pod, SPACE_DATA, group, Transport::Udp(port))
    }

    fn report(&self, pod: &str, version: u8, group: [u8; 4]) -> Decided {
        let space = [SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3][usize::from(version) - 1];
        self.judge(pod, space, group, Transport::Other)
    }

    fn query(&self, pod: &str, destination: [u8; 4]) -> Decided {
        self.judge(pod, SPACE_QUERY, destination, Transport::Other)
    }
}
