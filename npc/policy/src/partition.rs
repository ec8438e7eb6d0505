//! Intervals that overlap, cut into atoms that do not.
//!
//! Members are added and removed one at a time; each costs as much as there are atoms inside it. What changed since one
//! looked is kept, so that nobody has to compare everything.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers from 0 to a last one, cut where any member begins or ends.
#[derive(Debug, Clone)]
pub(crate) struct Partition<M> {
    last: u128,
    /// Members that cover the atom, by its first number. The first atom begins at 0; neighbours differ.
    members_by_start: BTreeMap<u128, BTreeSet<M>>,
    /// Starts at which something may have changed: an atom came, went, was cut, or has other members.
    touched: BTreeSet<u128>,
}

/// A maximal interval whose numbers have the same members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Atom<'a, M> {
    pub(crate) last: u128,
    pub(crate) members: &'a BTreeSet<M>,
}

impl<M: Copy + Ord> Partition<M> {
    /// One atom from 0 to `last` without members.
    pub(crate) fn new(last: u128) -> Self {
        Self { last, members_by_start: BTreeMap::from([(0, BTreeSet::new())]), touched: BTreeSet::new() }
    }

    /// Makes `member` cover `first` to `last`. It must not cover any of them yet.
    pub(crate) fn add(&mut self, first: u128, last: u128, member: M) {
        self.change(first, last, |members| _ = members.insert(member));
    }

    /// Makes `member` cover none of `first` to `last`.
    pub(crate) fn remove(&mut self, first: u128, last: u128, member: M) {
        self.change(first, last, |members| _ = members.remove(&member));
    }

    /// The atom that begins at `start`, if one does and has members.
    pub(crate) fn atom(&self, start: u128) -> Option<Atom<'_, M>> {
        let members = self.members_by_start.get(&start).filter(|members| !members.is_empty())?;
        let next = self.members_by_start.range(start + 1..).next();
        Some(Atom { last: next.map_or(self.last, |(next, _)| next - 1), members })
    }

    /// Where atoms may be others than at the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<u128> {
        std::mem::take(&mut self.touched)
    }

    fn change(&mut self, first: u128, last: u128, what: impl Fn(&mut BTreeSet<M>)) {
        self.cut(first);
        let next = last.checked_add(1).filter(|next| *next <= self.last);
        next.into_iter().for_each(|next| self.cut(next));
        for (start, members) in self.members_by_start.range_mut(first..=last) {
            what(members);
            self.touched.insert(*start);
        }
        self.join(first);
        next.into_iter().for_each(|next| self.join(next));
    }

    /// Makes an atom begin at `at`.
    fn cut(&mut self, at: u128) {
        let Some((start, members)) = self.members_by_start.range(..=at).next_back() else { return };
        if *start != at {
            let members = members.clone();
            self.touched.extend([*start, at]);
            self.members_by_start.insert(at, members);
        }
    }

    /// Makes the atom that begins at `at` one with its neighbour before it, if they have the same members.
    fn join(&mut self, at: u128) {
        let mut before = self.members_by_start.range(..=at).rev();
        let (Some((_, members)), Some((start, neighbours))) = (before.next(), before.next()) else { return };
        if members == neighbours {
            self.touched.extend([*start, at]);
            self.members_by_start.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAST: u128 = 30;

    fn atoms(partition: &Partition<u8>) -> Vec<(u128, u128, Vec<u8>)> {
        let atom =
            |start| partition.atom(start).map(|a| (start, a.last, a.members.iter().copied().collect()));
        (0..=LAST).filter_map(atom).collect()
    }

    /// What each number is covered by, and from that the maximal intervals.
    fn naive(intervals: &BTreeMap<u8, (u128, u128)>) -> Vec<(u128, u128, Vec<u8>)> {
        let covering = |n: u128| -> Vec<u8> {
            intervals.iter().filter(|(_, (a, b))| (*a..=*b).contains(&n)).map(|(m, _)| *m).collect()
        };
        let mut atoms: Vec<(u128, u128, Vec<u8>)> = Vec::new();
        for n in 0..=LAST {
            match atoms.last_mut() {
                Some((_, last, members)) if *members == covering(n) => *last = n,
                _ => atoms.push((n, n, covering(n))),
            }
        }
        atoms.retain(|(_, _, members)| !members.is_empty());
        atoms
    }

    proptest! {
        #[test]
        fn atoms_are_the_maximal_intervals_of_equal_cover_and_changes_are_told(
            steps in proptest::collection::vec((0u8..6, 0u128..=LAST, 0u128..=LAST), 1..40),
        ) {
            let (mut partition, mut intervals) = (Partition::new(LAST), BTreeMap::new());
            let mut told: BTreeMap<u128, (u128, Vec<u8>)> = BTreeMap::new();
            for (member, a, b) in steps {
                let (first, last) = (a.min(b), a.max(b));
                if let Some((first, last)) = intervals.remove(&member) {
                    partition.remove(first, last, member);
                } else {
                    partition.add(first, last, member);
                    intervals.insert(member, (first, last));
                }
                prop_assert_eq!(atoms(&partition), naive(&intervals));
                for start in partition.take_touched() {
                    told.remove(&start);
                    if let Some(atom) = partition.atom(start) {
                        told.insert(start, (atom.last, atom.members.iter().copied().collect()));
                    }
                }
                let told: Vec<_> = told.iter().map(|(s, (l, m))| (*s, *l, m.clone())).collect();
                prop_assert_eq!(told, naive(&intervals));
            }
        }
    }
}
