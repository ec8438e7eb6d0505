//! The state machine, and how it is driven.

mod claims;
mod dial;
mod gossip;
mod link;
mod relay;
mod settle;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use weave_model::{LinkId, PeerName};

use crate::{
    Config, Counters, Event, FactError, Namespace, Routes, Transmit,
    graph::{Graph, Plane},
    info::{Info, MAX_ADDRESSES},
    links::Links,
    maker::Maker,
    peers::Peers,
    random::Random,
    record::{Life, Record},
    window::Window,
    wire::{MAX_KEY, MAX_VALUE},
};
use claims::Collisions;
use gossip::{Asked, Rebirth};
use settle::{Dirty, Motion};

/// The first namespace that does not belong to the mesh itself.
const FIRST_FREE: u8 = 16;

/// One router's part in the mesh.
///
/// # Driving
/// 1. Feed one input: a `handle_*` method or a command, with the time it happened. Time never goes back.
/// 2. Drain [`Mesh::poll_transmit`], then [`Mesh::poll_event`], until both return `None`.
/// 3. Sleep until [`Mesh::poll_timeout`] (it also says why), then call [`Mesh::handle_timeout`].
///
/// Links are handed over when their handshake is done; messages on a link arrive in order, whole, and once, until it closes.
/// A link that takes no more is reported with [`Mesh::handle_link_blocked`]; what would go there is merged meanwhile.
#[derive(Debug)]
pub struct Mesh {
    config: Config,
    random: Random,
    peers: Peers,
    links: Links,
    maker: Maker,
    data: Routes,
    control: Routes,
    graph: Option<Arc<Graph>>,
    motion: Motion,
    dirty: BTreeMap<PeerName, Dirty>,
    asked: BTreeMap<PeerName, Asked>,
    rebirth: Rebirth,
    collisions: Collisions,
    windows: BTreeMap<PeerName, Window>,
    broadcasts_made: u64,
    /// Where others see us; kept after their links close, so that a short outage is no news.
    observed: Vec<SocketAddr>,
    /// Links with something to send.
    ready: BTreeSet<LinkId>,
    /// Last words on links that are closed already.
    farewells: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Mesh {
    /// A router that knows its targets and nobody else. All chance comes from `seed`.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let info = Info {
            uid: config.uid,
            public_key: config.public_key,
            listen_port: config.listen_port,
            conn_limit: u16::try_from(config.conn_limit).unwrap_or(0),
            nickname: config.nickname.clone(),
            version: config.version.clone(),
            addresses: config.addresses.iter().copied().take(MAX_ADDRESSES).collect(),
        };
        let record = Record::new(Life::new(config.incarnation, config.uid));
        let mut maker = Maker::new(&config);
        config.targets.iter().for_each(|target| maker.add_target(target, now));
        let mut mesh = Self {
            random: Random::new(seed),
            peers: Peers::new(config.name, record, info, now),
            links: Links::default(),
            maker,
            data: Routes::alone(config.name, Plane::Data),
            control: Routes::alone(config.name, Plane::Control),
            graph: None,
            motion: Motion::new(&config, now),
            dirty: BTreeMap::new(),
            asked: BTreeMap::new(),
            rebirth: Rebirth::default(),
            collisions: Collisions::default(),
            windows: BTreeMap::new(),
            broadcasts_made: 0,
            observed: Vec::new(),
            ready: BTreeSet::new(),
            farewells: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        mesh.run(now);
        mesh
    }

    /// Our incarnation; it rises when the mesh remembers a later run of ours than we do.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.peers.own().record.stamp().life.incarnation
    }

    /// A hash of all that we vouch for: equal at two routers that agree on everything.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.peers.hash()
    }

    /// Where frames go next.
    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.data
    }

    /// Publishes a fact of ours, or changes it.
    ///
    /// # Errors
    /// When the namespace is reserved, or the fact does not fit. Nothing was changed.
    pub fn set_fact(
        &mut self,
        ns: Namespace,
        key: &[u8],
        value: Vec<u8>,
        now: Instant,
    ) -> Result<(), FactError> {
        if ns.0 < FIRST_FREE {
            return Err(FactError::Reserved(ns));
        }
        if key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(FactError::TooLong { key: key.len(), value: value.len() });
        }
        let before = self.peers.own().record.stamp();
        let value = Some(Bytes::from(value));
        let is_new =
            self.peers.write(|record| record.set_fact(ns.0, key, value)).map_err(|_| FactError::Full)?;
        if is_new {
            self.mark_dirty(self.peers.me(), before, None, now);
        }
        self.run(now);
        Ok(())
    }

    /// Withdraws a fact of ours.
    pub fn remove_fact(&mut self, ns: Namespace, key: &[u8], now: Instant) {
        let before = self.peers.own().record.stamp();
        if ns.0 >= FIRST_FREE && self.peers.write(|record| record.set_fact(ns.0, key, None)) == Ok(true) {
            self.mark_dirty(self.peers.me(), before, None, now);
        }
        self.run(now);
    }

    /// Facts of all peers that the shell was told of, and our own, by peer and key.
    pub fn facts(&self, ns: Namespace) -> impl Iterator<Item = (PeerName, &[u8], &[u8])> {
        let shown = self.peers.iter().filter(|(_, peer)| peer.joined);
        shown.flat_map(move |(name, peer)| {
            peer.record.facts(ns.0).map(move |(key, value)| (name, &**key, &**value))
        })
    }

    /// One fact.
    #[must_use]
    pub fn fact(&self, peer: PeerName, ns: Namespace, key: &[u8]) -> Option<&[u8]> {
        self.peers.peer(peer).filter(|peer| peer.joined)?.record.fact(ns.0, key).map(|value| &**value)
    }

    /// Whether anything is known of a peer. Of one that was dropped nothing is, while the events that tell the end of its
    /// facts are still to be taken.
    #[must_use]
    pub fn knows(&self, peer: PeerName) -> bool {
        self.peers.peer(peer).is_some()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// The next message to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.farewells.pop_front().or_else(|| self.next_transmit())?;
        self.counters.messages_sent += 1;
        self.counters.bytes_sent += transmit.bytes.len() as u64;
        Some(transmit)
    }

    fn next_transmit(&mut self) -> Option<Transmit> {
        while let Some(id) = self.ready.first().copied() {
            if let Some(link) = self.links.link_mut(id)
                && !link.outbox.is_blocked
                && let Some(bytes) = link.outbox.next(&self.peers)
            {
                return Some(Transmit { link: id, bytes });
            }
            self.ready.remove(&id);
        }
        None
    }

    /// The next thing that happened, or is to be done.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Mesh::handle_timeout`] at the latest, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let timers = [
            (self.motion.settle_at, "spread changes"),
            (self.motion.exchange_at, "compare with a neighbour"),
            (self.motion.surplus_at, "give up surplus links"),
            (Some(self.motion.collect_at), "forget old removals"),
            (self.peers.next_expiry(self.config.grace), "drop departed peers"),
            (self.maker.next_timeout(self.links.len()), "dial"),
            (self.rebirth.due(), "begin a later incarnation"),
        ];
        timers.into_iter().filter_map(|(at, why)| Some((at?, why))).min()
    }

    /// Does everything that is due; the end of every input.
    fn run(&mut self, now: Instant) {
        self.rebear(now);
        self.expire(now);
        self.settle(now);
        self.compare(now);
        self.give_up_surplus(now);
        self.dial(now);
    }
}
