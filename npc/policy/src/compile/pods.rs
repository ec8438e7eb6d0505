//! All pods and namespaces, and who has which label.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    Labels, Namespace, Operator, Pod, PodId, Protocol, Requirement, Selector,
    compile::{
        PodNo, PolicyNo,
        query::{Query, Within},
        terms::TermId,
    },
    few::{Few, members, remove_from},
};

/// The pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// Boxed, as the nodes of a map that grows at its end are half empty.
    entries: BTreeMap<PodNo, Box<PodEntry>>,
    number_by_id: BTreeMap<PodId, PodNo>,
    next: u32,
    namespaces: BTreeMap<String, NamespaceEntry>,
    namespaces_by_label: LabelIndex<Arc<str>>,
    pods_by_label: LabelIndex<PodNo>,
    pods_by_port_name: BTreeMap<(String, Protocol), Few<PodNo>>,
    claims_by_address: BTreeMap<IpAddr, Few<PodNo>>,
}

/// A pod and what follows from what it is.
#[derive(Debug)]
pub(super) struct PodEntry {
    pub(super) pod: Pod,
    /// Peers of active rules that it is one of, in order.
    pub(super) terms: Vec<TermId>,
    /// Policies that select it, if it is in our scope, in order.
    pub(super) policies: Vec<PolicyNo>,
}

impl PodEntry {
    /// Makes it one of the peers that a term means, or not.
    pub(super) fn set_term(&mut self, term: TermId, is_meant: bool) {
        set_member(&mut self.terms, term, is_meant);
    }

    /// Makes it one of the subjects of a policy, or not.
    pub(super) fn set_policy(&mut self, policy: PolicyNo, is_subject: bool) {
        set_member(&mut self.policies, policy, is_subject);
    }
}

/// Puts a member into a list in order, or takes it out.
fn set_member<T: Ord>(list: &mut Vec<T>, member: T, is_in: bool) {
    match (list.binary_search(&member), is_in) {
        (Ok(at), false) => _ = list.remove(at),
        (Err(at), true) => list.insert(at, member),
        _ => {}
    }
}

#[derive(Debug, Default)]
struct NamespaceEntry {
    labels: Option<Labels>,
    pods: Few<PodNo>,
}

impl Pods {
    pub(super) fn entry(&self, pod: PodNo) -> Option<&PodEntry> {
        self.entries.get(&pod).map(|entry| &**entry)
    }

    pub(super) fn entry_mut(&mut self, pod: PodNo) -> Option<&mut PodEntry> {
        self.entries.get_mut(&pod).map(|entry| &mut **entry)
    }

    pub(super) fn number(&self, id: &PodId) -> Option<PodNo> {
        self.number_by_id.get(id).copied()
    }

    /// The pod that has this address: the youngest of those that claim it.
    pub(super) fn owner(&self, address: IpAddr) -> Option<PodNo> {
        let age = |pod: &&PodNo| self.entry(**pod).map(|entry| (entry.pod.created, &entry.pod.id, **pod));
        members(&self.claims_by_address, &address).max_by_key(age).copied()
    }

    /// Labels of a namespace; `None` as long as nobody told us.
    pub(super) fn labels_of(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)?.labels.as_ref()
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = PodNo> + use<> {
        let pods = self.namespaces.get(namespace).map(|entry| entry.pods.iter().copied().collect::<Vec<_>>());
        pods.unwrap_or_default().into_iter()
    }

    pub(super) fn with_port_name(&self, name: &str, protocol: Protocol) -> Vec<PodNo> {
        members(&self.pods_by_port_name, &(name.to_owned(), protocol)).copied().collect()
    }

    /// Takes a namespace's labels in, or that it is gone. Returns whether that is news.
    pub(super) fn set_namespace(&mut self, name: &str, namespace: Option<Namespace>) -> bool {
        let labels = namespace.map(Namespace::into_labels);
        let entry = namespace_entry(&mut self.namespaces, name);
        if entry.labels == labels {
            self.forget_empty(name);
            return false;
        }
        let whose = Arc::<str>::from(name);
        if let Some(new) = &labels {
            self.namespaces_by_label.insert(new, &whose);
        }
        let old = std::mem::replace(&mut entry.labels, labels).unwrap_or_default();
        let lost = |key: &String, value: &String| {
            entry.labels.as_ref().is_none_or(|labels| labels.get(key) != Some(value))
        };
        let lost = old.iter().filter(|(key, value)| lost(key, value));
        let lost: Labels = lost.map(|(key, value)| (key.clone(), value.clone())).collect();
        self.namespaces_by_label.remove(&lost, &whose);
        self.forget_empty(name);
        true
    }

    /// Takes a pod in. It is nobody's peer or subject yet; one of the same name, if there is, has to be removed next.
    pub(super) fn insert(&mut self, pod: Pod) -> PodNo {
        self.next += 1;
        let number = PodNo(self.next);
        self.number_by_id.insert(pod.id.clone(), number);
        namespace_entry(&mut self.namespaces, &pod.id.namespace).pods.insert(number);
        self.pods_by_label.insert(&pod.labels, &number);
        for port in &pod.ports {
            self.pods_by_port_name.entry((port.name.clone(), port.protocol)).or_default().insert(number);
        }
        for address in pod.own_addresses() {
            self.claims_by_address.entry(*address).or_default().insert(number);
        }
        let entry = PodEntry { pod, terms: Vec::new(), policies: Vec::new() };
        self.entries.insert(number, Box::new(entry));
        number
    }

    pub(super) fn remove(&mut self, number: PodNo) -> Option<PodEntry> {
        let entry = *self.entries.remove(&number)?;
        let pod = &entry.pod;
        if self.number_by_id.get(&pod.id) == Some(&number) {
            self.number_by_id.remove(&pod.id);
        }
        if let Some(namespace) = self.namespaces.get_mut(&pod.id.namespace) {
            namespace.pods.remove(&number);
        }
        self.forget_empty(&pod.id.namespace);
        self.pods_by_label.remove(&pod.labels, &number);
        for port in &pod.ports {
            remove_from(&mut self.pods_by_port_name, &(port.name.clone(), port.protocol), &number);
        }
        for address in pod.own_addresses() {
            remove_from(&mut self.claims_by_address, address, &number);
        }
        Some(entry)
    }

    /// All pods that a query is about.
    pub(super) fn matching(&self, query: &Query) -> Vec<PodNo> {
        let fits = |number: &PodNo| {
            self.entry(*number)
                .is_some_and(|entry| query.matches(&entry.pod, self.labels_of(&entry.pod.id.namespace)))
        };
        self.candidates(query).into_iter().filter(fits).collect()
    }

    /// Some pods, all that the query is about among them.
    fn candidates(&self, query: &Query) -> Vec<PodNo> {
        match &query.within {
            Within::Namespace(name) => self.in_namespace(name).collect(),
            Within::Namespaces(selector) => {
                let namespaces = self.namespaces_by_label.holders(selector);
                let pods = self.pods_by_label.holders(&query.pods);
                let in_namespaces = |sets: &Vec<&Few<Arc<str>>>| -> Vec<PodNo> {
                    sets.iter().flat_map(|set| set.iter()).flat_map(|name| self.in_namespace(name)).collect()
                };
                let all = |sets: &Vec<&Few<PodNo>>| sets.iter().flat_map(|set| set.iter()).copied().collect();
                match (namespaces, pods) {
                    (Some(namespaces), Some(pods)) if size(&pods) <= size(&namespaces) => all(&pods),
                    (Some(namespaces), _) => in_namespaces(&namespaces),
                    (None, Some(pods)) => all(&pods),
                    (None, None) => self.entries.keys().copied().collect(),
                }
            }
        }
    }

    fn forget_empty(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(|e| e.labels.is_none() && e.pods.is_empty()) {
            self.namespaces.remove(namespace);
        }
    }
}

/// The entry of a namespace, made if there is none.
fn namespace_entry<'a>(
    namespaces: &'a mut BTreeMap<String, NamespaceEntry>,
    name: &str,
) -> &'a mut NamespaceEntry {
    // Two look-ups cost less than a copy of the name for each of a hundred thousand pods.
    if !namespaces.contains_key(name) {
        namespaces.insert(name.to_owned(), NamespaceEntry::default());
    }
    namespaces.get_mut(name).expect("it was put in if it was not there")
}

/// Who has a label, by key and value.
#[derive(Debug)]
struct LabelIndex<T> {
    by_key: BTreeMap<String, BTreeMap<String, Few<T>>>,
}

impl<T> Default for LabelIndex<T> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> LabelIndex<T> {
    fn insert(&mut self, labels: &Labels, who: &T) {
        for (key, value) in labels.iter() {
            if !self.by_key.contains_key(key) {
                self.by_key.insert(key.clone(), BTreeMap::new());
            }
            let Some(by_value) = self.by_key.get_mut(key) else { continue };
            match by_value.get_mut(value) {
                Some(holders) => holders.insert(who.clone()),
                None => _ = by_value.insert(value.clone(), Few::One(Some(who.clone()))),
            }
        }
    }

    fn remove(&mut self, labels: &Labels, who: &T) {
        for (key, value) in labels.iter() {
            if let Some(by_value) = self.by_key.get_mut(key) {
                remove_from(by_value, value, who);
                if by_value.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
    }

    /// Everybody whom the most selective positive requirement allows; `None` if there is no such requirement.
    fn holders(&self, selector: &Selector) -> Option<Vec<&Few<T>>> {
        let holders = |requirement: &Requirement| -> Option<Vec<&Few<T>>> {
            let by_value = self.by_key.get(requirement.key());
            match requirement.operator() {
                Operator::In(values) => {
                    Some(values.iter().filter_map(|value| by_value?.get(value)).collect())
                }
                Operator::Exists => Some(by_value.into_iter().flat_map(BTreeMap::values).collect()),
                Operator::NotIn(_) | Operator::DoesNotExist => None,
            }
        };
        selector.requirements().filter_map(holders).min_by_key(size)
    }
}

fn size<T: Ord>(sets: &Vec<&Few<T>>) -> usize {
    sets.iter().map(|set| set.len()).sum()
}
