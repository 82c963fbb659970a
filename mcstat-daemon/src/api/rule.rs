//! Which rule of which policy decided something, as it is served. Says nothing of what the rule has counted.

use serde::{Deserialize, Serialize};

/// One rule, and what it does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReference {
    /// Its policy.
    pub policy: PolicyReference,
    /// Its name; where it has none, direction and position, such as `egress-0`.
    pub rule: String,
    /// `Allow` or `Drop`.
    pub action: String,
}

/// One policy of `crd.antrea.io/v1beta1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReference {
    /// `ClusterNetworkPolicy` or `NetworkPolicy`.
    pub kind: String,
    /// Its namespace; absent for a ClusterNetworkPolicy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for RuleReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PolicyReference { kind, namespace, name } = &self.policy;
        write!(f, "rule {} of {kind} ", self.rule)?;
        match namespace.as_str() {
            "" => f.write_str(name),
            namespace => write!(f, "{namespace}/{name}"),
        }
    }
}
