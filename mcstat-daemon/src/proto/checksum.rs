//! The Internet checksum (RFC 1071) and its pseudo-header for ICMPv6 (RFC 8200 §8.1).
//!
//! Works on whole messages only: a caller that holds a cut one knows nothing about its checksum.

use std::net::Ipv6Addr;

/// Next header number of ICMPv6.
const ICMPV6: u8 = 58;

/// One's complement of the one's complement sum of `bytes`, an odd last byte padded with zero. Over a message that
/// holds its own checksum it is 0 exactly when that one is right.
pub fn internet(bytes: &[u8]) -> u16 {
    fold(sum(bytes))
}

/// As [`internet`], over an ICMPv6 message and the pseudo-header of the addresses it travels between.
pub fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    // Both callers hold at most 65,535 bytes; the sum is folded, so a longer one would only be wrong, not a panic.
    let length = message.len() as u64;
    fold(sum(&source.octets()) + sum(&destination.octets()) + length + u64::from(ICMPV6) + sum(message))
}

fn sum(bytes: &[u8]) -> u64 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let words: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    words + odd.iter().map(|byte| u64::from(*byte) << 8).sum::<u64>()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // At most 0xffff here.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 §3: the words sum to 2ddf0, folded ddf2.
    #[test]
    fn sums_the_example_of_rfc_1071() {
        assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn pads_an_odd_byte_with_zero_on_the_right() {
        assert_eq!(internet(&[0x12, 0x34, 0x56]), internet(&[0x12, 0x34, 0x56, 0x00]));
        assert_eq!(internet(&[]), 0xffff);
    }
}
