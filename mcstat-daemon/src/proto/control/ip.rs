//! The IP headers in front of an IGMP or MLD message: just enough of them to find it.
//!
//! Promises a payload whose length was checked against the header, the capture and the packet as it was sent. Knows no
//! transport but IGMP and ICMPv6, and no options but the router alert.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::wire::{DecodeError, Reader};

/// How many IPv6 extension headers are followed. MLD has one; more than a handful is an attack.
const MOST_HEADERS: usize = 8;

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Type byte of the IPv4 router alert option (RFC 2113 §2.1).
const ROUTER_ALERT_V4: u8 = 148;
/// Type byte of the IPv6 router alert option (RFC 2711 §2.1).
const ROUTER_ALERT_V6: u8 = 5;

/// What the IP header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<A> {
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) ttl: u8,
    pub(super) router_alert: bool,
}

/// The message behind the IP headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    /// What the capture holds of it.
    pub(super) bytes: &'a [u8],
    /// Its length by the IP header.
    pub(super) declared: usize,
}

/// The header and the IGMP message of an IPv4 packet (RFC 791 §3.1).
pub(super) fn v4(packet: &[u8], original: usize) -> Result<(Header<Ipv4Addr>, Payload<'_>), DecodeError> {
    let mut reader = Reader::new(packet);
    let [first, _, total_high, total_low] = reader.array("IPv4 header")?;
    let [_, _, fragment_high, fragment_low] = reader.array("IPv4 header")?;
    let [ttl, protocol, _, _] = reader.array("IPv4 header")?;
    let source = Ipv4Addr::from(reader.array::<4>("IPv4 source")?);
    let destination = Ipv4Addr::from(reader.array::<4>("IPv4 destination")?);
    let header_length = usize::from(first & 0x0f) * 4;
    let Some(options_length) = header_length.checked_sub(20) else {
        return Err(DecodeError::BadLength {
            what: "IPv4 header length",
            need: 20,
            have: header_length,
        });
    };
    let total = usize::from(u16::from_be_bytes([total_high, total_low]));
    check_length("IPv4 total length", total, header_length, original)?;
    if protocol != IGMP {
        return Err(DecodeError::NotControl {
            what: "IP protocol",
            have: protocol,
        });
    }
    // More-fragments flag and offset: either one makes it a fragment.
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff;
    if fragment != 0 {
        return Err(DecodeError::Fragment {
            offset: (fragment & 0x1fff) << 3,
        });
    }
    let router_alert = has_option_v4(reader.take(options_length, "IPv4 options")?);
    let payload = payload(reader.rest(), total - header_length);
    Ok((
        Header {
            source,
            destination,
            ttl,
            router_alert,
        },
        payload,
    ))
}

/// The header and the ICMPv6 message of an IPv6 packet (RFC 8200 §3 and §4).
pub(super) fn v6(packet: &[u8], original: usize) -> Result<(Header<Ipv6Addr>, Payload<'_>), DecodeError> {
    let mut reader = Reader::new(packet);
    let _: [u8; 4] = reader.array("IPv6 header")?;
    let [length_high, length_low, mut next, ttl] = reader.array("IPv6 header")?;
    let source = Ipv6Addr::from(reader.array::<16>("IPv6 source")?);
    let destination = Ipv6Addr::from(reader.array::<16>("IPv6 destination")?);
    let mut declared = usize::from(u16::from_be_bytes([length_high, length_low]));
    check_length("IPv6 packet length", declared + 40, 40, original)?;
    let mut router_alert = false;
    for _ in 0..=MOST_HEADERS {
        let header = match next {
            ICMPV6 => {
                let header = Header {
                    source,
                    destination,
                    ttl,
                    router_alert,
                };
                return Ok((header, payload(reader.rest(), declared)));
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => extension_header(&mut reader, |units| (units + 1) * 8)?,
            // Its length is in units of 4 bytes, less two (RFC 4302 §2.2).
            AUTHENTICATION => extension_header(&mut reader, |units| (units + 2) * 4)?,
            FRAGMENT => fragment_header(&mut reader)?,
            have => {
                return Err(DecodeError::NotControl {
                    what: "IPv6 next header",
                    have,
                });
            }
        };
        declared = declared.checked_sub(header.length).ok_or(DecodeError::BadLength {
            what: "IPv6 extension header length",
            need: declared,
            have: header.length,
        })?;
        router_alert |= next == HOP_BY_HOP && has_option_v6(header.options);
        next = header.next;
    }
    Err(DecodeError::TooManyHeaders { most: MOST_HEADERS })
}

struct Extension<'a> {
    next: u8,
    length: usize,
    options: &'a [u8],
}

fn extension_header<'a>(
    reader: &mut Reader<'a>,
    length: impl FnOnce(usize) -> usize,
) -> Result<Extension<'a>, DecodeError> {
    let [next, units] = reader.array("IPv6 extension header")?;
    let length = length(units.into());
    let options = reader.take(length - 2, "IPv6 extension header")?;
    Ok(Extension { next, length, options })
}

/// A fragment header is let through only when it fragments nothing (RFC 6946).
fn fragment_header<'a>(reader: &mut Reader<'a>) -> Result<Extension<'a>, DecodeError> {
    let [next, _, high, low, ..]: [u8; 8] = reader.array("IPv6 fragment header")?;
    match u16::from_be_bytes([high, low]) & 0xfff9 {
        0 => Ok(Extension {
            next,
            length: 8,
            options: &[],
        }),
        fragment => Err(DecodeError::Fragment {
            offset: fragment & 0xfff8,
        }),
    }
}

/// A length field must cover the header it stands in and must not claim more than was sent.
fn check_length(what: &'static str, have: usize, least: usize, most: usize) -> Result<(), DecodeError> {
    match have {
        _ if have < least => Err(DecodeError::BadLength {
            what,
            need: least,
            have,
        }),
        _ if have > most => Err(DecodeError::BadLength { what, need: most, have }),
        _ => Ok(()),
    }
}

/// `rest` without the padding behind the declared end.
fn payload(rest: &[u8], declared: usize) -> Payload<'_> {
    Payload {
        bytes: rest.get(..declared).unwrap_or(rest),
        declared,
    }
}

/// Whether the options of an IPv4 header hold a router alert of its length, 4 bytes. Kind 0 ends them, 1 is one byte
/// long. Broken options hold none: a receiver drops the packet.
fn has_option_v4(options: &[u8]) -> bool {
    let mut reader = Reader::new(options);
    let mut found = false;
    while let Ok([kind]) = reader.array("option") {
        match kind {
            0 => return found,
            1 => continue,
            _ => {}
        }
        let Ok([length]) = reader.array("option") else {
            return false;
        };
        // The length counts the two bytes read so far; below that it would not make progress.
        let Some(more) = usize::from(length).checked_sub(2) else {
            return false;
        };
        if reader.take(more, "option").is_err() || kind == ROUTER_ALERT_V4 && more != 2 {
            return false;
        }
        found |= kind == ROUTER_ALERT_V4;
    }
    found
}

/// As [`has_option_v4`], in a hop-by-hop header; kind 0 is one byte long, a router alert holds 2 bytes.
fn has_option_v6(options: &[u8]) -> bool {
    let mut reader = Reader::new(options);
    let mut found = false;
    while let Ok([kind]) = reader.array("option") {
        if kind == 0 {
            continue;
        }
        let Ok([length]) = reader.array("option") else {
            return false;
        };
        if reader.take(length.into(), "option").is_err() || kind == ROUTER_ALERT_V6 && length != 2 {
            return false;
        }
        found |= kind == ROUTER_ALERT_V6;
    }
    found
}
