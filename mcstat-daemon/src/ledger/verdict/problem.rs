//! Why a policy, or a part of one, is not judged. Each names the policy.

use std::sync::Arc;

use thiserror::Error;

use super::object::{ObjectKey, Refusal};

/// Something that keeps a policy from being judged as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// A group shows that the rule is about multicast, and as such it is refused.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no such tier (yet): the policy is not judged.
    #[error("{policy}: tier {tier} does not exist; the policy is not judged")]
    Tier {
        /// The policy.
        policy: ObjectKey,
        /// The tier it names.
        tier: String,
    },
    /// A group selects nothing.
    #[error("{policy}, rule {rule}: group {group} {fault}")]
    Group {
        /// The policy.
        policy: ObjectKey,
        /// The rule.
        rule: Arc<str>,
        /// The group's name.
        group: Arc<str>,
        /// Why.
        fault: GroupFault,
    },
    /// More than 16 rules with UDP ports matter for one address: for these Pods the policy of the last is not judged.
    #[error(
        "{policy}: more than 16 rules with UDP ports meet at one address; the policy is not judged for {pods} Pods"
    )]
    Ports {
        /// The policy.
        policy: ObjectKey,
        /// How many Pods of this node are concerned.
        pods: usize,
    },
    /// The maps are too small for all policies; the one that asks for most is not judged.
    #[error(
        "{policy}: no room for its {room}; the policy is not judged on this node: raise maps.memoryMiB, or make it smaller"
    )]
    Room {
        /// The policy.
        policy: ObjectKey,
        /// What ran out.
        room: Room,
    },
}

/// Why a group selects nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupFault {
    /// No such object (yet).
    #[error("does not exist; it selects nothing")]
    Missing,
    /// A NetworkPolicy must stay in its namespace.
    #[error("has a namespaceSelector; a NetworkPolicy cannot be applied to it")]
    OtherNamespaces,
    /// Services and their endpoints are not read.
    #[error("has a serviceReference, which is not looked up; it selects nothing")]
    Service,
    /// These are no Pods.
    #[error("has an externalEntitySelector, and external entities are not judged; it selects nothing")]
    ExternalEntities,
}

/// What the maps can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Room {
    /// Slots of the rule counters.
    #[error("rules")]
    Rules,
    /// Entries of the trie.
    #[error("prefixes")]
    Entries,
    /// Lists of port rules.
    #[error("lists of ports")]
    Lists,
}

impl Problem {
    pub(super) fn group(policy: &ObjectKey, rule: &Arc<str>, group: &Arc<str>, fault: GroupFault) -> Self {
        Self::Group {
            policy: policy.clone(),
            rule: Arc::clone(rule),
            group: Arc::clone(group),
            fault,
        }
    }
}
