//! IGMP general queries as antrea-agent builds them: whole frames from the gateway, without IP options.

use std::net::Ipv4Addr;

/// Version of a query, each with Antrea's maximum response time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// IGMPv1: a Linux host then answers in v1, and leaves groups without a word.
    V1,
    /// IGMPv2, 10 s.
    V2,
    /// IGMPv3, 10 s, with this query interval in seconds.
    V3(u8),
}

impl Query {
    /// The frame, from this gateway.
    pub fn frame(self, gateway: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
        let mut igmp = vec![0x11, if self == Self::V1 { 0 } else { 100 }, 0, 0, 0, 0, 0, 0];
        if let Self::V3(interval) = self {
            igmp.extend([0, interval, 0, 0]);
        }
        sum_into(&mut igmp, 2);
        let length = u8::try_from(20 + igmp.len()).unwrap_or(u8::MAX);
        let mut ip = vec![0x45, 0, 0, length, 0, 0, 0, 0, 128, 2, 0, 0];
        ip.extend(gateway.octets());
        ip.extend([224, 0, 0, 1]);
        sum_into(&mut ip, 10);
        let ethernet = [[0x01, 0x00, 0x5e, 0x00, 0x00, 0x01], mac].concat();
        [ethernet, vec![0x08, 0x00], ip, igmp].concat()
    }
}

/// Writes the Internet checksum (RFC 1071) of `bytes` at `at`, where zeros are.
fn sum_into(bytes: &mut [u8], at: usize) {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !(sum as u16);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::Query;

    /// An IGMPv2 general query with 10 s and its checksum, as any capture shows it: `11 64 ee 9b`.
    #[test]
    fn frames_have_the_lengths_and_checksums_of_real_ones() {
        let frame = |query: Query| query.frame([10, 10, 0, 1].into(), [2, 0, 0, 0, 0, 1]);
        let v2 = frame(Query::V2);
        assert_eq!(v2[34..38], [0x11, 0x64, 0xee, 0x9b]);
        let lengths = [Query::V1, Query::V2, Query::V3(125)].map(|query| frame(query).len());
        assert_eq!(lengths, [42, 42, 46]);
    }
}
