//! Being remembered: others have it on disk that a router is a member before it asks for space.
//!
//! The space of a dead router is divided again with the agreement of every member (`settle`), and that of a store from
//! the past comes back with it. A member that nobody remembers is not asked; and a router that has come to the ring, or
//! come back, is known at first to the one router that brought it there, which may be the very one that dies or is
//! restored. So it asks others to keep that it is a member, and wants no space until two of them have done so: all of
//! them where there are fewer. The first owners of a ring need not ask, because whoever has the ring knows them.
//!
//! A witness is sure of its store: another may know fewer members than there are, and so may whoever has its ring from
//! it. Only where a single such router can be had do others stand in for the second, who are themselves about to
//! enrol: those who come to a lone router at the same time would else wait for each other for ever.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weave_model::PeerName;

use crate::{
    ipam::Ipam,
    members::Membership,
    mutant::{self, Mutant},
    request::WaitReason,
    ring::Ring,
    store,
    wire::{Enrol, Message},
};

/// The search for witnesses.
#[derive(Debug)]
pub(crate) struct Enrolment {
    /// Names this search: answers to an earlier one are about what is past.
    nonce: u64,
    /// What others are asked to keep.
    membership: Membership,
    /// Who has it on disk, and whether that router is sure of what it knows.
    known_to: BTreeMap<PeerName, bool>,
    next_try: Instant,
}

/// So many others must know of a member, so that one of them may forget.
const WITNESSES: usize = 2;
/// Routers asked at once: more than are needed, because some may be away or unsure.
const ASKED_AT_ONCE: usize = 4;
/// Others are asked after so long.
const RETRY_DELAY: Duration = Duration::from_millis(500);

impl Enrolment {
    pub(crate) fn next_step(&self) -> Instant {
        self.next_try
    }
}

impl Ipam {
    /// Whether enough others know that this router is a member: since it last came back, not only before.
    pub(crate) fn is_witnessed(&self) -> bool {
        mutant::is(Mutant::NoWitness) || self.header.witnessed == Some(self.members.of(self.local).term())
    }

    /// From now on it is known that this router is a member, as far as its own store says.
    pub(crate) fn note_witnessed(&mut self, now: Instant) {
        self.enrolment = None;
        if !self.is_witnessed() {
            self.header.witnessed = Some(self.members.of(self.local).term());
            self.writes.push(store::write_header(&self.header));
            self.publish_lazily(now);
        }
    }

    /// Looks for witnesses where they are needed.
    pub(crate) fn enrol(&mut self, now: Instant) {
        let Some(ring) = self.ring.as_ref().map(Ring::id) else {
            self.enrolment = None;
            return;
        };
        if self.leaving.is_some() || self.is_witnessed() {
            self.enrolment = None;
            return;
        }
        let membership = self.members.of(self.local);
        if self.enrolment.as_ref().is_none_or(|e| e.membership != membership) {
            let nonce = self.nonce();
            self.enrolment = Some(Enrolment { nonce, membership, known_to: BTreeMap::new(), next_try: now });
        }
        if self.has_enough_witnesses() {
            return self.note_witnessed(now);
        }
        let Some(enrolment) = self.enrolment.as_mut().filter(|e| e.next_try <= now) else { return };
        enrolment.next_try = now + RETRY_DELAY;
        let nonce = enrolment.nonce;
        let message = Message::Enrol(Enrol { nonce, ring, membership, members: self.members.digest() });
        for peer in self.next_witnesses() {
            self.send(peer, &message);
        }
    }

    fn others(&self) -> impl Iterator<Item = PeerName> + '_ {
        self.members.iter().filter(|peer| *peer != self.local)
    }

    /// Whom to ask: who was not sure may be by now.
    fn without_sure_witnesses(&self) -> impl Iterator<Item = PeerName> + '_ {
        let is_sure =
            |peer: &PeerName| self.enrolment.as_ref().is_some_and(|e| e.known_to.get(peer) == Some(&true));
        self.others().filter(move |peer| !is_sure(peer))
    }

    fn has_enough_witnesses(&self) -> bool {
        let Some(enrolment) = &self.enrolment else { return false };
        let (mut others, mut sure_others, mut witnesses, mut sure_witnesses) = (0, 0, 0, 0);
        for peer in self.others() {
            others += 1;
            sure_others += usize::from(!self.is_enrolling(peer));
            if let Some(is_sure) = enrolment.known_to.get(&peer) {
                witnesses += 1;
                sure_witnesses += usize::from(*is_sure);
            }
        }
        witnesses >= WITNESSES.min(others) && sure_witnesses >= WITNESSES.min(sure_others.max(others.min(1)))
    }

    /// Whether a router says that it looks for witnesses itself.
    fn is_enrolling(&self, peer: PeerName) -> bool {
        self.peers.get(&peer).and_then(|known| known.fact.as_ref()).is_some_and(|fact| !fact.is_witnessed)
    }

    /// A few of those who can be asked, others each time.
    fn next_witnesses(&mut self) -> Vec<PeerName> {
        let mut asked: Vec<PeerName> =
            self.without_sure_witnesses().filter(|peer| self.is_reachable(*peer)).collect();
        let start = usize::try_from(self.nonce()).unwrap_or_default().checked_rem(asked.len());
        asked.rotate_left(start.unwrap_or_default());
        asked.truncate(ASKED_AT_ONCE);
        asked
    }

    /// Somebody can be asked that could not be before.
    pub(crate) fn stir_enrolment(&mut self, now: Instant) {
        if let Some(enrolment) = &mut self.enrolment {
            enrolment.next_try = now;
        }
    }

    /// Whether others may rely on what this router knows of the members: its store is not from the past, and it did
    /// not get its ring from somebody who was unsure.
    pub(crate) fn is_sure(&self) -> bool {
        self.header.is_confirmed && self.is_witnessed()
    }

    /// Another router asks to be remembered.
    pub(crate) fn handle_enrol(&mut self, from: PeerName, enrol: &Enrol, now: Instant) {
        let is_on_ring = self.ring.as_ref().is_some_and(|r| r.id() == enrol.ring);
        if !is_on_ring || !self.header.is_confirmed || self.leaving.is_some() || !enrol.membership.is_member {
            return;
        }
        if enrol.membership < self.members.of(from) {
            // It was removed, or began another life, and does not know: our ring tells it.
            return self.answer_ring(from);
        }
        self.learn_members(&[(from, enrol.membership)], now);
        let is_known = enrol.members == self.members.digest();
        let members = if is_known { Vec::new() } else { self.members.all() };
        let is_sure = self.is_sure();
        self.send(from, &Message::Enrolled { nonce: enrol.nonce, is_sure, members });
    }

    pub(crate) fn handle_enrolled(
        &mut self,
        from: PeerName,
        nonce: u64,
        is_sure: bool,
        members: &[(PeerName, Membership)],
        now: Instant,
    ) {
        if let Some(enrolment) = self.enrolment.as_mut().filter(|e| e.nonce == nonce) {
            enrolment.known_to.insert(from, is_sure);
            self.learn_members(members, now);
        }
    }

    /// What a request waits for while there are too few witnesses.
    pub(crate) fn enrolment_wait_reason(&self) -> Option<WaitReason> {
        self.enrolment.as_ref()?;
        let (unsure, peers) = self.without_sure_witnesses().partition(|peer| self.is_reachable(*peer));
        Some(WaitReason::Witnesses { peers, unsure })
    }
}
