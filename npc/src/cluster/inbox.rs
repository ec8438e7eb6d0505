//! What watches said and nobody has looked at yet: the last word about each object.
//!
//! Bounded by how many objects there are, not by how often they change.

use std::collections::{BTreeMap, BTreeSet};

use weave_policy::{Change, PodId, PolicyId, World};

/// A kind of objects that is watched, in the order in which changes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Namespaces.
    Namespaces,
    /// Network policies.
    Policies,
    /// Pods.
    Pods,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Namespaces, Self::Policies, Self::Pods];
}

/// Name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectId {
    Namespace(String),
    Policy(PolicyId),
    Pod(PodId),
}

impl ObjectId {
    /// The object that a change is about.
    pub(crate) fn of(change: &Change) -> Self {
        match change {
            Change::Namespace(namespace) => Self::Namespace(namespace.name().to_owned()),
            Change::NamespaceGone(name) => Self::Namespace(name.clone()),
            Change::Policy(policy) => Self::Policy(policy.id.clone()),
            Change::PolicyGone(id) => Self::Policy(id.clone()),
            Change::Pod(pod) => Self::Pod(pod.id.clone()),
            Change::PodGone(id) => Self::Pod(id.clone()),
        }
    }

    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespaces,
            Self::Policy(_) => Kind::Policies,
            Self::Pod(_) => Kind::Pods,
        }
    }

    /// The change that takes the object away.
    pub(crate) fn gone(self) -> Change {
        match self {
            Self::Namespace(name) => Change::NamespaceGone(name),
            Self::Policy(id) => Change::PolicyGone(id),
            Self::Pod(id) => Change::PodGone(id),
        }
    }
}

/// The last word about each object.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pending: BTreeMap<ObjectId, Change>,
    /// Kinds of which everything was listed at least once.
    listed: BTreeSet<Kind>,
    /// What was in the last complete list of a kind: nothing else that was known before is there any more.
    lists: BTreeMap<Kind, BTreeSet<ObjectId>>,
}

impl Inbox {
    /// Takes a change in, in place of what was waiting about its object.
    pub(crate) fn put(&mut self, change: Change) {
        self.pending.insert(ObjectId::of(&change), change);
    }

    /// A list is complete: what is not in `seen` is gone.
    pub(crate) fn put_list(&mut self, kind: Kind, seen: BTreeSet<ObjectId>) {
        let waiting = self.pending.keys().filter(|id| id.kind() == kind && !seen.contains(id));
        for id in waiting.cloned().collect::<Vec<_>>() {
            self.pending.insert(id.clone(), id.gone());
        }
        self.lists.insert(kind, seen);
        self.listed.insert(kind);
    }

    /// Whether everything of a kind was listed at least once.
    pub(crate) fn is_listed(&self, kind: Kind) -> bool {
        self.listed.contains(&kind)
    }

    /// Takes the changes that lead from `known` to what was said. What goes comes first.
    pub(crate) fn take(&mut self, known: &World) -> Vec<Change> {
        let pending = std::mem::take(&mut self.pending);
        let mut gone = Vec::new();
        for (kind, seen) in std::mem::take(&mut self.lists) {
            let is_gone = |id: &ObjectId| !seen.contains(id) && !pending.contains_key(id);
            gone.extend(names(known, kind).filter(is_gone).map(ObjectId::gone));
        }
        let (more, there): (Vec<Change>, Vec<Change>) = pending.into_values().partition(is_gone);
        gone.into_iter().chain(more).chain(there).collect()
    }
}

const fn is_gone(change: &Change) -> bool {
    matches!(change, Change::NamespaceGone(_) | Change::PolicyGone(_) | Change::PodGone(_))
}

fn names(world: &World, kind: Kind) -> Box<dyn Iterator<Item = ObjectId> + '_> {
    match kind {
        Kind::Namespaces => Box::new(world.namespaces.keys().cloned().map(ObjectId::Namespace)),
        Kind::Policies => Box::new(world.policies.keys().cloned().map(ObjectId::Policy)),
        Kind::Pods => Box::new(world.pods.keys().cloned().map(ObjectId::Pod)),
    }
}

#[cfg(test)]
mod tests {
    use weave_policy::Pod;

    use super::*;

    fn pod(name: &str, node: &str) -> Change {
        Change::Pod(Pod::new(PodId::new("x", name), node))
    }

    fn id(name: &str) -> ObjectId {
        ObjectId::Pod(PodId::new("x", name))
    }

    fn take_into(world: &mut World, inbox: &mut Inbox) {
        inbox.take(world).into_iter().for_each(|change| world.apply(change));
    }

    fn nodes(world: &World) -> Vec<(&str, &str)> {
        world.pods.values().map(|pod| (pod.id.name.as_str(), pod.node.as_str())).collect()
    }

    #[test]
    fn only_the_last_word_about_an_object_counts() {
        let (mut world, mut inbox) = (World::default(), Inbox::default());
        inbox.put(pod("a", "here"));
        inbox.put(id("a").gone());
        inbox.put(pod("a", "there"));
        inbox.put(pod("b", "here"));
        inbox.put(id("b").gone());
        take_into(&mut world, &mut inbox);
        assert_eq!(nodes(&world), [("a", "there")]);
        assert_eq!(inbox.take(&world), []);
    }

    #[test]
    fn what_a_later_list_lacks_is_gone_whether_it_was_told_or_still_waits() {
        let (mut world, mut inbox) = (World::default(), Inbox::default());
        ["told", "stays"].into_iter().for_each(|name| inbox.put(pod(name, "here")));
        take_into(&mut world, &mut inbox);
        inbox.put(pod("waits", "here"));
        // A list, and what happened after it.
        inbox.put(pod("stays", "there"));
        inbox.put_list(Kind::Pods, BTreeSet::from([id("stays")]));
        inbox.put(pod("later", "here"));
        assert!(inbox.is_listed(Kind::Pods) && !inbox.is_listed(Kind::Policies));
        take_into(&mut world, &mut inbox);
        assert_eq!(nodes(&world), [("later", "here"), ("stays", "there")]);
        // An object that was gone in the list and came back after it.
        inbox.put_list(Kind::Pods, BTreeSet::from([id("stays")]));
        inbox.put(pod("later", "there"));
        take_into(&mut world, &mut inbox);
        assert_eq!(nodes(&world), [("later", "there"), ("stays", "there")]);
    }

    #[test]
    fn what_goes_comes_before_what_takes_its_place() {
        let mut inbox = Inbox::default();
        inbox.put(pod("a", "here"));
        inbox.put(id("z").gone());
        inbox.put(Change::NamespaceGone("y".to_owned()));
        assert!(matches!(
            inbox.take(&World::default())[..],
            [Change::NamespaceGone(_), Change::PodGone(_), Change::Pod(_)]
        ));
    }
}
