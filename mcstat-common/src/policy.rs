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

/// Bit of a decision: the rule drops. The lower 14 bits are the rule's slot; 0 is no rule, which allows.
pub const DECISION_DROP: u16 = 0x8000;
/// Bit of a decision that drops, in slots and on packets alone: nobody enforces it.
pub const DECISION_UNENFORCED: u16 = 0x4000;
/// Greatest rule slot.
pub const MAX_RULE_SLOT: u16 = 0x3fff;

/// [`PortRule::flags`]: the rule names UDP and no port, so it fits fragments too.
pub const PORT_ANY_UDP: u16 = 1;

/// The transport of a UDP packet that is judged without ports: a fragment, the first one too, or one that is too short.
pub const TRANSPORT_FRAGMENT: u32 = 0x1_0000;
/// That of any other protocol than UDP.
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

/// [`Judgement::ports`]: for every packet, UDP or not.
pub const PORTS_ALL: u32 = 0xffff_0000;

/// What is decided on a packet, and on which others alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// The decision.
    pub decision: u16,
    /// For which transports: first UDP destination port (low half) and last one (high half). Fragments (1) and other protocols
    /// than UDP (2) have a first port beyond the last.
    pub ports: u32,
}

/// Whether what was decided for these ports, which are not [`PORTS_ALL`], holds for a packet of this transport: a UDP
/// destination port in host byte order, [`TRANSPORT_FRAGMENT`] or [`TRANSPORT_OTHER`].
#[inline(always)]
pub const fn holds_for(ports: u32, transport: u32) -> bool {
    if transport > u16::MAX as u32 {
        return ports == transport >> 16;
    }
    ports & 0xffff <= transport && transport <= ports >> 16
}

/// Judges a packet of a transport as [`holds_for`] takes it. `list` is the one that `value` names.
#[inline(always)]
pub fn judge(value: PolicyValue, list: Option<&PortList>, transport: u32) -> Judgement {
    let Some(list) = list else {
        return Judgement {
            decision: value.decision,
            ports: PORTS_ALL,
        };
    };
    if transport > u16::MAX as u32 {
        let found = if transport == TRANSPORT_FRAGMENT {
            first_for_fragments(list)
        } else {
            0
        };
        return Judgement {
            decision: or(found, value.decision),
            ports: transport >> 16,
        };
    }
    // As far as no rule before the one that fits says something else; cut in the middle, so that it never is `PORTS_ALL`.
    let (mut first, mut last) = if transport < 0x8000 {
        (0, 0x7fff)
    } else {
        (0x8000, 0xffff)
    };
    let mut found = 0;
    for rule in &list.rules {
        let (from, to) = (rule.first as u32, rule.last as u32);
        if rule.decision == 0 {
            break;
        }
        if transport < from {
            last = if from <= last { from - 1 } else { last };
        } else if transport > to {
            first = if to >= first { to + 1 } else { first };
        } else {
            first = if from > first { from } else { first };
            last = if to < last { to } else { last };
            found = rule.decision;
            break;
        }
    }
    Judgement {
        decision: or(found, value.decision),
        ports: last << 16 | first,
    }
}

#[inline(always)]
const fn or(found: u16, otherwise: u16) -> u16 {
    if found == 0 { otherwise } else { found }
}

/// The decision of the first rule that names no port, or 0.
#[inline(always)]
fn first_for_fragments(list: &PortList) -> u16 {
    for rule in &list.rules {
        if rule.decision == 0 || rule.flags & PORT_ANY_UDP != 0 {
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

    /// Rules 1, 2 (drops) and 3 with ports, where none fits 4.
    fn list() -> PortList {
        let mut list = PortList::default();
        list.rules[0] = rule(5000, 5010, 1, 0);
        list.rules[1] = rule(5005, 6000, 2 | DECISION_DROP, 0);
        list.rules[2] = rule(0, 65535, 3, PORT_ANY_UDP);
        list
    }

    const VALUE: PolicyValue = PolicyValue { list: 1, decision: 4 };

    fn decide(list: &PortList, transport: u32) -> u16 {
        judge(VALUE, Some(list), transport).decision
    }

    #[test]
    fn the_first_fitting_rule_decides_and_the_value_where_none_does() {
        let mut list = list();
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
            assert_eq!(decide(&list, transport), decision, "{transport}");
        }
        list.rules[2] = PortRule::default();
        list.rules[3] = rule(0, 65535, 5, PORT_ANY_UDP);
        assert_eq!(decide(&list, 6001), 4, "nothing counts behind the end");
        assert_eq!(decide(&list, TRANSPORT_FRAGMENT), 4);
        assert_eq!(
            judge(VALUE, None, 5000),
            Judgement {
                decision: 4,
                ports: PORTS_ALL
            }
        );
    }

    #[test]
    fn what_is_decided_for_one_port_holds_as_far_as_told_and_not_for_what_has_no_port() {
        let range = |first: u32, last: u32| last << 16 | first;
        for (port, ports) in [
            (0, range(0, 4999)),
            (5000, range(5000, 5010)),
            (5011, range(5011, 6000)),
            (6001, range(6001, 0x7fff)),
            (0xffff, range(0x8000, 0xffff)),
        ] {
            assert_eq!(judge(VALUE, Some(&list()), port).ports, ports, "{port}");
        }
        let mut lists = vec![list(), PortList::default()];
        // A rule for one port in front of one for all, and rules that do not lie in order.
        let mut turned = PortList::default();
        turned.rules[0] = rule(0, 0, 1, 0);
        turned.rules[1] = rule(65535, 65535, 2, 0);
        turned.rules[2] = rule(30_000, 40_000, 3, 0);
        turned.rules[3] = rule(20_000, 35_000, 4, 0);
        turned.rules[4] = rule(1, 65534, 5, 0);
        lists.push(turned);
        for list in &lists {
            let transports: Vec<u32> = (0..=TRANSPORT_FRAGMENT).chain([TRANSPORT_OTHER]).collect();
            let judged: Vec<Judgement> = transports
                .iter()
                .map(|transport| judge(VALUE, Some(list), *transport))
                .collect();
            let kinds: std::collections::BTreeSet<(u32, u16)> =
                judged.iter().map(|judged| (judged.ports, judged.decision)).collect();
            assert!(kinds.len() <= 2 * PORT_RULES + 4, "{kinds:?}");
            for (transport, judged) in transports.iter().zip(&judged) {
                // Ranges do not overlap: only the packet's own holds for it, so that its decision is the one made.
                let holding: Vec<_> = kinds
                    .iter()
                    .filter(|(ports, _)| holds_for(*ports, *transport))
                    .collect();
                assert_eq!(holding, [&(judged.ports, judged.decision)], "{transport}");
            }
        }
    }
}
