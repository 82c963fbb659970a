//! The claims of one tick: what holds now, each with its reason in one sentence.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::{EVIDENCE, NO_QUERIER, NODE, RECENT, SENDING, View, has_members, traffic::Traffic, within};
use crate::{
    api::stats::{FilterMode, FindingKind, Membership},
    ledger::{
        membership::{Memberships, after},
        snapshot::{GroupReading, OtherGroups, SwitchReading},
        totals::is_link_local,
    },
};

/// Linux lets one socket join this many IPv4 groups (`net.ipv4.igmp_max_memberships`).
const SOCKET_LIMIT: usize = 20;
/// How long a refused membership may still be one: the group membership interval by default.
const REFUSED: SignedDuration = SignedDuration::from_secs(260);

/// What holds at one tick.
#[derive(Debug)]
pub(super) struct Claim {
    /// The port; [`NODE`] for the node.
    pub(super) port: u32,
    pub(super) kind: FindingKind,
    /// The group; of a querier's claims the one that tells its protocol: 224.0.0.1 or ff02::1.
    pub(super) group: Option<IpAddr>,
    pub(super) interface: Option<String>,
    /// Since when it holds, where the facts say so; else it is since the first tick that claimed it.
    pub(super) since: Option<Timestamp>,
    /// How long it must have held.
    pub(super) needs: SignedDuration,
    pub(super) message: String,
}

/// The claims about one Pod interface.
pub(super) fn of_port(view: &View<'_>, traffic: &Traffic, claims: &mut Vec<Claim>) {
    let mut make = |kind, group, since, needs, message| {
        claims.push(Claim {
            port: view.reading.id,
            kind,
            group,
            interface: Some(view.reading.interface.clone()),
            since,
            needs,
            message,
        });
    };
    for (group, membership) in view.port.memberships() {
        if is_link_local(*group) {
            continue;
        }
        // Most memberships receive: the sentence is made only where it will be said.
        let since = view.joined_no_traffic(*group, traffic);
        if let Some(since) = since.filter(|since| view.now.duration_since(*since) >= EVIDENCE) {
            let mut message = format!("nothing has arrived for {group} since {since:.0}");
            if let Some(rule) = &membership.denied {
                message += &format!("; {rule} denies its report");
            } else if view.missing_in_switch(*group) {
                message += "; the switch holds no copy for the Pod";
            }
            make(
                FindingKind::JoinedNoTraffic,
                Some(*group),
                Some(since),
                EVIDENCE,
                message,
            );
        }
        if let Some(message) = view.version_mismatch(*group, membership) {
            make(FindingKind::VersionMismatch, Some(*group), None, EVIDENCE, message);
        }
        if let Some(message) = view.source_filtered(*group, membership, traffic) {
            make(FindingKind::SourceFiltered, Some(*group), None, EVIDENCE, message);
        }
    }
    for series in view
        .reading
        .inbound
        .groups
        .iter()
        .filter(|series| !is_link_local(series.group))
    {
        if view.traffic_not_joined(series) {
            let message = format!("{} arrives and the Pod is no member", series.group);
            make(
                FindingKind::TrafficNotJoined,
                Some(series.group),
                None,
                EVIDENCE,
                message,
            );
        }
    }
    for series in view
        .reading
        .outbound
        .groups
        .iter()
        .filter(|series| !is_link_local(series.group))
    {
        if traffic.sent_ttl1(view.reading.id, series, EVIDENCE, view.now) {
            let message = format!(
                "sends to {} with TTL or hop limit 1: no router forwards it",
                series.group
            );
            make(
                FindingKind::Ttl1,
                Some(series.group),
                None,
                SignedDuration::ZERO,
                message,
            );
        }
    }
    if let Some(message) = view.membership_limit(traffic) {
        make(FindingKind::MembershipLimit, None, None, SignedDuration::ZERO, message);
    }
    for (group, other) in view.mac_collisions() {
        let message =
            format!("{group} and {other} are both active and share a MAC address: filters at layer 2 pass both");
        make(
            FindingKind::MacCollision,
            Some(group),
            None,
            SignedDuration::ZERO,
            message,
        );
    }
}

/// The claims about the queriers of this node.
pub(super) fn of_node(memberships: &Memberships, now: Timestamp, claims: &mut Vec<Claim>) {
    for ipv4 in [true, false] {
        let (protocol, all_hosts) = match ipv4 {
            true => ("IGMP", IpAddr::from([224, 0, 0, 1])),
            false => ("MLD", IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1])),
        };
        let mut make = |kind, since, needs, message| {
            claims.push(Claim {
                port: NODE,
                kind,
                group: Some(all_hosts),
                interface: None,
                since,
                needs,
                message,
            });
        };
        let links = || memberships.ports().map(|(_, port)| port.queriers(ipv4));
        if let Some((one, other)) = links().find_map(|queriers| queriers.rivals(now)) {
            let message =
                format!("{one} and {other} both send {protocol} queries: the higher address should have stopped");
            make(FindingKind::TwoQueriers, None, SignedDuration::ZERO, message);
        }
        if !has_members(memberships, ipv4) || links().any(|queriers| queriers.elected(now).is_some()) {
            continue;
        }
        let last = links()
            .flat_map(|queriers| queriers.all().collect::<Vec<_>>())
            .max_by_key(|(_, querier)| querier.last_query);
        match last {
            Some((address, querier)) => {
                let gone = after(querier.last_query, querier.other_querier_present());
                let message = format!(
                    "{protocol} querier {address} was last heard at {:.0}",
                    querier.last_query
                );
                make(FindingKind::QuerierLost, Some(gone), SignedDuration::ZERO, message);
            }
            None => {
                // Before its longest-watched interface was there nobody could be heard.
                let watched = memberships.ports().map(|(_, port)| port.watched()).min();
                let since = watched.unwrap_or(now);
                let message =
                    format!("no {protocol} querier has been heard since {since:.0}: snooping switches forget members");
                make(FindingKind::NoQuerier, Some(since), NO_QUERIER, message);
            }
        }
    }
}

impl View<'_> {
    /// Whether the switch tells which groups it holds, and holds this one not for the Pod.
    fn missing_in_switch(&self, group: IpAddr) -> bool {
        let port = self.snapshot.switch_ports.get(&self.reading.id);
        let (SwitchReading::Read(account), Some(port), IpAddr::V4(group)) = (&self.snapshot.switch, port, group) else {
            return false;
        };
        let mut held = account.switch.groups.iter().filter(|held| held.group == group);
        account.groups_known
            && held.all(|held| {
                let members = held.members.as_ref();
                members.is_some_and(|members| members.iter().all(|member| member.ofport != port.ofport))
            })
    }

    fn inbound(&self, group: IpAddr) -> impl Iterator<Item = &GroupReading> {
        self.reading
            .inbound
            .groups
            .iter()
            .filter(move |series| series.group == group)
    }

    /// Since when nothing has arrived, if that is a claim: not when the only sender is the Pod itself, and not for a
    /// group without a slot while packets without slots arrive.
    fn joined_no_traffic(&self, group: IpAddr, traffic: &Traffic) -> Option<Timestamp> {
        let joined = self.port.joined_since(group)?;
        let last = self.inbound(group).filter_map(|series| series.last_seen).max();
        let [ipv4, ipv6] = &self.reading.inbound.other;
        let other: &OtherGroups = if group.is_ipv4() { ipv4 } else { ipv6 };
        if self.inbound(group).next().is_none() && within(other.last_seen, EVIDENCE, self.now) {
            return None;
        }
        let own = self
            .reading
            .outbound
            .groups
            .iter()
            .filter(|series| series.group == group);
        let own = own.max_by_key(|series| series.last_seen);
        let sends = own.is_some_and(|series| within(series.last_seen, SENDING, self.now));
        let address = own.and_then(|series| series.source.or(series.last_source));
        if sends && !traffic.others_send(self.reading.id, group, address) {
            return None;
        }
        Some(last.map_or(joined, |last| last.max(joined)))
    }

    /// Traffic arrives and the Pod is no member, where that would be known.
    fn traffic_not_joined(&self, series: &GroupReading) -> bool {
        within(series.last_seen, RECENT, self.now)
            && self.port.joined_since(series.group).is_none()
            && self.port.is_known(series.group, self.now)
    }

    fn membership_limit(&self, traffic: &Traffic) -> Option<String> {
        if within(traffic.slot_limit(self.reading.id), EVIDENCE, self.now) {
            return Some(
                "the interface has all the groups that mcstat counts apart; others are counted together".to_owned(),
            );
        }
        if within(self.port.groups_refused_at(), REFUSED, self.now) || self.port.kernel_groups_left_out() > 0 {
            return Some("the interface has all the memberships that mcstat keeps; others are not listed".to_owned());
        }
        let joined = self.port.memberships().iter().filter(|(group, membership)| {
            membership.is_wanted() && group.is_ipv4() && **group != IpAddr::from([224, 0, 0, 1])
        });
        (joined.count() == SOCKET_LIMIT).then(|| {
            format!("the interface has exactly {SOCKET_LIMIT} IPv4 groups: probably the limit of one socket (igmp_max_memberships)")
        })
    }

    /// The member still reports in a newer version although a querier asks in an older one.
    fn version_mismatch(&self, group: IpAddr, membership: &Membership) -> Option<String> {
        let version = membership.version.as_ref().filter(|_| membership.is_wanted())?;
        let speaks = version.bytes().last()?.checked_sub(b'0')?;
        let (oldest, since) = self.port.queriers(group.is_ipv4()).oldest_version(self.now)?;
        (speaks > oldest && membership.last_report? > since).then(|| {
            let protocol = version.trim_end_matches(|c: char| c.is_ascii_digit());
            format!("reports {group} in {version} although {protocol}{oldest} is asked")
        })
    }

    /// What arrives comes from sources alone that the membership does not want.
    fn source_filtered(&self, group: IpAddr, membership: &Membership, traffic: &Traffic) -> Option<String> {
        let mode = membership.mode.filter(|_| membership.is_wanted())?;
        let mut arriving = self
            .inbound(group)
            .filter(|series| within(series.last_seen, RECENT, self.now))
            .peekable();
        let first = arriving.peek()?.last_source;
        let unwanted = |series: &GroupReading| {
            let source = series.source.or(series.last_source)?;
            let listed = membership.sources.contains(&source);
            Some(listed == (mode == FilterMode::Exclude) && traffic.is_steady(self.reading.id, series))
        };
        let all = arriving.all(|series| unwanted(series) == Some(true));
        all.then(|| {
            let from = first.map_or_else(|| "its sources".to_owned(), |source| source.to_string());
            format!("{group} arrives only from {from}, which the membership filters out")
        })
    }

    /// Each active group that shares its MAC address with another one, and that other one.
    fn mac_collisions(&self) -> Vec<(IpAddr, IpAddr)> {
        let joined = self
            .port
            .memberships()
            .iter()
            .filter(|(_, membership)| membership.is_wanted())
            .map(|(group, _)| *group);
        let series = self.reading.inbound.groups.iter().chain(&self.reading.outbound.groups);
        let moving = series
            .filter(|series| within(series.last_seen, SENDING, self.now))
            .map(|series| series.group);
        let active = joined.chain(moving).filter(|group| !is_link_local(*group));
        let mut active: Vec<_> = active.map(|group| (mac(group), group)).collect();
        active.sort_unstable();
        active.dedup();
        let shared = active.chunk_by(|(one, _), (other, _)| one == other);
        shared.flat_map(pairs).collect()
    }
}

/// Each of the groups of one MAC address with the first other one.
fn pairs<M>(shared: &[(M, IpAddr)]) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let (first, second) = (shared.first(), shared.get(1));
    shared.iter().filter_map(move |(_, group)| {
        let other = first.filter(|(_, first)| first != group).or(second)?;
        Some((*group, other.1))
    })
}

/// What of a group's address is in its MAC address: the low 23 bits of IPv4 (RFC 1112 §6.4), 32 of IPv6 (RFC 2464 §7).
fn mac(group: IpAddr) -> (bool, u32) {
    match group {
        IpAddr::V4(group) => (true, u32::from(group) & 0x007f_ffff),
        IpAddr::V6(group) => (false, u128::from(group) as u32),
    }
}
