//! What is known of the other routers, and what they are told of this one.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use weave_model::PeerName;

use crate::{
    error::GossipError,
    ipam::{Event, Ipam},
    members::Membership,
    ring::Owner,
    span::Span,
    wire::{self, Fact, MAX_CHUNKS, RingNote},
};

/// What is known of one router.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) is_reachable: bool,
    pub(crate) fact: Option<Fact>,
    /// What the mesh calls it; empty where that was not said.
    pub(crate) nickname: String,
    /// Who started its ring, where that is another than ours.
    pub(crate) other_seeds: Vec<PeerName>,
    /// Its last message or fact could not be read.
    pub(crate) is_unreadable: bool,
    /// Our last answers to it, by nonce, so that a repeated question gets the same answer.
    pub(crate) answers: VecDeque<(u64, Vec<u8>)>,
}

/// Changes that nobody waits for are published together after this long.
const FACT_DELAY: Duration = Duration::from_millis(700);
/// Lives of one router whose last change is remembered.
const MAX_LIVES: usize = 8;

impl Ipam {
    /// A router can be reached, directly or through others.
    pub fn handle_peer_reachable(&mut self, peer: PeerName, now: Instant) {
        if peer != self.local {
            self.peers.entry(peer).or_default().is_reachable = true;
            self.compare_rings(now);
            self.stir_hunts(now);
            self.stir_enrolment(now);
            self.finish(now);
        }
    }

    /// A router cannot be reached any more. Nothing is forgotten of it.
    pub fn handle_peer_unreachable(&mut self, peer: PeerName, now: Instant) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.is_reachable = false;
            self.stir_hunts(now);
            self.finish(now);
        }
    }

    /// Takes another router's fact; `None` when the mesh has dropped it. A later value replaces an earlier one.
    ///
    /// # Errors
    /// When it cannot be read, contradicts itself or is of another version. The last good value is kept.
    pub fn handle_peer_state(
        &mut self,
        peer: PeerName,
        state: Option<&[u8]>,
        now: Instant,
    ) -> Result<(), GossipError> {
        if peer == self.local {
            return match state {
                Some(bytes) => self.handle_own_previous_state(bytes, now),
                None => Ok(()),
            };
        }
        let result = match state {
            Some(bytes) => read_fact(bytes).map(|fact| self.take_fact(peer, fact, now)),
            None => {
                self.drop_fact(peer);
                Ok(())
            }
        };
        self.note_readable(peer, result.is_ok());
        self.finish(now);
        result
    }

    /// Takes this router's own fact as the mesh still has it from before. When it tells of changes that this store
    /// does not have, the store is from the past: its space is fenced until it is settled.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn handle_own_previous_state(&mut self, state: &[u8], now: Instant) -> Result<(), GossipError> {
        let fact = read_fact(state)?;
        if fact.universe == self.universe_id {
            self.note_own_epoch(fact.generation, fact.epoch);
        }
        self.finish(now);
        Ok(())
    }

    fn take_fact(&mut self, peer: PeerName, fact: Fact, now: Instant) {
        let is_ours = fact.universe == self.universe_id;
        if is_ours {
            self.note_epoch(Owner { peer, generation: fact.generation }, fact.epoch);
            match &fact.acceptor {
                Some(acceptor) if fact.ring.is_none() => {
                    if let Some(consensus) = &mut self.consensus {
                        consensus.record(peer, acceptor.clone());
                    }
                }
                Some(_) | None => {}
            }
            if let Some(membership) = self.membership_in(&fact) {
                self.learn_members(&[(peer, membership)], now);
            }
        }
        let had_space =
            self.peers.get(&peer).is_some_and(|p| p.fact.as_ref().is_some_and(|f| !f.free.is_empty()));
        let has_space = !fact.free.is_empty();
        self.peers.entry(peer).or_default().fact = Some(fact);
        if has_space && !had_space {
            self.stir_hunts(now);
        }
        self.compare_rings(now);
        self.consider_adoption(now);
    }

    /// What a fact says of its router's membership; nothing where it has no part in our ring.
    pub(crate) fn membership_in(&self, fact: &Fact) -> Option<Membership> {
        let is_on_ring = fact.ring?.id == self.ring.as_ref()?.id();
        is_on_ring.then_some(Membership { changes: fact.changes, is_member: !fact.is_leaving })
    }

    fn drop_fact(&mut self, peer: PeerName) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.fact = None;
            known.other_seeds.clear();
            if !known.is_reachable {
                self.peers.remove(&peer);
            }
        }
    }

    pub(crate) fn note_epoch(&mut self, life: Owner, epoch: u64) {
        let known = self.epochs.entry(life).or_default();
        *known = (*known).max(epoch);
        let lives =
            Owner { peer: life.peer, generation: 0 }..=Owner { peer: life.peer, generation: u64::MAX };
        if self.epochs.range(lives.clone()).count() > MAX_LIVES {
            let oldest = self.epochs.range(lives).min_by_key(|(_, epoch)| **epoch).map(|(life, _)| *life);
            oldest.map(|life| self.epochs.remove(&life));
        }
    }

    pub(crate) fn note_readable(&mut self, peer: PeerName, is_readable: bool) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.is_unreadable = !is_readable;
        }
    }

    pub(crate) fn is_reachable(&self, peer: PeerName) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.is_reachable)
    }

    /// The life that a router last spoke of.
    pub(crate) fn life_of(&self, peer: PeerName) -> Option<u64> {
        Some(self.peers.get(&peer)?.fact.as_ref()?.generation)
    }

    /// Reachable routers whose fact is known and speaks of our ranges.
    pub(crate) fn mates(&self) -> impl Iterator<Item = (PeerName, &Fact)> {
        self.peers.iter().filter(|(_, p)| p.is_reachable).filter_map(|(peer, p)| {
            let fact = p.fact.as_ref().filter(|fact| fact.universe == self.universe_id)?;
            Some((*peer, fact))
        })
    }

    /// Publishes soon: something changed that others need, but do not wait for.
    pub(crate) fn publish_lazily(&mut self, now: Instant) {
        if self.fact_at.is_none() {
            self.fact_at = Some(now + FACT_DELAY / 2 + self.jitter(FACT_DELAY));
        }
    }

    pub(crate) fn publish_fact(&mut self, now: Instant) {
        if self.fact_at.is_none_or(|at| now < at) {
            return;
        }
        self.fact_at = None;
        let fact = wire::encode(&self.fact());
        if fact != self.published {
            self.published.clone_from(&fact);
            self.outbox.push(Event::Publish(fact));
        }
    }

    fn fact(&self) -> Fact {
        let acceptor = self.consensus.as_ref().filter(|_| self.ring.is_none()).map(|c| c.own().clone());
        Fact {
            generation: self.header.generation,
            epoch: self.epoch,
            universe: self.universe_id,
            acceptor,
            changes: self.members.of(self.local).changes,
            is_waiting: self.ring.is_none() && !self.queue.is_empty(),
            is_leaving: self.leaving.is_some(),
            is_witnessed: self.is_witnessed(),
            has_holders: !self.ledger.is_empty(),
            ring: self.ring_note(),
            free: self.free_chunks(),
        }
    }

    /// Which ring this router is on, and a digest of all that routers on it must agree on.
    pub(crate) fn ring_note(&self) -> Option<RingNote> {
        let ring = self.ring.as_ref()?;
        Some(RingNote { id: ring.id(), digest: ring.digest() ^ self.members.digest() })
    }

    fn free_chunks(&self) -> Vec<(Span, u128)> {
        let own: Vec<Span> = self.ring.iter().flat_map(|r| r.owned_by(self.me())).map(|e| e.span).collect();
        let per_chunk = own.len().div_ceil(MAX_CHUNKS).max(1);
        own.chunks(per_chunk)
            .filter_map(|spans| {
                let span = Span::new(spans.first()?.lo, spans.last()?.hi);
                let free = self.space.count_within(span);
                (free > 0).then_some((span, free))
            })
            .collect()
    }
}

fn read_fact(bytes: &[u8]) -> Result<Fact, GossipError> {
    let fact: Fact = wire::decode(bytes)?;
    fact.check()?;
    Ok(fact)
}
