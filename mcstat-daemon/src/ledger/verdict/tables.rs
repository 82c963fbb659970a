//! The maps as a value: what the kernel holds after the same changes, what is said of queries beside it, and what it says of
//! a packet.
//!
//! User space judges with it what only user space sees whole, and tests hold it against the definitions and the kernel.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use mcstat_common::policy::{
    DECISION_DROP, PolicyKey, PolicyValue, PortList, SCOPE_BITS, TRANSPORT_FRAGMENT, TRANSPORT_OTHER, judge,
};

use super::{
    change::{Change, Retired, Stored},
    model::PodName,
    object::Action,
};

/// What a verdict may rest on besides addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP to this port.
    Udp(u16),
    /// A fragment of a UDP datagram, the first one too: judged without ports.
    UdpFragment,
    /// Any other protocol.
    Other,
}

/// What is decided, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Slot of the rule; `None`: no rule matches, which allows.
    pub rule: Option<u16>,
    /// Whether it may pass.
    pub action: Action,
}

/// Copies of the maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    trie: HashMap<PolicyKey, PolicyValue>,
    /// Bit n: there are prefixes of n bits, by the scope of their keys. A look-up need not try the others.
    lengths: HashMap<u32, u64>,
    lists: HashMap<u16, PortList>,
    pods: HashMap<PodName, (u16, u8)>,
}

impl Tables {
    /// What an earlier run left in the maps, which judges until the first change.
    #[must_use]
    pub fn adopting(stored: &Stored, pods: impl IntoIterator<Item = (PodName, u16)>) -> Self {
        let mut tables = Self::default();
        tables.insert(&Change {
            lists: stored.lists.clone(),
            sets: stored.sets.clone(),
            ..Change::default()
        });
        let spaces: HashMap<u16, u8> = stored.sets.iter().map(|set| (set.id, set.spaces)).collect();
        let pods = pods
            .into_iter()
            .map(|(pod, set)| (pod, (set, spaces.get(&set).copied().unwrap_or(0))));
        tables.pods = pods.collect();
        tables
    }

    /// Makes a change, all steps of it.
    pub fn apply(&mut self, change: &Change) {
        self.insert(change);
        self.flip(change);
        self.delete(&change.retired);
    }

    /// First step: what is new stands beside the old, and no Pod uses it.
    pub fn insert(&mut self, change: &Change) {
        self.lists.extend(change.lists.iter().copied());
        for (key, value) in change.sets.iter().flat_map(|set| set.all()) {
            *self.lengths.entry(key.scope).or_default() |= 1 << (key.prefix_length - SCOPE_BITS);
            self.trie.insert(key, value);
        }
    }

    /// Second step: Pods get their sets.
    pub fn flip(&mut self, change: &Change) {
        if change.whole {
            let named: HashSet<&PodName> = change.flips.iter().map(|(pod, _)| pod).collect();
            self.pods.retain(|pod, _| named.contains(pod));
        }
        for (pod, set) in &change.flips {
            match set {
                Some(set) => self.pods.insert(pod.clone(), (set.id, set.spaces)),
                None => self.pods.remove(pod),
            };
        }
    }

    /// Last step, in the kernel after an RCU wait: what no Pod uses goes.
    pub fn delete(&mut self, retired: &Retired) {
        for (key, _) in retired.sets.iter().flat_map(|set| set.all()) {
            self.trie.remove(&key);
            // A set goes whole.
            self.lengths.remove(&key.scope);
        }
        for list in &retired.lists {
            self.lists.remove(list);
        }
    }

    /// The verdict on a Pod's packet, record or query; see the `SPACE_` constants for what `address` is.
    #[must_use]
    pub fn judge(&self, pod: &PodName, space: u8, address: Ipv4Addr, transport: Transport) -> Verdict {
        let value = self.value(pod, space, address);
        let transport = match transport {
            Transport::Udp(port) => u32::from(port),
            Transport::UdpFragment => TRANSPORT_FRAGMENT,
            Transport::Other => TRANSPORT_OTHER,
        };
        Verdict::from(judge(value, self.lists.get(&value.list), transport).decision)
    }

    /// Whether any rule is for this Pod.
    #[must_use]
    pub fn has_rules(&self, pod: &PodName) -> bool {
        self.pods.contains_key(pod)
    }

    /// Whether any rule is for any Pod.
    #[must_use]
    pub fn judge_anybody(&self) -> bool {
        !self.pods.is_empty()
    }

    /// The verdict on all of a Pod's packets to this address; `None`: it rests on their UDP port.
    #[must_use]
    pub fn judge_all(&self, pod: &PodName, space: u8, address: Ipv4Addr) -> Option<Verdict> {
        let value = self.value(pod, space, address);
        (value.list == 0).then(|| Verdict::from(value.decision))
    }

    /// How many entries there are, those for queries among them.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.trie.len()
    }

    fn value(&self, pod: &PodName, space: u8, address: Ipv4Addr) -> PolicyValue {
        let (set, spaces) = self.pods.get(pod).copied().unwrap_or_default();
        let found = if spaces & (1 << space) == 0 {
            None
        } else {
            self.longest(set, space, address)
        };
        found.unwrap_or_default()
    }

    fn longest(&self, set: u16, space: u8, address: Ipv4Addr) -> Option<PolicyValue> {
        let lengths = *self.lengths.get(&PolicyKey::new(set, space, 0, 0).scope)?;
        let mut there = (0..=32_u32).rev().filter(|length| lengths & (1 << length) != 0);
        there.find_map(|length| {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let prefix = (u32::from(address) & mask).to_be();
            self.trie.get(&PolicyKey::new(set, space, prefix, length)).copied()
        })
    }
}

impl From<u16> for Verdict {
    /// From a decision of the maps.
    fn from(decision: u16) -> Self {
        let slot = decision & !DECISION_DROP;
        Self {
            rule: (slot != 0).then_some(slot),
            action: if decision & DECISION_DROP == 0 {
                Action::Allow
            } else {
                Action::Drop
            },
        }
    }
}
