//! Holds what a scenario says of the kernel's counters against its own messages: each record judged by the tables, each message
//! counted once, with its frame, for every rule that decided one of its records.
//!
//! Only where there is a policy source. Data is not counted: a scenario has no packets of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use mcstat::{
    ledger::{
        snapshot::{ControlEvent, Direction, PolicyReading, PortReading, ReportVerdicts, RuleReading, Snapshot},
        verdict::{Action, PodName, RuleId, Transport},
    },
    proto::{control::Body, igmp::IgmpMessage, mld::MldMessage},
};
use mcstat_common::policy::{SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3};

/// Bytes before the IP packet.
const ETHERNET: u64 = 14;

/// What was counted up to now.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ports: BTreeMap<u32, (u64, ReportVerdicts)>,
    rules: BTreeMap<RuleId, Rule>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rule {
    messages: u64,
    bytes: u64,
    records: u64,
    would_drop: [u64; 2],
}

impl Tally {
    /// Counts the messages of one step. Says what the snapshot counts otherwise.
    pub(crate) fn check(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let Some(policy) = &snapshot.policy else {
            return Vec::new();
        };
        for event in &snapshot.messages {
            let port = snapshot.ports.iter().find(|port| port.id == event.port);
            if let Some(port) = port.filter(|_| event.direction == Direction::Outbound) {
                self.count(event, port, policy);
            }
        }
        let mut wrong = Vec::new();
        for port in &snapshot.ports {
            let counted = self.ports.get(&port.id).copied().unwrap_or_default();
            let said = (messages(port), port.outbound.reports);
            if counted != said {
                wrong.push(format!("{}: {said:?} is said, {counted:?} is right", port.pod.name));
            }
        }
        for rule in &policy.rules {
            let counted = self.rules.get(&rule.row.id).copied().unwrap_or_default();
            let said = Rule::of(rule);
            if counted != said {
                wrong.push(format!("{}: {said:?} is said, {counted:?} is right", rule.row.id.name));
            }
        }
        wrong
    }

    fn count(&mut self, event: &ControlEvent, port: &PortReading, policy: &PolicyReading) {
        let Some(records) = records(event) else { return };
        let pod = PodName::new(&port.pod.namespace, &port.pod.name);
        let (messages, reports) = self.ports.entry(port.id).or_default();
        *messages += 1;
        reports.records += records.len() as u64;
        let (mut denied, mut deciders) = (0, BTreeSet::new());
        for (space, group) in records.into_iter().flatten() {
            let verdict = policy.tables.judge(&pod, space, group, Transport::Other);
            let drops = verdict.action == Action::Drop;
            denied += u64::from(drops);
            let Some(slot) = verdict.rule else { continue };
            let row = policy.rules.iter().find(|rule| rule.row.slot == slot);
            let rule = self.rules.entry(row.expect("a rule").row.id.clone()).or_default();
            let first = deciders.insert(slot);
            rule.count(
                drops && !policy.enforced.reports,
                first,
                u64::from(event.original_length),
            );
        }
        let (dropped, records) = match policy.enforced.reports {
            true => (&mut reports.dropped_messages, &mut reports.dropped_records),
            false => (&mut reports.would_drop_messages, &mut reports.would_drop_records),
        };
        *dropped += u64::from(denied > 0);
        *records += denied;
    }
}

impl Rule {
    fn of(reading: &RuleReading) -> Self {
        Self {
            messages: reading.messages,
            bytes: reading.message_bytes,
            records: reading.records,
            would_drop: [reading.would_drop.messages, reading.would_drop.records],
        }
    }

    fn count(&mut self, unenforced: bool, first: bool, length: u64) {
        let [messages, records] = match unenforced {
            true => {
                let [messages, records] = &mut self.would_drop;
                [messages, records]
            }
            false => [&mut self.messages, &mut self.records],
        };
        *messages += u64::from(first);
        *records += 1;
        if first && !unenforced {
            self.bytes += length + ETHERNET;
        }
    }
}

/// Reports and leaves by the kernel's counters.
fn messages(port: &PortReading) -> u64 {
    let control = &port.outbound.control;
    let igmp = [
        control.igmpv1_report,
        control.igmpv2_report,
        control.igmpv2_leave,
        control.igmpv3_report,
    ];
    let mld = [control.mldv1_report, control.mldv1_done, control.mldv2_report];
    igmp.iter().chain(&mld).sum()
}

/// Every record of a report or leave, with its space if it is judged; `None` for other messages. A report that cannot be decoded has
/// none.
fn records(event: &ControlEvent) -> Option<Vec<Option<(u8, Ipv4Addr)>>> {
    let Ok(message) = &event.message else {
        return Some(Vec::new());
    };
    Some(match &message.body {
        Body::Igmp(IgmpMessage::V1Report { group }) => vec![Some((SPACE_REPORT_V1, *group))],
        Body::Igmp(IgmpMessage::V2Report { group }) => vec![Some((SPACE_REPORT_V2, *group))],
        Body::Igmp(IgmpMessage::V2Leave { .. }) => vec![None],
        Body::Igmp(IgmpMessage::V3Report(report)) => {
            let records = report.records.iter();
            records.map(|record| Some((SPACE_REPORT_V3, record.group))).collect()
        }
        Body::Mld(MldMessage::V1Report { .. } | MldMessage::V1Done { .. }) => vec![None],
        Body::Mld(MldMessage::V2Report(report)) => vec![None; report.records.len()],
        _ => return None,
    })
}
