//! What the tests of the served API share: summaries made by hand, a server over a unix socket, a client, a network
//! namespace of one's own, and the binaries.

#![allow(dead_code, reason = "every test binary uses another part of this module")]
#![expect(clippy::unwrap_used, reason = "a test says what must hold by panicking")]

pub(crate) mod both;
pub(crate) mod groups;
pub(crate) mod policies;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use mcstat::{
    aggregator::{
        http::{Role, router},
        index::SharedIndex,
    },
    api::{
        stats::{
            Condition, DroppedMessages, Families, Group, GroupCounters, Igmp, Inbound, Interface, Messages, Metadata,
            OtherGroups, Outbound, PodMulticastStats, Share, Spec, Status,
        },
        summary::{KernelHealth, NodeStatsSummary, SummaryMetadata},
    },
};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::net::{UnixListener, UnixStream};

/// The Accept header of `kubectl get`, 1.32 to 1.37.
pub(crate) const KUBECTL_TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
pub(crate) const LIST: &str = "/apis/stats.antrea.io/v1alpha1/podmulticaststats";

/// The time of every request to a server with this clock.
pub(crate) fn noon() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

pub(crate) fn before(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(seconds)).unwrap()
}

/// A counted Pod that has sent and received nothing, on `node`, counted for an hour.
pub(crate) fn idle_pod(node: &str, namespace: &str, name: &str, now: Timestamp) -> PodMulticastStats {
    PodMulticastStats {
        api_version: "stats.antrea.io/v1alpha1".into(),
        kind: "PodMulticastStats".into(),
        metadata: Metadata {
            namespace: namespace.into(),
            name: name.into(),
            ..Metadata::default()
        },
        spec: Spec { node: node.into() },
        status: Status {
            summary: "OK".into(),
            sandbox: format!("{namespace}-{name}"),
            start_time: Some(before(now, 3600)),
            observed_at: before(now, 3),
            window_seconds: 10,
            inbound: Some(Inbound {
                per_second: Some(0.0),
                ..Inbound::default()
            }),
            outbound: Some(Outbound {
                per_second: Some(0.0),
                ..Outbound::default()
            }),
            igmp: Some(Igmp::default()),
            socket_drops: None,
            kernel: None,
            interfaces: vec![counted("eth0")],
            groups: vec![],
            findings: vec![],
            membership_limits: None,
            ledgers: None,
            conditions: vec![],
        },
    }
}

fn counted(name: &str) -> Interface {
    Interface {
        name: name.into(),
        host_interface: None,
        counted: true,
        reason: None,
        message: None,
    }
}

/// `mkt/feed-0` of the design: 812 packets in, 12 of them dropped by the switch, 44 IGMP messages, last packet 95 s ago.
pub(crate) fn feed(node: &str, now: Timestamp) -> PodMulticastStats {
    let mut pod = idle_pod(node, "mkt", "feed-0", now);
    pod.metadata.labels = BTreeMap::from([("app".into(), "feed".into()), ("tier".into(), "front".into())]);
    pod.metadata.uid = Some("0b6c9a52-6a5e-4d5c-8a3e-1f1f6f3a1c11".into());
    pod.status.summary = "JoinedNoTraffic".into();
    pod.status.inbound = Some(Inbound {
        packets: 812,
        bytes: 115_304,
        segments: 812,
        per_second: Some(0.0),
        last_seen: Some(before(now, 95)),
        link_local: Share { packets: 3 },
        families: Families::default(),
        ttl1: 0,
        dropped: Some(12),
        other_groups: OtherGroups::default(),
        control: BTreeMap::new(),
    });
    pod.status.outbound = Some(Outbound {
        switch_dropped: Some(0),
        per_second: Some(0.0),
        ..Outbound::default()
    });
    pod.status.igmp = Some(Igmp {
        allowed: Messages {
            messages: 44,
            records: Some(61),
        },
        dropped: Some(DroppedMessages::default()),
        would_drop: Some(Messages::default()),
        ignored: BTreeMap::new(),
    });
    pod.status.socket_drops = Some(300);
    pod.status.interfaces.push(Interface {
        name: "net1".into(),
        host_interface: None,
        counted: false,
        reason: Some("NotVeth".into()),
        message: None,
    });
    pod.status.groups = vec![Group {
        group: "239.1.1.1".parse().unwrap(),
        source: None,
        interface: "eth0".into(),
        inbound: Some(GroupCounters {
            packets: 812,
            bytes: 115_304,
            segments: 812,
            ..GroupCounters::default()
        }),
        outbound: None,
        last_source: Some("10.0.0.9".parse().unwrap()),
        start_time: Some(before(now, 3600)),
        membership: None,
        finding: None,
        since: None,
    }];
    pod.status.conditions = vec![Condition {
        kind: "LedgersAgree".into(),
        status: "Unknown".into(),
        reason: "SwitchRestarted".into(),
        message: String::new(),
    }];
    pod
}

/// A sender: 9000 packets out, 81.5 a second.
pub(crate) fn sender(node: &str, namespace: &str, name: &str, now: Timestamp) -> PodMulticastStats {
    let mut pod = idle_pod(node, namespace, name, now);
    pod.metadata.labels = BTreeMap::from([("app".into(), "send".into())]);
    pod.status.inbound = Some(Inbound {
        packets: 5,
        bytes: 300,
        per_second: Some(0.5),
        ..Inbound::default()
    });
    pod.status.outbound = Some(Outbound {
        sent: 9000,
        admitted: 9000,
        bytes: 1_278_000,
        segments: 9000,
        per_second: Some(81.5),
        last_seen: Some(before(now, 4)),
        ..Outbound::default()
    });
    pod
}

/// A Pod that cannot be counted: no number of it is known.
pub(crate) fn uncounted(node: &str, namespace: &str, name: &str, now: Timestamp) -> PodMulticastStats {
    let mut pod = idle_pod(node, namespace, name, now);
    pod.status.summary = "NotCounted".into();
    (
        pod.status.start_time,
        pod.status.inbound,
        pod.status.outbound,
        pod.status.igmp,
    ) = (None, None, None, None);
    pod.status.interfaces[0].counted = false;
    pod.status.interfaces[0].reason = Some("NotVeth".into());
    pod
}

pub(crate) fn summary(node: &str, pods: Vec<PodMulticastStats>, now: Timestamp) -> NodeStatsSummary {
    NodeStatsSummary {
        api_version: "controlplane.mcstat.io/v1alpha1".into(),
        kind: "NodeStatsSummary".into(),
        metadata: SummaryMetadata { name: node.into() },
        start_time: before(now, 7200),
        observed_at: before(now, 3),
        interval_seconds: 10,
        pods,
        multicast: Vec::new(),
        antrea_cluster_network_policies: None,
        antrea_network_policies: None,
        queriers: Vec::new(),
        findings: Vec::new(),
        kernel: KernelHealth::default(),
    }
}

/// Two nodes, three namespaces, five Pods.
pub(crate) fn cluster(now: Timestamp) -> [NodeStatsSummary; 2] {
    let n7 = vec![
        feed("n7", now),
        uncounted("n7", "mkt", "rec-0", now),
        sender("n7", "default", "solo", now),
    ];
    let n8 = vec![sender("n8", "mkt", "src-0", now), idle_pod("n8", "dev", "probe", now)];
    [summary("n7", n7, now), summary("n8", n8, now)]
}

/// An index of [`cluster`], all of it arrived at `now`.
pub(crate) fn cluster_index(now: Timestamp) -> Arc<SharedIndex> {
    let index = SharedIndex::default();
    for summary in cluster(now) {
        index.accept(summary, now);
    }
    Arc::new(index)
}

/// The router over a unix socket in a folder of its own, until dropped.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(index: Arc<SharedIndex>, role: Role, clock: fn() -> Timestamp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let task = tokio::spawn(async move {
            axum::serve(listener, router(index, role, clock)).await.unwrap();
        });
        Self { folder, task }
    }

    /// [`cluster`] at noon.
    pub(crate) fn of_cluster() -> Self {
        Self::start(cluster_index(noon()), Role::Aggregator, noon)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) async fn get(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], Bytes::new()).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Full::new(body.into())).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Answer {
            code: parts.status,
            headers: parts.headers,
            body,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// `namespace/name` of every item of a list.
    pub(crate) fn names(&self) -> Vec<String> {
        assert_eq!(self.code, StatusCode::OK, "{:?}", self.body);
        let json = self.json();
        let name = |item: &serde_json::Value| {
            let part = |part: &str| item["metadata"][part].as_str().unwrap().to_owned();
            format!("{}/{}", part("namespace"), part("name"))
        };
        json["items"].as_array().unwrap().iter().map(name).collect()
    }

    /// Asserts a failure in the form of Kubernetes and gives its message.
    pub(crate) fn failure(&self, code: u16, reason: &str) -> String {
        let json = self.json();
        let told = (
            self.code.as_u16(),
            &json["kind"],
            &json["status"],
            &json["reason"],
            &json["code"],
        );
        let (kind, status) = (serde_json::json!("Status"), serde_json::json!("Failure"));
        assert_eq!(
            told,
            (
                code,
                &kind,
                &status,
                &serde_json::json!(reason),
                &serde_json::json!(code)
            ),
            "{json}"
        );
        json["message"].as_str().unwrap().to_owned()
    }
}

/// Runs `body` in a thread with a network namespace of its own, loopback up. Threads and processes begun there belong
/// to it; it is gone with the last of them.
pub(crate) fn in_own_network<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("this test needs a network namespace of its own: run it as root");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(
            up.expect("this test needs the command `ip`: install iproute2")
                .success()
        );
        body()
    };
    std::thread::scope(|scope| {
        scope
            .spawn(inside)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The binary under test, without the caller's settings.
pub(crate) fn mcstat<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcstat"));
    command.args(arguments);
    for name in ["MCSTAT_SOCKET", "MCSTAT_LISTEN", "MCSTAT_LOG", "MCSTAT_LOG_FORMAT"] {
        command.env_remove(name);
    }
    command
}

/// What a command printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Printed {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

pub(crate) fn printed(mut command: Command) -> Printed {
    let output = command.output();
    output
        .unwrap_or_else(|error| panic!("{} does not run: {error}", command.get_program().display()))
        .into()
}

/// A kubectl that knows nothing but the server it is told.
pub(crate) struct Kubectl {
    binary: PathBuf,
    home: tempfile::TempDir,
    server: String,
}

impl Kubectl {
    /// Takes the binary from `MCSTAT_KUBECTL` or PATH.
    pub(crate) fn new(server: &str) -> Self {
        let on_path = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .map(|folder| folder.join("kubectl"))
                .find(|file| file.is_file())
        };
        let binary = std::env::var_os("MCSTAT_KUBECTL").map(PathBuf::from).or_else(on_path);
        let binary =
            binary.expect("this test needs kubectl: run `cargo xtask setup`, or set MCSTAT_KUBECTL to its path");
        Self {
            binary,
            home: tempfile::tempdir().unwrap(),
            server: server.to_owned(),
        }
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Printed {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("KUBECONFIG", "/dev/null")
            .arg("--server")
            .arg(&self.server)
            .arg("--cache-dir")
            .arg(self.home.path().join("cache"))
            .args(arguments);
        printed(command)
    }
}

/// A running `mcstat aggregator`, killed when dropped.
pub(crate) struct Aggregator {
    process: Child,
    address: String,
}

impl Aggregator {
    /// Starts it and waits until it says where it serves.
    pub(crate) fn start(listen: &str) -> Self {
        Self::start_with(listen, [] as [&OsStr; 0])
    }

    /// The same with more arguments.
    pub(crate) fn start_with<S: AsRef<OsStr>>(listen: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = mcstat([
            "aggregator",
            "--insecure-http",
            "--log-format",
            "json",
            "--listen",
            listen,
        ]);
        command.args(arguments);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let first = lines.next().expect("the aggregator ended without a word").unwrap();
        let address = serde_json::from_str::<serde_json::Value>(&first).ok();
        let address = address.and_then(|line| line["address"].as_str().map(str::to_owned));
        // Whatever it says later is read, so that it never waits for the reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address: address.unwrap_or_else(|| panic!("the aggregator said {first}")),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends the signal, waits for the end, gives the exit code.
    pub(crate) fn stop(mut self, signal: Signal) -> Option<i32> {
        let id = Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
