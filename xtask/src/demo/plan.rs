//! What the demo sends, who joined what, and the numbers that follow from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The Pods, as (namespace, name).
pub(super) const PODS: [(&str, &str); 4] = [("mkt", "feed-0"), ("mkt", "rec-0"), ("mkt", "rec-1"), ("mkt", "idle-0")];

/// Ethernet + IPv4 or IPv6 + UDP: mcstat counts whole frames without FCS.
const HEADERS_V4: u64 = 14 + 20 + 8;
const HEADERS_V6: u64 = 14 + 40 + 8;

/// One stream: a sender, a group, its members.
pub(super) struct Stream {
    /// Destination.
    pub(super) group: IpAddr,
    /// The Pod that sends.
    pub(super) sender: &'static str,
    /// The Pods that joined.
    pub(super) members: &'static [&'static str],
    /// Datagrams.
    pub(super) packets: u64,
    /// Datagrams a second. All streams together stay below 1,000: the userspace datapath loses more than that unseen.
    pub(super) pps: u32,
    /// Bytes of payload in each.
    pub(super) size: u32,
}

/// All streams, two seconds of traffic.
pub(super) const STREAMS: [Stream; 4] = [
    Stream {
        group: IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1)),
        sender: "feed-0",
        members: &["rec-0", "rec-1"],
        packets: 600,
        pps: 300,
        size: 100,
    },
    Stream {
        group: IpAddr::V4(Ipv4Addr::new(239, 1, 1, 2)),
        sender: "feed-0",
        members: &["rec-1"],
        packets: 250,
        pps: 125,
        size: 1000,
    },
    Stream {
        group: IpAddr::V4(Ipv4Addr::new(232, 1, 1, 3)),
        sender: "rec-1",
        members: &["rec-0"],
        packets: 80,
        pps: 40,
        size: 500,
    },
    Stream {
        group: IpAddr::V6(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0x239, 1)),
        sender: "feed-0",
        members: &["rec-0"],
        packets: 320,
        pps: 160,
        size: 200,
    },
];

/// The Pod's direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound,
    Outbound,
}

/// One number that must hold.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    /// Pod name.
    pub(super) pod: &'static str,
    /// Direction, as the Pod sees it.
    pub(super) direction: Direction,
    /// One group, or the Pod's total.
    pub(super) group: Option<IpAddr>,
    /// Data packets.
    pub(super) packets: u64,
    /// Frame bytes of these.
    pub(super) bytes: u64,
}

/// Every number that must hold: each Pod's totals in both directions, then each group of each Pod.
pub(super) fn expected() -> Vec<Expected> {
    let mut all = Vec::new();
    for (_, pod) in PODS {
        for direction in [Direction::Outbound, Direction::Inbound] {
            let streams: Vec<&Stream> = STREAMS.iter().filter(|stream| stream.touches(pod, direction)).collect();
            let packets = streams.iter().map(|stream| stream.packets).sum();
            let bytes = streams.iter().map(|stream| stream.bytes()).sum();
            all.push(Expected {
                pod,
                direction,
                group: None,
                packets,
                bytes,
            });
            all.extend(streams.iter().map(|stream| Expected {
                pod,
                direction,
                group: Some(stream.group),
                packets: stream.packets,
                bytes: stream.bytes(),
            }));
        }
    }
    all
}

impl Stream {
    pub(super) fn bytes(&self) -> u64 {
        let headers = if self.group.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        self.packets * (u64::from(self.size) + headers)
    }

    fn touches(&self, pod: &str, direction: Direction) -> bool {
        match direction {
            Direction::Outbound => self.sender == pod,
            Direction::Inbound => self.members.contains(&pod),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, expected};

    /// By hand: rec-0 gets 600 × 142 B, 80 × 542 B and 320 × 262 B; the idle Pod nothing.
    #[test]
    fn totals_are_those_counted_by_hand() {
        let total = |pod: &str, direction| {
            let found = expected()
                .into_iter()
                .find(|one| one.pod == pod && one.direction == direction && one.group.is_none());
            found.map(|one| (one.packets, one.bytes))
        };
        assert_eq!(total("feed-0", Direction::Outbound), Some((1170, 429_540)));
        assert_eq!(total("feed-0", Direction::Inbound), Some((0, 0)));
        assert_eq!(total("rec-0", Direction::Inbound), Some((1000, 212_400)));
        assert_eq!(total("rec-1", Direction::Inbound), Some((850, 345_700)));
        assert_eq!(total("rec-1", Direction::Outbound), Some((80, 43_360)));
        assert_eq!(total("idle-0", Direction::Inbound), Some((0, 0)));
    }
}
