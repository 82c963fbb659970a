//! What is served: the resources of `stats.antrea.io/v1alpha1`, each described once.
//!
//! Discovery, routes, Status errors, selectors and `mcstat get` all read the descriptions of this file.

use serde::Serialize;

use super::{
    group,
    stats::{self, Metadata},
    table::Column,
};

/// One resource, as discovery tells of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// Kind of one object; a list's kind is this and `List`.
    pub kind: &'static str,
    /// Name in the URL.
    pub plural: &'static str,
    /// Name of one, in messages and before a `/`. Antrea's statistics have one name for one and for many.
    pub singular: &'static str,
    /// Short name for the command line; those that Antrea serves without have none here.
    pub short_name: Option<&'static str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The fields that a field selector may name.
    pub fields: &'static [&'static str],
}

/// One Pod's multicast.
pub const PODS: Resource = Resource {
    kind: stats::KIND,
    plural: stats::RESOURCE,
    singular: stats::RESOURCE,
    short_name: Some("pmcs"),
    namespaced: true,
    fields: &[NAME, NAMESPACE],
};

/// One group of the cluster.
pub const GROUPS: Resource = Resource {
    kind: group::KIND,
    plural: group::RESOURCE,
    singular: "multicastgroup",
    short_name: Some("mcg"),
    namespaced: false,
    fields: &[NAME, HIDDEN],
};

/// What one ClusterNetworkPolicy allowed and dropped.
pub const CLUSTER_POLICIES: Resource = Resource {
    kind: "AntreaClusterNetworkPolicyStats",
    plural: "antreaclusternetworkpolicystats",
    singular: "antreaclusternetworkpolicystats",
    short_name: None,
    namespaced: false,
    fields: &[NAME],
};

/// What one NetworkPolicy of Antrea's allowed and dropped.
pub const NAMESPACED_POLICIES: Resource = Resource {
    kind: "AntreaNetworkPolicyStats",
    plural: "antreanetworkpolicystats",
    singular: "antreanetworkpolicystats",
    short_name: None,
    namespaced: true,
    fields: &[NAME, NAMESPACE],
};

/// Every resource, in the order of discovery.
pub const ALL: [&Resource; 4] = [&PODS, &GROUPS, &CLUSTER_POLICIES, &NAMESPACED_POLICIES];

/// Field of every object: its name.
pub const NAME: &str = "metadata.name";
/// Field of namespaced objects: their namespace.
pub const NAMESPACE: &str = "metadata.namespace";
/// Field of groups: `true` for those that lists leave out unless a selector names this field or the name.
pub const HIDDEN: &str = "status.hidden";

/// An object of a resource: what the server needs to know of it besides its JSON.
pub trait Object: Serialize + Clone + 'static {
    /// The resource that it belongs to.
    const RESOURCE: Resource;
    /// The columns of its Table.
    const COLUMNS: &'static [Column<Self>];

    /// Name, namespace, labels.
    fn metadata(&self) -> &Metadata;

    /// The value of one of [`Resource::fields`]; empty for any other.
    fn field(&self, field: &str) -> &str {
        match field {
            NAME => &self.metadata().name,
            NAMESPACE => &self.metadata().namespace,
            _ => "",
        }
    }
}
