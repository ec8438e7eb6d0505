//! One target's fortunes.

use std::time::{Duration, Instant};

use weave_model::PeerName;

use super::Pace;
use crate::{DialId, random::Random};

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Due then, if there is room.
    Waiting(Instant),
    /// Under way.
    Dialing(DialId),
    /// There is a link to this peer, be it by this attempt or not.
    Linked(PeerName),
    /// Until the operator asks again.
    Never,
}

/// A target, or a peer that others told of.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) state: State,
    /// Since when.
    pub(crate) since: Instant,
    /// The next wait, before jitter.
    pub(crate) backoff: Duration,
    /// Why the last one ended.
    pub(crate) failure: Option<String>,
    /// Who answered last.
    pub(crate) peer: Option<PeerName>,
}

impl Attempt {
    pub(crate) const fn new(backoff: Duration, now: Instant) -> Self {
        Self { state: State::Never, since: now, backoff, failure: None, peer: None }
    }

    /// Goes over to another state; returns the one before.
    pub(crate) fn change(&mut self, state: State, now: Instant) -> State {
        if self.state != state {
            self.since = now;
        }
        std::mem::replace(&mut self.state, state)
    }

    /// How long to wait now; longer the next time.
    pub(crate) fn next_wait(&mut self, pace: Pace, random: &mut Random) -> Duration {
        let wait = random.around(self.backoff);
        self.backoff = (self.backoff * 3 / 2).min(pace.limit);
        wait
    }
}
