//! An aggregator that asks a real Kubernetes API which policies there are.
//!
//! Needs root, etcd, kube-apiserver and kubectl (`cargo xtask setup`).
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod kube_lab;

use std::{fs, time::Duration};

use jiff::Timestamp;
use kube_lab::{Api, CRDS};
use mcstat_bed::{command::command, process::Daemon, signal::wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const URL: &str = "http://127.0.0.1:10880";
const MULTICAST: &str = "225.1.1.1/32";
const UNICAST: &str = "10.0.0.0/8";
const NO_SOURCE: &str = "no policy source";

/// The API, and an aggregator beside it.
struct Cluster {
    _aggregator: Daemon,
    dir: tempfile::TempDir,
    api: Api,
}

impl Cluster {
    fn start(name: &str) -> Self {
        let (api, dir) = (Api::start(name), tempfile::tempdir().unwrap());
        let mut aggregator = command(env!("CARGO_BIN_EXE_mcstat"));
        aggregator
            .args(["aggregator", "--insecure-http", "--listen", "127.0.0.1:10880"])
            .args(["--policy-kubernetes", "true", "--policy-kubeconfig"])
            .arg(api.kubeconfig());
        let log = dir.path().join("log");
        let mut aggregator = Daemon::start("mcstat aggregator", &api.netns, &mut aggregator, log).unwrap();
        let lives = || api.try_kubectl(&["--server", URL, "get", "--raw", "/livez"]).ok();
        aggregator.wait_for("the aggregator answers", LIMIT, lives).unwrap();
        Self {
            _aggregator: aggregator,
            dir,
            api,
        }
    }

    /// How often the log says so.
    fn says(&self, what: &str) -> usize {
        fs::read_to_string(self.dir.path().join("log"))
            .unwrap()
            .matches(what)
            .count()
    }

    /// Waits until it has said so this many times.
    fn comes_to_say(&self, what: &str, times: usize) {
        let said = || Ok((self.says(what) == times).then_some(()));
        wait_for(what, LIMIT, said).unwrap();
    }

    /// `NAME=PACKETS ` of every policy of either kind.
    fn policies(&self) -> String {
        let form = "jsonpath={range .items[*]}{.metadata.name}={.trafficStats.packets} {end}";
        let kinds = "antreaclusternetworkpolicystats,antreanetworkpolicystats";
        self.api.kubectl(&["--server", URL, "get", kinds, "-A", "-o", form])
    }

    fn become_(&self, expected: &str) {
        let mut found = String::new();
        let served = || {
            found = self.policies();
            Ok((found == expected).then_some(()))
        };
        wait_for(expected, LIMIT, served).unwrap_or_else(|error| panic!("{error:#}: {found:?}"));
    }

    /// What the cluster says the UID of `mkt/p` is.
    fn uid(&self) -> String {
        let kind = "networkpolicies.crd.antrea.io";
        let form = "jsonpath={.metadata.uid}";
        self.api.kubectl(&["get", "-n", "mkt", kind, "p", "-o", form])
    }

    /// A node reports on NetworkPolicies in `mkt`, by name, UID and packets since `start`.
    fn report(&self, start: Timestamp, policies: &[(&str, &str, u64)]) {
        let policies = policies.iter().map(|(name, uid, packets)| {
            let sum = json!({"packets": packets, "bytes": 142 * packets, "sessions": 0});
            json!({"networkPolicy": {"namespace": "mkt", "name": name, "uid": uid},
                   "ruleTrafficStats": [{"name": "r", "action": "Drop", "startTime": start, "trafficStats": sum}]})
        });
        let kernel = json!({"slotsUsed": 0, "slotsMax": 0, "eventsHanded": 0, "eventsLost": 0, "eventsLimited": 0});
        let summary = json!({
            "apiVersion": "controlplane.mcstat.io/v1alpha1", "kind": "NodeStatsSummary", "metadata": {"name": "n1"},
            "startTime": start, "observedAt": Timestamp::now(), "intervalSeconds": 300, "pods": [], "kernel": kernel,
            "antreaClusterNetworkPolicies": [], "antreaNetworkPolicies": policies.collect::<Vec<Value>>(),
        });
        let file = self.dir.path().join("summary.json");
        fs::write(&file, summary.to_string()).unwrap();
        let (path, file) = (mcstat::api::summary::PATH, file.display().to_string());
        self.api
            .kubectl(&["--server", URL, "create", "--raw", path, "--filename", &file]);
    }
}

fn policy(kind: &str, metadata: &str, cidr: &str) -> String {
    format!(
        "---\n{{apiVersion: crd.antrea.io/v1beta1, kind: {kind}, metadata: {{{metadata}}}, spec: {{priority: 1, \
         appliedTo: [{{podSelector: {{}}}}], egress: [{{name: r, action: Drop, to: [{{ipBlock: {{cidr: {cidr}}}}}]}}]}}}}\n"
    )
}

fn cluster_wide(cidr: &str) -> String {
    policy("ClusterNetworkPolicy", "name: c", cidr)
}

fn namespaced(cidr: &str) -> String {
    policy("NetworkPolicy", "namespace: mkt, name: p", cidr)
}

#[test]
fn policies_are_those_of_the_cluster() {
    let mut cluster = Cluster::start("cluster");
    let start = Timestamp::now();
    cluster.api.kubectl(&["create", "namespace", "mkt"]);

    // Without the kinds there is no source: what there is is what nodes say. They are looked for, and that is said once.
    cluster.comes_to_say(NO_SOURCE, 1);
    cluster.report(start, &[("strange", "u-strange", 5)]);
    assert_eq!(cluster.policies(), "strange=5 ");
    cluster.api.apply(CRDS);
    cluster
        .api
        .kubectl(&["wait", "--for=condition=established", "crd", "--all"]);
    cluster.become_("");
    assert_eq!(cluster.says(NO_SOURCE), 1);

    // They are there, at zero, before any node speaks of them; what has no rule for multicast is not.
    let both = |cidr| cluster_wide(cidr) + &namespaced(cidr);
    let unicast = policy("ClusterNetworkPolicy", "name: u", UNICAST);
    cluster.api.apply(&format!("{}{unicast}", both(MULTICAST)));
    cluster.become_("c=0 p=0 ");
    let first = cluster.uid();
    cluster.report(start, &[("p", &first, 10), ("strange", "u-strange", 5)]);
    assert_eq!(cluster.policies(), "c=0 p=10 ");

    // Deleted, whatever nodes still say; made again, with another UID.
    let delete = ["delete", "-n", "mkt", "networkpolicies.crd.antrea.io", "p"];
    cluster.api.kubectl(&delete);
    cluster.become_("c=0 ");
    cluster.report(start, &[("p", &first, 11)]);
    assert_eq!(cluster.policies(), "c=0 ");
    cluster.api.apply(&namespaced(MULTICAST));
    cluster.become_("c=0 p=0 ");
    let second = cluster.uid();
    assert_ne!(first, second);
    cluster.report(start, &[("p", &first, 12)]);
    assert_eq!(cluster.policies(), "c=0 p=0 ");
    cluster.report(start, &[("p", &second, 2)]);
    assert_eq!(cluster.policies(), "c=0 p=2 ");

    // Edited, so that no rule is about multicast for a while: the same policies. What has counted keeps it.
    cluster.api.apply(&both(UNICAST));
    cluster.become_("p=2 ");
    cluster.api.apply(&both(MULTICAST));
    cluster.become_("c=0 p=2 ");
    assert_eq!(cluster.uid(), second);
    let start = Timestamp::now();
    cluster.report(start, &[("p", &second, 1)]);
    assert_eq!(cluster.policies(), "c=0 p=3 ");

    // Without the API the last policies hold, and nodes are counted.
    cluster.api.kill_server();
    cluster.comes_to_say("cannot be watched; the last policies hold", 1);
    cluster.report(start, &[("p", &second, 2)]);
    assert_eq!(cluster.policies(), "c=0 p=4 ");
    cluster.api.start_server();
    cluster
        .api
        .kubectl(&["delete", "clusternetworkpolicies.crd.antrea.io", "c"]);
    cluster.become_("p=4 ");

    // The kinds take their policies with them.
    cluster.api.kubectl(&["delete", "crd", "--all"]);
    cluster.become_("");
    cluster.comes_to_say(NO_SOURCE, 2);
    cluster.report(start, &[("p", &second, 3)]);
    assert_eq!(cluster.policies(), "");
}
