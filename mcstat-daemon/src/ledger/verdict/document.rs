//! Documents as users and the Kubernetes API write them: the fields that multicast policies need, and no others.
//!
//! Unknown fields are let pass, since real objects have many; a null stands for an absent field, as in Kubernetes. What
//! the fields mean, and what is refused, is `read`'s business.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::selector::LabelSelector;

/// What every document begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Header {
    /// Group and version, such as `crd.antrea.io/v1beta1`.
    pub api_version: String,
    /// Kind, such as `ClusterNetworkPolicy`.
    pub kind: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Document<S> {
    pub(super) metadata: Metadata,
    pub(super) spec: S,
}

/// Namespaces and Pods: only their metadata must be there.
#[derive(Debug, Deserialize)]
pub(super) struct Labelled {
    pub(super) metadata: Metadata,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) spec: PodSpec,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    #[serde(default)]
    pub(super) uid: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) service_account_name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TierSpec {
    pub(super) priority: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GroupSpec {
    pub(super) pod_selector: Option<LabelSelector>,
    pub(super) namespace_selector: Option<LabelSelector>,
    pub(super) ip_block: Option<IpBlock>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ip_blocks: Vec<IpBlock>,
    #[serde(deserialize_with = "nullable")]
    pub(super) child_groups: Vec<String>,
    pub(super) service_reference: Option<IgnoredAny>,
    pub(super) external_entity_selector: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PolicySpec {
    pub(super) tier: Option<String>,
    pub(super) priority: Option<f64>,
    #[serde(deserialize_with = "nullable")]
    pub(super) applied_to: Vec<AppliedTo>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ingress: Vec<Rule>,
    #[serde(deserialize_with = "nullable")]
    pub(super) egress: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AppliedTo {
    pub(super) pod_selector: Option<LabelSelector>,
    pub(super) namespace_selector: Option<LabelSelector>,
    pub(super) external_entity_selector: Option<IgnoredAny>,
    pub(super) group: Option<String>,
    pub(super) service_account: Option<ServiceAccount>,
    pub(super) service: Option<IgnoredAny>,
    pub(super) node_selector: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServiceAccount {
    pub(super) name: String,
    pub(super) namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub(super) name: Option<String>,
    pub(super) action: Option<RuleAction>,
    #[serde(deserialize_with = "nullable")]
    pub(super) applied_to: Vec<AppliedTo>,
    #[serde(deserialize_with = "nullable")]
    pub(super) from: Vec<IgnoredAny>,
    #[serde(deserialize_with = "nullable")]
    pub(super) to: Vec<Peer>,
    #[serde(deserialize_with = "nullable")]
    pub(super) to_services: Vec<IgnoredAny>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<Port>,
    #[serde(deserialize_with = "nullable")]
    pub(super) protocols: Vec<Protocol>,
}

/// What a rule says to do; only the first two are for multicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum RuleAction {
    Allow,
    Drop,
    Pass,
    Reject,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Peer {
    pub(super) ip_block: Option<IpBlock>,
    pub(super) group: Option<String>,
    pub(super) pod_selector: Option<IgnoredAny>,
    pub(super) namespace_selector: Option<IgnoredAny>,
    pub(super) namespaces: Option<IgnoredAny>,
    pub(super) external_entity_selector: Option<IgnoredAny>,
    pub(super) service_account: Option<IgnoredAny>,
    pub(super) node_selector: Option<IgnoredAny>,
}

impl Peer {
    pub(super) fn has_selectors(&self) -> bool {
        let selectors = [
            &self.pod_selector,
            &self.namespace_selector,
            &self.namespaces,
            &self.external_entity_selector,
            &self.service_account,
            &self.node_selector,
        ];
        selectors.into_iter().any(Option::is_some)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct IpBlock {
    pub(super) cidr: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) except: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    pub(super) protocol: Option<String>,
    pub(super) port: Option<PortName>,
    pub(super) end_port: Option<i64>,
    pub(super) source_port: Option<i64>,
}

/// A number, or the name of a container's port.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum PortName {
    Number(i64),
    #[expect(
        dead_code,
        reason = "a name never fits an address block; it is taken and not looked up"
    )]
    Name(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Protocol {
    pub(super) icmp: Option<IgnoredAny>,
    pub(super) igmp: Option<Igmp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Igmp {
    pub(super) igmp_type: Option<i64>,
    pub(super) group_address: Option<String>,
}

pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
