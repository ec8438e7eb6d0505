//! Repair by an operator's word: going over to another ring, and asking again for what containers hold already.
//!
//! Where two rings meet and both have containers, nobody gives way by itself: some addresses are held twice then, and
//! only people know which containers may be renumbered. One side has to go over to the other's ring, each router by
//! itself. Both sides compute from the same facts which one that is. A router keeps what its containers hold, and its
//! old ring, until it has the whole of the new one; then it asks the owners of these addresses for them, and whoever
//! cannot have an address because another container has it is told so.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Interface, PeerName};

use crate::{
    ipam::Ipam,
    members::Membership,
    pending::Want,
    request::{Refusal, Reply, RequestId, WaitReason},
    ring::Ring,
    span::to_number,
    wire::Message,
};

/// What a repair would do here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairPlan {
    /// Two rings have met.
    pub meeting: Option<Meeting>,
    /// What containers here hold, and would have to be asked for: in space of others, or in that of another ring.
    pub claims: Vec<Misplaced>,
    /// Addresses of earlier stores of this router, which would be taken over.
    pub unsettled: u128,
    /// Members that would have to agree to that, and cannot be reached.
    pub silent: Vec<PeerName>,
}

/// Two rings over the same ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meeting {
    /// Those on our ring, this router included.
    pub ours: Side,
    /// Those on the other; of several others, the one that would be kept.
    pub theirs: Side,
    /// Whether ours is the side that is to go over.
    pub gives_way: bool,
}

/// Routers that can be reached and share a ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Tells the ring from others.
    pub ring: u64,
    /// Who, in order of name.
    pub peers: Vec<PeerName>,
    /// Who started the ring, where known.
    pub seeds: Vec<PeerName>,
    /// Whether containers hold addresses of it.
    pub is_used: bool,
}

/// An address that a container here holds and that this router does not own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misplaced {
    /// The container.
    pub container: ContainerId,
    /// What it holds.
    pub address: Interface,
    /// Who owns it on our ring.
    pub peer: Option<PeerName>,
}

/// Going over to another ring.
#[derive(Debug)]
pub(crate) struct Crossing {
    request: RequestId,
    target: u64,
    deadline: Instant,
    next_try: Instant,
}

/// The other ring is asked for again after so long.
const ASK_DELAY: Duration = Duration::from_millis(500);

impl Crossing {
    pub(crate) fn next_step(&self) -> Instant {
        self.next_try.min(self.deadline)
    }
}

impl Side {
    /// The greatest is kept: one that is used, then the larger, then the one with the lower number.
    fn rank(&self) -> (bool, usize, Reverse<u64>) {
        (self.is_used, self.peers.len(), Reverse(self.ring))
    }
}

impl Ipam {
    /// What a repair would do here, from what is known now. Nothing is changed.
    #[must_use]
    pub fn repair_plan(&self) -> RepairPlan {
        let meeting = self.meeting();
        let goes_over = meeting.as_ref().is_some_and(|meeting| meeting.gives_way);
        let owned_before =
            self.owned_before().flat_map(|life| self.ring.iter().flat_map(move |r| r.owned_by(life)));
        let unsettled: u128 = owned_before.map(|entry| entry.span.len()).sum();
        let silent = self.members.iter().filter(|peer| *peer != self.local && !self.is_reachable(*peer));
        RepairPlan {
            claims: self.misplaced(goes_over),
            silent: if unsettled > 0 { silent.collect() } else { Vec::new() },
            unsettled,
            meeting,
        }
    }

    fn meeting(&self) -> Option<Meeting> {
        let ring = self.ring.as_ref()?;
        let mut ours = Side {
            ring: ring.id(),
            peers: vec![self.local],
            seeds: ring.seeds().iter().map(|seed| seed.peer).collect(),
            is_used: !self.ledger.is_empty(),
        };
        let mut others: BTreeMap<u64, Side> = BTreeMap::new();
        for (peer, fact) in self.mates() {
            let Some(note) = fact.ring else { continue };
            let side = if note.id == ours.ring {
                &mut ours
            } else {
                let new = Side { ring: note.id, peers: Vec::new(), seeds: Vec::new(), is_used: false };
                others.entry(note.id).or_insert(new)
            };
            side.peers.push(peer);
            side.is_used |= fact.has_holders;
            let seeds = self.peers.get(&peer).map(|known| known.other_seeds.as_slice()).unwrap_or_default();
            if side.seeds.is_empty() {
                side.seeds = seeds.to_vec();
            }
        }
        ours.peers.sort_unstable();
        let theirs = others.into_values().max_by_key(Side::rank)?;
        let gives_way = ours.rank() < theirs.rank();
        Some(Meeting { ours, theirs, gives_way })
    }

    /// What is held here of the ranges and owned by others; all of it where the ring is about to be another.
    fn misplaced(&self, all: bool) -> Vec<Misplaced> {
        let me = self.me();
        let managed = self.ledger.iter().filter(|(_, held)| self.is_in_ranges(to_number(held.address())));
        let held = managed.map(|(container, address)| {
            let stamp = self.ring.as_ref().and_then(|ring| ring.stamp_of(to_number(address.address())));
            (container, address, stamp.map(|stamp| stamp.owner))
        });
        held.filter(|(_, _, owner)| all || owner.is_some_and(|owner| owner.peer != me.peer))
            .map(|(container, address, owner)| Misplaced {
                container: container.clone(),
                address,
                peer: owner.map(|owner| owner.peer),
            })
            .collect()
    }

    /// Goes over to the ring `target` as soon as one of those who are on it has sent all of it. What containers hold here stays
    /// theirs; ask for it by [`Ipam::reclaim`]. Answered by [`Reply::Done`], also when this router is there already.
    pub fn go_over(&mut self, request: RequestId, target: u64, deadline: Instant, now: Instant) {
        let is_there = self.ring.as_ref().is_some_and(|ring| ring.id() == target);
        let result = if self.leaving.is_some() {
            Some(Err(Refusal::Leaving))
        } else if is_there {
            Some(Ok(Reply::Done))
        } else if self.crossing.is_some() {
            Some(Err(Refusal::TakeOverInProgress { by: self.local }))
        } else {
            None
        };
        match result {
            Some(result) => self.reply(request, result),
            None => {
                self.crossing = Some(Crossing { request, target, deadline, next_try: now });
                self.step_crossing(now);
            }
        }
        self.finish(now);
    }

    /// Asks the owner of an address that the container holds here already for that address, so that nobody else gets it.
    /// Answered by [`Reply::Addresses`], at once where this router owns it.
    pub fn reclaim(
        &mut self,
        request: RequestId,
        owner: ContainerId,
        address: Interface,
        deadline: Instant,
        now: Instant,
    ) {
        self.ask(request, deadline, Want::Claim { owner, address, again: true, ask: None }, now);
    }

    /// Whether the address lies in the ranges and this router does not own it.
    pub(crate) fn is_elsewhere(&self, address: u128) -> bool {
        let owner = self.ring.as_ref().and_then(|ring| ring.stamp_of(address)).map(|stamp| stamp.owner);
        self.is_in_ranges(address) && owner != Some(self.me())
    }

    fn is_in_ranges(&self, address: u128) -> bool {
        self.universe.iter().any(|range| range.contains(address))
    }

    pub(crate) fn step_crossing(&mut self, now: Instant) {
        let Some(crossing) = self.crossing.as_mut().filter(|c| c.next_step() <= now) else { return };
        let target = crossing.target;
        if crossing.deadline <= now {
            let peers = self.peers_on(target);
            return self
                .end_crossing(Err(Refusal::Deadline { waiting_for: WaitReason::OtherRing { peers } }));
        }
        crossing.next_try = now + ASK_DELAY;
        let peers = self.peers_on(target);
        let pick = usize::try_from(self.nonce() >> 1).unwrap_or_default();
        if let Some(peer) = pick.checked_rem(peers.len()).and_then(|index| peers.get(index)) {
            self.send(*peer, &Message::RingAsk);
        }
    }

    fn peers_on(&self, target: u64) -> Vec<PeerName> {
        let is_on = |id: Option<u64>| id == Some(target);
        self.mates().filter(|(_, fact)| is_on(fact.ring.map(|note| note.id))).map(|(peer, _)| peer).collect()
    }

    /// All of another ring has arrived: takes it, if it is the one that we go over to.
    pub(crate) fn cross(&mut self, ring: Ring, members: &[(PeerName, Membership)], now: Instant) {
        if self.crossing.as_ref().is_none_or(|crossing| crossing.target != ring.id()) {
            return;
        }
        self.abandon_ring();
        self.forget_strangers();
        self.members.merge(members);
        self.adopt(ring, now);
        self.end_crossing(Ok(Reply::Done));
    }

    pub(crate) fn end_crossing(&mut self, result: Result<Reply, Refusal>) {
        if let Some(crossing) = self.crossing.take() {
            self.reply(crossing.request, result);
        }
    }

    pub(crate) fn cancel_crossing(&mut self, request: RequestId) -> bool {
        let is_it = self.crossing.as_ref().is_some_and(|crossing| crossing.request == request);
        if is_it {
            self.end_crossing(Err(Refusal::Cancelled));
        }
        is_it
    }
}
