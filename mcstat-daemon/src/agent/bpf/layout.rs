//! How large the maps are: pure arithmetic, so that a 128-CPU node can be checked on a laptop.

use mcstat_common::{
    abi::{
        Carry, Counter, DENIED_ENTRIES, Denied, DeniedKey, EventCounts, PORT_ENTRIES, Port, PortBook, PortStats,
        ReportWalk, RuleCounter, RuleName, Settings, Slot, VANISHED_ENTRIES, Vanished, WAYS,
    },
    policy::{MAX_RULE_SLOT, PortList},
};
use thiserror::Error;

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All maps together, in bytes.
    pub memory_bytes: u64,
    /// Number of slots; 0 = as many as the memory allows, at most 16,384.
    pub slots: u32,
    /// Slots per port and direction.
    pub slots_per_port: u32,
    /// Counted ports.
    pub ports: u32,
    /// Ring buffer for IGMP and MLD messages, in bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
}

/// Sizes of the maps that are not the same on every node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Slots, a multiple of [`WAYS`].
    pub slots: u32,
    /// Ring buffer, in bytes.
    pub ring_bytes: u32,
    /// Slots of rules, and as many lists of ports; slot 0 is none.
    pub rules: u32,
    /// Prefixes of all policy sets together.
    pub policy_prefixes: u32,
}

/// The maps of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How large they are.
    pub sizes: Sizes,
    /// All maps together, in bytes.
    pub total_bytes: u64,
}

/// Limits that cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LayoutError {
    #[error(
        "maps.memoryMiB allows {allowed} bytes, but {slots} slots on {cpus} possible CPUs need {needed}; raise it or lower maps.slots"
    )]
    TooMuch {
        allowed: u64,
        needed: u64,
        slots: u32,
        cpus: usize,
    },
    #[error("maps.memoryMiB allows {allowed} bytes, but even {minimum} slots on {cpus} possible CPUs need {needed}")]
    TooLittle {
        allowed: u64,
        needed: u64,
        minimum: u32,
        cpus: usize,
    },
    #[error("maps.ports is {ports}, at most {max} ports can be counted")]
    TooManyPorts { ports: u32, max: u32 },
}

/// Enough for one busy Pod: fewer would make the overflow the normal case.
const MIN_SLOTS: u32 = 256;
/// What the table is sized to when the memory allows more: 500 Pods × 20 groups at 61 %.
const DEFAULT_SLOTS: u32 = 16_384;
/// The table is kept at most half full, so that a port is always found in its window.
pub const MAX_PORTS: u32 = PORT_ENTRIES / 2;

/// Rules and prefixes where the memory allows them: 1,000 rules of which each of 500 Pods has 100 others, and room for
/// changes.
const DEFAULT_RULES: u32 = 1024;
const DEFAULT_PREFIXES: u32 = 131_072;
const MIN_RULES: u32 = 64;
/// What a prefix takes in the kernel: a node of 64 bytes (`struct lpm_trie_node` with 12 bytes of data), and at most one
/// more where two prefixes part (kernel/bpf/lpm_trie.c). Taken from the node's memory only when it is there.
const PREFIX_BYTES: u64 = 128;

impl Sizes {
    /// Bytes that maps of these sizes, and everything else, take on `cpus` possible CPUs.
    pub fn bytes(&self, cpus: usize) -> u64 {
        let slot = size_of::<Slot>() + size_of::<Carry>() + size_of::<Counter>() * cpus;
        let ports = PORT_ENTRIES as usize * (size_of::<Port>() + 4 * size_of::<PortStats>());
        let kept = PORT_ENTRIES as usize * size_of::<PortBook>() + VANISHED_ENTRIES as usize * size_of::<Vanished>();
        let kept = kept + DENIED_ENTRIES as usize * (size_of::<DeniedKey>() + size_of::<Denied>());
        let rest = kept + size_of::<Settings>() + (size_of::<EventCounts>() + size_of::<ReportWalk>()) * cpus;
        u64::from(self.slots) * slot as u64
            + u64::from(self.rules) * rule_bytes(cpus)
            + u64::from(self.policy_prefixes) * PREFIX_BYTES
            + (ports + rest) as u64
            + u64::from(self.ring_bytes)
    }

    /// Everything but the slots: an eighth of the memory at most for rules, a quarter for prefixes.
    fn without_slots(limits: &Limits, cpus: usize) -> Self {
        let allowed = limits.memory_bytes;
        let rules = (allowed / 8 / rule_bytes(cpus)).min(u64::from(DEFAULT_RULES)) as u32;
        let prefixes = (allowed / 4 / PREFIX_BYTES).min(u64::from(DEFAULT_PREFIXES)) as u32;
        Self {
            slots: 0,
            ring_bytes: limits.ring_bytes,
            rules: rules.max(MIN_RULES),
            policy_prefixes: prefixes.max(MIN_RULES),
        }
    }
}

const _: () = assert!(DEFAULT_RULES <= MAX_RULE_SLOT as u32 + 1);

/// What a rule takes: counters, name, and a list of ports.
fn rule_bytes(cpus: usize) -> u64 {
    (size_of::<RuleCounter>() * cpus + size_of::<RuleName>() + size_of::<PortList>()) as u64
}

impl Layout {
    /// The largest table within the limits.
    ///
    /// # Errors
    /// When the limits contradict each other; each message names the keys to change.
    pub fn new(limits: &Limits, cpus: usize) -> Result<Self, LayoutError> {
        if limits.ports > MAX_PORTS {
            return Err(LayoutError::TooManyPorts {
                ports: limits.ports,
                max: MAX_PORTS,
            });
        }
        let allowed = limits.memory_bytes;
        let rest = Sizes::without_slots(limits, cpus);
        let with = |slots| Sizes { slots, ..rest };
        let slots = if limits.slots == 0 {
            let per_slot = with(1).bytes(cpus) - rest.bytes(cpus);
            let room = allowed.saturating_sub(rest.bytes(cpus)) / per_slot;
            (room.min(u64::from(DEFAULT_SLOTS)) as u32) / WAYS * WAYS
        } else {
            limits.slots.next_multiple_of(WAYS)
        };
        let needed = with(slots.max(MIN_SLOTS)).bytes(cpus);
        if slots < MIN_SLOTS {
            return Err(LayoutError::TooLittle {
                allowed,
                needed,
                minimum: MIN_SLOTS,
                cpus,
            });
        }
        if needed > allowed {
            return Err(LayoutError::TooMuch {
                allowed,
                needed,
                slots,
                cpus,
            });
        }
        Ok(Self {
            sizes: with(slots),
            total_bytes: needed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Limits = Limits {
        memory_bytes: 64 << 20,
        slots: 0,
        slots_per_port: 256,
        ports: 512,
        ring_bytes: 1 << 20,
    };

    #[test]
    fn sixty_four_mebibytes_on_any_machine() {
        for (cpus, least) in [
            (1, 16_384),
            (2, 16_384),
            (32, 16_384),
            (64, 9_400),
            (128, 4_500),
            (512, 1_100),
        ] {
            let layout = Layout::new(&DEFAULT, cpus).unwrap();
            assert!(layout.total_bytes <= 64 << 20, "{cpus} CPUs: {layout:?}");
            assert!(layout.sizes.slots >= least, "{cpus} CPUs: {layout:?}");
            assert_eq!(layout.sizes.slots % WAYS, 0);
        }
    }

    #[test]
    fn contradictions_name_what_to_change() {
        let error = Layout::new(
            &Limits {
                slots: 16_384,
                ..DEFAULT
            },
            128,
        )
        .unwrap_err();
        assert!(error.to_string().contains("raise it or lower maps.slots"), "{error}");
        let error = Layout::new(
            &Limits {
                memory_bytes: 1 << 20,
                ..DEFAULT
            },
            2,
        )
        .unwrap_err();
        assert!(matches!(error, LayoutError::TooLittle { .. }), "{error}");
        let error = Layout::new(&Limits { ports: 513, ..DEFAULT }, 2).unwrap_err();
        assert!(matches!(error, LayoutError::TooManyPorts { max: 512, .. }), "{error}");
    }
}
