//! All policies, which pods they select, and what those in force say in terms of peers and ports.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Direction, Peer, Policy, PolicyId, Rule,
    compile::{
        PolicyNo,
        content::{Content, Lists},
        pods::Description,
        ports::PortSpec,
        query::{Query, QueryIndex},
        terms::{Term, TermId},
        texts::{Text, Texts},
    },
    number::ByNumber,
};

/// The policies.
#[derive(Debug, Default)]
pub(super) struct Policies {
    last: u32,
    numbers_by_namespace: ByNumber<Text, BTreeMap<Box<str>, PolicyNo>>,
    entries: ByNumber<PolicyNo, Box<PolicyEntry>>,
    subjects: QueryIndex<PolicyNo>,
}

/// A policy.
#[derive(Debug)]
pub(super) struct PolicyEntry {
    pub(super) policy: Policy,
    /// The pods that it is about. Holds its texts, that of the namespace among them.
    pub(super) subject: Query,
    /// How many pods of our scope it selects. Without any it is not in force.
    pub(super) subjects: usize,
    /// What it says, as long as it is in force.
    pub(super) compiled: Option<Compiled>,
}

/// What a policy says.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    /// If it speaks about ingress.
    ingress: Option<Content>,
    /// If it speaks about egress.
    egress: Option<Content>,
    /// What has to be released when it says that no more.
    pub(super) held: Held,
}

/// Every use of a term, and of a text in a port.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) terms: Vec<TermId>,
    pub(super) texts: Vec<Text>,
}

impl Compiled {
    /// What it says about a direction, if it speaks about that.
    pub(super) const fn content(&self, direction: Direction) -> Option<&Content> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

impl Policies {
    pub(super) fn number(&self, id: &PolicyId, texts: &Texts) -> Option<PolicyNo> {
        let namespace = texts.find(&id.namespace)?;
        self.numbers_by_namespace.get(&namespace)?.get(id.name.as_str()).copied()
    }

    pub(super) fn entry(&self, policy: PolicyNo) -> Option<&PolicyEntry> {
        self.entries.get(&policy).map(|entry| &**entry)
    }

    pub(super) fn entry_mut(&mut self, policy: PolicyNo) -> Option<&mut PolicyEntry> {
        self.entries.get_mut(&policy).map(|entry| &mut **entry)
    }

    pub(super) fn insert(&mut self, policy: Policy, texts: &mut Texts) -> PolicyNo {
        self.last += 1;
        let number = PolicyNo(self.last);
        let subject = subject(&policy, texts);
        self.subjects.insert(number, &subject);
        // For as long as the policy is there.
        let namespace = texts.acquire(&policy.id.namespace);
        let numbers = self.numbers_by_namespace.entry(namespace).or_default();
        numbers.insert(policy.id.name.as_str().into(), number);
        self.entries.insert(number, Box::new(PolicyEntry { policy, subject, subjects: 0, compiled: None }));
        number
    }

    /// Replaces what is known under a number.
    pub(super) fn replace(&mut self, number: PolicyNo, policy: Policy, texts: &mut Texts) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if entry.policy.subject != policy.subject {
            let new = subject(&policy, texts);
            self.subjects.remove(number, &entry.subject);
            self.subjects.insert(number, &new);
            std::mem::replace(&mut entry.subject, new).release(texts);
        }
        entry.policy = policy;
    }

    pub(super) fn remove(&mut self, number: PolicyNo, texts: &mut Texts) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.subjects.remove(number, &entry.subject);
        entry.subject.release(texts);
        let PolicyId { namespace, name } = &entry.policy.id;
        let Some(namespace) = texts.find(namespace) else { return };
        if let Some(numbers) = self.numbers_by_namespace.get_mut(&namespace) {
            numbers.remove(name.as_str());
            if numbers.is_empty() {
                self.numbers_by_namespace.remove(&namespace);
            }
        }
        texts.release(namespace);
    }

    /// The policies whose subject the pod is, in order.
    pub(super) fn selecting(&self, pod: &Description) -> Vec<PolicyNo> {
        let mut found = self.subjects.candidates(pod, None);
        found.retain(|number| self.entry(*number).is_some_and(|entry| entry.subject.matches(pod, None)));
        found
    }
}

/// The pods that a policy is about.
fn subject(policy: &Policy, texts: &mut Texts) -> Query {
    Query::new(&policy.id.namespace, None, &policy.subject, texts)
}

/// Says what `policy` says with terms, which `acquire` gives numbers.
pub(super) fn compile(
    policy: &Policy,
    texts: &mut Texts,
    mut acquire: impl FnMut(Term, &mut Texts) -> TermId,
    lists: &mut Lists,
) -> Compiled {
    let mut held = Held::default();
    let [ingress, egress] = Direction::ALL.map(|direction| {
        let mut content = BTreeMap::new();
        for rule in policy.rules(direction)? {
            add_rule(&mut content, &mut held, (policy, direction, rule), texts, &mut acquire);
        }
        Some(Content::new(content, lists))
    });
    Compiled { ingress, egress, held }
}

fn add_rule(
    content: &mut BTreeMap<TermId, BTreeSet<PortSpec>>,
    held: &mut Held,
    (policy, direction, rule): (&Policy, Direction, &Rule),
    texts: &mut Texts,
    acquire: &mut impl FnMut(Term, &mut Texts) -> TermId,
) {
    let ports = PortSpec::of_rule(&rule.ports, texts, &mut held.texts);
    // A name is looked up in the destination: for ingress in the subject, which the class resolves; for egress in the
    // peer, which has to be a pod that serves it.
    let (named, numbered): (BTreeSet<_>, BTreeSet<_>) =
        ports.into_iter().partition(|spec| direction == Direction::Egress && spec.is_named());
    let mut hold = |term, texts: &mut Texts| {
        let id = acquire(term, texts);
        held.terms.push(id);
        id
    };
    let mut serving_by_port = BTreeMap::new();
    for spec in &named {
        if let PortSpec::Named(protocol, name) = spec {
            texts.acquire_again(*name);
            serving_by_port.insert(*spec, hold(Term::Serving(*name, *protocol), texts));
        }
    }
    let mut allow = |term, ports: &BTreeSet<PortSpec>| {
        if !ports.is_empty() {
            content.entry(term).or_default().extend(ports);
        }
    };
    if rule.peers.is_empty() {
        allow(TermId::EVERYBODY, &numbered);
        for (spec, term) in serving_by_port {
            allow(term, &BTreeSet::from([spec]));
        }
        return;
    }
    for peer in &rule.peers {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let query = Query::new(&policy.id.namespace, namespaces.as_ref(), pods, texts);
                let term = hold(Term::Pods(query.into()), texts);
                allow(term, &numbered);
                allow(term, &named);
            }
            Peer::Block(block) => allow(hold(Term::Block(block.intervals().into()), texts), &numbered),
        }
    }
}
