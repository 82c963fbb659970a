//! The node-local API: who gets the socket, what stands on it, and what is left behind.

#![expect(clippy::unwrap_used, reason = "a test says what must hold by panicking")]

mod api_support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use api_support::{cluster, mcstat, policies, printed, summary};
use jiff::Timestamp;
use mcstat::{
    agent::local::{self, LocalError},
    api::summary::NodeStatsSummary,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

struct Agent {
    summaries: watch::Sender<Option<Arc<NodeStatsSummary>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), LocalError>>,
}

impl Agent {
    async fn start(socket: &Path) -> Self {
        let agent = Self::try_start(socket);
        while tokio::net::UnixStream::connect(socket).await.is_err() {
            assert!(!agent.task.is_finished(), "{:?}", agent.task.await);
            tokio::task::yield_now().await;
        }
        agent
    }

    fn try_start(socket: &Path) -> Self {
        let (summaries, receiver) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let socket = socket.to_owned();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            local::serve(&socket, receiver, shutdown).await
        });
        Self { summaries, stop, task }
    }

    fn say(&self, summary: NodeStatsSummary) {
        self.summaries.send(Some(Arc::new(summary))).unwrap();
    }

    async fn stop(self) -> Result<(), LocalError> {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// What `mcstat get … -o name` prints, asked until it is `expected`; a summary is shown as soon as it is said, so a
/// thousand questions are plenty.
async fn names_become(socket: &Path, expected: &str) {
    for _ in 0..1000 {
        let socket = socket.to_owned();
        let command = mcstat([
            Path::new("get"),
            Path::new("pmcs"),
            Path::new("-A"),
            Path::new("-oname"),
            Path::new("--socket"),
            &socket,
        ]);
        let answer = tokio::task::spawn_blocking(|| printed(command)).await.unwrap();
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
        if answer.stdout == expected {
            return;
        }
    }
    panic!("the agent never answered {expected:?}");
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run").join("agent.sock");
    (folder, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_summary_is_shown() {
    let (_folder, socket) = folder();
    let agent = Agent::start(&socket).await;
    names_become(&socket, "").await;
    let [mut n7, _] = cluster(Timestamp::now());
    agent.say(n7.clone());
    let all = ["solo", "feed-0", "rec-0"].map(|name| format!("podmulticaststats.stats.antrea.io/{name}\n"));
    names_become(&socket, &all.concat()).await;
    n7.pods.retain(|pod| pod.metadata.name == "solo");
    n7.observed_at = Timestamp::now();
    agent.say(n7);
    names_become(&socket, &all[0]).await;
    agent.stop().await.unwrap();
}

/// The node's own numbers, not the cluster's.
#[tokio::test(flavor = "multi_thread")]
async fn policies_are_shown_as_this_node_counted_them() {
    let (_folder, socket) = folder();
    let agent = Agent::start(&socket).await;
    let [n7, _] = policies::nodes(Timestamp::now());
    let feeds = n7.antrea_cluster_network_policies.clone().unwrap().remove(0);
    agent.say(n7);
    let command = |kind: &str| {
        let mut command = mcstat(["get", kind, "-A", "-o", "json", "--socket"]);
        command.arg(&socket);
        command
    };
    // As soon as it is said; a thousand questions are plenty.
    let listed = async |kind: &'static str| {
        for _ in 0..1000 {
            let command = command(kind);
            let answer = tokio::task::spawn_blocking(|| printed(command)).await.unwrap();
            let list: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
            let items = list["items"].as_array().unwrap().clone();
            if !items.is_empty() {
                return items;
            }
        }
        panic!("the agent never told of {kind}");
    };
    let told = listed("antreaclusternetworkpolicystats").await;
    assert_eq!(told[0]["metadata"]["name"], "acnp-feeds");
    assert_eq!(told[0]["trafficStats"]["packets"], 612);
    assert_eq!(
        told[0]["ruleTrafficStats"],
        serde_json::to_value(feeds.rule_traffic_stats).unwrap()
    );
    assert_eq!(told[0]["status"]["nodesExpected"], 1);
    let told = listed("antreanetworkpolicystats").await;
    assert_eq!(
        (
            told[1]["metadata"]["name"].as_str(),
            told[1]["trafficStats"]["packets"].as_u64()
        ),
        (Some("igmp"), Some(3))
    );
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_and_group_may_ask_and_the_socket_goes_with_the_agent() {
    let (folder, socket) = folder();
    let agent = Agent::start(&socket).await;
    let found = fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    agent.stop().await.unwrap();
    let left: Vec<_> = fs::read_dir(folder.path().join("run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_is_refused_and_the_first_keeps_answering() {
    let (_folder, socket) = folder();
    let first = Agent::start(&socket).await;
    first.say(summary(
        "n7",
        vec![api_support::feed("n7", Timestamp::now())],
        Timestamp::now(),
    ));
    let refused = Agent::try_start(&socket).task.await.unwrap().unwrap_err();
    assert!(
        matches!(&refused, LocalError::AlreadyServed(path) if *path == socket),
        "{refused}"
    );
    names_become(&socket, "podmulticaststats.stats.antrea.io/feed-0\n").await;
    first.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_agents_socket_is_replaced() {
    let (_folder, socket) = folder();
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    // Closing a listener leaves its name behind, as a killed agent does.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let agent = Agent::start(&socket).await;
    names_become(&socket, "").await;
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_socket_is_left_alone() {
    let (_folder, socket) = folder();
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    fs::write(&socket, "precious").unwrap();
    let refused = Agent::try_start(&socket).task.await.unwrap().unwrap_err();
    assert!(
        matches!(&refused, LocalError::NotASocket(path) if *path == socket),
        "{refused}"
    );
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_cannot_be_a_socket_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(120));
    let error = Agent::try_start(&long).task.await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with(&format!("binding {}", long.display())), "{error}");
    assert!(
        error.ends_with("check the path of the socket and the rights of the agent"),
        "{error}"
    );
}
