//! `mcstat get` as a user types it, against the router on a unix socket.
//!
//! Texts, columns and exit codes are kubectl's; `api_kubectl.rs` compares the same output with kubectl's own.

mod api_support;

use std::{process::Stdio, sync::Arc};

use api_support::{Printed, Server, mcstat, noon, printed};
use mcstat::aggregator::{http::Role, index::SharedIndex};

/// `mcstat get podmulticaststats ARGUMENTS` against this server.
fn get(server: &Server, arguments: &[&str]) -> Printed {
    let mut command = mcstat(["get", "podmulticaststats"]);
    command.args(arguments).env("MCSTAT_SOCKET", server.socket());
    // The server runs on this runtime: the wait must not block it.
    tokio::task::block_in_place(|| printed(command))
}

fn ok(stdout: &str) -> Printed {
    Printed {
        code: Some(0),
        stdout: stdout.to_owned(),
        stderr: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_options_the_default_namespace_is_shown() {
    let server = Server::of_cluster();
    let expected = "\
NAME   INBOUND   OUTBOUND   INBOUND_DROPPED   OUTBOUND_DROPPED   IGMP_ALLOWED   IGMP_DROPPED   IN/S   OUT/S   LAST   STATUS
solo   5         9000       -                 -                  0              -              0.5    82      4s     OK
";
    assert_eq!(get(&server, &[]), ok(expected));
    assert_eq!(get(&server, &["solo"]), ok(expected));
    assert_eq!(get(&server, &["-n", "default"]), ok(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_namespaces_come_with_their_name_first() {
    let expected = "\
NAMESPACE   NAME     INBOUND   OUTBOUND   INBOUND_DROPPED   OUTBOUND_DROPPED   IGMP_ALLOWED   IGMP_DROPPED   IN/S   OUT/S   LAST   STATUS
default     solo     5         9000       -                 -                  0              -              0.5    82      4s     OK
dev         probe    0         0          -                 -                  0              -              0      0       -      OK
mkt         feed-0   812       0          12                0                  44             0              0      0       95s    JoinedNoTraffic
mkt         rec-0    -         -          -                 -                  -              -              -      -       -      NotCounted
mkt         src-0    5         9000       -                 -                  0              -              0.5    82      4s     OK
";
    let server = Server::of_cluster();
    assert_eq!(get(&server, &["-A"]), ok(expected));
    assert_eq!(get(&server, &["--all-namespaces"]), ok(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_adds_columns() {
    let answer = get(&Server::of_cluster(), &["-n", "mkt", "feed-0", "-o", "wide"]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = answer.stdout.lines().map(words).collect();
    assert_eq!(
        lines[0][11..],
        [
            "INBOUND_BYTES",
            "OUTBOUND_BYTES",
            "SOCKET_DROPS",
            "GROUPS",
            "LEDGERS",
            "NODE",
            "INTERFACES",
            "SINCE",
            "OBSERVED"
        ]
    );
    assert_eq!(
        lines[1][11..],
        ["115304", "0", "300", "1", "unavailable", "n7", "1/2", "60m", "3s"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_ready_for_xargs() {
    let expected = "podmulticaststats.stats.antrea.io/feed-0\npodmulticaststats.stats.antrea.io/rec-0\npodmulticaststats.stats.antrea.io/src-0\n";
    assert_eq!(get(&Server::of_cluster(), &["-n", "mkt", "-o", "name"]), ok(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_or_a_list() {
    let server = Server::of_cluster();
    let json = |arguments: &[&str]| -> serde_json::Value {
        let answer = get(&server, arguments);
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
        serde_json::from_str(&answer.stdout).unwrap()
    };
    let one = json(&["-n", "mkt", "feed-0", "-o", "json"]);
    assert_eq!(one["kind"], "PodMulticastStats");
    assert_eq!(one["status"]["inbound"]["packets"], 812);
    let list = json(&["-n", "mkt", "-o", "json"]);
    assert_eq!(
        (list["kind"].as_str(), list["apiVersion"].as_str()),
        (Some("List"), Some("v1"))
    );
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    assert_eq!(list["items"][0], one);
    let two = json(&["-n", "mkt", "src-0", "feed-0", "-o", "json"]);
    assert_eq!(two["items"][1], one);
    assert_eq!(json(&["-n", "none", "-o", "json"])["items"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_says_what_json_says() {
    let server = Server::of_cluster();
    let [yaml, json] = ["yaml", "json"].map(|form| get(&server, &["-A", "-o", form]).stdout);
    let yaml: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(yaml, json);
    assert_eq!(json["items"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_pod_is_not_found() {
    let server = Server::of_cluster();
    let missing = "Error from server (NotFound): podmulticaststats.stats.antrea.io \"x\" not found\n";
    for form in [
        &["x"][..],
        &["x", "-o", "json"],
        &["x", "-o", "name"],
        &["x", "-o", "wide"],
    ] {
        let expected = Printed {
            code: Some(1),
            stdout: String::new(),
            stderr: missing.into(),
        };
        assert_eq!(get(&server, form), expected, "{form:?}");
    }
    // What was found is shown all the same.
    let both = get(&server, &["x", "solo", "-o", "name"]);
    let found = "podmulticaststats.stats.antrea.io/solo\n".to_owned();
    assert_eq!(
        both,
        Printed {
            code: Some(1),
            stdout: found,
            stderr: missing.into()
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_found_is_said_and_no_failure() {
    let empty = Server::start(Arc::new(SharedIndex::default()), Role::Node, noon);
    let said = |text: &str| Printed {
        code: Some(0),
        stdout: String::new(),
        stderr: text.to_owned(),
    };
    assert_eq!(get(&empty, &[]), said("No resources found in default namespace.\n"));
    assert_eq!(
        get(&empty, &["-n", "mkt"]),
        said("No resources found in mkt namespace.\n")
    );
    assert_eq!(get(&empty, &["-A"]), said("No resources found\n"));
    assert_eq!(get(&empty, &["-A", "-o", "name"]), ok(""));
}

#[test]
fn without_an_agent_the_socket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let command = || {
        let mut command = mcstat(["get", "pmcs", "--socket"]);
        command.arg(&socket);
        command
    };
    let missing = printed(command());
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), ""));
    let beginning = format!(
        "error: no mcstat agent answers on {} (No such file or directory",
        socket.display()
    );
    assert!(missing.stderr.starts_with(&beginning), "{}", missing.stderr);
    assert!(
        missing.stderr.contains("start one with `mcstat agent`"),
        "{}",
        missing.stderr
    );
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let dead = printed(command());
    assert_eq!(dead.code, Some(1));
    assert!(dead.stderr.contains("(Connection refused"), "{}", dead.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_no_failure() {
    let server = Server::of_cluster();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = mcstat(["get", "pmcs", "-A"]);
    command
        .env("MCSTAT_SOCKET", server.socket())
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = tokio::task::block_in_place(|| command.spawn().unwrap().wait_with_output().unwrap());
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        &["get"][..],
        &["get", "pods"],
        &["get", "pmcs", "-o", "xml"],
        &["get", "pmcs", "--frob"],
        &["--log-level", "mcstat=loud", "version"],
        &[],
    ] {
        let answer = printed(mcstat(arguments));
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(
            !answer.stderr.is_empty() && !answer.stderr.contains('\u{1b}'),
            "{:?}",
            answer.stderr
        );
    }
    let both = printed(mcstat(["get", "pmcs", "x", "-A"]));
    assert_eq!(both.code, Some(1));
    assert!(
        both.stderr
            .contains("cannot be retrieved by name across all namespaces"),
        "{}",
        both.stderr
    );
}

#[test]
fn version_is_one_line() {
    assert_eq!(
        printed(mcstat(["version"])),
        ok(concat!("mcstat ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}
