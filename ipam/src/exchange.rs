//! How the ring gets round: merging, telling, comparing digests, and meeting another ring.

use std::time::{Duration, Instant};

use weave_model::PeerName;

use crate::{
    error::GossipError,
    ipam::{Event, Ipam, Write},
    members::Membership,
    mutant::{self, Mutant},
    ring::{self, Entry, Owner, Ring, Stamp},
    span::Span,
    store,
    wire::{self, Bundle, Fact, Message},
};

/// Digests that differ are left so long before the whole ring is asked for: most often the news is on its way.
const COMPARE_DELAY: Duration = Duration::from_millis(2500);
/// A router without a ring asks again after so long.
const ASK_DELAY: Duration = Duration::from_millis(500);

impl Ipam {
    pub(crate) fn handle_ring(
        &mut self,
        from: PeerName,
        bundle: &Bundle,
        now: Instant,
    ) -> Result<(), GossipError> {
        if bundle.universe != self.universe_id {
            return Ok(());
        }
        let entries = self.read_bundle(bundle)?;
        match &self.ring {
            Some(ring) if ring.id() == bundle.ring => {
                if !self.is_heard(from, bundle) {
                    // Two stores from the past may not hear each other; how often we ourselves came back is no
                    // danger to know.
                    let ours: Vec<_> = bundle
                        .members
                        .iter()
                        .filter(|(peer, m)| *peer == self.local && m.is_member)
                        .copied()
                        .collect();
                    self.members.merge(&ours);
                    return Ok(());
                }
                self.learn_members(&bundle.members, now);
                self.merge(&entries, now);
            }
            Some(_) => {
                self.note_other_ring(from, bundle);
                if let Some(ring) = Ring::assemble(&self.universe, &bundle.seeds, &entries) {
                    self.cross(ring, &bundle.members, now);
                }
            }
            None if self.leaving.is_none() => {
                if let Some(ring) = Ring::assemble(&self.universe, &bundle.seeds, &entries) {
                    self.members.merge(&bundle.members);
                    self.adopt(ring, now);
                } else {
                    self.compare_rings(now);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Like [`Ipam::handle_ring`], for a whole ring: the other side is sent what it lacks.
    pub(crate) fn handle_ring_answer(
        &mut self,
        from: PeerName,
        bundle: &Bundle,
        now: Instant,
    ) -> Result<(), GossipError> {
        self.handle_ring(from, bundle, now)?;
        if bundle.universe != self.universe_id {
            return Ok(());
        }
        let theirs = Ring::assemble(&self.universe, &bundle.seeds, &bundle.entries(&self.universe)?);
        if let (Some(ours), Some(theirs)) = (&self.ring, theirs)
            && ours.id() == theirs.id()
            && (ours.digest() != theirs.digest() || self.members.knows_more_than(&bundle.members))
            && let Some(bundle) = self.whole_ring()
        {
            self.send(from, &Message::Ring(bundle));
        }
        Ok(())
    }

    /// Takes what is greater. Should we turn out to have been removed, the ring that we knew is void.
    pub(crate) fn learn_members(&mut self, members: &[(PeerName, Membership)], now: Instant) {
        if self.members.merge(members) {
            self.publish_lazily(now);
        }
        let is_removed = !self.members.of(self.local).is_member && self.leaving.is_none();
        if is_removed && self.ring.is_some() {
            self.abandon_ring();
            self.compare_rings(now);
        }
    }

    /// Whether the sender may speak of the ring: it was not removed since it knew what it says.
    pub(crate) fn is_heard(&self, from: PeerName, bundle: &Bundle) -> bool {
        bundle.sender >= self.members.of(from)
    }

    /// The bundle's entries, once all of it is found to be sound.
    pub(crate) fn read_bundle(&self, bundle: &Bundle) -> Result<Vec<Entry>, GossipError> {
        let entries = bundle.entries(&self.universe)?;
        if ring::identity(&self.universe, &bundle.seeds) != bundle.ring {
            return Err(GossipError::Misbehaved("a ring that is not named after its seeds"));
        }
        Ok(entries)
    }

    /// Takes what is greater.
    pub(crate) fn merge(&mut self, entries: &[Entry], now: Instant) {
        let me = self.me();
        let Some(ring) = &mut self.ring else { return };
        let changes: Vec<_> = entries.iter().flat_map(|entry| ring.join(*entry)).collect();
        if changes.is_empty() {
            return;
        }
        let mut has_lost = false;
        let mut gained = Vec::new();
        for change in &changes {
            match (change.before.owner == me, change.after.owner == me) {
                (true, false) => {
                    has_lost |= self.is_in_use(change.span);
                    self.space.remove(change.span);
                }
                (false, true) => {
                    self.gain(change.span);
                    gained.push(change.span);
                }
                (true, true) | (false, false) => {}
            }
        }
        self.after_ring_change(&gained, now);
        if has_lost {
            // Only we give our space away. That somebody knows of a gift that we do not know of means that our
            // store is from the past, or that somebody declared us dead.
            self.fence();
        }
    }

    /// Follows up on any change of the ring, in which we gained some space.
    pub(crate) fn after_ring_change(&mut self, gained: &[Span], now: Instant) {
        let me = self.me();
        if let Some(ring) = &mut self.ring {
            let raised: Vec<Entry> = gained.iter().filter_map(|span| ring.coalesce(me, *span)).collect();
            self.tell(raised, now);
        }
        self.drop_passed_floors(now);
        self.recheck_settles(now);
        self.publish_lazily(now);
        self.compare_rings(now);
    }

    /// Whether something of the span is free to give, or held.
    fn is_in_use(&self, span: Span) -> bool {
        self.space.lowest(span).is_some() || self.ledger.used_within(span).next().is_some()
    }

    /// Space is ours from now on: what of it no container holds, and nobody is taking over, is free.
    pub(crate) fn gain(&mut self, span: Span) {
        for part in self.not_frozen(span) {
            self.space.insert(part);
        }
        let used: Vec<u128> = self.ledger.used_within(span).collect();
        for address in used {
            self.space.remove(Span::one(address));
        }
    }

    /// Gives away what is ours and free. Returns the entries that say so; they go into the same write.
    pub(crate) fn give(&mut self, span: Span, to: Owner, now: Instant) -> Vec<Entry> {
        let me = self.me();
        let Some(ring) = &mut self.ring else { return Vec::new() };
        let raise = u64::from(!mutant::is(Mutant::GiveWithoutVersion));
        let given: Vec<Entry> = ring
            .within(span)
            .filter(|entry| entry.stamp.owner == me)
            .map(|entry| Entry {
                span: entry.span,
                stamp: Stamp { version: entry.stamp.version + raise, owner: to },
            })
            .collect();
        for entry in &given {
            ring.join(*entry);
            self.space.remove(entry.span);
        }
        self.tell(given.clone(), now);
        self.after_ring_change(&[], now);
        given
    }

    /// Begins another life of this store: nothing that the present one owns is used until it is settled by hand.
    pub(crate) fn fence(&mut self) {
        let generation = self.nonce();
        self.header.begin_life(self.epoch, generation);
        self.header.is_stale = true;
        self.header.is_confirmed = false;
        self.space = crate::space::Space::default();
        self.hunts.clear();
        self.writes.push(store::write_header(&self.header));
    }

    /// Takes a ring, having none.
    pub(crate) fn adopt(&mut self, ring: Ring, now: Instant) {
        self.writes.push(store::write_seeds(ring.seeds()));
        let seeds: Vec<_> = ring.seeds().iter().map(|seed| (seed.peer, self.members.of(seed.peer))).collect();
        self.members.merge(&seeds);
        self.members.rejoin(self.local);
        let own: Vec<Span> = ring.owned_by(self.me()).map(|e| e.span).collect();
        let is_first_owner = ring.seeds().contains(&self.me()) && self.members.of(self.local).term() == 0;
        self.ring = Some(ring);
        self.consensus = None;
        let told: Vec<_> =
            self.mates().filter_map(|(peer, fact)| Some((peer, self.membership_in(fact)?))).collect();
        self.members.merge(&told);
        if is_first_owner {
            self.note_witnessed(now);
        }
        for span in own {
            self.gain(span);
        }
        self.publish_by(now);
        self.compare_rings(now);
    }

    /// Some entries, with the removals: whoever learns that space was taken over learns from whom.
    pub(crate) fn bundle(&self, entries: impl IntoIterator<Item = Entry>) -> Option<Bundle> {
        let ring = self.ring.as_ref()?;
        let sender = self.members.of(self.local);
        Some(Bundle::new(self.universe_id, sender, ring, self.members.removals(), entries))
    }

    pub(crate) fn whole_ring(&self) -> Option<Bundle> {
        let ring = self.ring.as_ref()?;
        let sender = self.members.of(self.local);
        Some(Bundle::new(self.universe_id, sender, ring, self.members.all(), ring.entries()))
    }

    pub(crate) fn answer_ring(&mut self, to: PeerName) {
        if let Some(bundle) = self.whole_ring() {
            self.send(to, &Message::RingAnswer(bundle));
        }
    }

    /// Tells everybody what we changed, once the delay has passed.
    pub(crate) fn tell_news(&mut self, now: Instant) {
        if self.news_at.is_none_or(|at| now < at) {
            return;
        }
        self.news_at = None;
        let news = std::mem::take(&mut self.news);
        let Some(ring) = &self.ring else { return };
        // What the ring says now of the places that changed: one entry for what was changed twice.
        let mut latest: Vec<Entry> = news.iter().flat_map(|entry| ring.within(entry.span)).collect();
        latest.sort_unstable();
        latest.dedup();
        let mut disjoint: Vec<Entry> = Vec::new();
        for entry in latest {
            let lo = disjoint.last().map_or(entry.span.lo, |last| last.span.hi.max(entry.span.lo));
            if lo < entry.span.hi {
                disjoint.push(Entry { span: Span::new(lo, entry.span.hi), stamp: entry.stamp });
            }
        }
        if let Some(bundle) = self.bundle(disjoint) {
            self.outbox.push(Event::Broadcast(wire::encode(&Message::Ring(bundle))));
        }
    }

    /// Sees to it that the ring is asked for when somebody's differs from ours.
    pub(crate) fn compare_rings(&mut self, now: Instant) {
        if self.ring_ask_at.is_some() {
            return;
        }
        let is_needed = self.mates().any(|(peer, fact)| self.has_other_ring(peer, fact));
        if is_needed {
            let delay = match self.ring {
                Some(_) => COMPARE_DELAY + self.jitter(COMPARE_DELAY / 2),
                None => Duration::ZERO,
            };
            self.ring_ask_at = Some(now + delay);
        }
    }

    /// Asks one of those whose ring differs.
    pub(crate) fn ask_for_ring(&mut self, now: Instant) {
        if self.ring_ask_at.is_none_or(|at| now < at) {
            return;
        }
        self.ring_ask_at = None;
        let wanted: Vec<(bool, u64, PeerName)> = self
            .mates()
            .filter(|(peer, fact)| self.has_other_ring(*peer, fact))
            .filter_map(|(peer, fact)| Some((!fact.has_holders, fact.ring?.id, peer)))
            .collect();
        let pick = self.nonce();
        // Without a ring: rather one that is in use. With one: anybody whose differs.
        let best = wanted.iter().map(|(is_idle, id, _)| (*is_idle, *id)).min();
        let equals: Vec<PeerName> = wanted
            .iter()
            .filter(|(is_idle, id, _)| self.ring.is_some() || Some((*is_idle, *id)) == best)
            .map(|(_, _, peer)| *peer)
            .collect();
        let Some(peer) = pick_one(&equals, pick) else { return };
        self.send(peer, &Message::RingAsk);
        let delay = if self.ring.is_some() { COMPARE_DELAY } else { ASK_DELAY };
        self.ring_ask_at = Some(now + delay + self.jitter(delay / 2));
    }

    fn has_other_ring(&self, peer: PeerName, fact: &Fact) -> bool {
        let Some(note) = fact.ring else { return false };
        match self.ring_note() {
            None => self.leaving.is_none(),
            Some(ours) if ours.id == note.id => ours.digest != note.digest,
            Some(_) => self.peers.get(&peer).is_some_and(|p| p.other_seeds.is_empty()),
        }
    }

    fn note_other_ring(&mut self, from: PeerName, bundle: &Bundle) {
        let mut seeds: Vec<PeerName> = bundle.seeds.iter().map(|seed| seed.peer).collect();
        seeds.dedup();
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.other_seeds = seeds;
        }
    }

    /// Where two rings meet, the one without containers gives way; between two such, the one with the higher name.
    /// Nobody gives a ring up whose reachable members have containers, or with containers of its own.
    pub(crate) fn consider_adoption(&mut self, now: Instant) {
        let Some(ours) = self.ring.as_ref().map(Ring::id) else { return };
        if !self.ledger.is_empty() || !self.queue.is_empty() || self.leaving.is_some() {
            return;
        }
        let rings = || self.mates().filter_map(|(_, fact)| Some((fact.ring?.id, fact.has_holders)));
        let is_ours_used = rings().any(|(id, has_holders)| id == ours && has_holders);
        let gives_way = rings().any(|(id, has_holders)| id != ours && (has_holders || id < ours));
        if gives_way && !is_ours_used {
            self.abandon_ring();
            self.forget_strangers();
            self.compare_rings(now);
        }
    }

    /// Forgets the ring, and begins another life: what is on it is not ours any more.
    pub(crate) fn abandon_ring(&mut self) {
        self.abort_settles();
        let Some(ring) = self.ring.take() else { return };
        self.header.is_confirmed = true;
        self.header.witnessed = None;
        self.writes.extend(ring.entries().map(|entry| store::write_run(entry.span.lo, None)));
        self.writes.push(Write { key: b"i".to_vec(), value: None });
        let generation = self.nonce();
        self.header.begin_life(self.epoch, generation);
        self.writes.push(store::write_header(&self.header));
        self.space = crate::space::Space::default();
        self.hunts.clear();
        self.news.clear();
        self.ring_ask_at = None;
        for peer in self.peers.values_mut() {
            peer.other_seeds.clear();
        }
    }
}

impl Ipam {
    /// Those on a ring that was given up have no say on the next, unless somebody there knows them too.
    pub(crate) fn forget_strangers(&mut self) {
        let gone = self.members.forget_all_but(self.local);
        self.writes.extend(gone.into_iter().map(store::erase_member));
    }
}

fn pick_one<T: Copy>(from: &[T], random: u64) -> Option<T> {
    let index = usize::try_from(random).unwrap_or_default().checked_rem(from.len())?;
    from.get(index).copied()
}
