//! What upstream servers said lately.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::forwarder::Relayed;
use crate::wire::{ClientEdns, age};

/// How many responses are kept.
const MAX_ENTRIES: usize = 1024;
/// Longer responses are not kept, so that the cache stays below 4 MiB.
const MAX_LEN: usize = 4096;
/// The longest that anything is kept, whatever its TTL says: a mistake upstream should not outlive a coffee.
const MAX_TTL: Duration = Duration::from_secs(300);

/// Everything about a query that its answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The question on the wire, in lower case.
    pub(super) question: Vec<u8>,
    pub(super) checking_disabled: bool,
    pub(super) edns: Option<ClientEdns>,
}

/// A bounded cache that honours TTLs.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept_by_key: BTreeMap<Key, Kept>,
    /// The same keys, by when they end.
    ends: BTreeSet<(Instant, Key)>,
}

#[derive(Debug)]
struct Kept {
    response: Relayed,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The response to a query, its TTLs lowered by the time it was kept.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<Relayed> {
        let kept = self.kept_by_key.get(key).filter(|kept| now < kept.until)?;
        let seconds = now.duration_since(kept.since).as_secs();
        let mut response = kept.response.clone();
        age(&mut response.message, &response.layout.ttls, u32::try_from(seconds).unwrap_or(u32::MAX));
        Some(response)
    }

    /// Keeps a response for as long as it says, if that is any time at all.
    pub(super) fn insert(&mut self, key: Key, response: &Relayed, now: Instant) {
        let keep =
            response.layout.keep_s.map_or(Duration::ZERO, |s| Duration::from_secs(s.into())).min(MAX_TTL);
        if keep.is_zero() || response.message.len() > MAX_LEN {
            return;
        }
        self.remove(&key);
        if self.kept_by_key.len() >= MAX_ENTRIES
            && let Some((_, soonest)) = self.ends.first().cloned()
        {
            self.remove(&soonest);
        }
        let until = now + keep;
        self.ends.insert((until, key.clone()));
        self.kept_by_key.insert(key, Kept { response: response.clone(), since: now, until });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept_by_key.remove(key) {
            self.ends.remove(&(kept.until, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wire::Layout;

    fn key(n: usize) -> Key {
        Key { question: n.to_be_bytes().to_vec(), checking_disabled: false, edns: None }
    }

    fn response(keep_s: u32) -> Relayed {
        let layout = Layout { question: 0..0, ttls: vec![0], keep_s: Some(keep_s), opt: None, code: 0 };
        Relayed { message: keep_s.to_be_bytes().to_vec(), layout: Arc::new(layout) }
    }

    #[test]
    fn an_answer_ages_and_ends() {
        let mut cache = Cache::default();
        let start = Instant::now();
        cache.insert(key(1), &response(10), start);
        let later = start + Duration::from_secs(4);
        assert_eq!(cache.find(&key(1), later).unwrap().message, 6_u32.to_be_bytes());
        assert!(cache.find(&key(1), start + Duration::from_secs(10)).is_none());
        assert!(cache.find(&key(2), start).is_none());
        cache.insert(key(2), &response(0), start);
        assert!(cache.find(&key(2), start).is_none(), "a TTL of 0 is not kept");
    }

    #[test]
    fn a_full_cache_lets_go_of_what_ends_first() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for n in 0..=MAX_ENTRIES {
            cache.insert(key(n), &response(if n == 7 { 1 } else { 100 }), now);
        }
        assert_eq!((cache.kept_by_key.len(), cache.ends.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(cache.find(&key(7), now).is_none() && cache.find(&key(8), now).is_some());
    }
}
