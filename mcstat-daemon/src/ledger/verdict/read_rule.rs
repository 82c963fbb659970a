//! One rule of a policy document: whether it concerns multicast, and what it says then.
//!
//! | rule | concerns multicast |
//! |---|---|
//! | egress, `to[].ipBlock.cidr` in 224.0.0.0/4 | yes |
//! | egress, `to[].group` | if the group holds such blocks, which shows only when it is looked up |
//! | `protocols[].igmp` | yes |
//! | anything else | no: it is let pass unread |

use std::net::IpAddr;

use super::{
    document::{self, PortName, Protocol, RuleAction},
    object::{Action, Igmp, IgmpKind, Ports, Reason, Subject},
    read::multicast_blocks,
};

pub(super) struct Found {
    pub(super) action: Action,
    pub(super) subject: Subject,
    pub(super) refused: Option<Reason>,
}

/// `None` where the rule does not concern multicast.
pub(super) fn subject(rule: &document::Rule, egress: bool) -> Result<Option<Found>, Reason> {
    if rule.protocols.iter().any(|protocol| protocol.igmp.is_some()) {
        return igmp(rule, egress).map(Some);
    }
    if !egress {
        return Ok(None);
    }
    let groups = rule.to.iter().filter_map(|peer| peer.group.as_deref());
    let groups = groups
        .filter(|group| !group.is_empty())
        .map(Into::into)
        .collect::<Vec<_>>();
    let blocks = rule.to.iter().filter_map(|peer| peer.ip_block.as_ref());
    let blocks = match multicast_blocks(blocks) {
        Ok(blocks) => blocks,
        // Whether this was meant for multicast cannot be told; unicast rules are not checked here.
        Err(Reason::Cidr(cidr)) if !looks_multicast(rule) => {
            return if groups.is_empty() {
                Ok(None)
            } else {
                Err(Reason::Cidr(cidr))
            };
        }
        Err(reason) => return Err(reason),
    };
    let (multicast, blocks) = (blocks.multicast, blocks.blocks);
    if multicast
        && rule
            .to
            .iter()
            .any(|peer| peer.ip_block.is_some() && peer.has_selectors())
    {
        return Err(Reason::MixedPeer);
    }
    let checked = action(rule).and_then(|action| Ok((action, ports(rule)?)));
    // Without blocks of its own the rule may be one for unicast, where other actions and ports are fine.
    let (refused, (action, ports)) = match checked {
        Ok(checked) => (None, checked),
        Err(reason) if multicast => return Err(reason),
        Err(reason) => (Some(reason), (Action::Allow, Ports::Any)),
    };
    if blocks.is_empty() && groups.is_empty() {
        return Ok(None);
    }
    Ok(Some(Found {
        action,
        subject: Subject::Data { blocks, groups, ports },
        refused,
    }))
}

fn looks_multicast(rule: &document::Rule) -> bool {
    let mut cidrs = rule
        .to
        .iter()
        .filter_map(|peer| peer.ip_block.as_ref())
        .map(|block| &block.cidr);
    cidrs.any(|cidr| {
        let address = cidr.split_once('/').map_or(cidr.as_str(), |(address, _)| address);
        address.parse::<IpAddr>().is_ok_and(|address| address.is_multicast())
    })
}

fn action(rule: &document::Rule) -> Result<Action, Reason> {
    match rule.action {
        Some(RuleAction::Allow) => Ok(Action::Allow),
        Some(RuleAction::Drop) => Ok(Action::Drop),
        Some(RuleAction::Pass) => Err(Reason::Action("Pass")),
        Some(RuleAction::Reject) => Err(Reason::Action("Reject")),
        None => Err(Reason::NoAction),
    }
}

fn igmp(rule: &document::Rule, egress: bool) -> Result<Found, Reason> {
    let others = rule.protocols.iter().any(|protocol| protocol.icmp.is_some());
    let peers = !rule.from.is_empty() || !rule.to.is_empty() || !rule.to_services.is_empty();
    if others || peers || !rule.ports.is_empty() {
        return Err(Reason::MixedIgmp);
    }
    let action = action(rule)?;
    let mut matches = Vec::new();
    for message in rule
        .protocols
        .iter()
        .filter_map(|protocol: &Protocol| protocol.igmp.as_ref())
    {
        let kind = igmp_kind(message.igmp_type, egress)?;
        let group = match message.group_address.as_deref().unwrap_or_default() {
            "" => None,
            text => match text.parse() {
                Ok(IpAddr::V4(group)) if group.is_multicast() => Some(group),
                // Antrea takes it, and no IGMP message fits.
                Ok(IpAddr::V6(group)) if group.is_multicast() => continue,
                _ => return Err(Reason::GroupAddress(text.to_owned())),
            },
        };
        // An ingress rule without a type is one that Antrea programs nothing for.
        matches.extend(kind.map(|kind| Igmp { kind, group }));
    }
    Ok(Found {
        action,
        subject: Subject::Igmp(matches),
        refused: None,
    })
}

fn igmp_kind(given: Option<i64>, egress: bool) -> Result<Option<IgmpKind>, Reason> {
    match (egress, given) {
        (true, None) => Ok(Some(IgmpKind::AnyReport)),
        (true, Some(0x12)) => Ok(Some(IgmpKind::ReportV1)),
        (true, Some(0x16)) => Ok(Some(IgmpKind::ReportV2)),
        (true, Some(0x22)) => Ok(Some(IgmpKind::ReportV3)),
        (false, Some(0x11)) => Ok(Some(IgmpKind::Query)),
        (false, None) => Ok(None),
        (egress, Some(given)) => Err(Reason::IgmpType {
            given,
            allowed: if egress { "0x12, 0x16, 0x22" } else { "0x11" },
        }),
    }
}

/// The UDP destination ports of a data rule. What names other protocols fits no multicast that is judged.
fn ports(rule: &document::Rule) -> Result<Ports, Reason> {
    if rule.ports.is_empty() && rule.protocols.is_empty() {
        return Ok(Ports::Any);
    }
    let mut ranges = Vec::new();
    let mut whole = false;
    for port in &rule.ports {
        if port.source_port.is_some() {
            return Err(Reason::SourcePort);
        }
        // Without a protocol it is TCP.
        if port.protocol.as_deref() == Some("UDP") {
            whole |= port.port.is_none() && port.end_port.is_none();
            ranges.extend(range(port)?);
        }
    }
    ranges.sort_unstable();
    Ok(if whole {
        Ports::AnyUdp
    } else {
        Ports::Udp(merged(ranges))
    })
}

/// None where the entry names no number.
fn range(port: &document::Port) -> Result<Option<(u16, u16)>, Reason> {
    let first = match (&port.port, port.end_port) {
        (Some(PortName::Number(first)), _) => *first,
        (_, Some(end)) => return Err(Reason::EndPort(end)),
        // Names are looked up among Pods; an address block has none.
        (None | Some(PortName::Name(_)), None) => return Ok(None),
    };
    let last = port.end_port.unwrap_or(first);
    match (u16::try_from(first), u16::try_from(last)) {
        (Ok(from), Ok(to)) if from <= to => Ok(Some((from, to))),
        _ => Err(Reason::Port(first, last)),
    }
}

/// Sorted ranges without overlaps and without neighbours.
fn merged(ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}
