//! What rules say about ports, and the numbers of port ranges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Element, Port, Ports, Protocol, RangeId, WhichPort,
    compile::{
        RowKey,
        texts::{Text, Texts},
    },
    few::{Few, members, remove_from},
    number::ByNumber,
    partition::Partition,
};

/// Ports as a rule has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortSpec {
    All,
    Protocol(Protocol),
    /// From the first to the last; alike for a single port.
    Numbers(Protocol, u16, u16),
    Named(Protocol, Text),
}

impl PortSpec {
    /// The ports of a rule; none means all. Uses of texts are added to `held`.
    pub(super) fn of_rule(ports: &[Port], texts: &mut Texts, held: &mut Vec<Text>) -> BTreeSet<Self> {
        if ports.is_empty() {
            return BTreeSet::from([Self::All]);
        }
        let of_port = |port: &Port| match &port.which {
            WhichPort::Any => Self::Protocol(port.protocol),
            WhichPort::Numbers { first, last } => Self::Numbers(port.protocol, *first, *last),
            WhichPort::Named(name) => {
                let name = texts.acquire(name);
                held.push(name);
                Self::Named(port.protocol, name)
            }
        };
        ports.iter().map(of_port).collect()
    }

    pub(super) const fn is_named(&self) -> bool {
        matches!(self, Self::Named(..))
    }

    /// Whether everything in `other` is in `self`, by what both say alone.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Protocol(p), Self::Protocol(q) | Self::Numbers(q, ..) | Self::Named(q, _)) => p == q,
            (Self::Numbers(p, a, b), Self::Numbers(q, c, d)) => p == q && a <= c && d <= b,
            (Self::Named(..), Self::Named(..)) => self == other,
            _ => false,
        }
    }
}

/// Whether everything in `old` is surely in `new` too.
pub(super) fn all_covered(old: &[PortSpec], new: &[PortSpec]) -> bool {
    old.iter().all(|spec| new.binary_search(spec).is_ok() || new.iter().any(|other| other.covers(spec)))
}

/// A range that some class uses. Never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Member(u32);

/// The ranges in use, cut into atoms.
#[derive(Debug)]
pub(super) struct Ranges {
    last_member: u32,
    last_id: u32,
    members: BTreeMap<(Protocol, u16, u16), (Member, usize)>,
    partitions: BTreeMap<Protocol, Partition<Member>>,
    /// The number of a set of members, and how many atoms have it.
    ids: BTreeMap<(Protocol, BTreeSet<Member>), (RangeId, usize)>,
    ids_by_member: ByNumber<Member, Few<RangeId>>,
    rows_by_member: ByNumber<Member, Few<RowKey>>,
    published: BTreeMap<(Protocol, u128), (u128, RangeId, BTreeSet<Member>)>,
}

impl Default for Ranges {
    fn default() -> Self {
        let partition = |protocol| (protocol, Partition::new(u128::from(u16::MAX)));
        Self {
            last_member: 0,
            last_id: 0,
            members: BTreeMap::new(),
            partitions: Protocol::ALL.map(partition).into(),
            ids: BTreeMap::new(),
            ids_by_member: ByNumber::default(),
            rows_by_member: ByNumber::default(),
            published: BTreeMap::new(),
        }
    }
}

impl Ranges {
    /// Counts one more user of the ranges among `specs`.
    pub(super) fn acquire<'a>(&mut self, specs: impl Iterator<Item = &'a PortSpec>) {
        for key in specs.filter_map(range) {
            let last = &mut self.last_member;
            let partition = self.partitions.get_mut(&key.0);
            let (_, users) = self.members.entry(key).or_insert_with(|| {
                *last += 1;
                if let Some(partition) = partition {
                    partition.add(u128::from(key.1), u128::from(key.2), Member(*last));
                }
                (Member(*last), 0)
            });
            *users += 1;
        }
    }

    /// Counts one user less of them.
    pub(super) fn release<'a>(&mut self, specs: impl Iterator<Item = &'a PortSpec>) {
        for key in specs.filter_map(range) {
            let Some((member, users)) = self.members.get_mut(&key) else { continue };
            *users -= 1;
            if *users == 0 {
                let member = *member;
                self.members.remove(&key);
                self.rows_by_member.remove(&member);
                if let Some(partition) = self.partitions.get_mut(&key.0) {
                    partition.remove(u128::from(key.1), u128::from(key.2), member);
                }
            }
        }
    }

    /// Brings numbers up to date: the elements that go and come, and the rows that have to be looked at again.
    pub(super) fn publish(&mut self, remove: &mut Vec<Element>, add: &mut Vec<Element>) -> BTreeSet<RowKey> {
        let mut changed = BTreeSet::new();
        for protocol in Protocol::ALL {
            let Some(partition) = self.partitions.get_mut(&protocol) else { continue };
            let touched = partition.take_touched();
            for start in touched {
                let atom = self.partitions.get(&protocol).and_then(|partition| partition.atom(start));
                let wanted = atom.map(|atom| (atom.last, atom.members.clone()));
                let old = self.published.remove(&(protocol, start));
                if let Some((old_last, id, old_members)) = &old
                    && wanted
                        .as_ref()
                        .is_some_and(|(last, members)| last == old_last && members == old_members)
                {
                    self.published.insert((protocol, start), (*old_last, *id, old_members.clone()));
                    continue;
                }
                if let Some((last, members)) = wanted {
                    let id = self.count_atom(protocol, &members, &mut changed);
                    add.push(element(protocol, start, last, id));
                    self.published.insert((protocol, start), (last, id, members));
                }
                if let Some((last, id, members)) = old {
                    remove.push(element(protocol, start, last, id));
                    self.discount_atom(protocol, &members, id, &mut changed);
                }
            }
        }
        changed.iter().flat_map(|member| members(&self.rows_by_member, member)).copied().collect()
    }

    fn count_atom(
        &mut self,
        protocol: Protocol,
        members: &BTreeSet<Member>,
        changed: &mut BTreeSet<Member>,
    ) -> RangeId {
        if let Some((id, atoms)) = self.ids.get_mut(&(protocol, members.clone())) {
            *atoms += 1;
            return *id;
        }
        self.last_id += 1;
        let id = RangeId(self.last_id);
        self.ids.insert((protocol, members.clone()), (id, 1));
        for member in members {
            self.ids_by_member.entry(*member).or_default().insert(id);
        }
        changed.extend(members);
        id
    }

    fn discount_atom(
        &mut self,
        protocol: Protocol,
        members: &BTreeSet<Member>,
        id: RangeId,
        changed: &mut BTreeSet<Member>,
    ) {
        let key = (protocol, members.clone());
        let Some((_, atoms)) = self.ids.get_mut(&key) else { return };
        *atoms -= 1;
        if *atoms == 0 {
            self.ids.remove(&key);
            members.iter().for_each(|member| remove_from(&mut self.ids_by_member, member, &id));
            changed.extend(members);
        }
    }

    /// The facts for `specs`, which are without names, as few as possible; `row` is told when their numbers change.
    pub(super) fn facts(&mut self, row: RowKey, specs: &[PortSpec]) -> Arc<[Ports]> {
        let mut facts = BTreeSet::new();
        for spec in needed(specs) {
            match spec {
                PortSpec::All => _ = facts.insert(Ports::All),
                PortSpec::Protocol(protocol) => _ = facts.insert(Ports::Protocol(*protocol)),
                PortSpec::Numbers(protocol, first, last) if first == last => {
                    facts.insert(Ports::Port(*protocol, *first));
                }
                PortSpec::Numbers(..) => {
                    let member =
                        range(spec).and_then(|key| self.members.get(&key)).map(|(member, _)| *member);
                    if let Some(member) = member {
                        self.rows_by_member.entry(member).or_default().insert(row);
                        let ids = members(&self.ids_by_member, &member);
                        facts.extend(ids.map(|id| Ports::Range(*id)));
                    }
                }
                // Resolved before; a name that is left means nothing.
                PortSpec::Named(..) => {}
            }
        }
        facts.into_iter().collect()
    }

    /// Forgets what [`Self::facts`] noted for `row`.
    pub(super) fn forget(&mut self, row: RowKey, specs: &[PortSpec]) {
        for key in specs.iter().filter_map(range) {
            if let Some((member, _)) = self.members.get(&key) {
                remove_from(&mut self.rows_by_member, member, &row);
            }
        }
    }
}

/// `specs` without those that others cover.
fn needed(specs: &[PortSpec]) -> impl Iterator<Item = &PortSpec> {
    // A rule may list thousands of ports; what can cover them is few.
    let wide: Vec<&PortSpec> = specs
        .iter()
        .filter(|spec| matches!(spec, PortSpec::All | PortSpec::Protocol(_)) || range(spec).is_some())
        .collect();
    specs.iter().filter(move |spec| !wide.iter().any(|other| other != spec && other.covers(spec)))
}

/// Whether any of them is a range, whose numbers in the kernel may change.
pub(super) fn has_ranges(specs: &[PortSpec]) -> bool {
    specs.iter().any(|spec| range(spec).is_some())
}

fn range(spec: &PortSpec) -> Option<(Protocol, u16, u16)> {
    match spec {
        PortSpec::Numbers(protocol, first, last) if first < last => Some((*protocol, *first, *last)),
        PortSpec::All | PortSpec::Protocol(_) | PortSpec::Numbers(..) | PortSpec::Named(..) => None,
    }
}

fn element(protocol: Protocol, first: u128, last: u128, range: RangeId) -> Element {
    let port = |number| u16::try_from(number).unwrap_or(u16::MAX);
    Element::Range { protocol, first: port(first), last: port(last), range }
}
