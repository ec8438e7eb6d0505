//! Rows: what one class may do with one peer. The elements of the largest table.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ClassId, Element, PeerId, Ports,
    compile::{
        RowKey,
        classes::{Class, Classes},
        peers::{PeerKind, Peers},
        ports::{PortSpec, Ranges},
        terms::{TermId, Terms},
    },
};

/// The rows that are not empty.
#[derive(Debug, Default)]
pub(super) struct Rows {
    by_key: BTreeMap<RowKey, Row>,
}

#[derive(Debug, Default)]
struct Row {
    /// Sorted. Vectors, because there are many rows and most have one or two entries.
    specs: Vec<PortSpec>,
    facts: Vec<Ports>,
}

impl Rows {
    /// All rows of a class.
    pub(super) fn of_class(&self, class: ClassId) -> impl Iterator<Item = RowKey> + '_ {
        let ends = (class, PeerId(0))..=(class, PeerId(u32::MAX));
        self.by_key.range(ends).map(|(key, _)| *key)
    }

    /// Makes the row be `specs`.
    pub(super) fn set(
        &mut self,
        key: RowKey,
        specs: BTreeSet<PortSpec>,
        ranges: &mut Ranges,
        remove: &mut BTreeSet<Element>,
        add: &mut BTreeSet<Element>,
    ) {
        let old = self.by_key.remove(&key).unwrap_or_default();
        ranges.forget(key, &old.specs);
        let facts = ranges.facts(key, &specs);
        let element = |ports: &Ports| Element::Allow { class: key.0, peer: key.1, ports: *ports };
        remove.extend(old.facts.iter().filter(|ports| !facts.contains(ports)).map(element));
        add.extend(facts.iter().filter(|ports| old.facts.binary_search(ports).is_err()).map(element));
        if !specs.is_empty() {
            let row = Row { specs: specs.into_iter().collect(), facts: facts.into_iter().collect() };
            self.by_key.insert(key, row);
        }
    }
}

/// What the rules of a class say about a peer; nothing if one of them is gone.
pub(super) fn specs(
    (class, peer): RowKey,
    classes: &Classes,
    peers: &Peers,
    terms: &Terms,
) -> BTreeSet<PortSpec> {
    let Some(class) = classes.class(class) else { return BTreeSet::new() };
    if peer == PeerId::EVERYBODY {
        return class.content.get(&TermId::EVERYBODY).cloned().unwrap_or_default();
    }
    let Some(kind) = peers.kind(peer) else { return BTreeSet::new() };
    let mut specs = BTreeSet::new();
    for term in &kind.terms {
        for spec in class.content.get(term).into_iter().flatten() {
            resolve(spec, class, kind, terms, &mut specs);
        }
    }
    specs
}

/// Adds `spec` with names replaced by the peer's port numbers.
fn resolve(spec: &PortSpec, class: &Class, kind: &PeerKind, terms: &Terms, specs: &mut BTreeSet<PortSpec>) {
    match spec {
        PortSpec::Named(protocol, name) => {
            debug_assert_eq!(
                class.kind.direction,
                crate::Direction::Egress,
                "ingress names are resolved before"
            );
            let serving = terms.serving(name, *protocol);
            let numbers = kind.ports.iter().filter(|(term, _)| Some(*term) == serving);
            specs.extend(numbers.map(|(_, number)| PortSpec::Numbers(*protocol, *number, *number)));
        }
        PortSpec::All | PortSpec::Protocol(_) | PortSpec::Numbers(..) => _ = specs.insert(spec.clone()),
    }
}
