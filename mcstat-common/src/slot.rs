//! A slot's life: its state word, the hash of its key, and the cached verdict.
//!
//! EMPTY → BUSY (one CPU inserts) → READY → DEAD (the agent has chosen it) → FOLDED (its totals are in the port's) →
//! EMPTY. Only programs make the first two steps, only the agent the others. The upper 61 bits of READY and DEAD hold
//! the key's hash, so that a scan compares one word per way.

use crate::policy::PolicyValue;

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
    /// Port id (low half), direction (next byte), family (next byte): the words of `Slot` from `port` on.
    pub owner: u64,
    /// Destination address, IPv4-mapped for IPv4; native-order words of the network-order bytes.
    pub group: [u64; 2],
    /// Source address in the SSM ranges, else zero.
    pub source: [u64; 2],
}

impl Key {
    /// The word that holds owner, direction and family as they lie in [`crate::abi::Slot`] (little-endian hosts).
    #[inline(always)]
    pub const fn owner(port: u32, direction: u8, family: u8) -> u64 {
        (port as u64) | ((direction as u64) << 32) | ((family as u64) << 40)
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

/// The cached verdict word {generation, port list, decision}; 0 is of no generation that a port has.
#[inline(always)]
pub const fn verdict_word(generation: u32, value: PolicyValue) -> u64 {
    ((generation as u64) << 32) | ((value.list as u64) << 16) | value.decision as u64
}

/// The generation of a verdict word.
#[inline(always)]
pub const fn verdict_generation(word: u64) -> u32 {
    (word >> 32) as u32
}

/// What was cached: the decision, and the list that comes before it.
#[inline(always)]
pub const fn verdict_value(word: u64) -> PolicyValue {
    PolicyValue {
        list: (word >> 16) as u16,
        decision: word as u16,
    }
}
