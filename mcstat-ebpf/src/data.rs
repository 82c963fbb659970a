//! Data: find the slot, count. The path of a READY hit makes no helper call on kernels from 6.10 on.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_jiffies64, bpf_loop},
};
use mcstat_common::{
    abi::{Counter, INBOUND, IPV4, IPV6, OUTBOUND, PORT_ADDRESSES, Port, PortStats, Slot, WAYS},
    frame::{Datagram, is_ssm},
    policy::{PORTS_ALL, holds_for},
    slot::{self, BUSY, EMPTY, Key, READY, SETTLING, UNJUDGED, UNPOLICED, Verdict},
};

use crate::{
    atomic,
    maps::{COUNTERS, SETTINGS, SLOTS, port_at, port_of, port_stats, seed, sets, test_delay},
    policy,
    skb::{Direct, opaque},
};

/// A datagram that hit no READY slot. Built only then: a hit stores nothing on the stack. As small as can be, since it
/// lies on the stack of whoever calls [`miss`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    group: [u64; 2],
    source: [u64; 2],
    /// {position in the ports table: 32, zero: 16, TTL: 8, zero: 5, IPv6: 1, inbound: 1, foreign: 1}.
    facts: u64,
}

const FOREIGN: u64 = 1;
const TO_POD: u64 = 2;
const SIX: u64 = 4;

impl Frame {
    #[inline(always)]
    fn new(datagram: &Datagram, position: u32, direction: u8, foreign: bool) -> Self {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        Self {
            group: datagram.group,
            source: datagram.source,
            facts: (position as u64) << 32
                | (datagram.ttl as u64) << 8
                | bit(foreign, FOREIGN)
                | bit(direction != OUTBOUND, TO_POD)
                | bit(datagram.family != IPV4, SIX),
        }
    }

    #[inline(always)]
    fn position(&self) -> u32 {
        (self.facts >> 32) as u32
    }

    #[inline(always)]
    fn direction(&self) -> u8 {
        if self.facts & TO_POD == 0 { OUTBOUND } else { INBOUND }
    }

    #[inline(always)]
    fn foreign(&self) -> bool {
        self.facts & FOREIGN != 0
    }

    #[inline(always)]
    fn datagram(&self) -> Datagram {
        Datagram {
            group: self.group,
            source: self.source,
            family: if self.facts & SIX == 0 { IPV4 } else { IPV6 },
            ttl: (self.facts >> 8) as u8,
        }
    }
}

/// The slot's key of a datagram that passed `port`.
#[inline(always)]
pub(crate) fn key(port: *const Port, datagram: &Datagram, direction: u8, foreign: bool) -> Key {
    Key {
        // SAFETY: a map value.
        owner: Key::owner(unsafe { (*port).id }, direction, datagram.family, foreign),
        group: datagram.group,
        source: if is_ssm(datagram) { datagram.source } else { [0; 2] },
    }
}

/// Counts a datagram that passed the interface `ifindex` (a parameter, so that the benchmark can be 500 ports) if it hits a
/// slot; `packet` is asked for the UDP port alone, where rules name ports. Else the rest is [`judge_and_count`]'s.
#[inline(always)]
pub(crate) fn account(
    skb: *mut __sk_buff,
    packet: &Direct,
    ifindex: u32,
    datagram: &Datagram,
    direction: u8,
) -> Option<Frame> {
    // The family as a constant: a path for each is shorter than one for both.
    if datagram.family == IPV4 {
        let datagram = Datagram {
            group: [0, datagram.group[1]],
            source: [0, datagram.source[1]],
            family: IPV4,
            ..*datagram
        };
        account_in(skb, packet, ifindex, &datagram, direction)
    } else {
        let datagram = Datagram {
            family: IPV6,
            ..*datagram
        };
        account_in(skb, packet, ifindex, &datagram, direction)
    }
}

/// [`account`] of a frame whose headers lie outside the linear part: as if it had hit no slot.
#[inline(always)]
pub(crate) fn account_copied(skb: *mut __sk_buff, datagram: &Datagram, direction: u8) -> Option<Frame> {
    // SAFETY: the context of a classifier.
    let (position, port) = port_of(unsafe { (*skb).ifindex })?;
    let foreign = find_foreign(position, port, datagram, direction);
    Some(Frame::new(datagram, position, direction, foreign))
}

/// Whether policies are about such datagrams at all: IPv4 that the Pod sends.
#[inline(always)]
fn is_judged(datagram: &Datagram, direction: u8) -> bool {
    direction == OUTBOUND && datagram.family == IPV4
}

/// [`account`] of one family.
#[inline(always)]
fn account_in(skb: *mut __sk_buff, packet: &Direct, ifindex: u32, datagram: &Datagram, direction: u8) -> Option<Frame> {
    let (position, port) = port_of(ifindex)?;
    let foreign = find_foreign(position, port, datagram, direction);
    let key = key(port, datagram, direction, foreign);
    let judged = is_judged(datagram, direction);
    // SAFETY: a map value.
    let generation = if judged {
        unsafe { (*port).generation }
    } else {
        UNPOLICED
    };
    let hash = key.hash(seed());
    let of_generation = |verdict| slot::verdict_generation(verdict) == generation;
    let mut found = find(&key, hash, matches_hot, of_generation);
    if judged
        && let Some((_, verdict)) = found
        && slot::verdict_ports(verdict) != PORTS_ALL
    {
        found = match packet.transport().map(|transport| opaque(transport as u64, skb) as u32) {
            Some(transport) if holds_for(slot::verdict_ports(verdict), transport) => found,
            Some(transport) => find(&key, hash, matches, |verdict| {
                of_generation(verdict) && holds_for(slot::verdict_ports(verdict), transport)
            }),
            None => None,
        };
    }
    let Some((index, _)) = found else {
        return Some(Frame::new(datagram, position, direction, foreign));
    };
    if test_delay() != 0 {
        delay(test_delay());
    }
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        count(Size::of(skb), counter, datagram);
    }
    None
}

/// What [`account`] leaves: a datagram that hit no slot. Called once in a program, since the verifier walks through all of it
/// for each call.
#[inline(always)]
pub(crate) fn judge_and_count(skb: *mut __sk_buff, mut frame: Frame) {
    frame.facts = opaque(frame.facts, skb);
    let verdict = judge(skb, &raw const frame);
    miss(skb, &raw const frame, verdict);
}

/// Whether the source is foreign; counted if so.
#[inline(always)]
fn find_foreign(position: u32, port: *const Port, datagram: &Datagram, direction: u8) -> bool {
    let foreign = direction == OUTBOUND && is_foreign(port, datagram);
    if foreign && let Some(stats) = port_stats(position, direction) {
        // SAFETY: a map value. The verifier checks the access.
        atomic::add(unsafe { &raw mut (*stats).foreign_source }, 1);
    }
    foreign
}

/// An IPv4 source that is none of the Pod's addresses. 0.0.0.0 is a host without an address, not a stranger.
#[inline(always)]
pub(crate) fn is_foreign(port: *const Port, datagram: &Datagram) -> bool {
    if datagram.family != IPV4 {
        return false;
    }
    let source = (datagram.source[1] >> 32) as u32;
    // SAFETY: a map value.
    let count = unsafe { (*port).address_count } as usize;
    if source == 0 || count == 0 {
        return false;
    }
    for at in 0..PORT_ADDRESSES {
        // SAFETY: as above; the index is a constant once unrolled.
        if at < count && unsafe { (&raw const (*port).addresses[at]).cast::<u32>().read() } == source {
            return false;
        }
    }
    true
}

/// The READY slot of a key whose verdict fits, and the verdict.
#[inline(always)]
fn find(
    key: &Key,
    hash: u64,
    matches: impl Fn(*const Slot, u64, &Key) -> bool,
    fits: impl Fn(u64) -> bool,
) -> Option<(u32, u64)> {
    let start = slot::set_start(hash, sets());
    let first = slot::first_way(hash);
    let ready = slot::word(hash, READY);
    for step in 0..WAYS {
        let index = start + ((first + step) & (WAYS - 1));
        let candidate = SLOTS.get_ptr_mut(index)?;
        if matches(candidate, ready, key) {
            let verdict = atomic::load(verdict_of(candidate));
            if fits(verdict) {
                return Some((index, verdict));
            }
        }
    }
    None
}

/// A slot's verdict, as one word.
#[inline(always)]
fn verdict_of(slot: *mut Slot) -> *mut u64 {
    // SAFETY: a map value; the word is aligned (see `SLOT_VERDICT`).
    unsafe { (&raw mut (*slot).first_port).cast() }
}

/// [`matches`], with fewer steps where the source is in no key.
#[inline(always)]
fn matches_hot(candidate: *const Slot, ready: u64, key: &Key) -> bool {
    // SAFETY: as in `matches`.
    unsafe {
        atomic::load(&raw const (*candidate).state) == ready
            && word(&raw const (*candidate).group, 1) == key.group[1]
            && (&raw const (*candidate).port).cast::<u64>().read() == key.owner
            && word(&raw const (*candidate).group, 0) == key.group[0]
            // Zero in both, unless the group is in an SSM range.
            && (key.source[0] | key.source[1] == 0
                || word(&raw const (*candidate).source, 1) == key.source[1]
                    && word(&raw const (*candidate).source, 0) == key.source[0])
    }
}

/// Whether a slot is READY and the key's.
#[inline(always)]
fn matches(candidate: *const Slot, ready: u64, key: &Key) -> bool {
    // SAFETY: a map value. `port` begins an aligned word, the owner; addresses are two words each.
    unsafe {
        atomic::load(&raw const (*candidate).state) == ready
            && word(&raw const (*candidate).group, 1) == key.group[1]
            && (&raw const (*candidate).port).cast::<u64>().read() == key.owner
            && word(&raw const (*candidate).group, 0) == key.group[0]
            && word(&raw const (*candidate).source, 1) == key.source[1]
            && word(&raw const (*candidate).source, 0) == key.source[0]
    }
}

#[inline(always)]
unsafe fn word(bytes: *const [u8; 16], at: usize) -> u64 {
    // SAFETY: the caller's: 16 bytes, aligned to 8.
    unsafe { bytes.cast::<u64>().add(at).read() }
}

/// What a packet adds to counters: read once, since behind a write to a counter the compiler would read it again.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
}

impl Size {
    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: the context of a classifier.
        let (bytes, segments) = unsafe { ((*skb).len, (*skb).gso_segs) };
        Self {
            bytes: bytes as u64,
            segments: if segments == 0 { 1 } else { segments as u64 },
        }
    }
}

/// Counts a packet in this CPU's counter of a slot.
#[inline(always)]
pub(crate) fn count(size: Size, counter: *mut Counter, datagram: &Datagram) {
    // SAFETY: this CPU's own map value; bottom halves are off, so nobody else writes it.
    unsafe {
        let counter = &mut *counter;
        counter.packets += 1;
        counter.bytes += size.bytes;
        counter.segments += size.segments;
        if datagram.ttl <= 1 {
            counter.ttl1 += 1;
        }
        let last = (&raw mut counter.source).cast::<u64>();
        if last.read() != datagram.source[0] || last.add(1).read() != datagram.source[1] {
            if counter.last_seen != 0 {
                counter.source_changes += 1;
            }
            last.write(datagram.source[0]);
            last.add(1).write(datagram.source[1]);
        }
        // 0 means never: one tick in 2^32 is booked one tick late.
        counter.last_seen = (bpf_jiffies64() as u32) | 1;
    }
}

/// Why a packet gets no slot.
#[derive(Clone, Copy, PartialEq)]
enum Refused {
    PortLimit,
    FairShare,
    WindowFull,
    Contended,
}

/// Judges a datagram by the port's policy set: the verdict of its slot, should it get one.
///
/// A function of its own beside [`miss`]: together they would need more stack than there is.
#[inline(never)]
fn judge(skb: *mut __sk_buff, frame: *const Frame) -> u64 {
    // SAFETY: the caller's stack; map values below.
    let frame = unsafe { &*frame };
    let Some(port) = port_at(frame.position()) else {
        return UNJUDGED;
    };
    if frame.facts & (TO_POD | SIX) != 0 {
        return slot::verdict_word(UNPOLICED, 0, PORTS_ALL);
    }
    let judges = policy::Judges::of(port);
    let judgement = judges.data(skb, frame.foreign(), (frame.group[1] >> 32) as u32);
    slot::verdict_word(judges.generation, judgement.decision, judgement.ports)
}

/// No READY slot with the packet's verdict: find it by what was judged just now, or insert it, then count; else *other
/// groups*.
#[inline(never)]
fn miss(skb: *mut __sk_buff, frame: *const Frame, verdict: u64) {
    // SAFETY: the caller's stack; map values below.
    let frame = unsafe { &*frame };
    let (direction, position) = (frame.direction(), frame.position());
    let (Some(port), Some(stats)) = (port_at(position), port_stats(position, direction)) else {
        return;
    };
    let datagram = frame.datagram();
    match find_or_insert(
        &key(port, &datagram, direction, frame.foreign()),
        verdict,
        position,
        stats,
    ) {
        Ok(index) => {
            if test_delay() != 0 {
                delay_here(test_delay());
            }
            if let Some(counter) = COUNTERS.get_ptr_mut(index) {
                count(Size::of(skb), counter, &datagram);
            }
        }
        Err(refused) => {
            let (size, decision) = (Size::of(skb), slot::verdict_decision(verdict));
            count_other(size, &datagram, stats, decision, refused);
            policy::count(size, decision);
            say_refused(position, direction as u32, refused as u32);
        }
    }
}

#[inline(always)]
fn say_refused(position: u32, direction: u32, reason: u32) {
    debug!(
        "no slot: port at {}, direction {}, reason {} of port limit, fair share, window full, contended",
        position, direction, reason
    );
}

/// Finds the key's slot of this verdict, or takes one that has none, or a free one. The whole set is scanned before an
/// insertion: a slot of the same key may lie behind a freed one.
#[inline(always)]
fn find_or_insert(key: &Key, verdict: u64, position: u32, stats: *mut PortStats) -> Result<u32, Refused> {
    let hash = key.hash(seed());
    let start = slot::set_start(hash, sets());
    let first = slot::first_way(hash);
    let ready = slot::word(hash, READY);
    for step in 0..WAYS {
        let index = start + ((first + step) & (WAYS - 1));
        let Some(candidate) = SLOTS.get_ptr_mut(index) else {
            return Err(Refused::WindowFull);
        };
        if matches(candidate, ready, key) && takes(verdict_of(candidate), verdict) {
            return Ok(index);
        }
    }
    // A scan of its own and backwards, so that the free way nearest to the first is the one kept: with less to remember
    // in each, the verifier walks through a third of the states.
    let mut free = u32::MAX;
    for step in 0..WAYS {
        let index = start + ((first + WAYS - 1 - step) & (WAYS - 1));
        let Some(candidate) = SLOTS.get_ptr(index) else {
            return Err(Refused::WindowFull);
        };
        // SAFETY: a map value.
        let state = atomic::load(unsafe { &raw const (*candidate).state });
        if state == BUSY {
            return Err(Refused::Contended);
        }
        if state == EMPTY {
            free = index;
        }
    }
    if free == u32::MAX {
        return Err(Refused::WindowFull);
    }
    reserve(position, stats)?;
    let Some(taken) = SLOTS.get_ptr_mut(free) else {
        return Err(Refused::WindowFull);
    };
    // SAFETY: map values.
    unsafe {
        if atomic::cmpxchg(&raw mut (*taken).state, EMPTY, BUSY) != EMPTY {
            release(stats);
            return Err(Refused::Contended);
        }
        (&raw mut (*taken).port).cast::<u64>().write(key.owner);
        write_words(&raw mut (*taken).group, key.group);
        write_words(&raw mut (*taken).source, key.source);
        verdict_of(taken).write(verdict);
        (*taken).since = bpf_jiffies64();
        // A full barrier: whoever sees READY sees the key and the verdict.
        atomic::cmpxchg(&raw mut (*taken).state, BUSY, ready);
    }
    Ok(free)
}

/// Whether packets of a verdict may count in a slot of their key: it has that one, be it of another generation, or none.
/// Meanwhile the agent may take another off it, and another CPU give it one.
#[inline(always)]
fn takes(slot: *mut u64, verdict: u64) -> bool {
    let known = atomic::load(slot);
    if known == verdict {
        return true;
    }
    let is_its_own = slot::verdict_generation(known) != SETTLING && slot::is_same_verdict(known, verdict);
    if !is_its_own && known != UNJUDGED {
        return false;
    }
    let found = atomic::cmpxchg(slot, known, verdict);
    found == known || found == verdict
}

#[inline(always)]
unsafe fn write_words(bytes: *mut [u8; 16], words: [u64; 2]) {
    // SAFETY: the caller's: 16 bytes, aligned to 8.
    unsafe {
        bytes.cast::<u64>().write(words[0]);
        bytes.cast::<u64>().add(1).write(words[1]);
    }
}

/// Takes one slot from the port's and the table's allowance.
#[inline(always)]
fn reserve(position: u32, stats: *mut PortStats) -> Result<(), Refused> {
    let Some(settings) = SETTINGS.get_ptr_mut(0) else {
        return Err(Refused::PortLimit);
    };
    // SAFETY: map values.
    unsafe {
        let used = atomic::load(&raw const (*stats).slots_used);
        if used >= (*settings).slots_per_port as u64 {
            return Err(Refused::PortLimit);
        }
        if atomic::load(&raw const (*settings).slots_used) >= (*settings).half_table as u64 {
            let (Some(outbound), Some(inbound)) = (port_stats(position, 0), port_stats(position, 1)) else {
                return Err(Refused::FairShare);
            };
            let both = atomic::load(&raw const (*outbound).slots_used) + atomic::load(&raw const (*inbound).slots_used);
            if both >= (*settings).fair_share as u64 {
                return Err(Refused::FairShare);
            }
        }
        // Compared and exchanged, not added: two CPUs at the limit must not both pass it.
        if atomic::cmpxchg(&raw mut (*stats).slots_used, used, used + 1) != used {
            return Err(Refused::Contended);
        }
        atomic::add(&raw mut (*settings).slots_used, 1);
    }
    Ok(())
}

/// Gives back what [`reserve`] took.
#[inline(always)]
fn release(stats: *mut PortStats) {
    // SAFETY: map values.
    unsafe {
        atomic::add(&raw mut (*stats).slots_used, u64::MAX);
        if let Some(settings) = SETTINGS.get_ptr_mut(0) {
            atomic::add(&raw mut (*settings).slots_used, u64::MAX);
        }
    }
}

/// A packet without a slot: the port's totals stay exact, and the reason is visible.
#[inline(always)]
fn count_other(size: Size, datagram: &Datagram, stats: *mut PortStats, decision: u16, refused: Refused) {
    let family = (datagram.family != IPV4) as usize;
    // SAFETY: a map value; `family` is 0 or 1.
    unsafe {
        let other = (&raw mut (*stats).other)
            .cast::<mcstat_common::abi::OtherGroups>()
            .add(family);
        let verdict = Verdict::of(decision);
        if verdict == Verdict::Drop {
            atomic::add(&raw mut (*other).dropped, 1);
        } else {
            atomic::add(&raw mut (*other).packets, 1);
            atomic::add(&raw mut (*other).bytes, size.bytes);
            atomic::add(&raw mut (*other).segments, size.segments);
            if verdict == Verdict::WouldDrop {
                atomic::add(&raw mut (*other).would_drop, 1);
            }
        }
        if datagram.ttl <= 1 {
            atomic::add(&raw mut (*other).ttl1, 1);
        }
        atomic::store(&raw mut (*other).last_seen, bpf_jiffies64());
        let reason = match refused {
            Refused::PortLimit => &raw mut (*stats).port_limit,
            Refused::FairShare => &raw mut (*stats).fair_share,
            Refused::WindowFull => &raw mut (*stats).window_full,
            Refused::Contended => &raw mut (*stats).contended,
        };
        atomic::add(reason, 1);
    }
}

/// For the race test alone; see `TEST_DELAY`.
#[inline(never)]
fn delay(iterations: u32) {
    delay_here(iterations);
}

/// [`delay`] without a function of its own, for [`miss`]: on Linux 6.1 every function on the way takes at least 32 of
/// the 512 bytes of stack, and the way by a copied frame to a miss is the longest.
#[inline(always)]
fn delay_here(iterations: u32) {
    let mut sum = 0u64;
    // SAFETY: the callback's signature is the one that the helper demands.
    unsafe { bpf_loop(iterations, delay_step as *mut _, (&raw mut sum).cast(), 0) };
}

#[inline(never)]
extern "C" fn delay_step(index: u32, sum: *mut u64) -> i64 {
    // SAFETY: the helper's context is `sum` of `delay_here`.
    unsafe { sum.write_volatile(sum.read_volatile() ^ index as u64) };
    0
}
