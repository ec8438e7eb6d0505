//! What the engine counts of itself, for metrics.

use std::collections::BTreeMap;

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

    pub(crate) fn answer(&mut self, result: &Result<Reply, Refusal>) {
        let outcome = match result {
            Ok(_) => "granted",
            Err(Refusal::Cancelled) => "cancelled",
            Err(refusal) => ops::explain_refusal(refusal).code.as_str(),
        };
        *self.ring_requests.entry([outcome]).or_default() += 1;
    }
}
