//! Leaving the mesh for good: all space goes to one other router, and is known to have arrived.

use std::time::{Duration, Instant};

use weave_model::{ContainerId, Interface, PeerName};

use crate::{
    error::GossipError,
    hunt::Asker,
    ipam::Ipam,
    members::term_of,
    request::{Refusal, Reply, RequestId, WaitReason},
    ring::{Owner, Ring},
    status::PendingStatus,
    wire::{Bundle, Message},
};

/// A bequest that is under way, or was confirmed.
#[derive(Debug)]
pub(crate) struct Leaving {
    request: RequestId,
    heir: PeerName,
    nonce: u64,
    next_try: Option<Instant>,
    /// What containers held.
    released: Vec<(ContainerId, Interface)>,
}

const RETRY_DELAY: Duration = Duration::from_millis(500);

impl Leaving {
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.next_try
    }

    /// The request, while it waits.
    pub(crate) fn pending(&self) -> Option<PendingStatus> {
        self.next_try?;
        let waiting_for = WaitReason::Heir { peer: self.heir };
        Some(PendingStatus { request: self.request, owner: None, waiting_for })
    }
}

impl Ipam {
    /// Frees every address held here and hands all space to another router: one that owns space already, if such a one
    /// can be reached. From then on nothing is handed out here. Answered by [`Reply::Done`] once the heir has
    /// stored it; a driver that cannot wait may stop, and the space can be had by `rmpeer`.
    pub fn leave(&mut self, request: RequestId, now: Instant) {
        if self.leaving.is_some() {
            self.reply(request, Err(Refusal::Leaving));
            return self.finish(now);
        }
        let own: Vec<_> = self.ring.iter().flat_map(|r| r.owned_by(self.me())).map(|e| e.span).collect();
        match self.choose_heir() {
            None if own.is_empty() => {
                self.release_all(now);
                self.reply(request, Ok(Reply::Done));
            }
            None => self.reply(request, Err(Refusal::NoHeir)),
            Some(heir) => {
                let released = self.allocations().map(|(owner, held)| (owner.clone(), held)).collect();
                self.release_all(now);
                self.abort_settles();
                self.end_crossing(Err(Refusal::Leaving));
                self.members.remove(self.local);
                for span in own {
                    self.give(span, heir, now);
                }
                let nonce = self.nonce();
                self.leaving =
                    Some(Leaving { request, heir: heir.peer, nonce, next_try: Some(now), released });
                self.repeat_bequest(now);
                self.publish_by(now);
            }
        }
        self.finish(now);
    }

    /// Calls a leave off, confirmed or not: this router is a member again, and its containers hold what they held. The
    /// space itself is the heir's; [`Ipam::reclaim`] gets back what containers hold of it. Does nothing where nobody leaves.
    ///
    /// A router that others removed comes back by forgetting its ring. This one need not: it owns nothing of it, so that
    /// nothing was divided behind its back, and has been silent only.
    pub fn stay(&mut self, now: Instant) {
        let Some(leaving) = self.leaving.take() else { return };
        if leaving.next_try.is_some() {
            self.reply(leaving.request, Err(Refusal::Cancelled));
        }
        self.members.rejoin(self.local);
        for (owner, held) in leaving.released {
            if self.ledger.holder(held.address()).is_none() {
                self.hold(&owner, held, now);
            }
        }
        self.publish_by(now);
        self.compare_rings(now);
        self.finish(now);
    }

    fn choose_heir(&self) -> Option<Owner> {
        let ring = self.ring.as_ref()?;
        let is_owner = |peer: PeerName| ring.lives_of(peer).next().is_some();
        self.mates()
            .filter(|(peer, fact)| {
                fact.ring.is_some_and(|r| r.id == ring.id())
                    && !fact.is_leaving
                    && fact.is_witnessed
                    && self.may_be_given(Asker {
                        life: Owner { peer: *peer, generation: fact.generation },
                        term: term_of(fact.changes),
                    })
            })
            .map(|(peer, fact)| (!is_owner(peer), Owner { peer, generation: fact.generation }))
            .min()
            .map(|(_, owner)| owner)
    }

    pub(crate) fn repeat_bequest(&mut self, now: Instant) {
        let Some(leaving) = self.leaving.as_mut().filter(|l| l.next_try.is_some_and(|at| at <= now)) else {
            return;
        };
        leaving.next_try = Some(now + RETRY_DELAY);
        let (heir, nonce) = (leaving.heir, leaving.nonce);
        // Should the heir itself be gone meanwhile, it is enough that somebody knows.
        let witness = self.mates().map(|(peer, _)| peer).next().filter(|_| !self.is_reachable(heir));
        if let Some(ring) = self.whole_ring() {
            self.send(witness.unwrap_or(heir), &Message::Bequest { nonce, ring });
        }
    }

    pub(crate) fn handle_bequest(
        &mut self,
        from: PeerName,
        nonce: u64,
        bundle: &Bundle,
        now: Instant,
    ) -> Result<(), GossipError> {
        self.handle_ring(from, bundle, now)?;
        if self.ring.as_ref().map(Ring::id) == Some(bundle.ring) {
            self.send(from, &Message::BequestTaken { nonce });
        }
        Ok(())
    }

    pub(crate) fn handle_bequest_taken(&mut self, nonce: u64) {
        if let Some(leaving) = self.leaving.as_mut().filter(|l| l.nonce == nonce)
            && leaving.next_try.take().is_some()
        {
            let request = leaving.request;
            self.reply(request, Ok(Reply::Done));
        }
    }
}
