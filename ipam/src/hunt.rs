//! Looking for space: whom to ask, what to give, when to say that there is none.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use weave_model::{PeerName, Subnet};

use crate::{
    error::GossipError,
    ipam::{Event, Ipam},
    pending::{ADDRESS_ASK_PATIENCE, AddressAsk, Want},
    request::{Refusal, WaitReason},
    ring::Owner,
    span::{Span, to_number},
    wire::{self, AddressOutcome, Bundle, Message},
};

/// The search for space inside one window, for all requests that need it.
#[derive(Debug)]
pub(crate) struct Hunt {
    asked: Option<(PeerName, u64)>,
    /// Those that were asked in this round and gave nothing that is of use.
    done: BTreeSet<PeerName>,
    /// Those that had nothing to give when they were asked last, though they said that something is free: an address
    /// that is no container's in this window, or none any more.
    refused: BTreeSet<PeerName>,
    next_step: Instant,
}

/// Who asks for space.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) life: Owner,
    /// How often it was removed or came back, as it knows.
    pub(crate) term: u64,
}

/// How long an answer is waited for before the next router is asked.
const PATIENCE: Duration = Duration::from_millis(800);
/// Rounds begin again after so long, though nothing new was heard.
const ROUND_DELAY: Duration = Duration::from_secs(2);
/// Answers remembered for each router.
const MAX_ANSWERS: usize = 4;

impl Hunt {
    pub(crate) fn next_step(&self) -> Instant {
        self.next_step
    }
}

impl Ipam {
    /// Something changed that may help: begins all rounds again.
    pub(crate) fn stir_hunts(&mut self, now: Instant) {
        for hunt in self.hunts.values_mut().filter(|hunt| hunt.asked.is_none()) {
            hunt.done.clear();
            hunt.refused.clear();
            hunt.next_step = now;
        }
    }

    /// Keeps one search for each window that somebody needs space in.
    pub(crate) fn step_hunts(&mut self, now: Instant) {
        let may_ask = self.ring.is_some() && self.is_witnessed();
        let needed = if may_ask { self.needed_windows() } else { BTreeSet::new() };
        self.hunts.retain(|window, _| needed.contains(window));
        for window in needed {
            let hunt = self.hunts.entry(window).or_insert(Hunt {
                asked: None,
                done: BTreeSet::new(),
                refused: BTreeSet::new(),
                next_step: now,
            });
            if hunt.next_step > now {
                continue;
            }
            if let Some((peer, _)) = hunt.asked.take() {
                hunt.done.insert(peer);
            }
            self.step_hunt(window, now);
        }
    }

    fn needed_windows(&self) -> BTreeSet<Span> {
        let mut needed = BTreeSet::new();
        for pending in self.queue.iter() {
            if let Want::Allocate { owner, subnets } = &pending.want {
                let missing = subnets.iter().filter(|s| self.ledger.held_in(owner, **s).is_none());
                let windows = missing.filter_map(|s| Some(Span::of(*s)?.hosts()));
                needed.extend(windows.filter(|window| self.space.lowest(*window).is_none()));
            }
        }
        needed
    }

    fn step_hunt(&mut self, window: Span, now: Instant) {
        let (nonce, generation) = (self.nonce(), self.header.generation);
        let term = self.members.of(self.local).term();
        let ring = self.ring.as_ref().map_or(0, crate::ring::Ring::id);
        let best = self.best_donor(window);
        let Some(hunt) = self.hunts.get_mut(&window) else { return };
        match best {
            Some(peer) => {
                hunt.asked = Some((peer, nonce));
                hunt.next_step = now + PATIENCE;
                self.send(peer, &Message::SpaceAsk { nonce, ring, generation, term, window });
            }
            None => {
                hunt.done.clear();
                hunt.next_step = now + ROUND_DELAY;
            }
        }
    }

    /// The reachable router that says it has most free inside the window, of those not asked in this round.
    fn best_donor(&self, window: Span) -> Option<PeerName> {
        let ring = self.ring.as_ref()?.id();
        let done = &self.hunts.get(&window)?.done;
        self.mates()
            .filter(|(peer, fact)| {
                fact.ring.is_some_and(|r| r.id == ring) && !fact.is_leaving && !done.contains(peer)
            })
            .map(|(peer, fact)| {
                let free =
                    fact.free.iter().map(|(span, free)| span.clip(window).len().min(*free)).sum::<u128>();
                (free, std::cmp::Reverse(peer))
            })
            .filter(|(free, _)| *free > 0)
            .max()
            .map(|(_, std::cmp::Reverse(peer))| peer)
    }

    pub(crate) fn handle_space_ask(
        &mut self,
        asker: Asker,
        nonce: u64,
        ring: u64,
        window: Span,
        now: Instant,
    ) {
        let from = asker.life.peer;
        if self.repeat_answer(from, nonce)
            || self.ring.as_ref().is_none_or(|r| r.id() != ring)
            || window.is_empty()
        {
            return;
        }
        let may_give = self.leaving.is_none() && self.may_be_given(asker);
        let chunk = if may_give { self.space.chunk_to_give(window) } else { None };
        let given = chunk.map(|chunk| self.give(chunk, asker.life, now));
        let given = given.and_then(|entries| self.bundle(entries));
        self.answer(from, nonce, &Message::SpaceAnswer { nonce, given });
    }

    pub(crate) fn handle_space_answer(
        &mut self,
        from: PeerName,
        nonce: u64,
        given: Option<&Bundle>,
        now: Instant,
    ) -> Result<(), GossipError> {
        if let Some(bundle) = given {
            self.handle_ring(from, bundle, now)?;
        }
        for (window, hunt) in self.hunts.iter_mut().filter(|(_, h)| h.asked == Some((from, nonce))) {
            hunt.asked = None;
            hunt.next_step = now;
            // Who gave something may have more: what lies scattered is given piece by piece.
            if self.space.lowest(*window).is_none() {
                hunt.done.insert(from);
            }
            if given.is_some() {
                hunt.refused.remove(&from);
            } else {
                hunt.refused.insert(from);
            }
        }
        Ok(())
    }

    /// Asks the owner of an address that a container here claims, if that has not been done just now.
    pub(crate) fn ask_for_address(&mut self, address: u128, ask: &mut Option<AddressAsk>, now: Instant) {
        if ask.is_some_and(|ask| now < ask.retry_at) {
            return;
        }
        *ask = None;
        if !self.is_witnessed() {
            return;
        }
        let Some((ring, stamp)) = self.ring.as_ref().and_then(|r| Some((r.id(), r.stamp_of(address)?)))
        else {
            return;
        };
        let to = stamp.owner.peer;
        if to == self.local || !self.is_reachable(to) {
            return;
        }
        let (nonce, generation) = (self.nonce(), self.header.generation);
        let term = self.members.of(self.local).term();
        *ask = Some(AddressAsk { to, nonce, retry_at: now + ADDRESS_ASK_PATIENCE });
        self.send(to, &Message::AddressAsk { nonce, ring, generation, term, address });
    }

    pub(crate) fn handle_address_ask(
        &mut self,
        asker: Asker,
        nonce: u64,
        ring: u64,
        address: u128,
        now: Instant,
    ) {
        let from = asker.life.peer;
        if self.repeat_answer(from, nonce) || self.ring.as_ref().is_none_or(|r| r.id() != ring) {
            return;
        }
        let one = Span::one(address.min(u128::MAX - 1));
        let may_give = self.leaving.is_none() && self.may_be_given(asker);
        let outcome = if self.space.contains(address) && may_give {
            let given = self.give(one, asker.life, now);
            self.bundle(given).map(AddressOutcome::Given)
        } else if self.ledger.used_within(one).next().is_some() {
            Some(AddressOutcome::InUse)
        } else {
            let known: Vec<_> = self.ring.iter().flat_map(|r| r.within(one)).collect();
            self.bundle(known).map(AddressOutcome::NotMine)
        };
        if let Some(outcome) = outcome {
            self.answer(from, nonce, &Message::AddressAnswer { nonce, outcome });
        }
    }

    pub(crate) fn handle_address_answer(
        &mut self,
        from: PeerName,
        nonce: u64,
        outcome: &AddressOutcome,
        now: Instant,
    ) -> Result<(), GossipError> {
        match outcome {
            AddressOutcome::Given(bundle) | AddressOutcome::NotMine(bundle) => {
                self.handle_ring(from, bundle, now)?
            }
            AddressOutcome::InUse => {
                let refused = self.queue.iter().find_map(|pending| match &pending.want {
                    Want::Claim { address, ask: Some(ask), .. } if ask.to == from && ask.nonce == nonce => {
                        Some((pending.request, address.address()))
                    }
                    Want::Claim { .. } | Want::Allocate { .. } | Want::Prime => None,
                });
                if let Some((request, address)) = refused {
                    self.refuse_waiting(request, Refusal::OwnedByOther { address, peer: from });
                }
            }
        }
        Ok(())
    }

    /// Answers, and remembers the answer for when the question comes again.
    fn answer(&mut self, to: PeerName, nonce: u64, message: &Message) {
        let bytes = wire::encode(message);
        let answers = &mut self.peers.entry(to).or_default().answers;
        if answers.len() == MAX_ANSWERS {
            answers.pop_front();
        }
        answers.push_back((nonce, bytes.clone()));
        self.outbox.push(Event::Send { to, bytes });
    }

    fn repeat_answer(&mut self, to: PeerName, nonce: u64) -> bool {
        let known = self.peers.get(&to).and_then(|p| p.answers.iter().find(|(n, _)| *n == nonce));
        let Some((_, bytes)) = known else { return false };
        let bytes = bytes.clone();
        self.outbox.push(Event::Send { to, bytes });
        true
    }

    /// What a request waits for, as far as this router can tell.
    pub(crate) fn wait_reason(&self, want: &Want) -> WaitReason {
        let Some(ring) = &self.ring else {
            return match &self.consensus {
                Some(consensus) => WaitReason::Consensus {
                    quorum: consensus.quorum(),
                    known: self.voters(),
                    missing: self.unheard(),
                },
                None => WaitReason::Ring,
            };
        };
        let windows: Vec<Span> = match want {
            Want::Prime => return WaitReason::Ring,
            Want::Claim { address, .. } => vec![Span::one(to_number(address.address()))],
            Want::Allocate { owner, subnets } => {
                let missing = subnets.iter().filter(|s| self.ledger.held_in(owner, **s).is_none());
                missing.filter_map(|s| Some(Span::of(*s)?.hosts())).collect()
            }
        };
        let owners: BTreeSet<Owner> =
            windows.iter().flat_map(|window| ring.within(*window)).map(|entry| entry.stamp.owner).collect();
        if owners.iter().any(|owner| owner.peer == self.local && *owner != self.me()) {
            return self.own_wait_reason();
        }
        if let Some(reason) = self.enrolment_wait_reason() {
            return reason;
        }
        let others: BTreeSet<PeerName> = owners.iter().map(|o| o.peer).filter(|p| *p != self.local).collect();
        let unreachable: Vec<PeerName> = others.iter().copied().filter(|p| !self.is_reachable(*p)).collect();
        if !unreachable.is_empty() && self.has_nothing_free(&windows) {
            return WaitReason::OwnerUnreachable { peers: unreachable };
        }
        let asked = self.hunts.iter().filter(|(window, _)| windows.contains(window));
        let asked: BTreeSet<PeerName> =
            asked.flat_map(|(_, h)| h.done.union(&h.refused).copied().chain(h.asked.map(|a| a.0))).collect();
        WaitReason::Space { asked: asked.into_iter().collect() }
    }

    /// Whether nobody who can be reached has something free there. Where a router's words leave it open, because some
    /// of what it speaks of lies outside, its answer counts.
    fn has_nothing_free(&self, windows: &[Span]) -> bool {
        let has_some = |window: &Span, peer: PeerName, span: Span, free: u128| {
            let inside = span.clip(*window).len();
            let is_open = free <= span.len() - inside;
            let has_refused = self.hunts.get(window).is_some_and(|hunt| hunt.refused.contains(&peer));
            inside > 0 && !(is_open && has_refused)
        };
        let mut chunks = self
            .mates()
            .flat_map(|(peer, fact)| fact.free.iter().map(move |(span, free)| (peer, *span, *free)));
        !chunks.any(|(peer, span, free)| windows.iter().any(|window| has_some(window, peer, span, free)))
    }

    /// Whether every owner of the subnet can be reached and none has anything free in it.
    pub(crate) fn is_exhausted(&self, subnet: Subnet) -> bool {
        let (Some(window), Some(ring)) = (Span::of(subnet).map(Span::hosts), &self.ring) else {
            return false;
        };
        let mut owners = ring.within(window).map(|entry| entry.stamp.owner);
        owners.all(|owner| owner == self.me() || self.is_reachable(owner.peer))
            && self.has_nothing_free(&[window])
    }
}
