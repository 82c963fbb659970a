//! The policies of a scenario, compiled as an agent does it. What their rules have counted is the kernel's, so the scenario
//! says it: nothing is counted here.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use mcstat::{
    agent::policy::read,
    ledger::{
        snapshot::{Enforced, PolicyReading, PortReading, RuleReading, Traffic, WouldDrop},
        verdict::{Compiler, Kind, Limits, Object, PodName, RuleId, RuleRow, Tables},
    },
};
use serde::Deserialize;

/// A source of policies and what it holds.
pub(crate) struct Policies {
    compiler: Compiler,
    tables: Tables,
    objects: Vec<Object>,
    starts: BTreeMap<RuleId, Timestamp>,
}

/// What one rule has counted, cumulative.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Counted {
    data: Traffic,
    messages: u64,
    message_bytes: u64,
    records: u64,
    would_drop: WouldDrop,
}

impl Policies {
    /// A source that holds nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            compiler: Compiler::new(Limits::default()),
            tables: Tables::default(),
            objects: Vec::new(),
            starts: BTreeMap::new(),
        }
    }

    /// Takes documents over; those of one text all or none. Returns what is wrong with them.
    pub(crate) fn take(&mut self, text: &str) -> Vec<String> {
        match read(text) {
            Ok(mut objects) => {
                for object in objects.iter_mut().filter(|object| object.uid.is_empty()) {
                    object.uid = object.key.to_string().into();
                }
                self.objects = objects;
                Vec::new()
            }
            Err(bad) => bad.iter().map(ToString::to_string).collect(),
        }
    }

    /// What a snapshot with these ports holds. Rules are named `NAMESPACE/POLICY/RULE` or `POLICY/RULE`.
    pub(crate) fn reading(
        &mut self,
        ports: &[PortReading],
        enforced: Enforced,
        counted: &BTreeMap<String, Counted>,
        at: Timestamp,
    ) -> PolicyReading {
        let pods = ports
            .iter()
            .map(|port| PodName::new(&port.pod.namespace, &port.pod.name));
        let pods: Vec<PodName> = pods.collect();
        let model = self.objects.iter().cloned().collect();
        let change = self.compiler.compile(&model, &pods).expect("the policies compile");
        assert!(change.problems.is_empty(), "{:?}", change.problems);
        self.tables.apply(&change);
        self.compiler.release(change.retired);
        let mut rows: Vec<RuleRow> = self.compiler.rules().cloned().collect();
        rows.sort_by_key(|row| row.slot);
        let unknown = counted.keys().find(|name| !rows.iter().any(|row| rule(row) == **name));
        assert_eq!(unknown, None, "no rule is named so");
        let rules = rows.into_iter().map(|row| {
            let start = *self.starts.entry(row.id.clone()).or_insert(at);
            let counted = counted.get(&rule(&row)).cloned().unwrap_or_default();
            RuleReading {
                row,
                start,
                data: counted.data,
                messages: counted.messages,
                message_bytes: counted.message_bytes,
                records: counted.records,
                would_drop: counted.would_drop,
                flow: None,
            }
        });
        PolicyReading {
            rules: rules.collect(),
            tables: Arc::new(self.tables.clone()),
            enforced,
            ..PolicyReading::default()
        }
    }
}

fn rule(row: &RuleRow) -> String {
    let (policy, name) = (&row.policy, &row.id.name);
    match policy.kind {
        Kind::ClusterNetworkPolicy => format!("{}/{name}", policy.name),
        _ => format!("{}/{}/{name}", policy.namespace, policy.name),
    }
}
