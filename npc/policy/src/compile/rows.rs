//! Rows: what one class may do with one peer. The elements of the largest table.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    ClassId, Element, PeerId, Ports,
    compile::{
        RowKey,
        classes::{Class, Classes},
        content::{Lists, Specs},
        peers::{PeerKind, Peers},
        ports::{PortSpec, Ranges, has_ranges},
        terms::{TermId, Terms},
    },
};

/// The rows that are not empty.
#[derive(Debug, Default)]
pub(super) struct Rows {
    by_key: BTreeMap<RowKey, Row>,
}

#[derive(Debug)]
struct Row {
    specs: Specs,
    /// In order.
    facts: Arc<[Ports]>,
}

impl Rows {
    /// All rows of a class.
    pub(super) fn of_class(&self, class: ClassId) -> impl Iterator<Item = RowKey> + '_ {
        let ends = (class, PeerId(0))..=(class, PeerId(u32::MAX));
        self.by_key.range(ends).map(|(key, _)| *key)
    }

    /// Makes the row be `specs`, and says which elements go and come by that.
    pub(super) fn set(
        &mut self,
        key: RowKey,
        specs: Option<Specs>,
        ranges: &mut Ranges,
        lists: &mut Lists,
        (remove, add): (&mut Vec<Element>, &mut Vec<Element>),
    ) {
        let old = self.by_key.get(&key);
        old.iter().for_each(|old| ranges.forget(key, &old.specs));
        let new = specs.map(|specs| Row { facts: facts(key, &specs, ranges, lists), specs });
        let element = |ports: &Ports| Element::Allow { class: key.0, peer: key.1, ports: *ports };
        let no_facts: &[Ports] = &[];
        let before = old.map_or(no_facts, |row| &row.facts);
        let after = new.as_ref().map_or(no_facts, |row| &row.facts);
        match (before.is_empty(), after.is_empty()) {
            (true, false) => add.push(Element::Row { class: key.0, peer: key.1 }),
            (false, true) => remove.push(Element::Row { class: key.0, peer: key.1 }),
            _ => {}
        }
        let lacks = |facts: &[Ports], ports: &&Ports| facts.binary_search(ports).is_err();
        remove.extend(before.iter().filter(|ports| lacks(after, ports)).map(element));
        add.extend(after.iter().filter(|ports| lacks(before, ports)).map(element));
        match new {
            Some(row) => _ = self.by_key.insert(key, row),
            None => _ = self.by_key.remove(&key),
        }
    }
}

/// What `specs` is for the kernel.
fn facts(key: RowKey, specs: &Specs, ranges: &mut Ranges, lists: &mut Lists) -> Arc<[Ports]> {
    if has_ranges(specs) {
        return ranges.facts(key, specs);
    }
    lists.facts(specs).unwrap_or_else(|| {
        let facts = ranges.facts(key, specs);
        lists.keep_facts(specs, &facts);
        facts
    })
}

/// What the rules of a class say about a peer; nothing if one of them is gone.
pub(super) fn specs(
    (class, peer): RowKey,
    classes: &Classes,
    peers: &Peers,
    terms: &Terms,
    lists: &mut Lists,
) -> Option<Specs> {
    let class = classes.class(class)?;
    if peer == PeerId::EVERYBODY {
        return class.content.get(TermId::EVERYBODY).cloned();
    }
    let kind = peers.kind(peer)?;
    let mut said = kind.terms.iter().filter_map(|term| class.content.get(*term));
    let first = said.next()?;
    let more: Vec<&Specs> = said.filter(|specs| *specs != first).collect();
    if more.is_empty() && !first.iter().any(PortSpec::is_named) {
        return Some(first.clone());
    }
    let mut specs = BTreeSet::new();
    for spec in more.into_iter().chain([first]).flat_map(|specs| specs.iter()) {
        resolve(spec, class, kind, terms, &mut specs);
    }
    (!specs.is_empty()).then(|| lists.specs(specs))
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
            let serving = terms.serving(*name, *protocol);
            let numbers = kind.ports.iter().filter(|(term, _)| Some(*term) == serving);
            specs.extend(numbers.map(|(_, number)| PortSpec::Numbers(*protocol, *number, *number)));
        }
        PortSpec::All | PortSpec::Protocol(_) | PortSpec::Numbers(..) => _ = specs.insert(*spec),
    }
}
