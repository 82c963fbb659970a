//! Whole IGMP and MLD packets, for tests and for tools that send them.
//!
//! Promises a packet that a strict receiver takes when the arguments are those that the standards ask for; refuses
//! nothing else, so that hostile packets can be made too.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    super::{
        checksum,
        igmp::{self, IgmpMessage},
        mld::{self, MldMessage},
        wire::{self, EncodeError},
    },
    ip::Header,
};

/// The router alert option of IPv4, value 0 (RFC 2113 §2.1).
const ROUTER_ALERT_V4: [u8; 4] = [148, 4, 0, 0];
/// A hop-by-hop header before ICMPv6: router alert with value 0, MLD (RFC 2711 §2.1), and PadN.
const HOP_BY_HOP_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// An IPv4 packet with `message`.
///
/// # Errors
/// When a list or the packet is longer than its length field can say.
pub fn encode_igmp(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    router_alert: bool,
    message: &IgmpMessage,
) -> Result<Vec<u8>, EncodeError> {
    igmp_packet(
        Header {
            source,
            destination,
            ttl,
            router_alert,
        },
        &igmp::encode(message)?,
    )
}

fn igmp_packet(header: Header<Ipv4Addr>, message: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let options: &[u8] = if header.router_alert { &ROUTER_ALERT_V4 } else { &[] };
    let total = wire::count16(20 + options.len() + message.len(), "IPv4 total length")?;
    let first = if header.router_alert { 0x46 } else { 0x45 };
    // TOS 0xc0, internetwork control, as Linux sends it; don't fragment.
    let mut out = vec![first, 0xc0, total[0], total[1], 0, 0, 0x40, 0, header.ttl, 2, 0, 0];
    out.extend_from_slice(&header.source.octets());
    out.extend_from_slice(&header.destination.octets());
    out.extend_from_slice(options);
    let checksum = checksum::internet(&out).to_be_bytes();
    if let Some(field) = out.get_mut(10..12) {
        field.copy_from_slice(&checksum);
    }
    out.extend_from_slice(message);
    Ok(out)
}

/// An IPv6 packet with `message`, behind a hop-by-hop header when `router_alert` is set.
///
/// # Errors
/// When a list or the packet is longer than its length field can say.
pub fn encode_mld(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    router_alert: bool,
    message: &MldMessage,
) -> Result<Vec<u8>, EncodeError> {
    let message = mld::encode(message, source, destination)?;
    let (next, extension): (u8, &[u8]) = if router_alert {
        (0, &HOP_BY_HOP_ALERT)
    } else {
        (58, &[])
    };
    let [high, low] = wire::count16(extension.len() + message.len(), "IPv6 payload length")?;
    let mut out = vec![0x60, 0, 0, 0, high, low, next, hop_limit];
    out.extend_from_slice(&source.octets());
    out.extend_from_slice(&destination.octets());
    out.extend_from_slice(extension);
    out.extend_from_slice(&message);
    Ok(out)
}
