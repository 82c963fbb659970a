//! Verdicts on what one interface reported: of one tick by slot, and the rules that have denied something, by name.
//!
//! Bounded by the groups that are known of the interface, and by [`MAX_DENIERS`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use crate::{api::rule::RuleReference, ledger::judge::Judge};

/// Rules kept of one interface.
pub(super) const MAX_DENIERS: usize = 16;

/// Verdicts on the records of one tick, by slot of the rule that denied them.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    /// Of each group that is known the verdict on the last record that was no leave; `None`: it is allowed.
    pub(super) groups: BTreeMap<IpAddr, Option<u16>>,
    /// Every rule that denied a record, of groups that are no multicast too.
    pub(super) deniers: BTreeSet<u16>,
}

/// The rules that denied records of an interface, the last one at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Deniers(VecDeque<RuleReference>);

impl Deniers {
    /// Takes in one tick. A rule that denied again is the last one again; the first one makes room.
    pub(super) fn update(&mut self, slots: &BTreeSet<u16>, judge: &Judge<'_>) {
        for rule in slots.iter().filter_map(|slot| judge.rule(*slot)) {
            self.0.retain(|known| *known != rule);
            self.0.push_back(rule);
        }
        let beyond = self.0.len().saturating_sub(MAX_DENIERS);
        self.0.drain(..beyond);
    }

    /// They.
    pub(super) fn rules(&self) -> impl Iterator<Item = &RuleReference> {
        self.0.iter()
    }
}
