//! Three sets of groups of one Pod: those that the switch holds, those that its kernel joined, those that reports
//! announced. Differences are named when they outlast the grace period.
//!
//! IPv4 without link-local groups: the switch holds no others by reports. What cannot be known is no difference: groups
//! that the switch does not describe, reports before the watch began.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use jiff::Timestamp;

use super::buckets::Buckets;
use crate::{
    api::{
        ledgers::{Difference, MembershipDifference},
        stats::Witness,
    },
    ledger::{
        membership::{GRACE, Port, after},
        snapshot::PortReading,
        totals::is_link_local,
    },
};

/// Since when each group differs, and how.
#[derive(Debug, Default)]
pub(super) struct CrossCheck(BTreeMap<Ipv4Addr, (Found, Timestamp)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    difference: Difference,
    switch: bool,
    kernel: Option<bool>,
    report: bool,
}

impl CrossCheck {
    /// Takes in one tick.
    pub(super) fn update(&mut self, buckets: &Buckets, ofport: u32, port: &Port, now: Timestamp) {
        let held = buckets.of_port(ofport);
        let said = port.memberships().keys().filter_map(|group| match group {
            IpAddr::V4(group) if held.binary_search(group).is_err() => Some(*group),
            _ => None,
        });
        let groups = held.iter().map(|group| (*group, true));
        let groups = groups.chain(said.map(|group| (group, false)));
        let before = std::mem::take(&mut self.0);
        for (group, is_held) in groups {
            if is_link_local(group.into()) || buckets.undescribed().contains(&group) {
                continue;
            }
            if let Some(found) = compare(group, is_held, port, now) {
                let since = before.get(&group).filter(|(known, _)| *known == found);
                self.0.insert(group, (found, since.map_or(now, |(_, since)| *since)));
            }
        }
    }

    /// Nothing can be compared.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The differences that have lasted.
    pub(super) fn served(&self, reading: &PortReading, now: Timestamp) -> impl Iterator<Item = MembershipDifference> {
        let lasting = self.0.iter().filter(move |(_, (_, since))| now >= after(*since, GRACE));
        lasting.map(|(group, (found, since))| MembershipDifference {
            interface: reading.interface.clone(),
            group: (*group).into(),
            difference: found.difference,
            switch: found.switch,
            kernel: found.kernel,
            report: found.report,
            since: *since,
        })
    }
}

fn compare(group: Ipv4Addr, switch: bool, port: &Port, now: Timestamp) -> Option<Found> {
    let address = IpAddr::V4(group);
    let membership = port.memberships().get(&address);
    let report = membership.is_some_and(|membership| membership.witness.contains(&Witness::Report));
    let kernel = port.kernel_joined(address);
    let unreported = || membership.is_some_and(|membership| membership.disagreement.is_some());
    // The rule is why the switch has nothing.
    let denied = membership.is_some_and(|membership| membership.denied.is_some());
    let difference = match (switch, kernel, report) {
        (false, ..) if denied => None,
        (true, Some(true) | None, true) | (false, Some(false) | None, false) => None,
        (true, Some(true), false) => unreported().then_some(Difference::NotReported),
        (true, Some(false), true) => Some(Difference::NotInKernel),
        (true, Some(false), false) => Some(Difference::SwitchOnly),
        (true, None, false) => port.is_known(address, now).then_some(Difference::SwitchOnly),
        // The kernel left and the switch too; what lasts is the report's own timer.
        (false, Some(false), true) => None,
        (false, Some(true), _) | (false, None, true) => Some(Difference::NotInSwitch),
    };
    difference.map(|difference| Found {
        difference,
        switch,
        kernel,
        report,
    })
}
