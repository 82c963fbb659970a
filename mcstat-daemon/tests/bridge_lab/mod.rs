//! A Linux bridge that snoops and queries, hosts behind its ports, and what passes the ports.
//!
//! The caller's thread is in the bridge's network namespace; every host has its own. All of it goes with the last
//! descriptor. The bridge queries by IGMPv3 and MLDv2 with short timers that follow from one another as the RFCs say.
#![allow(missing_docs, unreachable_pub, reason = "test support")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod host;
pub mod mdb;

use jiff::Timestamp;
use mcstat::{
    ledger::snapshot::{ControlEvent, Direction, PodRef, PortReading},
    proto::control::decode,
};
use mcstat_common::frame::{Class, classify};

use crate::support::{
    ip, run,
    wire::{Capture, Netns, Wire, eventually, sysctl},
};
use host::{Host, Versions};

/// The bridge's query interval. A host that speaks IGMPv1 answers within 10 s whatever the query says, so that twice the
/// interval must be longer than the interval and those 10 s.
pub const QUERY_INTERVAL_SECONDS: u32 = 10;

/// One port of the bridge and the hosts behind it.
pub struct Port {
    pub id: u32,
    /// Name of the port at the bridge.
    pub name: String,
    capture: Capture,
    pub hosts: Vec<Host>,
    /// Keeps the namespace behind the port.
    _wire: Wire,
}

/// Makes the bridge; its ports come after.
pub fn make_bridge() {
    let hundredths = QUERY_INTERVAL_SECONDS * 100;
    sysctl("net/ipv6/conf/default/accept_dad", 0);
    // Response 1 s, last member 0.1 s twice; membership = 2 × query interval + response.
    ip(&format!(
        "link add br0 type bridge mcast_snooping 1 mcast_query_use_ifaddr 1 mcast_igmp_version 3 mcast_mld_version 2 \
         mcast_query_interval {hundredths} mcast_query_response_interval 100 mcast_membership_interval {} \
         mcast_last_member_interval 10 mcast_last_member_count 2 mcast_startup_query_interval 150 \
         mcast_startup_query_count 6",
        2 * hundredths + 100
    ));
    // Only now: for a response interval, of which the one set at that moment counts, a new querier floods as if there were
    // none. The flooded reports would silence hosts of the older versions.
    ip("link set br0 type bridge mcast_querier 1");
    ip("address add 10.9.0.1/24 dev br0");
    ip("link set br0 up");
}

impl Port {
    /// A port with one host.
    pub fn with_host(id: u32, versions: Versions) -> Self {
        let name = format!("port{id}");
        let wire = Wire::with_ipv6(&name);
        // The namespace stays when the wire's own handle goes.
        let host = Host::new(wire.pod.share(), versions, [10, 9, 0, 10 * id as u8]);
        Self::join(id, name, wire, vec![host])
    }

    /// A port with two hosts that hear each other: behind it is a bridge that does not snoop.
    pub fn with_two_hosts(id: u32, versions: Versions) -> Self {
        let name = format!("port{id}");
        let wire = Wire::new(&name);
        let hosts = (1..=2u8).map(|number| {
            let inner = format!("inner{number}");
            wire.pod.run(|| {
                if number == 1 {
                    ip("link add hub type bridge mcast_snooping 0");
                    ip("link set eth0 master hub");
                    ip("link set hub up");
                }
            });
            let netns = Netns::new();
            wire.pod.run(|| {
                ip(&format!(
                    "link add {inner} type veth peer name eth0 netns {}",
                    netns.path()
                ));
                ip(&format!("link set {inner} master hub up"));
            });
            netns.run(|| ip("link set lo up"));
            Host::new(netns, versions, [10, 9, 0, 10 * id as u8 + number])
        });
        let hosts = hosts.collect();
        Self::join(id, name, wire, hosts)
    }

    fn join(id: u32, name: String, wire: Wire, hosts: Vec<Host>) -> Self {
        ip(&format!("link set {name} master br0 up"));
        // Before the hosts say their first word.
        let capture = Capture::on(&name);
        wire.up(1500);
        hosts.iter().for_each(Host::up);
        Self {
            id,
            name,
            capture,
            hosts,
            _wire: wire,
        }
    }

    /// The IGMP and MLD messages that passed since the last call, as the agent hands them to the ledger.
    pub fn events(&self) -> Vec<ControlEvent> {
        let at = Timestamp::now();
        let seen = self.capture.take().into_iter();
        let events = seen.filter_map(|seen| {
            let Class::Control(control) = classify(&seen.frame.as_slice()) else {
                return None;
            };
            let packet = &seen.frame[control.ip_offset..];
            let length = packet.len() as u32;
            Some(ControlEvent {
                port: self.id,
                // What the bridge sends is handed to the Pod.
                direction: if seen.outgoing {
                    Direction::Inbound
                } else {
                    Direction::Outbound
                },
                at,
                original_length: length,
                message: decode(packet, length),
            })
        });
        events.collect()
    }

    /// The port as a Pod's interface without traffic.
    pub fn reading(&self, start: Timestamp) -> PortReading {
        PortReading {
            id: self.id,
            pod: PodRef {
                namespace: "lab".into(),
                name: self.name.clone(),
                sandbox: self.name.clone(),
            },
            interface: "eth0".into(),
            host_interface: self.name.clone(),
            ifindex: self.id,
            start,
            outbound: Default::default(),
            inbound: Default::default(),
        }
    }
}

/// Waits until every host has an address of both families to report from.
pub fn wait_for_addresses(ports: &[Port]) {
    for host in ports.iter().flat_map(|port| &port.hosts) {
        eventually("a link-local address that is no longer tentative", || {
            let text = host.netns.run(|| run("ip", "-6 address show dev eth0 scope link"));
            text.contains("inet6") && !text.contains("tentative")
        });
    }
}
