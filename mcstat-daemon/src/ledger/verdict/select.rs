//! Whom a policy is for: from lists of `appliedTo` to Pods of the node.
//!
//! What was found is kept from one model to the next as long as it rests on the same Pods, Namespaces and groups: most
//! changes are of policies.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    model::{Model, PodName},
    object::{AppliedTo, Group, ObjectKey, PodSelector},
    problem::GroupFault,
    selector::Labels,
};

/// A list, and the namespace that its policy is bound to.
type Key = (Option<Arc<str>>, Arc<[AppliedTo]>);

/// What a list selects: positions in the list of Pods; and groups that select nothing.
type Selected = (Arc<[u32]>, Arc<[(Arc<str>, GroupFault)]>);

/// What was found for the model before.
#[derive(Debug, Default)]
pub(super) struct Selections {
    model: Model,
    pods: Vec<PodName>,
    known: HashMap<Key, Selected>,
}

/// Finds what lists select, for one model.
pub(super) struct Selector<'a> {
    model: &'a Model,
    names: &'a [PodName],
    /// Made when the first list is one that is not known.
    pods: Option<Pods<'a>>,
    before: HashMap<Key, Selected>,
    known: &'a mut HashMap<Key, Selected>,
}

impl Selections {
    /// Goes over to another model. What no list asks for again is forgotten.
    pub(super) fn begin<'a>(&'a mut self, model: &'a Model, pods: &'a [PodName]) -> Selector<'a> {
        if self.pods != pods || !self.model.selects_as(model) {
            self.known.clear();
            self.pods = pods.to_vec();
        }
        self.model = model.clone();
        Selector {
            model,
            names: pods,
            pods: None,
            before: std::mem::take(&mut self.known),
            known: &mut self.known,
        }
    }
}

impl<'a> Selector<'a> {
    /// The Pods that a list of this policy is for.
    pub(super) fn select(&mut self, policy: &ObjectKey, list: &Arc<[AppliedTo]>) -> Selected {
        let scope = policy.scope().map(|_| Arc::clone(&policy.namespace));
        let key = (scope, Arc::clone(list));
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let selected = self.before.remove(&key).unwrap_or_else(|| self.look(policy, list));
        self.known.insert(key, selected.clone());
        selected
    }

    fn look(&mut self, policy: &ObjectKey, list: &[AppliedTo]) -> Selected {
        let (model, names) = (self.model, self.names);
        let pods: &Pods<'a> = self.pods.get_or_insert_with(|| Pods::new(model, names));
        let mut selected = vec![false; names.len()];
        let mut faults = Vec::new();
        for entry in list {
            match entry {
                AppliedTo::NoPods => {}
                AppliedTo::Pods(selector) => pods.mark(policy.scope(), selector, &mut selected),
                AppliedTo::ServiceAccount { namespace, name } => {
                    for (pod, selected) in pods.pods.iter().zip(&mut selected) {
                        *selected |= *pod.name.namespace == **namespace && pod.service_account == *name;
                    }
                }
                AppliedTo::Group(name) => {
                    let children = model.group(policy, name).map_or(&[][..], |group| &group.children);
                    for name in std::iter::once(name).chain(children) {
                        let group = model.group(policy, name);
                        match group.map_or(Some(GroupFault::Missing), |group| fault(policy, group)) {
                            Some(fault) => faults.push((Arc::clone(name), fault)),
                            None => {
                                let selector = group.and_then(|group| group.pods.as_ref());
                                selector
                                    .into_iter()
                                    .for_each(|selector| pods.mark(policy.scope(), selector, &mut selected));
                            }
                        }
                    }
                }
            }
        }
        let positions = (0_u32..).zip(selected).filter(|(_, selected)| *selected);
        (positions.map(|(position, _)| position).collect(), faults.into())
    }
}

/// Why the group selects nothing. Antrea does not apply a NetworkPolicy to a Group that selects Pods of other namespaces.
fn fault(policy: &ObjectKey, group: &Group) -> Option<GroupFault> {
    let beyond = group.pods.as_ref().is_some_and(|pods| pods.namespace.is_some());
    let beyond = policy.scope().is_some() && beyond;
    beyond.then_some(GroupFault::OtherNamespaces).or(group.fault)
}

/// The node's Pods as selectors see them.
struct Pods<'a> {
    pods: Vec<PodView<'a>>,
    namespaces: BTreeMap<&'a str, Labels>,
    /// Positions of the Pods with a label: a selector looks at those alone.
    by_label: HashMap<(&'a str, &'a str), Vec<u32>>,
}

struct PodView<'a> {
    name: &'a PodName,
    labels: &'a Labels,
    service_account: &'a str,
}

static NO_LABELS: Labels = Labels::new();

impl<'a> Pods<'a> {
    fn new(model: &'a Model, names: &'a [PodName]) -> Self {
        let namespaces = names.iter().map(|pod| &*pod.namespace).collect::<BTreeSet<_>>();
        let view = |name| {
            let pod = model.pod(name);
            PodView {
                name,
                labels: pod.map_or(&NO_LABELS, |pod| &pod.labels),
                service_account: pod.map_or("", |pod| &pod.service_account),
            }
        };
        let pods: Vec<_> = names.iter().map(view).collect();
        let mut by_label: HashMap<_, Vec<u32>> = HashMap::new();
        for (position, pod) in (0_u32..).zip(&pods) {
            for (key, value) in pod.labels {
                by_label
                    .entry((key.as_str(), value.as_str()))
                    .or_default()
                    .push(position);
            }
        }
        let namespaces = namespaces.into_iter().map(|name| (name, model.namespace_labels(name)));
        Self {
            pods,
            namespaces: namespaces.collect(),
            by_label,
        }
    }

    fn mark(&self, scope: Option<&str>, selector: &PodSelector, selected: &mut [bool]) {
        let by_namespace = selector.namespace.as_ref().map(|selector| {
            let matching = self.namespaces.iter().filter(|(_, labels)| selector.matches(labels));
            matching.map(|(name, _)| *name).collect::<BTreeSet<_>>()
        });
        let fits = |pod: &PodView<'_>| {
            let namespace = &*pod.name.namespace;
            scope.is_none_or(|scope| scope == namespace)
                && by_namespace.as_ref().is_none_or(|names| names.contains(namespace))
                && selector
                    .pod
                    .as_ref()
                    .is_none_or(|selector| selector.matches(pod.labels))
        };
        let label = selector
            .pod
            .as_ref()
            .and_then(|selector| selector.match_labels.first_key_value());
        let candidates = match label {
            Some((key, value)) => self
                .by_label
                .get(&(key.as_str(), value.as_str()))
                .cloned()
                .unwrap_or_default(),
            None => (0_u32..).take(self.pods.len()).collect(),
        };
        for position in candidates.into_iter().map(|position| position as usize) {
            if let (Some(pod), Some(selected)) = (self.pods.get(position), selected.get_mut(position)) {
                *selected = *selected || fits(pod);
            }
        }
    }
}
