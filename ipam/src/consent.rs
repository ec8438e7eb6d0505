//! What comes back from those who are asked to agree to a take-over (`settle`), and who they are.

use std::time::Instant;

use weave_model::PeerName;

use crate::{
    error::GossipError,
    ipam::Ipam,
    mutant::{self, Mutant},
    request::Refusal,
    ring::Owner,
    settle::{STEP, YIELD_DELAY},
    span::Span,
    wire::{FreezeRefusal, Frozen, Message},
};

impl Ipam {
    /// Who must agree. What a store that may be from the past says of removals may be past too: as long as nobody else
    /// has spoken for it, those that were removed are asked as well, unless it was here and now.
    fn electorate(&self, subject: PeerName) -> Vec<PeerName> {
        let is_dead = |peer: &PeerName| self.settles.contains_key(peer);
        let is_sure = self.knows_the_members(subject);
        let removed = self.members.removed().filter(|peer| !is_sure && !self.removed_here.contains(peer));
        let all = self.members.iter().chain(removed);
        all.filter(|peer| *peer != self.local && *peer != subject && !is_dead(peer)).collect()
    }

    /// Whether this router is sure of its own store, or another has agreed who is, or more than half of the members.
    fn knows_the_members(&self, subject: PeerName) -> bool {
        let Some(settle) = self.settles.get(&subject) else { return true };
        let agreed = 1 + self.members.iter().filter(|peer| settle.agreed.contains(peer)).count();
        self.header.is_confirmed || settle.is_vouched || agreed > self.members.iter().count() / 2
    }

    /// Who has not agreed yet.
    pub(crate) fn missing_consent(&self, subject: PeerName) -> Vec<PeerName> {
        let Some(settle) = self.settles.get(&subject) else { return Vec::new() };
        let electorate = self.electorate(subject);
        if mutant::is(Mutant::MostAgree) && settle.agreed.len() > electorate.len() / 2 {
            return Vec::new();
        }
        electorate.into_iter().filter(|peer| !settle.agreed.contains(peer)).collect()
    }

    /// Those who agreed may have containers with addresses of the space: it was theirs as far as they knew, before
    /// stores from the past or a removal by mistake brought it to somebody else. What is so used goes to them.
    pub(crate) fn return_what_is_in_use(&mut self, in_use: Vec<(Owner, Vec<Span>)>, now: Instant) {
        for (owner, spans) in in_use {
            for span in spans {
                let free: Vec<Span> = self.space.within(span).collect();
                for part in free {
                    self.give(part, owner, now);
                }
            }
        }
    }

    pub(crate) fn handle_frozen(&mut self, from: PeerName, frozen: Frozen, now: Instant) {
        let subject = frozen.subject;
        if self.settles.get(&subject).is_none_or(|settle| settle.nonce != frozen.nonce) {
            return;
        }
        self.learn_members(&frozen.members, now);
        if subject == self.local {
            for (generation, epoch) in frozen.epochs {
                self.note_own_epoch(generation, epoch);
            }
        }
        if let Some(settle) = self.settles.get_mut(&subject) {
            settle.answered.insert(from);
            settle.alive_to.remove(&from);
            settle.is_vouched |= frozen.is_sure;
            if settle.agreed.insert(from) && !frozen.in_use.is_empty() {
                settle.in_use.push((Owner { peer: from, generation: frozen.generation }, frozen.in_use));
            }
        }
        if self.missing_consent(subject).is_empty() {
            self.complete(subject, now);
        }
    }

    pub(crate) fn handle_freeze_refused(
        &mut self,
        from: PeerName,
        subject: PeerName,
        nonce: u64,
        reason: FreezeRefusal,
        now: Instant,
    ) -> Result<(), GossipError> {
        let Some(settle) = self.settles.get_mut(&subject).filter(|settle| settle.nonce == nonce) else {
            return Ok(());
        };
        match reason {
            FreezeRefusal::Alive => {
                settle.alive_to.insert(from);
            }
            FreezeRefusal::Newer(bundle) => self.handle_ring(from, &bundle, now)?,
            FreezeRefusal::Raise(target) if target < u64::MAX >> 2 => {
                settle.target = settle.target.max(target + STEP);
                self.renew_settle(subject, now);
            }
            FreezeRefusal::Raise(_) => return Err(GossipError::Misbehaved("a version beyond its bound")),
            FreezeRefusal::Busy(by) if by == from && settle.request.is_some() => {
                self.abort(subject, Refusal::TakeOverInProgress { by });
            }
            FreezeRefusal::Busy(by) if by == from => settle.next_try = now + YIELD_DELAY,
            FreezeRefusal::Busy(by) => {
                settle.busy.insert(by);
                settle.answered.insert(from);
            }
        }
        Ok(())
    }

    pub(crate) fn handle_freeze_ask(
        &mut self,
        from: PeerName,
        subject: PeerName,
        nonce: u64,
        generation: u64,
    ) {
        let is_on = self.settles.get(&subject).is_some_and(|settle| settle.nonce == nonce);
        // Whoever asked, in this life or one that this store knows all of, knows what came of it. So does the operator
        // who had this router take over what its lost stores owned.
        let is_known = generation == self.header.generation
            || (!self.header.is_stale && self.header.prior.iter().any(|(life, _)| *life == generation))
            || self.header.vouches;
        if !is_on && is_known {
            let ring = self.whole_ring();
            self.send(from, &Message::Unfreeze { subject, nonce, ring });
        }
    }
}
