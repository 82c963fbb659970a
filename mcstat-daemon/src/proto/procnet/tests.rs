//! Text that Linux 6.18 (x86-64) printed in a namespace whose sockets are known, and text of no kernel.
//!
//! `tests/golden/procnet` was recorded with: eth0 forced to IGMPv1, net1 to IGMPv2, `macvlan12345678` free; 239.1.1.1
//! joined on all three (twice on the last), 239.2.3.4 joined there with 192.0.2.7 blocked, 232.10.20.30 by one socket for
//! 192.0.2.1 and 192.0.2.2 and by another for 192.0.2.1; ff0e::5 joined with 2001:db8::2 blocked, ff3e::1234 for
//! 2001:db8::1; 20 datagrams to 127.0.0.1:5000 and 7 to `[::1]`:5001, each with room for one.

use proptest::prelude::*;

use super::*;

const IGMP: &[u8] = include_bytes!("../../../tests/golden/procnet/igmp");
const IGMP6: &[u8] = include_bytes!("../../../tests/golden/procnet/igmp6");
const MCFILTER: &[u8] = include_bytes!("../../../tests/golden/procnet/mcfilter");
const MCFILTER6: &[u8] = include_bytes!("../../../tests/golden/procnet/mcfilter6");
const UDP: &[u8] = include_bytes!("../../../tests/golden/procnet/udp");
const UDP6: &[u8] = include_bytes!("../../../tests/golden/procnet/udp6");
const SNMP: &[u8] = include_bytes!("../../../tests/golden/procnet/snmp");
const SNMP6: &[u8] = include_bytes!("../../../tests/golden/procnet/snmp6");

/// `index name version: group×users …`, loopback and the outer ends left out.
fn shown(interfaces: &[Interface]) -> Vec<String> {
    let inside = interfaces
        .iter()
        .filter(|interface| interface.name != "lo" && !interface.name.starts_with('p'));
    inside
        .map(|interface| {
            let Interface {
                ifindex,
                name,
                version,
                groups,
            } = interface;
            let groups: Vec<String> = groups.iter().map(|g| format!("{}×{}", g.group, g.users)).collect();
            format!("{ifindex} {name} {version:?}: {}", groups.join(" "))
        })
        .collect()
}

#[test]
fn igmp_tells_interfaces_versions_groups_and_users() {
    assert_eq!(
        shown(&igmp(IGMP).unwrap()),
        [
            "3 eth0 Some(1): 239.1.1.1×1 224.0.0.1×1",
            "5 net1 Some(2): 239.1.1.1×1 224.0.0.1×1",
            "7 macvlan12345678 Some(3): 232.10.20.30×2 239.2.3.4×1 239.1.1.1×2 224.0.0.1×1",
        ]
    );
}

#[test]
fn igmp6_tells_interfaces_groups_and_users() {
    let interfaces = igmp6(IGMP6).unwrap();
    assert_eq!(interfaces.len(), 7);
    assert_eq!(
        shown(&interfaces),
        [
            "3 eth0 None: ff02::1:ff2a:4b9×1 ff02::1×1 ff01::1×1",
            "5 net1 None: ff02::1:ffc8:815d×1 ff02::1×1 ff01::1×1",
            "7 macvlan12345678 None: ff0e::5×1 ff3e::1234×1 ff02::1:fff7:48d2×1 ff02::1×1 ff01::1×1",
        ]
    );
}

#[test]
fn a_running_timer_changes_nothing() {
    let running = String::from_utf8_lossy(IGMP).replace("0:00000000", "1:0000002B");
    assert_ne!(running.as_bytes(), IGMP);
    assert_eq!(igmp(running.as_bytes()), igmp(IGMP));
}

#[test]
fn mcfilter_tells_sources_by_the_interfaces_index() {
    let shown = |sources: Vec<Source>| -> Vec<String> {
        sources
            .iter()
            .map(|s| format!("{} {} {} +{} -{}", s.ifindex, s.group, s.source, s.include, s.exclude))
            .collect()
    };
    assert_eq!(
        shown(mcfilter(MCFILTER).unwrap()),
        [
            "7 232.10.20.30 192.0.2.1 +2 -0",
            "7 232.10.20.30 192.0.2.2 +1 -0",
            "7 239.2.3.4 192.0.2.7 +0 -1"
        ]
    );
    assert_eq!(
        shown(mcfilter6(MCFILTER6).unwrap()),
        ["7 ff0e::5 2001:db8::2 +0 -1", "7 ff3e::1234 2001:db8::1 +1 -0"]
    );
}

#[test]
fn udp_tells_local_address_inode_and_drops() {
    let shown = |sockets: Vec<Socket>| -> Vec<String> {
        sockets
            .iter()
            .map(|s| format!("{} {} {} {}", s.address, s.port, s.inode, s.drops))
            .collect()
    };
    assert_eq!(
        shown(udp(UDP).unwrap()),
        ["127.0.0.1 5000 116749 19", "0.0.0.0 54951 116751 0"]
    );
    assert_eq!(shown(udp6(UDP6).unwrap()), ["::1 5001 116750 6", ":: 40061 116752 0"]);
}

#[test]
fn receive_errors_are_those_of_udp_and_not_of_udplite() {
    assert_eq!(receive_errors(SNMP), Ok(19));
    assert_eq!(receive_errors6(SNMP6), Ok(6));
    let (table, counter) = ("snmp", "Udp: RcvbufErrors");
    assert_eq!(
        receive_errors(b"Udp: InDatagrams\nUdp: 4\n"),
        Err(ProcNetError::NoCounter { table, counter })
    );
    assert!(receive_errors6(b"").is_err());
}

#[test]
fn a_line_that_is_not_understood_is_an_error_with_its_number() {
    let bad = |result: Result<(), ProcNetError>, table, line| {
        assert_eq!(result, Err(ProcNetError::Line { table, line }));
    };
    bad(igmp(b"head\n\t\t\t\t010000E0     1\n").map(drop), "igmp", 2);
    bad(igmp(b"head\n1\tlo        :     1      V4\n").map(drop), "igmp", 2);
    bad(igmp6(b"1 lo ff02 1 0 0\n").map(drop), "igmp6", 1);
    bad(
        mcfilter(b"head\n\n 7 eth0 0xe80a141e 0xc0000201 2\n").map(drop),
        "mcfilter",
        3,
    );
    bad(udp(b"head\n 1: 0100007F 0 07\n").map(drop), "udp", 2);
}

/// A cut in the middle of a table is an error or a prefix, never another table.
#[test]
fn a_table_that_is_cut_has_no_groups_of_its_own() {
    let whole = igmp6(IGMP6).unwrap();
    let groups = |interfaces: &[Interface]| -> Vec<Group> {
        interfaces
            .iter()
            .flat_map(|interface| interface.groups.clone())
            .collect()
    };
    for end in 0..IGMP6.len() {
        if let Ok(cut) = igmp6(IGMP6.get(..end).unwrap()) {
            assert!(groups(&whole).starts_with(&groups(&cut)), "{end}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_decoder_panic(
        table in prop::sample::select(vec![IGMP, IGMP6, MCFILTER, MCFILTER6, UDP, UDP6, SNMP, SNMP6]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        end in any::<prop::sample::Index>(),
    ) {
        let mut text = table.to_vec();
        for (at, byte) in edits {
            let at = at.index(text.len());
            text[at] = byte;
        }
        text.truncate(end.index(table.len() + 1));
        let _ = (igmp(&text), igmp6(&text), mcfilter(&text), mcfilter6(&text));
        let _ = (udp(&text), udp6(&text), receive_errors(&text), receive_errors6(&text));
    }
}
