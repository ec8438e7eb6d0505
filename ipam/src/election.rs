//! When to vote for the first ring, and who begins.

use std::time::{Duration, Instant};

use weave_model::PeerName;

use crate::{
    ipam::Ipam,
    peer::Peer,
    ring::{Owner, Ring},
    status::ElectionStatus,
    store,
};

/// Timing of our own proposals.
#[derive(Debug, Default)]
pub(crate) struct Election {
    at: Option<Instant>,
    attempts: u32,
}

/// The router that is expected to propose waits this long, so that those who join together are all seeds.
const FIRST_DELAY: Duration = Duration::from_millis(40);
/// Others let it go first for this long, and as long again at random.
const OTHERS_DELAY: Duration = Duration::from_millis(250);
/// A round that came to nothing is left this long, and as long again at random, before the next.
const RETRY_DELAY: Duration = Duration::from_millis(600);
/// Doublings of that delay at most.
const MAX_DOUBLINGS: u32 = 4;

impl Election {
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }
}

impl Ipam {
    /// Votes on what is known, and sees to it that somebody proposes when a ring is wanted.
    pub(crate) fn consider_election(&mut self, now: Instant) {
        if self.ring.is_some() {
            return;
        }
        if self.consensus.is_none() {
            return;
        }
        self.vote(now);
        let Some(consensus) = self.consensus.as_ref().filter(|_| self.ring.is_none()) else { return };
        let is_under_way = consensus.is_under_way();
        let quorum = consensus.quorum();
        let is_wanted =
            is_under_way || !self.queue.is_empty() || self.mates().any(|(_, fact)| fact.is_waiting);
        if !is_wanted || self.voters() < quorum {
            self.election.at = None;
            return;
        }
        if quorum == 1 && !is_under_way {
            self.propose(now);
        } else if self.election.at.is_none() {
            let delay = match (is_under_way, self.is_first_voter()) {
                (true, _) => RETRY_DELAY + self.jitter(RETRY_DELAY),
                (false, true) => FIRST_DELAY,
                (false, false) => OTHERS_DELAY + self.jitter(OTHERS_DELAY),
            };
            self.election.at = Some(now + delay);
        }
    }

    pub(crate) fn run_election(&mut self, now: Instant) {
        if self.election.at.is_some_and(|at| at <= now) {
            self.election.at = None;
            self.propose(now);
        }
    }

    /// Voters that can be reached, this router included.
    pub(crate) fn voters(&self) -> usize {
        1 + self.mates().filter(|(_, fact)| fact.acceptor.is_some()).count()
    }

    /// What an operator is told of a vote that is not over.
    pub(crate) fn election_status(&self) -> Option<ElectionStatus> {
        let consensus = self.consensus.as_ref().filter(|_| self.ring.is_none())?;
        let heard = self.mates().filter(|(_, fact)| fact.acceptor.is_some()).map(|(peer, _)| peer);
        Some(ElectionStatus { quorum: consensus.quorum(), heard: heard.collect(), missing: self.unheard() })
    }

    /// Routers that were met and may vote, and that cannot be heard.
    pub(crate) fn unheard(&self) -> Vec<PeerName> {
        let votes = |peer: &Peer| peer.fact.as_ref().is_none_or(|fact| fact.acceptor.is_some());
        let is_heard = |peer: &Peer| peer.is_reachable && peer.fact.is_some();
        self.peers.iter().filter(|(_, peer)| votes(peer) && !is_heard(peer)).map(|(name, _)| *name).collect()
    }

    fn is_first_voter(&self) -> bool {
        self.mates().all(|(peer, fact)| fact.acceptor.is_none() || self.local < peer)
    }

    fn propose(&mut self, now: Instant) {
        let Some(consensus) = self.consensus.as_mut().filter(|_| self.ring.is_none()) else { return };
        consensus.propose();
        self.writes.push(store::write_acceptor(consensus.own()));
        let doublings = self.election.attempts.min(MAX_DOUBLINGS);
        self.election.attempts += 1;
        let delay = RETRY_DELAY * 2_u32.pow(doublings);
        self.election.at = Some(now + delay + self.jitter(delay));
        self.publish_by(now);
        self.vote(now);
    }

    /// One step of the vote. Our state is stored before it is published, because both come out of one input.
    fn vote(&mut self, now: Instant) {
        let candidates = self.candidates();
        let Some(consensus) = self.consensus.as_mut().filter(|_| self.ring.is_none()) else { return };
        if consensus.step(|| candidates) {
            self.writes.push(store::write_acceptor(consensus.own()));
            self.publish_by(now);
        }
        if let Some(seeds) = self.consensus.as_ref().and_then(|c| c.chosen()).cloned() {
            let ring = Ring::divide(&self.universe, &seeds);
            self.adopt(ring, now);
        }
    }

    /// Who would share the ring if we were to say: every voter that can be reached.
    fn candidates(&self) -> Vec<Owner> {
        let mates = self.mates().filter(|(_, fact)| fact.acceptor.is_some());
        let mut seeds: Vec<Owner> = mates
            .map(|(peer, fact)| Owner { peer, generation: fact.generation })
            .chain([self.me()])
            .collect();
        seeds.sort_unstable();
        seeds
    }
}
