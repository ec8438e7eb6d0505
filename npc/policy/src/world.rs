//! All objects that matter to policies, and how they change.

use std::collections::BTreeMap;

use crate::{Labels, Namespace, Pod, PodId, Policy, PolicyId};

/// A change of one object; what is set replaces what had its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A namespace is there, with these labels.
    Namespace(Namespace),
    /// The namespace of this name is gone. Its pods and policies go on their own.
    NamespaceGone(String),
    /// A pod is there, like this.
    Pod(Pod),
    /// A pod is gone.
    PodGone(PodId),
    /// A policy is there, like this.
    Policy(Policy),
    /// A policy is gone.
    PolicyGone(PolicyId),
}

/// The objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// By name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// By name.
    pub pods: BTreeMap<PodId, Pod>,
    /// By name.
    pub policies: BTreeMap<PolicyId, Policy>,
}

impl World {
    /// Carries out a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Namespace(namespace) => {
                self.namespaces.insert(namespace.name().to_owned(), namespace);
            }
            Change::NamespaceGone(name) => {
                self.namespaces.remove(&name);
            }
            Change::Pod(pod) => {
                self.pods.insert(pod.id.clone(), pod);
            }
            Change::PodGone(id) => {
                self.pods.remove(&id);
            }
            Change::Policy(policy) => {
                self.policies.insert(policy.id.clone(), policy);
            }
            Change::PolicyGone(id) => {
                self.policies.remove(&id);
            }
        }
    }

    /// The changes that lead from here to `wanted`. What goes comes first, so that no name or address is ever held
    /// twice in between.
    #[must_use]
    pub fn changes_to(&self, wanted: &Self) -> Vec<Change> {
        let gone = |id: &&PodId| !wanted.pods.contains_key(*id);
        let pods_gone = self.pods.keys().filter(gone).cloned().map(Change::PodGone);
        let policies_gone = self.policies.keys().filter(|id| !wanted.policies.contains_key(*id));
        let namespaces_gone = self.namespaces.keys().filter(|name| !wanted.namespaces.contains_key(*name));
        let namespaces = news(&self.namespaces, &wanted.namespaces).map(Change::Namespace);
        let pods = news(&self.pods, &wanted.pods).map(Change::Pod);
        let policies = news(&self.policies, &wanted.policies).map(Change::Policy);
        let gone = pods_gone
            .chain(policies_gone.cloned().map(Change::PolicyGone))
            .chain(namespaces_gone.cloned().map(Change::NamespaceGone));
        gone.chain(namespaces).chain(policies).chain(pods).collect()
    }

    /// Labels of a namespace. Of one that we have not been told about we know nothing: no selector of namespaces
    /// matches it, not even the empty one, so that nothing is allowed by ignorance.
    pub(crate) fn labels_of(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace).map(Namespace::labels)
    }
}

fn news<'a, K: Ord, V: Clone + PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = V> + 'a {
    new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selector;

    #[test]
    fn changes_lead_from_one_world_to_another() {
        let policy = |name: &str, ingress| Policy {
            id: PolicyId::new("x", name),
            subject: Selector::everything(),
            ingress,
            egress: None,
        };
        let pod = |name: &str, node: &str| Pod::new(PodId::new("x", name), node);
        let (mut old, mut new) = (World::default(), World::default());
        for change in [
            Change::Namespace(Namespace::new("x", Labels::new())),
            Change::Namespace(Namespace::new("y", Labels::new())),
            Change::Pod(pod("a", "one")),
            Change::Pod(pod("b", "one")),
            Change::Policy(policy("p", None)),
            Change::Policy(policy("q", None)),
        ] {
            old.apply(change);
        }
        for change in [
            Change::Namespace(Namespace::new("y", Labels::from([("a".to_owned(), "b".to_owned())]))),
            Change::Pod(pod("b", "one")),
            Change::Pod(pod("c", "two")),
            Change::Policy(policy("q", Some(vec![]))),
        ] {
            new.apply(change);
        }
        let changes = old.changes_to(&new);
        assert_eq!(changes.len(), 6);
        changes.into_iter().for_each(|change| old.apply(change));
        assert_eq!(old, new);
        assert_eq!(old.changes_to(&new), []);
    }
}
