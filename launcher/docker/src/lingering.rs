//! Addresses that the engine has released: kept for a while, for the container that it starts again.
//!
//! The engine does not say for whom it wants an address. It releases one when a container stops and asks for one when it
//! starts; the last one released first is right whenever one container starts again at a time.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::pool::Pool;

/// How long an address waits for its container: longer than Docker waits before it starts one again that keeps failing
/// for the first nine times (100 ms, doubled each time).
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// Most addresses kept; beyond that the oldest go at once.
const MOST: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    pool: Pool,
    address: IpAddr,
    since: Instant,
}

/// Released addresses, in the order of their release.
#[derive(Debug, Default)]
pub(crate) struct Lingering(Vec<Entry>);

impl Lingering {
    /// Keeps an address that was just released.
    pub(crate) fn keep(&mut self, pool: Pool, address: IpAddr, now: Instant) {
        self.0.retain(|entry| entry.address != address);
        self.0.push(Entry { pool, address, since: now });
    }

    /// Gives out the address of this pool that was released last.
    pub(crate) fn take_latest(&mut self, pool: &Pool) -> Option<IpAddr> {
        let place = self.0.iter().rposition(|entry| entry.pool == *pool)?;
        Some(self.0.remove(place).address)
    }

    /// Gives out this address, if it waits.
    pub(crate) fn take(&mut self, address: IpAddr) -> bool {
        let before = self.0.len();
        self.0.retain(|entry| entry.address != address);
        self.0.len() < before
    }

    /// Whether this address waits.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|entry| entry.address == address)
    }

    /// Ends the wait of all addresses of a pool that goes.
    pub(crate) fn end_pool(&mut self, pool: &Pool, now: Instant) {
        for entry in self.0.iter_mut().filter(|entry| entry.pool == *pool) {
            entry.since = now.checked_sub(GRACE).unwrap_or(entry.since);
        }
    }

    /// Those whose wait is over. They wait on until [`take`](Self::take) is called.
    pub(crate) fn due(&self, now: Instant) -> Vec<IpAddr> {
        let surplus = self.0.len().saturating_sub(MOST);
        let is_due = |(place, entry): (usize, &Entry)| {
            place < surplus || now.saturating_duration_since(entry.since) >= GRACE
        };
        self.0.iter().enumerate().filter(|e| is_due(*e)).map(|(_, entry)| entry.address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        "weave/10.32.0.0/12".parse().unwrap()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 32, 0, last])
    }

    #[test]
    fn the_address_released_last_is_given_out_first() {
        let now = crate::clock::now();
        let mut lingering = Lingering::default();
        lingering.keep(pool(), address(1), now);
        lingering.keep(pool(), address(2), now);
        let other: Pool = "weave/10.40.0.0/24".parse().unwrap();
        assert_eq!(lingering.take_latest(&other), None);
        assert_eq!(lingering.take_latest(&pool()), Some(address(2)));
        assert!(lingering.take(address(1)) && !lingering.take(address(1)));
        assert_eq!(lingering.take_latest(&pool()), None);
    }

    #[test]
    fn an_address_is_due_when_its_time_is_over_or_its_pool_goes() {
        let start = crate::clock::now();
        let mut lingering = Lingering::default();
        lingering.keep(pool(), address(1), start);
        lingering.keep(pool(), address(2), start + GRACE / 2);
        assert!(lingering.due(start + GRACE / 2).is_empty());
        assert_eq!(lingering.due(start + GRACE), [address(1)]);
        lingering.end_pool(&pool(), start + GRACE);
        assert_eq!(lingering.due(start + GRACE), [address(1), address(2)]);
    }
}
