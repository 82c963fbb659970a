//! Packets with known readings, both ways; hostile and cut ones.
//!
//! Where a constant names scapy, its bytes were made with scapy 2.8.0 (`IP(ttl=1, tos=0xc0, id=0, flags="DF",
//! options=[IPOption_Router_Alert()])`, `IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN()])`) and their reading, checksum
//! included, was confirmed with tshark 4.0.17. tcpdump 4.99.3 agreed on all but the auxiliary data, whose length it takes
//! for bytes.

mod properties;

use std::time::Duration;

use super::{
    super::{
        igmp::IgmpQuery,
        mld::MldQuery,
        wire::{QueryTail, Record, RecordKind, Report},
    },
    *,
};

/// scapy `IGMP(type=0x11, mrcode=0)`.
const IGMPV1_QUERY: &str = "46c00020000040000102fa0d0a000009e0000001940400001100eeff00000000";
/// scapy `IGMP(type=0x11, mrcode=200, gaddr="239.1.1.1")`.
const IGMPV2_QUERY: &str = "46c00020000040000102ea0c0a000009ef0101019404000011c8fe34ef010101";
/// scapy `IGMPv3mq(mrcode=3, gaddr="224.3.4.5", s=1, qrv=2, qqic=10, srcaddrs=["10.3.4.5"])`: the query of Antrea's parser
/// test.
const IGMPV3_QUERY: &str = "46c00028000040000102f5fe0a000009e0030405940400001103f2e0e00304050a0a00010a030405";
/// The message by hand after the diagram of RFC 1112 appendix I, in an IP header without options (scapy `IP(tos=0)/Raw`).
const IGMPV1_REPORT: &str = "4500001c0000000001026ad40a000009e0016502\
    1200a8fbe0016502";
/// scapy `IGMP(type=0x16, gaddr="239.1.1.1")`.
const IGMPV2_REPORT: &str = "46c00020000040000102ea0c0a000009ef010101940400001600f9fcef010101";
/// scapy `IGMP(type=0x17, gaddr="239.1.1.1")`.
const IGMPV2_LEAVE: &str = "46c00020000040000102fa0c0a000009e0000002940400001700f8fcef010101";
/// scapy `IGMPv3mr`, one record of each kind for 232.1.1.KIND with 1, 0, 0, 0, 2, 1 sources 192.0.2.1, .2.
const IGMPV3_SIX_KINDS: &str = "46c00060000040000102f9b80a000009e00000169404000022004acd00000006\
    01000001e8010101c0000201\
    02000000e8010102\
    03000000e8010103\
    04000000e8010104\
    05000002e8010105c0000201c0000202\
    06000001e8010106c0000201";
/// By hand in scapy's envelope: TO_EX 239.1.1.1 with two words of auxiliary data, unknown kind 9 for 239.2.2.1, TO_EX
/// 239.2.2.2.
const IGMPV3_AUX_AND_UNKNOWN: &str = "46c00040000040000102f9d80a000009e00000169404000022002e2200000003\
    04020000ef010101aaaaaaaabbbbbbbb\
    09000000ef020201\
    04000000ef020202";
/// scapy `ICMPv6MLQuery(mrd=10000)`.
const MLDV1_QUERY: &str = "6000000000200001fe800000000000000000000000000009ff020000000000000000000000000001\
    3a000502000001008200590f2710000000000000000000000000000000000000";
/// scapy `ICMPv6MLReport(mladdr="ff15::1234")`.
const MLDV1_REPORT: &str = "6000000000200001fe800000000000000000000000000009ff150000000000000000000000001234\
    3a0005020000010083005b8f00000000ff150000000000000000000000001234";
/// scapy `ICMPv6MLDone(mladdr="ff15::1234")`.
const MLDV1_DONE: &str = "6000000000200001fe800000000000000000000000000009ff020000000000000000000000000002\
    3a0005020000010084006cd400000000ff150000000000000000000000001234";
/// scapy `ICMPv6MLQuery2(mrd=0x8001, S=0, QRV=7, QQIC=0x8f)` for ff3e::8000:1 with two sources.
const MLDV2_QUERY: &str = "6000000000440001fe800000000000000000000000000009ff3e0000000000000000000080000001\
    3a0005020000010082009d7680010000ff3e0000000000000000000080000001\
    078f000220010db800000000000000000000000120010db8000000000000000000000002";
/// scapy `ICMPv6MLReport2`: TO_EX ff15::1234, ALLOW ff3e::8000:1 from 2001:db8::1.
const MLDV2_REPORT: &str = "6000000000480001fe800000000000000000000000000009ff020000000000000000000000000016\
    3a000502000001008f00ab9a00000002\
    04000000ff150000000000000000000000001234\
    05000001ff3e000000000000000000008000000120010db8000000000000000000000001";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn whole(bytes: &[u8]) -> Result<ControlMessage, DecodeError> {
    decode(bytes, bytes.len() as u32)
}

fn read(text: &str) -> ControlMessage {
    let message = whole(&hex(text)).unwrap();
    assert_eq!(message.checksum, Checksum::Good);
    assert!(!message.cut);
    assert_eq!(message.deviations(), Deviations::default());
    message
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn record<A: std::str::FromStr<Err: std::fmt::Debug>>(kind: RecordKind, group: &str, sources: &[&str]) -> Record<A> {
    let sources = sources.iter().map(|source| source.parse().unwrap()).collect();
    Record {
        kind,
        group: group.parse().unwrap(),
        sources,
        aux_words: 0,
    }
}

/// What the packets above say, and whether the encoder makes the same bytes (it fills auxiliary data with zeros and sends
/// IGMPv1 with scapy's TOS, so two of them it does not).
fn known() -> Vec<(&'static str, Body, bool)> {
    use RecordKind::*;
    let query = |code, group: &str, tail| {
        Body::Igmp(IgmpMessage::Query(IgmpQuery {
            max_response_code: code,
            group: v4(group),
            tail,
        }))
    };
    let v3_tail = QueryTail {
        suppress: true,
        robustness: 2,
        interval_code: 10,
        sources: vec![v4("10.3.4.5")],
        missing: 0,
    };
    let igmpv3 = |records| Body::Igmp(IgmpMessage::V3Report(Report { records, missing: 0 }));
    let six = vec![
        record(ModeIsInclude, "232.1.1.1", &["192.0.2.1"]),
        record(ModeIsExclude, "232.1.1.2", &[]),
        record(ChangeToInclude, "232.1.1.3", &[]),
        record(ChangeToExclude, "232.1.1.4", &[]),
        record(AllowNewSources, "232.1.1.5", &["192.0.2.1", "192.0.2.2"]),
        record(BlockOldSources, "232.1.1.6", &["192.0.2.1"]),
    ];
    let aux = vec![
        Record {
            aux_words: 2,
            ..record(ChangeToExclude, "239.1.1.1", &[])
        },
        record(Unknown(9), "239.2.2.1", &[]),
        record(ChangeToExclude, "239.2.2.2", &[]),
    ];
    let mld_query = |code, group: &str, tail| {
        Body::Mld(MldMessage::Query(MldQuery {
            max_response_code: code,
            group: v6(group),
            tail,
        }))
    };
    let mldv2_tail = QueryTail {
        suppress: false,
        robustness: 7,
        interval_code: 0x8f,
        sources: vec![v6("2001:db8::1"), v6("2001:db8::2")],
        missing: 0,
    };
    let mldv2 = vec![
        record(ChangeToExclude, "ff15::1234", &[]),
        record(AllowNewSources, "ff3e::8000:1", &["2001:db8::1"]),
    ];
    let group = v6("ff15::1234");
    vec![
        (IGMPV1_QUERY, query(0, "0.0.0.0", None), true),
        (IGMPV2_QUERY, query(200, "239.1.1.1", None), true),
        (IGMPV3_QUERY, query(3, "224.3.4.5", Some(v3_tail)), true),
        (
            IGMPV1_REPORT,
            Body::Igmp(IgmpMessage::V1Report {
                group: v4("224.1.101.2"),
            }),
            false,
        ),
        (
            IGMPV2_REPORT,
            Body::Igmp(IgmpMessage::V2Report { group: v4("239.1.1.1") }),
            true,
        ),
        (
            IGMPV2_LEAVE,
            Body::Igmp(IgmpMessage::V2Leave { group: v4("239.1.1.1") }),
            true,
        ),
        (IGMPV3_SIX_KINDS, igmpv3(six), true),
        (IGMPV3_AUX_AND_UNKNOWN, igmpv3(aux), false),
        (MLDV1_QUERY, mld_query(10_000, "::", None), true),
        (MLDV1_REPORT, Body::Mld(MldMessage::V1Report { group }), true),
        (MLDV1_DONE, Body::Mld(MldMessage::V1Done { group }), true),
        (MLDV2_QUERY, mld_query(0x8001, "ff3e::8000:1", Some(mldv2_tail)), true),
        (
            MLDV2_REPORT,
            Body::Mld(MldMessage::V2Report(Report {
                records: mldv2,
                missing: 0,
            })),
            true,
        ),
    ]
}

fn encode(message: &ControlMessage) -> Vec<u8> {
    let Envelope {
        source,
        destination,
        ttl,
        router_alert,
    } = message.envelope;
    match (source, destination, &message.body) {
        (IpAddr::V4(source), IpAddr::V4(destination), Body::Igmp(body)) => {
            encode_igmp(source, destination, ttl, router_alert, body).unwrap()
        }
        (IpAddr::V6(source), IpAddr::V6(destination), Body::Mld(body)) => {
            encode_mld(source, destination, ttl, router_alert, body).unwrap()
        }
        _ => panic!("an envelope of the other family"),
    }
}

#[test]
fn reads_every_kind_of_message() {
    for (text, body, _) in known() {
        assert_eq!(read(text).body, body, "{text}");
    }
}

#[test]
fn writes_the_same_bytes() {
    for (text, _, same) in known() {
        let message = read(text);
        let bytes = encode(&message);
        assert_eq!(bytes == hex(text), same, "{text}");
        assert_eq!(whole(&bytes), Ok(message), "{text}");
    }
}

#[test]
fn reads_the_envelope() {
    let envelope = read(IGMPV3_QUERY).envelope;
    let expected = Envelope {
        source: v4("10.0.0.9").into(),
        destination: v4("224.3.4.5").into(),
        ttl: 1,
        router_alert: true,
    };
    assert_eq!(envelope, expected);
    assert!(!read(IGMPV1_REPORT).envelope.router_alert);
    assert_eq!(read(MLDV2_REPORT).envelope.source, IpAddr::from(v6("fe80::9")));
}

/// Times by RFC 9776 §4.1.1, §7.1 and RFC 9777 §5.1.3: 20 s is 200 tenths and not the 384 of the floating-point form.
#[test]
fn tells_query_versions_and_times() {
    let igmp = |text| match read(text).body {
        Body::Igmp(IgmpMessage::Query(query)) => query,
        other => panic!("{other:?}"),
    };
    let of = |query: IgmpQuery| (query.version(), query.max_response(), query.is_general());
    assert_eq!(of(igmp(IGMPV1_QUERY)), (1, Duration::from_secs(10), true));
    assert_eq!(of(igmp(IGMPV2_QUERY)), (2, Duration::from_secs(20), false));
    assert_eq!(of(igmp(IGMPV3_QUERY)), (3, Duration::from_millis(300), false));
    assert_eq!(
        igmp(IGMPV3_QUERY).tail.unwrap().query_interval(),
        Duration::from_secs(10)
    );

    // What an IGMPv1 query has where later versions name a group is ignored (RFC 1112, appendix I).
    let mut named = igmp(IGMPV1_QUERY);
    named.group = v4("239.1.1.1");
    assert!(named.is_general());

    let mld = |text| match read(text).body {
        Body::Mld(MldMessage::Query(query)) => query,
        other => panic!("{other:?}"),
    };
    let of = |query: &MldQuery| (query.version(), query.max_response(), query.is_general());
    assert_eq!(of(&mld(MLDV1_QUERY)), (1, Duration::from_secs(10), true));
    assert_eq!(of(&mld(MLDV2_QUERY)), (2, Duration::from_millis(32_776), false));
    assert_eq!(
        mld(MLDV2_QUERY).tail.unwrap().query_interval(),
        Duration::from_secs(248)
    );
}

#[test]
fn ignores_queries_of_a_length_that_no_version_has() {
    for extra in 1..4 {
        let mut bytes = hex(IGMPV1_QUERY);
        bytes.extend(vec![0; extra]);
        bytes[3] += extra as u8;
        let message = whole(&bytes).unwrap();
        assert_eq!(message.body, Body::Igmp(IgmpMessage::Other { kind: 0x11 }));
        assert_eq!(message.checksum, Checksum::Good);

        let mut bytes = hex(MLDV1_QUERY);
        bytes.extend(vec![0; extra]);
        bytes[5] += extra as u8;
        assert_eq!(whole(&bytes).unwrap().body, Body::Mld(MldMessage::Other { kind: 130 }));
    }
}

#[test]
fn keeps_other_igmp_types_as_such() {
    for kind in [0x13, 0x14, 0x1e, 0x1f, 0x30, 0xff] {
        let body = IgmpMessage::Other { kind };
        let bytes = encode_igmp(v4("10.0.0.9"), v4("224.0.0.4"), 64, false, &body).unwrap();
        let message = whole(&bytes).unwrap();
        assert_eq!(message.body, Body::Igmp(body));
        assert_eq!(
            message.deviations(),
            Deviations {
                ttl: true,
                ..Deviations::default()
            }
        );
    }
}

/// Multicast router solicitation and termination are type, reserved and checksum (RFC 4286 §3.2, §3.3): by hand, 0x3100
/// and 0xceff sum to 0xffff. No membership message is that short.
#[test]
fn takes_4_bytes_for_a_message_of_another_type_only() {
    let packet = |kind: u8, checksum: u16| {
        let [high, low] = checksum.to_be_bytes();
        let mut bytes = hex(IGMPV1_REPORT);
        bytes.truncate(20);
        bytes[3] = 24;
        bytes.extend([kind, 0, high, low]);
        bytes
    };
    let message = whole(&packet(0x31, 0xceff)).unwrap();
    assert_eq!(message.body, Body::Igmp(IgmpMessage::Other { kind: 0x31 }));
    assert_eq!(message.checksum, Checksum::Good);
    assert_eq!(whole(&packet(0x32, 0xceff)).unwrap().checksum, Checksum::Bad);
    for kind in [0x11, 0x12, 0x16, 0x17, 0x22] {
        assert_eq!(
            whole(&packet(kind, 0)),
            Err(DecodeError::TooShort {
                what: "IGMP message",
                need: 8,
                have: 4
            })
        );
    }
    let mut bytes = packet(0x31, 0xceff);
    bytes[3] = 23;
    assert_eq!(whole(&bytes).unwrap_err().reason(), "too_short");
}

#[test]
fn reports_a_wrong_checksum_and_still_reads_the_message() {
    for (text, body, _) in known() {
        let mut bytes = hex(text);
        let at = if bytes[0] >> 4 == 6 {
            48
        } else {
            usize::from(bytes[0] & 0x0f) * 4
        };
        bytes[at + 3] ^= 0x01;
        let message = whole(&bytes).unwrap();
        assert_eq!((message.checksum, message.body), (Checksum::Bad, body), "{text}");
    }
}

/// MLD's checksum covers the addresses: the same message under another source is wrong (RFC 8200 §8.1).
#[test]
fn covers_the_addresses_in_mld() {
    let mut bytes = hex(MLDV2_REPORT);
    bytes[23] ^= 0x04;
    assert_eq!(whole(&bytes).unwrap().checksum, Checksum::Bad);
}

#[test]
fn reports_deviating_envelopes_without_rejecting_them() {
    let query = IgmpMessage::V2Report { group: v4("239.1.1.1") };
    let bytes = encode_igmp(v4("224.0.0.9"), v4("224.0.0.22"), 64, false, &query).unwrap();
    let all = Deviations {
        ttl: true,
        router_alert: true,
        source: true,
        destination: true,
    };
    assert_eq!(whole(&bytes).unwrap().deviations(), all);

    let done = MldMessage::V1Done { group: v6("ff15::1") };
    let bytes = encode_mld(v6("2001:db8::9"), v6("ff15::1"), 64, false, &done).unwrap();
    assert_eq!(whole(&bytes).unwrap().deviations(), all);
}

#[test]
fn takes_the_unspecified_source_where_it_is_legal() {
    let source_deviates = |bytes: Vec<u8>| whole(&bytes).unwrap().deviations().source;
    let report = IgmpMessage::V3Report(Report {
        records: vec![],
        missing: 0,
    });
    assert!(!source_deviates(
        encode_igmp(v4("0.0.0.0"), v4("224.0.0.22"), 1, true, &report).unwrap()
    ));
    let report = MldMessage::V2Report(Report {
        records: vec![],
        missing: 0,
    });
    assert!(!source_deviates(
        encode_mld(v6("::"), v6("ff02::16"), 1, true, &report).unwrap()
    ));
    let done = MldMessage::V1Done { group: v6("ff15::1") };
    assert!(source_deviates(
        encode_mld(v6("::"), v6("ff02::2"), 1, true, &done).unwrap()
    ));
}

/// The cases that Antrea's own IGMP parser is tested with, and the lengths that lie.
#[test]
fn rejects_what_is_no_control_message() {
    let changed = |text: &str, at: usize, value: u8| {
        let mut bytes = hex(text);
        bytes[at] = value;
        whole(&bytes).unwrap_err()
    };
    assert_eq!(
        whole(&[]).unwrap_err(),
        DecodeError::TooShort {
            what: "IP header",
            need: 1,
            have: 0
        }
    );
    assert_eq!(changed(IGMPV2_REPORT, 0, 0x56), DecodeError::BadVersion { have: 5 });
    assert_eq!(
        changed(IGMPV2_REPORT, 9, 3),
        DecodeError::NotControl {
            what: "IP protocol",
            have: 3
        }
    );
    assert_eq!(
        changed(IGMPV1_REPORT, 3, 0),
        DecodeError::BadLength {
            what: "IPv4 total length",
            need: 20,
            have: 0
        }
    );
    assert_eq!(
        changed(IGMPV1_REPORT, 3, 29),
        DecodeError::BadLength {
            what: "IPv4 total length",
            need: 28,
            have: 29
        }
    );
    assert_eq!(
        changed(IGMPV1_REPORT, 3, 20),
        DecodeError::TooShort {
            what: "IGMP message",
            need: 4,
            have: 0
        }
    );
    assert_eq!(
        changed(IGMPV1_REPORT, 0, 0x44),
        DecodeError::BadLength {
            what: "IPv4 header length",
            need: 20,
            have: 16
        }
    );
    assert_eq!(changed(IGMPV2_REPORT, 6, 0x20), DecodeError::Fragment { offset: 0 });
    assert_eq!(changed(IGMPV2_REPORT, 7, 0x03), DecodeError::Fragment { offset: 24 });
    assert_eq!(
        changed(MLDV1_REPORT, 40, 17),
        DecodeError::NotControl {
            what: "IPv6 next header",
            have: 17
        }
    );
    assert_eq!(
        changed(MLDV1_REPORT, 48, 135),
        DecodeError::NotControl {
            what: "ICMPv6 type",
            have: 135
        }
    );
    assert_eq!(
        changed(MLDV1_REPORT, 5, 33),
        DecodeError::BadLength {
            what: "IPv6 packet length",
            need: 72,
            have: 73
        }
    );
    assert_eq!(
        changed(MLDV1_REPORT, 5, 31),
        DecodeError::TooShort {
            what: "MLD message",
            need: 24,
            have: 23
        }
    );
    assert_eq!(
        changed(MLDV1_REPORT, 5, 7),
        DecodeError::BadLength {
            what: "IPv6 extension header length",
            need: 7,
            have: 8
        }
    );
}

#[test]
fn follows_a_bounded_number_of_extension_headers() {
    let with = |count: u8| {
        let mut bytes = hex(MLDV1_REPORT);
        let message = bytes.split_off(48);
        bytes[6] = 60;
        bytes.truncate(40);
        for left in (0..count).rev() {
            bytes.extend([if left == 0 { 58 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        bytes[5] = 24 + 8 * count;
        bytes.extend(message);
        whole(&bytes)
    };
    let message = with(8).unwrap();
    assert_eq!(message.checksum, Checksum::Good);
    assert!(!message.envelope.router_alert);
    assert_eq!(with(9), Err(DecodeError::TooManyHeaders { most: 8 }));
}

/// An authentication header of 12 bytes counts 1 (RFC 4302 §2.2); the programs step over it too.
#[test]
fn follows_an_authentication_header() {
    let mut bytes = hex(MLDV1_REPORT);
    bytes[40] = 51;
    bytes[5] += 12;
    bytes.splice(48..48, [58, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
    let message = whole(&bytes).unwrap();
    assert_eq!(message.checksum, Checksum::Good);
    assert!(message.envelope.router_alert);
}

#[test]
fn finds_the_router_alert_behind_other_options_and_survives_bad_ones() {
    let alert = |options: [u8; 8]| {
        let mut bytes = hex(IGMPV1_REPORT);
        bytes[0] = 0x47;
        bytes[3] += 8;
        bytes.splice(20..20, options);
        whole(&bytes).unwrap().envelope.router_alert
    };
    assert!(alert([1, 0x83, 3, 4, 148, 4, 0, 0]));
    assert!(!alert([0, 0, 0, 0, 148, 4, 0, 0]), "behind the end of the options");
    assert!(
        !alert([7, 0, 0, 0, 148, 4, 0, 0]),
        "an option of length 0 must not hang the walk"
    );
    assert!(!alert([7, 255, 0, 0, 148, 4, 0, 0]), "an option beyond the header");
    assert!(!alert([148, 4, 0, 0, 7, 255, 0, 0]), "a broken option behind the alert");
    assert!(!alert([148, 8, 0, 0, 0, 0, 0, 0]), "4 bytes, RFC 2113 §2.1");
    assert!(!alert([148, 2, 1, 1, 1, 1, 1, 1]), "4 bytes, RFC 2113 §2.1");

    let alert = |options: [u8; 6]| {
        let mut bytes = hex(MLDV1_REPORT);
        bytes[42..48].copy_from_slice(&options);
        whole(&bytes).unwrap().envelope.router_alert
    };
    assert!(alert([0, 0, 5, 2, 0, 0]));
    assert!(!alert([5, 4, 0, 0, 0, 0]), "2 bytes, RFC 2711 §2.1");
    assert!(!alert([5, 0, 1, 2, 0, 0]), "2 bytes, RFC 2711 §2.1");
    assert!(!alert([5, 2, 0, 0, 1, 9]), "a broken option behind the alert");
}

/// A record count or source count larger than the data is malformed for every receiver of the whole message.
#[test]
fn refuses_lists_longer_than_the_message() {
    let mut bytes = hex(IGMPV3_SIX_KINDS);
    bytes[31] = 7;
    assert_eq!(
        whole(&bytes),
        Err(DecodeError::TooShort {
            what: "group record header",
            need: 4,
            have: 0
        })
    );
    let mut bytes = hex(IGMPV3_QUERY);
    bytes[34] = 0xff;
    assert_eq!(
        whole(&bytes),
        Err(DecodeError::TooShort {
            what: "sources of a query",
            need: 0xff01 * 4,
            have: 4
        })
    );
    let mut bytes = hex(IGMPV3_AUX_AND_UNKNOWN);
    bytes[33] = 7;
    assert_eq!(
        whole(&bytes),
        Err(DecodeError::TooShort {
            what: "auxiliary data of a record",
            need: 28,
            have: 24
        })
    );
}

#[test]
fn takes_an_empty_report_and_a_full_one() {
    let empty = IgmpMessage::V3Report(Report {
        records: vec![],
        missing: 0,
    });
    let bytes = encode_igmp(v4("10.0.0.9"), v4("224.0.0.22"), 1, true, &empty).unwrap();
    assert_eq!(bytes.len(), 24 + 8);
    assert_eq!(whole(&bytes).unwrap().body.records(), 0);

    // (1500 - 24 - 8) / 8 = 183 records fill an MTU of 1500.
    let full = IgmpMessage::V3Report(Report {
        records: vec![record(RecordKind::ChangeToExclude, "10.1.1.1", &[]); 183],
        missing: 0,
    });
    let bytes = encode_igmp(v4("10.0.0.9"), v4("224.0.0.22"), 1, true, &full).unwrap();
    assert_eq!(bytes.len(), 1496);
    let message = whole(&bytes).unwrap();
    assert_eq!((message.body.records(), message.body), (183, Body::Igmp(full)));
}

#[test]
fn ignores_padding_and_data_behind_the_declared_end() {
    for (text, body, _) in known() {
        let mut bytes = hex(text);
        bytes.extend([0xa5; 14]);
        let message = whole(&bytes).unwrap();
        assert_eq!(
            (message.body, message.checksum, message.cut),
            (body, Checksum::Good, false),
            "{text}"
        );
    }
}

/// Every prefix of every packet: an error, or a message of the same version that says what is missing.
#[test]
fn yields_what_can_be_trusted_of_a_cut_capture() {
    for (text, body, _) in known() {
        let bytes = hex(text);
        for length in 1..bytes.len() {
            match decode(&bytes[..length], bytes.len() as u32) {
                Err(error) => assert_eq!(error.reason(), "too_short", "{length} bytes of {text}"),
                Ok(message) => {
                    assert_eq!((message.cut, message.checksum), (true, Checksum::Unknown));
                    assert_eq!(message.body.records(), body.records());
                    assert_prefix(&message.body, &body);
                }
            }
        }
    }
}

fn assert_prefix(cut: &Body, whole: &Body) {
    fn lists<A: Clone + PartialEq + std::fmt::Debug>(cut: (&[A], u16), whole: &[A]) {
        assert!(whole.starts_with(cut.0));
        assert_eq!(cut.0.len() + usize::from(cut.1), whole.len());
    }
    match (cut, whole) {
        (Body::Igmp(IgmpMessage::V3Report(cut)), Body::Igmp(IgmpMessage::V3Report(whole))) => {
            lists((&cut.records, cut.missing), &whole.records);
        }
        (Body::Mld(MldMessage::V2Report(cut)), Body::Mld(MldMessage::V2Report(whole))) => {
            lists((&cut.records, cut.missing), &whole.records);
        }
        (Body::Igmp(IgmpMessage::Query(cut)), Body::Igmp(IgmpMessage::Query(whole))) => {
            assert_eq!((cut.version(), cut.group), (whole.version(), whole.group));
            if let (Some(cut), Some(whole)) = (&cut.tail, &whole.tail) {
                lists((&cut.sources, cut.missing), &whole.sources);
            }
        }
        (Body::Mld(MldMessage::Query(cut)), Body::Mld(MldMessage::Query(whole))) => {
            assert_eq!((cut.version(), cut.group), (whole.version(), whole.group));
            if let (Some(cut), Some(whole)) = (&cut.tail, &whole.tail) {
                lists((&cut.sources, cut.missing), &whole.sources);
            }
        }
        (cut, whole) => assert_eq!(cut, whole),
    }
}

#[test]
fn every_error_has_a_reason_and_a_text() {
    let error = whole(&hex(IGMPV1_REPORT)[..21]).unwrap_err();
    assert_eq!(error.reason(), "bad_length");
    assert_eq!(error.to_string(), "IPv4 total length is 28 where the limit is 21");
    assert_eq!(DecodeError::Fragment { offset: 8 }.reason(), "fragment");
}
