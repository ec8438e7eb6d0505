//! The other side of a take-over: what this router promised not to use while somebody else takes it over. `settle`
//! has the whole story.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weave_model::PeerName;

use crate::{
    error::GossipError,
    hunt::Asker,
    ipam::Ipam,
    request::Refusal,
    ring::{Entry, Owner, Stamp},
    span::Span,
    store,
    wire::{Bundle, Freeze, FreezeRefusal, Frozen, Message},
};

/// What was promised to a router that takes space over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// To whom, in which life.
    by: Owner,
    subject: PeerName,
    nonce: u64,
    pub(crate) spans: Vec<Span>,
    /// No lower version is taken for these addresses.
    pub(crate) target: u64,
}

/// Promises older than this are asked about.
const FLOOR_CHECK_DELAY: Duration = Duration::from_secs(3);
/// Promises kept at once.
const MAX_FLOORS: usize = 4_096;

impl Ipam {
    /// Another router asks us to freeze what it takes over.
    pub(crate) fn handle_freeze(
        &mut self,
        from: PeerName,
        freeze: &Freeze,
        now: Instant,
    ) -> Result<(), GossipError> {
        let Freeze { subject, nonce, .. } = *freeze;
        if freeze.base.universe != self.universe_id
            || subject == self.local
            || self.floors.len() >= MAX_FLOORS
        {
            return Ok(());
        }
        if freeze.target >= u64::MAX >> 2 || freeze.epochs.len() > MAX_FLOORS {
            return Err(GossipError::Misbehaved("a version or a list beyond its bound"));
        }
        let base = self.read_bundle(&freeze.base)?;
        if self.ring.as_ref().is_some_and(|ring| ring.id() != freeze.base.ring) {
            return Ok(());
        }
        if !self.is_heard(from, &freeze.base) {
            // It was removed and does not know: our ring tells it.
            self.answer_ring(from);
            return Ok(());
        }
        self.learn_members(&freeze.base.members, now);
        // Whoever agreed knows the asker: it may own space from then on.
        self.learn_members(&[(from, freeze.base.sender)], now);
        self.merge(&base, now);
        let message = match self.refusal_of(from, freeze, &base) {
            Some(reason) => Message::FreezeRefused { subject, nonce, reason },
            None => {
                self.record_floor(from, freeze, &base, now);
                Message::Frozen(self.agreement(freeze, &base))
            }
        };
        self.send(from, &message);
        Ok(())
    }

    fn agreement(&self, freeze: &Freeze, base: &[Entry]) -> Frozen {
        let subject = freeze.subject;
        let lives =
            freeze.epochs.iter().map(|(generation, _)| Owner { peer: subject, generation: *generation });
        let is_known = freeze.members == self.members.digest();
        Frozen {
            subject,
            nonce: freeze.nonce,
            generation: self.header.generation,
            is_sure: self.is_sure(),
            members: if is_known { Vec::new() } else { self.members.all() },
            epochs: lives.filter_map(|life| Some((life.generation, *self.epochs.get(&life)?))).collect(),
            in_use: base.iter().flat_map(|entry| self.ledger.used_runs(entry.span)).collect(),
        }
    }

    fn refusal_of(&mut self, from: PeerName, freeze: &Freeze, base: &[Entry]) -> Option<FreezeRefusal> {
        let subject = freeze.subject;
        let life = self.life_of(subject);
        let is_alive = self.is_reachable(subject) || (life.is_some() && life != freeze.life);
        if subject != from && is_alive {
            return Some(FreezeRefusal::Alive);
        }
        if self.knows_more(from, freeze, base) {
            return self.whole_ring().map(FreezeRefusal::Newer);
        }
        if self.settles.contains_key(&subject) {
            if from != subject && self.local < from {
                return Some(FreezeRefusal::Busy(self.local));
            }
            let refusal = match from == subject {
                true => Refusal::PeerAlive { peer: subject },
                false => Refusal::TakeOverInProgress { by: from },
            };
            self.abort(subject, refusal);
        }
        let in_the_way =
            |floor: &&Floor| floor.spans.iter().any(|s| base.iter().any(|e| e.span.overlaps(*s)));
        let mut target = None;
        for floor in self.floors.iter().filter(in_the_way) {
            let holder = floor.by.peer;
            let is_same = floor.by == (Owner { peer: from, generation: freeze.generation })
                && floor.nonce == freeze.nonce;
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
        let lives = ring.lives_of(freeze.subject).filter(|life| Some(life.generation) != spared);
        let mut theirs = lives.flat_map(|life| ring.owned_by(life));
        let is_listed = |entry: &Entry| {
            base.iter().map(|e| e.span.clip(entry.span).len()).sum::<u128>() == entry.span.len()
        };
        is_later || (freeze.everything && !theirs.all(|entry| is_listed(&entry)))
    }

    fn record_floor(&mut self, from: PeerName, freeze: &Freeze, base: &[Entry], now: Instant) {
        let spans: Vec<Span> = base.iter().map(|entry| entry.span).collect();
        let by = Owner { peer: from, generation: freeze.generation };
        // Its earlier attempts are covered by this one, where they were about nothing else.
        let Freeze { subject, nonce, target, .. } = *freeze;
        let is_covered = |floor: &Floor| {
            floor.subject == subject
                && floor.spans.iter().all(|s| spans.iter().any(|covering| covering.covers(*s)))
        };
        self.floors.retain(|floor| !is_covered(floor) || floor.target > target);
        self.floors.push(Floor { by, subject, nonce, spans, target });
        self.writes.push(store::write_floors(&self.floors));
        self.floor_check_at.get_or_insert(now + FLOOR_CHECK_DELAY);
    }

    /// Whether a router may be given space: it was not removed, and nobody was promised that it may be. One that was,
    /// and comes back, has to find that out first: what it is given before, it would forget.
    /// Nor is a life given any that has not spoken to us yet, or that does not know how often it was removed.
    pub(crate) fn may_be_given(&self, asker: Asker) -> bool {
        let Asker { life, term } = asker;
        let peer = life.peer;
        let is_being_removed = |floor: &Floor| {
            floor.subject == peer && floor.by.peer != peer && self.members.contains(floor.by.peer)
        };
        let is_known = self.life_of(peer) == Some(life.generation);
        let known = self.members.of(peer);
        is_known && known.is_member && known.term() == term && !self.floors.iter().any(is_being_removed)
    }

    /// What of our own space we may use: all that was not frozen for somebody else.
    pub(crate) fn not_frozen(&self, span: Span) -> Vec<Span> {
        let mut parts = vec![span];
        for frozen in self.floors.iter().flat_map(|floor| &floor.spans) {
            parts = parts
                .into_iter()
                .flat_map(|part| part.without(*frozen))
                .filter(|part| !part.is_empty())
                .collect();
        }
        parts
    }

    /// What came to be ours in this life and may not be used.
    pub(crate) fn frozen_own(&self) -> Vec<Entry> {
        if self.floors.is_empty() {
            return Vec::new();
        }
        let own = || self.ring.iter().flat_map(|ring| ring.owned_by(self.me()));
        let usable = |entry: Entry| self.not_frozen(entry.span);
        let mut frozen: Vec<Entry> = Vec::new();
        for entry in own() {
            let mut at = entry.span.lo;
            for part in usable(entry).into_iter().chain([Span::new(entry.span.hi, entry.span.hi)]) {
                frozen.push(Entry { span: Span::new(at, part.lo), stamp: entry.stamp });
                at = part.hi;
            }
        }
        frozen.retain(|entry| !entry.span.is_empty());
        frozen
    }

    /// Forgets promises, or the parts of them, that the ring has caught up with.
    pub(crate) fn drop_passed_floors(&mut self, now: Instant) {
        let Some(ring) = &self.ring else { return };
        let part = |floor: &Floor, is_passed: bool| -> Vec<Span> {
            let known = floor.spans.iter().flat_map(|span| ring.within(*span));
            known.filter(|e| (e.stamp.version >= floor.target) == is_passed).map(|e| e.span).collect()
        };
        let is_over = |floor: &Floor| floor.spans.is_empty() && !self.members.contains(floor.subject);
        let (mut passed, mut kept): (Vec<Floor>, Vec<Floor>) = (Vec::new(), Vec::new());
        for floor in &self.floors {
            let (done, open) = (part(floor, true), part(floor, false));
            if !done.is_empty() || is_over(floor) {
                passed.push(Floor { spans: done, ..floor.clone() });
            }
            if !open.is_empty() || (floor.spans.is_empty() && !is_over(floor)) {
                kept.push(Floor { spans: open, ..floor.clone() });
            }
        }
        if !passed.is_empty() {
            self.lift(passed, kept, now);
        }
    }

    /// Ends some promises. What came to be ours under them is raised above them, and used from now on.
    fn lift(&mut self, lifted: Vec<Floor>, kept: Vec<Floor>, now: Instant) {
        self.floors = kept;
        self.writes.push(store::write_floors(&self.floors));
        let me = self.me();
        let mut raised: Vec<Entry> = Vec::new();
        for floor in &lifted {
            for span in &floor.spans {
                let own = self.ring.iter().flat_map(|r| r.within(*span)).filter(|e| e.stamp.owner == me);
                raised.extend(own.map(|e| {
                    let version = e.stamp.version.max(floor.target + 1);
                    Entry { span: e.span, stamp: Stamp { version, owner: me } }
                }));
            }
        }
        for entry in &raised {
            if let Some(ring) = &mut self.ring {
                ring.join(*entry);
            }
            self.gain(entry.span);
        }
        if !raised.is_empty() {
            let spans: Vec<Span> = raised.iter().map(|entry| entry.span).collect();
            self.tell(raised, now);
            self.after_ring_change(&spans, now);
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
        // A promise to somebody who does not know of it any more would keep us from our own for ever.
        let is_free =
            !self.settles.contains_key(&self.local) && !self.header.is_stale && self.leaving.is_none();
        if is_free && !self.frozen_own().is_empty() {
            self.begin_settle(self.local, None, now);
        }
        self.floor_check_at = (!self.floors.is_empty()).then(|| now + FLOOR_CHECK_DELAY);
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
        let is_over = |f: &Floor| (f.by.peer, f.subject, f.nonce) == (from, subject, nonce);
        if self.floors.iter().any(is_over) {
            let (over, kept) = std::mem::take(&mut self.floors).into_iter().partition(is_over);
            self.lift(over, kept, now);
        }
        Ok(())
    }
}
