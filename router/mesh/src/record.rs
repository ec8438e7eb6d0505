//! What one router says of itself: a small map with one writer, a version for each entry, and a life.
//!
//! A [`Record`] at version *v* holds every entry that its owner wrote up to *v*, or what replaced it. That is what makes
//! merging safe: whatever is not later than *v* is known or superseded, so a late or repeated delta changes nothing, and
//! never brings back what was removed. A delta says from which version on it is complete; one that begins later than
//! *v* is a gap and is not applied, but asked for again.
//!
//! Removals stay as tombstones for a while, for those who are behind. When tombstones are collected, the record's *floor*
//! rises to the last of them; who is behind the floor is sent the whole state, which says by omission what is gone. So
//! collection needs no agreement with anybody, and no clock is compared.
//!
//! A [`Life`] is one run of a router, ordered by incarnation. A record of a later life replaces the earlier one whole.

#[cfg(test)]
mod props;

use std::collections::{BTreeMap, btree_map};

use bytes::Bytes;
use weave_model::{PeerName, Uid};

use crate::link_state::LinkState;

/// The most that a router may publish of itself, in bytes as counted by [`Fact::cost`] and [`Cell::COST`], which are not less
/// than what an entry takes in a message.
pub(crate) const MAX_OWN: usize = 512 << 10;
/// The most that we keep of another router: its own bound and room for its links. A whole record fits one message.
pub(crate) const MAX_RECORD: usize = 832 << 10;

/// One run of a router. Later runs are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Life {
    pub(crate) incarnation: u64,
    /// Short for the run's UID; breaks the tie between two runs that claim one incarnation.
    pub(crate) tag: u32,
}

impl Life {
    pub(crate) const fn new(incarnation: u64, uid: Uid) -> Self {
        Self { incarnation, tag: (uid.0 ^ (uid.0 >> 32)) as u32 }
    }
}

/// How much of a router's record somebody has. Ordered: a later life is more than any version of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Stamp {
    pub(crate) life: Life,
    pub(crate) version: u64,
}

/// A link in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) version: u64,
    pub(crate) state: LinkState,
}

impl Cell {
    /// What a link counts towards [`MAX_RECORD`].
    pub(crate) const COST: usize = 20;
}

/// An entry of a record; without a value it is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) version: u64,
    pub(crate) value: Option<Bytes>,
}

impl Fact {
    /// What the entry counts towards [`MAX_RECORD`].
    pub(crate) fn cost(&self, key: &[u8]) -> usize {
        16 + key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Namespace and key of a fact.
pub(crate) type FactKey = (u8, Bytes);

/// The entries of a record that are later than `from`, up to `to`. With `from` 0 it is the whole state, without tombstones:
/// what is not in it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) peer: PeerName,
    pub(crate) life: Life,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Of the sender's record; only with `from` 0.
    pub(crate) floor: u64,
    pub(crate) links: Vec<(PeerName, Cell)>,
    pub(crate) facts: Vec<(FactKey, Fact)>,
}

/// What a merge did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Links with their states before and after.
    pub(crate) links: Vec<(PeerName, LinkState, LinkState)>,
    /// Facts with their values after.
    pub(crate) facts: Vec<(FactKey, Option<Bytes>)>,
}

/// What became of a delta.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// Nothing in it is new.
    Stale,
    /// It begins later than what we have; ask from [`Record::stamp`].
    Gap,
    /// It would grow the record beyond [`MAX_RECORD`]; nothing was applied.
    TooLarge,
    /// It was applied.
    News(News),
}

/// A router's entries, as far as we know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    life: Life,
    version: u64,
    floor: u64,
    links: BTreeMap<PeerName, Cell>,
    facts: BTreeMap<u8, BTreeMap<Bytes, Fact>>,
    size: usize,
    /// Tombstones up to this version were here at the last collection and go at the next.
    mark: u64,
}

impl Record {
    /// The empty record of a life that begins.
    pub(crate) fn new(life: Life) -> Self {
        Self { life, ..Self::default() }
    }

    pub(crate) const fn stamp(&self) -> Stamp {
        Stamp { life: self.life, version: self.version }
    }

    /// The other end's state in this record; [`LinkState::GONE`] if there is none.
    pub(crate) fn link(&self, to: PeerName) -> LinkState {
        self.links.get(&to).map_or(LinkState::GONE, |cell| cell.state)
    }

    /// Links that are up.
    pub(crate) fn links(&self) -> impl Iterator<Item = (PeerName, LinkState)> {
        self.links.iter().map(|(name, cell)| (*name, cell.state)).filter(|(_, state)| state.is_up())
    }

    pub(crate) fn fact(&self, ns: u8, key: &[u8]) -> Option<&Bytes> {
        self.facts.get(&ns)?.get(key)?.value.as_ref()
    }

    /// Facts of a namespace, without tombstones.
    pub(crate) fn facts(&self, ns: u8) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.facts.get(&ns).into_iter().flatten().filter_map(|(key, fact)| Some((key, fact.value.as_ref()?)))
    }

    /// Facts of all namespaces, without tombstones.
    pub(crate) fn facts_len(&self) -> usize {
        self.facts.values().flat_map(BTreeMap::values).filter(|fact| fact.value.is_some()).count()
    }

    /// All namespaces that ever had a fact.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = u8> {
        self.facts.keys().copied()
    }

    /// As the owner: begins a later life with the same entries.
    pub(crate) const fn rebear(&mut self, life: Life) {
        self.life = life;
    }

    /// As the owner: writes a link. Returns the state before, if it was another.
    pub(crate) fn set_link(&mut self, to: PeerName, state: LinkState) -> Option<LinkState> {
        let before = self.link(to);
        if before == state {
            return None;
        }
        self.version += 1;
        if self.links.insert(to, Cell { version: self.version, state }).is_none() {
            self.size += Cell::COST;
        }
        Some(before)
    }

    /// As the owner: writes or removes a fact. Returns whether that changed anything; `Err` when there is no room.
    pub(crate) fn set_fact(&mut self, ns: u8, key: &[u8], value: Option<Bytes>) -> Result<bool, Merged> {
        if self.fact(ns, key) == value.as_ref() {
            return Ok(false);
        }
        let fact = Fact { version: self.version + 1, value };
        if fact.value.is_some() && self.size + fact.cost(key) > MAX_OWN {
            self.collect_until(self.version);
            if self.size + fact.cost(key) > MAX_OWN {
                return Err(Merged::TooLarge);
            }
        }
        self.version += 1;
        put_fact(&mut self.facts, &mut self.size, (ns, Bytes::copy_from_slice(key)), fact);
        Ok(true)
    }

    /// What somebody lacks who has `have`.
    pub(crate) fn delta(&self, peer: PeerName, have: Stamp) -> Delta {
        let from = if have.life == self.life && have.version >= self.floor { have.version } else { 0 };
        let links = self.links.iter().filter(|(_, c)| c.version > from && (from > 0 || c.state.is_up()));
        let facts =
            self.facts.iter().flat_map(|(ns, facts)| facts.iter().map(|(key, fact)| ((*ns, key), fact)));
        let facts = facts.filter(|(_, f)| f.version > from && (from > 0 || f.value.is_some()));
        Delta {
            peer,
            life: self.life,
            from,
            to: self.version,
            floor: if from == 0 { self.last_tombstone().max(self.floor) } else { 0 },
            links: links.map(|(name, cell)| (*name, *cell)).collect(),
            facts: facts.map(|((ns, key), fact)| ((ns, key.clone()), fact.clone())).collect(),
        }
    }

    /// Takes in what another router passed on.
    pub(crate) fn merge(&mut self, delta: Delta) -> Merged {
        let have = self.stamp();
        if (Stamp { life: delta.life, version: delta.to }) <= have {
            return Merged::Stale;
        }
        if delta.from == 0 {
            return self.replace(delta);
        }
        if delta.life != self.life || delta.from > self.version {
            return Merged::Gap;
        }
        if self.is_too_small_for(&delta) {
            // Our tombstones may be ones that the owner has collected long ago.
            self.collect_until(self.version);
            if self.is_too_small_for(&delta) {
                return Merged::TooLarge;
            }
        }
        let mut news = News::default();
        for (name, cell) in delta.links.into_iter().filter(|(_, cell)| cell.version > have.version) {
            let before = self.link(name);
            if self.links.insert(name, cell).is_none() {
                self.size += Cell::COST;
            }
            if before != cell.state {
                news.links.push((name, before, cell.state));
            }
        }
        for (key, fact) in delta.facts.into_iter().filter(|(_, fact)| fact.version > have.version) {
            if self.fact(key.0, &key.1) != fact.value.as_ref() {
                news.facts.push((key.clone(), fact.value.clone()));
            }
            put_fact(&mut self.facts, &mut self.size, key, fact);
        }
        self.version = delta.to;
        Merged::News(news)
    }

    /// Forgets tombstones that were here at the last call already.
    pub(crate) fn collect(&mut self) {
        self.collect_until(self.mark);
        self.mark = self.version;
    }

    fn collect_until(&mut self, limit: u64) {
        let (size, floor) = (&mut self.size, &mut self.floor);
        self.links.retain(|_, cell| {
            let keep = cell.state.is_up() || cell.version > limit;
            if !keep {
                *size -= Cell::COST;
                *floor = cell.version.max(*floor);
            }
            keep
        });
        for facts in self.facts.values_mut() {
            facts.retain(|key, fact| {
                let keep = fact.value.is_some() || fact.version > limit;
                if !keep {
                    *size -= fact.cost(key);
                    *floor = fact.version.max(*floor);
                }
                keep
            });
        }
        self.facts.retain(|_, facts| !facts.is_empty());
    }

    fn replace(&mut self, delta: Delta) -> Merged {
        if cost(&delta) > MAX_RECORD {
            return Merged::TooLarge;
        }
        let (life, version, floor) = (delta.life, delta.to, delta.floor);
        let mut next = Self { life, version, floor, mark: version, ..Self::default() };
        for (name, cell) in delta.links {
            if next.links.insert(name, cell).is_none() {
                next.size += Cell::COST;
            }
        }
        for (key, fact) in delta.facts {
            put_fact(&mut next.facts, &mut next.size, key, fact);
        }
        let news = self.difference(&next);
        *self = next;
        Merged::News(news)
    }

    /// What somebody notices who sees `next` after this.
    pub(crate) fn difference(&self, next: &Self) -> News {
        let mut news = News::default();
        for name in self.links.keys().chain(next.links.keys().filter(|n| !self.links.contains_key(n))) {
            let (before, after) = (self.link(*name), next.link(*name));
            if before != after {
                news.links.push((*name, before, after));
            }
        }
        let gone = self.namespaces().flat_map(|ns| self.facts(ns).map(move |(key, _)| (ns, key)));
        let gone = gone.filter(|(ns, key)| next.fact(*ns, key).is_none());
        news.facts.extend(gone.map(|(ns, key)| ((ns, key.clone()), None)));
        let fresh = next.namespaces().flat_map(|ns| next.facts(ns).map(move |(key, value)| (ns, key, value)));
        let fresh = fresh.filter(|(ns, key, value)| self.fact(*ns, key) != Some(value));
        news.facts.extend(fresh.map(|(ns, key, value)| ((ns, key.clone()), Some(value.clone()))));
        news
    }

    fn is_too_small_for(&self, delta: &Delta) -> bool {
        self.size + cost(delta) > MAX_RECORD + self.replaced_cost(delta)
    }

    /// What the entries count that the delta overwrites.
    fn replaced_cost(&self, delta: &Delta) -> usize {
        let links = delta.links.iter().filter(|(name, _)| self.links.contains_key(name)).count() * Cell::COST;
        let fact = |(ns, key): &FactKey| Some(self.facts.get(ns)?.get(key)?.cost(key));
        links + delta.facts.iter().filter_map(|(key, _)| fact(key)).sum::<usize>()
    }

    fn last_tombstone(&self) -> u64 {
        let links = self.links.values().filter(|c| !c.state.is_up()).map(|c| c.version);
        let facts =
            self.facts.values().flat_map(BTreeMap::values).filter(|f| f.value.is_none()).map(|f| f.version);
        links.chain(facts).max().unwrap_or(0)
    }
}

fn cost(delta: &Delta) -> usize {
    delta.links.len() * Cell::COST + delta.facts.iter().map(|((_, key), fact)| fact.cost(key)).sum::<usize>()
}

fn put_fact(
    facts: &mut BTreeMap<u8, BTreeMap<Bytes, Fact>>,
    size: &mut usize,
    (ns, key): FactKey,
    fact: Fact,
) {
    *size += fact.cost(&key);
    match facts.entry(ns).or_default().entry(key) {
        btree_map::Entry::Occupied(mut entry) => {
            *size -= entry.get().cost(entry.key());
            entry.insert(fact);
        }
        btree_map::Entry::Vacant(entry) => {
            entry.insert(fact);
        }
    }
}
