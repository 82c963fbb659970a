//! Who sends to one group: Pods by the source of their own series, everybody else by the last source that a receiver heard.
//!
//! A Pod's address is not known otherwise: a source that a Pod has sent to the group from is that Pod.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use super::{index::key, row::Row};
use crate::api::{
    group::{Sender, Traffic},
    stats::GroupCounters,
};

/// Whoever sent within this time is a sender.
const RECENT: SignedDuration = SignedDuration::from_secs(60);

/// What is known of one group's senders.
#[derive(Default)]
pub(super) struct Senders<'a> {
    pods: BTreeMap<(&'a str, &'a str), Sending<'a>>,
    /// The Pod that sends from an address.
    addresses: BTreeMap<IpAddr, (&'a str, &'a str)>,
    /// Addresses that a receiver heard last, and when.
    heard: BTreeMap<IpAddr, Timestamp>,
}

/// What one Pod sent.
struct Sending<'a> {
    node: &'a str,
    sent: Traffic,
    last_seen: Option<Timestamp>,
    recent: bool,
}

impl<'a> Senders<'a> {
    /// A series that the Pod of this row sent.
    pub(super) fn sent(&mut self, row: &Row<'a>, source: Option<IpAddr>, counters: &GroupCounters, now: Timestamp) {
        let name = key(row.reported);
        if let Some(source) = source {
            self.addresses.entry(source).or_insert(name);
        }
        let sending = self.pods.entry(name).or_insert(Sending {
            node: &row.reported.spec.node,
            sent: Traffic::default(),
            last_seen: None,
            recent: false,
        });
        sending.sent.add(counters.packets, counters.bytes);
        sending.last_seen = sending.last_seen.max(counters.last_seen);
        sending.recent |= row.is_within(counters.last_seen, RECENT, now);
    }

    /// A series that was handed to the Pod of this row.
    pub(super) fn heard(&mut self, row: &Row<'a>, source: Option<IpAddr>, counters: &GroupCounters, now: Timestamp) {
        if let (Some(source), Some(seen)) = (source, counters.last_seen)
            && row.is_within(Some(seen), RECENT, now)
        {
            let heard = self.heard.entry(source).or_insert(seen);
            *heard = seen.max(*heard);
        }
    }

    /// Pods that sent lately by their own series or were heard by a receiver, then the addresses that are no Pod's.
    pub(super) fn list(mut self) -> Vec<Sender> {
        let mut external = Vec::new();
        for (address, seen) in self.heard {
            let pod = self.addresses.get(&address).and_then(|name| self.pods.get_mut(name));
            if let Some(sending) = pod {
                sending.recent = true;
                sending.last_seen = sending.last_seen.max(Some(seen));
            } else {
                external.push(Sender {
                    sender: format!("ext:{address}"),
                    node: None,
                    sent: None,
                    last_seen: seen,
                });
            }
        }
        let pods = self.pods.into_iter().filter(|(_, sending)| sending.recent);
        let pods = pods.filter_map(|((namespace, name), sending)| {
            Some(Sender {
                sender: format!("{namespace}/{name}"),
                node: Some(sending.node.to_owned()),
                sent: Some(sending.sent),
                last_seen: sending.last_seen?,
            })
        });
        pods.chain(external).collect()
    }
}

/// Whether there must be more senders than these, since the source changed that often: a receiver's series keeps the last
/// source only. Two Pods that take turns explain any number of changes.
pub(super) fn are_there_more(senders: &[Sender], changes: u64) -> bool {
    let pods_only = senders.iter().all(|sender| sender.node.is_some());
    changes > senders.len().try_into().unwrap_or(u64::MAX) && !(pods_only && senders.len() > 1)
}
