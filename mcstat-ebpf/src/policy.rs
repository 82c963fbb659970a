//! What a policy set says: looked up off the hot path, the list of ports looked through on it.

use aya_ebpf::helpers::bpf_map_lookup_elem;
use mcstat_common::{
    abi::{PORT_DATA_ENFORCED, PORT_FOREIGN_DROPPED, Port, RuleCounter},
    policy::{self, DECISION_DROP, PolicyKey, PolicyValue},
    slot::Verdict,
};

use crate::{
    data::Size,
    maps::{POLICIES, POLICY_PORTS, RULES},
};

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

/// The decision on a datagram of this transport whose value is known.
#[inline(always)]
pub(crate) fn decide(value: PolicyValue, transport: u32) -> u16 {
    if value.list == 0 {
        return value.decision;
    }
    policy::decide(value, POLICY_PORTS.get(value.list as u32), transport)
}

/// The [`Verdict`] on a datagram: admitted, dropped, or would be dropped. No rule judges a foreign one; the switch drops
/// it at once, or admits it.
///
/// Computed, not chosen: three branches here would be three ways for the verifier through all that follows.
#[inline(always)]
pub(crate) fn verdict(port: *const Port, foreign: bool, decision: u16) -> u8 {
    const _: () = assert!(Verdict::Allow as u8 == 1 && Verdict::Drop as u8 == 2 && Verdict::WouldDrop as u8 == 3);
    const _: () = assert!(DECISION_DROP == 1 << 15 && PORT_FOREIGN_DROPPED == 1 && PORT_DATA_ENFORCED == 2);
    // SAFETY: a map value.
    let flags = unsafe { (*port).flags };
    if foreign {
        return 1 + (flags & 1) as u8;
    }
    let denied = (decision >> 15) as u8;
    let unenforced = (flags >> 1 & 1 ^ 1) as u8;
    1 + denied + (denied & unenforced)
}

/// This CPU's counter of the rule that decided; `None` where none did.
#[inline(always)]
pub(crate) fn rule(decision: u16) -> Option<*mut RuleCounter> {
    if decision == 0 {
        return None;
    }
    RULES.get_ptr_mut((decision & !DECISION_DROP) as u32)
}

/// Counts a datagram for the rule that decided it.
#[inline(always)]
pub(crate) fn count(size: Size, decision: u16, verdict: u8) {
    let Some(counter) = rule(decision) else { return };
    // SAFETY: this CPU's own map value; bottom halves are off, so nobody else writes it.
    unsafe {
        let counter = &mut *counter;
        if verdict == Verdict::WouldDrop as u8 {
            counter.would_drop_packets += 1;
        } else {
            counter.packets += 1;
            counter.segments += size.segments;
            counter.bytes += size.bytes;
        }
    }
}
