//! From an Ethernet frame to what it is: data, control, malformed, or none of our business.
//!
//! Generic over [`Packet`], the one trait of this project with two lives: memory in the kernel (directly and by
//! `bpf_skb_load_bytes`), byte slices in tests. Every read is checked by the implementation; nothing here indexes.
//! All functions are `#[inline(always)]`: a BPF-to-BPF call costs more than the parsing.

use crate::policy::{TRANSPORT_FRAGMENT, TRANSPORT_OTHER};

/// Read access to a frame.
pub trait Packet {
    /// The value at `offset`, or `None` when it does not lie wholly in the part that this view reaches.
    fn read<T: Plain>(&self, offset: usize) -> Option<T>;
    /// Length of the whole frame, whatever this view reaches of it.
    fn length(&self) -> usize;
}

/// Types for which any bytes are a value.
///
/// # Safety
/// `repr(C, packed)` or a fixed-width integer or an array of such; no padding, no invalid bit patterns.
pub unsafe trait Plain: Copy {}

// SAFETY: fixed-width integers and arrays of them.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u8; N] {}

impl Packet for &[u8] {
    #[inline(always)]
    fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        let bytes = self.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: `bytes` is exactly as long as T, and T is plain.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.len()
    }
}

/// What a frame is to mcstat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Neither IP multicast nor IGMP: not counted at all.
    Foreign,
    /// A multicast datagram, or a later fragment of one.
    Data(Datagram),
    /// IGMP or MLD.
    Control(Control),
    /// ICMPv6 133 to 137 to a multicast address.
    NeighbourDiscovery,
    /// Not to be trusted, by reason.
    Malformed(Malformed),
    /// A header that the frame has lies outside the part that this view reaches.
    Unreachable,
}

/// The facts of a multicast datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Destination, IPv4-mapped for IPv4; native-order words of the network-order bytes.
    pub group: [u64; 2],
    /// Source, likewise.
    pub source: [u64; 2],
    /// 4 or 6.
    pub family: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// An IGMP or MLD message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Type and version; its number is the index of the counter in `ControlCounts`.
    pub kind: Kind,
    /// Where the IP header begins in the frame.
    pub ip_offset: usize,
    /// Where the IGMP or ICMPv6 message begins in the frame.
    pub offset: usize,
    /// How long it is, in bytes. Of a later fragment nothing is known: 0.
    pub length: usize,
}

/// Type and version of a control message: the position of its counter in [`crate::control::ControlCounts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "each is the field of ControlCounts of that name, and documented there"
)]
pub enum Kind {
    Igmpv1Query = 0,
    Igmpv2Query = 1,
    Igmpv3Query = 2,
    Igmpv1Report = 3,
    Igmpv2Report = 4,
    Igmpv2Leave = 5,
    Igmpv3Report = 6,
    IgmpOther = 7,
    Mldv1Query = 8,
    Mldv2Query = 9,
    Mldv1Report = 10,
    Mldv1Done = 11,
    Mldv2Report = 12,
}

/// Position of the neighbour discovery counter in `ControlCounts`.
pub const NEIGHBOUR_DISCOVERY: u32 = 13;
/// Number of counters in `ControlCounts`.
pub const CONTROL_COUNTERS: u32 = 18;

/// Why a frame is malformed: the position of its counter in [`crate::control::ControlCounts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "each is the field of ControlCounts of that name, and documented there"
)]
pub enum Malformed {
    Truncated = 14,
    BadVersion = 15,
    BadLength = 16,
    TooManyHeaders = 17,
}

const ETHERNET: usize = 14;
const IPV4_ETHERTYPE: u16 = 0x0800;
const IPV6_ETHERTYPE: u16 = 0x86dd;
const IGMP: u8 = 2;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers that are followed. RFC 8200 §4.1 names six kinds, each at most once but one twice.
const MAX_EXTENSION_HEADERS: u32 = 6;

/// The fixed IPv4 header (RFC 791 §3.1), two bytes at a time.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_ihl_tos: u16,
    total_length: u16,
    id: u16,
    fragment: u16,
    ttl_protocol: u16,
    checksum: u16,
    source: u32,
    destination: u32,
}
// SAFETY: packed integers.
unsafe impl Plain for Ipv4 {}

/// The fixed IPv6 header (RFC 8200 §3).
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version_class_flow: u32,
    payload_length: u16,
    next_hop_limit: u16,
    source: [u64; 2],
    destination: [u64; 2],
}
// SAFETY: packed integers.
unsafe impl Plain for Ipv6 {}

/// Classifies an Ethernet frame. The outer VLAN tag may be in the frame or taken off already; up to two are followed.
#[inline(always)]
pub fn classify<P: Packet>(packet: &P) -> Class {
    let mut offset = ETHERNET;
    let Some(mut ethertype) = packet.read::<u16>(12) else {
        return Class::Foreign;
    };
    for _ in 0..2 {
        match u16::from_be(ethertype) {
            0x8100 | 0x88a8 => match packet.read::<u16>(offset + 2) {
                Some(inner) => {
                    ethertype = inner;
                    offset += 4;
                }
                None => return beyond(packet, offset + 4),
            },
            _ => break,
        }
    }
    match u16::from_be(ethertype) {
        IPV4_ETHERTYPE => ipv4(packet, offset),
        IPV6_ETHERTYPE => ipv6(packet, offset),
        _ => Class::Foreign,
    }
}

/// A read up to `end` failed: the frame is too short, or the view is.
#[inline(always)]
fn beyond<P: Packet>(packet: &P, end: usize) -> Class {
    if end <= packet.length() {
        Class::Unreachable
    } else {
        Class::Malformed(Malformed::Truncated)
    }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, offset: usize) -> Class {
    let Some(header) = packet.read::<Ipv4>(offset) else {
        return beyond(packet, offset + size_of::<Ipv4>());
    };
    let destination = u32::from_be(header.destination);
    let ttl_protocol = u16::from_be(header.ttl_protocol);
    let protocol = ttl_protocol as u8;
    let multicast = destination >> 28 == 0xe;
    // IGMP is control whatever its destination: DVMRP and mtrace are sent to unicast addresses too.
    if !multicast && protocol != IGMP {
        return Class::Foreign;
    }
    let version_ihl = (u16::from_be(header.version_ihl_tos) >> 8) as usize;
    if version_ihl >> 4 != 4 {
        return Class::Malformed(Malformed::BadVersion);
    }
    let header_length = (version_ihl & 0xf) * 4;
    let total_length = u16::from_be(header.total_length) as usize;
    if header_length < size_of::<Ipv4>() || total_length < header_length || offset + total_length > packet.length() {
        return Class::Malformed(Malformed::BadLength);
    }
    if protocol == IGMP {
        let later_fragment = u16::from_be(header.fragment) & 0x1fff != 0;
        if later_fragment {
            return Class::Control(Control {
                kind: Kind::IgmpOther,
                ip_offset: offset,
                offset: offset + header_length,
                length: 0,
            });
        }
        return igmp(packet, offset, header_length, total_length - header_length);
    }
    Class::Data(Datagram {
        group: mapped(header.destination),
        source: mapped(header.source),
        family: crate::abi::IPV4,
        ttl: (ttl_protocol >> 8) as u8,
    })
}

/// More fragments, and the offset: either makes a fragment of a packet. The first one holds the ports, and yet Open vSwitch
/// takes them for 0 in every fragment, so that no rule with ports matches one.
const FRAGMENT_MASK: u16 = 0x3fff;

/// What [`crate::policy::judge`] takes of a frame that was classified as IPv4 data; `None` when its UDP ports lie
/// outside the part that this view reaches. Ports that the packet is too short for lie in no packet.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P) -> Option<u32> {
    let (mut offset, mut ethertype) = (ETHERNET, packet.read::<u16>(12)?);
    for _ in 0..2 {
        if matches!(u16::from_be(ethertype), 0x8100 | 0x88a8) {
            ethertype = packet.read::<u16>(offset + 2)?;
            offset += 4;
        }
    }
    transport_at(packet, offset)
}

/// An Ethernet type, the IPv4 header without options, and the ports of UDP behind it.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct PlainUdp {
    ethertype: u16,
    ip: Ipv4,
    source_port: u16,
    destination_port: u16,
}
// SAFETY: packed integers.
unsafe impl Plain for PlainUdp {}

/// [`transport`] of a frame without tags and IP options that reaches to its UDP ports; `None` of any other. For the path of a
/// hit: one read, at a fixed place.
#[inline(always)]
pub fn transport_plain<P: Packet>(packet: &P) -> Option<u32> {
    let head = packet.read::<PlainUdp>(ETHERNET - 2)?;
    let [version_ihl, _] = { head.ip.version_ihl_tos }.to_ne_bytes();
    let [_, protocol] = { head.ip.ttl_protocol }.to_ne_bytes();
    if head.ethertype != IPV4_ETHERTYPE.to_be() || version_ihl != 0x45 {
        return None;
    }
    if protocol != UDP {
        return Some(TRANSPORT_OTHER);
    }
    if head.ip.fragment & FRAGMENT_MASK.to_be() != 0 || u16::from_be(head.ip.total_length) < 24 {
        return Some(TRANSPORT_FRAGMENT);
    }
    Some(u16::from_be(head.destination_port) as u32)
}

#[inline(always)]
fn transport_at<P: Packet>(packet: &P, offset: usize) -> Option<u32> {
    let header = packet.read::<Ipv4>(offset)?;
    if u16::from_be(header.ttl_protocol) as u8 != UDP {
        return Some(TRANSPORT_OTHER);
    }
    let header_length = (u16::from_be(header.version_ihl_tos) >> 8 & 0xf) as usize * 4;
    let total_length = u16::from_be(header.total_length) as usize;
    if u16::from_be(header.fragment) & FRAGMENT_MASK != 0 || total_length < header_length + 4 {
        return Some(TRANSPORT_FRAGMENT);
    }
    let port = packet.read::<u16>(offset + header_length + 2)?;
    Some(u16::from_be(port) as u32)
}

/// An IPv4 address (network order, read natively) as the words of its IPv4-mapped IPv6 address.
#[inline(always)]
pub const fn mapped(address: u32) -> [u64; 2] {
    [0, ((address as u64) << 32) | 0xffff_0000]
}

/// RFC 9776 §7.1 tells the versions of a query by length and code.
#[inline(always)]
fn igmp<P: Packet>(packet: &P, ip_offset: usize, header_length: usize, length: usize) -> Class {
    // Type, code and checksum: multicast router discovery sends no more (RFC 4286 §3.2, §3.3).
    if length < 4 {
        return Class::Malformed(Malformed::Truncated);
    }
    let Some(type_code) = packet.read::<u16>(ip_offset + header_length) else {
        return beyond(packet, ip_offset + header_length + 2);
    };
    let type_code = u16::from_be(type_code);
    let kind = match type_code >> 8 {
        0x11 | 0x12 | 0x16 | 0x17 | 0x22 if length < 8 => return Class::Malformed(Malformed::Truncated),
        0x11 if length == 8 && type_code as u8 == 0 => Kind::Igmpv1Query,
        0x11 if length == 8 => Kind::Igmpv2Query,
        0x11 if length >= 12 => Kind::Igmpv3Query,
        0x12 => Kind::Igmpv1Report,
        0x16 => Kind::Igmpv2Report,
        0x17 => Kind::Igmpv2Leave,
        0x22 => Kind::Igmpv3Report,
        _ => Kind::IgmpOther,
    };
    Class::Control(Control {
        kind,
        ip_offset,
        offset: ip_offset + header_length,
        length,
    })
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, offset: usize) -> Class {
    let Some(header) = packet.read::<Ipv6>(offset) else {
        return beyond(packet, offset + size_of::<Ipv6>());
    };
    let next_hop_limit = u16::from_be(header.next_hop_limit);
    let next = (next_hop_limit >> 8) as u8;
    let destination = header.destination;
    let multicast = u64::from_be(destination[0]) >> 56 == 0xff;
    // MLD may come to a unicast address (RFC 9777 §5.1.15), always behind a hop-by-hop header.
    if !multicast && next != HOP_BY_HOP {
        return Class::Foreign;
    }
    if u32::from_be(header.version_class_flow) >> 28 != 6 {
        return Class::Malformed(Malformed::BadVersion);
    }
    let end = offset + size_of::<Ipv6>() + u16::from_be(header.payload_length) as usize;
    if end > packet.length() {
        return Class::Malformed(Malformed::BadLength);
    }
    let data = Datagram {
        group: destination,
        source: header.source,
        family: crate::abi::IPV6,
        ttl: next_hop_limit as u8,
    };
    match next {
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | ICMPV6 | DESTINATION_OPTIONS => {
            ipv6_upper(packet, offset, next, end, multicast, data)
        }
        _ => Class::Data(data),
    }
}

/// Follows the extension headers (RFC 8200 §4) to ICMPv6, or to whatever makes the datagram data.
#[inline(always)]
fn ipv6_upper<P: Packet>(
    packet: &P,
    ip_offset: usize,
    first: u8,
    end: usize,
    multicast: bool,
    data: Datagram,
) -> Class {
    let as_data = if multicast { Class::Data(data) } else { Class::Foreign };
    let mut next = first;
    let mut offset = ip_offset + size_of::<Ipv6>();
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            ICMPV6 => return icmpv6(packet, ip_offset, offset, end, multicast, as_data),
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {}
            _ => return as_data,
        }
        let Some(head) = packet.read::<u32>(offset) else {
            return beyond(packet, offset + 4);
        };
        let head = u32::from_be(head);
        let unit = unit_bytes(next);
        // A later fragment has no upper-layer header of its own; the offset of any other header is below its limit.
        if head & 0xfff8 > unit << 14 {
            return as_data;
        }
        // The mask takes nothing off. Before Linux 6.10 the verifier knows nothing of a product of two variables.
        offset += (8 + (((head >> 16 & 0xff) * unit) & LENGTH_MASK)) as usize;
        if offset > end {
            return Class::Malformed(Malformed::BadLength);
        }
        next = (head >> 24) as u8;
    }
    match next {
        ICMPV6 => icmpv6(packet, ip_offset, offset, end, multicast, as_data),
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {
            Class::Malformed(Malformed::TooManyHeaders)
        }
        _ => as_data,
    }
}

/// What a unit in the length field of an extension header stands for: 8 bytes, in an authentication header 4 (RFC 4302
/// §2.2), in a fragment header none; each header has 8 bytes more. A table in a word: behind a branch for each kind the
/// verifier would go on with a length of its own, and walk through the rest once for each.
#[inline(always)]
const fn unit_bytes(extension: u8) -> u32 {
    0x8004_0808 >> (extension & 0x1c) & 0xf
}

/// Holds every product of a length field and [`unit_bytes`].
const LENGTH_MASK: u32 = 0x7fc;

const _: () = {
    // All multiples of 4, up to the largest.
    assert!(LENGTH_MASK & 3 == 0 && (LENGTH_MASK + 4).is_power_of_two() && 0xff * 8 <= LENGTH_MASK);
    assert!(unit_bytes(HOP_BY_HOP) == 8 && unit_bytes(ROUTING) == 8 && unit_bytes(DESTINATION_OPTIONS) == 8);
    assert!(unit_bytes(AUTHENTICATION) == 4 && unit_bytes(FRAGMENT) == 0);
};

#[inline(always)]
fn icmpv6<P: Packet>(
    packet: &P,
    ip_offset: usize,
    offset: usize,
    end: usize,
    multicast: bool,
    as_data: Class,
) -> Class {
    let length = end.wrapping_sub(offset);
    // Type, code and checksum (RFC 4443 §2.1); Ethernet padding behind the packet is no header.
    if length < 4 {
        return Class::Malformed(Malformed::Truncated);
    }
    let Some(type_code) = packet.read::<u16>(offset) else {
        return beyond(packet, offset + 2);
    };
    let kind = match u16::from_be(type_code) >> 8 {
        133..=137 if multicast => return Class::NeighbourDiscovery,
        130 if length >= 28 => Kind::Mldv2Query,
        130 if length == 24 => Kind::Mldv1Query,
        131 if length >= 24 => Kind::Mldv1Report,
        132 if length >= 24 => Kind::Mldv1Done,
        143 if length >= 8 => Kind::Mldv2Report,
        130 | 131 | 132 | 143 => return Class::Malformed(Malformed::BadLength),
        _ => return as_data,
    };
    Class::Control(Control {
        kind,
        ip_offset,
        offset,
        length,
    })
}

/// Whether the source is part of a group's key: 232.0.0.0/8 and ff3x::/32 (RFC 4607 §1).
#[inline(always)]
pub fn is_ssm(datagram: &Datagram) -> bool {
    if datagram.family == crate::abi::IPV4 {
        (datagram.group[1] >> 32) as u8 == 232
    } else {
        let high = (u64::from_be(datagram.group[0]) >> 32) as u32;
        high & 0xfff0_ffff == 0xff30_0000
    }
}
