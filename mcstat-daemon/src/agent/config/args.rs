//! The flags of `mcstat agent` and their `MCSTAT_*` variables, laid over the file.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{Config, ConfigError, LogFormat, SourceKind, check::is_node_name};

/// Where the kernel tells the host name; the agent has the node's, being in its UTS namespace or told otherwise.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Flags of `mcstat agent`. Each one that is given overrides the file.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentArgs {
    /// YAML file with the configuration; without it, defaults hold
    #[arg(long, value_name = "FILE", env = "MCSTAT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the effective configuration as YAML and exit
    #[arg(long)]
    pub print_config: bool,
    /// Name of the Node object
    #[arg(long, value_name = "NAME", env = "MCSTAT_NODE")]
    pub node: Option<String>,
    /// Where the Pods come from
    #[arg(long, value_name = "KIND", env = "MCSTAT_SOURCE")]
    pub source: Option<SourceKind>,
    /// Unix socket of the Open vSwitch database
    #[arg(long, value_name = "PATH", env = "MCSTAT_OVSDB_SOCKET")]
    pub ovsdb_socket: Option<PathBuf>,
    /// Bridge that the Pods are ports of
    #[arg(long, value_name = "NAME", env = "MCSTAT_OVSDB_BRIDGE")]
    pub ovsdb_bridge: Option<String>,
    /// Directory of the named network namespaces
    #[arg(long, value_name = "PATH", env = "MCSTAT_NETNS_DIRECTORY")]
    pub netns_directory: Option<PathBuf>,
    /// Only namespaces whose file name begins so
    #[arg(long, value_name = "TEXT", env = "MCSTAT_NETNS_PREFIX")]
    pub netns_prefix: Option<String>,
    /// Read the switch's own counters, where Pods come from the Open vSwitch database
    #[arg(long, value_name = "BOOL", env = "MCSTAT_SWITCH_READ")]
    pub switch_read: Option<bool>,
    /// Make the switch push its counters before each reading (revalidator/wait)
    #[arg(long, value_name = "BOOL", env = "MCSTAT_SWITCH_REVALIDATE")]
    pub switch_revalidate: Option<bool>,
    /// How late the switch's counters may be
    #[arg(long, value_name = "DURATION", env = "MCSTAT_SWITCH_LAG", value_parser = duration)]
    pub switch_lag: Option<Duration>,
    /// Directory of policies to judge by
    #[arg(long, value_name = "PATH", env = "MCSTAT_POLICY_FILES")]
    pub policy_files: Option<PathBuf>,
    /// Judge by the policies of the Kubernetes API
    #[arg(long, value_name = "BOOL", env = "MCSTAT_POLICY_KUBERNETES")]
    pub policy_kubernetes: Option<bool>,
    /// kubeconfig for them; without one, the Pod's service account
    #[arg(long, value_name = "FILE", env = "MCSTAT_POLICY_KUBECONFIG")]
    pub policy_kubeconfig: Option<PathBuf>,
    /// Time between two readings, such as 1s
    #[arg(long, value_name = "DURATION", env = "MCSTAT_TICK", value_parser = duration)]
    pub tick: Option<Duration>,
    /// Window of all rates, such as 10s
    #[arg(long, value_name = "DURATION", env = "MCSTAT_WINDOW", value_parser = duration)]
    pub window: Option<Duration>,
    /// Mount point of the BPF file system
    #[arg(long, value_name = "PATH", env = "MCSTAT_BPFFS")]
    pub bpffs: Option<PathBuf>,
    /// Unix socket of the local API
    #[arg(long, value_name = "PATH", env = "MCSTAT_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Memory of all maps together, in MiB
    #[arg(long, value_name = "MIB", env = "MCSTAT_MAPS_MEMORY_MIB")]
    pub maps_memory_mib: Option<u32>,
    /// Slots for groups; 0: as many as the memory allows
    #[arg(long, value_name = "N", env = "MCSTAT_MAPS_SLOTS")]
    pub maps_slots: Option<u32>,
    /// Most slots of one port and direction
    #[arg(long, value_name = "N", env = "MCSTAT_MAPS_SLOTS_PER_PORT")]
    pub maps_slots_per_port: Option<u32>,
    /// Most Pod ports
    #[arg(long, value_name = "N", env = "MCSTAT_MAPS_PORTS")]
    pub maps_ports: Option<u32>,
    /// IGMP and MLD messages handed up per second and port
    #[arg(long, value_name = "N", env = "MCSTAT_EVENTS_PER_SECOND")]
    pub events_per_second: Option<u32>,
    /// IGMP and MLD messages handed up at once per port
    #[arg(long, value_name = "N", env = "MCSTAT_EVENTS_BURST")]
    pub events_burst: Option<u32>,
    /// Size of the ring buffer for them, in KiB
    #[arg(long, value_name = "KIB", env = "MCSTAT_EVENTS_RING_KIB")]
    pub events_ring_kib: Option<u32>,
    /// Idle time after which a group's counters may be folded, such as 1h
    #[arg(long, value_name = "DURATION", env = "MCSTAT_SLOT_IDLE", value_parser = duration)]
    pub slot_idle: Option<Duration>,
    /// Aggregator to push summaries to; may be given more than once
    #[arg(
        long = "publish-target",
        value_name = "URL",
        env = "MCSTAT_PUBLISH_TARGETS",
        value_delimiter = ','
    )]
    pub publish_targets: Option<Vec<String>>,
    /// Time between two pushes, such as 10s
    #[arg(long, value_name = "DURATION", env = "MCSTAT_PUBLISH_INTERVAL", value_parser = duration)]
    pub publish_interval: Option<Duration>,
    /// What is logged: a level, or a list such as info,mcstat::agent=debug
    #[arg(long, value_name = "LEVEL", env = "MCSTAT_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// How a log line looks
    #[arg(long, value_name = "FORMAT", env = "MCSTAT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text
        .parse()
        .map_err(|error| format!("{error}; write it like 500ms, 10s or 1h"))?;
    Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())
}

impl AgentArgs {
    /// The effective, checked configuration of this process: reads the file, `NODE_NAME` and the host name.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            None => Config::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    path: path.clone(),
                    source,
                })?;
                Config::parse(&text).map_err(|source| ConfigError::Parse {
                    path: path.clone(),
                    source,
                })?
            }
        };
        let node_name = std::env::var("NODE_NAME").unwrap_or_default();
        let hostname = std::fs::read_to_string(HOSTNAME).unwrap_or_default();
        self.resolve(file, &node_name, &hostname)
    }

    /// Lays the flags over `file`, names the node and checks every value. Pure.
    ///
    /// # Errors
    /// [`ConfigError::Range`] or [`ConfigError::Node`].
    pub fn resolve(&self, file: Config, node_name: &str, hostname: &str) -> Result<Config, ConfigError> {
        let mut config = self.over(file);
        if config.node.is_empty() {
            config.node = default_node(node_name, hostname)?;
        }
        config.check()?;
        Ok(config)
    }

    fn over(&self, mut config: Config) -> Config {
        let flags = self.clone();
        set(&mut config.node, flags.node);
        set(&mut config.source.kind, flags.source);
        set(&mut config.source.ovsdb.socket, flags.ovsdb_socket);
        set(&mut config.source.ovsdb.bridge, flags.ovsdb_bridge);
        set(&mut config.source.netns.directory, flags.netns_directory);
        set(&mut config.source.netns.prefix, flags.netns_prefix);
        set(&mut config.switch.read, flags.switch_read);
        set(&mut config.switch.revalidate, flags.switch_revalidate);
        set(&mut config.switch.lag, flags.switch_lag);
        set(&mut config.policy.files, flags.policy_files);
        set(&mut config.policy.kubernetes.enabled, flags.policy_kubernetes);
        set(&mut config.policy.kubernetes.kubeconfig, flags.policy_kubeconfig);
        set(&mut config.tick, flags.tick);
        set(&mut config.window, flags.window);
        set(&mut config.bpffs, flags.bpffs);
        set(&mut config.socket, flags.socket);
        set(&mut config.maps.memory_mib, flags.maps_memory_mib);
        set(&mut config.maps.slots, flags.maps_slots);
        set(&mut config.maps.slots_per_port, flags.maps_slots_per_port);
        set(&mut config.maps.ports, flags.maps_ports);
        set(&mut config.events.per_second, flags.events_per_second);
        set(&mut config.events.burst, flags.events_burst);
        set(&mut config.events.ring_kib, flags.events_ring_kib);
        set(&mut config.slot_idle, flags.slot_idle);
        set(&mut config.publish.targets, flags.publish_targets);
        // An empty variable says "none", not "one without a name".
        config.publish.targets.retain(|target| !target.is_empty());
        set(&mut config.publish.interval, flags.publish_interval);
        set(&mut config.log.level, flags.log_level);
        set(&mut config.log.format, flags.log_format);
        config
    }
}

impl Config {
    /// Reads a file's text. An empty file is an empty configuration.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong kind, with its line.
    pub fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        let parsed: Option<Self> = serde_yaml::from_str(text)?;
        Ok(parsed.unwrap_or_default())
    }
}

fn set<T>(place: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *place = value;
    }
}

/// `NODE_NAME` as the DaemonSet passes it, else the host name in lower case, which is how kubelet makes it.
fn default_node(node_name: &str, hostname: &str) -> Result<String, ConfigError> {
    if !node_name.is_empty() {
        return Ok(node_name.to_owned());
    }
    let lower = hostname.trim().to_ascii_lowercase();
    match is_node_name(&lower) {
        true => Ok(lower),
        false => Err(ConfigError::Node {
            hostname: hostname.trim().to_owned(),
        }),
    }
}
