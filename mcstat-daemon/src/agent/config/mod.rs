//! The agent's configuration: one strict YAML file, environment variables and flags over it, and checked values out.
//!
//! Order of precedence: flag, `MCSTAT_*` variable, file, default. A [`Config`] that [`AgentArgs::resolve`] returns has
//! passed every range check, so the agent's code need not check again. `docs/configuration.md` lists every key; a test
//! holds that page and this file together.

mod args;
mod check;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as friendly;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use args::AgentArgs;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path} cannot be read: {source}; check --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no YAML, has an unknown key, or a value of the wrong kind.
    #[error("configuration {path}: {}; docs/configuration.md lists every key", with_line(source))]
    Parse {
        /// The file.
        path: PathBuf,
        /// The key and its line.
        source: serde_yaml::Error,
    },
    /// A value is outside its range.
    #[error("{key} is {value}: allowed is {allowed}")]
    Range {
        /// The key, as in the file.
        key: &'static str,
        /// The value found.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// The node has no usable name.
    #[error(
        "the node's name is not known: the host name is {hostname:?}; set node, --node or NODE_NAME to the Node object's name"
    )]
    Node {
        /// What the system calls itself.
        hostname: String,
    },
    /// The effective configuration cannot be written as YAML.
    #[error("the configuration cannot be printed: {0}")]
    Print(serde_yaml::Error),
}

/// The parser names every place but the very first. An unknown key stands where it says; of other errors the first place is
/// only where the whole mapping begins.
fn with_line(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(place) if text.starts_with("unknown field") && !text.contains(" at line ") => {
            format!("{text} at line {} column {}", place.line(), place.column())
        }
        _ => text,
    }
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Name of the Node object. Empty until resolved: then `NODE_NAME`, else the host name.
    pub node: String,
    /// Where the Pods come from.
    pub source: SourceConfig,
    /// The switch's own account, where Pods come from the Open vSwitch database.
    pub switch: SwitchConfig,
    /// Where the policies come from that are judged.
    pub policy: PolicyConfig,
    /// Time between two readings.
    #[serde(with = "friendly")]
    pub tick: Duration,
    /// The window of all rates.
    #[serde(with = "friendly")]
    pub window: Duration,
    /// Mount point of the BPF file system.
    pub bpffs: PathBuf,
    /// The local API's unix socket.
    pub socket: PathBuf,
    /// Sizes of the BPF maps.
    pub maps: MapsConfig,
    /// Bounds of the IGMP and MLD messages handed up.
    pub events: EventsConfig,
    /// Idle time after which a group's own counters may be folded, when room is needed.
    #[serde(with = "friendly")]
    pub slot_idle: Duration,
    /// Where summaries are pushed.
    pub publish: PublishConfig,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// Where the Pods come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SourceConfig {
    /// Which of the following is used.
    pub kind: SourceKind,
    /// Used when `kind` is `ovsdb`.
    pub ovsdb: OvsdbConfig,
    /// Used when `kind` is `netns`.
    pub netns: NetnsConfig,
}

/// A kind of Pod source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// Antrea's Port rows in the Open vSwitch database.
    #[default]
    Ovsdb,
    /// Named network namespaces.
    Netns,
}

/// The Open vSwitch database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OvsdbConfig {
    /// The database server's unix socket.
    pub socket: PathBuf,
    /// The bridge that the Pods are ports of.
    pub bridge: String,
}

/// Named network namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetnsConfig {
    /// Where their files are.
    pub directory: PathBuf,
    /// Only files whose name begins so; it is cut off.
    pub prefix: String,
}

/// How the switch is read. Its run directory is that of `source.ovsdb.socket`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SwitchConfig {
    /// Whether its flows are read and compared with what the veths say.
    pub read: bool,
    /// Whether it is made to push its counters before each reading.
    pub revalidate: bool,
    /// How late its counters may be.
    #[serde(with = "friendly")]
    pub lag: Duration,
}

/// Where policies come from: one of the two, or nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// A directory of YAML documents; empty: none.
    pub files: PathBuf,
    /// The Kubernetes API.
    pub kubernetes: KubernetesConfig,
}

/// The Kubernetes API as the source of policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// Whether it is asked.
    pub enabled: bool,
    /// How to reach it; empty: as a Pod does, by its service account.
    pub kubeconfig: PathBuf,
}

/// Sizes of the BPF maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MapsConfig {
    /// All maps together, in MiB, whatever the number of CPUs.
    #[serde(rename = "memoryMiB")]
    pub memory_mib: u32,
    /// Slots for groups; 0: as many as the memory allows.
    pub slots: u32,
    /// Most slots of one port and direction.
    pub slots_per_port: u32,
    /// Most Pod ports.
    pub ports: u32,
}

/// Bounds of the IGMP and MLD messages handed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EventsConfig {
    /// Messages per second and port in the long run.
    pub per_second: u32,
    /// Messages at once per port.
    pub burst: u32,
    /// Size of the ring buffer, in KiB.
    #[serde(rename = "ringKiB")]
    pub ring_kib: u32,
}

/// Where summaries are pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PublishConfig {
    /// URLs of the aggregators; none: nothing is pushed.
    pub targets: Vec<String>,
    /// Time between two pushes.
    #[serde(with = "friendly")]
    pub interval: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,mcstat::agent=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: String::new(),
            source: SourceConfig::default(),
            switch: SwitchConfig::default(),
            policy: PolicyConfig::default(),
            tick: Duration::from_secs(1),
            window: Duration::from_secs(10),
            bpffs: "/sys/fs/bpf".into(),
            socket: "/run/mcstat/agent.sock".into(),
            maps: MapsConfig::default(),
            events: EventsConfig::default(),
            slot_idle: Duration::from_secs(3600),
            publish: PublishConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for OvsdbConfig {
    fn default() -> Self {
        Self {
            socket: "/var/run/antrea/openvswitch/db.sock".into(),
            bridge: "br-int".to_owned(),
        }
    }
}

impl Default for NetnsConfig {
    fn default() -> Self {
        Self {
            directory: "/run/netns".into(),
            prefix: String::new(),
        }
    }
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self {
            read: true,
            revalidate: false,
            lag: Duration::from_millis(800),
        }
    }
}

impl Default for MapsConfig {
    fn default() -> Self {
        Self {
            memory_mib: 64,
            slots: 0,
            slots_per_port: 256,
            ports: 512,
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            per_second: 100,
            burst: 400,
            ring_kib: 1024,
        }
    }
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            interval: Duration::from_secs(10),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Config {
    /// This configuration as YAML that can be read back.
    ///
    /// # Errors
    /// [`ConfigError::Print`].
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_yaml::to_string(self).map_err(ConfigError::Print)
    }
}
