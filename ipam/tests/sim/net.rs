//! A network that loses, doubles, delays and reorders, and is cut one way at a time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for chunk in seed.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        seed
    }
}

/// The next part of what was begun: faults that follow each other closely.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Story {
    /// A machine dies; here it is removed, and this one agrees to it.
    Die { dead: usize, at: usize, agrees: usize },
    /// A dead machine is removed, from here.
    Remove { at: usize, dead: usize },
    /// A process is killed and started again at once, and reaches nobody.
    RestartAlone { at: usize },
    /// A machine can reach the others again.
    Join { at: usize },
    /// A machine is restored from a backup, if there is one, and cannot reach these.
    Restore { at: usize, without: Vec<usize> },
    /// A user wants addresses here.
    Want { at: usize },
    /// The clone of a machine is found and switched off.
    EndClone,
}

/// What happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// A message arrives.
    Message { from: usize, to: usize, bytes: Vec<u8> },
    /// One node tells another all facts that it has.
    Gossip { from: usize, to: usize },
    /// A fact of one node arrives directly at another.
    Fact { of: usize, to: usize, version: u64, bytes: Vec<u8> },
    /// A node notices whether it can reach another.
    Notice { at: usize, of: usize },
    /// A user, an operator or fate acts.
    Deed,
    /// What was begun earlier goes on.
    Story(Story),
}

pub(crate) struct Net {
    pub(crate) rng: Rng,
    queue: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    next: u64,
    /// Directions that carry nothing.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Those that never link, because of each the other has met the double.
    pub(crate) apart: BTreeSet<(usize, usize)>,
    pub(crate) loss: u64,
    pub(crate) is_calm: bool,
}

impl Net {
    pub(crate) fn new(rng: Rng, loss: u64) -> Self {
        Self {
            rng,
            queue: BinaryHeap::new(),
            next: 0,
            cut: BTreeSet::new(),
            apart: BTreeSet::new(),
            loss,
            is_calm: false,
        }
    }

    pub(crate) fn at(&mut self, at: Instant, what: Happening) {
        self.next += 1;
        self.queue.push(Reverse((at, self.next, what)));
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, Happening)> {
        self.queue.pop().map(|Reverse((at, _, what))| (at, what))
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to)) || self.apart.contains(&(from, to))
    }

    /// What is under way from a node stays under way for longer.
    pub(crate) fn hold_back(&mut self, from: usize, by: Duration) {
        let all = std::mem::take(&mut self.queue);
        self.queue = all
            .into_iter()
            .map(|Reverse((at, number, what))| {
                let is_from = matches!(&what, Happening::Message { from: sender, .. } if *sender == from);
                Reverse((if is_from { at + by } else { at }, number, what))
            })
            .collect();
    }

    pub(crate) fn send(&mut self, now: Instant, from: usize, to: usize, what: &Happening) {
        let copies = match () {
            () if self.is_cut(from, to) => 0,
            () if self.is_calm => 1,
            () if self.rng.chance(self.loss) => 0,
            () if self.rng.chance(10) => 2,
            () => 1,
        };
        for _ in 0..copies {
            // Some messages are long under way: longer than a crash and a restart take.
            let delay = match self.rng.below(40) {
                0 if !self.is_calm => self.rng.millis(1_000, 30_000),
                1..5 => self.rng.millis(50, 1_000),
                _ => self.rng.millis(1, 50),
            };
            self.at(now + delay, what.clone());
        }
    }
}
