//! Taking over space whose owner does not use it any more: a dead router's, or what an earlier life of this
//! router's own store owned.
//!
//! The asker (X) lists the entries it means to take and asks every other member to *freeze* them: to use nothing of
//! them from then on, should they become its own by a message that is still under way. A member that knows a more
//! recent entry says so instead, and X begins again with what it learned. Once **all** members have frozen the very same
//! list, nobody uses any of it, and nobody will. Only then does X stamp the entries as its own, at a version above
//! all that may be under way, and use them.
//!
//! * All, not most: a member that does not answer might have been given part of the space. If it is dead, its
//!   removal too is the operator's to declare; routers that are being removed together are not asked.
//! * Two that take over the same space ask each other. The one with the lower name goes on, the other gives way.
//! * What containers of those who agree hold of the space goes to them: it may have been theirs before.
//! * A member keeps on disk what it froze, until the ring has reached the target or the asker says that it is over.
//!   Another life of the asker says so only where it knows what came of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use weave_model::PeerName;

use crate::{
    ipam::Ipam,
    request::{Refusal, Reply, RequestId, WaitReason},
    ring::{Entry, Owner, Stamp},
    span::Span,
    store,
    wire::{Freeze, Message},
};

/// A take-over of ours that is under way.
#[derive(Debug)]
pub(crate) struct Settle {
    /// The operator's request; none when we settle what is our own.
    pub(crate) request: Option<RequestId>,
    /// Everything of the subject, also what this store never knew of.
    pub(crate) everything: bool,
    /// What was known of the subject when it was declared dead: its life, and how often it was removed or came back.
    /// Should it come back, it is another one than was meant.
    pub(crate) meant: (Option<u64>, u64),
    /// Names one attempt: a new one whenever the list changes.
    pub(crate) nonce: u64,
    pub(crate) target: u64,
    pub(crate) base: Vec<Entry>,
    /// Who has frozen this attempt's list.
    pub(crate) agreed: BTreeSet<PeerName>,
    /// Whose own take-over stands in the way at some member.
    pub(crate) busy: BTreeSet<PeerName>,
    /// Somebody who is sure of what it knows has agreed.
    pub(crate) is_vouched: bool,
    /// What containers hold of the space at those who agreed.
    pub(crate) in_use: Vec<(Owner, Vec<Span>)>,
    /// Who answered, and so has no take-over of its own in the way any more.
    pub(crate) answered: BTreeSet<PeerName>,
    /// Who says that the subject lives.
    pub(crate) alive_to: BTreeSet<PeerName>,
    pub(crate) next_try: Instant,
    pub(crate) gives_up_at: Option<Instant>,
}

/// A take-over raises versions by so much: more than an owner does in the time that a message may be under way.
pub(crate) const STEP: u64 = 1 << 20;
/// Members that have not answered are asked again after so long.
const RETRY_DELAY: Duration = Duration::from_millis(400);
/// A take-over that had to give way is tried again after so long.
pub(crate) const YIELD_DELAY: Duration = Duration::from_secs(2);
/// An operator is told what is missing after so long.
const PATIENCE: Duration = Duration::from_secs(30);

impl Settle {
    pub(crate) fn request(&self) -> Option<RequestId> {
        self.request
    }

    pub(crate) fn next_step(&self) -> Instant {
        self.gives_up_at.map_or(self.next_try, |at| at.min(self.next_try))
    }
}

impl Ipam {
    /// Takes over all that a dead router owns (`rmpeer`), once every other member has agreed. Given this router's own
    /// name, takes over what earlier stores of this router owned: by then, every address that a container here still
    /// has must have been claimed. Answered by [`Reply::TakenOver`].
    pub fn take_over(&mut self, request: RequestId, dead: PeerName, now: Instant) {
        let refusal = if self.ring.is_none() {
            Some(Err(Refusal::Deadline { waiting_for: WaitReason::Ring }))
        } else if self.leaving.is_some() {
            Some(Err(Refusal::Leaving))
        } else if self.is_reachable(dead) {
            Some(Err(Refusal::PeerAlive { peer: dead }))
        } else if self.settles.get(&dead).is_some_and(|s| s.request.is_some()) {
            Some(Err(Refusal::TakeOverInProgress { by: self.local }))
        } else {
            None
        };
        match refusal {
            Some(result) => self.reply(request, result),
            None => self.begin_settle(dead, Some(request), now),
        }
        self.finish(now);
    }

    /// Settles what earlier lives of this store owned, when the store knows all that they allocated. After a restart,
    /// also when they owned nothing: the others may have removed this router meanwhile.
    pub(crate) fn begin_own_settle(&mut self, now: Instant) {
        if self.header.is_stale || self.settles.contains_key(&self.local) || self.leaving.is_some() {
            return;
        }
        let is_due = self.ring.is_some() && !self.header.is_confirmed;
        if is_due || self.owned_before().any(|owner| self.is_own_earlier_life(owner)) {
            self.begin_settle(self.local, None, now);
        }
    }

    /// Lives of this router other than the present one that own something.
    pub(crate) fn owned_before(&self) -> impl Iterator<Item = Owner> + '_ {
        let me = self.me();
        self.ring.iter().flat_map(move |ring| ring.lives_of(me.peer)).filter(move |life| *life != me)
    }

    fn is_own_earlier_life(&self, owner: Owner) -> bool {
        self.header.prior.iter().any(|(generation, _)| *generation == owner.generation)
    }

    pub(crate) fn begin_settle(&mut self, subject: PeerName, request: Option<RequestId>, now: Instant) {
        let settle = Settle {
            meant: (self.life_of(subject), self.members.of(subject).changes),
            request,
            everything: request.is_some(),
            nonce: 0,
            target: 0,
            base: Vec::new(),
            agreed: BTreeSet::new(),
            busy: BTreeSet::new(),
            is_vouched: false,
            in_use: Vec::new(),
            answered: BTreeSet::new(),
            alive_to: BTreeSet::new(),
            next_try: now,
            gives_up_at: request.map(|_| now + PATIENCE),
        };
        self.settles.insert(subject, settle);
        self.renew_settle(subject, now);
        self.drive_settle(subject, now);
    }

    /// What the take-over is about, as the ring has it now.
    fn settle_base(&self, subject: PeerName, everything: bool) -> Vec<Entry> {
        let me = self.me();
        let Some(ring) = &self.ring else { return Vec::new() };
        let lives = ring.lives_of(subject).filter(|life| *life != me);
        let lives = lives.filter(|o| everything || self.is_own_earlier_life(*o));
        let mut base: Vec<Entry> = lives.flat_map(|life| ring.owned_by(life)).collect();
        if subject == self.local {
            base.extend(self.frozen_own());
        }
        base.sort_unstable();
        base
    }

    /// Begins another attempt with the present list; whoever agreed must agree again.
    pub(crate) fn renew_settle(&mut self, subject: PeerName, now: Instant) {
        let Some(everything) = self.settles.get(&subject).map(|s| s.everything) else { return };
        let base = self.settle_base(subject, everything);
        let nonce = self.nonce();
        let promised =
            self.floors.iter().filter(|f| f.spans.iter().any(|s| base.iter().any(|e| e.span.overlaps(*s))));
        let versions = base.iter().map(|entry| entry.stamp.version).chain(promised.map(|floor| floor.target));
        let highest = versions.max().unwrap_or_default();
        let Some(settle) = self.settles.get_mut(&subject) else { return };
        settle.base = base;
        settle.nonce = nonce;
        settle.target = settle.target.max(highest + STEP);
        settle.agreed.clear();
        settle.busy.clear();
        settle.is_vouched = false;
        settle.in_use.clear();
        settle.answered.clear();
        settle.next_try = settle.next_try.min(now);
    }

    /// The ring changed: attempts whose list is not what it was begin again.
    pub(crate) fn recheck_settles(&mut self, now: Instant) {
        let changed: Vec<PeerName> = self
            .settles
            .iter()
            .filter(|(subject, settle)| self.settle_base(**subject, settle.everything) != settle.base)
            .map(|(subject, _)| *subject)
            .collect();
        for subject in changed {
            self.renew_settle(subject, now);
        }
    }

    pub(crate) fn drive_settles(&mut self, now: Instant) {
        let subjects: Vec<PeerName> = self.settles.keys().copied().collect();
        for subject in subjects {
            if self.settles.get(&subject).is_some_and(|s| s.gives_up_at.is_some_and(|at| at <= now)) {
                self.give_up(subject);
            } else {
                self.drive_settle(subject, now);
            }
        }
    }

    fn drive_settle(&mut self, subject: PeerName, now: Instant) {
        let Some(settle) = self.settles.get(&subject) else { return };
        if settle.next_try > now {
            return;
        }
        if self.has_returned(subject) {
            return self.abort(subject, self.return_of(subject));
        }
        let missing = self.missing_consent(subject);
        if missing.is_empty() {
            return self.complete(subject, now);
        }
        let Some(freeze) = self.freeze_message(subject) else { return };
        for peer in missing {
            if self.is_reachable(peer) {
                self.send(peer, &freeze);
            }
        }
        if let Some(settle) = self.settles.get_mut(&subject) {
            settle.next_try = now + RETRY_DELAY;
        }
    }

    /// Whether the router that was declared dead lives, or another life of it does.
    fn has_returned(&self, subject: PeerName) -> bool {
        let Some(settle) = self.settles.get(&subject).filter(|_| subject != self.local) else { return false };
        let (life, changes) = settle.meant;
        let is_other = life.zip(self.life_of(subject)).is_some_and(|(meant, known)| meant != known);
        is_other || self.members.of(subject).changes > changes || self.is_reachable(subject)
    }

    fn return_of(&self, subject: PeerName) -> Refusal {
        match self.is_reachable(subject) {
            true => Refusal::PeerAlive { peer: subject },
            false => Refusal::PeerReturned { peer: subject },
        }
    }

    fn freeze_message(&self, subject: PeerName) -> Option<Message> {
        let settle = self.settles.get(&subject)?;
        let base = self.bundle(settle.base.iter().copied())?;
        Some(Message::Freeze(Freeze {
            subject,
            nonce: settle.nonce,
            generation: self.header.generation,
            life: settle.meant.0.or_else(|| self.life_of(subject)),
            target: settle.target,
            everything: settle.everything,
            members: self.members.digest(),
            base,
            epochs: if subject == self.local { self.header.prior.clone() } else { Vec::new() },
            dead: self.settles.keys().copied().filter(|peer| *peer != self.local).collect(),
            yielded: settle.busy.intersection(&settle.answered).copied().collect(),
        }))
    }

    /// Everybody agreed: the space is ours.
    pub(crate) fn complete(&mut self, subject: PeerName, now: Instant) {
        if self.has_returned(subject) {
            return self.abort(subject, self.return_of(subject));
        }
        let me = self.me();
        let Some(settle) = self.settles.remove(&subject) else { return };
        let mut count = 0;
        for entry in &settle.base {
            let taken = Entry { span: entry.span, stamp: Stamp { version: settle.target, owner: me } };
            if let Some(ring) = &mut self.ring {
                ring.join(taken);
            }
            self.gain(entry.span);
            count += entry.span.len();
            self.tell([taken], now);
        }
        if subject == self.local {
            self.header.is_confirmed = true;
            self.members.renew(self.local);
            self.publish_lazily(now);
            if settle.everything {
                self.header.is_stale = false;
                self.header.vouches = true;
                // Nothing that others know of these lives can be news any more.
                self.header.prior.iter_mut().for_each(|(_, epoch)| *epoch = u64::MAX);
            }
            self.writes.push(store::write_header(&self.header));
        } else {
            self.members.remove(subject);
            self.removed_here.insert(subject);
            self.publish_lazily(now);
            self.news_at.get_or_insert(now);
        }
        let gained: Vec<Span> = settle.base.iter().map(|entry| entry.span).collect();
        // Every other member has just heard of this one.
        self.note_witnessed(now);
        self.after_ring_change(&gained, now);
        self.return_what_is_in_use(settle.in_use, now);
        if let Some(request) = settle.request {
            self.reply(request, Ok(Reply::TakenOver(count)));
        }
    }

    /// Tells the operator what is missing, and those who agreed that it is over.
    fn give_up(&mut self, subject: PeerName) {
        let missing = self.missing_consent(subject);
        let Some(settle) = self.settles.get(&subject) else { return };
        let refusal = match settle.busy.first() {
            _ if !settle.alive_to.is_empty() => {
                Refusal::SeenAlive { peer: subject, by: settle.alive_to.iter().copied().collect() }
            }
            Some(by) => Refusal::TakeOverInProgress { by: *by },
            None => Refusal::AwaitingConsent { peers: missing },
        };
        self.abort(subject, refusal);
    }

    pub(crate) fn abort(&mut self, subject: PeerName, refusal: Refusal) {
        let Some(settle) = self.settles.remove(&subject) else { return };
        for peer in settle.agreed {
            self.send(peer, &Message::Unfreeze { subject, nonce: settle.nonce, ring: None });
        }
        if let Some(request) = settle.request {
            self.reply(request, Err(refusal));
        }
    }

    /// Nothing more is taken over here.
    pub(crate) fn abort_settles(&mut self) {
        let subjects: Vec<PeerName> = self.settles.keys().copied().collect();
        for subject in subjects {
            self.abort(subject, Refusal::Leaving);
        }
    }

    pub(crate) fn cancel_settle(&mut self, request: RequestId) -> bool {
        let subject =
            self.settles.iter().find(|(_, s)| s.request == Some(request)).map(|(subject, _)| *subject);
        subject.is_some_and(|subject| {
            self.abort(subject, Refusal::Cancelled);
            true
        })
    }

    /// Somebody knows how far one of our lives got. Further than this store knows: then it is from the past.
    pub(crate) fn note_own_epoch(&mut self, generation: u64, epoch: u64) {
        if generation == self.header.generation {
            if epoch > self.epoch {
                self.fence();
            }
            return;
        }
        let known = self.header.prior.iter().find(|(life, _)| *life == generation).map(|(_, epoch)| *epoch);
        if known.is_some_and(|known| epoch > known) && !self.header.is_stale {
            self.header.is_stale = true;
            self.header.is_confirmed = false;
            self.writes.push(store::write_header(&self.header));
            if self.settles.get(&self.local).is_some_and(|s| s.request.is_none()) {
                self.abort(self.local, Refusal::Cancelled);
            }
        }
    }

    /// Why our own space cannot be used.
    pub(crate) fn own_wait_reason(&self) -> WaitReason {
        match self.settles.get(&self.local) {
            Some(_) => WaitReason::StoreUnconfirmed { peers: self.missing_consent(self.local) },
            None => WaitReason::PredecessorUnsettled,
        }
    }
}
