//! What is wrong with a stream, a membership or a querier, and since when.
//!
//! Every tick makes claims from the snapshot and the memberships; a claim becomes a finding when it has held without a
//! break for as long as its kind asks. Link-local groups are left out. Cluster-wide findings are the aggregator's. Pure:
//! the only state is since when each claim holds and the last values of what is cumulative.

mod claim;
#[cfg(test)]
mod tests;
mod traffic;

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use self::{claim::Claim, traffic::Traffic};
use super::{
    membership::{Memberships, Port},
    snapshot::{PortReading, Snapshot},
    totals::is_link_local,
};
use crate::api::stats::{Finding, FindingKind};

/// How long a claim must hold, where its kind asks for evidence.
const EVIDENCE: SignedDuration = SignedDuration::from_secs(30);
/// A packet is recent this long: streams of one packet in ten seconds still count as arriving.
const RECENT: SignedDuration = SignedDuration::from_secs(10);
/// A sender is who sent within this time; a group is active as long.
pub(super) const SENDING: SignedDuration = SignedDuration::from_secs(60);
/// How long no querier may be heard before there is none: the other-querier-present interval by the defaults of the
/// standards (RFC 9776 §8.5).
const NO_QUERIER: SignedDuration = SignedDuration::from_secs(255);

/// The findings as of the last tick, and what they rest on.
#[derive(Debug, Default)]
pub(super) struct Findings {
    started: Option<Timestamp>,
    traffic: Traffic,
    /// Since when each claim holds; the port is 0 for the node's own.
    held: BTreeMap<Key, Timestamp>,
    ports: BTreeMap<u32, Vec<Finding>>,
    node: Vec<Finding>,
}

type Key = (u32, FindingKind, Option<IpAddr>);

/// No port: what concerns the node. Port ids begin at 1.
const NODE: u32 = 0;

/// One port with all that the claims are made of.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    snapshot: &'a Snapshot,
    reading: &'a PortReading,
    port: &'a Port,
    now: Timestamp,
}

impl Findings {
    /// Takes in one tick; the memberships are as of the snapshot.
    pub(super) fn update(&mut self, snapshot: &Snapshot, memberships: &Memberships) {
        let now = snapshot.at;
        let started = *self.started.get_or_insert(now);
        self.traffic.update(snapshot, started);
        let mut claims = Vec::new();
        for reading in &snapshot.ports {
            if let Some(port) = memberships.port(reading.id) {
                let view = View {
                    snapshot,
                    reading,
                    port,
                    now,
                };
                claim::of_port(&view, &self.traffic, &mut claims);
            }
        }
        claim::of_node(memberships, now, &mut claims);
        self.take(claims, now);
    }

    fn take(&mut self, claims: Vec<Claim>, now: Timestamp) {
        let mut held = BTreeMap::new();
        self.ports.clear();
        self.node.clear();
        for claim in claims {
            let key = (claim.port, claim.kind, claim.group);
            let since = claim
                .since
                .unwrap_or_else(|| self.held.get(&key).copied().unwrap_or(now));
            // In the SSM ranges each source of a group may make the same claim.
            if held.insert(key, since).is_some() {
                continue;
            }
            if now.duration_since(since) < claim.needs {
                continue;
            }
            let finding = Finding {
                kind: claim.kind,
                group: claim.group,
                interface: claim.interface,
                since,
                message: claim.message,
            };
            match claim.port {
                NODE => self.node.push(finding),
                port => self.ports.entry(port).or_default().push(finding),
            }
        }
        self.held = held;
        self.ports.values_mut().for_each(|findings| findings.sort());
        self.node.sort();
    }

    /// The findings of one port, by precedence.
    pub(super) fn of_port(&self, id: u32) -> &[Finding] {
        self.ports.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The findings of the node, by precedence.
    pub(super) fn of_node(&self) -> &[Finding] {
        &self.node
    }
}

/// Whether a time lies within `span` before now. Clocks may disagree by a tick: a time to come is recent too.
fn within(then: Option<Timestamp>, span: SignedDuration, now: Timestamp) -> bool {
    then.is_some_and(|then| now.duration_since(then) < span)
}

/// The groups of one family that make its queriers matter: some Pod of the node is a member.
fn has_members(memberships: &Memberships, ipv4: bool) -> bool {
    let joined = memberships.ports().flat_map(|(_, port)| port.memberships());
    let mut joined = joined.filter(|(_, membership)| membership.joined);
    joined.any(|(group, _)| group.is_ipv4() == ipv4 && !is_link_local(*group))
}
