//! The allowed range of every value. One place, so that the documentation can be checked against it by reading.

use std::{fmt::Display, ops::RangeInclusive, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use jiff::{SignedDuration, fmt::friendly};
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError, SourceKind};

/// Longest path of a unix socket: `sun_path` of unix(7) without its NUL.
const SOCKET_PATH_MAX: usize = 107;
/// Longest name of a network device, and so of a bridge's local port: `IFNAMSIZ` without its NUL.
const DEVICE_NAME_MAX: usize = 15;
/// Longest name of a Node object (an RFC 1123 subdomain).
const NODE_NAME_MAX: usize = 253;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError::Range`] for the first value that is outside.
    pub fn check(&self) -> Result<(), ConfigError> {
        one_of(
            "node",
            &self.node,
            is_node_name(&self.node),
            "a Kubernetes node name (lower-case letters, digits, - and .)",
        )?;
        self.check_source()?;
        self.check_policy()?;
        duration("tick", self.tick, 100 * MILLISECOND..=MINUTE)?;
        duration("window", self.window, self.tick.saturating_mul(2)..=10 * MINUTE)?;
        absolute("bpffs", &self.bpffs)?;
        unix_socket("socket", &self.socket)?;
        self.check_maps()?;
        number("events.perSecond", self.events.per_second, 1..=100_000)?;
        number("events.burst", self.events.burst, 1..=1_000_000)?;
        let ring = self.events.ring_kib;
        let ring_fits = ring.is_power_of_two() && (64..=65_536).contains(&ring);
        one_of("events.ringKiB", ring, ring_fits, "a power of two from 64 to 65536")?;
        duration("switch.lag", self.switch.lag, 500 * MILLISECOND..=MINUTE)?;
        duration("slotIdle", self.slot_idle, MINUTE..=7 * DAY)?;
        duration("publish.interval", self.publish.interval, SECOND..=5 * MINUTE)?;
        for target in &self.publish.targets {
            let url = target.starts_with("http://") || target.starts_with("https://");
            one_of(
                "publish.targets",
                target,
                url,
                "a URL that begins with http:// or https://",
            )?;
        }
        let level = &self.log.level;
        let known = !level.trim().is_empty() && EnvFilter::try_new(level).is_ok();
        one_of(
            "log.level",
            level,
            known,
            "error, warn, info, debug, trace or a list of MODULE=LEVEL",
        )
    }

    fn check_source(&self) -> Result<(), ConfigError> {
        match self.source.kind {
            SourceKind::Ovsdb => {
                unix_socket("source.ovsdb.socket", &self.source.ovsdb.socket)?;
                let bridge = &self.source.ovsdb.bridge;
                let fits = (1..=DEVICE_NAME_MAX).contains(&bridge.len());
                one_of("source.ovsdb.bridge", bridge, fits, "a name of 1 to 15 bytes")
            }
            SourceKind::Netns => {
                absolute("source.netns.directory", &self.source.netns.directory)?;
                let prefix = &self.source.netns.prefix;
                one_of(
                    "source.netns.prefix",
                    prefix,
                    !prefix.contains('/'),
                    "part of a file name, without /",
                )
            }
        }
    }

    /// One source of policies or none.
    fn check_policy(&self) -> Result<(), ConfigError> {
        let (files, kubernetes) = (&self.policy.files, &self.policy.kubernetes);
        let none = files.as_os_str().is_empty();
        let fits = none || (files.is_absolute() && !kubernetes.enabled);
        let allowed = "an absolute path, or empty while policy.kubernetes.enabled is true";
        one_of("policy.files", files.display(), fits, allowed)?;
        let kubeconfig = &kubernetes.kubeconfig;
        let in_pod = kubeconfig.as_os_str().is_empty();
        let fits = in_pod || (kubeconfig.is_absolute() && kubernetes.enabled);
        let allowed = "empty, or an absolute path while policy.kubernetes.enabled is true";
        one_of("policy.kubernetes.kubeconfig", kubeconfig.display(), fits, allowed)
    }

    fn check_maps(&self) -> Result<(), ConfigError> {
        let maps = &self.maps;
        number("maps.memoryMiB", maps.memory_mib, 8..=4096)?;
        let slots_fit = maps.slots == 0 || (256..=1_048_576).contains(&maps.slots);
        one_of(
            "maps.slots",
            maps.slots,
            slots_fit,
            "0 (as the memory allows) or 256 to 1048576",
        )?;
        let most = if maps.slots == 0 { 65_536 } else { maps.slots };
        number("maps.slotsPerPort", maps.slots_per_port, 1..=most)?;
        number("maps.ports", maps.ports, 1..=4096)
    }
}

/// What Kubernetes accepts as the name of a Node: an RFC 1123 subdomain.
pub(super) fn is_node_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label =
        |part: &str| !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-');
    name.len() <= NODE_NAME_MAX && name.split('.').all(label)
}

fn one_of(key: &'static str, value: impl Display, good: bool, allowed: &str) -> Result<(), ConfigError> {
    if good {
        return Ok(());
    }
    let value = match value.to_string() {
        text if text.is_empty() => "empty".to_owned(),
        text => text,
    };
    Err(ConfigError::Range {
        key,
        value,
        allowed: allowed.to_owned(),
    })
}

fn number(key: &'static str, value: u32, range: RangeInclusive<u32>) -> Result<(), ConfigError> {
    let allowed = format!("{} to {}", range.start(), range.end());
    one_of(key, value, range.contains(&value), &allowed)
}

fn duration(key: &'static str, value: Duration, range: RangeInclusive<Duration>) -> Result<(), ConfigError> {
    let allowed = format!("{} to {}", show(*range.start()), show(*range.end()));
    one_of(key, show(value), range.contains(&value), &allowed)
}

/// A duration as it would be written in the file.
fn show(duration: Duration) -> String {
    let printer = friendly::SpanPrinter::new();
    SignedDuration::try_from(duration).map_or_else(
        |_| format!("{duration:?}"),
        |duration| printer.duration_to_string(&duration),
    )
}

fn absolute(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    one_of(key, path.display(), path.is_absolute(), "an absolute path")
}

fn unix_socket(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    let fits = path.is_absolute() && path.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX;
    one_of(key, path.display(), fits, "an absolute path of up to 107 bytes")
}
