//! Chance, from the seed alone.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A stream of numbers that the seed determines.
#[derive(Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// A number below `bound`, or 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The bias of a 64-bit remainder is far below what jitter could show.
        (self.0.next_u64() % (bound.max(1) as u64)) as usize
    }

    /// A time from `low` to `high`.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let share = f64::from(self.0.next_u32()) / f64::from(u32::MAX);
        low + high.saturating_sub(low).mul_f64(share)
    }

    /// From half of `time` to one and a half.
    pub(crate) fn around(&mut self, time: Duration) -> Duration {
        self.between(time / 2, time * 3 / 2)
    }
}
