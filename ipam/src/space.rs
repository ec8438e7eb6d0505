//! The free addresses that are ours to give.

use std::collections::BTreeMap;

use crate::span::Span;

/// A set of addresses as runs that neither overlap nor touch. Every question is answered in the logarithm of the
/// number of runs, plus the runs inside the window where the answer speaks of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// First address -> end.
    runs: BTreeMap<u128, u128>,
    count: u128,
}

impl Space {
    pub(crate) fn len(&self) -> u128 {
        self.count
    }

    pub(crate) fn contains(&self, address: u128) -> bool {
        self.runs.range(..=address).next_back().is_some_and(|(_, hi)| address < *hi)
    }

    /// Adds addresses; those that are there already stay.
    pub(crate) fn insert(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let (mut lo, mut hi) = (span.lo, span.hi);
        if let Some((left, end)) = self.runs.range(..=lo).next_back().map(|(l, e)| (*l, *e))
            && end >= lo
        {
            lo = left;
            hi = hi.max(end);
            self.runs.remove(&left);
            self.count -= end - left;
        }
        while let Some((right, end)) = self.runs.range(lo..=hi).next().map(|(r, e)| (*r, *e)) {
            hi = hi.max(end);
            self.runs.remove(&right);
            self.count -= end - right;
        }
        self.runs.insert(lo, hi);
        self.count += hi - lo;
    }

    /// Removes addresses; those that are not there are ignored.
    pub(crate) fn remove(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let mut from = self.runs.range(..=span.lo).next_back().map_or(span.lo, |(lo, _)| *lo);
        while let Some((lo, hi)) = self.runs.range(from..span.hi.max(from)).next().map(|(l, h)| (*l, *h)) {
            from = hi;
            let gone = Span::new(lo, hi).clip(span);
            if gone.is_empty() {
                continue;
            }
            self.runs.remove(&lo);
            self.count -= gone.len();
            if lo < gone.lo {
                self.runs.insert(lo, gone.lo);
            }
            if gone.hi < hi {
                self.runs.insert(gone.hi, hi);
            }
        }
    }

    /// The runs inside the window, cut to it, lowest first.
    pub(crate) fn within(&self, window: Span) -> impl DoubleEndedIterator<Item = Span> + '_ {
        let first = self.runs.range(..=window.lo).next_back().map_or(window.lo, |(lo, _)| *lo);
        self.runs
            .range(first..window.hi.max(first))
            .map(move |(lo, hi)| Span::new(*lo, *hi).clip(window))
            .filter(|span| !span.is_empty())
    }

    /// The lowest address inside the window.
    pub(crate) fn lowest(&self, window: Span) -> Option<u128> {
        self.within(window).next().map(|span| span.lo)
    }

    pub(crate) fn count_within(&self, window: Span) -> u128 {
        self.within(window).map(Span::len).sum()
    }

    /// The largest aligned chunk inside the window that has at most half of what is free there, rounded up; the
    /// highest one of that size, because we ourselves allocate from below.
    pub(crate) fn chunk_to_give(&self, window: Span) -> Option<Span> {
        let half = self.count_within(window).div_ceil(2);
        let mut size = 1_u128.checked_shl(half.checked_ilog2()?)?;
        let longest = self.within(window).map(Span::len).max()?;
        while size > longest {
            size /= 2;
        }
        while size > 0 {
            let fitting = self.within(window).rev().find_map(|run| {
                let lo = (run.hi / size).checked_sub(1)? * size;
                (lo >= run.lo).then(|| Span::new(lo, lo + size))
            });
            if fitting.is_some() {
                return fitting;
            }
            size /= 2;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const END: u128 = 96;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Span),
        Remove(Span),
    }

    fn span() -> impl Strategy<Value = Span> {
        (0..END, 0..24_u128).prop_map(|(lo, len)| Span::new(lo, (lo + len).min(END)))
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![span().prop_map(Step::Insert), span().prop_map(Step::Remove)];
        prop::collection::vec(step, 0..40)
    }

    fn built(steps: &[Step]) -> (Space, BTreeSet<u128>) {
        let (mut space, mut naive) = (Space::default(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Insert(span) => {
                    space.insert(*span);
                    naive.extend(span.lo..span.hi);
                }
                Step::Remove(span) => {
                    space.remove(*span);
                    naive.retain(|a| !span.contains(*a));
                }
            }
        }
        (space, naive)
    }

    proptest! {
        #[test]
        fn runs_hold_exactly_what_a_plain_set_holds(steps in steps(), window in span()) {
            let (space, naive) = built(&steps);
            prop_assert_eq!(space.len(), naive.len() as u128);
            let listed: Vec<u128> = space.within(Span::new(0, END)).flat_map(|s| s.lo..s.hi).collect();
            prop_assert_eq!(&listed, &naive.iter().copied().collect::<Vec<_>>());
            let runs: Vec<Span> = space.within(Span::new(0, END)).collect();
            prop_assert!(runs.windows(2).all(|w| w[0].hi < w[1].lo));
            let inside: Vec<u128> = naive.iter().copied().filter(|a| window.contains(*a)).collect();
            prop_assert_eq!(space.lowest(window), inside.first().copied());
            prop_assert_eq!(space.count_within(window), inside.len() as u128);
            prop_assert!((0..END).all(|a| space.contains(a) == naive.contains(&a)));
        }

        #[test]
        fn a_chunk_to_give_is_the_largest_aligned_one_of_at_most_half(steps in steps(), window in span()) {
            let (space, naive) = built(&steps);
            let inside: BTreeSet<u128> = naive.iter().copied().filter(|a| window.contains(*a)).collect();
            let half = (inside.len() as u128).div_ceil(2);
            let best = (0..8).map(|k| 1_u128 << k).filter(|size| *size <= half).rev().find_map(|size| {
                let fits = |lo: &u128| (*lo..lo + size).all(|a| inside.contains(&a));
                (0..END).step_by(size as usize).filter(fits).last().map(|lo| Span::new(lo, lo + size))
            });
            prop_assert_eq!(space.chunk_to_give(window), best);
        }
    }
}
