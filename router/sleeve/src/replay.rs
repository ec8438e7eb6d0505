//! The anti-replay window of RFC 6479: a ring of words that slides by whole words.

/// Words of the ring.
const WORDS: usize = 64;

/// Counters that the window remembers behind the newest, at least. A burst is up to 64 datagrams, so this is the
/// reordering of some sixty bursts.
const WINDOW: u32 = (WORDS as u32 - 1) * 64;

/// Remembers which counters have been seen, for one key.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    seen: [u64; WORDS],
    /// One more than the newest counter accepted; 0 before the first.
    next: u64,
}

impl ReplayWindow {
    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: [0; WORDS], next: 0 }
    }

    /// Whether the counter is neither seen nor older than the window remembers.
    #[must_use]
    pub fn is_fresh(&self, counter: u32) -> bool {
        let counter = u64::from(counter);
        if counter >= self.next {
            return true;
        }
        counter + u64::from(WINDOW) >= self.next && self.seen[word(counter)] & bit(counter) == 0
    }

    /// Marks the counter as seen, which must be fresh and belong to an authentic datagram. Returns whether it is the
    /// newest so far.
    pub fn accept(&mut self, counter: u32) -> bool {
        let counter = u64::from(counter);
        let is_newest = counter >= self.next;
        if is_newest {
            self.slide(counter);
        }
        self.seen[word(counter)] |= bit(counter);
        is_newest
    }

    /// Forgets the words that the newest counter pushes out.
    fn slide(&mut self, counter: u64) {
        let first = if self.next == 0 { 0 } else { (self.next - 1) / 64 + 1 };
        let last = counter / 64;
        if last >= first + WORDS as u64 {
            self.seen = [0; WORDS];
        } else {
            for index in first..=last {
                self.seen[index as usize % WORDS] = 0;
            }
        }
        self.next = counter + 1;
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

const fn word(counter: u64) -> usize {
    (counter / 64) as usize % WORDS
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle is a plain set. It never refuses what the window accepts, and accepts everything that is
        /// neither seen nor further back than the window promises.
        #[test]
        fn the_window_agrees_with_a_set(jumps in proptest::collection::vec((any::<bool>(), 0u32..9000), 1..600), start: u32) {
            let mut window = ReplayWindow::new();
            let mut seen = BTreeSet::new();
            let mut at = start;
            for (forward, jump) in jumps {
                at = if forward { at.saturating_add(jump / 64) } else { at.saturating_sub(jump) };
                let newest = seen.last().copied();
                let fresh = window.is_fresh(at);
                if seen.contains(&at) {
                    prop_assert!(!fresh);
                } else if newest.is_none_or(|n: u32| at >= n.saturating_sub(WINDOW - 1)) {
                    prop_assert!(fresh);
                }
                if fresh {
                    prop_assert_eq!(window.accept(at), newest.is_none_or(|n| at > n));
                    seen.insert(at);
                    at = *seen.last().unwrap();
                }
            }
        }
    }

    #[test]
    fn the_last_counter_of_all_is_accepted_once() {
        let mut window = ReplayWindow::new();
        assert!(window.is_fresh(u32::MAX));
        assert!(window.accept(u32::MAX));
        assert!(!window.is_fresh(u32::MAX));
        assert!(window.is_fresh(u32::MAX - 1));
        assert!(!window.is_fresh(0));
    }
}
