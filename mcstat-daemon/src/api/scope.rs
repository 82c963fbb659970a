//! What a group's address alone says: its reach, whether sources are part of it, whether every host is in it.
//!
//! Pure; the ranges are those of the standards named at each function.

use std::net::{IpAddr, Ipv6Addr};

/// 224.0.0.0/24, and IPv6 scopes 1 and 2 with any flags (RFC 4291 §2.7): never forwarded by a router.
#[must_use]
pub fn is_link_local(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => matches!(group.octets(), [224, 0, 0, _]),
        IpAddr::V6(group) => matches!(group.octets(), [0xff, flags_scope, ..] if matches!(flags_scope & 0x0f, 1 | 2)),
    }
}

/// Whether sources are part of the group's key: 232.0.0.0/8 and ff3x::/32 (RFC 4607 §1).
#[must_use]
pub fn is_ssm(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[0] == 232,
        IpAddr::V6(group) => matches!(group.octets(), [0xff, flags_scope, 0, 0, ..] if flags_scope & 0xf0 == 0x30),
    }
}

/// Whether every stack joins the group by itself, so that a member says nothing: 224.0.0.1 (RFC 1112), ff01::1, ff02::1
/// and the solicited-node groups ff02::1:ff00:0/104 (RFC 4291 §2.8).
#[must_use]
pub fn is_everyones(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets() == [224, 0, 0, 1],
        IpAddr::V6(group) => {
            let [prefix @ .., _, _, _] = group.octets();
            group == Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1)
                || group == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
                || prefix == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(predicate: fn(IpAddr) -> bool, yes: &[&str], no: &[&str]) {
        for (groups, expected) in [(yes, true), (no, false)] {
            for group in groups {
                assert_eq!(predicate(group.parse().unwrap()), expected, "{group}");
            }
        }
    }

    /// Scopes by RFC 4291 §2.7 and RFC 7346; the flags (T, P, R) do not change them.
    #[test]
    fn link_local_is_the_ipv4_block_and_two_ipv6_scopes_with_any_flags() {
        all(
            is_link_local,
            &[
                "224.0.0.0",
                "224.0.0.1",
                "224.0.0.251",
                "224.0.0.255",
                "ff01::1",
                "ff02::fb",
                "ff12::1",
                "ff32::8000:1",
                "ff71::1",
            ],
            &[
                "224.0.1.0",
                "232.0.0.1",
                "239.0.0.1",
                "ff00::1",
                "ff03::1",
                "ff05::2",
                "ff0e::101",
                "ff15::1",
                "ff3e::1",
            ],
        );
    }

    /// The ranges of RFC 4607; `ff30:1::` is a prefix-based group of RFC 3306 and no SSM.
    #[test]
    fn ssm_is_232_and_ff3x_with_a_zero_prefix() {
        all(
            is_ssm,
            &["232.0.0.0", "232.255.255.255", "ff30::1", "ff35::8000:1", "ff3e::1"],
            &[
                "231.255.255.255",
                "233.0.0.0",
                "ff0e::1",
                "ff3e:30:2001:db8::1",
                "ff15::1",
            ],
        );
    }

    #[test]
    fn everyones_groups_are_those_that_hosts_join_unasked() {
        all(
            is_everyones,
            &["224.0.0.1", "ff01::1", "ff02::1", "ff02::1:ff00:0", "ff02::1:ffab:cdef"],
            &[
                "224.0.0.2",
                "224.0.0.22",
                "239.1.1.1",
                "ff02::2",
                "ff05::2",
                "ff02::1:fe00:1",
                "ff02::1:ff:1:0:0",
            ],
        );
    }
}
