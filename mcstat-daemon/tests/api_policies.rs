//! The statistics of policies over HTTP: lists, objects, Tables, selectors, errors, pushed summaries, and the directory
//! of policies that an aggregator reads.
//!
//! The nodes and their numbers are those of `api_support::policies`.

#![expect(clippy::unwrap_used, reason = "a test says what must hold by panicking")]

mod api_support;

use std::{fs, path::Path, sync::Arc};

use api_support::{Answer, KUBECTL_TABLE, Server, noon, policies, summary};
use hyper::{Method, StatusCode};
use mcstat::{
    agent::policy::{PolicyObjects, files},
    aggregator::{follow_policies, http::Role, index::SharedIndex},
    api::summary::PATH,
};
use serde_json::{Value, json};
use tokio::sync::watch;

const JSON: &str = "application/json";
const CLUSTER_WIDE: &str = "/apis/stats.antrea.io/v1alpha1/antreaclusternetworkpolicystats";
const NAMESPACED: &str = "/apis/stats.antrea.io/v1alpha1/antreanetworkpolicystats";

fn in_namespace(namespace: &str) -> String {
    format!("/apis/stats.antrea.io/v1alpha1/namespaces/{namespace}/antreanetworkpolicystats")
}

fn server(role: Role) -> Server {
    Server::start(policies::index(noon()), role, noon)
}

fn cells(answer: &Answer) -> Vec<Value> {
    let json = answer.json();
    assert_eq!(json["kind"], "Table");
    json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["cells"].clone())
        .collect()
}

fn names(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    json["items"].as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn a_table_has_antreas_columns() {
    let server = server(Role::Aggregator);
    let table = server.get(CLUSTER_WIDE, KUBECTL_TABLE).await;
    let columns = table.json()["columnDefinitions"].clone();
    let columns: Vec<_> = columns
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            (
                column["name"].clone(),
                column["type"].clone(),
                column["priority"].clone(),
            )
        })
        .collect();
    let expected = [
        ("Name", "string", 0),
        ("Sessions", "integer", 0),
        ("Packets", "integer", 0),
        ("Bytes", "integer", 0),
        ("Created At", "date", 0),
        ("Would_Drop", "integer", 1),
        ("Nodes", "string", 1),
    ];
    assert_eq!(
        columns,
        expected.map(|(name, kind, priority)| (json!(name), json!(kind), json!(priority)))
    );
    assert_eq!(
        cells(&table),
        [
            json!(["acnp-feeds", 0, 1012, 143_704, "2026-11-24T11:00:00Z", 0, "2/2"]),
            json!(["acnp-idle", 0, 0, 0, "2026-11-24T12:00:00Z", 0, "2/2"]),
        ]
    );
    assert_eq!(
        cells(&server.get(NAMESPACED, KUBECTL_TABLE).await),
        [
            json!(["lab", 0, 0, 0, "2026-11-24T11:30:00Z", 9, "2/2"]),
            json!(["igmp", 0, 4, 216, "2026-11-24T11:00:00Z", 0, "2/2"]),
        ]
    );
}

#[tokio::test]
async fn an_object_has_antreas_fields_and_ours_beside_them() {
    let answer = server(Role::Aggregator)
        .get(&format!("{}/igmp", in_namespace("mkt")), JSON)
        .await;
    let version = noon().as_millisecond() + 1;
    let sum = json!({"packets": 4, "bytes": 216, "sessions": 0});
    let none = json!({"packets": 0, "messages": 0, "records": 0});
    assert_eq!(
        answer.json(),
        json!({
            "apiVersion": "stats.antrea.io/v1alpha1", "kind": "AntreaNetworkPolicyStats",
            "metadata": {"namespace": "mkt", "name": "igmp", "uid": "uid-igmp", "creationTimestamp": "2026-11-24T11:00:00Z",
                         "resourceVersion": version.to_string()},
            "trafficStats": sum,
            "ruleTrafficStats": [{"name": "drop-report", "trafficStats": sum, "action": "Drop",
                                  "startTime": "2026-11-24T11:00:00Z", "segments": 0, "records": 6, "wouldDrop": none}],
            "status": {"startTime": "2026-11-24T11:00:00Z", "keptSince": "2026-11-24T12:00:00Z", "nodesReporting": 2,
                       "nodesExpected": 2, "wouldDrop": none}
        })
    );
}

#[tokio::test]
async fn lists_are_sorted_and_narrowed() {
    let server = server(Role::Aggregator);
    let list = server.get(CLUSTER_WIDE, JSON).await;
    assert_eq!(list.json()["kind"], "AntreaClusterNetworkPolicyStatsList");
    assert_eq!(
        list.json()["metadata"]["resourceVersion"],
        (noon().as_millisecond() + 1).to_string()
    );
    assert_eq!(names(&list), ["acnp-feeds", "acnp-idle"]);
    for (path, expected) in [
        (
            format!("{CLUSTER_WIDE}?fieldSelector=metadata.name%3Dacnp-idle"),
            &["acnp-idle"][..],
        ),
        (NAMESPACED.to_owned(), &["lab", "igmp"]),
        (in_namespace("mkt"), &["igmp"]),
        (in_namespace("none"), &[]),
        (format!("{NAMESPACED}?fieldSelector=metadata.namespace%3Ddev"), &["lab"]),
        // As Antrea's, they have no labels.
        (format!("{NAMESPACED}?labelSelector=app%3Dfeed"), &[]),
        (format!("{NAMESPACED}?labelSelector=%21app"), &["lab", "igmp"]),
        (format!("{NAMESPACED}?limit=1"), &["lab", "igmp"]),
    ] {
        assert_eq!(names(&server.get(&path, JSON).await), expected, "{path}");
    }
    let wrong = server
        .get(&format!("{CLUSTER_WIDE}?fieldSelector=metadata.namespace%3Da"), JSON)
        .await;
    let message = "field label not supported: metadata.namespace; use metadata.name";
    assert_eq!(wrong.failure(400, "BadRequest"), message);
    let watch = server.get(&format!("{CLUSTER_WIDE}?watch=true"), JSON).await;
    watch.failure(405, "MethodNotAllowed");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = server(Role::Aggregator);
    for (path, name, resource) in [
        (format!("{CLUSTER_WIDE}/x"), "x", "antreaclusternetworkpolicystats"),
        // The kinds have names of their own.
        (
            format!("{CLUSTER_WIDE}/igmp"),
            "igmp",
            "antreaclusternetworkpolicystats",
        ),
        (
            format!("{}/igmp", in_namespace("dev")),
            "igmp",
            "antreanetworkpolicystats",
        ),
    ] {
        let missing = server.get(&path, KUBECTL_TABLE).await;
        let message = format!("{resource}.stats.antrea.io \"{name}\" not found");
        assert_eq!(missing.failure(404, "NotFound"), message);
        let details = json!({"name": name, "group": "stats.antrea.io", "kind": resource});
        assert_eq!(missing.json()["details"], details);
    }
    server
        .get(&format!("{NAMESPACED}/igmp"), JSON)
        .await
        .failure(404, "NotFound");
    let path = "/apis/stats.antrea.io/v1alpha1/namespaces/mkt/antreaclusternetworkpolicystats";
    server.get(path, JSON).await.failure(404, "NotFound");
    server
        .send(Method::DELETE, &format!("{CLUSTER_WIDE}/acnp-idle"), &[], "")
        .await
        .failure(405, "MethodNotAllowed");
}

#[tokio::test]
async fn nothing_is_an_empty_list() {
    let index = SharedIndex::default();
    index.accept(summary("n7", vec![], noon()), noon());
    let server = Server::start(Arc::new(index), Role::Node, noon);
    for path in [CLUSTER_WIDE, NAMESPACED] {
        assert_eq!(names(&server.get(path, JSON).await), [""; 0]);
    }
}

#[tokio::test]
async fn a_pushed_summary_is_summed_up_and_an_impossible_one_refused() {
    let server = Server::start(Arc::new(SharedIndex::default()), Role::Aggregator, noon);
    let push = async |summary: &Value| {
        server
            .send(Method::POST, PATH, &[("content-type", JSON)], summary.to_string())
            .await
    };
    let [n7, n8] = policies::nodes(noon()).map(|summary| serde_json::to_value(summary).unwrap());
    // Twice each, as after a lost answer.
    for summary in [&n7, &n8, &n7, &n8] {
        assert_eq!(push(summary).await.code, StatusCode::CREATED);
    }
    let feeds = server.get(&format!("{CLUSTER_WIDE}/acnp-feeds"), JSON).await.json();
    assert_eq!(
        feeds["trafficStats"],
        json!({"packets": 1012, "bytes": 143_704, "sessions": 0})
    );
    assert_eq!(feeds["ruleTrafficStats"][0]["trafficStats"]["packets"], 1000);
    for (list, key, value) in [
        ("antreaClusterNetworkPolicies", "uid", ""),
        ("antreaClusterNetworkPolicies", "name", ""),
        ("antreaClusterNetworkPolicies", "namespace", "mkt"),
        ("antreaNetworkPolicies", "namespace", ""),
    ] {
        let mut wrong = n7.clone();
        wrong[list][1]["networkPolicy"][key] = json!(value);
        let refused = push(&wrong).await;
        refused.failure(422, "Invalid");
        let field = format!("{list}[1].networkPolicy");
        assert_eq!(refused.json()["details"]["causes"][0]["field"], field.as_str());
    }
}

/// A directory that is followed as an aggregator follows it.
async fn following(directory: &Path, index: &Arc<SharedIndex>) -> watch::Receiver<PolicyObjects> {
    let (out, objects) = watch::channel(PolicyObjects::default());
    tokio::spawn(files::run(
        directory.to_owned(),
        Vec::new(),
        out,
        std::future::pending(),
    ));
    let (told, index) = (objects.clone(), Arc::clone(index));
    tokio::spawn(async move { follow_policies(told, &index).await });
    objects
}

/// Policies of both kinds: one that nobody counts, one that goes, one that is made again.
#[tokio::test]
async fn the_aggregators_own_directory_says_which_policies_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let policy = |kind: &str, name: &str, namespace: &str, uid: &str| {
        let document = json!({
            "apiVersion": "crd.antrea.io/v1beta1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "spec": {"priority": 1, "appliedTo": [{"podSelector": {}}], "egress": [
                {"name": "r", "action": "Drop", "to": [{"ipBlock": {"cidr": "225.1.1.1/32"}}]}
            ]}
        });
        // Complete or not there: a look may come at any time.
        let new = directory.path().join(".new");
        fs::write(&new, document.to_string()).unwrap();
        fs::rename(new, directory.path().join(format!("{name}.json"))).unwrap();
    };
    policy("ClusterNetworkPolicy", "acnp-feeds", "", "uid-feeds");
    policy("ClusterNetworkPolicy", "acnp-new", "", "uid-new");
    policy("NetworkPolicy", "igmp", "mkt", "uid-igmp");
    let index = policies::index(noon());
    let mut objects = following(directory.path(), &index).await;
    let server = Server::start(Arc::clone(&index), Role::Aggregator, noon);
    let become_known = async |paths: &[(&str, &[&str])], objects: &mut watch::Receiver<PolicyObjects>| {
        objects.changed().await.unwrap();
        // The index is told right after; a thousand questions are plenty.
        for (path, expected) in paths {
            let mut found = Vec::new();
            for _ in 0..1000 {
                found = names(&server.get(path, JSON).await);
                if found == *expected {
                    break;
                }
            }
            assert_eq!(found, *expected, "{path}");
        }
    };
    become_known(
        &[(CLUSTER_WIDE, &["acnp-feeds", "acnp-new"]), (NAMESPACED, &["igmp"])],
        &mut objects,
    )
    .await;
    let feeds = server.get(&format!("{CLUSTER_WIDE}/acnp-feeds"), JSON).await.json();
    assert_eq!(feeds["trafficStats"]["packets"], 1012);
    fs::remove_file(directory.path().join("igmp.json")).unwrap();
    become_known(&[(NAMESPACED, &[])], &mut objects).await;
    policy("ClusterNetworkPolicy", "acnp-feeds", "", "uid-feeds-2");
    objects.changed().await.unwrap();
    let anew = async || {
        for _ in 0..1000 {
            let feeds = server.get(&format!("{CLUSTER_WIDE}/acnp-feeds"), JSON).await.json();
            if feeds["metadata"]["uid"] == "uid-feeds-2" {
                return feeds;
            }
        }
        panic!("the policy was never made again");
    };
    assert_eq!(
        anew().await["trafficStats"],
        json!({"packets": 0, "bytes": 0, "sessions": 0})
    );
}
