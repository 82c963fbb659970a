//! Strictness, precedence, ranges, and that the documentation tells the same keys, defaults and flags.

use std::collections::BTreeMap;

use clap::{Args as _, FromArgMatches as _};
use serde_yaml::Value;

use super::*;

const PAGE: &str = include_str!("../../../../docs/configuration.md");

fn args(flags: &[&str]) -> AgentArgs {
    let command = AgentArgs::augment_args(clap::Command::new("agent"));
    let matches = command.try_get_matches_from([&["agent"], flags].concat()).unwrap();
    AgentArgs::from_arg_matches(&matches).unwrap()
}

/// The effective configuration of a file's text and flags on node `n1`.
fn effective(text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
    args(flags).resolve(Config::parse(text).unwrap(), "n1", "")
}

fn refused(text: &str) -> String {
    effective(text, &[]).unwrap_err().to_string()
}

fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Mapping(mapping) => mapping.iter().for_each(|(key, value)| {
            let key = key.as_str().unwrap();
            flatten(
                &if prefix.is_empty() {
                    key.to_owned()
                } else {
                    format!("{prefix}.{key}")
                },
                value,
                into,
            );
        }),
        scalar => {
            into.insert(
                prefix.to_owned(),
                serde_yaml::to_string(scalar).unwrap().trim().to_owned(),
            );
        }
    }
}

/// The agent's table on the page: the cells of each row, without back quotes.
fn documented() -> Vec<Vec<String>> {
    let (agent, _) = PAGE.split_once("\n## The aggregator\n").unwrap();
    let rows = agent.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    })
    .collect()
}

#[test]
fn the_page_lists_every_key_with_its_default() {
    let mut coded = BTreeMap::new();
    flatten("", &serde_yaml::to_value(Config::default()).unwrap(), &mut coded);
    let page: BTreeMap<String, String> = documented()
        .iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    assert_eq!(page, coded);
}

#[test]
fn the_page_lists_every_flag_with_its_variable() {
    let command = AgentArgs::augment_args(clap::Command::new("agent"));
    let mut coded: BTreeMap<String, String> = command
        .get_arguments()
        .map(|argument| {
            let variable = argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            (format!("--{}", argument.get_long().unwrap()), variable)
        })
        .collect();
    assert_eq!(coded.remove("--print-config").as_deref(), Some(""));
    assert_eq!(coded.remove("--config").as_deref(), Some("MCSTAT_CONFIG"));
    let page: BTreeMap<String, String> = documented()
        .iter()
        .map(|row| (row[3].clone(), row[4].clone()))
        .collect();
    assert_eq!(page, coded);
}

#[test]
fn the_example_on_the_page_is_valid() {
    let example = PAGE
        .split("```yaml")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let config = effective(example, &[]).unwrap();
    assert_eq!(
        (config.source.kind, config.source.netns.prefix.as_str()),
        (SourceKind::Netns, "lab-")
    );
}

#[test]
fn the_defaults_are_valid() {
    let config = effective("", &[]).unwrap();
    assert_eq!(
        config,
        Config {
            node: "n1".to_owned(),
            ..Config::default()
        }
    );
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let text = "{source: {kind: netns}, tick: 250ms, window: 1m 30s, slotIdle: 36h, log: {format: json},
        publish: {targets: ['http://[::1]:8080', 'http://127.0.0.1:1'], interval: 5s}, maps: {slots: 1024, memoryMiB: 32}}";
    for text in ["", text] {
        let config = effective(text, &["--node", "n-2.lab"]).unwrap();
        let printed = config.to_yaml().unwrap();
        let again = AgentArgs::default()
            .resolve(Config::parse(&printed).unwrap(), "", "")
            .unwrap();
        assert_eq!(again, config, "{printed}");
    }
}

#[test]
fn flags_override_the_file() {
    let text = "{tick: 2s, source: {kind: netns, netns: {prefix: a-}}, publish: {targets: ['http://127.0.0.1:1']}}";
    let flags = [
        "--source=ovsdb",
        "--netns-prefix=b-",
        "--publish-target=http://127.0.0.1:2,http://127.0.0.1:3",
    ];
    let config = effective(text, &flags).unwrap();
    assert_eq!(config.tick, Duration::from_secs(2), "no flag: the file's");
    assert_eq!(config.source.kind, SourceKind::Ovsdb);
    assert_eq!(config.source.netns.prefix, "b-");
    assert_eq!(config.publish.targets, ["http://127.0.0.1:2", "http://127.0.0.1:3"]);
    assert_eq!(
        effective("", &["--slot-idle=90m"]).unwrap().slot_idle,
        Duration::from_secs(5400)
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    for (text, expected) in [
        ("tick: 1s\nticks: 2s\n", ["ticks", "line 2"]),
        ("tick: 1s\nmaps:\n  ports: 3\n  port: 4\n", ["port`", "line 4"]),
        ("source:\n  ovsdb:\n    sock: /x\n", ["sock`", "line 3"]),
        ("tick: 1s\nmaps:\n  ports: many\n", ["maps.ports", "line 3"]),
        ("tick: soon\n", ["tick", "line 1"]),
        ("source:\n  kind: docker\n", ["docker", "line 2"]),
        ("maps:\n  ports: -1\n", ["maps.ports", "line 2"]),
    ] {
        let message = Config::parse(text).unwrap_err().to_string();
        assert!(
            expected.iter().all(|part| message.contains(part)),
            "{text:?} gave {message:?}"
        );
    }
}

#[test]
fn a_key_given_twice_is_refused() {
    let message = Config::parse("tick: 1s\ntick: 2s\n").unwrap_err().to_string();
    assert!(message.contains("duplicate field `tick`"), "{message}");
}

#[test]
fn a_file_that_is_wrong_or_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.yaml");
    let load = || {
        AgentArgs {
            config: Some(path.clone()),
            ..AgentArgs::default()
        }
        .load()
        .unwrap_err()
        .to_string()
    };
    let missing = load();
    assert!(
        missing.contains("agent.yaml cannot be read") && missing.ends_with("check --config"),
        "{missing}"
    );
    std::fs::write(&path, "tick: 1s\nnodes: a\n").unwrap();
    let wrong = load();
    assert!(
        ["agent.yaml", "nodes", "line 2"]
            .iter()
            .all(|part| wrong.contains(part)),
        "{wrong}"
    );
    std::fs::write(&path, "nodes: a\ntick: 1s\n").unwrap();
    let first = load();
    assert!(first.contains("`log` at line 1 column 1; docs/"), "{first}");
}

#[test]
fn a_value_outside_its_range_is_told_with_the_range() {
    assert_eq!(refused("tick: 10ms"), "tick is 10ms: allowed is 100ms to 1m");
    assert_eq!(
        refused("{tick: 6s, window: 10s}"),
        "window is 10s: allowed is 12s to 10m"
    );
    assert_eq!(refused("maps: {ports: 0}"), "maps.ports is 0: allowed is 1 to 4096");
    assert_eq!(
        refused("maps: {slots: 255}"),
        "maps.slots is 255: allowed is 0 (as the memory allows) or 256 to 1048576"
    );
    assert_eq!(
        refused("maps: {slots: 256, slotsPerPort: 257}"),
        "maps.slotsPerPort is 257: allowed is 1 to 256"
    );
    assert_eq!(
        refused("events: {ringKiB: 1000}"),
        "events.ringKiB is 1000: allowed is a power of two from 64 to 65536"
    );
    assert_eq!(
        refused("socket: agent.sock"),
        "socket is agent.sock: allowed is an absolute path of up to 107 bytes"
    );
    assert_eq!(
        refused("source: {ovsdb: {bridge: ''}}"),
        "source.ovsdb.bridge is empty: allowed is a name of 1 to 15 bytes"
    );
    assert_eq!(
        refused("publish: {targets: ['127.0.0.1:80']}"),
        "publish.targets is 127.0.0.1:80: allowed is a URL that begins with http:// or https://"
    );
    assert_eq!(
        refused("policy: {files: policies}"),
        "policy.files is policies: allowed is an absolute path, or empty while policy.kubernetes.enabled is true"
    );
    assert_eq!(
        refused("policy: {files: /p, kubernetes: {enabled: true}}"),
        "policy.files is /p: allowed is an absolute path, or empty while policy.kubernetes.enabled is true"
    );
    assert_eq!(
        refused("policy: {kubernetes: {kubeconfig: /k}}"),
        "policy.kubernetes.kubeconfig is /k: allowed is empty, or an absolute path while policy.kubernetes.enabled is true"
    );
    assert!(refused("log: {level: 'mcstat=loud'}").starts_with("log.level is mcstat=loud: allowed is error, warn"));
    assert!(refused("node: Node_1").starts_with("node is Node_1: allowed is a Kubernetes node name"));
}

#[test]
fn the_ends_of_a_range_are_allowed() {
    for text in [
        "tick: 100ms",
        "{tick: 1m, window: 2m}",
        "window: 10m",
        "slotIdle: 168h",
        "policy: {files: /etc/mcstat/policies}",
        "policy: {kubernetes: {enabled: true, kubeconfig: /k}}",
        "maps: {slots: 256, slotsPerPort: 256}",
    ] {
        effective(text, &[]).expect(text);
    }
    let longest = format!("/{}", "s".repeat(106));
    effective("", &["--socket", &longest]).unwrap();
    effective("", &["--socket", &format!("{longest}s")]).unwrap_err();
}

#[test]
fn only_the_chosen_source_is_checked() {
    let text = "source: {kind: netns, ovsdb: {socket: relative}}";
    effective(text, &[]).unwrap();
    effective(text, &["--source=ovsdb"]).unwrap_err();
}

#[test]
fn the_node_is_named_by_the_nearest_that_knows() {
    let node = |file: &str, flags: &[&str], node_name, hostname| {
        args(flags)
            .resolve(Config::parse(file).unwrap(), node_name, hostname)
            .map(|config| config.node)
    };
    assert_eq!(node("node: a", &["--node=b"], "c", "d").unwrap(), "b");
    assert_eq!(node("node: a", &[], "c", "d").unwrap(), "a");
    assert_eq!(node("", &[], "c", "d").unwrap(), "c");
    assert_eq!(node("", &[], "", "Worker-7\n").unwrap(), "worker-7");
    let error = node("", &[], "", "my_host\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "the node's name is not known: the host name is \"my_host\"; \
         set node, --node or NODE_NAME to the Node object's name"
    );
}
