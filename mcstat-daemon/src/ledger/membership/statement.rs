//! What a report or leave says, group by group, in one form for all versions; and which messages a router ignores.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    ledger::judge::Judge,
    proto::{
        control::{Body, Checksum, ControlMessage},
        igmp::IgmpMessage,
        mld::MldMessage,
        wire::{Record, RecordKind},
    },
};

/// One thing that a message says of one group.
pub(super) struct Statement {
    /// Of the protocol: IGMP 1 to 3, MLD 1 or 2.
    pub(super) version: u8,
    /// What it says; of the older versions what a record would say.
    pub(super) kind: RecordKind,
    /// Of which group; not checked to be one.
    pub(super) group: IpAddr,
    /// The record's sources.
    pub(super) sources: BTreeSet<IpAddr>,
}

impl Statement {
    /// Whether it makes a member of who was none.
    pub(super) fn joins(&self) -> bool {
        match self.kind {
            RecordKind::ModeIsExclude | RecordKind::ChangeToExclude => true,
            RecordKind::ModeIsInclude | RecordKind::ChangeToInclude | RecordKind::AllowNewSources => {
                !self.sources.is_empty()
            }
            RecordKind::BlockOldSources | RecordKind::Unknown(_) => false,
        }
    }

    /// Whether it says goodbye.
    pub(super) fn leaves(&self) -> bool {
        let include = matches!(self.kind, RecordKind::ModeIsInclude | RecordKind::ChangeToInclude);
        include && self.sources.is_empty()
    }

    /// The rule that denies it. Antrea does not ask its rules about leaves of IGMPv2.
    pub(super) fn denier(&self, judge: &Judge<'_>) -> Option<u16> {
        let unjudged = self.version == 2 && self.leaves();
        (!unjudged).then(|| judge.denier(self.version, self.group)).flatten()
    }
}

/// Why a router would not take this message in, if so.
///
/// IGMP is taken as real hosts send it: without router alert, with another TTL, to another destination. MLD is held to
/// RFC 9777 §6.2, as Linux does: link-local source (`::` in reports alone), hop limit 1, router alert.
pub(super) fn unacceptable(message: &ControlMessage) -> Option<&'static str> {
    match message.checksum {
        Checksum::Good => {}
        Checksum::Bad => return Some("bad_checksum"),
        Checksum::Unknown => return Some("cut"),
    }
    let deviations = message.deviations();
    if deviations.source {
        return Some("bad_source");
    }
    let strict = matches!(message.body, Body::Mld(_));
    (strict && (deviations.ttl || deviations.router_alert)).then_some("bad_envelope")
}

/// What a report or leave says; nothing for other messages.
pub(super) fn statements(body: &Body) -> Vec<Statement> {
    let old = |version, kind, group: IpAddr| {
        vec![Statement {
            version,
            kind,
            group,
            sources: BTreeSet::new(),
        }]
    };
    match body {
        Body::Igmp(IgmpMessage::V1Report { group }) => old(1, RecordKind::ModeIsExclude, (*group).into()),
        Body::Igmp(IgmpMessage::V2Report { group }) => old(2, RecordKind::ModeIsExclude, (*group).into()),
        Body::Igmp(IgmpMessage::V2Leave { group }) => old(2, RecordKind::ChangeToInclude, (*group).into()),
        Body::Mld(MldMessage::V1Report { group }) => old(1, RecordKind::ModeIsExclude, (*group).into()),
        Body::Mld(MldMessage::V1Done { group }) => old(1, RecordKind::ChangeToInclude, (*group).into()),
        Body::Igmp(IgmpMessage::V3Report(report)) => report.records.iter().map(|record| statement(3, record)).collect(),
        Body::Mld(MldMessage::V2Report(report)) => report.records.iter().map(|record| statement(2, record)).collect(),
        Body::Igmp(IgmpMessage::Query(_) | IgmpMessage::Other { .. })
        | Body::Mld(MldMessage::Query(_) | MldMessage::Other { .. }) => Vec::new(),
    }
}

fn statement<A: Copy + Into<IpAddr>>(version: u8, record: &Record<A>) -> Statement {
    Statement {
        version,
        kind: record.kind,
        group: record.group.into(),
        sources: record.sources.iter().map(|source| (*source).into()).collect(),
    }
}
