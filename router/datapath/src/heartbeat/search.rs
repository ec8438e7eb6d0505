//! The search for the largest size that passes.
//!
//! Round by round: several sizes are asked for at once, and what the largest answered and the smallest lost leave between them is
//! divided again. The first round has the sizes that paths usually carry, so that a useful one is known after one round trip. A size
//! counts as lost only after several tries, and as passing only when it was answered.

/// Sizes of IP packets that paths carry: jumbo frames, Ethernet, PPPoE (RFC 2516), common clouds and tunnels over them.
const PACKETS: [u16; 6] = [9000, 1500, 1492, 1460, 1420, 1400];
/// The smallest size that is of use: containers send packets of this size on any path, as IPv6 needs it (RFC 8200 section 5). A path
/// with less is left to the tunnel, which splits them; the kernel would drop them without a word.
pub(crate) const LEAST: u16 = 1280;
/// Times that a size is asked for in a round before it is taken for too large.
pub(crate) const TRIES: u32 = 3;
/// Sizes per round of division. Six rounds then find one among all that 16 bits can tell.
const DIVISIONS: u32 = 7;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask for [`Search::round`].
    Ask,
    /// [`Search::best`] is all there is.
    Done,
}

/// The state of a search. Sizes are bytes of IP packet of a container.
#[derive(Debug)]
pub(crate) struct Search {
    overhead: u16,
    /// What may be found at most.
    limit: u16,
    /// The largest that was answered; 0: none.
    best: u16,
    /// The smallest that is known not to pass, or one more than the limit.
    bad: u32,
    /// Those of this round that are not answered, ascending.
    round: Vec<u16>,
    tries_left: u32,
    rounds: u32,
}

impl Search {
    /// A search above `best`, which is proven (0: nothing is), up to `limit`. The sizes of the first round are tried
    /// `tries` times.
    pub(crate) fn new(overhead: u16, best: u16, limit: u16, tries: u32) -> Self {
        let bad = u32::from(limit) + 1;
        Self { overhead, limit, best, bad, round: Vec::new(), tries_left: tries, rounds: 0 }
    }

    pub(crate) const fn best(&self) -> u16 {
        self.best
    }

    /// Whether it was found that `size` does not pass.
    pub(crate) fn is_lost(&self, size: u16) -> bool {
        u32::from(size) >= self.bad
    }

    /// The sizes to ask for.
    pub(crate) fn round(&self) -> &[u16] {
        &self.round
    }

    /// A size was answered. Returns whether nothing of this round is worth waiting for any more.
    pub(crate) fn answered(&mut self, size: u16) -> bool {
        if size > self.best && size <= self.limit {
            self.best = size;
            if self.is_lost(size) {
                // A late answer proves right what was given up.
                self.bad = u32::from(self.limit) + 1;
            }
            self.round.retain(|asked| *asked > size);
        }
        self.round.is_empty() && self.rounds > 0
    }

    /// The round is over: what is not answered of it counts as lost.
    pub(crate) fn advance(&mut self) -> Step {
        if !self.round.is_empty() && self.tries_left > 0 {
            self.tries_left -= 1;
            return Step::Ask;
        }
        if let Some(lost) = self.round.first() {
            self.bad = self.bad.min(u32::from(*lost));
        }
        self.round = if self.rounds == 0 { self.likely() } else { self.division() };
        if self.rounds > 0 {
            self.tries_left = TRIES;
        }
        self.rounds += 1;
        self.tries_left = self.tries_left.saturating_sub(1);
        if self.round.is_empty() { Step::Done } else { Step::Ask }
    }

    /// What the path probably carries: the limit, the next byte, and the usual sizes between.
    fn likely(&self) -> Vec<u16> {
        let usual = PACKETS.iter().map(|packet| packet - self.overhead).chain([LEAST]);
        let next = (self.best > 0).then(|| self.best.saturating_add(1));
        let mut sizes: Vec<u16> = usual.chain(next).chain([self.limit]).collect();
        sizes.retain(|size| *size >= LEAST && *size > self.best && *size <= self.limit);
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// What is left, divided; with the next byte first, since what the path carries usually is known exactly by now.
    fn division(&self) -> Vec<u16> {
        let (low, gap) = (u32::from(self.best), self.bad.saturating_sub(u32::from(self.best)));
        if self.best == 0 || gap <= 1 {
            return Vec::new();
        }
        let parts = (1..DIVISIONS).map(|part| low + gap * part / DIVISIONS);
        let mut sizes: Vec<u16> = std::iter::once(low + 1)
            .chain(parts)
            .filter(|size| *size > low && *size < self.bad)
            .filter_map(|size| u16::try_from(size).ok())
            .collect();
        sizes.dedup();
        sizes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OVERHEAD: u16 = 50;

    #[test]
    fn the_path_of_ordinary_ethernet_below_a_jumbo_interface_is_found_in_two_rounds() {
        let (found, rounds, useful_after) = search(0, 8950, 1450, &mut |_| true);
        assert_eq!((found, useful_after), (1450, 1));
        // The usual sizes, three times; 1451 and more, three times.
        assert_eq!(rounds, 2 * TRIES);
    }

    #[test]
    fn a_path_that_carries_nothing_of_use_ends_the_search_without_result() {
        let (found, rounds, _) = search(0, 8950, LEAST - 1, &mut |_| true);
        assert_eq!((found, rounds), (0, TRIES));
    }

    #[test]
    fn a_late_answer_proves_right_what_was_given_up() {
        let mut search = Search::new(OVERHEAD, 0, 1450, 1);
        assert_eq!(search.advance(), Step::Ask);
        search.answered(LEAST);
        assert_eq!(search.advance(), Step::Ask);
        assert!(search.is_lost(1400));
        search.answered(1450);
        assert!(!search.is_lost(1450));
        assert_eq!((search.advance(), search.best()), (Step::Done, 1450));
    }

    proptest! {
        #[test]
        fn the_largest_size_that_passes_is_found_in_few_rounds(limit in LEAST.., passes in LEAST..) {
            let (found, rounds, useful_after) = search(0, limit, passes, &mut |_| true);
            prop_assert_eq!(found, passes.min(limit));
            prop_assert!(rounds <= 8 * TRIES, "{} rounds", rounds);
            prop_assert_eq!(useful_after, 1);
        }

        #[test]
        fn a_search_from_a_proven_size_finds_the_rest(limit in LEAST..9000, passes in LEAST..9000, from in 0u16..9000) {
            let from = from % (passes.min(limit) - (LEAST - 1)) + LEAST;
            let (found, ..) = search(from, limit, passes, &mut |_| true);
            prop_assert_eq!(found, passes.min(limit));
        }

        #[test]
        fn loss_makes_the_answer_smaller_and_never_larger_than_what_passes(
            limit in LEAST..9000, passes in LEAST..9000, losses in proptest::collection::vec(any::<bool>(), 1..200)
        ) {
            let mut losses = losses.iter().cycle();
            let (found, rounds, _) = search(0, limit, passes, &mut |_| *losses.next().unwrap());
            prop_assert!(found <= passes.min(limit));
            prop_assert!(rounds <= 16 * TRIES, "{} rounds", rounds);
        }
    }

    /// Returns what was found, after how many rounds, and in which something was proven first.
    fn search(from: u16, limit: u16, passes: u16, survives: &mut dyn FnMut(u16) -> bool) -> (u16, u32, u32) {
        let mut search = Search::new(OVERHEAD, from, limit, TRIES);
        let (mut rounds, mut useful_after) = (0, 0);
        while search.advance() == Step::Ask {
            rounds += 1;
            assert!(search.round().len() <= 10);
            assert!(search.round().is_sorted());
            for size in search.round().to_vec() {
                if size <= passes && survives(size) {
                    search.answered(size);
                }
            }
            if search.best() > 0 && useful_after == 0 {
                useful_after = rounds;
            }
        }
        (search.best(), rounds, useful_after)
    }
}
