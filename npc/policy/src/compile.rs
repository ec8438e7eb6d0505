//! From objects to [`Element`]s, by difference.
//!
//! Inputs change what is known at once and note what follows from it as *dirty*; [`Compiler::poll_delta`] then brings
//! numbers and elements up to date, each stage looking only at what the one before it changed:
//!
//! 1. A policy that selects a pod of our scope is *in force*; only then are its peers looked for ([`terms`]).
//! 2. Pods that the rules in force do not tell apart are one *kind* of peer and share a number ([`peers`]). So do
//!    addresses in the same blocks.
//! 3. Pods of our scope with the same policies of a direction share a *class* ([`classes`]).
//! 4. A *row* is what a class may do with a peer, computed from both alone ([`rows`]).
//!
//! Rules only ever allow, so an address may be looked up as a pod and as a member of blocks one after the other, and the
//! two never have to be combined. Cluster-wide policies, which also deny, will need the combination: then the kind of a
//! pod has to include the blocks that it is in, and a row a verdict with a priority instead of a set; the stages stay.

mod classes;
mod content;
mod flush;
mod peers;
mod pods;
mod policies;
mod ports;
mod query;
mod rows;
mod terms;
mod texts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    Change, ClassId, Delta, Direction, Family, Namespace, PeerId, Pod, PodId, Policy, PolicyId,
    number::{ByNumber, Noted},
    partition::Partition,
};
use classes::Classes;
use content::Lists;
use peers::Peers;
use pods::{Description, Pods};
use policies::{Held, Policies};
use ports::Ranges;
use rows::Rows;
use terms::{Term, TermId, Terms};
use texts::Texts;

/// A pod as it was at one time: a change makes it another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PodNo(u32);

/// A policy, whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PolicyNo(u32);

type RowKey = (ClassId, PeerId);

/// The pods that are ours to isolate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Those on the node of this name, and those of which nobody says where they are: rather isolated twice than never.
    Node(String),
    /// All of them.
    Everything,
}

impl Scope {
    /// Whether pods of `node` are in it.
    #[must_use]
    pub fn contains(&self, node: &str) -> bool {
        match self {
            Self::Node(name) => name == node || node.is_empty(),
            Self::Everything => true,
        }
    }
}

/// Keeps [`Facts`](crate::Facts) in step with objects.
///
/// # Driving
/// 1. Feed changes to [`handle_change`](Self::handle_change), as many as there are.
/// 2. Take what follows from them all with [`poll_delta`](Self::poll_delta), and carry it out as a whole.
///
/// The same changes in the same order give the same deltas.
#[derive(Debug)]
pub struct Compiler {
    scope: Scope,
    texts: Texts,
    pods: Pods,
    policies: Policies,
    terms: Terms,
    blocks: BTreeMap<Family, Blocks>,
    peers: Peers,
    classes: Classes,
    ranges: Ranges,
    rows: Rows,
    lists: Lists,
    /// What those have had that are gone since the last flush.
    departed: ByNumber<PodNo, Assigned>,
    published: ByNumber<IpAddr, Assigned>,
    dirty_pods: Noted<PodNo>,
    dirty_policies: BTreeSet<PolicyNo>,
    dirty_addresses: Noted<IpAddr>,
}

/// What tables say about the addresses of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Assigned {
    peer: Option<PeerId>,
    ingress: Option<ClassId>,
    egress: Option<ClassId>,
}

impl Assigned {
    const fn class(&self, direction: Direction) -> Option<ClassId> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// Blocks of one family, and what was told of them.
#[derive(Debug)]
struct Blocks {
    partition: Partition<TermId>,
    published: BTreeMap<u128, (u128, PeerId)>,
}

impl Compiler {
    /// A compiler that knows of no objects.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        let blocks = |family: Family| {
            (family, Blocks { partition: Partition::new(family.last()), published: BTreeMap::new() })
        };
        Self {
            scope,
            texts: Texts::default(),
            pods: Pods::default(),
            policies: Policies::default(),
            terms: Terms::default(),
            blocks: [Family::V4, Family::V6].map(blocks).into(),
            peers: Peers::default(),
            classes: Classes::default(),
            ranges: Ranges::default(),
            rows: Rows::default(),
            lists: Lists::default(),
            departed: ByNumber::default(),
            published: ByNumber::default(),
            dirty_pods: Noted::default(),
            dirty_policies: BTreeSet::new(),
            dirty_addresses: Noted::default(),
        }
    }

    /// Takes a change of an object in. What is no news changes nothing.
    pub fn handle_change(&mut self, change: Change) {
        match change {
            Change::Namespace(namespace) => self.set_namespace(namespace.name(), Some(&namespace)),
            Change::NamespaceGone(name) => self.set_namespace(&name, None),
            Change::Pod(pod) => self.set_pod(pod),
            Change::PodGone(id) => self.remove_pod(&id),
            Change::Policy(policy) => self.set_policy(policy),
            Change::PolicyGone(id) => self.remove_policy(&id),
        }
    }

    /// What has to change, if anything has; afterwards it counts as done.
    pub fn poll_delta(&mut self) -> Option<Delta> {
        let delta = self.flush();
        (!delta.is_empty()).then_some(delta)
    }

    fn set_namespace(&mut self, name: &str, namespace: Option<&Namespace>) {
        for pod in self.pods.set_namespace(name, namespace.map(Namespace::labels), &mut self.texts) {
            self.find_terms(pod);
        }
    }

    fn set_pod(&mut self, pod: Pod) {
        let is_ours = self.scope.contains(&pod.node);
        let pod = Description::new(pod, is_ours, &mut self.texts);
        let namesake = self.pods.namesake(&pod);
        if namesake.is_some_and(|(_, old)| *old == pod) {
            pod.release(&mut self.texts);
            return;
        }
        let old = namesake.map(|(number, _)| number);
        self.dirty_addresses.extend(pod.addresses.iter().copied());
        // The new one first: policies stay in force while there is always somebody whom they select.
        let new = self.pods.insert(pod);
        self.find_terms(new);
        self.find_policies(new);
        if let Some(old) = old {
            self.drop_pod(old);
        }
    }

    fn remove_pod(&mut self, id: &PodId) {
        let namespace = self.texts.find(&id.namespace);
        if let Some(old) = namespace.and_then(|namespace| self.pods.number(namespace, &id.name)) {
            self.drop_pod(old);
        }
    }

    fn drop_pod(&mut self, number: PodNo) {
        let Some(entry) = self.pods.remove(number) else { return };
        self.dirty_addresses.extend(entry.is.addresses.iter().copied());
        self.dirty_pods.insert(number);
        self.departed.insert(number, entry.assigned);
        for policy in entry.policies {
            self.count_subjects(policy, -1);
        }
        entry.is.release(&mut self.texts);
    }

    /// Finds out whose peer a pod is.
    fn find_terms(&mut self, number: PodNo) {
        let Some(entry) = self.pods.entry(number).filter(|entry| !entry.is.addresses.is_empty()) else {
            return;
        };
        let terms = self.terms.of_pod(&entry.is, self.pods.labels_of(entry.is.namespace));
        if let Some(entry) = self.pods.entry_mut(number) {
            entry.terms = terms;
        }
        self.dirty_pods.insert(number);
    }

    /// Finds out whose subject a new pod is.
    fn find_policies(&mut self, number: PodNo) {
        let Some(entry) = self.pods.entry(number).filter(|entry| entry.is.may_be_subject()) else { return };
        let policies = self.policies.selecting(&entry.is);
        for policy in &policies {
            self.count_subjects(*policy, 1);
        }
        if let Some(entry) = self.pods.entry_mut(number) {
            entry.policies = policies;
        }
    }

    fn set_policy(&mut self, policy: Policy) {
        let number = match self.policies.number(&policy.id, &self.texts) {
            Some(number) => {
                if self.policies.entry(number).is_some_and(|entry| entry.policy == policy) {
                    return;
                }
                let before = self.subjects_of(number);
                self.policies.replace(number, policy, &mut self.texts);
                self.recompile(number);
                self.move_subjects(number, &before);
                number
            }
            None => {
                let number = self.policies.insert(policy, &mut self.texts);
                self.move_subjects(number, &BTreeSet::new());
                number
            }
        };
        self.dirty_pods.extend(self.subjects_of(number));
    }

    fn remove_policy(&mut self, id: &PolicyId) {
        let Some(number) = self.policies.number(id, &self.texts) else { return };
        for pod in self.subjects_of(number) {
            self.unlink(number, pod);
        }
        self.policies.remove(number, &mut self.texts);
    }

    /// The pods of our scope that a policy selects.
    fn subjects_of(&self, number: PolicyNo) -> BTreeSet<PodNo> {
        let Some(entry) = self.policies.entry(number) else { return BTreeSet::new() };
        let is_ours = |pod: &PodNo| self.pods.entry(*pod).is_some_and(|entry| entry.is.may_be_subject());
        self.pods.matching(&entry.subject).into_iter().filter(is_ours).collect()
    }

    /// Links a policy to the pods that it selects now, and unlinks those that it selected before.
    fn move_subjects(&mut self, number: PolicyNo, before: &BTreeSet<PodNo>) {
        let after = self.subjects_of(number);
        for pod in after.difference(before) {
            if let Some(entry) = self.pods.entry_mut(*pod) {
                entry.set_policy(number, true);
            }
            self.dirty_pods.insert(*pod);
            self.count_subjects(number, 1);
        }
        for pod in before.difference(&after) {
            self.unlink(number, *pod);
        }
    }

    fn unlink(&mut self, number: PolicyNo, pod: PodNo) {
        if let Some(entry) = self.pods.entry_mut(pod) {
            entry.set_policy(number, false);
        }
        self.dirty_pods.insert(pod);
        self.count_subjects(number, -1);
    }

    /// Counts the pods that a policy selects; the first puts it into force, the last out of it.
    fn count_subjects(&mut self, number: PolicyNo, change: isize) {
        let Some(entry) = self.policies.entry_mut(number) else { return };
        entry.subjects = entry.subjects.saturating_add_signed(change);
        match (entry.subjects, entry.compiled.is_some()) {
            (0, true) => {
                let held = entry.compiled.take().map(|compiled| compiled.held).unwrap_or_default();
                self.release(held);
            }
            (1.., false) => self.recompile(number),
            _ => {}
        }
    }

    /// Compiles a policy that is, or comes into, force.
    fn recompile(&mut self, number: PolicyNo) {
        let Some(entry) = self.policies.entry(number) else { return };
        if entry.subjects == 0 {
            return;
        }
        let mut news = Vec::new();
        let terms = &mut self.terms;
        let acquire = |term, texts: &mut Texts| {
            let (id, new) = terms.acquire(term, texts);
            news.extend(new.map(|term| (id, term)));
            id
        };
        let compiled = policies::compile(&entry.policy, &mut self.texts, acquire, &mut self.lists);
        for (id, term) in news {
            self.set_meaning(id, &term, true);
        }
        let old = self.policies.entry_mut(number).and_then(|entry| entry.compiled.replace(compiled));
        self.release(old.map(|old| old.held).unwrap_or_default());
        self.dirty_policies.insert(number);
    }

    /// Notes whom a term means, when somebody begins to use it; with `is_used` false, that nobody uses it any more.
    fn set_meaning(&mut self, id: TermId, term: &Term, is_used: bool) {
        match term {
            Term::Pods(query) => {
                for pod in self.pods.matching(query) {
                    // A pod without own addresses is nobody's peer; taking a term away that it lacks changes nothing.
                    let Some(entry) =
                        self.pods.entry_mut(pod).filter(|e| !is_used || !e.is.addresses.is_empty())
                    else {
                        continue;
                    };
                    entry.set_term(id, is_used);
                    self.dirty_pods.insert(pod);
                }
            }
            Term::Serving(name, protocol) => {
                for pod in self.pods.with_port_name(*name, *protocol) {
                    self.dirty_pods.insert(pod);
                }
            }
            Term::Block(intervals) => {
                let Some(blocks) = self.blocks.get_mut(&intervals.family) else { return };
                for (first, last) in &intervals.parts {
                    if is_used {
                        blocks.partition.add(*first, *last, id);
                    } else {
                        blocks.partition.remove(*first, *last, id);
                    }
                }
            }
        }
    }

    /// Gives up uses of terms, and forgets whom those meant that nobody uses any more.
    fn release(&mut self, held: Held) {
        for id in held.terms {
            if let Some(term) = self.terms.release(id) {
                self.set_meaning(id, &term, false);
                term.release(&mut self.texts);
            }
        }
        held.texts.into_iter().for_each(|text| self.texts.release(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerPort, Labels, Peer, Port, Protocol, Requirement, Rule, Selector, WhichPort};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// A policy with everything in it that holds a text.
    fn policy(value: &str) -> Policy {
        let parse = |operator: &str, values: &[String]| Requirement::parse("key", operator, values);
        let conditions = [("In", vec![value.to_owned(), "b".to_owned()]), ("NotIn", vec!["c".to_owned()])];
        let mut selectors = conditions.map(|(operator, values)| {
            let absent = parse("DoesNotExist", &[]).map(|_| Requirement::equals("app", value));
            Selector::from_iter(parse(operator, &values).into_iter().chain(absent))
        });
        let pods = std::mem::take(&mut selectors[0]);
        let peers = vec![
            Peer::Pods { namespaces: Some(selectors[1].clone()), pods: pods.clone() },
            Peer::Pods { namespaces: None, pods: pods.clone() },
        ];
        let port = |name: &str| Port { protocol: Protocol::Tcp, which: WhichPort::Named(name.to_owned()) };
        let rules = vec![
            Rule { peers, ports: vec![port("web"), port(value)] },
            Rule { peers: vec![], ports: vec![port("web")] },
        ];
        let subject = Selector::from_iter([Requirement::equals("app", "a")]);
        Policy { id: PolicyId::new("x", "p"), subject, ingress: Some(rules.clone()), egress: Some(rules) }
    }

    fn pod(name: &str, app: &str) -> Pod {
        let port =
            |name: &str, number| ContainerPort { name: name.to_owned(), protocol: Protocol::Tcp, number };
        Pod {
            labels: labels(&[("app", app), ("key", "b"), (name, name)]),
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            ports: vec![port("web", 80), port(app, 81)],
            ..Pod::new(PodId::new("x", name), "here")
        }
    }

    #[test]
    fn of_what_is_gone_no_text_is_left() {
        let mut compiler = Compiler::new(Scope::Everything);
        let namespace = |value| Change::Namespace(Namespace::new("x", labels(&[("key", value)])));
        let mut peak = 0;
        for round in ["a", "d", "e"] {
            let changes = [
                namespace(round),
                Change::Policy(policy(round)),
                Change::Pod(pod("p", "a")),
                Change::Pod(pod("q", round)),
                Change::Pod(pod("p", round)),
                namespace("again"),
                Change::Policy(policy("other")),
                Change::Pod(pod("p", round)),
                Change::PodGone(PodId::new("x", "q")),
            ];
            for change in changes {
                compiler.handle_change(change);
                if round != "d" {
                    compiler.poll_delta();
                }
            }
            peak = peak.max(compiler.texts.len());
        }
        assert!(peak > 10, "{peak}");
        compiler.handle_change(Change::NamespaceGone("x".to_owned()));
        compiler.handle_change(Change::NamespaceGone("never".to_owned()));
        compiler.handle_change(Change::PodGone(PodId::new("x", "p")));
        compiler.handle_change(Change::PolicyGone(PolicyId::new("x", "p")));
        compiler.poll_delta();
        assert_eq!(compiler.texts.len(), 0, "{:?}", compiler.texts);
    }
}
