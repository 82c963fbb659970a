//! From the model and the node's Pods to rules in the order in which they count, each with the Pods it is for.

use std::{cmp::Ordering, net::Ipv4Addr, sync::Arc};

use mcstat_common::policy::{SPACE_DATA, SPACE_QUERY, SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3};

use super::{
    model::{Model, PodName},
    object::{Action, IgmpKind, ObjectKey, Policy, Ports, Rule, Subject},
    prefix::{Block, Prefix},
    problem::{GroupFault, Problem},
    read::refusal,
    select::Selections,
};

/// Where Antrea sends all its queries, and all that a query rule without a group matches.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// Which rule: the policy's UID and the rule's name. A rule that changes stays the same rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    /// UID of the policy.
    pub uid: Arc<str>,
    /// Name of the rule.
    pub name: Arc<str>,
}

/// What a rule does with which addresses, groups looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) action: Action,
    pub(super) terms: Vec<Term>,
    pub(super) ports: Ports,
}

impl Content {
    /// How many prefixes it asks for in the trie, for each Pod.
    pub(super) fn prefixes(&self) -> usize {
        let in_trie = self.terms.iter().filter(|term| term.space != SPACE_QUERY);
        in_trie.map(|term| 1 + term.block.except.len()).sum()
    }
}

/// Addresses in one space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) space: u8,
    pub(super) block: Block,
}

/// A rule that is for at least one Pod of the node.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) id: RuleId,
    pub(super) policy: ObjectKey,
    pub(super) content: Arc<Content>,
    /// Positions in the list of Pods.
    pub(super) pods: Arc<[u32]>,
}

/// The rules, the one that counts first in front. Leaves out the policies with problems.
///
/// Order: tier priority, policy priority, rule index. Of rules that Antrea leaves equal, a ClusterNetworkPolicy's counts
/// before a NetworkPolicy's, then namespace and name decide.
pub(super) fn resolve(
    model: &Model,
    selections: &mut Selections,
    pods: &[PodName],
    problems: &mut Vec<Problem>,
) -> Vec<Resolved> {
    let mut selector = selections.begin(model, pods);
    let mut rules = Vec::new();
    for (key, uid, policy) in model.policies() {
        let Some(tier) = model.tier(policy.tier.as_deref()) else {
            let tier = policy.tier.clone().unwrap_or_default();
            problems.push(Problem::Tier {
                policy: key.clone(),
                tier,
            });
            continue;
        };
        match contents(model, key, policy, problems) {
            Ok(contents) => {
                for (rule, content) in contents {
                    let list = rule.applied_to.as_ref().unwrap_or(&policy.applied_to);
                    let (selected, faults) = selector.select(key, list);
                    let problem = |(group, fault): &(_, _)| Problem::group(key, &rule.name, group, *fault);
                    problems.extend(faults.iter().map(problem));
                    if !selected.is_empty() {
                        let resolved = Resolved {
                            id: RuleId {
                                uid: Arc::clone(uid),
                                name: Arc::clone(&rule.name),
                            },
                            policy: key.clone(),
                            content: Arc::new(content),
                            pods: selected,
                        };
                        rules.push(((tier, Priority(policy.priority), rule.index), resolved));
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    // Stable: policies come by kind, namespace and name.
    rules.sort_by_key(|(order, _)| *order);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// A policy's priority with a total order.
#[derive(Clone, Copy)]
struct Priority(f64);

impl PartialEq for Priority {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Priority {}
impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The rules of a policy that concern multicast, now that its groups are looked up.
fn contents<'a>(
    model: &Model,
    key: &ObjectKey,
    policy: &'a Policy,
    problems: &mut Vec<Problem>,
) -> Result<Vec<(&'a Rule, Content)>, Problem> {
    let mut found = Vec::new();
    for rule in &policy.rules {
        let terms = match &rule.subject {
            Subject::Igmp(messages) => messages
                .iter()
                .flat_map(|message| igmp(message.kind, message.group))
                .collect(),
            Subject::Data { blocks, groups, .. } => {
                let mut blocks = blocks.clone();
                for name in groups {
                    add_group(model, key, name, rule, &mut blocks, problems);
                }
                if blocks.is_empty() {
                    continue;
                }
                let terms = blocks.into_iter().map(|block| Term {
                    space: SPACE_DATA,
                    block,
                });
                terms.collect::<Vec<_>>()
            }
        };
        if let Some(reason) = &rule.refused {
            return Err(Problem::Refused(refusal(key, Some(&rule.name), reason.clone())));
        }
        let ports = match &rule.subject {
            Subject::Data { ports, .. } => ports.clone(),
            Subject::Igmp(_) => Ports::Any,
        };
        let action = rule.action;
        found.push((rule, Content { action, terms, ports }));
    }
    Ok(found)
}

/// Adds the multicast addresses of a group. Unicast ones beside them, in other groups or in the rule, are no reason to
/// refuse it: Antrea looks at each rule and each group by itself, and takes the whole for multicast where any of it is.
fn add_group(
    model: &Model,
    policy: &ObjectKey,
    name: &Arc<str>,
    rule: &Rule,
    blocks: &mut Vec<Block>,
    problems: &mut Vec<Problem>,
) {
    // Not found is a problem only where it could be about multicast, which cannot be known: it is let pass.
    let Some(group) = model.group(policy, name) else {
        return;
    };
    blocks.extend_from_slice(&group.blocks);
    for child in &group.children {
        match model.group(policy, child) {
            Some(child) => blocks.extend_from_slice(&child.blocks),
            None => problems.push(Problem::group(policy, &rule.name, child, GroupFault::Missing)),
        }
    }
}

fn igmp(kind: IgmpKind, group: Option<Ipv4Addr>) -> Vec<Term> {
    let any = match kind {
        IgmpKind::Query => Prefix::new(ALL_HOSTS, 32),
        _ => Prefix::ANY,
    };
    let prefix = group.map_or(any, |group| Prefix::new(group, 32));
    let spaces: &[u8] = match kind {
        IgmpKind::Query => &[SPACE_QUERY],
        IgmpKind::ReportV1 => &[SPACE_REPORT_V1],
        IgmpKind::ReportV2 => &[SPACE_REPORT_V2],
        IgmpKind::ReportV3 => &[SPACE_REPORT_V3],
        IgmpKind::AnyReport => &[SPACE_REPORT_V1, SPACE_REPORT_V2, SPACE_REPORT_V3],
    };
    let block = |space: &u8| Term {
        space: *space,
        block: Block {
            prefix,
            except: Vec::new(),
        },
    };
    spaces.iter().map(block).collect()
}
