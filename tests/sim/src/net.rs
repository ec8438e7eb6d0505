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

/// What travels on a link.
#[derive(Debug)]
pub(crate) enum Parcel {
    Message(Bytes),
    /// The sender closed the link, for this reason; what it sent before arrives before.
    Close(String),
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) under_way: VecDeque<(Instant, Parcel)>,
    pub(crate) blocked_since: Option<Instant>,
    /// When the receiving end is through with the handshake: nothing arrives before.
    pub(crate) opens: Option<Instant>,
    /// Whether somebody will look at what is under way.
    pub(crate) is_watched: bool,
}

/// How the network behaves.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// One way, inside a site.
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

    /// One way between two sites, on a good day.
    pub(crate) fn distance(&self, from_site: u32, to_site: u32) -> Duration {
        /// Between one site and the next.
        const LEG: Duration = Duration::from_millis(12);
        self.latency + LEG * from_site.abs_diff(to_site)
    }

    /// How long the next message over this distance takes.
    pub(crate) fn delay(&self, distance: Duration, rng: &mut ChaCha8Rng) -> Duration {
        let jitter = self.jitter.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX));
        let mut delay = distance + jitter;
        while rng.next_u32() % 1000 < self.loss_per_mille {
            // A probe time-out and another trip.
            delay += distance * 3;
        }
        delay
    }
}
