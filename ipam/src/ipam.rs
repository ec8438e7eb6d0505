//! The state machine: what it holds, how it starts, and the order in which its effects come out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use weave_model::{ContainerId, Interface, PeerName, Subnet};

use crate::{
    config::{Config, Init},
    consensus::Consensus,
    election::Election,
    error::{GossipError, RestoreError},
    freeze::Floor,
    heir::Leaving,
    hunt::{Asker, Hunt},
    ledger::Ledger,
    members::Members,
    mutant::{self, Mutant},
    nickname::Nicknames,
    peer::Peer,
    pending::Queue,
    repair::Crossing,
    request::{Refusal, Reply, RequestId},
    ring::{self, Entry, Owner, Ring},
    settle::Settle,
    space::Space,
    span::Span,
    store::{self, Header},
    wire::{self, Message},
    witness::Enrolment,
};

/// One record to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The record's key.
    pub key: Vec<u8>,
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// What the driver must do, strictly in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Write all of it, atomically and durably, before any later event is acted on.
    Persist(Vec<Write>),
    /// This router's fact is now this. The mesh brings the latest value to everybody.
    Publish(Vec<u8>),
    /// Send to one router. May be lost.
    Send {
        /// The router.
        to: PeerName,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Send to every router. May be lost.
    Broadcast(Vec<u8>),
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// With what.
        result: Result<Reply, Refusal>,
    },
}

/// How far a store has got: kept by the driver where a restart of the process finds it and a restart of the machine,
/// or a restored backup, does not (a file under `/run`, rewritten after each [`Event::Persist`], before anything that
/// comes after it is acted on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMark {
    /// Which life of the store.
    pub generation: u64,
    /// Counts every change.
    pub epoch: u64,
}

/// One router's part in the ring. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Ipam {
    pub(crate) local: PeerName,
    pub(crate) ranges: Vec<Subnet>,
    pub(crate) default_subnets: Vec<Subnet>,
    pub(crate) universe: Vec<Span>,
    pub(crate) universe_id: u64,
    pub(crate) init: Init,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) header: Header,
    pub(crate) epoch: u64,
    pub(crate) ring: Option<Ring>,
    pub(crate) members: Members,
    pub(crate) nicknames: Nicknames,
    pub(crate) consensus: Option<Consensus>,
    pub(crate) election: Election,
    pub(crate) ledger: Ledger,
    /// Free addresses that this life of the store owns.
    pub(crate) space: Space,
    pub(crate) peers: BTreeMap<PeerName, Peer>,
    /// The last change seen of each life of each router.
    pub(crate) epochs: BTreeMap<Owner, u64>,
    pub(crate) queue: Queue,
    pub(crate) hunts: BTreeMap<Span, Hunt>,
    pub(crate) settles: BTreeMap<PeerName, Settle>,
    /// Routers that were removed at the word of an operator of this one, since it was started.
    pub(crate) removed_here: BTreeSet<PeerName>,
    pub(crate) floors: Vec<Floor>,
    pub(crate) floor_check_at: Option<Instant>,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) crossing: Option<Crossing>,
    /// Own changes of the ring that the others have not been told.
    pub(crate) news: Vec<Entry>,
    pub(crate) news_at: Option<Instant>,
    pub(crate) fact_at: Option<Instant>,
    pub(crate) published: Vec<u8>,
    pub(crate) ring_ask_at: Option<Instant>,
    /// The search for others who keep that this router is a member.
    pub(crate) enrolment: Option<Enrolment>,
    /// Whether the life before this one was confirmed.
    was_confirmed: bool,
    /// Nothing has happened since the store was read.
    is_untouched: bool,
    pub(crate) writes: Vec<Write>,
    pub(crate) outbox: Vec<Event>,
    events: VecDeque<Event>,
}

/// Changes of the ring are told together after this long: a donation and what it makes coalesce go in one message.
const NEWS_DELAY: Duration = Duration::from_millis(50);

impl Ipam {
    /// Starts from the records that were persisted, in any order; from none, with an empty store.
    ///
    /// A store that holds a ring is taken as possibly out of date: what it owns is not given out until the other
    /// routers agree that it is theirs no more than ours. See [`Ipam::trust_store`].
    ///
    /// # Errors
    /// When the settings cannot work, or the store is damaged, of another router, of other ranges, or from a later
    /// version. The text says what to do. Nothing was changed.
    pub fn new(
        config: Config,
        restored: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, RestoreError> {
        let (universe, default_subnets) = config.check()?;
        let restored = store::restore(&config, &universe, restored)?;
        let mut rng = ChaCha12Rng::from_seed(seed);
        let is_new = restored.header.is_none();
        let mut header = restored.header.unwrap_or_else(|| Header {
            local: config.local,
            ranges: config.ranges.clone(),
            generation: first_generation(&config),
            prior: Vec::new(),
            is_confirmed: true,
            is_stale: false,
            vouches: false,
            witnessed: None,
        });
        if !is_new && !mutant::is(Mutant::TrustEveryStore) {
            header.begin_life(restored.epoch, rng.next_u64());
        }
        let was_confirmed = header.is_confirmed;
        header.is_confirmed = restored.ring.is_none() || mutant::is(Mutant::TrustEveryStore);
        let consensus = match &config.init {
            Init::Consensus { peers } if restored.ring.is_none() => {
                Some(Consensus::new(config.local, config.store_id, *peers, restored.acceptor))
            }
            Init::Consensus { .. } | Init::Seed(_) | Init::Observer => None,
        };
        let mut ipam = Self {
            local: config.local,
            universe_id: ring::universe_id(&universe),
            ranges: config.ranges,
            default_subnets,
            universe,
            init: config.init,
            rng,
            header,
            epoch: restored.epoch,
            ring: restored.ring,
            members: restored.members,
            nicknames: restored.nicknames,
            consensus,
            election: Election::default(),
            ledger: restored.ledger,
            space: Space::default(),
            peers: BTreeMap::new(),
            epochs: BTreeMap::new(),
            queue: Queue::default(),
            hunts: BTreeMap::new(),
            settles: BTreeMap::new(),
            removed_here: BTreeSet::new(),
            floors: if mutant::is(Mutant::PromisesForgotten) { Vec::new() } else { restored.floors },
            floor_check_at: Some(now),
            leaving: None,
            crossing: None,
            news: Vec::new(),
            news_at: None,
            fact_at: Some(now),
            published: Vec::new(),
            ring_ask_at: None,
            enrolment: None,
            was_confirmed,
            is_untouched: true,
            writes: Vec::new(),
            outbox: Vec::new(),
            events: VecDeque::new(),
        };
        ipam.writes.push(store::write_header(&ipam.header));
        ipam.begin_seeded(now);
        ipam.flush();
        Ok(ipam)
    }

    /// Says that the store is the latest there ever was of this router, which only the driver can know: `mark` is
    /// what it kept outside the store. Call it right after [`Ipam::new`] or not at all. When the store is no older than
    /// the mark, its space is used at once, with nobody asked; says whether it is.
    pub fn trust_store(&mut self, mark: StoreMark, now: Instant) -> bool {
        let last = self.header.prior.last();
        let is_latest = last.is_some_and(|(life, epoch)| *life == mark.generation && *epoch >= mark.epoch);
        if !is_latest || !self.is_untouched || self.header.is_stale {
            return false;
        }
        self.header.is_confirmed = self.was_confirmed;
        self.header.generation = mark.generation;
        self.header.prior.pop();
        self.writes.push(store::write_header(&self.header));
        let own: Vec<Span> = self.ring.iter().flat_map(|r| r.owned_by(self.me())).map(|e| e.span).collect();
        for span in own {
            self.gain(span);
        }
        self.finish(now);
        true
    }

    /// How far the store has got with everything that [`Ipam::poll_event`] has yielded. See [`StoreMark`].
    #[must_use]
    pub fn store_mark(&self) -> StoreMark {
        StoreMark { generation: self.header.generation, epoch: self.epoch }
    }

    /// Takes a message from another router, in any order, any number of times.
    ///
    /// # Errors
    /// When it cannot be read, contradicts itself or is of another version. Nothing was changed; the link is fine.
    pub fn handle_message(&mut self, from: PeerName, bytes: &[u8], now: Instant) -> Result<(), GossipError> {
        let result = wire::decode(bytes).and_then(|message| self.handle_decoded(from, message, now));
        self.note_readable(from, result.is_ok());
        self.finish(now);
        result
    }

    fn handle_decoded(&mut self, from: PeerName, message: Message, now: Instant) -> Result<(), GossipError> {
        if from == self.local {
            return Ok(());
        }
        match message {
            Message::Ring(bundle) => self.handle_ring(from, &bundle, now),
            Message::RingAsk => {
                self.answer_ring(from);
                Ok(())
            }
            Message::RingAnswer(bundle) => self.handle_ring_answer(from, &bundle, now),
            Message::SpaceAsk { nonce, ring, generation, term, window } => {
                let asker = Asker { life: Owner { peer: from, generation }, term };
                self.handle_space_ask(asker, nonce, ring, window, now);
                Ok(())
            }
            Message::SpaceAnswer { nonce, given } => {
                self.handle_space_answer(from, nonce, given.as_ref(), now)
            }
            Message::AddressAsk { nonce, ring, generation, term, address } => {
                let asker = Asker { life: Owner { peer: from, generation }, term };
                self.handle_address_ask(asker, nonce, ring, address, now);
                Ok(())
            }
            Message::AddressAnswer { nonce, outcome } => {
                self.handle_address_answer(from, nonce, &outcome, now)
            }
            Message::Freeze(freeze) => self.handle_freeze(from, &freeze, now),
            Message::Frozen(frozen) => {
                self.handle_frozen(from, frozen, now);
                Ok(())
            }
            Message::FreezeRefused { subject, nonce, reason } => {
                self.handle_freeze_refused(from, subject, nonce, reason, now)
            }
            Message::FreezeAsk { subject, nonce, generation } => {
                self.handle_freeze_ask(from, subject, nonce, generation);
                Ok(())
            }
            Message::Unfreeze { subject, nonce, ring } => {
                self.handle_unfreeze(from, subject, nonce, ring.as_ref(), now)
            }
            Message::Bequest { nonce, ring } => self.handle_bequest(from, nonce, &ring, now),
            Message::BequestTaken { nonce } => {
                self.handle_bequest_taken(nonce);
                Ok(())
            }
            Message::Enrol(enrol) => {
                self.handle_enrol(from, &enrol, now);
                Ok(())
            }
            Message::Enrolled { nonce, is_sure, members } => {
                self.handle_enrolled(from, nonce, is_sure, &members, now);
                Ok(())
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_requests(now);
        self.run_election(now);
        self.ask_for_ring(now);
        self.drive_settles(now);
        self.check_floors(now);
        self.repeat_bequest(now);
        self.step_crossing(now);
        self.finish(now);
    }

    /// The next thing to do, if any.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Ipam::handle_timeout`] next, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let fixed = [
            (self.news_at, "tell changes of the ring"),
            (self.fact_at, "publish the fact"),
            (self.election.at(), "election"),
            (self.ring_ask_at, "compare rings"),
            (self.floor_check_at, "check what is frozen"),
            (self.leaving.as_ref().and_then(Leaving::next_try), "repeat the bequest"),
            (self.crossing.as_ref().map(Crossing::next_step), "ask for the other ring"),
            (self.enrolment.as_ref().map(Enrolment::next_step), "ask to be remembered as a member"),
            (self.queue.next_deadline(), "deadline of a request"),
            (self.queue.next_retry(), "ask for an address again"),
        ];
        let hunts = self.hunts.values().map(|hunt| (Some(hunt.next_step()), "ask for space again"));
        let settles =
            self.settles.values().map(|settle| (Some(settle.next_step()), "ask for agreement again"));
        fixed.into_iter().chain(hunts).chain(settles).filter_map(|(at, why)| Some((at?, why))).min()
    }

    /// What the container holds, oldest first.
    #[must_use]
    pub fn lookup(&self, owner: &ContainerId) -> Vec<Interface> {
        self.ledger.held_by(owner).to_vec()
    }

    /// Who holds the address here.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<&ContainerId> {
        self.ledger.holder(address)
    }

    /// Every address that is held here, in order.
    pub fn allocations(&self) -> impl Iterator<Item = (&ContainerId, Interface)> {
        self.ledger.iter()
    }

    /// This router, in this life of its store.
    pub(crate) fn me(&self) -> Owner {
        Owner { peer: self.local, generation: self.header.generation }
    }

    pub(crate) fn nonce(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A random part of `span`, so that routers do not move in step.
    pub(crate) fn jitter(&mut self, span: Duration) -> Duration {
        span.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX))
    }

    pub(crate) fn send(&mut self, to: PeerName, message: &Message) {
        self.outbox.push(Event::Send { to, bytes: wire::encode(message) });
    }

    pub(crate) fn reply(&mut self, request: RequestId, result: Result<Reply, Refusal>) {
        self.outbox.push(Event::Reply { request, result });
    }

    /// Asks for the fact to be published no later than `at`.
    pub(crate) fn publish_by(&mut self, at: Instant) {
        self.fact_at = Some(self.fact_at.map_or(at, |known| known.min(at)));
    }

    /// Asks for own changes of the ring to be told soon.
    pub(crate) fn tell(&mut self, entries: impl IntoIterator<Item = Entry>, now: Instant) {
        self.news.extend(entries);
        if !self.news.is_empty() && self.news_at.is_none() {
            self.news_at = Some(now + NEWS_DELAY);
        }
    }

    /// Ends every input: follows up on what it changed, then lets the effects out.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.is_untouched = false;
        self.consider_election(now);
        self.begin_own_settle(now);
        self.enrol(now);
        self.serve(now);
        self.tell_news(now);
        self.publish_fact(now);
        self.flush();
    }

    /// Everything that one input changed is stored in one write, before anything else of it gets out.
    fn flush(&mut self) {
        if let Some(ring) = &mut self.ring {
            self.writes.extend(ring.take_touched().into_iter().map(|(lo, run)| store::write_run(lo, run)));
        }
        for (peer, membership) in self.members.take_touched() {
            self.writes.push(store::write_member(peer, membership));
            self.keep_nickname(peer);
        }
        if !self.writes.is_empty() {
            self.epoch += 1;
            self.writes.push(store::write_epoch(self.epoch));
            self.events.push_back(Event::Persist(std::mem::take(&mut self.writes)));
        }
        if mutant::is(Mutant::ReplyBeforePersist) {
            let effects = self.outbox.drain(..);
            return effects.rev().for_each(|effect| self.events.push_front(effect));
        }
        self.events.extend(self.outbox.drain(..));
    }
}

impl Header {
    /// Begins another life: what the last one owned is not used until it is settled.
    pub(crate) fn begin_life(&mut self, epoch: u64, generation: u64) {
        /// Earlier lives remembered. More restarts than this before one agreement make the oldest a stranger.
        const MAX_PRIOR: usize = 64;
        self.prior.push((self.generation, epoch));
        if self.prior.len() > MAX_PRIOR {
            self.prior.remove(0);
        }
        self.generation = generation;
    }
}

/// With a seed list, everybody must know the first owners without having met them.
fn first_generation(config: &Config) -> u64 {
    match &config.init {
        Init::Seed(_) => 0,
        Init::Consensus { .. } | Init::Observer => config.store_id,
    }
}

impl Ipam {
    /// Divides the ring if that needs no vote.
    fn begin_seeded(&mut self, now: Instant) {
        if let (Init::Seed(seeds), None) = (&self.init, &self.ring) {
            let seeds: Vec<Owner> = seeds.iter().map(|peer| Owner { peer: *peer, generation: 0 }).collect();
            let ring = Ring::divide(&self.universe, &seeds);
            self.adopt(ring, now);
        }
    }
}
