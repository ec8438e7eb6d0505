//! All policies, which pods they select, and what those in force say in terms of peers and ports.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Direction, Peer, Pod, Policy, PolicyId, Rule,
    compile::{
        PolicyNo,
        content::{Content, Lists},
        ports::PortSpec,
        query::{Query, QueryIndex, Within},
        terms::{Term, TermId},
    },
};

/// The policies.
#[derive(Debug, Default)]
pub(super) struct Policies {
    last: u32,
    number_by_id: BTreeMap<PolicyId, PolicyNo>,
    entries: BTreeMap<PolicyNo, Box<PolicyEntry>>,
    subjects: QueryIndex<PolicyNo>,
}

/// A policy.
#[derive(Debug)]
pub(super) struct PolicyEntry {
    pub(super) policy: Policy,
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
    /// Every use of a term, to be released.
    pub(super) held: Vec<TermId>,
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
    pub(super) fn number(&self, id: &PolicyId) -> Option<PolicyNo> {
        self.number_by_id.get(id).copied()
    }

    pub(super) fn entry(&self, policy: PolicyNo) -> Option<&PolicyEntry> {
        self.entries.get(&policy).map(|entry| &**entry)
    }

    pub(super) fn entry_mut(&mut self, policy: PolicyNo) -> Option<&mut PolicyEntry> {
        self.entries.get_mut(&policy).map(|entry| &mut **entry)
    }

    pub(super) fn insert(&mut self, policy: Policy) -> PolicyNo {
        self.last += 1;
        let number = PolicyNo(self.last);
        self.subjects.insert(number, &subject(&policy));
        self.number_by_id.insert(policy.id.clone(), number);
        self.entries.insert(number, Box::new(PolicyEntry { policy, subjects: 0, compiled: None }));
        number
    }

    /// Replaces what is known under a number, and returns what was.
    pub(super) fn replace(&mut self, number: PolicyNo, policy: Policy) -> Option<Policy> {
        let entry = self.entries.get_mut(&number)?;
        if entry.policy.subject != policy.subject {
            self.subjects.remove(number, &subject(&entry.policy));
            self.subjects.insert(number, &subject(&policy));
        }
        Some(std::mem::replace(&mut entry.policy, policy))
    }

    pub(super) fn remove(&mut self, number: PolicyNo) -> Option<PolicyEntry> {
        let entry = *self.entries.remove(&number)?;
        self.number_by_id.remove(&entry.policy.id);
        self.subjects.remove(number, &subject(&entry.policy));
        Some(entry)
    }

    /// The policies whose subject the pod is.
    pub(super) fn selecting<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = PolicyNo> + 'a {
        self.subjects.candidates(pod, None).into_iter().filter(move |number| {
            self.entry(*number).is_some_and(|entry| subject(&entry.policy).matches(pod, None))
        })
    }
}

/// The pods that a policy is about.
pub(super) fn subject(policy: &Policy) -> Query {
    Query { within: Within::Namespace(policy.id.namespace.clone()), pods: policy.subject.clone() }
}

/// Says what `policy` says with terms, which `acquire` gives numbers.
pub(super) fn compile(
    policy: &Policy,
    mut acquire: impl FnMut(Term) -> TermId,
    lists: &mut Lists,
) -> Compiled {
    let mut held = Vec::new();
    let [ingress, egress] = [Direction::Ingress, Direction::Egress].map(|direction| {
        let mut content = BTreeMap::new();
        for rule in policy.rules(direction)? {
            add_rule(&mut content, &mut held, policy, direction, rule, &mut acquire);
        }
        Some(Content::new(content, lists))
    });
    Compiled { ingress, egress, held }
}

fn add_rule(
    content: &mut BTreeMap<TermId, BTreeSet<PortSpec>>,
    held: &mut Vec<TermId>,
    policy: &Policy,
    direction: Direction,
    rule: &Rule,
    acquire: &mut impl FnMut(Term) -> TermId,
) {
    let ports = PortSpec::of_rule(&rule.ports);
    // A name is looked up in the destination: for ingress in the subject, which the class resolves; for egress in the
    // peer, which has to be a pod that serves it.
    let (named, numbered): (BTreeSet<_>, BTreeSet<_>) =
        ports.into_iter().partition(|spec| direction == Direction::Egress && spec.is_named());
    let mut hold = |term| {
        let id = acquire(term);
        held.push(id);
        id
    };
    let serving = |spec: &PortSpec| match spec {
        PortSpec::Named(protocol, name) => Some(Term::Serving(name.clone(), *protocol)),
        PortSpec::All | PortSpec::Protocol(_) | PortSpec::Numbers(..) => None,
    };
    let mut serving_by_port = BTreeMap::new();
    for spec in &named {
        serving_by_port.extend(serving(spec).map(|term| (spec.clone(), hold(term))));
    }
    let mut allow = |term, ports: &BTreeSet<PortSpec>| {
        if !ports.is_empty() {
            content.entry(term).or_default().extend(ports.iter().cloned());
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
                let within = match namespaces {
                    None => Within::Namespace(policy.id.namespace.clone()),
                    Some(selector) => Within::Namespaces(selector.clone()),
                };
                let term = hold(Term::Pods(Query { within, pods: pods.clone() }));
                allow(term, &numbered);
                allow(term, &named);
            }
            Peer::Block(block) => allow(hold(Term::Block(block.intervals())), &numbered),
        }
    }
}
