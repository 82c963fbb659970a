//! Frames that policies judge.

use std::net::{Ipv4Addr, Ipv6Addr};

use mcstat::ledger::verdict::Transport;

use super::POD;
use crate::support::frames::{checksum, frame4, frame6, ipv4, ipv6};

/// A data frame of the Pod; of a datagram in fragments the last one.
pub fn data(group: Ipv4Addr, transport: Transport) -> Vec<u8> {
    match transport {
        Transport::Udp(port) => frame4(&ipv4(POD, group, 17, 16, 0, &datagram(port))),
        Transport::UdpFragment => frame4(&ipv4(POD, group, 17, 16, 185, &datagram(5000))),
        Transport::Other => frame4(&ipv4(POD, group, 103, 1, 0, &[0x23; 32])),
    }
}

/// The first fragment of a datagram to port 5000: more of it follow.
pub fn first_fragment(group: Ipv4Addr) -> Vec<u8> {
    frame4(&ipv4(POD, group, 17, 16, 0x2000, &datagram(5000)))
}

/// A UDP datagram to this port.
pub fn datagram(port: u16) -> Vec<u8> {
    let mut datagram = vec![0x13, 0x88];
    datagram.extend_from_slice(&port.to_be_bytes());
    datagram.extend_from_slice(&[0, 28, 0, 0]);
    datagram.resize(28, 0x55);
    datagram
}

/// An IGMP frame: a payload, its checksum put in.
pub fn igmp(destination: Ipv4Addr, mut payload: Vec<u8>) -> Vec<u8> {
    payload[2..4].fill(0);
    let sum = checksum(&payload);
    payload[2..4].copy_from_slice(&sum.to_be_bytes());
    frame4(&ipv4(POD, destination, 2, 1, 0, &payload))
}

/// A message of 8 bytes: IGMPv1 and v2 reports, v2 leaves.
pub fn short(kind: u8, group: Ipv4Addr) -> Vec<u8> {
    short_to(group, kind, group)
}

/// The same to another destination than the group.
pub fn short_to(destination: Ipv4Addr, kind: u8, group: Ipv4Addr) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0];
    payload.extend_from_slice(&group.octets());
    igmp(destination, payload)
}

/// One record of an IGMPv3 report (RFC 9776 §4.2.4).
#[derive(Debug, Clone)]
pub struct Record {
    pub kind: u8,
    pub group: Ipv4Addr,
    pub sources: u16,
    /// In words of 4 bytes.
    pub auxiliary: u8,
}

impl Record {
    /// A join.
    pub fn join(group: impl Into<Ipv4Addr>) -> Self {
        Self {
            kind: 4,
            group: group.into(),
            sources: 0,
            auxiliary: 0,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.auxiliary];
        bytes.extend_from_slice(&self.sources.to_be_bytes());
        bytes.extend_from_slice(&self.group.octets());
        bytes.extend([10, 0, 0, 9].repeat(usize::from(self.sources)));
        // Auxiliary data that looks like records of another group.
        bytes.extend([4, 0, 0, 0].repeat(usize::from(self.auxiliary)));
        bytes
    }
}

/// An IGMPv3 report that claims to have so many records.
pub fn v3_claiming(claimed: u16, records: &[Record]) -> Vec<u8> {
    igmp(Ipv4Addr::new(224, 0, 0, 22), v3_payload(claimed, records))
}

/// An IGMPv3 report to another destination than routers.
pub fn v3_to(destination: Ipv4Addr, records: &[Record]) -> Vec<u8> {
    igmp(destination, v3_payload(records.len() as u16, records))
}

fn v3_payload(claimed: u16, records: &[Record]) -> Vec<u8> {
    let mut payload = vec![0x22, 0, 0, 0, 0, 0];
    payload.extend_from_slice(&claimed.to_be_bytes());
    payload.extend(records.iter().flat_map(Record::bytes));
    payload
}

/// An IGMPv3 report.
pub fn v3(records: &[Record]) -> Vec<u8> {
    v3_claiming(records.len() as u16, records)
}

/// An MLDv2 report (RFC 9777 §5.2): a hop-by-hop header, then records of these groups with one source each.
pub fn mld2(claimed: u16, groups: &[Ipv6Addr]) -> Vec<u8> {
    let source: Ipv6Addr = "fe80::2".parse().unwrap();
    let mut payload = vec![58, 0, 5, 2, 0, 0, 1, 0];
    payload.extend_from_slice(&[143, 0, 0, 0, 0, 0]);
    payload.extend_from_slice(&claimed.to_be_bytes());
    for group in groups {
        payload.extend_from_slice(&[6, 0, 0, 1]);
        payload.extend_from_slice(&group.octets());
        payload.extend_from_slice(&source.octets());
    }
    frame6(&ipv6(source, "ff02::16".parse().unwrap(), 0, 1, &payload))
}
