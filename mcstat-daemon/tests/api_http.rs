//! The HTTP interface as clients see it: discovery, lists, Tables, selectors, errors, the push.
//!
//! The router is called over a unix socket by a plain HTTP client; expected texts are those of kube-apiserver, numbers
//! those of the summaries in `api_support`.

#![expect(clippy::unwrap_used, reason = "a test says what must hold by panicking")]

mod api_support;

use std::{io::Write as _, sync::Arc};

use api_support::{KUBECTL_TABLE, LIST, Server, cluster, cluster_index, feed, noon, summary};
use flate2::{Compression, write::GzEncoder};
use hyper::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use mcstat::{
    aggregator::{http::Role, index::SharedIndex, ingest::BODY_LIMIT_BYTES},
    api::summary::{NodeStatsSummary, PATH},
};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const FEED: &str = "/apis/stats.antrea.io/v1alpha1/namespaces/mkt/podmulticaststats/feed-0";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn empty() -> Server {
    Server::start(Arc::new(SharedIndex::default()), Role::Aggregator, noon)
}

#[tokio::test]
async fn discovery_names_the_resource_in_every_form() {
    let server = empty();
    let plain = server.get("/apis", JSON).await.json();
    assert_eq!(plain["kind"], "APIGroupList");
    assert_eq!(plain["groups"][0]["name"], "stats.antrea.io");
    let group = server.get("/apis/stats.antrea.io", JSON).await.json();
    assert_eq!(
        (&group["kind"], &group["apiVersion"]),
        (&json!("APIGroup"), &json!("v1"))
    );
    assert_eq!(group["preferredVersion"]["groupVersion"], "stats.antrea.io/v1alpha1");
    // Without an Accept header, as kube-aggregator's availability check sends it.
    let resources = server
        .send(Method::GET, "/apis/stats.antrea.io/v1alpha1", &[], "")
        .await;
    assert_eq!(
        resources.json(),
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "stats.antrea.io/v1alpha1", "resources": [{
            "name": "podmulticaststats", "singularName": "podmulticaststats", "namespaced": true,
            "kind": "PodMulticastStats", "verbs": ["get", "list"], "shortNames": ["pmcs"]
        }, {
            "name": "multicastgroups", "singularName": "multicastgroup", "namespaced": false,
            "kind": "MulticastGroup", "verbs": ["get", "list"], "shortNames": ["mcg"]
        }, {
            "name": "antreaclusternetworkpolicystats", "singularName": "antreaclusternetworkpolicystats",
            "namespaced": false, "kind": "AntreaClusterNetworkPolicyStats", "verbs": ["get", "list"]
        }, {
            "name": "antreanetworkpolicystats", "singularName": "antreanetworkpolicystats", "namespaced": true,
            "kind": "AntreaNetworkPolicyStats", "verbs": ["get", "list"]
        }]})
    );
}

/// The body that kube-apiserver 1.36 took from an aggregated server; it compares the Content-Type.
#[tokio::test]
async fn aggregated_discovery_is_served_when_asked() {
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = empty().get("/apis", &format!("{v2},application/json")).await;
    assert_eq!(answer.headers["content-type"], v2);
    let json = answer.json();
    assert_eq!(
        (&json["kind"], &json["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    assert_eq!(json["items"][0]["metadata"]["name"], "stats.antrea.io");
    let version = &json["items"][0]["versions"][0];
    assert_eq!(
        (&version["version"], &version["freshness"]),
        (&json!("v1alpha1"), &json!("Current"))
    );
    let resource = &version["resources"][0];
    assert_eq!(resource["resource"], "podmulticaststats");
    assert_eq!(resource["scope"], "Namespaced");
    assert_eq!(resource["shortNames"], json!(["pmcs"]));
    assert_eq!(resource["verbs"], json!(["get", "list"]));
    assert_eq!(
        resource["responseKind"],
        json!({"group": "stats.antrea.io", "version": "v1alpha1", "kind": "PodMulticastStats"})
    );
    let groups = &version["resources"][1];
    assert_eq!(
        (&groups["resource"], &groups["scope"]),
        (&json!("multicastgroups"), &json!("Cluster"))
    );
    assert_eq!(groups["singularResource"], "multicastgroup");
}

#[tokio::test]
async fn lists_are_sorted_and_versioned_by_their_publish_time() {
    let server = Server::of_cluster();
    let answer = server.get(LIST, JSON).await;
    assert_eq!(
        answer.names(),
        ["default/solo", "dev/probe", "mkt/feed-0", "mkt/rec-0", "mkt/src-0"]
    );
    assert_eq!(answer.headers["content-type"], JSON);
    let json = answer.json();
    assert_eq!(
        (&json["kind"], &json["apiVersion"]),
        (&json!("PodMulticastStatsList"), &json!("stats.antrea.io/v1alpha1"))
    );
    // n7 arrived at noon, n8 in the same millisecond after it.
    let noon = noon().as_millisecond();
    assert_eq!(json["items"][2]["metadata"]["resourceVersion"], noon.to_string());
    assert_eq!(json["items"][4]["metadata"]["resourceVersion"], (noon + 1).to_string());
    assert_eq!(json["metadata"], json!({"resourceVersion": (noon + 1).to_string()}));

    let namespaced = "/apis/stats.antrea.io/v1alpha1/namespaces/mkt/podmulticaststats";
    assert_eq!(
        server.get(namespaced, JSON).await.names(),
        ["mkt/feed-0", "mkt/rec-0", "mkt/src-0"]
    );
    let nowhere = "/apis/stats.antrea.io/v1alpha1/namespaces/none/podmulticaststats";
    assert_eq!(server.get(nowhere, JSON).await.names(), Vec::<String>::new());
}

#[tokio::test]
async fn one_object_is_what_its_node_reported() {
    let json = Server::of_cluster().get(FEED, JSON).await.json();
    assert_eq!(
        (&json["kind"], &json["apiVersion"]),
        (&json!("PodMulticastStats"), &json!("stats.antrea.io/v1alpha1"))
    );
    assert_eq!(json["status"]["inbound"]["packets"], 812);
    assert_eq!(json["status"]["groups"][0]["group"], "239.1.1.1");
    let fresh = json!({"type": "Fresh", "status": "True", "reason": "Reported"});
    assert_eq!(json["status"]["conditions"][0], fresh);
}

#[tokio::test]
async fn what_was_not_measured_is_absent_in_json() {
    let path = "/apis/stats.antrea.io/v1alpha1/namespaces/mkt/podmulticaststats/rec-0";
    let json = Server::of_cluster().get(path, JSON).await.json();
    let status = json["status"].as_object().unwrap();
    for absent in ["startTime", "inbound", "outbound", "igmp", "socketDrops"] {
        assert!(!status.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn a_table_has_the_columns_of_the_design() {
    let answer = Server::of_cluster().get(LIST, KUBECTL_TABLE).await;
    let table = answer.json();
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(
        table["metadata"]["resourceVersion"],
        (noon().as_millisecond() + 1).to_string()
    );
    assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), 20);
    let feed = &table["rows"][2];
    assert_eq!(
        feed["cells"],
        json!([
            "feed-0",
            812,
            0,
            12,
            0,
            44,
            0,
            0,
            0,
            "95s",
            "JoinedNoTraffic",
            115_304,
            0,
            300,
            1,
            "unavailable",
            "n7",
            "1/2",
            "60m",
            "3s"
        ])
    );
    assert_eq!(feed["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(feed["object"]["metadata"]["labels"]["app"], "feed");
    assert_eq!(feed["object"].get("status"), None);
    assert_eq!(
        table["rows"][3]["cells"],
        json!([
            "rec-0",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "NotCounted",
            "-",
            "-",
            "-",
            "-",
            "-",
            "n7",
            "0/1",
            "-",
            "3s"
        ])
    );
}

#[tokio::test]
async fn a_table_carries_as_much_of_the_object_as_asked() {
    let server = Server::of_cluster();
    let object = async |include: &str| {
        server
            .get(&format!("{FEED}?includeObject={include}"), KUBECTL_TABLE)
            .await
            .json()["rows"][0]["object"]
            .clone()
    };
    assert_eq!(object("None").await, Value::Null);
    assert_eq!(object("Metadata").await["kind"], "PartialObjectMetadata");
    assert_eq!(object("Object").await["status"]["inbound"]["packets"], 812);
    let wrong = server.get(&format!("{FEED}?includeObject=All"), KUBECTL_TABLE).await;
    assert!(wrong.failure(400, "BadRequest").contains("\"All\""));
}

#[tokio::test]
async fn selectors_narrow_a_list() {
    let server = Server::of_cluster();
    let list = async |query: &str| server.get(&format!("{LIST}?{query}"), JSON).await;
    // As kubectl encodes them.
    assert_eq!(list("labelSelector=app%3Dfeed").await.names(), ["mkt/feed-0"]);
    let set = list("labelSelector=app+in+%28feed%2Csend%29%2C%21tier").await;
    assert_eq!(set.names(), ["default/solo", "mkt/src-0"]);
    assert_eq!(list("fieldSelector=metadata.name%3Drec-0").await.names(), ["mkt/rec-0"]);
    assert_eq!(
        list("fieldSelector=metadata.namespace%21%3Dmkt").await.names(),
        ["default/solo", "dev/probe"]
    );
    let unknown = list("fieldSelector=spec.nodeName%3Dn7").await;
    assert_eq!(
        unknown.failure(400, "BadRequest"),
        "field label not supported: spec.nodeName; use metadata.name or metadata.namespace"
    );
    list("labelSelector=app%3E5").await.failure(400, "BadRequest");
}

#[tokio::test]
async fn paging_answers_with_everything_and_never_continues() {
    let server = Server::of_cluster();
    let answer = server.get(&format!("{LIST}?limit=1"), JSON).await;
    assert_eq!(answer.names().len(), 5);
    assert_eq!(answer.json()["metadata"].get("continue"), None);
    server
        .get(&format!("{LIST}?continue=abc&limit=1"), JSON)
        .await
        .failure(400, "BadRequest");
}

#[tokio::test]
async fn watching_is_refused_for_now() {
    let server = Server::of_cluster();
    for query in ["watch=true", "watch=1", "watch"] {
        server
            .get(&format!("{LIST}?{query}"), JSON)
            .await
            .failure(405, "MethodNotAllowed");
    }
    assert_eq!(server.get(&format!("{LIST}?watch=false"), JSON).await.names().len(), 5);
}

#[tokio::test]
async fn every_failure_is_a_status() {
    let server = Server::of_cluster();
    let missing = server.get(&FEED.replace("feed-0", "feed-9"), KUBECTL_TABLE).await;
    assert_eq!(
        missing.failure(404, "NotFound"),
        "podmulticaststats.stats.antrea.io \"feed-9\" not found"
    );
    assert_eq!(
        missing.json()["details"],
        json!({"name": "feed-9", "group": "stats.antrea.io", "kind": "podmulticaststats"})
    );
    server.get("/api", JSON).await.failure(404, "NotFound");
    server
        .get("/apis/stats.antrea.io/v1alpha1/nothing", JSON)
        .await
        .failure(404, "NotFound");
    server.get("/openapi/v2", JSON).await.failure(404, "NotFound");
    server.get("/openapi/v3", JSON).await.failure(404, "NotFound");
    // kubectl would report this instead of the missing Pod if it were a 404.
    server
        .get("/api/v1/namespaces/mkt", JSON)
        .await
        .failure(405, "MethodNotAllowed");
    let protobuf = "application/vnd.kubernetes.protobuf";
    server.get(LIST, protobuf).await.failure(406, "NotAcceptable");
    server.get("/apis", protobuf).await.failure(406, "NotAcceptable");
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        server
            .send(method, FEED, &[], "")
            .await
            .failure(405, "MethodNotAllowed");
    }
    server
        .get(&format!("{LIST}?labelSelector=%ff"), JSON)
        .await
        .failure(400, "BadRequest");
    server
        .get("/apis/stats.antrea.io/v1alpha1/namespaces/%ff/podmulticaststats", JSON)
        .await
        .failure(400, "BadRequest");
}

#[tokio::test]
async fn large_answers_are_compressed_when_asked() {
    let now = noon();
    let pods: Vec<_> = (0..400)
        .map(|number| {
            let mut pod = feed("n7", now);
            pod.metadata.name = format!("feed-{number}");
            pod
        })
        .collect();
    let index = SharedIndex::default();
    index.accept(summary("n7", pods, now), now);
    let server = Server::start(Arc::new(index), Role::Aggregator, noon);
    let plain = server.get(LIST, JSON).await;
    assert!(
        plain.body.len() > 128 * 1024,
        "the list has only {} bytes",
        plain.body.len()
    );
    assert!(!plain.headers.contains_key("content-encoding"));
    let packed = server
        .send(Method::GET, LIST, &[("accept", JSON), ("accept-encoding", "gzip")], "")
        .await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed.body), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let small = server
        .send(Method::GET, FEED, &[("accept", JSON), ("accept-encoding", "gzip")], "")
        .await;
    assert!(!small.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn a_silent_nodes_rows_are_stale() {
    fn half_a_minute_later() -> Timestamp {
        noon().checked_add(SignedDuration::from_secs(30)).unwrap()
    }
    let server = Server::start(cluster_index(noon()), Role::Aggregator, half_a_minute_later);
    let table = server.get(LIST, KUBECTL_TABLE).await.json();
    for row in table["rows"].as_array().unwrap() {
        assert_eq!(row["cells"][10], "Stale", "{row}");
    }
    assert_eq!(table["rows"][2]["cells"][1], 812);
    let conditions = &server.get(FEED, JSON).await.json()["status"]["conditions"];
    assert_eq!(
        (&conditions[0]["type"], &conditions[0]["status"]),
        (&json!("Fresh"), &json!("False"))
    );
}

#[tokio::test]
async fn a_pushed_summary_is_served() {
    let server = empty();
    let [n7, n8] = cluster(noon());
    let plain = server
        .send(
            Method::POST,
            PATH,
            &[("content-type", JSON)],
            serde_json::to_vec(&n7).unwrap(),
        )
        .await;
    assert_eq!(plain.code, StatusCode::CREATED);
    assert_eq!(
        plain.json(),
        json!({"kind": "NodeStatsSummary", "apiVersion": "controlplane.mcstat.io/v1alpha1", "metadata": {}})
    );
    let packed = gzip(&serde_json::to_vec(&n8).unwrap());
    let headers = [("content-type", JSON), ("content-encoding", "gzip")];
    assert_eq!(
        server.send(Method::POST, PATH, &headers, packed).await.code,
        StatusCode::CREATED
    );
    assert_eq!(
        server.get(LIST, JSON).await.names(),
        ["default/solo", "dev/probe", "mkt/feed-0", "mkt/rec-0", "mkt/src-0"]
    );
    // A Pod that the node no longer has goes with the next summary; a late older one does not bring it back.
    let mut next = n8.clone();
    next.pods.retain(|pod| pod.metadata.name != "probe");
    next.observed_at = noon();
    for summary in [&next, &n8] {
        let body = serde_json::to_vec(summary).unwrap();
        assert_eq!(
            server.send(Method::POST, PATH, &[], body).await.code,
            StatusCode::CREATED
        );
        assert_eq!(
            server.get(LIST, JSON).await.names(),
            ["default/solo", "mkt/feed-0", "mkt/rec-0", "mkt/src-0"]
        );
    }
}

#[tokio::test]
async fn a_wrong_summary_is_refused_with_the_place_and_changes_nothing() {
    let server = empty();
    let [good, _] = cluster(noon());
    let push = async |body: Vec<u8>| server.send(Method::POST, PATH, &[("content-type", JSON)], body).await;
    let changed = |change: fn(&mut NodeStatsSummary)| {
        let mut summary = good.clone();
        change(&mut summary);
        serde_json::to_vec(&summary).unwrap()
    };

    let cut = push(b"{\"apiVersion\": \"controlplane".to_vec())
        .await
        .failure(400, "BadRequest");
    assert!(
        cut.starts_with("the body is no NodeStatsSummary: EOF while parsing a string at line 1 column 28"),
        "{cut}"
    );
    let hollow = push(b"{\n}".to_vec()).await.failure(400, "BadRequest");
    assert!(
        hollow.contains("missing field `apiVersion` at line 2 column 1"),
        "{hollow}"
    );
    let other = push(changed(|summary| summary.kind = "Pod".into()))
        .await
        .failure(400, "BadRequest");
    assert!(
        other.contains("the body is Pod of controlplane.mcstat.io/v1alpha1"),
        "{other}"
    );

    let nameless = push(changed(|summary| summary.metadata.name.clear())).await;
    nameless.failure(422, "Invalid");
    assert_eq!(nameless.json()["details"]["causes"][0]["field"], "metadata.name");
    let foreign = push(changed(|summary| summary.pods[1].spec.node = "n8".into())).await;
    foreign.failure(422, "Invalid");
    assert_eq!(foreign.json()["details"]["causes"][0]["field"], "pods[1].spec.node");
    push(changed(|summary| summary.pods[2].metadata.name.clear()))
        .await
        .failure(422, "Invalid");

    assert_eq!(server.get(LIST, JSON).await.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused() {
    let server = empty();
    let [good, _] = cluster(noon());
    let body = serde_json::to_vec(&good).unwrap();
    let push = async |headers: &[(&str, &str)], body: Vec<u8>| server.send(Method::POST, PATH, headers, body).await;
    let packed = gzip(&body);
    let cut = packed[..packed.len() / 2].to_vec();
    push(&[("content-encoding", "gzip")], cut)
        .await
        .failure(400, "BadRequest");
    push(&[("content-encoding", "gzip")], body.clone())
        .await
        .failure(400, "BadRequest");
    push(&[("content-encoding", "br")], body.clone())
        .await
        .failure(415, "UnsupportedMediaType");
    push(&[("content-type", "application/yaml")], body)
        .await
        .failure(415, "UnsupportedMediaType");
    // 33 MiB that fit in 40 kB on the wire.
    let bomb = gzip(&vec![b' '; BODY_LIMIT_BYTES + 1]);
    assert!(bomb.len() < BODY_LIMIT_BYTES / 100);
    push(&[("content-encoding", "gzip")], bomb)
        .await
        .failure(413, "RequestEntityTooLarge");
    assert_eq!(server.get(LIST, JSON).await.names(), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_can_push_to_a_node() {
    let server = Server::start(Arc::new(SharedIndex::default()), Role::Node, noon);
    let body = serde_json::to_vec(&cluster(noon())[0]).unwrap();
    server
        .send(Method::POST, PATH, &[("content-type", JSON)], body)
        .await
        .failure(404, "NotFound");
    assert_eq!(server.get(LIST, JSON).await.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_is_ready_once_a_node_has_reported() {
    let index = Arc::new(SharedIndex::default());
    let server = Server::start(Arc::clone(&index), Role::Aggregator, noon);
    for probe in ["/healthz", "/livez"] {
        assert_eq!(server.get(probe, "*/*").await.body, "ok");
    }
    assert_eq!(server.get("/readyz", "*/*").await.code, StatusCode::SERVICE_UNAVAILABLE);
    index.accept(summary("n7", vec![], noon()), noon());
    assert_eq!(server.get("/readyz", "*/*").await.code, StatusCode::OK);
}

#[tokio::test]
async fn the_version_is_one_that_kubectl_can_parse() {
    let version = empty().get("/version", JSON).await.json();
    assert_eq!(version["gitVersion"], concat!("v", env!("CARGO_PKG_VERSION")));
}
