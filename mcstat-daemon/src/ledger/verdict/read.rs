//! From documents to checked objects. Pure: the documents come from any deserializer, YAML files and the API alike.

use std::{collections::BTreeSet, sync::Arc};

use mcstat_common::abi::{RULE_BYTES, RULE_NAMESPACE_BYTES, RULE_POLICY_BYTES, RULE_UID_BYTES};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::{
    document::{self, Document, GroupSpec, Header, Labelled, Metadata, PolicySpec, TierSpec},
    object::{AppliedTo, Content, Group, Kind, Object, ObjectKey, Pod, PodSelector, Policy, Reason, Refusal, Rule},
    prefix::{Block, Cidr, parse_except},
    problem::GroupFault,
    read_rule,
};

const ANTREA: &str = "crd.antrea.io/v1beta1";
const CORE: &str = "v1";
/// Where a namespaced document without a namespace belongs.
const DEFAULT_NAMESPACE: &str = "default";

/// A document of a kind that verdicts do not rest on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{} {} is not used; known are ClusterNetworkPolicy, NetworkPolicy, Tier, ClusterGroup and Group of {ANTREA}, \
     Namespace and Pod of {CORE}", .0.api_version, .0.kind
)]
pub struct UnknownKind(pub Header);

/// Why a document gives no object. `E` is the error of its format, which knows the line.
#[derive(Debug, Error)]
pub enum ReadError<E: std::error::Error> {
    /// A field is missing or has the wrong type.
    #[error(transparent)]
    Malformed(E),
    /// What it says cannot be used.
    #[error(transparent)]
    Refused(Refusal),
}

impl Kind {
    /// The kind of a document.
    ///
    /// # Errors
    /// [`UnknownKind`].
    pub fn of(header: &Header) -> Result<Self, UnknownKind> {
        match (header.api_version.as_str(), header.kind.as_str()) {
            (ANTREA, "ClusterNetworkPolicy") => Ok(Self::ClusterNetworkPolicy),
            (ANTREA, "NetworkPolicy") => Ok(Self::NetworkPolicy),
            (ANTREA, "Tier") => Ok(Self::Tier),
            (ANTREA, "ClusterGroup") => Ok(Self::ClusterGroup),
            (ANTREA, "Group") => Ok(Self::Group),
            (CORE, "Namespace") => Ok(Self::Namespace),
            (CORE, "Pod") => Ok(Self::Pod),
            _ => Err(UnknownKind(header.clone())),
        }
    }

    /// Whether it is one of the two kinds of policies.
    #[must_use]
    pub fn is_policy(self) -> bool {
        matches!(self, Self::ClusterNetworkPolicy | Self::NetworkPolicy)
    }

    fn is_namespaced(self) -> bool {
        matches!(self, Self::NetworkPolicy | Self::Group | Self::Pod)
    }
}

impl Object {
    /// Reads one document of this kind.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read<'de, D>(kind: Kind, document: D) -> Result<Self, ReadError<D::Error>>
    where
        D: Deserializer<'de>,
    {
        match kind {
            Kind::ClusterNetworkPolicy | Kind::NetworkPolicy => {
                let document = Document::<PolicySpec>::deserialize(document).map_err(ReadError::Malformed)?;
                let key = key(kind, &document.metadata);
                let uid = document.metadata.uid.as_deref().unwrap_or_default();
                let policy = policy(&key, uid, document.spec).map_err(ReadError::Refused)?;
                Ok(Self::new(key, document.metadata, Content::Policy(Arc::new(policy))))
            }
            Kind::Tier => {
                let document = Document::<TierSpec>::deserialize(document).map_err(ReadError::Malformed)?;
                let key = key(kind, &document.metadata);
                Ok(Self::new(key, document.metadata, Content::Tier(document.spec.priority)))
            }
            Kind::ClusterGroup | Kind::Group => {
                let document = Document::<GroupSpec>::deserialize(document).map_err(ReadError::Malformed)?;
                let key = key(kind, &document.metadata);
                let refused = |reason| refusal(&key, None, reason);
                let group = group(document.spec).map_err(|reason| ReadError::Refused(refused(reason)))?;
                Ok(Self::new(key, document.metadata, Content::Group(Arc::new(group))))
            }
            Kind::Namespace | Kind::Pod => {
                let document = Labelled::deserialize(document).map_err(ReadError::Malformed)?;
                Ok(labelled(kind, document))
            }
        }
    }

    fn new(key: ObjectKey, metadata: Metadata, content: Content) -> Self {
        Self {
            key,
            uid: metadata.uid.unwrap_or_default().into(),
            content,
        }
    }
}

fn key(kind: Kind, metadata: &Metadata) -> ObjectKey {
    let namespace = match (kind.is_namespaced(), metadata.namespace.as_deref()) {
        (false, _) => "",
        (true, None | Some("")) => DEFAULT_NAMESPACE,
        (true, Some(namespace)) => namespace,
    };
    ObjectKey {
        kind,
        namespace: namespace.into(),
        name: metadata.name.as_str().into(),
    }
}

pub(super) fn refusal(object: &ObjectKey, rule: Option<&Arc<str>>, reason: Reason) -> Refusal {
    Refusal {
        object: object.clone(),
        rule: rule.cloned(),
        reason,
    }
}

fn labelled(kind: Kind, mut document: Labelled) -> Object {
    let key = key(kind, &document.metadata);
    let labels = std::mem::take(&mut document.metadata.labels);
    let content = match kind {
        Kind::Pod => Content::Pod(Arc::new(Pod {
            labels,
            service_account: document.spec.service_account_name.unwrap_or_default(),
        })),
        _ => Content::Namespace(Arc::new(labels)),
    };
    Object::new(key, document.metadata, content)
}

fn policy(key: &ObjectKey, uid: &str, spec: PolicySpec) -> Result<Policy, Refusal> {
    let lists = spec.ingress.iter().chain(&spec.egress);
    let own = lists.filter(|rule| !rule.applied_to.is_empty()).count();
    let all = spec.ingress.len() + spec.egress.len();
    let in_spec = !spec.applied_to.is_empty();
    let mut rules = Vec::new();
    let mut names = BTreeSet::new();
    let mut twice = None;
    for (direction, of_direction) in [("ingress", spec.ingress), ("egress", spec.egress)] {
        for (index, rule) in (0_u32..).zip(of_direction) {
            let given = rule.name.clone().filter(|name| !name.is_empty());
            let name: Arc<str> = given.unwrap_or_else(|| format!("{direction}-{index}")).into();
            let refused = |reason| refusal(key, Some(&name), reason);
            if !names.insert(Arc::clone(&name)) {
                twice = Some(Arc::clone(&name));
            }
            if let Some(found) = read_rule::subject(&rule, direction == "egress").map_err(refused)? {
                check_name("the name of the rule", &name, RULE_BYTES).map_err(refused)?;
                let list = applied_to(key, rule.applied_to).map_err(refused)?;
                rules.push(Rule {
                    name,
                    index,
                    action: found.action,
                    applied_to: (!list.is_empty()).then_some(list),
                    subject: found.subject,
                    refused: found.refused,
                });
            }
        }
    }
    if let Some(name) = twice.filter(|_| !rules.is_empty()) {
        return Err(refusal(key, Some(&name), Reason::SameName));
    }
    if !rules.is_empty() && (in_spec == (own > 0) || (own > 0 && own != all)) {
        return Err(refusal(key, None, Reason::AppliedTo));
    }
    if !rules.is_empty() && spec.priority.is_none() {
        return Err(refusal(key, None, Reason::NoPriority));
    }
    if !rules.is_empty() {
        check_names(key, uid).map_err(|reason| refusal(key, None, reason))?;
    }
    // The entries of a policy without rules for multicast are not looked at: it is nobody's business here.
    let list = if rules.is_empty() { Vec::new() } else { spec.applied_to };
    Ok(Policy {
        tier: spec.tier.filter(|tier| !tier.is_empty()),
        priority: spec.priority.unwrap_or_default(),
        applied_to: applied_to(key, list).map_err(|reason| refusal(key, None, reason))?,
        rules,
    })
}

/// Kubernetes takes no longer names of objects; a file may have them.
fn check_names(key: &ObjectKey, uid: &str) -> Result<(), Reason> {
    check_name("metadata.namespace", &key.namespace, RULE_NAMESPACE_BYTES)?;
    check_name("metadata.name", &key.name, RULE_POLICY_BYTES)?;
    check_name("metadata.uid", uid, RULE_UID_BYTES)
}

/// Whether a name fits into a field of the maps that ends with a NUL.
fn check_name(what: &'static str, name: &str, field: usize) -> Result<(), Reason> {
    let (bytes, most) = (name.len(), field - 1);
    if bytes <= most && !name.contains('\0') {
        return Ok(());
    }
    Err(Reason::Name { what, bytes, most })
}

fn applied_to(key: &ObjectKey, entries: Vec<document::AppliedTo>) -> Result<Arc<[AppliedTo]>, Reason> {
    entries
        .into_iter()
        .map(|entry| applied_to_entry(key.kind, entry))
        .collect()
}

fn applied_to_entry(kind: Kind, entry: document::AppliedTo) -> Result<AppliedTo, Reason> {
    let group = entry.group.filter(|group| !group.is_empty());
    let alone = [
        group.is_some(),
        entry.service_account.is_some(),
        entry.service.is_some(),
        entry.node_selector.is_some(),
    ];
    let selectors = [
        entry.pod_selector.is_some(),
        entry.namespace_selector.is_some(),
        entry.external_entity_selector.is_some(),
    ];
    let alone_count = alone.iter().filter(|set| **set).count();
    if alone_count > 1 || (alone_count == 1 && selectors.contains(&true)) {
        return Err(Reason::AppliedToEntry);
    }
    let beyond = entry.namespace_selector.is_some() || entry.service_account.is_some();
    if kind == Kind::NetworkPolicy && beyond {
        return Err(Reason::AppliedToNamespace);
    }
    if let Some(group) = group {
        return Ok(AppliedTo::Group(group.into()));
    }
    if let Some(account) = entry.service_account {
        return Ok(AppliedTo::ServiceAccount {
            namespace: account.namespace,
            name: account.name,
        });
    }
    let asks = entry.pod_selector.is_some() || entry.namespace_selector.is_some();
    if alone_count > 0 || entry.external_entity_selector.is_some() || !asks {
        return Ok(AppliedTo::NoPods);
    }
    Ok(AppliedTo::Pods(PodSelector {
        pod: entry.pod_selector,
        namespace: entry.namespace_selector,
    }))
}

fn group(spec: GroupSpec) -> Result<Group, Reason> {
    let blocks = spec.ip_block.iter().chain(&spec.ip_blocks);
    let asks = spec.pod_selector.is_some() || spec.namespace_selector.is_some();
    let service = spec.service_reference.map(|_| GroupFault::Service);
    let external = spec.external_entity_selector.map(|_| GroupFault::ExternalEntities);
    Ok(Group {
        blocks: multicast_blocks(blocks)?.blocks,
        pods: asks.then_some(PodSelector {
            pod: spec.pod_selector,
            namespace: spec.namespace_selector,
        }),
        children: spec.child_groups.into_iter().map(Into::into).collect(),
        fault: service.or(external),
    })
}

/// Address blocks of one rule or group.
pub(super) struct Blocks {
    pub(super) blocks: Vec<Block>,
    /// Whether any is multicast, of either family.
    pub(super) multicast: bool,
}

/// # Errors
/// A CIDR is none; or multicast and unicast stand together.
pub(super) fn multicast_blocks<'a>(blocks: impl Iterator<Item = &'a document::IpBlock>) -> Result<Blocks, Reason> {
    let mut found = Vec::new();
    let (mut multicast, mut unicast) = (false, false);
    for block in blocks {
        let cidr = Cidr::parse(&block.cidr).ok_or_else(|| Reason::Cidr(block.cidr.clone()))?;
        unicast |= cidr == Cidr::Unicast;
        multicast |= cidr != Cidr::Unicast;
        if let Cidr::Multicast(prefix) = cidr {
            let except = block.except.iter().map(|except| {
                parse_except(&block.cidr, except).ok_or_else(|| Reason::Except {
                    except: except.clone(),
                    cidr: block.cidr.clone(),
                })
            });
            let mut except = except.collect::<Result<Vec<_>, _>>()?;
            // A prefix wider than 224.0.0.0/4 was clipped; so are its exceptions.
            if !except.iter().any(|except| except.covers(prefix)) {
                except.retain(|except| prefix.covers(*except));
                found.push(Block { prefix, except });
            }
        }
    }
    if multicast && unicast {
        return Err(Reason::MixedAddresses);
    }
    Ok(Blocks {
        blocks: found,
        multicast,
    })
}
