//! IPv4 address blocks of rules: prefixes with exceptions, clipped to the multicast range.

use std::net::{IpAddr, Ipv4Addr};

/// Length of 224.0.0.0/4.
const MULTICAST_LENGTH: u8 = 4;

/// A prefix of IPv4 addresses; bits beyond its length are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first address, in host byte order.
    pub address: u32,
    /// 0 to 32.
    pub length: u8,
}

/// A prefix without some that lie inside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Block {
    /// What belongs to it, …
    pub prefix: Prefix,
    /// … but for these, each longer than `prefix` and inside it.
    pub except: Vec<Prefix>,
}

/// A CIDR as far as policies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cidr {
    /// Inside 224.0.0.0/4, or clipped to it.
    Multicast(Prefix),
    /// IPv6 multicast: no Antrea policy is about it.
    Multicast6,
    Unicast,
}

impl Prefix {
    /// Every address.
    pub const ANY: Self = Self { address: 0, length: 0 };

    /// The prefix of this length that holds the address.
    #[must_use]
    pub fn new(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        Self {
            address: u32::from(address) & mask(length),
            length,
        }
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.length) == self.address
    }

    /// Whether it holds all of the other.
    #[must_use]
    pub fn covers(&self, other: Self) -> bool {
        self.length <= other.length && other.address & mask(self.length) == self.address
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

/// Address and prefix length of a CIDR, bits beyond the length cleared; `None` where it is none.
fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let length: u8 = length.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(address) if length <= 32 => {
            Some((Ipv4Addr::from(Prefix::new(address, length).address).into(), length))
        }
        address @ IpAddr::V6(_) if length <= 128 => Some((address, length)),
        _ => None,
    }
}

impl Cidr {
    /// `None` where the text is no CIDR. Like Antrea, a CIDR is multicast when its first address is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match parse(text)? {
            (IpAddr::V4(address), length) if address.is_multicast() => {
                Self::Multicast(Prefix::new(address, length.max(MULTICAST_LENGTH)))
            }
            (IpAddr::V6(address), _) if address.is_multicast() => Self::Multicast6,
            _ => Self::Unicast,
        })
    }
}

/// The exception, where it is a strict part of the CIDR that it belongs to.
pub(super) fn parse_except(cidr: &str, except: &str) -> Option<Prefix> {
    let (IpAddr::V4(outer), outer_length) = parse(cidr)? else {
        return None;
    };
    let (IpAddr::V4(inner), length) = parse(except)? else {
        return None;
    };
    let inside = outer_length < length && Prefix::new(outer, outer_length).contains(inner);
    inside.then(|| Prefix::new(inner, length))
}

impl Block {
    /// Whether the address belongs to it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.prefix.contains(address) && !self.except.iter().any(|except| except.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: [u8; 4], length: u8) -> Prefix {
        Prefix::new(address.into(), length)
    }

    #[test]
    fn cidrs_are_told_apart_by_their_first_address() {
        for (text, expected) in [
            ("225.1.2.3/32", Some(Cidr::Multicast(prefix([225, 1, 2, 3], 32)))),
            ("225.1.2.3/24", Some(Cidr::Multicast(prefix([225, 1, 2, 0], 24)))),
            ("224.0.0.0/3", Some(Cidr::Multicast(prefix([224, 0, 0, 0], 4)))),
            ("240.0.0.0/4", Some(Cidr::Unicast)),
            ("0.0.0.0/0", Some(Cidr::Unicast)),
            ("10.0.0.10/32", Some(Cidr::Unicast)),
            ("ff05::/16", Some(Cidr::Multicast6)),
            ("fd00::/8", Some(Cidr::Unicast)),
            ("225.1.2.3", None),
            ("225.1.2.3/33", None),
            ("225.1.2/24", None),
            ("/24", None),
            ("", None),
        ] {
            assert_eq!(Cidr::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn an_exception_is_strictly_inside() {
        assert_eq!(
            parse_except("225.1.0.0/16", "225.1.2.0/24"),
            Some(prefix([225, 1, 2, 0], 24))
        );
        for except in ["225.1.0.0/16", "225.0.0.0/8", "226.1.2.0/24", "225.1.2.0", "ff05::/32"] {
            assert_eq!(parse_except("225.1.0.0/16", except), None, "{except}");
        }
        let block = Block {
            prefix: prefix([225, 1, 0, 0], 16),
            except: vec![prefix([225, 1, 2, 0], 24)],
        };
        let inside = [
            [225, 1, 1, 255],
            [225, 1, 2, 0],
            [225, 1, 2, 255],
            [225, 1, 3, 0],
            [225, 2, 0, 0],
        ];
        assert_eq!(
            inside.map(|address| block.contains(address.into())),
            [true, false, false, true, false]
        );
    }
}
