//! Maps from numbers that we gave ourselves, to look things up only: their order means nothing.
//!
//! Nobody who writes policies chooses such numbers, so nobody can make them collide: we count them up, or the network gives
//! them, as the addresses of pods. Texts and blocks of addresses, which anybody may choose, are kept in trees.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map from numbers, or from what consists of numbers.
pub(crate) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Multiplies (Knuth, The Art of Computer Programming, 6.4: by the golden ratio).
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl NumberHasher {
    const fn add(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    fn write_u8(&mut self, number: u8) {
        self.add(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.add(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.add(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_u128(&mut self, number: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "one half after the other")]
        let (high, low) = ((number >> 64) as u64, number as u64);
        self.add(high);
        self.add(low);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }
}

/// Numbers that were noted, perhaps more than once.
#[derive(Debug)]
pub(crate) struct Noted<T>(Vec<T>);

impl<T> Default for Noted<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Noted<T> {
    /// Notes one more.
    pub(crate) fn insert(&mut self, number: T) {
        if self.0.len() == self.0.capacity() {
            // Never more than twice as much memory as there are different ones.
            self.tidy();
            self.0.reserve(self.0.len());
        }
        self.0.push(number);
    }

    /// All that were noted, in order, each once.
    pub(crate) fn take(&mut self) -> Vec<T> {
        self.tidy();
        std::mem::take(&mut self.0)
    }

    fn tidy(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }
}

impl<T: Ord> Extend<T> for Noted<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, numbers: I) {
        numbers.into_iter().for_each(|number| self.insert(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_comes_once_and_in_order_and_takes_no_room_twice() {
        let mut noted = Noted::default();
        noted.extend((0..10_000_u32).map(|n| n * 7 % 10));
        assert!(noted.0.capacity() <= 40, "{}", noted.0.capacity());
        assert_eq!(noted.take(), (0..10).collect::<Vec<_>>());
        assert_eq!(noted.take(), []);
    }
}
