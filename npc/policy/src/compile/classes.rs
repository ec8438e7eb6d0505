//! Classes: pods to which the same rules of one direction apply, and what those rules say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    ClassId, Direction, Protocol,
    compile::{PodNo, PolicyNo, content::Content, ports::all_covered, terms::TermId, texts::Text},
    few::{Few, members, remove_from},
    number::ByNumber,
};

/// All that tells one class from another.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ClassKind {
    pub(super) direction: Direction,
    /// The policies that apply, in order.
    pub(super) policies: Vec<PolicyNo>,
    /// For ingress: numbers of those of the pods' own named ports that the policies ask for, in order.
    pub(super) ports: Vec<(Protocol, Text, u16)>,
}

/// A class in use.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) kind: Arc<ClassKind>,
    pub(super) pods: Few<PodNo>,
    pub(super) content: Content,
}

/// The classes in use.
#[derive(Debug, Default)]
pub(super) struct Classes {
    last: u32,
    id_by_kind: ByNumber<Arc<ClassKind>, ClassId>,
    entries: ByNumber<ClassId, Class>,
    ids_by_term: ByNumber<TermId, Few<ClassId>>,
    ids_by_policy: ByNumber<PolicyNo, Few<ClassId>>,
    unused: BTreeSet<ClassId>,
}

impl Classes {
    /// Adds a pod to the class of this kind. The second part says whether the class is new, and without content yet.
    pub(super) fn join(&mut self, kind: ClassKind, pod: PodNo) -> (ClassId, bool) {
        if let Some(id) = self.id_by_kind.get(&kind) {
            if let Some(class) = self.entries.get_mut(id) {
                class.pods.insert(pod);
            }
            return (*id, false);
        }
        self.last += 1;
        let (id, kind) = (ClassId(self.last), Arc::new(kind));
        for policy in &kind.policies {
            self.ids_by_policy.entry(*policy).or_default().insert(id);
        }
        self.id_by_kind.insert(kind.clone(), id);
        let class = Class { kind, pods: Few::One(Some(pod)), content: Content::default() };
        self.entries.insert(id, class);
        (id, true)
    }

    /// Takes a pod out of a class.
    pub(super) fn leave(&mut self, id: ClassId, pod: PodNo) {
        if let Some(class) = self.entries.get_mut(&id) {
            class.pods.remove(&pod);
            if class.pods.is_empty() {
                self.unused.insert(id);
            }
        }
    }

    /// Forgets the classes without pods, and tells which those are.
    pub(super) fn take_unused(&mut self) -> BTreeMap<ClassId, Class> {
        let mut gone = BTreeMap::new();
        for id in std::mem::take(&mut self.unused) {
            if self.entries.get(&id).is_none_or(|class| !class.pods.is_empty()) {
                continue;
            }
            if let Some(class) = self.entries.remove(&id) {
                self.id_by_kind.remove(&class.kind);
                class
                    .kind
                    .policies
                    .iter()
                    .for_each(|policy| remove_from(&mut self.ids_by_policy, policy, &id));
                class.content.terms().for_each(|term| remove_from(&mut self.ids_by_term, &term, &id));
                gone.insert(id, class);
            }
        }
        gone
    }

    pub(super) fn class(&self, id: ClassId) -> Option<&Class> {
        self.entries.get(&id)
    }

    pub(super) fn of_policy(&self, policy: PolicyNo) -> impl Iterator<Item = ClassId> + '_ {
        members(&self.ids_by_policy, &policy).copied()
    }

    pub(super) fn with_term(&self, term: TermId) -> impl Iterator<Item = ClassId> + '_ {
        members(&self.ids_by_term, &term).copied()
    }

    /// Replaces what a class allows, and returns what it allowed.
    pub(super) fn set_content(&mut self, id: ClassId, content: Content) -> Content {
        let Some(class) = self.entries.get_mut(&id) else { return Content::default() };
        for term in class.content.terms().filter(|term| content.get(*term).is_none()) {
            remove_from(&mut self.ids_by_term, &term, &id);
        }
        for term in content.terms() {
            self.ids_by_term.entry(term).or_default().insert(id);
        }
        std::mem::replace(&mut class.content, content)
    }
}

/// Whether something that `old` allows may be missing in `new`.
pub(super) fn has_shrunk(old: &Content, new: &Content) -> bool {
    !old.iter().all(|(term, ports)| all_covered(ports, new.get(term).map_or(&[], |specs| specs)))
}
