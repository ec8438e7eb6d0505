//! Peer numbers: pods and atoms of blocks that no rule in force tells apart share one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    PeerId,
    compile::terms::TermId,
    few::{Few, members, remove_from},
    number::ByNumber,
};

/// All that the rules in force can see of a peer.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PeerKind {
    /// Terms that mean it, in order.
    pub(super) terms: Vec<TermId>,
    /// Numbers of the named ports that rules ask for, in order; the names are among the terms.
    pub(super) ports: Vec<(TermId, u16)>,
}

/// The kinds in use.
#[derive(Debug, Default)]
pub(super) struct Peers {
    last: u32,
    id_by_kind: ByNumber<Arc<PeerKind>, PeerId>,
    entries: ByNumber<PeerId, (Arc<PeerKind>, usize)>,
    ids_by_term: ByNumber<TermId, Few<PeerId>>,
    unused: BTreeSet<PeerId>,
}

impl Peers {
    /// Counts one more user of a kind. The second part says whether the kind is new.
    pub(super) fn acquire(&mut self, kind: PeerKind) -> (PeerId, bool) {
        if let Some(id) = self.id_by_kind.get(&kind) {
            if let Some((_, users)) = self.entries.get_mut(id) {
                *users += 1;
            }
            return (*id, false);
        }
        self.last += 1;
        let (id, kind) = (PeerId(self.last), Arc::new(kind));
        for term in &kind.terms {
            self.ids_by_term.entry(*term).or_default().insert(id);
        }
        self.id_by_kind.insert(kind.clone(), id);
        self.entries.insert(id, (kind, 1));
        (id, true)
    }

    /// Counts one user less.
    pub(super) fn release(&mut self, id: PeerId) {
        if let Some((_, users)) = self.entries.get_mut(&id) {
            *users -= 1;
            if *users == 0 {
                self.unused.insert(id);
            }
        }
    }

    /// Forgets the kinds that nobody uses, and tells which those are.
    pub(super) fn take_unused(&mut self) -> BTreeMap<PeerId, Arc<PeerKind>> {
        let mut gone = BTreeMap::new();
        for id in std::mem::take(&mut self.unused) {
            if self.entries.get(&id).is_none_or(|(_, users)| *users > 0) {
                continue;
            }
            if let Some((kind, _)) = self.entries.remove(&id) {
                self.id_by_kind.remove(&kind);
                kind.terms.iter().for_each(|term| remove_from(&mut self.ids_by_term, term, &id));
                gone.insert(id, kind);
            }
        }
        gone
    }

    pub(super) fn kind(&self, id: PeerId) -> Option<&Arc<PeerKind>> {
        self.entries.get(&id).map(|(kind, _)| kind)
    }

    pub(super) fn with_term(&self, term: TermId) -> impl Iterator<Item = PeerId> + '_ {
        members(&self.ids_by_term, &term).copied()
    }
}
