//! The policy watchers against a real Kubernetes API: what it has, what it lacks, what is wrong, and its absence; and an
//! agent that judges by what they tell.
//!
//! Needs root, etcd, kube-apiserver and kubectl (`cargo xtask setup`).
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod agent_process;
mod kube_lab;

use std::{net::IpAddr, time::Duration};

use agent_process::{Node, packets};
use kube_lab::{Api, CRDS};
use mcstat::{
    agent::policy::{
        PolicyObjects,
        kubernetes::{Options, Scope, run},
    },
    ledger::verdict::{Content, Kind},
};
use mcstat_bed::{Bed, ovs::BRIDGE, signal::wait_for};
use serde_json::{Value, json};
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(60);

/// The source, as the agent of node `n1` runs it, and what it tells.
struct Source {
    objects: watch::Receiver<PolicyObjects>,
    // Ends with this.
    _runtime: tokio::runtime::Runtime,
}

impl Source {
    fn start(api: &Api) -> Self {
        let (out, objects) = watch::channel(PolicyObjects::default());
        let netns = api.netns.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || netns.enter_here().unwrap())
            .enable_all()
            .build()
            .unwrap();
        let options = Options {
            kubeconfig: api.kubeconfig(),
            scope: Scope::Node("n1".to_owned()),
        };
        runtime.spawn(async move { run(options, out).await.unwrap() });
        Self {
            objects,
            _runtime: runtime,
        }
    }

    /// Waits until the objects are so; what they are then.
    fn until(&self, what: &str, ready: impl Fn(&PolicyObjects) -> bool) -> PolicyObjects {
        let wait = || Ok(ready(&self.objects.borrow()).then_some(()));
        wait_for(what, LIMIT, wait).unwrap_or_else(|error| panic!("{error:#}: {:#?}", self.objects.borrow()));
        self.objects.borrow().clone()
    }
}

/// Kinds and names, without the Namespaces that every cluster has.
fn names(objects: &PolicyObjects) -> Vec<String> {
    let own = objects
        .objects
        .iter()
        .filter(|object| object.key.kind != Kind::Namespace || &*object.key.name == "mkt");
    own.map(|object| object.key.to_string()).collect()
}

/// The UID of the policy `mkt/p` and the action of its rule.
fn policy(objects: &PolicyObjects) -> Option<(String, String)> {
    objects.objects.iter().find_map(|object| match &object.content {
        Content::Policy(policy) if object.key.kind == Kind::NetworkPolicy => {
            Some((object.uid.to_string(), format!("{:?}", policy.rules[0].action)))
        }
        _ => None,
    })
}

fn action(objects: &PolicyObjects) -> Option<String> {
    policy(objects).map(|(_, action)| action)
}

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: mkt, labels: {team: feeds}}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: mkt, name: here, labels: {app: a}}, spec: {nodeName: n1, serviceAccountName: sa, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: mkt, name: elsewhere}, spec: {nodeName: n2, containers: [{name: c, image: i}]}}
---
{apiVersion: crd.antrea.io/v1beta1, kind: Tier, metadata: {name: first}, spec: {priority: 10}}
---
{apiVersion: crd.antrea.io/v1beta1, kind: ClusterGroup, metadata: {name: cg}, spec: {ipBlocks: [{cidr: 225.2.0.0/16}]}}
---
{apiVersion: crd.antrea.io/v1beta1, kind: Group, metadata: {namespace: mkt, name: g}, spec: {podSelector: {matchLabels: {app: a}}}}
---
{apiVersion: crd.antrea.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: first, priority: 1, appliedTo: [{podSelector: {}}],
  egress: [{name: r, action: Drop, to: [{group: cg}]}]}}
---
";

fn a_policy(action: &str) -> String {
    format!(
        "{{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {{namespace: mkt, name: p}}, spec: {{priority: 1, \
         appliedTo: [{{group: g}}], egress: [{{name: r, action: {action}, to: [{{ipBlock: {{cidr: 225.1.1.1/32}}}}]}}]}}}}"
    )
}

#[test]
fn policies_are_watched_through_the_api() {
    let mut api = Api::start("watch");
    let source = Source::start(&api);
    let objects = source.until("the API has answered", |objects| objects.read);
    assert!(!objects.known, "it has no such kinds");
    api.apply(CRDS);
    api.kubectl(&["wait", "--for=condition=established", "crd", "--all"]);
    source.until("the kinds are found", |objects| objects.known);

    api.apply(&format!("{OBJECTS}{}", a_policy("Drop")));
    let all = [
        "ClusterNetworkPolicy c",
        "NetworkPolicy mkt/p",
        "Tier first",
        "ClusterGroup cg",
        "Group mkt/g",
        "Namespace mkt",
        "Pod mkt/here",
    ];
    let objects = source.until("all objects are there, and no Pod of another node", |objects| {
        names(objects) == all
    });
    assert_eq!(objects.failures, []);
    let uid = api.kubectl(&[
        "get",
        "-n",
        "mkt",
        "networkpolicies.crd.antrea.io",
        "p",
        "-o",
        "jsonpath={.metadata.uid}",
    ]);
    assert_eq!(policy(&objects), Some((uid.clone(), "Drop".to_owned())));
    let pod = objects.objects.iter().find_map(|object| match &object.content {
        Content::Pod(pod) => Some((pod.labels.get("app").cloned(), pod.service_account.clone())),
        _ => None,
    });
    assert_eq!(pod, Some((Some("a".to_owned()), "sa".to_owned())));

    api.apply(&a_policy("Allow"));
    source.until("the rule allows", |objects| action(objects).as_deref() == Some("Allow"));
    api.apply(&a_policy("Reject"));
    let objects = source.until("the bad policy is named", |objects| !objects.failures.is_empty());
    assert_eq!(action(&objects).as_deref(), Some("Allow"), "its last good state holds");
    assert_eq!(
        objects.failures[0].to_string(),
        "NetworkPolicy mkt/p is not used as it is now: NetworkPolicy mkt/p, rule r: multicast and IGMP know the actions \
         Allow and Drop, not Reject; its last good state holds"
    );
    api.kubectl(&["delete", "-n", "mkt", "networkpolicies.crd.antrea.io", "p"]);
    let objects = source.until("it is gone", |objects| policy(objects).is_none());
    assert_eq!(objects.failures, []);
    api.apply(&a_policy("Drop"));
    let objects = source.until("it is back", |objects| action(objects).as_deref() == Some("Drop"));
    assert_ne!(policy(&objects).unwrap().0, uid, "as another one");

    // What changes while the API is away is told when it is back, and nothing is lost meanwhile.
    api.kill_server();
    let before = source.objects.borrow().clone();
    api.start_server();
    assert_eq!(*source.objects.borrow(), before);
    api.apply(&a_policy("Allow"));
    source.until("the new API server is watched", |objects| {
        action(objects).as_deref() == Some("Allow")
    });

    api.kubectl(&["delete", "crd", "--all"]);
    let objects = source.until("without the kinds there is no source", |objects| !objects.known);
    assert_eq!(names(&objects), ["Namespace mkt", "Pod mkt/here"]);
    assert!(objects.read);
}

/// An agent in the network namespace of a bed's node, where the API is, too.
#[test]
fn an_agent_judges_by_the_policies_of_the_api() {
    let bed = Bed::up(&[("mkt", "here")]).unwrap();
    let mut api = Api::within(bed.node.clone());
    api.kill_server();
    let agent = Agent::start(&bed, &api);
    agent.until_known("nobody has answered", "Unknown", "NotReadYet");
    api.start_server();
    agent.until_known("the API has no policies", "False", "NoPolicySource");
    assert_eq!(agent.said(NO_POLICIES), 1, "{}", agent.node.log());

    api.apply(CRDS);
    api.kubectl(&["wait", "--for=condition=established", "crd", "--all"]);
    api.apply(&format!("{OBJECTS}{}", a_policy("Drop")));
    agent.until_known("the Pod is judged", "True", "Enforced");
    let group: IpAddr = "225.1.1.1".parse().unwrap();
    let send_ten = || bed.pod("here").unwrap().send(group, 10, 100, 100).wait().unwrap();
    let numbers = |status: &Value| {
        (
            status["outbound"]["admitted"].as_u64(),
            status["outbound"]["dropped"].as_u64(),
        )
    };
    assert_eq!(send_ten(), 10);
    agent.until("ten are dropped", |status| numbers(status) == (Some(0), Some(10)));

    // Without the API the last state holds.
    api.kill_server();
    assert_eq!(send_ten(), 10);
    agent.until("twenty are dropped", |status| numbers(status) == (Some(0), Some(20)));
    api.start_server();
    // A label moves the Pod out of its group, and with it out of the policy.
    api.kubectl(&["label", "pod", "-n", "mkt", "here", "app=b", "--overwrite"]);
    agent.until("no rule decides", |status| {
        let rows = status["groups"].as_array().unwrap();
        let row = rows.iter().find(|row| row["group"] == *group.to_string());
        row.unwrap()["outbound"]["rule"].is_null()
    });
    assert_eq!(send_ten(), 10);
    agent.until("ten more are admitted", |status| {
        numbers(status) == (Some(10), Some(20))
    });

    api.kubectl(&["delete", "crd", "--all"]);
    agent.until_known("there is no policy source any more", "False", "NoPolicySource");
    assert_eq!(agent.said(NO_POLICIES), 2, "{}", agent.node.log());
}

/// The API is away when the next agent starts: a report that a rule of before denies makes no member.
#[test]
fn memberships_are_judged_by_the_policies_of_before_until_the_api_answers() {
    let bed = Bed::up(&[("mkt", "here")]).unwrap();
    let mut api = Api::within(bed.node.clone());
    api.apply(CRDS);
    api.kubectl(&["wait", "--for=condition=established", "crd", "--all"]);
    api.apply(&format!("{OBJECTS}{IGMP_POLICY}"));
    let mut agent = Agent::start(&bed, &api);
    agent.until_known("the Pod is judged", "True", "Enforced");
    agent.node.kill();
    api.kill_server();
    agent.start_again(&bed);
    agent.until_known("nobody has answered", "Unknown", "NotReadYet");

    let of = |status: &Value, group: &str| -> Option<(bool, Value)> {
        let rows = status["groups"].as_array()?;
        let membership = &rows.iter().find(|row| row["group"] == group)?["membership"];
        Some((membership["joined"].as_bool()?, membership["denied"]["rule"].clone()))
    };
    let groups = ["225.1.1.1", "225.1.1.2"];
    let _receiver = bed
        .pod("here")
        .unwrap()
        .receive(&groups.map(|group| group.parse().unwrap()))
        .unwrap();
    let (denied, member) = ((false, json!("no-1")), (true, Value::Null));
    let told = agent.until("one is denied and the other is joined", |status| {
        groups.map(|group| of(status, group)) == [Some(denied.clone()), Some(member.clone())]
    });
    let conditions = told["conditions"].to_string();
    assert!(conditions.contains("NotReadYet"), "{conditions}");
    assert_eq!(told["igmp"]["dropped"]["rules"][0]["rule"], "no-1");
    assert_eq!(told["igmp"]["dropped"]["rules"][0]["policy"]["name"], "p");
    assert!(
        told["igmp"]["dropped"]["messages"].as_u64() > Some(0),
        "as the kernel does: {told:#}"
    );
    // The policies say the same: nothing changes when they are read.
    api.start_server();
    agent.until_known("the API has answered", "True", "Enforced");
    assert_eq!(of(&agent.status().unwrap(), groups[0]), Some(denied));
}

const IGMP_POLICY: &str = "
{apiVersion: crd.antrea.io/v1beta1, kind: NetworkPolicy, metadata: {namespace: mkt, name: p}, spec: {priority: 1, appliedTo: [{group: g}],
  egress: [{name: no-1, action: Drop, protocols: [{igmp: {groupAddress: 225.1.1.1}}]}]}}
";

/// What the log says when there is nothing to judge by.
const NO_POLICIES: &str = "the cluster has no Antrea policies";

/// An agent whose policies are the API's.
struct Agent {
    node: Node,
}

impl Agent {
    fn start(bed: &Bed, api: &Api) -> Self {
        let source = json!({"kind": "ovsdb", "ovsdb": {"socket": bed.ovs.socket(), "bridge": BRIDGE}});
        let more = json!({"policy": {"kubernetes": {"enabled": true, "kubeconfig": api.kubeconfig()}}});
        let node = Node::with(&bed.bpffs(), &source, &more);
        let mut agent = Self { node };
        agent.start_again(bed);
        agent
    }

    fn start_again(&mut self, bed: &Bed) {
        let start = || {
            self.node.start();
            Ok(())
        };
        bed.node.within(start).unwrap();
    }

    /// The status of the Pod `mkt/here`, once it is counted.
    fn status(&self) -> Option<Value> {
        let told = self.node.pod("mkt", "here").filter(|told| packets(told).is_some());
        Some(told?["status"].take())
    }

    fn until(&self, what: &str, ready: impl Fn(&Value) -> bool) -> Value {
        let told = wait_for(what, LIMIT, || Ok(self.status().filter(|status| ready(status))));
        told.unwrap_or_else(|error| panic!("{error:#}: {:#?}; the agent says: {}", self.status(), self.node.log()))
    }

    /// Waits until the condition `PolicyKnown` is this.
    fn until_known(&self, what: &str, state: &str, reason: &str) {
        self.until(what, |status| {
            let conditions = status["conditions"].as_array().unwrap();
            let known = conditions
                .iter()
                .find(|condition| condition["type"] == "PolicyKnown")
                .unwrap();
            (&known["status"], &known["reason"]) == (&json!(state), &json!(reason))
        });
    }

    /// How often the log says this.
    fn said(&self, text: &str) -> usize {
        self.node.log().matches(text).count()
    }
}
