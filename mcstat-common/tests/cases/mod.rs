//! Frames and what they are, written down by hand from the RFCs: the same table judges the classifier as a function and
//! the programs in the kernel.
#![allow(missing_docs, unreachable_pub, reason = "test support")]

use std::{mem::offset_of, net::IpAddr};

use mcstat_common::control::ControlCounts;

use super::frames::{ethernet, frame4, frame6, ipv4, ipv6, tagged, udp};

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Not counted at all.
    Nothing,
    /// Data to a group, from a source, with a TTL or hop limit.
    Data(IpAddr, IpAddr, u8),
    /// The counter of `ControlCounts` at this position.
    Counter(usize),
}

pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub expect: Expect,
}

macro_rules! counter {
    ($field:ident) => {
        Expect::Counter(offset_of!(ControlCounts, $field) / 8)
    };
}

const POD: &str = "10.0.0.2";
const POD6: &str = "fe80::2";
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];

fn data(group: &str, source: &str, ttl: u8) -> Expect {
    Expect::Data(group.parse().unwrap(), source.parse().unwrap(), ttl)
}

fn v4(destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4(
        POD.parse().unwrap(),
        destination.parse().unwrap(),
        protocol,
        1,
        0,
        payload,
    )
}

/// An IPv4 packet with a router alert option (RFC 2113): header length 24.
fn with_router_alert(packet: &[u8]) -> Vec<u8> {
    let mut longer = packet[..20].to_vec();
    longer[0] = 0x46;
    longer.extend_from_slice(&ROUTER_ALERT);
    longer.extend_from_slice(&packet[20..]);
    let length = longer.len() as u16;
    longer[2..4].copy_from_slice(&length.to_be_bytes());
    longer
}

fn igmp(destination: &str, message: &[u8]) -> Vec<u8> {
    frame4(&with_router_alert(&v4(destination, 2, message)))
}

fn v6(destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    frame6(&ipv6(
        POD6.parse().unwrap(),
        destination.parse().unwrap(),
        next,
        1,
        payload,
    ))
}

/// An extension header (RFC 8200 §4) of `units` + 1 times 8 bytes in front of `rest`.
fn extension(next: u8, units: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![next, units];
    header.resize(8 * (usize::from(units) + 1), 0);
    header.extend_from_slice(rest);
    header
}

/// A fragment header (RFC 8200 §4.5); `offset` in 8-byte units.
fn fragment(next: u8, offset: u16, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend_from_slice(&((offset << 3) | 1).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 9]);
    header.extend_from_slice(rest);
    header
}

/// MLD behind a hop-by-hop header with a router alert (RFC 9777 §5).
fn mld(destination: &str, kind: u8, length: usize) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.resize(length, 0);
    let mut payload = vec![58, 0, 5, 2, 0, 0, 1, 0];
    payload.extend_from_slice(&message);
    v6(destination, 0, &payload)
}

fn icmpv6(destination: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.resize(24, 0);
    v6(destination, 58, &message)
}

fn message(kind: u8, code: u8, length: usize) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.resize(length, 0);
    message
}

fn changed(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

pub fn all() -> Vec<Case> {
    [
        igmp_cases(),
        mld_cases(),
        data_cases(),
        extension_cases(),
        malformed_cases(),
        foreign_cases(),
    ]
    .into_iter()
    .flatten()
    .map(|(name, frame, expect)| Case { name, frame, expect })
    .collect()
}

type Row = (&'static str, Vec<u8>, Expect);

/// RFC 9776 §4, §7.1.
fn igmp_cases() -> Vec<Row> {
    vec![
        (
            "v1 query",
            igmp("224.0.0.1", &message(0x11, 0, 8)),
            counter!(igmpv1_query),
        ),
        (
            "v2 query",
            igmp("224.0.0.1", &message(0x11, 100, 8)),
            counter!(igmpv2_query),
        ),
        (
            "v3 query",
            igmp("224.0.0.1", &message(0x11, 100, 12)),
            counter!(igmpv3_query),
        ),
        (
            "v3 query with sources",
            igmp("239.1.1.1", &message(0x11, 100, 20)),
            counter!(igmpv3_query),
        ),
        (
            "query of no version",
            igmp("224.0.0.1", &message(0x11, 100, 10)),
            counter!(igmp_other),
        ),
        (
            "v1 report",
            igmp("239.1.1.1", &message(0x12, 0, 8)),
            counter!(igmpv1_report),
        ),
        (
            "v2 report",
            igmp("239.1.1.1", &message(0x16, 0, 8)),
            counter!(igmpv2_report),
        ),
        (
            "v2 leave",
            igmp("224.0.0.2", &message(0x17, 0, 8)),
            counter!(igmpv2_leave),
        ),
        (
            "v3 report",
            igmp("224.0.0.22", &message(0x22, 0, 24)),
            counter!(igmpv3_report),
        ),
        (
            "report without options",
            frame4(&v4("239.1.1.1", 2, &message(0x16, 0, 8))),
            counter!(igmpv2_report),
        ),
        (
            "DVMRP, unicast",
            igmp("10.0.0.9", &message(0x13, 1, 8)),
            counter!(igmp_other),
        ),
        ("PIMv1", igmp("224.0.0.2", &message(0x14, 0, 8)), counter!(igmp_other)),
        ("RGMP", igmp("224.0.0.25", &message(0xff, 0, 8)), counter!(igmp_other)),
        (
            "multicast router solicitation, 4 bytes",
            igmp("224.0.0.2", &message(0x31, 0, 4)),
            counter!(igmp_other),
        ),
        (
            "a later fragment of IGMP",
            frame4(&ipv4(
                POD.parse().unwrap(),
                "224.0.0.22".parse().unwrap(),
                2,
                1,
                185,
                &[0x22; 40],
            )),
            counter!(igmp_other),
        ),
        (
            "report, 802.1Q",
            tagged(&igmp("224.0.0.22", &message(0x22, 0, 16)), 0x8100, 9),
            counter!(igmpv3_report),
        ),
    ]
}

/// RFC 9777 §5, §8.1; RFC 4861.
fn mld_cases() -> Vec<Row> {
    vec![
        ("MLDv1 query", mld("ff02::1", 130, 24), counter!(mldv1_query)),
        ("MLDv2 query", mld("ff02::1", 130, 28), counter!(mldv2_query)),
        ("MLDv2 query to a host", mld("fe80::9", 130, 28), counter!(mldv2_query)),
        ("MLD query of no version", mld("ff02::1", 130, 26), counter!(bad_length)),
        ("MLDv1 report", mld("ff05::1:3", 131, 24), counter!(mldv1_report)),
        ("MLDv1 done", mld("ff02::2", 132, 24), counter!(mldv1_done)),
        ("MLDv2 report", mld("ff02::16", 143, 28), counter!(mldv2_report)),
        (
            "MLDv2 report without records",
            mld("ff02::16", 143, 8),
            counter!(mldv2_report),
        ),
        ("MLDv1 report, cut", mld("ff05::1:3", 131, 20), counter!(bad_length)),
        ("MLD without hop-by-hop", icmpv6("ff02::1", 130), counter!(mldv1_query)),
        (
            "router solicitation",
            icmpv6("ff02::2", 133),
            counter!(neighbour_discovery),
        ),
        (
            "router advertisement",
            icmpv6("ff02::1", 134),
            counter!(neighbour_discovery),
        ),
        (
            "neighbour solicitation",
            icmpv6("ff02::1:ff00:2", 135),
            counter!(neighbour_discovery),
        ),
        (
            "neighbour advertisement",
            icmpv6("ff02::1", 136),
            counter!(neighbour_discovery),
        ),
        ("redirect", icmpv6("ff02::1", 137), counter!(neighbour_discovery)),
        (
            "router solicitation, 802.1ad and 802.1Q",
            tagged(&tagged(&icmpv6("ff02::2", 133), 0x8100, 3), 0x88a8, 4),
            counter!(neighbour_discovery),
        ),
    ]
}

fn data_cases() -> Vec<Row> {
    let plain4 = frame4(&v4("239.1.1.1", 17, &udp(50)));
    let plain6 = v6("ff05::1:3", 17, &udp(50));
    let expect4 = data("239.1.1.1", POD, 1);
    let expect6 = data("ff05::1:3", POD6, 1);
    let last_fragment = ipv4(
        POD.parse().unwrap(),
        "239.1.1.1".parse().unwrap(),
        17,
        64,
        185,
        &[0x11; 90],
    );
    vec![
        ("IPv4", plain4.clone(), expect4.clone()),
        ("IPv4, 802.1Q", tagged(&plain4, 0x8100, 5), expect4.clone()),
        (
            "IPv4, QinQ of one kind",
            tagged(&tagged(&plain4, 0x8100, 5), 0x8100, 6),
            expect4.clone(),
        ),
        (
            "IPv4, 802.1ad and 802.1Q",
            tagged(&tagged(&plain4, 0x8100, 5), 0x88a8, 6),
            expect4.clone(),
        ),
        ("IPv4 with padding", [plain4, vec![0; 30]].concat(), expect4),
        (
            "IPv4, later fragment",
            frame4(&last_fragment),
            data("239.1.1.1", POD, 64),
        ),
        (
            "IPv4 with options",
            frame4(&with_router_alert(&v4("224.0.0.9", 17, &udp(20)))),
            data("224.0.0.9", POD, 1),
        ),
        (
            "first group",
            frame4(&v4("224.0.0.0", 17, &udp(20))),
            data("224.0.0.0", POD, 1),
        ),
        (
            "last group",
            frame4(&v4("239.255.255.255", 17, &udp(20))),
            data("239.255.255.255", POD, 1),
        ),
        (
            "OSPF",
            frame4(&v4("224.0.0.5", 89, &[0; 44])),
            data("224.0.0.5", POD, 1),
        ),
        (
            "PIMv2",
            frame4(&v4("224.0.0.13", 103, &[0; 30])),
            data("224.0.0.13", POD, 1),
        ),
        (
            "an empty datagram",
            frame4(&v4("239.1.1.1", 17, &[])),
            data("239.1.1.1", POD, 1),
        ),
        ("IPv6", plain6.clone(), expect6.clone()),
        ("IPv6, 802.1Q", tagged(&plain6, 0x8100, 5), expect6.clone()),
        (
            "IPv6, 802.1ad and 802.1Q",
            tagged(&tagged(&plain6, 0x8100, 5), 0x88a8, 6),
            expect6,
        ),
        (
            "IPv6, nothing follows",
            v6("ff05::1:3", 59, &[]),
            data("ff05::1:3", POD6, 1),
        ),
        ("ping to all nodes", icmpv6("ff02::1", 128), data("ff02::1", POD6, 1)),
        ("ESP", v6("ff05::1:3", 50, &[0; 40]), data("ff05::1:3", POD6, 1)),
    ]
}

fn extension_cases() -> Vec<Row> {
    let udp = udp(30);
    let expect = || data("ff05::1:3", POD6, 1);
    let six = (0..5).fold(extension(17, 0, &udp), |rest, _| extension(60, 0, &rest));
    let seven = extension(60, 0, &six);
    let six_to_icmp = (0..5).fold(extension(58, 0, &message(143, 0, 8)), |rest, _| extension(60, 0, &rest));
    let authenticated = extension(17, 4, &udp);
    vec![
        ("hop-by-hop", v6("ff05::1:3", 0, &extension(17, 0, &udp)), expect()),
        ("long hop-by-hop", v6("ff05::1:3", 0, &extension(17, 7, &udp)), expect()),
        ("routing", v6("ff05::1:3", 43, &extension(17, 2, &udp)), expect()),
        ("first fragment", v6("ff05::1:3", 44, &fragment(17, 0, &udp)), expect()),
        (
            "later fragment",
            v6("ff05::1:3", 44, &fragment(17, 181, &[0; 64])),
            expect(),
        ),
        (
            "later fragment of ICMPv6",
            v6("ff05::1:3", 44, &fragment(58, 181, &[143; 64])),
            expect(),
        ),
        // RFC 4302 §2.2: the length counts 4-byte words, less 2. 8 words are 32 bytes; 40 are written here.
        (
            "authentication",
            v6("ff05::1:3", 51, &[&[17, 8][..], &authenticated[2..]].concat()),
            expect(),
        ),
        ("six headers", v6("ff05::1:3", 60, &six), expect()),
        ("seven headers", v6("ff05::1:3", 60, &seven), counter!(too_many_headers)),
        (
            "six headers before MLD",
            v6("ff02::16", 60, &six_to_icmp),
            counter!(mldv2_report),
        ),
        (
            "MLD behind destination options",
            v6("ff02::16", 60, &extension(58, 0, &message(143, 0, 8))),
            counter!(mldv2_report),
        ),
        (
            "solicitation in a first fragment",
            v6("ff02::2", 44, &fragment(58, 0, &message(133, 0, 8))),
            counter!(neighbour_discovery),
        ),
    ]
}

fn malformed_cases() -> Vec<Row> {
    let four = || frame4(&v4("239.1.1.1", 17, &udp(50)));
    let six = || v6("ff05::1:3", 17, &udp(50));
    vec![
        ("IPv4 header cut", cut(four(), 33), counter!(truncated)),
        ("IPv4 type, no header", ethernet(0x0800), counter!(truncated)),
        ("IPv6 header cut", cut(six(), 53), counter!(truncated)),
        ("IPv4 type, version 6", changed(four(), 14, 0x65), counter!(bad_version)),
        ("IPv6 type, version 4", changed(six(), 14, 0x40), counter!(bad_version)),
        ("IPv4 header length 16", changed(four(), 14, 0x44), counter!(bad_length)),
        (
            "total length below the header",
            changed(four(), 17, 19),
            counter!(bad_length),
        ),
        (
            "total length beyond the frame",
            changed(four(), 17, 79),
            counter!(bad_length),
        ),
        ("frame cut behind the header", cut(four(), 60), counter!(bad_length)),
        (
            "payload length beyond the frame",
            changed(six(), 19, 59),
            counter!(bad_length),
        ),
        (
            "IGMP of 7 bytes",
            igmp("224.0.0.22", &message(0x22, 0, 7)),
            counter!(truncated),
        ),
        (
            "IGMP of 3 bytes",
            igmp("224.0.0.2", &message(0x31, 0, 3)),
            counter!(truncated),
        ),
        (
            "ICMPv6 of 3 bytes",
            v6("ff02::2", 58, &[133, 0, 0]),
            counter!(truncated),
        ),
        (
            "ICMPv6 of no bytes, then padding",
            [v6("ff02::2", 58, &[]), vec![133; 16]].concat(),
            counter!(truncated),
        ),
        (
            "extension header beyond the payload",
            v6("ff05::1:3", 0, &extension(17, 0, &[])[..8]),
            data("ff05::1:3", POD6, 1),
        ),
        (
            "extension header longer than the payload",
            changed(v6("ff05::1:3", 0, &extension(17, 0, &udp(2))), 55, 9),
            counter!(bad_length),
        ),
        (
            "extension header cut off",
            v6("ff05::1:3", 0, &[17, 0]),
            counter!(truncated),
        ),
    ]
}

fn foreign_cases() -> Vec<Row> {
    vec![
        ("unicast IPv4", frame4(&v4("10.0.0.3", 17, &udp(50))), Expect::Nothing),
        (
            "broadcast",
            frame4(&v4("255.255.255.255", 17, &udp(50))),
            Expect::Nothing,
        ),
        (
            "below the groups",
            frame4(&v4("223.255.255.255", 17, &udp(50))),
            Expect::Nothing,
        ),
        (
            "above the groups",
            frame4(&v4("240.0.0.1", 17, &udp(50))),
            Expect::Nothing,
        ),
        ("unicast IPv6", v6("fd00::1", 17, &udp(50)), Expect::Nothing),
        (
            "unicast IPv6 with options",
            v6("fd00::1", 0, &extension(17, 0, &udp(50))),
            Expect::Nothing,
        ),
        (
            "unicast neighbour solicitation",
            icmpv6("fe80::1", 135),
            Expect::Nothing,
        ),
        ("ARP", [ethernet(0x0806), vec![0; 46]].concat(), Expect::Nothing),
        ("LLDP", [ethernet(0x88cc), vec![0; 46]].concat(), Expect::Nothing),
        (
            "three tags",
            tagged(
                &tagged(&tagged(&frame4(&v4("239.1.1.1", 17, &udp(50))), 0x8100, 1), 0x8100, 2),
                0x8100,
                3,
            ),
            Expect::Nothing,
        ),
        // RFC 7348: outside it is unicast; the group inside is not this Pod's.
        (
            "a group inside VXLAN",
            frame4(&v4(
                "10.0.0.3",
                17,
                &[&udp(8)[..], &frame4(&v4("239.1.1.1", 17, &udp(9)))].concat(),
            )),
            Expect::Nothing,
        ),
    ]
}
