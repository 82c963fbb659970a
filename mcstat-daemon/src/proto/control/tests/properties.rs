//! Properties of the decoder and the encoders: no panic, bounded work, what is sent comes back.

use proptest::{collection::vec, prelude::*};

use super::*;

fn report<A: std::fmt::Debug + Clone>(address: impl Strategy<Value = A> + Clone) -> impl Strategy<Value = Report<A>> {
    let record =
        (any::<u8>(), address.clone(), vec(address, 0..5), 0..4u8).prop_map(|(kind, group, sources, aux_words)| {
            Record {
                kind: kind.into(),
                group,
                sources,
                aux_words,
            }
        });
    vec(record, 0..6).prop_map(|records| Report { records, missing: 0 })
}

fn tail<A: std::fmt::Debug>(address: impl Strategy<Value = A>) -> impl Strategy<Value = QueryTail<A>> {
    (any::<bool>(), 0..8u8, any::<u8>(), vec(address, 0..5)).prop_map(
        |(suppress, robustness, interval_code, sources)| QueryTail {
            suppress,
            robustness,
            interval_code,
            sources,
            missing: 0,
        },
    )
}

fn igmp_messages() -> impl Strategy<Value = IgmpMessage> {
    let group = any::<Ipv4Addr>;
    prop_oneof![
        (any::<u8>(), group(), proptest::option::of(tail(group()))).prop_map(|(max_response_code, group, tail)| {
            IgmpMessage::Query(IgmpQuery {
                max_response_code,
                group,
                tail,
            })
        }),
        group().prop_map(|group| IgmpMessage::V1Report { group }),
        group().prop_map(|group| IgmpMessage::V2Report { group }),
        group().prop_map(|group| IgmpMessage::V2Leave { group }),
        report(group()).prop_map(IgmpMessage::V3Report),
        (0x30..=0xffu8).prop_map(|kind| IgmpMessage::Other { kind }),
    ]
}

fn mld_messages() -> impl Strategy<Value = MldMessage> {
    let group = any::<Ipv6Addr>;
    prop_oneof![
        (any::<u16>(), group(), proptest::option::of(tail(group()))).prop_map(|(max_response_code, group, tail)| {
            MldMessage::Query(MldQuery {
                max_response_code,
                group,
                tail,
            })
        }),
        group().prop_map(|group| MldMessage::V1Report { group }),
        group().prop_map(|group| MldMessage::V1Done { group }),
        report(group()).prop_map(MldMessage::V2Report),
    ]
}

/// Bytes that get past the first checks: a known packet with a few of them changed.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    (
        0..known().len(),
        vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
    )
        .prop_map(|(which, changes)| {
            let mut bytes = hex(known()[which].0);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes
        })
}

proptest! {
    #[test]
    fn never_panics_and_never_grows_beyond_the_input(
        bytes in prop_oneof![vec(any::<u8>(), 0..200), nearly_right()],
        more in 0..2000u32,
    ) {
        if let Ok(message) = decode(&bytes, bytes.len() as u32 + more) {
            let kept = match &message.body {
                Body::Igmp(IgmpMessage::V3Report(report)) => report.records.len(),
                Body::Mld(MldMessage::V2Report(report)) => report.records.len(),
                _ => 0,
            };
            prop_assert!(kept * 8 <= bytes.len());
            prop_assert!(message.cut || kept == message.body.records());
            prop_assert_eq!(message.cut, message.checksum == Checksum::Unknown);
        }
    }

    #[test]
    fn igmp_comes_back_as_it_was_sent(
        source: Ipv4Addr, destination: Ipv4Addr, ttl: u8, router_alert: bool, body in igmp_messages(),
    ) {
        let bytes = encode_igmp(source, destination, ttl, router_alert, &body).unwrap();
        let message = whole(&bytes).unwrap();
        let envelope = Envelope { source: source.into(), destination: destination.into(), ttl, router_alert };
        prop_assert_eq!(message, ControlMessage { envelope, body: Body::Igmp(body), checksum: Checksum::Good, cut: false });
    }

    #[test]
    fn mld_comes_back_as_it_was_sent(
        source: Ipv6Addr, destination: Ipv6Addr, ttl: u8, router_alert: bool, body in mld_messages(),
    ) {
        let bytes = encode_mld(source, destination, ttl, router_alert, &body).unwrap();
        let message = whole(&bytes).unwrap();
        let envelope = Envelope { source: source.into(), destination: destination.into(), ttl, router_alert };
        prop_assert_eq!(message, ControlMessage { envelope, body: Body::Mld(body), checksum: Checksum::Good, cut: false });
    }

    #[test]
    fn a_flipped_bit_in_the_message_is_never_good(
        body in igmp_messages(), at: proptest::sample::Index, bit in 0..8u8,
    ) {
        let mut bytes = encode_igmp(v4("10.0.0.9"), v4("239.1.1.1"), 1, false, &body).unwrap();
        let at = 20 + at.index(bytes.len() - 20);
        bytes[at] ^= 1 << bit;
        if let Ok(message) = whole(&bytes) {
            prop_assert_eq!(message.checksum, Checksum::Bad);
        }
    }
}
