//! Taking over space whose owner does not use it any more: a dead router's, or what an earlier life of this
//! router's own store owned.
//!
//! The asker (X) lists the entries it means to take and asks every other member to *freeze* them: to take no
//! stamp for them below a target version from then on, whoever may still be passing one round. A member that knows
//! a more recent entry says so instead, and X begins again with what it learned. Once **all** members have frozen
//! the very same list, nobody alive knows of a gift that X does not know of, and no message still under way can
//! bring one back to life. Only then does X stamp the entries as its own, at the target version, and use them.
//!
//! * All, not most: a member that does not answer might have been given part of the space. If it is dead, its
//!   removal too is the operator's to declare; routers that are being removed together are not asked.
//! * Two that take over the same space ask each other. The one with the lower name goes on, the other gives way.
//! * A member keeps what it froze on disk. It forgets it when the ring has reached the target, or when the asker,
//!   in the same life of its store, says that it is over. Should the asker have begun another life, the frozen
//!   addresses' present owner is asked to raise its entries above the target: as their owner it may.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use weave_model::PeerName;

use crate::{
    error::GossipError,
    ipam::Ipam,
    members::Membership,
    request::{Refusal, Reply, RequestId, WaitReason},
    ring::{Entry, Owner, Stamp},
    span::Span,
    store,
    wire::{Bundle, Freeze, FreezeRefusal, Message},
};

/// What was promised to a router that takes space over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// To whom, in which life.
    by: Owner,
    subject: PeerName,
    nonce: u64,
    spans: Vec<Span>,
    /// No lower version is taken for these addresses.
    target: u64,
}

/// A take-over of ours that is under way.
#[derive(Debug)]
pub(crate) struct Settle {
    /// The operator's request; none when we settle what is our own.
    request: Option<RequestId>,
    /// Everything of the subject, also what this store never knew of.
    everything: bool,
    /// Names one attempt: a new one whenever the list changes.
    nonce: u64,
    target: u64,
    base: Vec<Entry>,
    /// Who has frozen this attempt's list.
    agreed: BTreeSet<PeerName>,
    /// Whose own take-over stands in the way at some member.
    busy: BTreeSet<PeerName>,
    /// Somebody can reach the subject.
    is_alive: bool,
    next_try: Instant,
    gives_up_at: Option<Instant>,
}

/// A take-over raises versions by so much: more than an owner does in the time that a message may be under way.
const STEP: u64 = 1 << 20;
/// Members that have not answered are asked again after so long.
const RETRY_DELAY: Duration = Duration::from_millis(400);
/// A take-over that had to give way is tried again after so long.
const YIELD_DELAY: Duration = Duration::from_secs(2);
/// An operator is told what is missing after so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Promises older than this are asked about.
const FLOOR_CHECK_DELAY: Duration = Duration::from_secs(3);
/// Entries remembered that a promise kept us from taking.
const MAX_BLOCKED: usize = 64;
/// Promises kept at once.
const MAX_FLOORS: usize = 4_096;

impl Settle {
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

    /// Settles what earlier lives of this store owned, when the store knows all that they allocated.
    pub(crate) fn begin_own_settle(&mut self, now: Instant) {
        if self.header.is_stale || self.settles.contains_key(&self.local) || self.leaving.is_some() {
            return;
        }
        if self.owned_before().any(|owner| self.is_own_earlier_life(owner)) {
            self.begin_settle(self.local, None, now);
        }
    }

    /// Lives of this router other than the present one that own something.
    pub(crate) fn owned_before(&self) -> impl Iterator<Item = Owner> + '_ {
        let me = self.me();
        self.ring.iter().flat_map(|ring| ring.owners()).filter(move |o| o.peer == me.peer && *o != me)
    }

    fn is_own_earlier_life(&self, owner: Owner) -> bool {
        self.header.prior.iter().any(|(generation, _)| *generation == owner.generation)
    }

    fn begin_settle(&mut self, subject: PeerName, request: Option<RequestId>, now: Instant) {
        let settle = Settle {
            request,
            everything: request.is_some(),
            nonce: 0,
            target: 0,
            base: Vec::new(),
            agreed: BTreeSet::new(),
            busy: BTreeSet::new(),
            is_alive: false,
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
        let lives = ring.owners().filter(|o| o.peer == subject && *o != me);
        let lives = lives.filter(|o| everything || self.is_own_earlier_life(*o));
        let mut base: Vec<Entry> = lives.flat_map(|life| ring.owned_by(life)).collect();
        base.sort_unstable();
        base
    }

    /// Begins another attempt with the present list; whoever agreed must agree again.
    fn renew_settle(&mut self, subject: PeerName, now: Instant) {
        let Some(everything) = self.settles.get(&subject).map(|s| s.everything) else { return };
        let base = self.settle_base(subject, everything);
        let nonce = self.nonce();
        let highest = base.iter().map(|entry| entry.stamp.version).max().unwrap_or_default();
        let Some(settle) = self.settles.get_mut(&subject) else { return };
        settle.base = base;
        settle.nonce = nonce;
        settle.target = settle.target.max(highest + STEP);
        settle.agreed.clear();
        settle.busy.clear();
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

    /// Who must agree.
    fn electorate(&self, subject: PeerName) -> Vec<PeerName> {
        let is_dead = |peer: &PeerName| self.settles.contains_key(peer);
        self.members.iter().filter(|peer| *peer != self.local && *peer != subject && !is_dead(peer)).collect()
    }

    /// Who has not agreed yet.
    pub(crate) fn missing_consent(&self, subject: PeerName) -> Vec<PeerName> {
        let Some(settle) = self.settles.get(&subject) else { return Vec::new() };
        self.electorate(subject).into_iter().filter(|peer| !settle.agreed.contains(peer)).collect()
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

    fn freeze_message(&self, subject: PeerName) -> Option<Message> {
        let settle = self.settles.get(&subject)?;
        let base = self.bundle(settle.base.iter().copied())?;
        Some(Message::Freeze(Freeze {
            subject,
            nonce: settle.nonce,
            generation: self.header.generation,
            target: settle.target,
            everything: settle.everything,
            base,
            epochs: if subject == self.local { self.header.prior.clone() } else { Vec::new() },
            dead: self.settles.keys().copied().filter(|peer| *peer != self.local).collect(),
            yielded: settle.busy.intersection(&settle.agreed).copied().collect(),
        }))
    }

    /// Everybody agreed: the space is ours.
    fn complete(&mut self, subject: PeerName, now: Instant) {
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
            if settle.everything {
                self.header.is_stale = false;
                self.writes.push(store::write_header(&self.header));
            }
        } else {
            self.members.remove(subject);
            self.publish_lazily(now);
            self.news_at.get_or_insert(now);
        }
        self.after_ring_change(now);
        if let Some(request) = settle.request {
            self.reply(request, Ok(Reply::TakenOver(count)));
        }
    }

    /// Tells the operator what is missing, and those who agreed that it is over.
    fn give_up(&mut self, subject: PeerName) {
        let missing = self.missing_consent(subject);
        let Some(settle) = self.settles.get(&subject) else { return };
        let refusal = match settle.busy.first() {
            _ if settle.is_alive => Refusal::PeerAlive { peer: subject },
            Some(by) => Refusal::TakeOverInProgress { by: *by },
            None => Refusal::AwaitingConsent { peers: missing },
        };
        self.abort(subject, refusal);
    }

    fn abort(&mut self, subject: PeerName, refusal: Refusal) {
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
        let subject = self.settles.iter().find(|(_, s)| s.request == Some(request)).map(|(subject, _)| *subject);
        subject.is_some_and(|subject| {
            self.abort(subject, Refusal::Cancelled);
            true
        })
    }

    pub(crate) fn handle_frozen(
        &mut self,
        from: PeerName,
        subject: PeerName,
        nonce: u64,
        members: &[(PeerName, Membership)],
        epochs: &[(u64, u64)],
        now: Instant,
    ) {
        if self.settles.get(&subject).is_none_or(|settle| settle.nonce != nonce) {
            return;
        }
        self.members.merge(members);
        if subject == self.local {
            for (generation, epoch) in epochs {
                self.note_own_epoch(*generation, *epoch);
            }
        }
        if let Some(settle) = self.settles.get_mut(&subject) {
            settle.agreed.insert(from);
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
            FreezeRefusal::Alive => settle.is_alive = true,
            FreezeRefusal::Newer(bundle) => {
                self.waive_floors(subject, now);
                self.handle_ring(from, &bundle, now)?;
            }
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
            }
        }
        Ok(())
    }

    /// Forgets what we promised to others about the subject of our own take-over, where they agreed to give way or are
    /// gone: such a promise could keep us from learning what a member knows that never made it.
    fn waive_floors(&mut self, subject: PeerName, now: Instant) {
        let Some(settle) = self.settles.get(&subject) else { return };
        let is_over = |floor: &Floor| {
            let holder = floor.by.peer;
            settle.agreed.contains(&holder) || self.settles.contains_key(&holder) || !self.members.contains(holder)
        };
        let (waived, kept): (Vec<Floor>, Vec<Floor>) =
            std::mem::take(&mut self.floors).into_iter().partition(|floor| floor.subject == subject && is_over(floor));
        self.floors = kept;
        if let (Some(highest), Some(settle)) = (waived.iter().map(|f| f.target).max(), self.settles.get_mut(&subject)) {
            settle.target = settle.target.max(highest + STEP);
            self.writes.push(store::write_floors(&self.floors));
            self.renew_settle(subject, now);
        }
    }

    /// Another router asks us to freeze what it takes over.
    pub(crate) fn handle_freeze(
        &mut self,
        from: PeerName,
        freeze: &Freeze,
        now: Instant,
    ) -> Result<(), GossipError> {
        let Freeze { subject, nonce, .. } = *freeze;
        if freeze.base.universe != self.universe_id || subject == self.local {
            return Ok(());
        }
        if freeze.target >= u64::MAX >> 2 || freeze.epochs.len() > MAX_FLOORS {
            return Err(GossipError::Misbehaved("a version or a list beyond its bound"));
        }
        let base = self.read_bundle(&freeze.base)?;
        if self.ring.as_ref().is_some_and(|ring| ring.id() != freeze.base.ring) {
            return Ok(());
        }
        self.merge(&base, now);
        let message = match self.refusal_of(from, freeze, &base) {
            Some(reason) => Message::FreezeRefused { subject, nonce, reason },
            None => {
                self.record_floor(from, freeze, &base, now);
                let lives = freeze.epochs.iter().map(|(generation, _)| Owner { peer: subject, generation: *generation });
                let epochs = lives.filter_map(|life| Some((life.generation, *self.epochs.get(&life)?))).collect();
                Message::Frozen { subject, nonce, members: self.members.all(), epochs }
            }
        };
        self.send(from, &message);
        Ok(())
    }

    fn refusal_of(&mut self, from: PeerName, freeze: &Freeze, base: &[Entry]) -> Option<FreezeRefusal> {
        let subject = freeze.subject;
        if subject != from && self.is_reachable(subject) {
            return Some(FreezeRefusal::Alive);
        }
        if self.knows_more(from, freeze, base) {
            return self.whole_ring().map(FreezeRefusal::Newer);
        }
        if self.settles.contains_key(&subject) {
            if from != subject && self.local < from {
                return Some(FreezeRefusal::Busy(self.local));
            }
            self.abort(subject, Refusal::TakeOverInProgress { by: from });
        }
        let in_the_way = |floor: &&Floor| floor.spans.iter().any(|s| base.iter().any(|e| e.span.overlaps(*s)));
        let mut target = None;
        for floor in self.floors.iter().filter(in_the_way) {
            let holder = floor.by.peer;
            let is_same = floor.by == (Owner { peer: from, generation: freeze.generation }) && floor.nonce == freeze.nonce;
            let is_over = freeze.dead.contains(&holder) || freeze.yielded.contains(&holder);
            if holder != from && !is_over && self.members.contains(holder) {
                return Some(FreezeRefusal::Busy(holder));
            }
            if !is_same && floor.target >= freeze.target {
                target = target.max(Some(floor.target));
            }
        }
        target.map(FreezeRefusal::Raise)
    }

    /// Whether our ring has something that the asker must know: a later stamp, or more of the subject's.
    fn knows_more(&self, from: PeerName, freeze: &Freeze, base: &[Entry]) -> bool {
        let Some(ring) = &self.ring else { return false };
        let is_later = base.iter().any(|e| ring.within(e.span).any(|known| known.stamp > e.stamp));
        let spared = (from == freeze.subject).then_some(freeze.generation);
        let lives = ring.owners().filter(|o| o.peer == freeze.subject && Some(o.generation) != spared);
        let mut theirs = lives.flat_map(|life| ring.owned_by(life));
        let is_listed = |entry: &Entry| base.iter().map(|e| e.span.clip(entry.span).len()).sum::<u128>() == entry.span.len();
        is_later || (freeze.everything && !theirs.all(|entry| is_listed(&entry)))
    }

    fn record_floor(&mut self, from: PeerName, freeze: &Freeze, base: &[Entry], now: Instant) {
        let spans: Vec<Span> = base.iter().map(|entry| entry.span).collect();
        let by = Owner { peer: from, generation: freeze.generation };
        // Its earlier attempts are covered by this one, where they were about nothing else.
        let is_covered = |floor: &Floor| floor.spans.iter().all(|s| spans.iter().any(|covering| covering.covers(*s)));
        self.floors.retain(|floor| !is_covered(floor) || floor.target > freeze.target);
        if !spans.is_empty() && self.floors.len() < MAX_FLOORS {
            let Freeze { subject, nonce, target, .. } = *freeze;
            self.floors.push(Floor { by, subject, nonce, spans, target });
        }
        self.writes.push(store::write_floors(&self.floors));
        self.floor_check_at.get_or_insert(now + FLOOR_CHECK_DELAY);
    }

    /// What of an entry may be taken: all of it, but for what is frozen at a higher version.
    pub(crate) fn not_frozen(&self, entry: Entry) -> Vec<Entry> {
        if self.floors.is_empty() {
            return vec![entry];
        }
        let mut parts = vec![entry.span];
        for floor in self.floors.iter().filter(|floor| entry.stamp.version < floor.target) {
            for frozen in &floor.spans {
                parts = parts
                    .into_iter()
                    .flat_map(|part| {
                        let left = Span::new(part.lo, frozen.lo.clamp(part.lo, part.hi));
                        let right = Span::new(frozen.hi.clamp(part.lo, part.hi), part.hi);
                        if part.overlaps(*frozen) { [left, right] } else { [part, Span::new(part.hi, part.hi)] }
                    })
                    .filter(|part| !part.is_empty())
                    .collect();
            }
        }
        parts.into_iter().map(|span| Entry { span, stamp: entry.stamp }).collect()
    }

    /// Remembers that somebody's entry was not taken because of a promise. Most promises are soon over; one whose
    /// asker began another life is not, and then the entry's owner must rise above it.
    pub(crate) fn note_blocked(&mut self, entry: Entry) {
        let floors = self.floors.iter().filter(|f| entry.stamp.version < f.target);
        let blocking = floors.filter(|f| f.spans.iter().any(|span| span.overlaps(entry.span)));
        if let Some(target) = blocking.map(|floor| floor.target).max()
            && self.blocked.len() < MAX_BLOCKED
        {
            self.blocked.insert(entry.span, (entry.stamp.owner.peer, target));
        }
    }

    pub(crate) fn handle_raise(&mut self, span: Span, target: u64, now: Instant) -> Result<(), GossipError> {
        if target >= u64::MAX >> 2 || span.is_empty() {
            return Err(GossipError::Misbehaved("a version beyond its bound"));
        }
        let me = self.me();
        let Some(ring) = &mut self.ring else { return Ok(()) };
        let low = ring.within(span).filter(|e| e.stamp.owner == me && e.stamp.version <= target);
        let raised: Vec<Entry> =
            low.map(|e| Entry { span: e.span, stamp: Stamp { version: target + 1, owner: me } }).collect();
        for entry in &raised {
            ring.join(*entry);
        }
        if !raised.is_empty() {
            self.tell(raised, now);
            self.after_ring_change(now);
        }
        Ok(())
    }

    /// Forgets promises that the ring has caught up with.
    pub(crate) fn drop_passed_floors(&mut self) {
        let Some(ring) = &self.ring else { return };
        let before = self.floors.len();
        self.floors.retain(|floor| {
            let mut known = floor.spans.iter().flat_map(|span| ring.within(*span));
            known.any(|entry| entry.stamp.version < floor.target)
        });
        if self.floors.len() != before {
            self.writes.push(store::write_floors(&self.floors));
        }
    }

    /// Asks about promises that have been kept for long.
    pub(crate) fn check_floors(&mut self, now: Instant) {
        if self.floor_check_at.is_none_or(|at| now < at) {
            return;
        }
        let asks: Vec<_> = self.floors.iter().map(|f| (f.by, f.subject, f.nonce)).collect();
        for (by, subject, nonce) in asks {
            if self.is_reachable(by.peer) {
                self.send(by.peer, &Message::FreezeAsk { subject, nonce, generation: by.generation });
            }
        }
        for (span, (owner, target)) in std::mem::take(&mut self.blocked) {
            if self.is_reachable(owner) {
                self.send(owner, &Message::Raise { span, target });
            }
        }
        self.floor_check_at = (!self.floors.is_empty()).then(|| now + FLOOR_CHECK_DELAY);
    }

    pub(crate) fn handle_freeze_ask(&mut self, from: PeerName, subject: PeerName, nonce: u64, generation: u64) {
        let is_on = self.settles.get(&subject).is_some_and(|settle| settle.nonce == nonce);
        // Only the life that asked knows what came of it.
        if !is_on && generation == self.header.generation {
            let ring = self.whole_ring();
            self.send(from, &Message::Unfreeze { subject, nonce, ring });
        }
    }

    pub(crate) fn handle_unfreeze(
        &mut self,
        from: PeerName,
        subject: PeerName,
        nonce: u64,
        ring: Option<&Bundle>,
        now: Instant,
    ) -> Result<(), GossipError> {
        if let Some(bundle) = ring {
            self.handle_ring(from, bundle, now)?;
        }
        let before = self.floors.len();
        self.floors.retain(|f| (f.by.peer, f.subject, f.nonce) != (from, subject, nonce));
        if self.floors.len() != before {
            self.writes.push(store::write_floors(&self.floors));
        }
        Ok(())
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
