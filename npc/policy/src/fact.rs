//! What the kernel is told: elements of the sets and maps of a program that never changes.
//!
//! | table | key | value |
//! |---|---|---|
//! | peers | address | peer number of a pod |
//! | blocks | interval of addresses | peer number of those addresses |
//! | classes, one for each direction | address | class of an isolated pod of this node |
//! | ranges | protocol, interval of ports | number of those ports |
//! | rows | class, peer number | |
//! | allows | class, peer number, ports | |
//!
//! A connection in one direction: the class of the subject (none: it passes), then one look-up of a row for each of at
//! most three peer numbers of the other end (everybody, its pod, its block), and for a row that is there one of an
//! `allow` for each of four ways to say which ports. One that is there lets it pass; policies only ever allow (NP-04).
//! Numbers are never used again for something else.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Direction, Family, Flow, Protocol, Traffic, Verdict};

/// Everything at the other end that the rules of this node do not tell apart. 0 is everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// Pods of this node to which the same rules of one direction apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

/// Ports of one protocol that no range of this node tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(pub u32);

impl PeerId {
    /// Whoever it is.
    pub const EVERYBODY: Self = Self(0);
}

/// An element of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A pod has this address.
    Peer {
        /// Key.
        address: IpAddr,
        /// Value.
        peer: PeerId,
    },
    /// These addresses are in the same blocks.
    Block {
        /// Key: the lowest.
        first: IpAddr,
        /// Key: the highest, of the same family.
        last: IpAddr,
        /// Value.
        peer: PeerId,
    },
    /// A pod of this node is isolated.
    Class {
        /// Which table.
        direction: Direction,
        /// Key.
        address: IpAddr,
        /// Value.
        class: ClassId,
    },
    /// These ports are in the same ranges.
    Range {
        /// Key.
        protocol: Protocol,
        /// Key: the lowest.
        first: u16,
        /// Key: the highest.
        last: u16,
        /// Value.
        range: RangeId,
    },
    /// A class may talk to a peer by some ports: there are elements that say which.
    Row {
        /// The subject.
        class: ClassId,
        /// The other end.
        peer: PeerId,
    },
    /// A class may talk to a peer.
    Allow {
        /// The subject.
        class: ClassId,
        /// The other end.
        peer: PeerId,
        /// Where to.
        ports: Ports,
    },
}

/// The ports of an [`Element::Allow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// All protocols, those without ports too.
    All,
    /// All ports of a protocol.
    Protocol(Protocol),
    /// Those with this number.
    Range(RangeId),
    /// One port.
    Port(Protocol, u16),
}

/// A set of elements, as small and as quickly made as can be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements(Vec<Element>);

impl Elements {
    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Element> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, element: &Element) -> bool {
        self.0.binary_search(element).is_ok()
    }

    fn into_set(self) -> BTreeSet<Element> {
        self.0.into_iter().collect()
    }
}

impl From<Vec<Element>> for Elements {
    fn from(mut elements: Vec<Element>) -> Self {
        elements.sort_unstable();
        elements.dedup();
        Self(elements)
    }
}

impl FromIterator<Element> for Elements {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        elements.into_iter().collect::<Vec<_>>().into()
    }
}

impl<'a> IntoIterator for &'a Elements {
    type Item = &'a Element;
    type IntoIter = std::slice::Iter<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A set of changes that belong together: either all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Elements that go. All of them are there.
    pub remove: Elements,
    /// Elements that come, when the others have gone.
    pub add: Elements,
    /// Addresses of which a connection that was allowed may be so no longer: those that are established and have such an
    /// address at one end must be judged anew.
    pub rejudge: BTreeSet<IpAddr>,
}

impl Delta {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty() && self.rejudge.is_empty()
    }

    /// This change, and then `later`, as one.
    #[must_use]
    pub fn then(mut self, later: &Self) -> Self {
        let (mut remove, mut add) = (self.remove.into_set(), self.add.into_set());
        for element in &later.remove {
            if !add.remove(element) {
                remove.insert(*element);
            }
        }
        for element in &later.add {
            if !remove.remove(element) {
                add.insert(*element);
            }
        }
        self.rejudge.extend(&later.rejudge);
        Self { remove: remove.into_iter().collect(), add: add.into_iter().collect(), ..self }
    }
}

/// All elements, and what the program does with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(BTreeSet<Element>);

/// A delta that does not fit what is there. Our mistake; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It takes away what is not there.
    #[error("{0:?} is not there to be removed")]
    Missing(Element),
    /// It adds what is there, with the same or another value, or overlaps it.
    #[error("{new:?} collides with {old:?}")]
    Collision {
        /// What was to be added.
        new: Element,
        /// What is there.
        old: Element,
    },
}

impl Facts {
    /// The elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Element> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Carries out a delta, as strictly as the kernel does.
    ///
    /// # Errors
    /// [`Misfit`]; nothing was changed then.
    pub fn apply(&mut self, delta: &Delta) -> Result<(), Misfit> {
        if let Some(missing) = delta.remove.iter().find(|element| !self.0.contains(element)) {
            return Err(Misfit::Missing(*missing));
        }
        delta.remove.iter().for_each(|element| _ = self.0.remove(element));
        let mut added = Vec::new();
        for new in &delta.add {
            if let Some(old) = self.collision(new) {
                added.iter().for_each(|element| _ = self.0.remove(element));
                self.0.extend(&delta.remove);
                return Err(Misfit::Collision { new: *new, old });
            }
            self.0.insert(*new);
            added.push(*new);
        }
        Ok(())
    }

    /// What leads from `self` to `wanted`, without a word about established connections.
    #[must_use]
    pub fn difference(&self, wanted: &Self) -> Delta {
        Delta {
            remove: self.0.difference(&wanted.0).copied().collect(),
            add: wanted.0.difference(&self.0).copied().collect(),
            rejudge: BTreeSet::new(),
        }
    }

    /// The program: what the kernel does with the first packet of a connection.
    #[must_use]
    pub fn verdict(&self, flow: &Flow) -> Verdict {
        let sides = [
            (Direction::Egress, flow.source, flow.destination),
            (Direction::Ingress, flow.destination, flow.source),
        ];
        for (direction, subject, other) in sides {
            if let Some(class) = self.class(direction, subject) {
                let peers = [Some(PeerId::EVERYBODY), self.pod(other), self.block(other)];
                if !peers.into_iter().flatten().any(|peer| self.allows(class, peer, flow.traffic)) {
                    return Verdict::Denied(direction);
                }
            }
        }
        Verdict::Allowed
    }

    /// The class of an isolated pod.
    #[must_use]
    pub fn class(&self, direction: Direction, address: IpAddr) -> Option<ClassId> {
        let at = |class| Element::Class { direction, address, class: ClassId(class) };
        let found = self.0.range(at(0)..=at(u32::MAX)).next()?;
        if let Element::Class { class, .. } = found { Some(*class) } else { None }
    }

    fn pod(&self, address: IpAddr) -> Option<PeerId> {
        let at = |peer| Element::Peer { address, peer: PeerId(peer) };
        let found = self.0.range(at(0)..=at(u32::MAX)).next()?;
        if let Element::Peer { peer, .. } = found { Some(*peer) } else { None }
    }

    fn block(&self, address: IpAddr) -> Option<PeerId> {
        let last = Family::of(address).address(Family::of(address).last());
        let end = Element::Block { first: address, last, peer: PeerId(u32::MAX) };
        let Element::Block { first, last, peer } = self.0.range(..=end).next_back()? else { return None };
        (first.is_ipv4() == address.is_ipv4() && *last >= address).then_some(*peer)
    }

    fn range(&self, protocol: Protocol, port: u16) -> Option<RangeId> {
        let end = Element::Range { protocol, first: port, last: u16::MAX, range: RangeId(u32::MAX) };
        let before = self.0.range(..=end).next_back()?;
        let Element::Range { protocol: found, last, range, .. } = before else { return None };
        (*found == protocol && *last >= port).then_some(*range)
    }

    fn allows(&self, class: ClassId, peer: PeerId, traffic: Traffic) -> bool {
        let has = |ports| self.0.contains(&Element::Allow { class, peer, ports });
        if !self.0.contains(&Element::Row { class, peer }) {
            return false;
        }
        has(Ports::All)
            || match traffic {
                Traffic::Other(_) => false,
                Traffic::To(protocol, port) => {
                    has(Ports::Port(protocol, port))
                        || has(Ports::Protocol(protocol))
                        || self.range(protocol, port).is_some_and(|range| has(Ports::Range(range)))
                }
            }
    }

    /// An element with the same key, or one that overlaps it.
    fn collision(&self, new: &Element) -> Option<Element> {
        let same_key = |low: Element, high: Element| self.0.range(low..=high).next().copied();
        match *new {
            Element::Peer { address, .. } => {
                let at = |peer| Element::Peer { address, peer: PeerId(peer) };
                same_key(at(0), at(u32::MAX))
            }
            Element::Class { direction, address, .. } => {
                let at = |class| Element::Class { direction, address, class: ClassId(class) };
                same_key(at(0), at(u32::MAX))
            }
            Element::Row { .. } | Element::Allow { .. } => self.0.get(new).copied(),
            Element::Block { last: to, .. } => {
                let end =
                    Element::Block { first: to, last: Family::V6.address(u128::MAX), peer: PeerId(u32::MAX) };
                let before = self.0.range(..=end).next_back().copied();
                before.filter(|old| overlaps(old, new))
            }
            Element::Range { protocol, last: to, .. } => {
                let end = Element::Range { protocol, first: to, last: u16::MAX, range: RangeId(u32::MAX) };
                let before = self.0.range(..=end).next_back().copied();
                before.filter(|old| overlaps(old, new))
            }
        }
    }
}

/// Whether two elements of a table of intervals have a key in common.
fn overlaps(a: &Element, b: &Element) -> bool {
    match (a, b) {
        (Element::Block { first: a, last: b, .. }, Element::Block { first: c, last: d, .. }) => {
            a.is_ipv4() == c.is_ipv4() && a <= d && c <= b
        }
        (
            Element::Range { protocol: p, first: a, last: b, .. },
            Element::Range { protocol: q, first: c, last: d, .. },
        ) => p == q && a <= d && c <= b,
        _ => false,
    }
}

impl FromIterator<Element> for Facts {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        Self(elements.into_iter().collect())
    }
}
