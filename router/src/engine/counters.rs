//! What the engine counts of itself, for metrics.

use std::{collections::BTreeMap, time::Duration};

use weave_ipam::{Refusal, Reply};

use crate::ops;

/// Counts by a few words that are known beforehand: bounded, whatever the network says.
pub(crate) type ByWords<const N: usize> = BTreeMap<[&'static str; N], u64>;

/// Everything that is counted, since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    /// Links that the mesh was given.
    pub(crate) opened: u64,
    /// Links that have ended, by how: we closed it, the other end misbehaved, or it was lost.
    pub(crate) ended: ByWords<1>,
    /// Attempts at links that came to nothing: who dialled, and why.
    pub(crate) handshake_failures: ByWords<2>,
    /// Connections that were refused in the handshake.
    pub(crate) refused_links: u64,
    /// Facts and messages of peers that a core refused.
    pub(crate) refused_inputs: u64,
    /// What began or ceased to be able to carry a link: overlay, `up` or `down`.
    pub(crate) transitions: ByWords<2>,
    /// Requests to the ring, by how they ended.
    pub(crate) ring_requests: ByWords<1>,
    /// How long the ring took to answer them.
    pub(crate) ring_waits: Waits,
    /// Messages of the mesh and their bytes: `sent` or `received`, and the kind.
    pub(crate) gossip_messages: ByWords<2>,
    pub(crate) gossip_bytes: ByWords<2>,
    /// Routers that came and went.
    pub(crate) joined: u64,
    pub(crate) left: u64,
}

impl Counters {
    /// Links that have ended.
    pub(crate) fn terminations(&self) -> u64 {
        self.ended.values().sum()
    }

    pub(crate) fn end(&mut self, how: &'static str) {
        *self.ended.entry([how]).or_default() += 1;
    }

    pub(crate) fn fail(&mut self, side: &'static str, reason: &'static str) {
        *self.handshake_failures.entry([side, reason]).or_default() += 1;
    }

    pub(crate) fn turn(&mut self, overlay: &'static str, to: &'static str) {
        *self.transitions.entry([overlay, to]).or_default() += 1;
    }

    /// Counts a message of the mesh by its first byte, its kind (docs/protocol.md, section 3).
    pub(crate) fn gossip(&mut self, direction: &'static str, message: &[u8]) {
        let kind = match message.first() {
            Some(1) => "hash",
            Some(2) => "digest",
            Some(3) => "want",
            Some(4) => "facts",
            Some(5) => "send",
            Some(6) => "broadcast",
            Some(7) => "observed",
            Some(8) => "refuse",
            Some(9) => "claim",
            // A sign of life.
            None => "empty",
            Some(_) => "unknown",
        };
        *self.gossip_messages.entry([direction, kind]).or_default() += 1;
        *self.gossip_bytes.entry([direction, kind]).or_default() += message.len() as u64;
    }

    pub(crate) fn answer(&mut self, result: &Result<Reply, Refusal>) {
        let outcome = match result {
            Ok(_) => "granted",
            Err(Refusal::Cancelled) => "cancelled",
            Err(refusal) => ops::code_of(refusal).as_str(),
        };
        *self.ring_requests.entry([outcome]).or_default() += 1;
    }
}

/// Upper bounds of the classes of waiting times; one more class has what took longer. Most answers come at once, those that need
/// another router take a round trip, and a ring that does not exist yet takes until its routers are there.
pub(crate) const WAIT_BUCKETS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// Waiting times by class.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits {
    /// How many fell into each class, not into those before.
    pub(crate) counts: [u64; WAIT_BUCKETS.len() + 1],
    /// All together.
    pub(crate) sum: Duration,
}

impl Waits {
    pub(crate) fn record(&mut self, waited: Duration) {
        let class = WAIT_BUCKETS.iter().position(|bound| waited <= *bound).unwrap_or(WAIT_BUCKETS.len());
        self.counts[class] += 1;
        self.sum = self.sum.saturating_add(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_falls_into_one_class() {
        let mut waits = Waits::default();
        for ms in [0, 1, 2, 1_000, 300_000, 300_001] {
            waits.record(Duration::from_millis(ms));
        }
        assert_eq!(waits.counts, [2, 1, 0, 1, 0, 0, 0, 1, 1]);
        waits.record(Duration::MAX);
        assert_eq!(waits.sum, Duration::MAX);
    }

    #[test]
    fn messages_are_counted_by_kind_whatever_comes() {
        let mut counters = Counters::default();
        for kind in 0..=u8::MAX {
            counters.gossip("received", &[kind, 0]);
        }
        counters.gossip("sent", &[]);
        assert_eq!(counters.gossip_bytes[&["received", "facts"]], 2);
        assert_eq!(counters.gossip_messages[&["received", "unknown"]], 247);
        assert_eq!(counters.gossip_messages.len(), 11);
    }
}
