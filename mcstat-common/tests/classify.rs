//! The classifier against frames written down by hand.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod cases;
#[path = "../../mcstat-daemon/tests/support/frames.rs"]
mod frames;

use std::net::{IpAddr, Ipv6Addr};

use cases::Expect;
use mcstat_common::{
    abi::IPV4,
    frame::{CONTROL_COUNTERS, Class, Datagram, NEIGHBOUR_DISCOVERY, classify, is_ssm, mapped},
};

/// The address of two words, as `read` in the agent makes it.
fn address(words: [u64; 2], family: u8) -> IpAddr {
    let bytes = [words[0].to_ne_bytes(), words[1].to_ne_bytes()].concat();
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap());
    if family == IPV4 {
        IpAddr::V4(address.to_ipv4_mapped().expect("an IPv4-mapped address"))
    } else {
        IpAddr::V6(address)
    }
}

fn seen(class: Class) -> Expect {
    match class {
        Class::Foreign => Expect::Nothing,
        Class::Data(data) => Expect::Data(
            address(data.group, data.family),
            address(data.source, data.family),
            data.ttl,
        ),
        Class::Control(control) => Expect::Counter(control.kind as usize),
        Class::NeighbourDiscovery => Expect::Counter(NEIGHBOUR_DISCOVERY as usize),
        Class::Malformed(reason) => Expect::Counter(reason as usize),
        Class::Unreachable => panic!("a slice reaches everything"),
    }
}

#[test]
fn every_frame_of_the_table_is_what_the_rfcs_say() {
    let wrong: Vec<String> = cases::all()
        .into_iter()
        .filter_map(|case| {
            let found = seen(classify(&case.frame.as_slice()));
            (found != case.expect).then(|| format!("{}: {found:?}, wanted {:?}", case.name, case.expect))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_meets_every_counter() {
    let cases = cases::all();
    for counter in 0..CONTROL_COUNTERS as usize {
        assert!(
            cases.iter().any(|case| case.expect == Expect::Counter(counter)),
            "no case for counter {counter}"
        );
    }
}

#[test]
fn a_message_is_said_to_begin_at_its_ip_header() {
    let untagged = frames::frame4(&frames::ipv4(
        [10, 0, 0, 2].into(),
        [224, 0, 0, 22].into(),
        2,
        1,
        0,
        &[0x22, 0, 0, 0, 0, 0, 0, 0],
    ));
    let tagged = frames::tagged(&untagged, 0x8100, 1);
    for (frame, offset) in [
        (untagged, 14),
        (tagged.clone(), 18),
        (frames::tagged(&tagged, 0x88a8, 1), 22),
    ] {
        match classify(&frame.as_slice()) {
            Class::Control(control) => assert_eq!(control.ip_offset, offset),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn ssm_ranges_are_those_of_rfc_4607() {
    let datagram = |group: &str| {
        let (words, family) = match group.parse().unwrap() {
            IpAddr::V4(group) => (mapped(u32::from_ne_bytes(group.octets())), 4),
            IpAddr::V6(group) => {
                let octets = group.octets();
                let word = |at: usize| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap());
                ([word(0), word(8)], 6)
            }
        };
        Datagram {
            group: words,
            source: [0, 1],
            family,
            ttl: 1,
        }
    };
    for (group, ssm) in [
        ("232.0.0.0", true),
        ("232.255.255.255", true),
        ("231.255.255.255", false),
        ("233.0.0.0", false),
        ("224.0.0.232", false),
        ("ff3e::1", true),
        ("ff30::8000:1", true),
        ("ff3f:0:ffff:ffff:ffff:ffff:ffff:ffff", true),
        ("ff3e:1::1", false),
        ("ff2e::1", false),
        ("ff7e::1", false),
        ("ff0e::1", false),
    ] {
        assert_eq!(is_ssm(&datagram(group)), ssm, "{group}");
    }
}
