//! Messages: comparing, asking, merging.

use std::time::{Duration, Instant};

use bytes::Bytes;
use weave_model::{LinkId, PeerName};

use super::{FIRST_FREE, Mesh};
use crate::{
    Event, MessageError, Namespace,
    peers::Taken,
    record::{Delta, FactKey, Life, Stamp},
    wire::{self, MAX_COUNT, Message, Scope},
};

/// How long an answer may take before another neighbour is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Wait before the second rise of our incarnation in a row; doubles up to five minutes. Two routers with one identity would
/// otherwise outbid each other without end.
const REBIRTH: Duration = Duration::from_secs(1);
const REBIRTH_LIMIT: Duration = Duration::from_secs(300);

/// A record that we asked a neighbour for.
#[derive(Debug)]
pub(super) struct Asked {
    link: LinkId,
    stamp: Stamp,
    until: Instant,
}

/// Claims to our name that we have to outbid.
#[derive(Debug, Default)]
pub(super) struct Rebirth {
    /// The highest incarnation that somebody else claimed in our name.
    claimed: Option<u64>,
    /// When the next rise is allowed.
    not_before: Option<Instant>,
    gap: Duration,
}

impl Rebirth {
    pub(super) fn due(&self) -> Option<Instant> {
        self.claimed.and(self.not_before)
    }
}

impl Mesh {
    /// Takes one message from a link.
    ///
    /// # Errors
    /// When the message cannot have come from an honest router of this version. The caller closes the link, reports that with
    /// [`Mesh::handle_link_closed`], and says whose fault it was.
    pub fn handle_message(&mut self, link: LinkId, bytes: &[u8], now: Instant) -> Result<(), MessageError> {
        if self.links.link(link).is_none() {
            // It was closed by us, and this was on its way.
            return Ok(());
        }
        self.counters.messages_received += 1;
        self.counters.bytes_received += bytes.len() as u64;
        let message = wire::decode(bytes)?;
        if !matches!(message, Message::Refuse(_) | Message::Claim { .. }) {
            self.confirm_link(link, now);
        }
        match message {
            Message::Hash(sum) => self.handle_hash(link, sum, now),
            Message::Digest { scope, stamps } => self.handle_digest(link, scope, &stamps, now),
            Message::Want(stamps) => self.handle_want(link, &stamps),
            Message::Facts(deltas) => {
                deltas.into_iter().try_for_each(|delta| self.handle_delta(link, delta, now))?
            }
            Message::Send { hops, from, to, channel, payload } => {
                self.handle_send(hops, from, to, channel, payload);
            }
            Message::Broadcast { hops, origin, tag, sequence, channel, payload } => {
                self.handle_broadcast(link, (origin, tag, sequence), hops, channel, payload);
            }
            Message::Observed(address) => self.handle_observed(link, address, now),
            Message::Refuse(reason) => self.handle_refuse(link, reason, now),
            Message::Claim { stands: true, name, public_key } => {
                self.handle_claim(link, name, public_key, now);
            }
            Message::Claim { stands: false, name, public_key } => {
                self.handle_claim_end(link, name, public_key);
            }
        }
        self.run(now);
        Ok(())
    }

    fn handle_hash(&mut self, id: LinkId, sum: u64, now: Instant) {
        if sum == self.peers.hash() {
            return;
        }
        self.counters.mismatches += 1;
        if !self.motion.may_answer(self.peers.len(), now) {
            return;
        }
        if let Some(link) = self.links.link_mut(id) {
            link.outbox.digest(Scope::Full);
            self.ready.insert(id);
        }
    }

    fn handle_digest(&mut self, id: LinkId, scope: Scope, stamps: &[(PeerName, Stamp)], now: Instant) {
        let mut offers = Vec::new();
        for (name, theirs) in stamps {
            if *name == self.peers.me() {
                self.hear_of_ourselves(*theirs, now);
            }
            let ours = self.peers.stamp(*name);
            if *theirs > ours {
                self.ask(id, *name, *theirs, now);
            } else if ours > *theirs && self.peers.is_reachable(*name) {
                offers.push(*name);
            }
        }
        let Some(link) = self.links.link_mut(id) else { return };
        // An opening digest crosses ours, which says all that an offer could.
        let is_answered = scope == Scope::Partial || (scope == Scope::Opening && link.digest_sent);
        if is_answered {
            return;
        }
        let mut named: Vec<PeerName> = stamps.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        offers.extend(self.peers.reachable().filter(|name| named.binary_search(name).is_err()));
        offers.into_iter().for_each(|name| link.outbox.offer(name));
        self.ready.insert(id);
    }

    /// Asks for a record, unless somebody was asked just now.
    fn ask(&mut self, id: LinkId, name: PeerName, stamp: Stamp, now: Instant) {
        if name == self.peers.me() {
            return;
        }
        if self.collisions.is_refused(name, stamp.life) {
            self.refuse_again(id, name, now);
            return;
        }
        if self.asked.get(&name).is_some_and(|asked| asked.stamp >= stamp && asked.until > now) {
            return;
        }
        self.asked.insert(name, Asked { link: id, stamp, until: now + PATIENCE });
        if let Some(link) = self.links.link_mut(id) {
            link.outbox.want(name);
            self.ready.insert(id);
        }
    }

    /// Whoever was asked over this link will not answer any more.
    pub(super) fn forget_asked(&mut self, id: LinkId) {
        self.asked.retain(|_, asked| asked.link != id);
    }

    fn handle_want(&mut self, id: LinkId, stamps: &[(PeerName, Stamp)]) {
        let Some(link) = self.links.link_mut(id) else { return };
        for (name, have) in stamps.iter().filter(|(name, have)| self.peers.stamp(*name) > *have) {
            link.outbox.push(*name, *have);
        }
        self.ready.insert(id);
    }

    fn handle_delta(&mut self, id: LinkId, delta: Delta, now: Instant) -> Result<(), MessageError> {
        let (name, told) = (delta.peer, Stamp { life: delta.life, version: delta.to });
        if name == self.peers.me() {
            self.hear_of_ourselves(told, now);
            return Ok(());
        }
        let pinned = self.links.to(name).map(|(_, link)| link.info.public_key);
        let taken = self.peers.merge(delta, pinned, now)?;
        if !matches!(taken, Taken::Gap) && self.asked.get(&name).is_some_and(|asked| asked.stamp <= told) {
            self.asked.remove(&name);
        }
        match taken {
            Taken::Stale | Taken::Full => {}
            Taken::Gap => {
                self.asked.remove(&name);
                self.ask(id, name, told, now);
            }
            Taken::Collision(public_key) => self.refuse_record(id, name, told.life, public_key, now),
            Taken::News { before, restarted, described, news } => {
                self.mark_dirty(name, before, Some(id), now);
                if !news.links.is_empty() || before == Stamp::default() {
                    self.mark_graph_stale(now);
                }
                if restarted {
                    self.handle_restart(name, told.life, now);
                }
                self.tell_facts(name, news.facts);
                if described {
                    self.discover(name, now);
                }
            }
        }
        Ok(())
    }

    /// A peer that we knew has begun another run.
    fn handle_restart(&mut self, name: PeerName, life: Life, now: Instant) {
        self.windows.remove(&name);
        if self.links.to(name).is_some_and(|(_, link)| link.is_outlived_by(life)) {
            self.maker.peer_restarted(name, &mut self.random, now);
        }
        if let Some(peer) = self.peers.peer(name).filter(|peer| peer.joined) {
            self.events.push_back(Event::PeerJoined { peer: name, nickname: peer.info.nickname.clone() });
        }
    }

    /// Tells the shell what changed, if it knows the peer.
    fn tell_facts(&mut self, name: PeerName, facts: Vec<(FactKey, Option<Bytes>)>) {
        if !self.peers.peer(name).is_some_and(|peer| peer.joined) {
            return;
        }
        let shown = facts.into_iter().filter(|((ns, _), _)| *ns >= FIRST_FREE);
        self.events.extend(shown.map(|((ns, key), value)| Event::FactChanged {
            peer: name,
            ns: Namespace(ns),
            key,
            value,
        }));
    }

    /// Somebody has a record under our name. If we did not write it, a run of ours before this one did, whose incarnation we do
    /// not remember; ours has to be later, or our facts would never replace it.
    fn hear_of_ourselves(&mut self, theirs: Stamp, now: Instant) {
        let ours = self.peers.own().record.stamp();
        let is_foreign = theirs.life.tag != ours.life.tag && theirs.life.incarnation >= ours.life.incarnation;
        let is_ahead = theirs.life.tag == ours.life.tag && theirs > ours;
        if !is_foreign && !is_ahead || theirs.life.incarnation + 1 >= MAX_COUNT {
            return;
        }
        self.rebirth.claimed = self.rebirth.claimed.max(Some(theirs.life.incarnation));
        let at = *self.rebirth.not_before.get_or_insert(now);
        if at + REBIRTH_LIMIT * 2 < now {
            self.rebirth.gap = Duration::ZERO;
        }
        self.rebirth.not_before = Some(at.max(now));
    }

    /// Begins a later incarnation, if somebody claimed ours.
    pub(super) fn rebear(&mut self, now: Instant) {
        if self.rebirth.due().is_none_or(|at| at > now) {
            return;
        }
        let Some(claimed) = self.rebirth.claimed.take() else { return };
        self.rebirth.gap = (self.rebirth.gap * 2).clamp(REBIRTH, REBIRTH_LIMIT);
        self.rebirth.not_before = Some(now + self.rebirth.gap);
        let before = self.peers.own().record.stamp();
        let incarnation = claimed.max(before.life.incarnation) + 1;
        self.peers.write(|record| record.rebear(Life { incarnation, tag: before.life.tag }));
        self.config.incarnation = incarnation;
        self.events.push_back(Event::IncarnationBumped(incarnation));
        self.mark_dirty(self.peers.me(), Stamp::default(), None, now);
    }
}
