//! Who has joined what on this node, by two witnesses, and who asks.
//!
//! ```text
//! ControlEvent ─▶ link    one interface by its messages: filter (one group's timers), querier ─┐
//!                  └ judged  by the policies, record by record ────────────────────────────────┤
//! NamespaceReading ─▶ the Pod's own kernel ────────────────────────────────────────────────────┴─▶ member ─▶ Membership
//! ```
//! Pure: time comes with the snapshot. The merged truth is the kernel's where it is known, else the reports'; a rule that
//! denied the last report overrides it until a report is allowed or the membership ends. Bounded by
//! the ports of the snapshot and by the most that each part keeps. Another agent process begins anew: the kernel's tables
//! are there at once, the reports with the next general query.

#[cfg(test)]
mod denied_tests;
mod filter;
mod judged;
mod kernel;
mod link;
mod member;
#[cfg(test)]
mod properties;
mod querier;
mod statement;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};

pub(super) use self::member::GRACE;
use self::{
    judged::Deniers,
    kernel::KernelTable,
    link::Link,
    member::{Circumstances, Evidence, Member},
};
use super::{
    Denials,
    growth::Growth,
    judge::Judge,
    snapshot::{Direction, NamespaceReading, PodRef, PortReading, Snapshot},
    verdict::PodName,
};
use crate::api::{
    rule::RuleReference,
    stats::{Membership, MembershipLimits},
    summary::Querier,
};

/// `then` and a duration later; the end of time when that is beyond it.
pub(super) fn after(then: Timestamp, later: SignedDuration) -> Timestamp {
    then.checked_add(later).unwrap_or(if later.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// The memberships of all ports.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    ports: BTreeMap<u32, Port>,
    /// Denials of an earlier process, of ports that have not been seen yet.
    restored: Denials,
    /// Messages that the ring buffer lost, and when that number grew last: they may have been anybody's.
    lost: Growth,
}

/// One Pod interface.
#[derive(Debug)]
pub(super) struct Port {
    pod: PodRef,
    /// What policies call the Pod.
    name: PodName,
    watched: Timestamp,
    link: Link,
    members: BTreeMap<IpAddr, Member>,
    /// Denials of an earlier process, of groups of which nothing has been heard yet.
    restored: BTreeMap<IpAddr, RuleReference>,
    /// What the Pod's kernel has on this interface; `None` while it is not known.
    kernel: Option<KernelTable>,
    /// Whether it was unknown at the tick before.
    first_look: bool,
    deniers: Deniers,
    limited: Growth,
    refused: Growth,
    /// When a message of this interface was last held back, or lost by the node, whosever it was.
    missed: Option<Timestamp>,
    /// What is served, made once a tick.
    served: BTreeMap<IpAddr, Membership>,
}

impl Memberships {
    /// Takes in what the snapshot holds; afterwards everything is as of its time.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        let now = snapshot.at;
        let listed: BTreeSet<u32> = snapshot.ports.iter().map(|port| port.id).collect();
        self.ports.retain(|id, _| listed.contains(id));
        let kernels: BTreeMap<&PodRef, &NamespaceReading> = snapshot
            .namespaces
            .iter()
            .map(|reading| (&reading.pod, reading))
            .collect();
        for ((id, group), rule) in std::mem::take(&mut self.restored) {
            if let Some(reading) = snapshot.ports.iter().find(|reading| reading.id == id) {
                let port = self.ports.entry(id).or_insert_with(|| Port::new(reading, now));
                port.restored.insert(group, rule);
            }
        }
        for reading in &snapshot.ports {
            let port = self.ports.entry(reading.id).or_insert_with(|| Port::new(reading, now));
            port.look(reading, kernels.get(&reading.pod).copied());
        }
        for event in &snapshot.messages {
            if let Some(port) = self.ports.get_mut(&event.port) {
                let judge = Judge::new(snapshot.policy.as_ref(), &port.name);
                port.link.heard(event, &judge, port.kernel.as_ref());
            }
        }
        self.lost.update(snapshot.kernel.events_lost, now);
        for reading in &snapshot.ports {
            if let Some(port) = self.ports.get_mut(&reading.id) {
                port.update(reading, snapshot, self.lost.grew());
            }
        }
    }

    /// What an earlier process knew of denials.
    pub(super) fn restore(&mut self, denials: Denials) {
        self.restored = denials;
    }

    /// The rules that denied the last reports, by port and group.
    pub(super) fn denials(&self) -> impl Iterator<Item = ((u32, IpAddr), &RuleReference)> {
        self.ports.iter().flat_map(|(id, port)| {
            let members = port.members.iter();
            let members = members.filter_map(|(group, member)| Some((*group, member.denied()?)));
            let restored = port.restored.iter().map(|(group, rule)| (*group, rule));
            members.chain(restored).map(|(group, rule)| ((*id, group), rule))
        })
    }

    /// One interface.
    pub(super) fn port(&self, id: u32) -> Option<&Port> {
        self.ports.get(&id)
    }

    /// All interfaces, by id.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u32, &Port)> {
        self.ports.iter().map(|(id, port)| (*id, port))
    }

    /// Every querier heard on this node, by family and address.
    pub(super) fn queriers(&self, now: Timestamp) -> Vec<Querier> {
        let mut heard: BTreeMap<(bool, IpAddr), Querier> = BTreeMap::new();
        for port in self.ports.values() {
            for ipv4 in [true, false] {
                for (address, querier) in port.link.queriers(ipv4).all() {
                    let served = served_querier(ipv4, address, querier, &port.pod, now);
                    heard
                        .entry((!ipv4, address))
                        .and_modify(|known| merge_querier(known, &served))
                        .or_insert(served);
                }
            }
        }
        let elected = [true, false].map(|ipv4| {
            let present = heard.iter().filter(|((v6, _), querier)| *v6 != ipv4 && querier.present);
            present
                .map(|((_, address), _)| *address)
                .find(|address| !address.is_unspecified())
        });
        for ((v6, address), querier) in &mut heard {
            let [ipv4, ipv6] = elected;
            querier.elected = (if *v6 { ipv6 } else { ipv4 }) == Some(*address);
        }
        heard.into_values().collect()
    }
}

impl Port {
    fn new(reading: &PortReading, now: Timestamp) -> Self {
        Self {
            pod: reading.pod.clone(),
            name: PodName::new(&reading.pod.namespace, &reading.pod.name),
            watched: now,
            link: Link::default(),
            members: BTreeMap::new(),
            restored: BTreeMap::new(),
            kernel: None,
            first_look: true,
            deniers: Deniers::default(),
            limited: Growth::default(),
            refused: Growth::from(0),
            missed: None,
            served: BTreeMap::new(),
        }
    }

    /// Takes in what the Pod's kernel says.
    fn look(&mut self, reading: &PortReading, namespace: Option<&NamespaceReading>) {
        self.first_look = self.kernel.is_none();
        let before = self.kernel.take();
        self.kernel = namespace
            .filter(|namespace| namespace.unavailable.is_none())
            .map(|namespace| KernelTable::of(namespace, &reading.interface, before));
    }

    fn update(&mut self, reading: &PortReading, snapshot: &Snapshot, lost: Option<Timestamp>) {
        let now = snapshot.at;
        let judge = Judge::new(snapshot.policy.as_ref(), &self.name);
        let judged = self.link.take_judged();
        self.deniers.update(&judged.deniers, &judge);
        self.link.expire(now);
        self.limited.update(reading.outbound.events_limited, now);
        self.refused.update(self.link.groups_refused, now);
        self.missed = lost.max(self.limited.grew());
        let circumstances = Circumstances {
            now,
            watched: self.watched,
            first_look: self.first_look,
            missed: self.missed,
        };
        let inbound = last_inbound(reading);
        let known = self.link.groups().keys().chain(self.members.keys());
        let groups: BTreeSet<IpAddr> = known
            .chain(
                self.kernel
                    .iter()
                    .flat_map(|kernel| kernel.groups.iter().map(|joined| &joined.group)),
            )
            .copied()
            .collect();
        let kernel = self.kernel.as_ref();
        self.restored
            .retain(|group, _| kernel.is_none_or(|kernel| kernel.says(*group) != Some(None)));
        self.served.clear();
        for group in groups {
            let evidence = Evidence {
                reported: self.link.groups().get(&group),
                kernel: self.kernel.as_ref().and_then(|kernel| kernel.says(group)),
                last_inbound: inbound.get(&group).copied(),
            };
            let member = self
                .members
                .entry(group)
                .or_insert_with(|| Member::new(&evidence, &circumstances));
            member.update(group, &evidence, &self.link, &circumstances);
            if member.is_joined()
                && let Some(rule) = self.restored.remove(&group)
            {
                member.restore(rule);
            }
            // As long as there should be policies and nothing is judged by, a report is not allowed by them.
            let known = snapshot.policy.is_some() || !snapshot.policy_awaited;
            let verdict = judged.groups.get(&group).filter(|_| known).copied();
            member.judged(verdict.map(|denier| denier.and_then(|slot| judge.rule(slot))), now);
            if let Some(membership) = member.served(&evidence, &self.link, now) {
                self.served.insert(group, membership);
            } else if member.is_over(&evidence) {
                self.members.remove(&group);
            }
        }
        member::bound(&mut self.members, 2 * link::MAX_GROUPS);
    }

    /// What is served of each group, as of the last tick.
    pub(super) fn memberships(&self) -> &BTreeMap<IpAddr, Membership> {
        &self.served
    }

    /// Whether the Pod's kernel has joined the group; `None` while that is not known.
    pub(super) fn kernel_joined(&self, group: IpAddr) -> Option<bool> {
        Some(self.kernel.as_ref()?.says(group)?.is_some())
    }

    /// Since when the Pod has joined the group, if it has, whatever a rule says of it.
    pub(super) fn joined_since(&self, group: IpAddr) -> Option<Timestamp> {
        self.members
            .get(&group)
            .filter(|member| member.is_joined())
            .map(Member::since)
    }

    /// Whether it would be known if the Pod were a member of the group: its kernel is asked, or all its reports must have
    /// been heard. Who was silenced by another host's report sent none.
    pub(super) fn is_known(&self, group: IpAddr, now: Timestamp) -> bool {
        if self.kernel.as_ref().is_some_and(|kernel| kernel.says(group).is_some()) {
            return true;
        }
        let ipv4 = group.is_ipv4();
        let queriers = self.link.queriers(ipv4);
        let timers = queriers.timers(now);
        let asked = queriers
            .last_general
            .is_some_and(|asked| asked >= self.watched && now >= after(asked, timers.response()));
        let lately = self.missed.max(self.link.silenced(ipv4));
        asked && !timers.assumed && lately.is_none_or(|lately| now >= after(lately, timers.membership()))
    }

    /// The queriers of one family on this link.
    pub(super) fn queriers(&self, ipv4: bool) -> &querier::Queriers {
        self.link.queriers(ipv4)
    }

    /// Since when the interface is watched.
    pub(super) fn watched(&self) -> Timestamp {
        self.watched
    }

    /// When a reported group was last refused for want of room.
    pub(super) fn groups_refused_at(&self) -> Option<Timestamp> {
        self.refused.grew()
    }

    /// Groups of the Pod's kernel that are left out now.
    pub(super) fn kernel_groups_left_out(&self) -> u64 {
        self.kernel.as_ref().map_or(0, |kernel| kernel.beyond)
    }

    /// The rules that denied records of this interface, at most [`judged::MAX_DENIERS`].
    pub(super) fn deniers(&self) -> impl Iterator<Item = &RuleReference> {
        self.deniers.rules()
    }

    /// What our own bounds left out.
    pub(super) fn limits(&self) -> MembershipLimits {
        MembershipLimits {
            groups_refused: self.link.groups_refused,
            sources_refused: self.link.sources_refused(),
            messages_limited: self.limited.count(),
        }
    }

    /// Messages that changed nothing, by reason.
    pub(super) fn ignored(&self) -> &BTreeMap<&'static str, u64> {
        &self.link.ignored
    }
}

/// When the last packet of each group came in, over the sources of SSM.
fn last_inbound(reading: &PortReading) -> BTreeMap<IpAddr, Timestamp> {
    let mut last = BTreeMap::new();
    for series in &reading.reading(Direction::Inbound).groups {
        if let Some(seen) = series.last_seen {
            let newest = last.entry(series.group).or_insert(seen);
            *newest = seen.max(*newest);
        }
    }
    last
}

fn served_querier(ipv4: bool, address: IpAddr, querier: &querier::Querier, pod: &PodRef, now: Timestamp) -> Querier {
    let asks = querier.direction == Direction::Outbound;
    Querier {
        address,
        version: member::version(ipv4, querier.version()),
        elected: false,
        present: querier.is_present(now),
        interval_seconds: querier.interval.and_then(|interval| interval.as_secs().try_into().ok()),
        robustness: querier.robustness,
        max_response_milliseconds: querier.max_response.as_millis().try_into().unwrap_or(0),
        last_query: querier.last_query,
        since: querier.since,
        pods: asks
            .then(|| format!("{}/{}", pod.namespace, pod.name))
            .into_iter()
            .collect(),
        interfaces: 1,
    }
}

/// The same querier on another link: the newer hearing counts.
fn merge_querier(known: &mut Querier, other: &Querier) {
    let (pods, interfaces) = (std::mem::take(&mut known.pods), known.interfaces);
    let since = known.since.min(other.since);
    let present = known.present || other.present;
    if other.last_query > known.last_query {
        *known = other.clone();
    }
    known.pods = pods
        .into_iter()
        .chain(other.pods.iter().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    known.interfaces = interfaces + other.interfaces;
    known.since = since;
    known.present = present;
}
