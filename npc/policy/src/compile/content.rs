//! What rules say: lists of ports, by peers. Most say the same as many others, and share it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Ports,
    compile::{ports::PortSpec, terms::TermId},
};

/// Ports, in order, each once.
pub(super) type Specs = Arc<[PortSpec]>;

/// What rules allow: ports by peers, in order of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content(Arc<[(TermId, Specs)]>);

impl Default for Content {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl Content {
    /// What `ports_by_term` says, where it says anything.
    pub(super) fn new(ports_by_term: BTreeMap<TermId, BTreeSet<PortSpec>>, lists: &mut Lists) -> Self {
        let entries = ports_by_term.into_iter().filter(|(_, ports)| !ports.is_empty());
        Self(entries.map(|(term, ports)| (term, lists.specs(ports))).collect())
    }

    /// The ports of a peer; none if nothing is said about it.
    pub(super) fn get(&self, term: TermId) -> Option<&Specs> {
        let at = self.0.binary_search_by_key(&term, |(term, _)| *term).ok()?;
        self.0.get(at).map(|(_, specs)| specs)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TermId, &Specs)> {
        self.0.iter().map(|(term, specs)| (*term, specs))
    }

    /// The peers about which something is said.
    pub(super) fn terms(&self) -> impl Iterator<Item = TermId> {
        self.0.iter().map(|(term, _)| *term)
    }

    /// All ports, peer by peer.
    pub(super) fn ports(&self) -> impl Iterator<Item = &PortSpec> {
        self.0.iter().flat_map(|(_, specs)| specs.iter())
    }
}

/// Lists that are in use, each once.
#[derive(Debug, Default)]
pub(super) struct Lists {
    specs: BTreeSet<Specs>,
    /// What they are for the kernel, where no number of a range is needed for that.
    facts: BTreeMap<Specs, Arc<[Ports]>>,
    /// How many there were when it was last looked which are still in use.
    kept: usize,
}

impl Lists {
    /// The list of these ports.
    pub(super) fn specs(&mut self, ports: BTreeSet<PortSpec>) -> Specs {
        let list: Specs = ports.into_iter().collect();
        if let Some(known) = self.specs.get(&list) {
            return known.clone();
        }
        self.forget_unused();
        self.specs.insert(list.clone());
        list
    }

    /// What `specs` is for the kernel, if that is known.
    pub(super) fn facts(&self, specs: &Specs) -> Option<Arc<[Ports]>> {
        self.facts.get(specs).cloned()
    }

    /// Keeps what `specs` is for the kernel, which nothing may ever change.
    pub(super) fn keep_facts(&mut self, specs: &Specs, facts: &Arc<[Ports]>) {
        self.facts.insert(specs.clone(), facts.clone());
    }

    /// Looks from time to time which lists are still in use.
    fn forget_unused(&mut self) {
        const FEW: usize = 256;
        if self.specs.len() < FEW + 2 * self.kept {
            return;
        }
        self.facts.retain(|specs, _| Arc::strong_count(specs) > 2);
        self.specs.retain(|specs| Arc::strong_count(specs) > 1);
        self.kept = self.specs.len();
    }
}
