//! All objects that verdicts rest on, at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use super::{
    object::{Content, Group, Kind, Object, ObjectKey, Pod, Policy},
    selector::Labels,
};

/// The tiers that Antrea always has.
const TIERS: [(&str, i32); 6] = [
    ("emergency", 50),
    ("securityops", 100),
    ("networkops", 150),
    ("platform", 200),
    ("application", 250),
    ("baseline", 253),
];
/// The tier of a policy that names none.
const DEFAULT_TIER: &str = "application";
/// The label that Kubernetes gives every namespace.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// A Pod by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl PodName {
    /// The Pod of this name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Every object, once. What it shares with the model before costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub(super) policies: BTreeMap<ObjectKey, (Arc<str>, Arc<Policy>)>,
    tiers: HashMap<Arc<str>, i32>,
    groups: HashMap<(Arc<str>, Arc<str>), Arc<Group>>,
    namespaces: HashMap<Arc<str>, Arc<Labels>>,
    pods: HashMap<PodName, Arc<Pod>>,
}

impl FromIterator<Object> for Model {
    /// Of several objects with one key the last counts.
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut model = Self::default();
        for object in objects {
            let ObjectKey { namespace, name, .. } = object.key.clone();
            match object.content {
                Content::Policy(policy) => drop(model.policies.insert(object.key, (object.uid, policy))),
                Content::Tier(priority) => drop(model.tiers.insert(name, priority)),
                Content::Group(group) => drop(model.groups.insert((namespace, name), group)),
                Content::Namespace(labels) => drop(model.namespaces.insert(name, labels)),
                Content::Pod(pod) => drop(model.pods.insert(PodName { namespace, name }, pod)),
            }
        }
        model
    }
}

impl Model {
    /// Every policy, with its UID; also those without rules for multicast: they may have had some.
    pub fn all_policies(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<str>, &Policy)> {
        self.policies.iter().map(|(key, (uid, policy))| (key, uid, &**policy))
    }

    /// Whether a policy has rules for multicast, its groups looked up: most rules on groups are for unicast.
    #[must_use]
    pub fn is_multicast(&self, key: &ObjectKey, policy: &Policy) -> bool {
        let holds = |name| {
            let group = self.group(key, name);
            let children = group.into_iter().flat_map(|group| &group.children);
            let mut all = group
                .into_iter()
                .chain(children.filter_map(|child| self.group(key, child)));
            all.any(|group| !group.blocks.is_empty())
        };
        policy.is_multicast().unwrap_or_else(|| policy.groups().any(holds))
    }

    /// Every policy that has rules for multicast, or may have some by a group, with its UID; also those that apply to no Pod
    /// here.
    pub fn policies(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<str>, &Policy)> {
        self.all_policies().filter(|(_, _, policy)| !policy.rules.is_empty())
    }

    /// Whether selectors find the same Pods as in the other, for all that can be told at a glance.
    pub(super) fn selects_as(&self, other: &Self) -> bool {
        same(&self.pods, &other.pods) && same(&self.namespaces, &other.namespaces) && same(&self.groups, &other.groups)
    }

    /// Priority of a policy's tier: lower counts first. `None`: there is no such tier.
    pub(super) fn tier(&self, name: Option<&str>) -> Option<i32> {
        let name = name.unwrap_or(DEFAULT_TIER);
        self.tiers.get(name).copied().or_else(|| {
            let fixed = TIERS.iter().find(|(fixed, _)| fixed.eq_ignore_ascii_case(name));
            fixed.map(|(_, priority)| *priority)
        })
    }

    /// The ClusterGroup (of a ClusterNetworkPolicy) or Group (of a NetworkPolicy) that the policy means by this name.
    pub(super) fn group(&self, policy: &ObjectKey, name: &Arc<str>) -> Option<&Group> {
        let key = (Arc::clone(&policy.namespace), Arc::clone(name));
        self.groups.get(&key).map(|group| &**group)
    }

    /// Labels of a namespace. Kubernetes labels each with its name; one that no document tells of has that alone.
    pub(super) fn namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self
            .namespaces
            .get(name)
            .map(|labels| Labels::clone(labels))
            .unwrap_or_default();
        labels
            .entry(NAMESPACE_LABEL.to_owned())
            .or_insert_with(|| name.to_owned());
        labels
    }

    /// What is known of a Pod.
    pub(super) fn pod(&self, name: &PodName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }
}

/// Whether both hold the very same values.
fn same<K: Eq + Hash, V>(a: &HashMap<K, Arc<V>>, b: &HashMap<K, Arc<V>>) -> bool {
    let found = |(key, value): (&K, &Arc<V>)| b.get(key).is_some_and(|other| Arc::ptr_eq(value, other));
    a.len() == b.len() && a.iter().all(found)
}

impl ObjectKey {
    /// The namespace that a policy is bound to; a ClusterNetworkPolicy is bound to none.
    pub(super) fn scope(&self) -> Option<&str> {
        (self.kind == Kind::NetworkPolicy).then_some(&*self.namespace)
    }
}
