//! A slot's life: its state word, the hash of its key, and its verdict.
//!
//! EMPTY → BUSY (one CPU inserts) → READY → DEAD (the agent has chosen it) → FOLDED (its totals are in the port's) →
//! EMPTY. Only programs make the first two steps, only the agent the others. The upper 61 bits of READY and DEAD hold
//! the key's hash, so that a scan compares one word per way.

use crate::policy::{DECISION_DROP, DECISION_UNENFORCED};

/// Free: counters, key and carry are zero.
pub const EMPTY: u64 = 0;
/// A CPU is writing the key.
pub const BUSY: u64 = 1;
/// In use.
pub const READY: u64 = 2;
/// Chosen to be freed: no packet finds it any more; packets that found it before may still count.
pub const DEAD: u64 = 3;
/// Its totals are in `port_carried`: what its counters hold must not be added again.
pub const FOLDED: u64 = 4;
/// The bits of the state word that hold the state.
pub const STATE_MASK: u64 = 7;

/// The state of a state word.
#[inline(always)]
pub const fn state_of(word: u64) -> u64 {
    word & STATE_MASK
}

/// The state word of a key's hash in `state`.
#[inline(always)]
pub const fn word(hash: u64, state: u64) -> u64 {
    (hash & !STATE_MASK) | state
}

/// The key of a slot, as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Port id (low half), then a byte each: direction, family, foreign source. The words of `Slot` from `port` on.
    pub owner: u64,
    /// Destination address, IPv4-mapped for IPv4; native-order words of the network-order bytes.
    pub group: [u64; 2],
    /// Source address in the SSM ranges, else zero.
    pub source: [u64; 2],
}

impl Key {
    /// The word that holds owner, direction, family and whether the source is foreign, as they lie in [`crate::abi::Slot`]
    /// (little-endian hosts).
    #[inline(always)]
    pub const fn owner(port: u32, direction: u8, family: u8, foreign: bool) -> u64 {
        (port as u64) | ((direction as u64) << 32) | ((family as u64) << 40) | ((foreign as u64) << 48)
    }

    /// Hash of the key: all bits depend on all bits, and on the seed that only this node knows.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> u64 {
        // Multiply-xorshift, the finaliser of SplitMix64 (Steele, Lea, Flood 2014) over two words; 64-bit products
        // only, since BPF has no wide multiplication.
        let mut h = (self.owner ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h ^= self.group[0].wrapping_mul(0xc2b2_ae3d_27d4_eb4f) ^ self.group[1];
        if self.source[0] | self.source[1] != 0 {
            h ^= self.source[0].wrapping_mul(0x1656_67b1_9e37_79f9) ^ self.source[1].rotate_left(29);
        }
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        h ^ (h >> 31)
    }
}

/// The first slot of the key's set, among `sets` sets of [`crate::abi::WAYS`].
#[inline(always)]
pub const fn set_start(hash: u64, sets: u32) -> u32 {
    (((hash >> 32) * sets as u64) >> 32) as u32 * crate::abi::WAYS
}

/// The way at which the scan of a set begins: other bits than the set's, so that keys of one set spread over it.
#[inline(always)]
pub const fn first_way(hash: u64) -> u32 {
    (hash >> 3) as u32 & (crate::abi::WAYS - 1)
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Admitted.
    Allow = 1,
    /// Denied, and enforced.
    Drop = 2,
    /// Denied, and nobody enforces it.
    WouldDrop = 3,
}

impl Verdict {
    /// Of a slot's decision.
    #[inline(always)]
    pub const fn of(decision: u16) -> Self {
        match decision & (DECISION_DROP | DECISION_UNENFORCED) {
            0 => Self::Allow,
            DECISION_DROP => Self::Drop,
            _ => Self::WouldDrop,
        }
    }
}

/// Verdict word of a slot that has none and has counted nothing: the first packet of its key makes it its own.
pub const UNJUDGED: u64 = 0;
/// Greatest generation of a port; behind it comes 1.
pub const LAST_GENERATION: u16 = 0xfffd;
/// Generation of a verdict that the agent is taking off its slot: no packet counts under it.
pub const SETTLING: u16 = 0xfffe;
/// Generation of the verdict on what no policy is about: all but IPv4 that the Pod sends.
pub const UNPOLICED: u16 = 0xffff;

/// A slot's verdict in one word: {generation: 16, decision: 16, ports: 32}; see [`crate::policy::holds_for`]. The decision
/// and the ports never change while the slot counts: packets on which another was made have a slot of their own.
#[inline(always)]
pub const fn verdict_word(generation: u16, decision: u16, ports: u32) -> u64 {
    ((generation as u64) << 48) | ((decision as u64) << 32) | ports as u64
}

/// The generation of a verdict word.
#[inline(always)]
pub const fn verdict_generation(word: u64) -> u16 {
    (word >> 48) as u16
}

/// The decision of a verdict word.
#[inline(always)]
pub const fn verdict_decision(word: u64) -> u16 {
    (word >> 32) as u16
}

/// The ports of a verdict word.
#[inline(always)]
pub const fn verdict_ports(word: u64) -> u32 {
    word as u32
}

/// Whether two verdict words differ in nothing but the generation.
#[inline(always)]
pub const fn is_same_verdict(one: u64, other: u64) -> bool {
    (one ^ other) << 16 == 0
}

/// The same verdict under [`SETTLING`].
#[inline(always)]
pub const fn settling(word: u64) -> u64 {
    verdict_word(SETTLING, verdict_decision(word), verdict_ports(word))
}

/// The generation that follows.
#[inline(always)]
pub const fn next_generation(generation: u16) -> u16 {
    if generation >= LAST_GENERATION {
        1
    } else {
        generation + 1
    }
}
