//! A captured IP packet to a typed IGMP or MLD message, with what its envelope says.
//!
//! Rejects only what cannot be understood. What a receiver would refuse although it is well formed (TTL, router alert,
//! source, destination, checksum) is reported beside the message: a Pod that sends it should be seen, and the ledger
//! decides. The IPv4 header checksum is not looked at: the kernel verified it, or the Pod's own kernel wrote it.
//!
//! # What real hosts send otherwise
//!
//! | seen | from | here |
//! |---|---|---|
//! | MLD reports from `::` | Linux, before its first address is verified (RFC 9777 §5.2.13 allows it) | no deviation |
//! | IGMP from 0.0.0.0 | hosts without an address; a switch's proxy query | no deviation |
//! | a group-specific query to 224.0.0.1 or ff02::1 | the Linux bridge, after a leave of IGMPv2 or MLDv1 | [`Deviations::destination`]; the ledger takes it |
//! | no router alert, TTL not 1 | simple stacks and traffic generators (not seen with Linux) | [`Deviations`]; the ledger takes IGMP, not MLD, as Linux does |
//! | other destinations of reports | as above | [`Deviations::destination`]; the ledger takes it |
//! | QRV 0 and QQIC 0 | Antrea's queries (QRV) | kept as sent; the ledger takes the standards' defaults |
//! | queries of 9 to 11 bytes (MLD: 25 to 27) | nobody that follows an RFC | `Other`: to be ignored |
//! | bytes behind the last record or field | – | ignored, but summed by the checksum |
//! | options that are broken, or a router alert of another length | – | read on; counts as no router alert |
//! | 4 bytes of IGMP | multicast router discovery (RFC 4286) | `Other` |

mod encode;
mod ip;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use encode::{encode_igmp, encode_mld};

use super::{
    checksum,
    igmp::{self, IgmpMessage},
    mld::{self, MldMessage},
    wire::DecodeError,
};

/// One IGMP or MLD message and how it travelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlMessage {
    /// What the IP header says.
    pub envelope: Envelope,
    /// The message.
    pub body: Body,
    /// Whether the message's own checksum is right. Only a [`Checksum::Good`] message may change a membership.
    pub checksum: Checksum,
    /// The capture ends before the packet did: lists may be incomplete, and say by how much.
    pub cut: bool,
}

/// The facts of the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether the router alert option is there: IPv4 (RFC 2113), or in the hop-by-hop header (RFC 2711).
    pub router_alert: bool,
}

/// The message by protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// IP protocol 2.
    Igmp(IgmpMessage),
    /// ICMPv6 130, 131, 132, 143.
    Mld(MldMessage),
}

/// What is known of a message's own checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Good,
    /// It is wrong: the message must be counted as an error, not as a join.
    Bad,
    /// The message is cut.
    Unknown,
}

/// What a strict receiver would refuse (RFC 9776 §9.1, RFC 9777 §6); `true` is a deviation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deviations {
    /// TTL or hop limit is not 1.
    pub ttl: bool,
    /// The router alert option is missing. IGMPv1 has none (RFC 1112), so its absence there is no deviation.
    pub router_alert: bool,
    /// The source cannot send this: a multicast, broadcast or loopback address; in MLD anything but link-local, and `::`
    /// unless in a report. IGMP from 0.0.0.0 is legal (RFC 9776 §4.2.14; a proxy's query, RFC 4541 §2.1.1).
    pub source: bool,
    /// The destination does not fit the message, such as a v3 report that is not sent to 224.0.0.22.
    pub destination: bool,
}

/// Decodes the IP packet `ip_packet`, of which `original_length` bytes, IP header included, were sent.
///
/// When the capture holds less than the IP header declares, the message is cut: what is there is decoded as far as it
/// can be trusted, its version told by the declared length, its checksum unknown. Bytes beyond the declared length
/// (Ethernet padding) are ignored.
///
/// # Errors
/// When the packet is not IGMP or MLD, a fragment, or malformed; see [`DecodeError`].
pub fn decode(ip_packet: &[u8], original_length: u32) -> Result<ControlMessage, DecodeError> {
    let original = usize::try_from(original_length)
        .unwrap_or(usize::MAX)
        .max(ip_packet.len());
    let version = ip_packet.first().map(|byte| byte >> 4);
    match version {
        Some(4) => {
            let (envelope, payload) = ip::v4(ip_packet, original)?;
            let body = Body::Igmp(igmp::decode(payload.bytes, payload.declared)?);
            Ok(message(envelope, body, &payload, checksum::internet))
        }
        Some(6) => {
            let (envelope, payload) = ip::v6(ip_packet, original)?;
            let body = Body::Mld(mld::decode(payload.bytes, payload.declared)?);
            let sum = |bytes: &[u8]| checksum::icmpv6(envelope.source, envelope.destination, bytes);
            Ok(message(envelope, body, &payload, sum))
        }
        Some(have) => Err(DecodeError::BadVersion { have }),
        None => Err(DecodeError::TooShort {
            what: "IP header",
            need: 1,
            have: 0,
        }),
    }
}

fn message<A: Into<IpAddr>>(
    header: ip::Header<A>,
    body: Body,
    payload: &ip::Payload<'_>,
    sum: impl FnOnce(&[u8]) -> u16,
) -> ControlMessage {
    let cut = payload.bytes.len() < payload.declared;
    let checksum = match cut {
        true => Checksum::Unknown,
        false if sum(payload.bytes) == 0 => Checksum::Good,
        false => Checksum::Bad,
    };
    let ip::Header {
        source,
        destination,
        ttl,
        router_alert,
    } = header;
    let envelope = Envelope {
        source: source.into(),
        destination: destination.into(),
        ttl,
        router_alert,
    };
    ControlMessage {
        envelope,
        body,
        checksum,
        cut,
    }
}

impl ControlMessage {
    /// How the envelope deviates from what the standards ask for.
    pub fn deviations(&self) -> Deviations {
        let Envelope {
            source,
            destination,
            ttl,
            router_alert,
        } = self.envelope;
        let expected = self.body.destination();
        Deviations {
            ttl: ttl != 1,
            router_alert: !router_alert && self.body.needs_router_alert(),
            source: match source {
                IpAddr::V4(source) => source.is_multicast() || source.is_broadcast() || source.is_loopback(),
                IpAddr::V6(source) => !(source.is_unicast_link_local() || source.is_unspecified() && self.is_report()),
            },
            destination: expected.is_some_and(|expected| expected != destination),
        }
    }

    fn is_report(&self) -> bool {
        matches!(
            self.body,
            Body::Mld(MldMessage::V1Report { .. } | MldMessage::V2Report(_))
        )
    }
}

impl Body {
    /// Number of group records, missing ones included; 0 in a message that has none.
    pub fn records(&self) -> usize {
        match self {
            Self::Igmp(IgmpMessage::V3Report(report)) => report.records.len() + usize::from(report.missing),
            Self::Mld(MldMessage::V2Report(report)) => report.records.len() + usize::from(report.missing),
            _ => 0,
        }
    }

    fn needs_router_alert(&self) -> bool {
        match self {
            Self::Igmp(IgmpMessage::Query(query)) => query.version() > 1,
            Self::Igmp(IgmpMessage::V1Report { .. } | IgmpMessage::Other { .. }) => false,
            _ => true,
        }
    }

    /// Where the standards send this message (RFC 9776 §4.1.12 and §4.2.14, RFC 9777 §5.1.15 and §5.2.14, RFC 2236 §9,
    /// RFC 2710 §8); `None` where they do not say.
    fn destination(&self) -> Option<IpAddr> {
        Some(match self {
            Self::Igmp(IgmpMessage::Query(query)) if query.is_general() => Ipv4Addr::new(224, 0, 0, 1).into(),
            Self::Igmp(IgmpMessage::Query(query)) => query.group.into(),
            Self::Igmp(IgmpMessage::V1Report { group } | IgmpMessage::V2Report { group }) => (*group).into(),
            Self::Igmp(IgmpMessage::V2Leave { .. }) => Ipv4Addr::new(224, 0, 0, 2).into(),
            Self::Igmp(IgmpMessage::V3Report(_)) => Ipv4Addr::new(224, 0, 0, 22).into(),
            Self::Mld(MldMessage::Query(query)) if query.is_general() => link_scope(1).into(),
            Self::Mld(MldMessage::Query(query)) => query.group.into(),
            Self::Mld(MldMessage::V1Report { group }) => (*group).into(),
            Self::Mld(MldMessage::V1Done { .. }) => link_scope(2).into(),
            Self::Mld(MldMessage::V2Report(_)) => link_scope(0x16).into(),
            Self::Igmp(IgmpMessage::Other { .. }) | Self::Mld(MldMessage::Other { .. }) => return None,
        })
    }
}

/// ff02::`last`.
fn link_scope(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last)
}
