//! The table that a real Open vSwitch learns by snooping, read over its control socket.
#![allow(clippy::unwrap_used, reason = "tests")]

mod pods_lab;
mod support;
mod switch_lab;

use std::{net::IpAddr, time::Duration};

use mcstat::{
    agent::ovs::snooping::{SnoopingError, control_socket, read},
    proto::mdb::{Mdb, MdbMember, MdbPort},
};
use pods_lab::sh;
use support::wire::Sender;
use switch_lab::Switch;

/// An IGMP message from 10.0.0.9 in IP and Ethernet. Nobody checks the IP header's sum.
fn frame(destination: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 0, 0x5e];
    frame.extend([destination[1] & 0x7f, destination[2], destination[3]]);
    frame.extend([0x0a, 0, 0, 0, 0, 9, 8, 0]);
    let length = u8::try_from(20 + message.len()).unwrap();
    frame.extend([0x45, 0, 0, length, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 9]);
    frame.extend(destination);
    frame.extend(message);
    frame
}

/// Their checksums are worked out by hand: the switch verifies them.
const JOIN_239_1_1_1: [u8; 8] = [0x16, 0, 0xf9, 0xfc, 239, 1, 1, 1];
const GENERAL_QUERY: [u8; 8] = [0x11, 0x64, 0xee, 0x9b, 0, 0, 0, 0];

#[test]
fn joins_and_queriers_are_what_ovs_appctl_prints() {
    let switch = Switch::new("s");
    // Else the kernel reports groups of its own on the ports.
    sh(&format!(
        "ip netns exec {} sh -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'",
        switch.lab.node
    ));
    switch.vsctl(
        "set bridge br-int mcast_snooping_enable=true -- \
         add-port br-int p1 -- set interface p1 type=internal ofport_request=1 -- \
         add-port br-int p2 tag=7 -- set interface p2 type=internal ofport_request=2",
    );
    sh(&format!(
        "ovs-ofctl add-flow {} actions=NORMAL",
        switch.path("br-int.mgmt").display()
    ));
    for port in ["p1", "p2"] {
        sh(&format!("ip -n {} link set {port} up", switch.lab.node));
    }
    switch.lab.run(async || {
        Sender::on("p1").passes(&frame([239, 1, 1, 1], &JOIN_239_1_1_1));
        Sender::on("p2").passes(&frame([239, 1, 1, 1], &JOIN_239_1_1_1));
        Sender::on("p1").passes(&frame([224, 0, 0, 1], &GENERAL_QUERY));
        let control = control_socket(switch.run_dir()).unwrap();
        // The switch reads its ports in its own time.
        let mut mdb = Mdb::default();
        for _ in 0..1000 {
            mdb = read(&control, "br-int").await.unwrap();
            if mdb.members.len() + mdb.queriers.len() == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let printed = switch.appctl("mdb/show br-int");
        assert_eq!(printed.lines().count(), 4, "{printed}");
        mdb.members.sort_by_key(|member| member.port);
        for member in &mut mdb.members {
            assert!(member.age_seconds < 300);
            // What a newer switch adds.
            (member.age_seconds, member.protocol) = (0, None);
        }
        let member = |port, vlan| MdbMember {
            port: MdbPort::Number(port),
            vlan,
            protocol: None,
            group: IpAddr::from([239, 1, 1, 1]),
            age_seconds: 0,
        };
        assert_eq!(mdb.members, [member(1, 0), member(2, 7)], "{printed}");
        let queriers: Vec<(MdbPort, u16)> = mdb
            .queriers
            .iter()
            .map(|querier| (querier.port, querier.vlan))
            .collect();
        assert_eq!(queriers, [(MdbPort::Number(1), 0)], "{printed}");

        let error = read(&control, "br-none").await.unwrap_err();
        assert_eq!(error.to_string(), "ovs-vswitchd: no such bridge");
        switch.vsctl("set bridge br-int mcast_snooping_enable=false");
        let error = read(&control, "br-int").await.unwrap_err();
        assert!(
            matches!(&error, SnoopingError::Refused(text) if text.contains("snooping")),
            "{error}"
        );
    });
    let error = control_socket(&switch.run_dir().join("nothing")).unwrap_err();
    assert!(matches!(error, SnoopingError::Io { .. }), "{error}");
}
