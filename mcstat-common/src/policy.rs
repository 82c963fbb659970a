//! The compiled form of policies: keys and values of the maps that judge packets, and the one step beyond a look-up.
//!
//! A packet's verdict is the longest prefix of [`PolicyKey`] in the trie, and where rules ask for UDP ports the first
//! fitting rule of a [`PortList`]. What is compiled, and from what, is user space's business; so is the life of ids:
//! sets and lists never change once they are in the maps, and an id is used again only after an RCU wait.

/// Data packets of the Pod; the address is the group.
pub const SPACE_DATA: u8 = 0;
/// Records of IGMPv1 reports (0x12).
pub const SPACE_REPORT_V1: u8 = 1;
/// IGMPv2 reports (0x16).
pub const SPACE_REPORT_V2: u8 = 2;
/// Records of IGMPv3 reports (0x22), leaves among them.
pub const SPACE_REPORT_V3: u8 = 3;
/// IGMP queries (0x11) to the Pod; the address is the destination of the IP header, not the group asked for. User space
/// alone knows this space: queries pass the switch before the Pod's veth, so no program judges them, and the trie has none.
pub const SPACE_QUERY: u8 = 4;

/// Bits of a [`PolicyKey`] before the address: the least that [`PolicyKey::prefix_length`] may be.
pub const SCOPE_BITS: u32 = 32;
/// Most rules of one [`PortList`].
pub const PORT_RULES: usize = 16;

/// Bit of a decision: the rule drops. The other 15 bits are the rule's slot; 0 is no rule, which allows.
pub const DECISION_DROP: u16 = 0x8000;
/// Greatest rule slot.
pub const MAX_RULE_SLOT: u16 = 0x7fff;

/// [`PortRule::flags`]: the rule names UDP and no port, so it fits later fragments too.
pub const PORT_ANY_UDP: u16 = 1;

/// What [`decide`] takes for a UDP datagram whose ports do not lie in this packet: a later fragment.
pub const TRANSPORT_FRAGMENT: u32 = 0x1_0000;
/// What [`decide`] takes for any other protocol than UDP.
pub const TRANSPORT_OTHER: u32 = 0x2_0000;

/// Key of the trie `policies` (`BPF_MAP_TYPE_LPM_TRIE`): prefix length, then eight bytes of data.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct PolicyKey {
    /// [`SCOPE_BITS`] and the length of the address prefix; host byte order, as the kernel wants it.
    pub prefix_length: u32,
    /// Set id (16 bits), 8 zero bits, space (8 bits); network byte order.
    pub scope: u32,
    /// IPv4 address; network byte order, so the four bytes as they stand in the packet.
    pub address: u32,
}

impl PolicyKey {
    /// The key of a prefix, or with a length of 32 that of a look-up. `address` is as it stands in the packet.
    #[inline(always)]
    pub const fn new(set: u16, space: u8, address: u32, length: u32) -> Self {
        Self {
            prefix_length: SCOPE_BITS + length,
            scope: (((set as u32) << 16) | space as u32).to_be(),
            address,
        }
    }
}

/// Value of the trie.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct PolicyValue {
    /// Index into the array `policy_ports`; 0 = none.
    pub list: u16,
    /// The decision where no rule of the list fits.
    pub decision: u16,
}

/// One rule of a list.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct PortRule {
    /// First UDP destination port.
    pub first: u16,
    /// Last one.
    pub last: u16,
    /// The decision where the port lies between the two. Never 0: that ends the list.
    pub decision: u16,
    /// [`PORT_ANY_UDP`] or 0.
    pub flags: u16,
}

/// Entry of the array `policy_ports`: rules in the order in which they count, ended by one whose decision is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct PortList {
    /// The rules.
    pub rules: [PortRule; PORT_RULES],
}

/// The decision on a packet whose transport is a UDP destination port in host byte order, [`TRANSPORT_FRAGMENT`] or
/// [`TRANSPORT_OTHER`]. `list` is the one that `value` names.
#[inline(always)]
pub fn decide(value: PolicyValue, list: Option<&PortList>, transport: u32) -> u16 {
    let Some(list) = list else {
        return value.decision;
    };
    // A loop for each, so that a datagram with a port, the one that is often met, takes three compares a rule.
    let found = if let Ok(port) = u16::try_from(transport) {
        first_that(list, |rule| rule.first <= port && port <= rule.last)
    } else if transport == TRANSPORT_FRAGMENT {
        first_that(list, |rule| rule.flags & PORT_ANY_UDP != 0)
    } else {
        0
    };
    if found == 0 { value.decision } else { found }
}

/// The decision of the first rule that fits, or 0.
#[inline(always)]
fn first_that(list: &PortList, fits: impl Fn(&PortRule) -> bool) -> u16 {
    for rule in &list.rules {
        if rule.decision == 0 || fits(rule) {
            return rule.decision;
        }
    }
    0
}

const _: () = {
    assert!(size_of::<PolicyKey>() == 12);
    assert!(size_of::<PolicyValue>() == 4);
    assert!(size_of::<PortRule>() == 8);
    assert!(size_of::<PortList>() == 128);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(first: u16, last: u16, decision: u16, flags: u16) -> PortRule {
        PortRule {
            first,
            last,
            decision,
            flags,
        }
    }

    #[test]
    fn a_key_lies_in_memory_as_the_trie_compares_it() {
        let key = PolicyKey::new(0x0102, SPACE_QUERY, u32::from_ne_bytes([224, 0, 0, 1]), 24);
        let words = [key.prefix_length, key.scope, key.address].map(u32::to_ne_bytes);
        assert_eq!(words, [56_u32.to_ne_bytes(), [1, 2, 0, 4], [224, 0, 0, 1]]);
    }

    #[test]
    fn the_first_fitting_rule_decides_and_the_value_where_none_does() {
        let mut list = PortList::default();
        list.rules[0] = rule(5000, 5010, 1, 0);
        list.rules[1] = rule(5005, 6000, 2 | DECISION_DROP, 0);
        list.rules[2] = rule(0, 65535, 3, PORT_ANY_UDP);
        let value = PolicyValue { list: 1, decision: 4 };
        for (transport, decision) in [
            (5000, 1),
            (5005, 1),
            (5011, 2 | DECISION_DROP),
            (6000, 2 | DECISION_DROP),
            (6001, 3),
            (0, 3),
            (TRANSPORT_FRAGMENT, 3),
            (TRANSPORT_OTHER, 4),
        ] {
            assert_eq!(decide(value, Some(&list), transport), decision, "{transport}");
        }
        list.rules[2] = PortRule::default();
        list.rules[3] = rule(0, 65535, 5, PORT_ANY_UDP);
        assert_eq!(decide(value, Some(&list), 6001), 4, "nothing counts behind the end");
        assert_eq!(decide(value, Some(&list), TRANSPORT_FRAGMENT), 4);
        assert_eq!(decide(value, None, 5000), 4);
    }
}
