//! Frames by hand, for programs that are run on given bytes and for packet sockets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ethernet header of a multicast frame.
pub fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![0x01, 0x00, 0x5e, 0x01, 0x02, 0x03, 0x02, 0x42, 0xac, 0x11, 0x00, 0x02];
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

/// Puts an 802.1Q or 802.1ad tag in front of the Ethernet type.
pub fn tagged(frame: &[u8], tpid: u16, vlan: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend_from_slice(&tpid.to_be_bytes());
    tagged.extend_from_slice(&vlan.to_be_bytes());
    tagged.extend_from_slice(&frame[12..]);
    tagged
}

/// An IPv4 packet (RFC 791 §3.1).
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, ttl: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[ttl, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet (RFC 8200 §3) whose payload begins with a header of type `next`.
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, hop_limit]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// A UDP header and `length` bytes of payload; no checksum.
pub fn udp(length: usize) -> Vec<u8> {
    let mut datagram = vec![0x13, 0x89, 0x13, 0x89];
    datagram.extend_from_slice(&(8 + length as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.resize(8 + length, 0x55);
    datagram
}

/// A UDP frame to a group.
pub fn data(source: &str, group: &str, length: usize) -> Vec<u8> {
    match (source.parse().unwrap(), group.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(group)) => frame4(&ipv4(source, group, 17, 16, 0, &udp(length))),
        (IpAddr::V6(source), IpAddr::V6(group)) => frame6(&ipv6(source, group, 17, 16, &udp(length))),
        other => panic!("two families: {other:?}"),
    }
}

/// An Ethernet frame with an IPv4 packet.
pub fn frame4(packet: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(0x0800);
    frame.extend_from_slice(packet);
    frame
}

/// An Ethernet frame with an IPv6 packet.
pub fn frame6(packet: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(0x86dd);
    frame.extend_from_slice(packet);
    frame
}

/// The one's complement checksum (RFC 1071) with the checksum field zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
