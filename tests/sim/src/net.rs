//! The wires between hosts.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore as _;
use weave_model::LinkId;

/// A link whose one direction is blocked for this long ends at both ends (the daemon's QUIC idle timeout).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(25);
/// A dial that nobody answers fails after this long (the daemon's handshake timeout).
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a blocked wire is looked at again: QUIC's probe, roughly.
pub(crate) const PROBE: Duration = Duration::from_millis(500);

/// One end of a link: which host, in which of its lives, and the host's number for the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) host: usize,
    pub(crate) life: u32,
    pub(crate) link: LinkId,
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) under_way: VecDeque<(Instant, Bytes)>,
    pub(crate) blocked_since: Option<Instant>,
}

/// How the network behaves.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// One way, on every path.
    pub(crate) latency: Duration,
    /// At most this much on top.
    pub(crate) jitter: Duration,
    /// Of 1,000 messages, how many are lost and sent again.
    pub(crate) loss_per_mille: u32,
    /// Directed pairs of hosts that do not hear each other.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
}

impl Weather {
    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// Whether a conversation is possible.
    pub(crate) fn is_open_both_ways(&self, a: usize, b: usize) -> bool {
        self.is_open(a, b) && self.is_open(b, a)
    }

    /// How long the next message takes.
    pub(crate) fn delay(&self, rng: &mut ChaCha8Rng) -> Duration {
        let jitter = self.jitter.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX));
        let mut delay = self.latency + jitter;
        while rng.next_u32() % 1000 < self.loss_per_mille {
            // A probe time-out and another trip.
            delay += self.latency * 3;
        }
        delay
    }
}
