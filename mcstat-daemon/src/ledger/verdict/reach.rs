//! What each rule is about, and for which Pods: the compiler's view of a rule, for those who compare it with another's.

use std::{collections::HashMap, sync::Arc};

use super::{
    model::PodName,
    object::Ports,
    prefix::Block,
    resolve::{Content, RuleId},
};

/// Every rule that is for any Pod, as compiled last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reach {
    pub(super) pods: Arc<[PodName]>,
    pub(super) rules: HashMap<RuleId, (Arc<Content>, Arc<[u32]>)>,
}

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct RuleReach<'a> {
    content: &'a Content,
    pods: &'a [u32],
}

impl Reach {
    /// One rule; `None` where it is for no Pod.
    #[must_use]
    pub fn of(&self, rule: &RuleId) -> Option<RuleReach<'_>> {
        let (content, pods) = self.rules.get(rule)?;
        Some(RuleReach { content, pods })
    }

    /// The node's Pods; rules say their positions here.
    #[must_use]
    pub fn pods(&self) -> &[PodName] {
        &self.pods
    }
}

impl<'a> RuleReach<'a> {
    /// The addresses that it is about in a space (`mcstat_common::policy`): none in any but its own.
    pub fn blocks(self, space: u8) -> impl Iterator<Item = &'a Block> {
        let terms = self.content.terms.iter();
        terms.filter(move |term| term.space == space).map(|term| &term.block)
    }

    /// Whether it asks for ports of UDP.
    #[must_use]
    pub fn by_port(self) -> bool {
        self.content.ports != Ports::Any
    }

    /// The Pods that it is for: positions in [`Reach::pods`].
    #[must_use]
    pub fn pods(self) -> &'a [u32] {
        self.pods
    }
}
