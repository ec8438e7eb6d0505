//! What rules in force say about peers: each thing once, with a number, counted by its users.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Protocol,
    block::Intervals,
    compile::{
        pods::Description,
        query::{Label, Query, QueryIndex},
        texts::{Text, Texts},
    },
    number::ByNumber,
};

/// A number for a [`Term`]. Never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TermId(u32);

impl TermId {
    /// Everybody; it is always there, and not a [`Term`].
    pub(super) const EVERYBODY: Self = Self(0);
}

/// A set of peers. Holds its texts until they are released.
#[derive(Debug, Clone)]
pub(super) enum Term {
    /// Pods by labels.
    Pods(Arc<Query>),
    /// Addresses in a block.
    Block(Arc<Intervals>),
    /// Pods that declare a port of this name and protocol.
    Serving(Text, Protocol),
}

impl Term {
    /// Gives up its texts.
    pub(super) fn release(&self, texts: &mut Texts) {
        match self {
            Self::Pods(query) => query.release(texts),
            Self::Block(_) => {}
            Self::Serving(name, _) => texts.release(*name),
        }
    }
}

/// The number of each term.
#[derive(Debug, Default)]
struct Ids {
    pods: ByNumber<Arc<Query>, TermId>,
    blocks: BTreeMap<Arc<Intervals>, TermId>,
    serving: ByNumber<(Text, Protocol), TermId>,
}

impl Ids {
    fn get(&self, term: &Term) -> Option<TermId> {
        let id = match term {
            Term::Pods(query) => self.pods.get(query),
            Term::Block(block) => self.blocks.get(block),
            Term::Serving(name, protocol) => self.serving.get(&(*name, *protocol)),
        };
        id.copied()
    }

    fn insert(&mut self, term: &Term, id: TermId) {
        match term {
            Term::Pods(query) => self.pods.insert(query.clone(), id),
            Term::Block(block) => self.blocks.insert(block.clone(), id),
            Term::Serving(name, protocol) => self.serving.insert((*name, *protocol), id),
        };
    }

    fn remove(&mut self, term: &Term) {
        match term {
            Term::Pods(query) => self.pods.remove(query),
            Term::Block(block) => self.blocks.remove(block),
            Term::Serving(name, protocol) => self.serving.remove(&(*name, *protocol)),
        };
    }
}

/// The terms in use.
#[derive(Debug, Default)]
pub(super) struct Terms {
    last: u32,
    ids: Ids,
    entries: ByNumber<TermId, (Term, usize)>,
    queries: QueryIndex<TermId>,
}

impl Terms {
    /// Counts one more user. The term comes along if this is the first.
    pub(super) fn acquire(&mut self, term: Term, texts: &mut Texts) -> (TermId, Option<Term>) {
        if let Some(id) = self.ids.get(&term) {
            if let Some((_, users)) = self.entries.get_mut(&id) {
                *users += 1;
            }
            term.release(texts);
            return (id, None);
        }
        self.last += 1;
        let id = TermId(self.last);
        if let Term::Pods(query) = &term {
            self.queries.insert(id, query);
        }
        self.ids.insert(&term, id);
        self.entries.insert(id, (term.clone(), 1));
        (id, Some(term))
    }

    /// Counts one user less. The term comes back if that was the last; its texts have to be released.
    pub(super) fn release(&mut self, id: TermId) -> Option<Term> {
        let (_, users) = self.entries.get_mut(&id)?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        let (term, _) = self.entries.remove(&id)?;
        if let Term::Pods(query) = &term {
            self.queries.remove(id, query);
        }
        self.ids.remove(&term);
        Some(term)
    }

    pub(super) fn is_in_use(&self, id: TermId) -> bool {
        self.entries.contains_key(&id)
    }

    /// The term for pods that declare this port, if a rule asks for it.
    pub(super) fn serving(&self, name: Text, protocol: Protocol) -> Option<TermId> {
        self.ids.serving.get(&(name, protocol)).copied()
    }

    /// The terms whose selectors the pod answers to, in order.
    pub(super) fn of_pod(&self, pod: &Description, namespace: Option<&[Label]>) -> Vec<TermId> {
        let mut found = self.queries.candidates(pod, namespace);
        found.retain(|id| {
            let term = self.entries.get(id).map(|(term, _)| term);
            matches!(term, Some(Term::Pods(query)) if query.matches(pod, namespace))
        });
        found
    }
}
