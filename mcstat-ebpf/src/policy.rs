//! What judges a port: looked up off the hot path, which finds the verdict in the slot.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_map_lookup_elem};
use mcstat_common::{
    abi::{PORT_DATA_ENFORCED, PORT_FOREIGN_DROPPED, Port, RuleCounter},
    policy::{
        self, DECISION_DROP, DECISION_UNENFORCED, Judgement, MAX_RULE_SLOT, PORTS_ALL, PolicyKey, PolicyValue,
        SPACE_DATA,
    },
    slot::Verdict,
};

use crate::{
    atomic,
    data::Size,
    maps::{POLICIES, POLICY_PORTS, RULES},
    skb,
};

/// What verdicts on a port's packets depend on, as of one moment.
pub(crate) struct Judges {
    pub(crate) generation: u16,
    pub(crate) flags: u16,
    pub(crate) set: u16,
}

impl Judges {
    #[inline(always)]
    pub(crate) fn of(port: *const Port) -> Self {
        // SAFETY: a map value; `generation` begins an aligned word.
        let word = atomic::load(unsafe { (&raw const (*port).generation).cast::<u64>() });
        Self {
            generation: word as u16,
            flags: (word >> 16) as u16,
            set: (word >> 32) as u16,
        }
    }

    /// On IPv4 data that the Pod sent to a group. No rule judges what has a foreign source; the switch drops it at once, or
    /// admits it.
    #[inline(always)]
    pub(crate) fn data(&self, skb: *mut __sk_buff, foreign: bool, group: u32) -> Judgement {
        if foreign {
            let decision = if self.flags & PORT_FOREIGN_DROPPED != 0 {
                DECISION_DROP
            } else {
                0
            };
            return Judgement {
                decision,
                ports: PORTS_ALL,
            };
        }
        if self.set == 0 {
            return Judgement {
                decision: 0,
                ports: PORTS_ALL,
            };
        }
        let value = look_up(self.set, SPACE_DATA, group);
        let mut judgement = Judgement {
            decision: value.decision,
            ports: PORTS_ALL,
        };
        if value.list != 0 {
            judgement = policy::judge(value, POLICY_PORTS.get(value.list as u32), skb::transport(skb));
        }
        if judgement.decision & DECISION_DROP != 0 && self.flags & PORT_DATA_ENFORCED == 0 {
            judgement.decision |= DECISION_UNENFORCED;
        }
        judgement
    }
}

/// What a set says of an address; nothing is the default.
#[inline(always)]
pub(crate) fn look_up(set: u16, space: u8, address: u32) -> PolicyValue {
    let key = PolicyKey::new(set, space, address, 32);
    // SAFETY: the helper reads the key; what it finds is a map value that stays while this program runs.
    unsafe {
        let map = (&raw const POLICIES).cast_mut().cast();
        let found = bpf_map_lookup_elem(map, (&raw const key).cast()).cast::<PolicyValue>();
        if found.is_null() {
            PolicyValue { list: 0, decision: 0 }
        } else {
            found.read()
        }
    }
}

/// This CPU's counter of the rule that decided; `None` where none did.
#[inline(always)]
pub(crate) fn rule(decision: u16) -> Option<*mut RuleCounter> {
    let slot = decision & MAX_RULE_SLOT;
    if slot == 0 {
        return None;
    }
    RULES.get_ptr_mut(slot as u32)
}

/// Counts a datagram that has no slot for the rule that decided it.
#[inline(always)]
pub(crate) fn count(size: Size, decision: u16) {
    let Some(counter) = rule(decision) else { return };
    // SAFETY: this CPU's own map value; bottom halves are off, so nobody else writes it.
    unsafe {
        let counter = &mut *counter;
        if Verdict::of(decision) == Verdict::WouldDrop {
            counter.would_drop_packets += 1;
        } else {
            counter.packets += 1;
            counter.segments += size.segments;
            counter.bytes += size.bytes;
        }
    }
}
