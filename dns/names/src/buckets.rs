//! A map whose copies share what did not change.

use std::sync::Arc;

/// How many buckets: with ten thousand keys, a change copies about forty of them and a copy of the map is 256
/// reference counts.
const BUCKETS: usize = 256;

/// A hash map by bytes, cheap to clone: a bucket is copied when it is written to while a clone still reads it.
///
/// Buckets are sorted, so keys that were chosen to collide cost a binary search and no more.
#[derive(Clone, Debug)]
pub(crate) struct Buckets<V> {
    buckets: Vec<Arc<Bucket<V>>>,
    len: usize,
}

type Bucket<V> = Vec<(Box<[u8]>, V)>;

impl<V: Clone> Buckets<V> {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![Arc::default(); BUCKETS], len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let bucket = self.buckets.get(index(key))?;
        let at = bucket.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        bucket.get(at).map(|(_, value)| value)
    }

    /// Sets the value of a key, or removes it.
    pub(crate) fn set(&mut self, key: &[u8], value: Option<V>) {
        let Some(bucket) = self.buckets.get_mut(index(key)) else { return };
        let found = bucket.binary_search_by(|(k, _)| (**k).cmp(key));
        match (found, value) {
            (Ok(at), Some(value)) => Arc::make_mut(bucket)[at].1 = value,
            (Ok(at), None) => {
                Arc::make_mut(bucket).remove(at);
                self.len -= 1;
            }
            (Err(at), Some(value)) => {
                Arc::make_mut(bucket).insert(at, (key.into(), value));
                self.len += 1;
            }
            (Err(_), None) => {}
        }
    }
}

/// FNV-1a, folded: seeded with nothing, so that every run lays the map out alike.
fn index(key: &[u8]) -> usize {
    let hash =
        key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    (hash ^ (hash >> 32)) as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_saw_and_shares_what_nobody_touched() {
        let mut map = Buckets::new();
        for i in 0..1000_u32 {
            map.set(&i.to_be_bytes(), Some(i));
        }
        let before = map.clone();
        map.set(&7_u32.to_be_bytes(), None);
        map.set(&8_u32.to_be_bytes(), Some(80));
        assert_eq!((before.len(), map.len()), (1000, 999));
        assert_eq!(before.get(&7_u32.to_be_bytes()), Some(&7));
        assert_eq!((map.get(&7_u32.to_be_bytes()), map.get(&8_u32.to_be_bytes())), (None, Some(&80)));
        let copied = map.buckets.iter().zip(&before.buckets).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert!(copied <= 2, "{copied} buckets were copied");
    }
}
