//! All pods and namespaces, and who has which label.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    Labels, Pod, Protocol,
    compile::{
        Assigned, PodNo, PolicyNo,
        query::{Condition, Conditions, Label, Query, Within},
        terms::TermId,
        texts::{Text, Texts},
    },
    few::{Few, members, remove_from},
    number::ByNumber,
};

/// The pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    entries: ByNumber<PodNo, Box<PodEntry>>,
    last: u32,
    namespaces: ByNumber<Text, NamespaceEntry>,
    namespaces_by_label: LabelIndex<Text>,
    pods_by_label: LabelIndex<PodNo>,
    pods_by_port_name: ByNumber<(Text, Protocol), Few<PodNo>>,
    claims_by_address: ByNumber<IpAddr, Few<PodNo>>,
}

/// What a pod is, as far as it matters. Holds its texts until they are released.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) namespace: Text,
    name: Arc<str>,
    pub(super) labels: Box<[Label]>,
    pub(super) ports: Box<[NamedPort]>,
    /// Its own. Without any it is nobody's peer or subject.
    pub(super) addresses: Box<[IpAddr]>,
    /// Whether it is in our scope.
    is_ours: bool,
    created: u64,
}

/// A port of a container with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamedPort {
    pub(super) name: Text,
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

impl Description {
    pub(super) fn new(pod: Pod, is_ours: bool, texts: &mut Texts) -> Self {
        let port = |port: &crate::ContainerPort, texts: &mut Texts| NamedPort {
            name: texts.acquire(&port.name),
            protocol: port.protocol,
            number: port.number,
        };
        Self {
            namespace: texts.acquire(&pod.id.namespace),
            name: pod.id.name.as_str().into(),
            labels: labels(&pod.labels, texts),
            ports: pod.ports.iter().map(|named| port(named, texts)).collect(),
            addresses: pod.own_addresses().into(),
            is_ours,
            created: pod.created,
        }
    }

    /// Whether policies can isolate it here.
    pub(super) const fn may_be_subject(&self) -> bool {
        self.is_ours && !self.addresses.is_empty()
    }

    /// Gives up its texts.
    pub(super) fn release(&self, texts: &mut Texts) {
        texts.release(self.namespace);
        release_labels(&self.labels, texts);
        self.ports.iter().for_each(|port| texts.release(port.name));
    }
}

fn labels(labels: &Labels, texts: &mut Texts) -> Box<[Label]> {
    labels.iter().map(|(key, value)| (texts.acquire(key), texts.acquire(value))).collect()
}

fn release_labels(labels: &[Label], texts: &mut Texts) {
    for (key, value) in labels {
        texts.release(*key);
        texts.release(*value);
    }
}

/// A pod and what follows from what it is.
#[derive(Debug)]
pub(super) struct PodEntry {
    pub(super) is: Description,
    /// Peers of active rules that it is one of, in order.
    pub(super) terms: Vec<TermId>,
    /// Policies that select it, if it is in our scope, in order.
    pub(super) policies: Vec<PolicyNo>,
    /// The numbers that its addresses have.
    pub(super) assigned: Assigned,
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
    /// None as long as nobody told us. Holds its texts.
    labels: Option<Box<[Label]>>,
    pods_by_name: BTreeMap<Arc<str>, PodNo>,
}

impl Pods {
    pub(super) fn entry(&self, pod: PodNo) -> Option<&PodEntry> {
        self.entries.get(&pod).map(|entry| &**entry)
    }

    pub(super) fn entry_mut(&mut self, pod: PodNo) -> Option<&mut PodEntry> {
        self.entries.get_mut(&pod).map(|entry| &mut **entry)
    }

    pub(super) fn number(&self, namespace: Text, name: &str) -> Option<PodNo> {
        self.namespaces.get(&namespace)?.pods_by_name.get(name).copied()
    }

    /// The number of the pod of this name, and what it is.
    pub(super) fn namesake(&self, pod: &Description) -> Option<(PodNo, &Description)> {
        let number = self.number(pod.namespace, &pod.name)?;
        Some((number, &self.entry(number)?.is))
    }

    /// The pod that has this address: the youngest of those that claim it.
    pub(super) fn owner(&self, address: IpAddr, texts: &Texts) -> Option<PodNo> {
        let age = |pod: &&PodNo| {
            let is = self.entry(**pod).map(|entry| &entry.is);
            is.map(|is| (is.created, texts.text(is.namespace), &is.name, **pod))
        };
        members(&self.claims_by_address, &address).max_by_key(age).copied()
    }

    /// Labels of a namespace; `None` as long as nobody told us.
    pub(super) fn labels_of(&self, namespace: Text) -> Option<&[Label]> {
        self.namespaces.get(&namespace)?.labels.as_deref()
    }

    pub(super) fn in_namespace(&self, namespace: Text) -> Vec<PodNo> {
        let entry = self.namespaces.get(&namespace);
        entry.map(|entry| entry.pods_by_name.values().copied().collect()).unwrap_or_default()
    }

    pub(super) fn with_port_name(&self, name: Text, protocol: Protocol) -> Vec<PodNo> {
        members(&self.pods_by_port_name, &(name, protocol)).copied().collect()
    }

    /// Takes a namespace's labels in, or that it is gone. Returns the pods for which that is news.
    pub(super) fn set_namespace(
        &mut self,
        name: &str,
        new: Option<&Labels>,
        texts: &mut Texts,
    ) -> Vec<PodNo> {
        // One use for as long as it is known.
        let name = texts.acquire(name);
        let new = new.map(|new| labels(new, texts));
        let entry = self.namespaces.entry(name).or_default();
        let old = std::mem::replace(&mut entry.labels, new);
        let new = entry.labels.as_deref();
        let is_news = old.as_deref() != new;
        if is_news {
            let (old, new) = (old.as_deref().unwrap_or_default(), new.unwrap_or_default());
            self.namespaces_by_label.insert(new.iter(), &name);
            self.namespaces_by_label.remove(old.iter().filter(|label| !new.contains(label)), &name);
        }
        let uses_too_many = 1 + usize::from(old.is_some()) - usize::from(new.is_some());
        release_labels(&old.unwrap_or_default(), texts);
        let pods = if is_news { self.in_namespace(name) } else { Vec::new() };
        self.forget_empty(name);
        (0..uses_too_many).for_each(|_| texts.release(name));
        pods
    }

    /// Takes a pod in. It is nobody's peer or subject yet; one of the same name, if there is, has to be removed next.
    pub(super) fn insert(&mut self, pod: Description) -> PodNo {
        self.last += 1;
        let number = PodNo(self.last);
        self.namespaces.entry(pod.namespace).or_default().pods_by_name.insert(pod.name.clone(), number);
        self.pods_by_label.insert(pod.labels.iter(), &number);
        for port in &pod.ports {
            self.pods_by_port_name.entry((port.name, port.protocol)).or_default().insert(number);
        }
        for address in &pod.addresses {
            self.claims_by_address.entry(*address).or_default().insert(number);
        }
        let (terms, policies, assigned) = (Vec::new(), Vec::new(), Assigned::default());
        self.entries.insert(number, Box::new(PodEntry { is: pod, terms, policies, assigned }));
        number
    }

    /// Takes a pod out. Its texts have to be released next.
    pub(super) fn remove(&mut self, number: PodNo) -> Option<PodEntry> {
        let entry = *self.entries.remove(&number)?;
        let pod = &entry.is;
        if let Some(namespace) = self.namespaces.get_mut(&pod.namespace)
            && namespace.pods_by_name.get(&pod.name) == Some(&number)
        {
            namespace.pods_by_name.remove(&pod.name);
        }
        self.forget_empty(pod.namespace);
        self.pods_by_label.remove(pod.labels.iter(), &number);
        for port in &pod.ports {
            remove_from(&mut self.pods_by_port_name, &(port.name, port.protocol), &number);
        }
        for address in &pod.addresses {
            remove_from(&mut self.claims_by_address, address, &number);
        }
        Some(entry)
    }

    /// All pods that a query is about.
    pub(super) fn matching(&self, query: &Query) -> Vec<PodNo> {
        let fits = |number: &PodNo| {
            self.entry(*number).is_some_and(|e| query.matches(&e.is, self.labels_of(e.is.namespace)))
        };
        let mut found = self.candidates(query);
        found.retain(fits);
        found
    }

    /// Some pods, all that the query is about among them.
    fn candidates(&self, query: &Query) -> Vec<PodNo> {
        match &query.within {
            Within::Namespace(name) => self.in_namespace(*name),
            Within::Namespaces(conditions) => {
                let namespaces = self.namespaces_by_label.holders(conditions);
                let pods = self.pods_by_label.holders(&query.pods);
                let in_namespaces = |sets: &Vec<&Few<Text>>| -> Vec<PodNo> {
                    sets.iter().flat_map(|set| set.iter()).flat_map(|name| self.in_namespace(*name)).collect()
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

    fn forget_empty(&mut self, namespace: Text) {
        let is_empty = |entry: &NamespaceEntry| entry.labels.is_none() && entry.pods_by_name.is_empty();
        if self.namespaces.get(&namespace).is_some_and(is_empty) {
            self.namespaces.remove(&namespace);
        }
    }
}

/// Who has a label.
#[derive(Debug)]
struct LabelIndex<T> {
    holders_by_label: ByNumber<Label, Few<T>>,
    values_by_key: ByNumber<Text, Few<Text>>,
}

impl<T> Default for LabelIndex<T> {
    fn default() -> Self {
        Self { holders_by_label: ByNumber::default(), values_by_key: ByNumber::default() }
    }
}

impl<T: Ord + Clone> LabelIndex<T> {
    fn insert<'a>(&mut self, labels: impl Iterator<Item = &'a Label>, who: &T) {
        for label in labels {
            let holders = self.holders_by_label.entry(*label).or_default();
            if holders.is_empty() {
                self.values_by_key.entry(label.0).or_default().insert(label.1);
            }
            holders.insert(who.clone());
        }
    }

    fn remove<'a>(&mut self, labels: impl Iterator<Item = &'a Label>, who: &T) {
        for label in labels {
            remove_from(&mut self.holders_by_label, label, who);
            if !self.holders_by_label.contains_key(label) {
                remove_from(&mut self.values_by_key, &label.0, &label.1);
            }
        }
    }

    /// Everybody whom the most selective positive condition allows; `None` if there is no such condition.
    fn holders(&self, conditions: &Conditions) -> Option<Vec<&Few<T>>> {
        let of = |key: Text, value: Text| self.holders_by_label.get(&(key, value));
        let holders = |condition: &Condition| -> Option<Vec<&Few<T>>> {
            match condition {
                Condition::Is(key, value) => Some(of(*key, *value).into_iter().collect()),
                Condition::In(key, values) => {
                    Some(values.iter().filter_map(|value| of(*key, *value)).collect())
                }
                Condition::Exists(key) => {
                    let values = members(&self.values_by_key, key);
                    Some(values.filter_map(|value| of(*key, *value)).collect())
                }
                Condition::NotIn(..) | Condition::DoesNotExist(_) => None,
            }
        };
        conditions.iter().filter_map(holders).min_by_key(size)
    }
}

fn size<T: Ord>(sets: &Vec<&Few<T>>) -> usize {
    sets.iter().map(|set| set.len()).sum()
}
