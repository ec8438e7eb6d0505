//! Who owns which address: the replicated map that all routers agree on in the end.
//!
//! Every address has a stamp: a version and an owner. Of two stamps the greater wins, by version, then by owner.
//! So merging is the pointwise maximum of two maps, which is associative, commutative and idempotent whatever
//! the messages do. What is stored is the normal form of the map: the fewest runs of equal stamps.
//!
//! Only an address's owner may write a higher stamp for it, with two exceptions: a take-over, which all others agreed
//! to (see `settle`). An owner gives away by stamping with the receiver's name, and keeps the map small by
//! raising adjacent runs of its own to one common version ([`Ring::coalesce`]), which changes no ownership.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weave_model::PeerName;

use crate::span::Span;

/// One life of one router's store. A router that cannot prove that its store is the latest begins another life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) peer: PeerName,
    pub(crate) generation: u64,
}

/// What is known of an address. The order is the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) version: u64,
    pub(crate) owner: Owner,
}

/// A run of addresses with one stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) span: Span,
    pub(crate) stamp: Stamp,
}

/// A run of addresses that got another stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) span: Span,
    pub(crate) before: Stamp,
    pub(crate) after: Stamp,
}

/// The map, in normal form.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    id: u64,
    seeds: Vec<Owner>,
    /// First address -> end and stamp. Neighbours that touch have different stamps.
    runs: BTreeMap<u128, (u128, Stamp)>,
    /// First addresses whose run was written or removed since [`Ring::take_touched`].
    touched: BTreeSet<u128>,
    digest: u64,
    /// Runs that each life owns, kept so that asking for them does not walk the whole map.
    runs_by_owner: BTreeMap<Owner, BTreeSet<u128>>,
}

impl Ring {
    /// Divides the universe among the seeds in aligned shares that differ in size by at most a factor of two.
    pub(crate) fn divide(universe: &[Span], seeds: &[Owner]) -> Self {
        let mut seeds = seeds.to_vec();
        seeds.sort_unstable();
        seeds.dedup();
        let mut ring = Self::empty(identity(universe, &seeds), seeds.clone());
        for span in universe {
            ring.share(*span, &seeds);
        }
        ring
    }

    fn share(&mut self, span: Span, seeds: &[Owner]) {
        match seeds {
            [] => {}
            [owner] => self.put(span.lo, span.hi, Stamp { version: 1, owner: *owner }),
            [owner, ..] if span.len() < 2 => self.put(span.lo, span.hi, Stamp { version: 1, owner: *owner }),
            _ => {
                let middle = span.lo + span.len() / 2;
                let (left, right) = seeds.split_at(seeds.len().div_ceil(2));
                self.share(Span::new(span.lo, middle), left);
                self.share(Span::new(middle, span.hi), right);
            }
        }
    }

    /// Puts together what was stored or received, in order; `None` unless the runs tile the universe exactly.
    pub(crate) fn assemble(universe: &[Span], seeds: &[Owner], entries: &[Entry]) -> Option<Self> {
        let mut seeds = seeds.to_vec();
        seeds.sort_unstable();
        let mut ring = Self::empty(identity(universe, &seeds), seeds);
        for entry in entries {
            ring.put(entry.span.lo, entry.span.hi, entry.stamp);
            ring.weld(entry.span.lo);
        }
        ring.tiles(universe).then_some(ring)
    }

    fn empty(id: u64, seeds: Vec<Owner>) -> Self {
        Self {
            id,
            seeds,
            runs: BTreeMap::new(),
            touched: BTreeSet::new(),
            digest: 0,
            runs_by_owner: BTreeMap::new(),
        }
    }

    /// Whether every address of the universe is in exactly one run and no other address is in any.
    pub(crate) fn tiles(&self, universe: &[Span]) -> bool {
        let mut left: u128 = universe.iter().map(|s| s.len()).sum();
        let mut end = 0;
        for (lo, (hi, _)) in &self.runs {
            let run = Span::new(*lo, *hi);
            let inside: u128 = universe.iter().map(|u| run.clip(*u).len()).sum();
            if *lo < end || run.is_empty() || inside != run.len() || left < inside {
                return false;
            }
            end = *hi;
            left -= inside;
        }
        left == 0
    }

    /// What tells this ring from one that was started apart from it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn seeds(&self) -> &[Owner] {
        &self.seeds
    }

    /// Equal for equal maps; differs for different ones but for chance.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.runs.iter().map(|(lo, (hi, stamp))| Entry { span: Span::new(*lo, *hi), stamp: *stamp })
    }

    /// The runs that overlap the window, cut to it.
    pub(crate) fn within(&self, window: Span) -> impl Iterator<Item = Entry> + '_ {
        let first = self.runs.range(..=window.lo).next_back().map_or(window.lo, |(lo, _)| *lo);
        self.runs
            .range(first..window.hi.max(first))
            .map(move |(lo, (hi, stamp))| Entry { span: Span::new(*lo, *hi).clip(window), stamp: *stamp })
            .filter(|entry| !entry.span.is_empty())
    }

    pub(crate) fn stamp_of(&self, address: u128) -> Option<Stamp> {
        self.within(Span::one(address)).next().map(|entry| entry.stamp)
    }

    /// Every life that owns something, with its runs.
    #[cfg(test)]
    pub(crate) fn owners(&self) -> impl Iterator<Item = Owner> + '_ {
        self.runs_by_owner.keys().copied()
    }

    /// The lives of one router that own something.
    pub(crate) fn lives_of(&self, peer: PeerName) -> impl Iterator<Item = Owner> + '_ {
        let lives = Owner { peer, generation: 0 }..=Owner { peer, generation: u64::MAX };
        self.runs_by_owner.range(lives).map(|(owner, _)| *owner)
    }

    pub(crate) fn owned_by(&self, owner: Owner) -> impl Iterator<Item = Entry> + '_ {
        let starts = self.runs_by_owner.get(&owner).into_iter().flatten();
        starts.filter_map(|lo| {
            let (hi, stamp) = self.runs.get(lo)?;
            Some(Entry { span: Span::new(*lo, *hi), stamp: *stamp })
        })
    }

    /// Takes the entry's stamp wherever it is the greater one, and says where that was.
    pub(crate) fn join(&mut self, entry: Entry) -> Vec<Change> {
        let weaker: Vec<Change> = self
            .within(entry.span)
            .filter(|known| known.stamp < entry.stamp)
            .map(|known| Change { span: known.span, before: known.stamp, after: entry.stamp })
            .collect();
        for change in &weaker {
            self.cut(change.span.lo);
            self.cut(change.span.hi);
            self.put(change.span.lo, change.span.hi, change.after);
            self.weld(change.span.lo);
            self.weld(change.span.hi);
        }
        weaker
    }

    /// Raises the runs of one owner that touch each other, in or beside `near`, to their highest version, so that they
    /// become one. Only that owner may call this for itself. Says what was raised.
    pub(crate) fn coalesce(&mut self, owner: Owner, near: Span) -> Option<Entry> {
        let is_own = |(_, (_, stamp)): &(&u128, &(u128, Stamp))| stamp.owner == owner;
        let (mut lo, mut hi, mut version, mut count) = (near.hi, near.hi, 0, 0);
        let inside = self.runs.range(..near.hi).rev().take_while(|(_, (end, _))| *end >= near.lo);
        for (start, (end, stamp)) in inside.filter(is_own) {
            (lo, hi) = if count == 0 { (*start, *end) } else { (lo.min(*start), hi) };
            (version, count) = (stamp.version.max(version), count + 1);
        }
        if count == 0 {
            return None;
        }
        for (start, (end, stamp)) in self.runs.range(..lo).rev().take_while(is_own) {
            if *end != lo {
                break;
            }
            (lo, version) = (*start, stamp.version.max(version));
        }
        for (start, (end, stamp)) in self.runs.range(hi..).take_while(is_own) {
            if *start != hi {
                break;
            }
            (hi, version) = (*end, stamp.version.max(version));
        }
        let whole = Entry { span: Span::new(lo, hi), stamp: Stamp { version, owner } };
        let is_all_own = self.within(whole.span).all(|entry| entry.stamp.owner == owner);
        (is_all_own && !self.join(whole).is_empty()).then_some(whole)
    }

    /// The runs to store since the last call: first address and what begins there now, if anything.
    pub(crate) fn take_touched(&mut self) -> Vec<(u128, Option<(u128, Stamp)>)> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().map(|lo| (lo, self.runs.get(&lo).copied())).collect()
    }

    /// Makes a run begin at `at`, if one goes across it.
    fn cut(&mut self, at: u128) {
        let Some((lo, (hi, stamp))) = self.runs.range(..at).next_back().map(|(lo, run)| (*lo, *run)) else {
            return;
        };
        if hi > at {
            self.put(lo, at, stamp);
            self.put(at, hi, stamp);
        }
    }

    /// Makes one run of the two that meet at `at`, if they have one stamp.
    fn weld(&mut self, at: u128) {
        let Some((lo, (end, left))) = self.runs.range(..at).next_back().map(|(lo, run)| (*lo, *run)) else {
            return;
        };
        let Some((hi, right)) = self.runs.get(&at).copied() else { return };
        if end == at && left == right {
            self.drop_run(at);
            self.put(lo, hi, left);
        }
    }

    fn put(&mut self, lo: u128, hi: u128, stamp: Stamp) {
        self.drop_run(lo);
        // Runs swallowed by this one.
        let inner: Vec<u128> = self.runs.range(lo..hi.max(lo)).map(|(at, _)| *at).collect();
        for at in inner {
            self.drop_run(at);
        }
        self.runs.insert(lo, (hi, stamp));
        self.runs_by_owner.entry(stamp.owner).or_default().insert(lo);
        self.digest ^= hash_run(lo, hi, stamp);
        self.touched.insert(lo);
    }

    fn drop_run(&mut self, lo: u128) {
        let Some((hi, stamp)) = self.runs.remove(&lo) else { return };
        self.digest ^= hash_run(lo, hi, stamp);
        self.touched.insert(lo);
        if let Some(starts) = self.runs_by_owner.get_mut(&stamp.owner) {
            starts.remove(&lo);
            if starts.is_empty() {
                self.runs_by_owner.remove(&stamp.owner);
            }
        }
    }
}

/// Names a ring after its universe and its seeds.
pub(crate) fn identity(universe: &[Span], seeds: &[Owner]) -> u64 {
    let mut hash = universe_id(universe);
    for owner in seeds {
        hash = mix(hash, u128::from(name_number(owner.peer)));
        hash = mix(hash, u128::from(owner.generation));
    }
    hash
}

/// Names a universe.
pub(crate) fn universe_id(universe: &[Span]) -> u64 {
    universe.iter().fold(0x7765_6176_6569_7061, |hash, span| mix(mix(hash, span.lo), span.hi))
}

fn hash_run(lo: u128, hi: u128, stamp: Stamp) -> u64 {
    let hash = mix(mix(0x7275_6e00, lo), hi);
    let hash = mix(hash, u128::from(stamp.version));
    mix(mix(hash, u128::from(name_number(stamp.owner.peer))), u128::from(stamp.owner.generation))
}

pub(crate) fn name_number(peer: PeerName) -> u64 {
    peer.0.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). The digest
/// only finds differences by chance; it is no defence against a peer that wants a collision.
#[expect(clippy::cast_possible_truncation, reason = "both halves of the value are mixed in")]
pub(crate) fn mix(hash: u64, value: u128) -> u64 {
    [value as u64, (value >> 64) as u64].into_iter().fold(hash, |hash, word| {
        let mut z = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests;
