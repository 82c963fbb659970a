//! `multicastgroups` over HTTP: objects, Tables, selectors, findings, silence.
//!
//! The cluster and its numbers are those of `api_support::groups`.

#![expect(clippy::unwrap_used, reason = "a test says what must hold by panicking")]

mod api_support;

use std::sync::Arc;

use api_support::{
    KUBECTL_TABLE, LIST, Server, before,
    groups::{index, nodes, row},
    idle_pod, noon, summary,
};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use mcstat::{
    aggregator::{http::Role, index::SharedIndex},
    api::stats::{Group, GroupCounters},
};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const GROUPS: &str = "/apis/stats.antrea.io/v1alpha1/multicastgroups";

fn server() -> Server {
    Server::start(index(noon()), Role::Aggregator, noon)
}

async fn names(server: &Server, query: &str) -> Vec<String> {
    let json = server.get(&format!("{GROUPS}{query}"), JSON).await.json();
    assert_eq!(
        (&json["kind"], &json["apiVersion"]),
        (&json!("MulticastGroupList"), &json!("stats.antrea.io/v1alpha1"))
    );
    let items = json["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_object_has_antreas_fields_and_ours() {
    let server = server();
    let group = server.get(&format!("{GROUPS}/239.1.1.1"), JSON).await.json();
    // Antrea's: metadata has a name, no namespace and no UID.
    let version = (noon().as_millisecond() + 1).to_string();
    assert_eq!(
        group["metadata"],
        json!({"name": "239.1.1.1", "resourceVersion": version})
    );
    assert_eq!(
        (&group["kind"], &group["apiVersion"], &group["group"]),
        (
            &json!("MulticastGroup"),
            &json!("stats.antrea.io/v1alpha1"),
            &json!("239.1.1.1")
        )
    );
    let pods: Vec<Value> = (0..4)
        .map(|number| json!({"namespace": "mkt", "name": format!("rec-{number}")}))
        .collect();
    assert_eq!(group["pods"], json!(pods));
    let status = &group["status"];
    for (field, value) in [
        ("summary", json!("OK")),
        ("hidden", json!(false)),
        ("nodesReporting", json!(2)),
        ("nodesExpected", json!(2)),
        ("sent", json!({"packets": 1000, "bytes": 142_000})),
        ("received", json!({"packets": 1950, "bytes": 276_900})),
        ("lastSeen", json!("2026-11-24T11:59:56Z")),
        ("nodes", json!(["n7", "n8"])),
        (
            "senders",
            json!([
                {"sender": "mkt/src-0", "node": "n8", "sent": {"packets": 1000, "bytes": 142_000}, "lastSeen": "2026-11-24T11:59:56Z"},
                {"sender": "ext:192.0.2.7", "lastSeen": "2026-11-24T11:59:56Z"}
            ]),
        ),
        // Not an SSM group, and nothing wrong: absent.
        ("sources", Value::Null),
        ("findings", Value::Null),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
    assert_eq!(
        status["members"][2],
        json!({
            "namespace": "mkt", "pod": "rec-2", "node": "n8", "interface": "eth0", "joined": true, "version": "IGMPv3",
            "mode": "EXCLUDE", "sources": [], "witness": ["kernel", "report"], "since": "2026-11-24T11:59:00Z",
            "expires": "2026-11-24T12:03:20Z", "lastReport": "2026-11-24T11:59:10Z", "reporter": "10.0.0.2", "reports": 3,
            "flaps": 0, "users": 1
        })
    );
    let queriers: Vec<_> = (0..2)
        .map(|place| {
            (
                &status["queriers"][place]["node"],
                &status["queriers"][place]["address"],
            )
        })
        .collect();
    assert_eq!(
        queriers,
        [(&json!("n7"), &json!("10.0.0.1")), (&json!("n8"), &json!("10.0.0.1"))]
    );
}

#[tokio::test]
async fn a_table_row_has_every_cell() {
    let table = server().get(GROUPS, KUBECTL_TABLE).await.json();
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    let cells: Vec<_> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["cells"].clone())
        .collect();
    let more = "mkt/rec-0,mkt/rec-1,mkt/rec-2 + 1 more...";
    assert_eq!(
        cells,
        [
            json!([
                "232.1.1.1",
                "mkt/rec-0",
                "OK",
                "mkt/src-0",
                "10.0.0.9",
                31,
                30,
                "4s",
                "n7,n8",
                "10.0.0.1"
            ]),
            json!([
                "239.1.1.1",
                more,
                "OK",
                "mkt/src-0,ext:192.0.2.7",
                "-",
                1000,
                1950,
                "4s",
                "n7,n8",
                "10.0.0.1"
            ]),
            json!([
                "239.9.9.9",
                "<none>",
                "OK",
                "mkt/src-0",
                "-",
                5,
                0,
                "4s",
                "n8",
                "10.0.0.1"
            ]),
            // No MLD querier is heard.
            json!([
                "ff15::1",
                "mkt/rec-1",
                "JoinedNoTraffic",
                "<none>",
                "-",
                0,
                0,
                "-",
                "n7",
                "<none>"
            ]),
        ]
    );
}

#[tokio::test]
async fn groups_of_every_stack_are_listed_on_request_only() {
    let server = server();
    let usual = ["232.1.1.1", "239.1.1.1", "239.9.9.9", "ff15::1"];
    let everyones = ["224.0.0.1", "ff02::1:ff00:1"];
    let all = [
        "224.0.0.1",
        "232.1.1.1",
        "239.1.1.1",
        "239.9.9.9",
        "ff02::1:ff00:1",
        "ff15::1",
    ];
    assert_eq!(names(&server, "").await, usual);
    assert_eq!(names(&server, "?fieldSelector=status.hidden%3Dfalse").await, usual);
    assert_eq!(names(&server, "?fieldSelector=status.hidden%3Dtrue").await, everyones);
    assert_eq!(names(&server, "?fieldSelector=status.hidden%21%3D").await, all);
    // Whoever names a group wants to see it.
    assert_eq!(
        names(&server, "?fieldSelector=metadata.name%3D224.0.0.1").await,
        ["224.0.0.1"]
    );
    let one = server.get(&format!("{GROUPS}/224.0.0.1"), JSON).await.json();
    assert_eq!(
        (&one["status"]["hidden"], &one["pods"][1]["name"]),
        (&json!(true), &json!("rec-1"))
    );
    let namespace = server
        .get(&format!("{GROUPS}?fieldSelector=metadata.namespace%3Dmkt"), JSON)
        .await;
    assert_eq!(
        namespace.failure(400, "BadRequest"),
        "field label not supported: metadata.namespace; use metadata.name or status.hidden"
    );
}

#[tokio::test]
async fn an_unknown_group_is_not_found_in_antreas_words() {
    let server = server();
    for name in ["224.0.0.10", "ff15::2", "nonsense"] {
        let missing = server.get(&format!("{GROUPS}/{name}"), KUBECTL_TABLE).await;
        let message = format!("multicastgroup.stats.antrea.io \"{name}\" not found");
        assert_eq!(missing.failure(404, "NotFound"), message);
        let details = json!({"name": name, "group": "stats.antrea.io", "kind": "multicastgroup"});
        assert_eq!(missing.json()["details"], details);
    }
    // They live in no namespace.
    let namespaced = "/apis/stats.antrea.io/v1alpha1/namespaces/mkt/multicastgroups";
    server.get(namespaced, JSON).await.failure(404, "NotFound");
    server
        .send(Method::DELETE, &format!("{GROUPS}/239.1.1.1"), &[], "")
        .await
        .failure(405, "MethodNotAllowed");
}

#[tokio::test]
async fn an_address_is_found_however_it_is_written() {
    let server = server();
    for name in ["ff15::1", "ff15:0:0::1", "FF15::1", "ff15%3A%3A1"] {
        let group = server.get(&format!("{GROUPS}/{name}"), JSON).await.json();
        assert_eq!(group["metadata"]["name"], "ff15::1", "{name}");
    }
}

#[tokio::test]
async fn nothing_is_an_empty_list() {
    let server = Server::start(Arc::new(SharedIndex::default()), Role::Aggregator, noon);
    assert_eq!(names(&server, "").await, Vec::<String>::new());
}

/// Half a minute of a stream without members, told by n8 before noon and at noon.
fn unheard() -> Arc<SharedIndex> {
    let index = SharedIndex::default();
    for ago in [30, 20, 10, 0] {
        let then = before(noon(), ago);
        for summary in nodes(then) {
            index.accept(summary, then);
        }
    }
    Arc::new(index)
}

#[tokio::test]
async fn what_nobody_has_joined_is_said_by_the_cluster_and_not_by_a_node() {
    let words = async |role| {
        let server = Server::start(unheard(), role, noon);
        let group = server.get(&format!("{GROUPS}/239.9.9.9"), JSON).await.json();
        let list = server.get(LIST, JSON).await.json();
        let pod = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|pod| pod["metadata"]["name"] == "src-0")
            .unwrap()
            .clone();
        let one = "/apis/stats.antrea.io/v1alpha1/namespaces/mkt/podmulticaststats/src-0";
        assert_eq!(server.get(one, JSON).await.json()["status"], pod["status"]);
        assert_eq!(
            server.get(GROUPS, JSON).await.json()["items"][2]["status"],
            group["status"]
        );
        (group["status"].clone(), pod["status"].clone())
    };
    let (group, pod) = words(Role::Aggregator).await;
    assert_eq!(
        (&group["summary"], &pod["summary"]),
        (&json!("SentNobodyJoined"), &json!("SentNobodyJoined"))
    );
    let finding = json!({
        "type": "SentNobodyJoined", "group": "239.9.9.9", "since": "2026-11-24T11:59:30Z",
        "message": "a Pod sends to 239.9.9.9 and no Pod of the cluster has joined it"
    });
    assert_eq!((&group["findings"][0], &pod["findings"][0]), (&finding, &finding));
    let told: Vec<_> = pod["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["finding"].clone())
        .collect();
    assert_eq!(told, [Value::Null, Value::Null, json!("SentNobodyJoined")]);
    assert_eq!(pod["groups"][2]["since"], "2026-11-24T11:59:30Z");

    let (group, pod) = words(Role::Node).await;
    assert_eq!((&group["summary"], &pod["summary"]), (&json!("OK"), &json!("OK")));
}

#[tokio::test]
async fn a_silent_nodes_pods_leave_their_groups() {
    fn later() -> Timestamp {
        noon().checked_add(SignedDuration::from_secs(30)).unwrap()
    }
    let index = index(noon());
    let [_, mut n8] = nodes(noon());
    n8.observed_at = later();
    index.accept(n8, later());
    let server = Server::start(index, Role::Aggregator, later);
    let table = server.get(GROUPS, KUBECTL_TABLE).await.json();
    let cells: Vec<_> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["cells"].as_array().unwrap()[..3].to_vec())
        .collect();
    assert_eq!(
        json!(cells),
        json!([
            ["232.1.1.1", "<none>", "OK"],
            ["239.1.1.1", "mkt/rec-2,mkt/rec-3", "OK"],
            ["239.9.9.9", "<none>", "OK"]
        ])
    );
    let group = server.get(&format!("{GROUPS}/239.1.1.1"), JSON).await.json();
    assert_eq!(group["status"]["received"]["packets"], 1950);
}

/// Four hundred groups of one sender each: the order is by number, not by text.
#[tokio::test]
async fn groups_are_ordered_by_number() {
    let now = noon();
    let rows = (0..400u32).map(|number| Group {
        outbound: Some(GroupCounters {
            packets: 1,
            last_seen: Some(before(now, 4)),
            ..GroupCounters::default()
        }),
        ..row(&std::net::Ipv4Addr::from(0xef00_0000 + number).to_string(), None, now)
    });
    let mut pod = idle_pod("n7", "mkt", "src-0", now);
    pod.status.groups = rows.collect();
    let index = SharedIndex::default();
    index.accept(summary("n7", vec![pod], now), now);
    let names = names(&Server::start(Arc::new(index), Role::Aggregator, noon), "?limit=1").await;
    assert_eq!(names.len(), 400);
    assert_eq!(
        (names[2].as_str(), names[10].as_str(), names[399].as_str()),
        ("239.0.0.2", "239.0.0.10", "239.0.1.143")
    );
}
