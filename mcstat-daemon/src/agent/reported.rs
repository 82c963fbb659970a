//! Whose sources may have changed though its groups did not, for the second witness. Pure.
//!
//! A host that speaks IGMPv3 and MLDv2 reports a change of its sources. One that speaks an older version, of its own or
//! since a querier made it, has no message for that, so its sources are asked for at every tick.

use std::collections::BTreeSet;

use crate::{
    ledger::snapshot::{ControlEvent, Direction, PodRef, PortReading},
    proto::{control::Body, igmp::IgmpMessage, mld::MldMessage},
};

/// Which ports spoke an older version when they reported last.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// (port id, of IPv4).
    older: BTreeSet<(u32, bool)>,
}

impl Reported {
    /// The Pods that sent a control message since the last call, whatever it was, and those of an older version.
    pub(super) fn pods<'a>(&mut self, ports: &'a [PortReading], messages: &[ControlEvent]) -> BTreeSet<&'a PodRef> {
        let mut ids = BTreeSet::new();
        for event in messages.iter().filter(|event| event.direction == Direction::Outbound) {
            ids.insert(event.port);
            let spoken = event.message.as_ref().ok().and_then(|message| older(&message.body));
            match spoken {
                Some((ipv4, true)) => self.older.insert((event.port, ipv4)),
                Some((ipv4, false)) => self.older.remove(&(event.port, ipv4)),
                None => false,
            };
        }
        let listed: BTreeSet<u32> = ports.iter().map(|port| port.id).collect();
        self.older.retain(|(id, _)| listed.contains(id));
        ids.extend(self.older.iter().map(|(id, _)| *id));
        let found = ports.iter().filter(|port| ids.contains(&port.id));
        found.map(|port| &port.pod).collect()
    }
}

/// Of a report: whether it is one of IPv4, and of a version without sources.
fn older(body: &Body) -> Option<(bool, bool)> {
    match body {
        Body::Igmp(IgmpMessage::V1Report { .. } | IgmpMessage::V2Report { .. }) => Some((true, true)),
        Body::Igmp(IgmpMessage::V3Report(_)) => Some((true, false)),
        Body::Mld(MldMessage::V1Report { .. }) => Some((false, true)),
        Body::Mld(MldMessage::V2Report(_)) => Some((false, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::proto::{
        control::{decode, encode_igmp},
        wire::Report,
    };

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);

    fn ports(names: &[(u32, &str)]) -> Vec<PortReading> {
        let port = |(id, name): &(u32, &str)| {
            serde_json::from_value(json!({
                "id": id, "pod": {"namespace": "mkt", "name": name, "sandbox": name}, "interface": "eth0",
                "hostInterface": name, "ifindex": id, "start": "2026-01-01T00:00:00Z",
            }))
        };
        names.iter().map(|name| port(name).unwrap()).collect()
    }

    fn message(port: u32, direction: Direction, message: &IgmpMessage) -> ControlEvent {
        let packet = encode_igmp([10, 0, 0, 1].into(), GROUP, 1, true, message).unwrap();
        ControlEvent {
            port,
            direction,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            original_length: packet.len() as u32,
            message: decode(&packet, packet.len() as u32),
        }
    }

    #[test]
    fn a_host_of_an_older_version_is_asked_until_it_speaks_the_newest() {
        let ports = ports(&[(1, "a"), (2, "b")]);
        let mut reported = Reported::default();
        let mut told = |messages: &[ControlEvent]| -> Vec<String> {
            let pods = reported.pods(&ports, messages);
            pods.into_iter().map(|pod| pod.name.clone()).collect()
        };
        let v2 = IgmpMessage::V2Report { group: GROUP };
        let v3 = IgmpMessage::V3Report(Report {
            records: Vec::new(),
            missing: 0,
        });
        let leave = IgmpMessage::V2Leave { group: GROUP };
        assert_eq!(told(&[message(2, Direction::Outbound, &v3)]), ["b"]);
        assert!(told(&[]).is_empty(), "the newest version says what changes");
        assert!(
            told(&[message(1, Direction::Inbound, &v2)]).is_empty(),
            "another's report"
        );
        assert_eq!(told(&[message(1, Direction::Outbound, &v2)]), ["a"]);
        assert_eq!(told(&[]), ["a"]);
        assert_eq!(told(&[message(1, Direction::Outbound, &leave)]), ["a"]);
        assert_eq!(told(&[message(1, Direction::Outbound, &v3)]), ["a"]);
        assert!(told(&[]).is_empty());
        assert!(told(&[message(7, Direction::Outbound, &v2)]).is_empty(), "no such port");
    }
}
