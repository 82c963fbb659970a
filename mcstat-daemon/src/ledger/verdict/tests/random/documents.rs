//! Random worlds written as documents, with fields that are not read beside those that are.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{
    members::{Block, Members},
    world::{About, NAMESPACES, Policy, Port, Rule, Select, TIERS, Target, World, pods},
};

impl Select {
    fn json(self) -> Value {
        let expression = |key, operator, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        match self {
            Self::All => json!({"podSelector": {}}),
            Self::App(app) => json!({"podSelector": {"matchLabels": {"app": app}}}),
            Self::AppNot(app) => json!({"podSelector": expression("app", "NotIn", &[app])}),
            Self::AppOneOf(a, b) => json!({"podSelector": expression("app", "In", &[a, b])}),
            Self::Tier(true) => json!({"podSelector": expression("tier", "Exists", &[])}),
            Self::Tier(false) => {
                json!({"podSelector": expression("tier", "DoesNotExist", &[]), "namespaceSelector": null})
            }
            Self::Prod(true) => json!({"namespaceSelector": {"matchLabels": {"env": "prod"}}}),
            Self::Prod(false) => json!({"podSelector": {}, "namespaceSelector": expression("env", "NotIn", &["prod"])}),
            Self::Namespace(name) => {
                json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}})
            }
        }
    }
}

impl World {
    /// All of it, as the API would serve it.
    pub(super) fn documents(&self) -> Vec<Value> {
        let mut documents = vec![
            antrea(
                "Tier",
                None,
                "mine",
                json!({"priority": 120, "description": "not read"}),
            ),
            antrea("Tier", None, "other", json!({"priority": 120})),
        ];
        for (name, prod) in NAMESPACES.iter().zip(self.prod) {
            let labels = if prod { json!({"env": "prod"}) } else { Value::Null };
            documents
                .push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
        }
        for ((pod, (app, tier)), account) in pods().iter().zip(&self.labels).zip(&self.accounts) {
            let mut labels = serde_json::Map::new();
            app.iter().for_each(|app| drop(labels.insert("app".into(), json!(app))));
            tier.then(|| labels.insert("tier".into(), json!("x")));
            let metadata = json!({"namespace": &*pod.namespace, "name": &*pod.name, "labels": labels});
            documents.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                                   "spec": {"containers": [], "serviceAccountName": account}}));
        }
        documents.extend(groups("ClusterGroup", None, &self.groups));
        for (namespace, own) in NAMESPACES.iter().zip(&self.own) {
            documents.extend(groups("Group", Some(namespace), own));
        }
        documents.extend(self.policies.iter().map(Policy::json));
        documents
    }
}

fn groups<'a>(
    kind: &'static str,
    namespace: Option<&'a str>,
    groups: &'a [Members],
) -> impl Iterator<Item = Value> + use<'a> {
    groups.iter().enumerate().map(move |(number, group)| {
        let spec = match group {
            Members::Pods(select) => select.json(),
            Members::Blocks(blocks) => json!({"ipBlocks": blocks.iter().map(Block::json).collect::<Vec<_>>()}),
            Members::Children(children) => {
                json!({"childGroups": children.iter().map(|child| format!("g{child}")).collect::<Vec<_>>()})
            }
        };
        antrea(kind, namespace, &format!("g{number}"), spec)
    })
}

fn antrea(kind: &str, namespace: Option<&str>, name: &str, spec: Value) -> Value {
    let uid = format!("uid-{name}");
    json!({"apiVersion": "crd.antrea.io/v1beta1", "kind": kind, "spec": spec,
           "metadata": {"namespace": namespace, "name": name, "uid": uid, "generation": 1}})
}

impl Block {
    fn json(&self) -> Value {
        let text = |(address, length): &(Ipv4Addr, u32)| format!("{address}/{length}");
        json!({"cidr": text(&self.cidr), "except": self.except.iter().map(text).collect::<Vec<_>>()})
    }
}

impl Policy {
    fn json(&self) -> Value {
        let list = |list: &[Target]| list.iter().map(Target::json).collect::<Vec<_>>();
        let rules = |egress| {
            let rules = self.rules.iter().filter(move |rule| rule.egress == egress);
            rules.map(|rule| rule.json(list(&rule.list))).collect::<Vec<_>>()
        };
        let kind = if self.namespace.is_some() {
            "NetworkPolicy"
        } else {
            "ClusterNetworkPolicy"
        };
        let spec = json!({"tier": TIERS[self.tier].0, "priority": self.priority, "appliedTo": list(&self.list),
                          "ingress": rules(false), "egress": rules(true)});
        antrea(kind, self.namespace, &self.name, spec)
    }
}

impl Target {
    fn json(&self) -> Value {
        match self {
            Self::Pods(select) => select.json(),
            Self::Group(number) => json!({"group": format!("g{number}")}),
            Self::Account(namespace, name) => json!({"serviceAccount": {"namespace": namespace, "name": name}}),
        }
    }
}

impl Rule {
    fn json(&self, list: Vec<Value>) -> Value {
        let mut rule = json!({"name": self.name, "action": if self.drop { "Drop" } else { "Allow" },
                              "enableLogging": false, "appliedTo": list});
        match &self.about {
            About::Unicast => rule["to"] = json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}]),
            About::Data { blocks, groups, ports } => {
                let blocks = blocks.iter().map(|block| json!({"ipBlock": block.json()}));
                let groups = groups.iter().map(|group| json!({"group": format!("g{group}")}));
                rule["to"] = blocks.chain(groups).collect();
                rule["ports"] = ports.iter().map(Port::json).collect();
            }
            About::Igmp(messages) => {
                let message = |(kind, group): &(Option<u8>, Option<Ipv4Addr>)| json!({"igmp": {"igmpType": kind, "groupAddress": group.map(|group| group.to_string())}});
                rule["protocols"] = messages.iter().map(message).collect();
            }
        }
        rule
    }
}

impl Port {
    fn json(&self) -> Value {
        match self {
            Self::Tcp(port) => json!({"protocol": "TCP", "port": port}),
            Self::Udp => json!({"protocol": "UDP"}),
            Self::Range(first, last) if first == last => json!({"protocol": "UDP", "port": first}),
            Self::Range(first, last) => json!({"protocol": "UDP", "port": first, "endPort": last}),
        }
    }
}
