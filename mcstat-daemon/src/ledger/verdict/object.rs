//! Policies and what they refer to, checked and reduced to what concerns multicast.

use std::{fmt, net::Ipv4Addr, sync::Arc};

use thiserror::Error;

use super::{
    prefix::Block,
    problem::GroupFault,
    selector::{LabelSelector, Labels},
};

/// The kinds of objects that verdicts rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `crd.antrea.io/v1beta1`, cluster-wide.
    ClusterNetworkPolicy,
    /// `crd.antrea.io/v1beta1`, of a namespace. Kubernetes' own NetworkPolicies never apply to multicast.
    NetworkPolicy,
    /// `crd.antrea.io/v1beta1`.
    Tier,
    /// `crd.antrea.io/v1beta1`, for ClusterNetworkPolicies.
    ClusterGroup,
    /// `crd.antrea.io/v1beta1`, for NetworkPolicies of its namespace.
    Group,
    /// `v1`, for its labels.
    Namespace,
    /// `v1`, for its labels and service account.
    Pod,
}

/// Which object: unique at a time. A re-created object has the same key and another UID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which.
    pub key: ObjectKey,
    /// `metadata.uid`; empty where the document has none.
    pub uid: Arc<str>,
    /// What it says.
    pub content: Content,
}

/// What an object says. Shared, so that a new model costs no copies.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A ClusterNetworkPolicy or NetworkPolicy.
    Policy(Arc<Policy>),
    /// A tier's priority: lower counts first.
    Tier(i32),
    /// A ClusterGroup or Group.
    Group(Arc<Group>),
    /// A namespace's labels.
    Namespace(Arc<Labels>),
    /// A Pod.
    Pod(Arc<Pod>),
}

/// What a policy says about multicast.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Name of its tier, if it names one.
    pub tier: Option<String>,
    /// Within the tier, lower counts first.
    pub priority: f64,
    /// Whom the rules are for that have no list of their own.
    pub applied_to: Arc<[AppliedTo]>,
    /// Its rules that concern multicast, or may do so by a group. Empty for most policies of a cluster.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Whether it has rules for multicast; `None`: that rests on what groups hold
    /// ([`Model::is_multicast`](super::Model::is_multicast)).
    #[must_use]
    pub fn is_multicast(&self) -> Option<bool> {
        let by_itself = |rule: &Rule| match &rule.subject {
            Subject::Data { blocks, .. } => !blocks.is_empty(),
            Subject::Igmp(_) => true,
        };
        if self.rules.iter().any(by_itself) {
            return Some(true);
        }
        self.rules.is_empty().then_some(false)
    }

    /// The groups that its rules are about, besides addresses of their own.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().flat_map(|rule| match &rule.subject {
            Subject::Data { groups, .. } => groups.as_slice(),
            Subject::Igmp(_) => &[],
        })
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name; where it has none, direction and position, such as `egress-0`.
    pub name: Arc<str>,
    /// Position among the rules of its direction: lower counts first.
    pub index: u32,
    /// What it does.
    pub action: Action,
    /// Whom it is for; `None`: the policy's list holds.
    pub applied_to: Option<Arc<[AppliedTo]>>,
    /// What it is about.
    pub subject: Subject,
    /// Why the policy is refused if a group makes this rule one about multicast.
    pub refused: Option<Reason>,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Lets it pass; no further rule counts.
    Allow,
    /// Denies it.
    Drop,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Data that the Pod sends.
    Data {
        /// To these addresses, …
        blocks: Vec<Block>,
        /// … and to those of these groups,
        groups: Vec<Arc<str>>,
        /// … by these transports.
        ports: Ports,
    },
    /// IGMP messages, by type and group.
    Igmp(Vec<Igmp>),
}

/// Transports that a data rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Any protocol and port.
    Any,
    /// UDP without a port: fragments too, which are judged without ports.
    AnyUdp,
    /// UDP to one of these ranges of destination ports, be they all there are: sorted, apart from each other, maybe none.
    Udp(Vec<(u16, u16)>),
}

impl Ports {
    /// Whether no packet fits.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Udp(ranges) if ranges.is_empty())
    }
}

/// IGMP messages that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Igmp {
    /// Which messages.
    pub kind: IgmpKind,
    /// The group reported, or the destination of a query; `None`: any.
    pub group: Option<Ipv4Addr>,
}

/// Types of IGMP messages that rules can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgmpKind {
    /// 0x11, to the Pod.
    Query,
    /// 0x12, from the Pod.
    ReportV1,
    /// 0x16, from the Pod.
    ReportV2,
    /// 0x22, from the Pod.
    ReportV3,
    /// Each of the three.
    AnyReport,
}

/// One entry of `appliedTo`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppliedTo {
    /// Pods by labels.
    Pods(PodSelector),
    /// The Pods of a ClusterGroup or Group.
    Group(Arc<str>),
    /// Pods by service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// What are no Pods: nodes, Services, external entities.
    NoPods,
}

/// Pods by their labels and those of their namespace; what is `None` is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodSelector {
    /// Of the Pod.
    pub pod: Option<LabelSelector>,
    /// Of its namespace.
    pub namespace: Option<LabelSelector>,
}

/// A ClusterGroup or Group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The Pods it selects, if it does.
    pub pods: Option<PodSelector>,
    /// Its multicast addresses.
    pub blocks: Vec<Block>,
    /// Groups that belong to it, with no children of their own.
    pub children: Vec<Arc<str>>,
    /// Why it selects nothing here, although it asks for something.
    pub fault: Option<GroupFault>,
}

/// What selectors see of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Labels.
    pub labels: Labels,
    /// Service account; empty where the document says none.
    pub service_account: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The names of the variants are the names of the kinds.
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Why an object is not used, although it has the right shape.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{object}{}: {reason}", .rule.as_ref().map(|rule| format!(", rule {rule}")).unwrap_or_default())]
pub struct Refusal {
    /// The object.
    pub object: ObjectKey,
    /// The rule, where it is about one.
    pub rule: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
}

/// Reasons of a [`Refusal`]: what Antrea refuses for multicast, and what is not judged here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// Pass or Reject.
    #[error("multicast and IGMP know the actions Allow and Drop, not {0}")]
    Action(&'static str),
    /// No action.
    #[error("the rule has no action; set Allow or Drop")]
    NoAction,
    /// No priority.
    #[error("spec.priority is missing; Antrea asks for 1 to 10000")]
    NoPriority,
    /// Two kinds of addresses.
    #[error("multicast and unicast addresses stand together; put them into rules or groups of their own")]
    MixedAddresses,
    /// An address block and a selector in one peer.
    #[error("a multicast ipBlock stands together with a selector; put them into rules of their own")]
    MixedPeer,
    /// IGMP and something else.
    #[error("protocols[].igmp stands together with icmp, ports, from, to or toServices; a rule for IGMP has none")]
    MixedIgmp,
    /// No type of this direction.
    #[error("igmpType {given:#04x} is not one of {allowed}")]
    IgmpType {
        /// What was found.
        given: i64,
        /// What there is.
        allowed: &'static str,
    },
    /// No group.
    #[error("groupAddress {0} is no multicast address")]
    GroupAddress(String),
    /// No address block.
    #[error("cidr {0} is none; write it like 225.1.2.0/24")]
    Cidr(String),
    /// An exception that is none.
    #[error("except {except} is not a strict part of {cidr}")]
    Except {
        /// The exception.
        except: String,
        /// The block.
        cidr: String,
    },
    /// No port range.
    #[error("ports {0} to {1} are no range of 0 to 65535")]
    Port(i64, i64),
    /// Range without a beginning.
    #[error("endPort {0} stands without a port number")]
    EndPort(i64),
    /// Not judged here.
    #[error("sourcePort is not judged for multicast; only destination ports are")]
    SourcePort,
    /// The maps hold names as text of a bounded length: cut, they would tell nothing apart.
    #[error("{what} has {bytes} bytes; it has at most {most}, and no NUL among them")]
    Name {
        /// Which name.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// Names must tell rules apart.
    #[error("two rules have this name; names are unique within a policy")]
    SameName,
    /// `appliedTo` is missing, or in two places.
    #[error("appliedTo belongs either into spec or into every rule")]
    AppliedTo,
    /// One entry asks for two things.
    #[error("group, serviceAccount, service and nodeSelector stand alone in an entry of appliedTo")]
    AppliedToEntry,
    /// A NetworkPolicy reaches beyond its namespace.
    #[error("a NetworkPolicy applies to its own namespace; appliedTo has a namespaceSelector or serviceAccount")]
    AppliedToNamespace,
}
