//! Which pods a selector is about, and an index that finds the queries a pod may answer to.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Labels, Operator, Pod, Requirement, Selector, compile::pods::remove_from};

/// A set of pods by labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Query {
    pub(super) within: Within,
    pub(super) pods: Selector,
}

/// Namespaces of a query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Within {
    /// The one of this name.
    Namespace(String),
    /// Those that we know, with such labels.
    Namespaces(Selector),
}

impl Query {
    /// Whether the pod is one of them, by its own labels and those of its namespace.
    pub(super) fn matches(&self, pod: &Pod, namespace: Option<&Labels>) -> bool {
        let is_within = match &self.within {
            Within::Namespace(name) => pod.id.namespace == *name,
            Within::Namespaces(selector) => namespace.is_some_and(|labels| selector.matches(labels)),
        };
        is_within && self.pods.matches(&pod.labels)
    }
}

/// Queries by something that a pod must have to be meant: its namespace, and a label of its own or of its namespace.
#[derive(Debug)]
pub(super) struct QueryIndex<Q> {
    in_namespace: BTreeMap<String, Anchors<Q>>,
    by_namespace_label: Anchors<Q>,
    by_pod_label: Anchors<Q>,
}

/// Queries by a label that they need.
#[derive(Debug)]
struct Anchors<Q> {
    by_pair: BTreeMap<String, BTreeMap<String, BTreeSet<Q>>>,
    by_key: BTreeMap<String, BTreeSet<Q>>,
    unanchored: BTreeSet<Q>,
}

impl<Q> Default for QueryIndex<Q> {
    fn default() -> Self {
        Self {
            in_namespace: BTreeMap::new(),
            by_namespace_label: Anchors::default(),
            by_pod_label: Anchors::default(),
        }
    }
}

impl<Q> Default for Anchors<Q> {
    fn default() -> Self {
        Self { by_pair: BTreeMap::new(), by_key: BTreeMap::new(), unanchored: BTreeSet::new() }
    }
}

impl<Q: Ord + Copy> QueryIndex<Q> {
    pub(super) fn insert(&mut self, name: Q, query: &Query) {
        match &query.within {
            Within::Namespace(namespace) => {
                self.in_namespace.entry(namespace.clone()).or_default().insert(name, anchor(&query.pods));
            }
            Within::Namespaces(selector) => match anchor(selector) {
                None => self.by_pod_label.insert(name, anchor(&query.pods)),
                some => self.by_namespace_label.insert(name, some),
            },
        }
    }

    pub(super) fn remove(&mut self, name: Q, query: &Query) {
        match &query.within {
            Within::Namespace(namespace) => {
                if let Some(anchors) = self.in_namespace.get_mut(namespace) {
                    anchors.remove(name, anchor(&query.pods));
                    if anchors.is_empty() {
                        self.in_namespace.remove(namespace);
                    }
                }
            }
            Within::Namespaces(selector) => match anchor(selector) {
                None => self.by_pod_label.remove(name, anchor(&query.pods)),
                some => self.by_namespace_label.remove(name, some),
            },
        }
    }

    /// Some queries, all that match the pod among them.
    pub(super) fn candidates(&self, pod: &Pod, namespace: Option<&Labels>) -> BTreeSet<Q> {
        let mut found = BTreeSet::new();
        if let Some(anchors) = self.in_namespace.get(&pod.id.namespace) {
            anchors.collect(&pod.labels, &mut found);
        }
        if let Some(labels) = namespace {
            self.by_namespace_label.collect(labels, &mut found);
            self.by_pod_label.collect(&pod.labels, &mut found);
        }
        found
    }
}

impl<Q: Ord + Copy> Anchors<Q> {
    fn insert(&mut self, name: Q, anchor: Option<&Requirement>) {
        match anchor.map(|requirement| (requirement.key(), requirement.operator())) {
            Some((key, Operator::In(values))) => {
                let by_value = self.by_pair.entry(key.to_owned()).or_default();
                for value in values {
                    by_value.entry(value.clone()).or_default().insert(name);
                }
            }
            Some((key, _)) => {
                self.by_key.entry(key.to_owned()).or_default().insert(name);
            }
            None => {
                self.unanchored.insert(name);
            }
        }
    }

    fn remove(&mut self, name: Q, anchor: Option<&Requirement>) {
        match anchor.map(|requirement| (requirement.key().to_owned(), requirement.operator())) {
            Some((key, Operator::In(values))) => {
                if let Some(by_value) = self.by_pair.get_mut(&key) {
                    values.iter().for_each(|value| remove_from(by_value, value, &name));
                    if by_value.is_empty() {
                        self.by_pair.remove(&key);
                    }
                }
            }
            Some((key, _)) => remove_from(&mut self.by_key, &key, &name),
            None => {
                self.unanchored.remove(&name);
            }
        }
    }

    fn collect(&self, labels: &Labels, found: &mut BTreeSet<Q>) {
        found.extend(&self.unanchored);
        for (key, value) in labels {
            found.extend(self.by_key.get(key).into_iter().flatten());
            found
                .extend(self.by_pair.get(key).and_then(|by_value| by_value.get(value)).into_iter().flatten());
        }
    }

    fn is_empty(&self) -> bool {
        self.by_pair.is_empty() && self.by_key.is_empty() && self.unanchored.is_empty()
    }
}

/// The requirement that fewest things fulfil, by the look of it: fewest values, or else a key that must be there.
fn anchor(selector: &Selector) -> Option<&Requirement> {
    let rank = |requirement: &&Requirement| match requirement.operator() {
        Operator::In(values) => values.len(),
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => usize::MAX,
    };
    let is_positive =
        |requirement: &&Requirement| matches!(requirement.operator(), Operator::In(_) | Operator::Exists);
    selector.requirements().filter(is_positive).min_by_key(rank)
}
