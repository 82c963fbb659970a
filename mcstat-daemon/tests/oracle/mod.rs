//! What the comparison of the decoders with tshark stands on: frames, and what either side reads in them.
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod capture;
pub mod ours;
pub mod tshark;

use std::{collections::BTreeMap, path::Path, process::Command};

/// What one side reads in a frame: values by the name of what they say, in a form that both sides share. What a side
/// does not say is not in it.
pub type Reading = BTreeMap<&'static str, String>;

/// The value of `fault` in a reading: the message is whole, or why it is not.
pub mod fault {
    pub const NONE: &str = "none";
    /// The frame lies about a length, or is too short for what it says it is.
    pub const MALFORMED: &str = "malformed";
    /// The capture ends before the message does.
    pub const CUT: &str = "cut";
    /// A fragment: nobody reads a message in it.
    pub const FRAGMENT: &str = "fragment";
}

/// What a type is called in a reading.
pub fn name(igmp: bool, kind: u8, version: u8) -> String {
    match (igmp, kind) {
        (true, 0x11) => format!("IGMPv{version} query"),
        (true, 0x12) => "IGMPv1 report".into(),
        (true, 0x16) => "IGMPv2 report".into(),
        (true, 0x17) => "IGMPv2 leave".into(),
        (true, 0x22) => "IGMPv3 report".into(),
        (true, kind) => format!("IGMP {kind:#x}"),
        (false, 130) => format!("MLDv{version} query"),
        (false, 131) => "MLDv1 report".into(),
        (false, 132) => "MLDv1 done".into(),
        (false, 143) => "MLDv2 report".into(),
        (false, kind) => format!("ICMPv6 {kind}"),
    }
}

/// A group record in a reading.
pub fn record(kind: u8, group: &str, sources: &[String], aux_words: u8) -> String {
    format!("{kind} {group} {{{}}} aux {aux_words}", sources.join(","))
}

/// Runs a program of the oracle; panics with its output when it fails or is not there. No settings of a user reach it.
pub fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("HOME", directory)
        .env("XDG_CONFIG_HOME", directory)
        .env("XDG_CACHE_HOME", directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run `cargo xtask setup`"));
    assert!(
        output.status.success(),
        "{program} {}: {}; is something missing? run `cargo xtask setup`",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8 from the oracle")
}
