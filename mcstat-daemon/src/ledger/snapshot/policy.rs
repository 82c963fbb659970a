//! The part of a snapshot that is about policies: what is judged by, what is enforced, what each rule has counted.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Traffic;
use crate::ledger::{
    switch::Verdict,
    verdict::{ObjectKey, Reach, RuleRow, Tables},
};

/// The policies in force, and what their rules have decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyReading {
    /// What the kernel judges by, to judge again what only user space sees whole.
    pub tables: Arc<Tables>,
    /// Every policy, also one that is for no Pod of this node or has no rules for multicast: what is not here, and has no rule
    /// below, does not exist.
    pub policies: Arc<[KnownPolicy]>,
    /// Every rule that is for any Pod of this node, sorted by slot. One that is retired may stand here once more, with its
    /// last counts.
    pub rules: Vec<RuleReading>,
    /// What each of them is about, by which the switch's flows are known again.
    pub reach: Arc<Reach>,
    /// What somebody enforces; the last known state while the switch is away.
    pub enforced: Enforced,
    /// What is not judged as it is written, as sentences.
    pub problems: Arc<[String]>,
}

/// A policy that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPolicy {
    /// Kind, namespace, name.
    pub key: ObjectKey,
    /// UID; another one when it is made again.
    pub uid: Arc<str>,
    /// Whether it has rules for multicast now.
    pub multicast: bool,
}

/// What is enforced, and not only judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Enforced {
    /// Data: the bridge has the table MulticastEgressMetric.
    pub data: bool,
    /// IGMP reports: and MulticastRouting punts IGMP to the controller.
    pub reports: bool,
    /// Sources: frames with one that is not the Pod's are dropped at once. The bridge has the table
    /// MulticastEgressPodMetric, so Antrea's guard against them stands before it.
    pub sources: bool,
}

/// The counters of one rule on this node, cumulative since [`start`](Self::start).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleReading {
    /// The rule, and where its counters lie.
    pub row: RuleRow,
    /// When counting began.
    pub start: Timestamp,
    /// Data that it decided: admitted by an Allow rule, denied by a Drop rule that is enforced.
    pub data: Traffic,
    /// IGMP messages in which it decided at least one record (a Drop rule: enforced ones only). Of a rule on queries, those
    /// that the ledger has had written down ([`Ledger::queried`](crate::ledger::Ledger::queried)).
    pub messages: u64,
    /// Their frames, once each, in bytes.
    pub message_bytes: u64,
    /// Records that it decided; a message of IGMPv1 or v2 has one.
    pub records: u64,
    /// What a Drop rule denied and nobody enforces.
    pub would_drop: WouldDrop,
    /// Of a rule on queries, the switch's flow as it was written down with them.
    pub flow: Option<RuleFlow>,
}

/// A flow of the switch that counts for one rule on IGMP queries, and what it had counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleFlow {
    /// The rule's number there.
    pub conjunction: u32,
    /// What it does.
    pub verdict: Verdict,
    /// Queries, once for each Pod that they were for.
    pub packets: u64,
    /// Their frames.
    pub bytes: u64,
}

/// Denied and not enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WouldDrop {
    /// Data packets.
    pub packets: u64,
    /// IGMP messages.
    pub messages: u64,
    /// Their records.
    pub records: u64,
}

/// What rules said of the IGMP reports and leaves that a Pod sent. Messages that are allowed are the rest of
/// [`control`](super::DirectionReading::control).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReportVerdicts {
    /// Records of all of them, denied ones included; a message of IGMPv1, v2 or MLDv1 has one.
    pub records: u64,
    /// Messages with at least one record that an enforced rule denied.
    pub dropped_messages: u64,
    /// Those records.
    pub dropped_records: u64,
    /// Messages with at least one denied record, unenforced.
    pub would_drop_messages: u64,
    /// Those records.
    pub would_drop_records: u64,
}
