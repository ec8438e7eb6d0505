//! How often a frame for a station that nobody knows is sent to everybody.

use std::time::{Duration, Instant};

use weave_model::Mac;

/// Frames for one unknown station that may leave at once. A station that is there answers the first one, and is known
/// then.
const BURST: u32 = 64;
/// How long it takes until one more may leave.
const REFILL: Duration = Duration::from_millis(125);
/// Allowances; stations share one by chance. A power of two.
const SLOTS: usize = 256;

/// Allowances for flooding to unknown stations: a stream to one that is gone would otherwise reach every host for ever.
/// Bounded, and one decision takes no longer when there are many stations.
#[derive(Debug)]
pub struct UnknownStations {
    /// So that nobody can choose addresses that share the allowance of another.
    seed: u64,
    /// Until when each allowance is used up, as if frames left one by one.
    spent_until: Box<[Instant]>,
}

impl UnknownStations {
    /// Allowances that are all unused.
    #[must_use]
    pub fn new(seed: u64, now: Instant) -> Self {
        Self { seed, spent_until: vec![now; SLOTS].into_boxed_slice() }
    }

    /// Whether one more frame for `station` may be flooded.
    pub fn admit(&mut self, station: Mac, now: Instant) -> bool {
        let slot = self.slot(station);
        let Some(spent_until) = self.spent_until.get_mut(slot) else { return false };
        let next = (*spent_until).max(now) + REFILL;
        let is_admitted = next <= now + REFILL * BURST;
        if is_admitted {
            *spent_until = next;
        }
        is_admitted
    }

    /// Multiplication spreads every bit to the high ones (Fibonacci hashing, Knuth volume 3 section 6.4).
    fn slot(&self, station: Mac) -> usize {
        let Mac([a, b, c, d, e, f]) = station;
        let number = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) ^ self.seed;
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed.rotate_left(32);
        let mixed = (spread ^ (spread >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) as usize % SLOTS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATION: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[allow(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_stream_to_nobody_is_flooded_at_the_beginning_and_then_eight_times_a_second() {
        let start = origin();
        let mut unknown = UnknownStations::new(7, start);
        let flooded = (0..10_000).filter(|n| unknown.admit(STATION, start + Duration::from_millis(*n)));
        assert_eq!(flooded.count(), 64 + 79);
        let later = start + Duration::from_secs(60);
        assert_eq!((0..1000).filter(|_| unknown.admit(STATION, later)).count(), 64);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_a_burst_and_its_refill(
            seed in any::<u64>(),
            gaps in proptest::collection::vec(0u64..400, 1..600),
        ) {
            let start = origin();
            let mut unknown = UnknownStations::new(seed, start);
            let mut at = start;
            let mut admitted = Vec::new();
            for gap in gaps {
                at += Duration::from_millis(gap);
                if unknown.admit(STATION, at) {
                    admitted.push(at);
                }
            }
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let allowed = BURST as u128 + (*to - *from).as_nanos() / REFILL.as_nanos() + 1;
                    prop_assert!((last - first + 1) as u128 <= allowed);
                }
            }
        }

        #[test]
        fn stations_share_allowances_only_by_chance(seed in any::<u64>()) {
            let unknown = UnknownStations::new(seed, origin());
            let mut stations = [0u32; SLOTS];
            (0..=255u8).for_each(|n| stations[unknown.slot(Mac([2, 0, 0, 0, 0, n]))] += 1);
            prop_assert!(stations.iter().all(|n| *n < 16), "{stations:?}");
        }
    }
}
