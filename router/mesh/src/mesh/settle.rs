//! What is done not at once but once for many inputs: finding out who is in reach, new routes, and spreading changes.
//!
//! The first change after a quiet time is spread at once; further ones wait for the coalescing interval. A change goes along
//! a tree (see [`crate::routes`]), each router handing it on; where trees disagree for a moment something may be
//! left out, and comparing hashes with some neighbour, more often the more recent the last change is, finds that.

use std::time::{Duration, Instant};

use weave_model::{LinkId, PeerName};

use super::{FIRST_FREE, Mesh};
use crate::{
    CloseReason, Config, Event, Namespace, Routes,
    graph::{Graph, Plane},
    peers::{Peer, Shift},
    record::Stamp,
    surplus::surplus,
};

/// Shortest time between two comparisons, with up to a hundred peers; in proportion beyond.
const EXCHANGE_MIN: Duration = Duration::from_millis(300);
/// Shortest time between two digests while things move, for each peer beyond the first few: some 14 bytes in 10 ms.
const ANSWER_PAUSE: Duration = Duration::from_millis(10);
/// Peers up to which digests are too small to be worth a pause.
const FEW: usize = 64;
/// How long links beyond the limit are kept before those that are not needed are given up: until everybody knows of them.
const SURPLUS: Duration = Duration::from_secs(2);

/// Timers, and how lively it is.
#[derive(Debug)]
pub(super) struct Motion {
    pub(super) settle_at: Option<Instant>,
    pub(super) exchange_at: Option<Instant>,
    pub(super) surplus_at: Option<Instant>,
    pub(super) collect_at: Instant,
    /// When changes may be spread next.
    quiet_from: Instant,
    /// When something changed last.
    changed_at: Instant,
    /// When a hash that differs is answered even though something changed just now.
    answer_from: Instant,
    /// Who is in reach may have changed.
    is_graph_stale: bool,
}

/// A record that changed and was not spread yet.
#[derive(Debug)]
pub(super) struct Dirty {
    /// What the others have of it at least.
    have: Stamp,
    /// Neighbours who have told us, and how far.
    heard: Vec<(LinkId, Stamp)>,
}

impl Motion {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            settle_at: None,
            exchange_at: None,
            surplus_at: None,
            collect_at: now + config.collect,
            quiet_from: now,
            changed_at: now,
            answer_from: now,
            is_graph_stale: false,
        }
    }

    /// Whether a hash that differs is worth a digest. While changes are on their way hashes differ without need, so then
    /// only now and then.
    pub(super) fn may_answer(&mut self, peers: usize, now: Instant) -> bool {
        let is_quiet = now.saturating_duration_since(self.changed_at) >= EXCHANGE_MIN;
        let answers = is_quiet || now >= self.answer_from;
        if answers {
            self.answer_from = now + ANSWER_PAUSE * peers.saturating_sub(FEW) as u32;
        }
        answers
    }
}

impl Mesh {
    /// Notes that a record is later than `have`, which others may have; `heard` told us.
    pub(super) fn mark_dirty(&mut self, peer: PeerName, have: Stamp, heard: Option<LinkId>, now: Instant) {
        let heard = heard.map(|link| (link, self.peers.stamp(peer)));
        let dirty = self.dirty.entry(peer).or_insert_with(|| Dirty { have, heard: Vec::new() });
        dirty.have = dirty.have.min(have);
        dirty.heard.extend(heard);
        self.touch(now);
    }

    /// Notes that links changed.
    pub(super) fn mark_graph_stale(&mut self, now: Instant) {
        self.motion.is_graph_stale = true;
        self.touch(now);
    }

    fn touch(&mut self, now: Instant) {
        let quiet_from = self.motion.quiet_from;
        self.motion.settle_at = self.motion.settle_at.or_else(|| Some(quiet_from.max(now)));
        self.motion.changed_at = now;
        let soon = now + self.exchange_min() * 2;
        if self.links.len() > 0 && self.motion.exchange_at.is_none_or(|at| at > soon) {
            self.motion.exchange_at = Some(now + self.random.around(self.exchange_min()));
        }
    }

    fn exchange_min(&self) -> Duration {
        EXCHANGE_MIN * (1 + self.peers.len() as u32 / 100)
    }

    pub(super) fn settle(&mut self, now: Instant) {
        if self.motion.settle_at.is_none_or(|at| at > now) {
            return;
        }
        self.motion.settle_at = None;
        // Each round costs time in proportion to the mesh, so in a big one they are rarer.
        let rest = self.config.coalesce + self.config.coalesce * self.peers.len() as u32 / 100;
        self.motion.quiet_from = now + self.random.between(rest, rest * 3 / 2);
        if std::mem::take(&mut self.motion.is_graph_stale) {
            let shift = self.peers.reach(&mut self.graph, now);
            self.shift(&shift, now);
            self.reroute();
        }
        self.spread();
    }

    fn shift(&mut self, shift: &Shift, now: Instant) {
        for name in &shift.found {
            // Nobody whom we told of it while it was out of reach; so it is news to them from the start.
            self.mark_dirty(*name, Stamp::default(), None, now);
            self.join(*name);
            self.discover(*name, now);
        }
        self.motion.settle_at = None;
        for name in &shift.lost {
            tracing::debug!(peer = %name, "peer out of reach");
        }
    }

    /// Tells the shell of a peer, if it does not know yet.
    fn join(&mut self, name: PeerName) {
        if !self.peers.mark_joined(name) {
            return;
        }
        let Some(peer) = self.peers.peer(name) else { return };
        self.events.push_back(Event::PeerJoined { peer: name, nickname: peer.info.nickname.clone() });
        for ns in peer.record.namespaces().filter(|ns| *ns >= FIRST_FREE) {
            for (key, value) in peer.record.facts(ns) {
                let (key, value) = (key.clone(), Some(value.clone()));
                self.events.push_back(Event::FactChanged { peer: name, ns: Namespace(ns), key, value });
            }
        }
    }

    pub(super) fn reroute(&mut self) {
        self.counters.recalculations += 1;
        let links = self.links.by_peer();
        self.control = Routes::new(Plane::Control, &self.peers, links, &mut self.graph);
        let data = Routes::new(Plane::Data, &self.peers, links, &mut self.graph);
        if !self.data.is_same(&data) {
            self.events.push_back(Event::RoutesChanged);
        }
        self.data = data;
    }

    /// Hands changed records to the children in their owners' trees.
    fn spread(&mut self) {
        for (name, dirty) in std::mem::take(&mut self.dirty) {
            if !self.peers.is_reachable(name) {
                continue;
            }
            let stamp = self.peers.stamp(name);
            for id in self.control.spread_hops(name) {
                let is_known = dirty.heard.iter().any(|(link, heard)| *link == id && *heard >= stamp);
                if !is_known && let Some(link) = self.links.link_mut(id) {
                    link.outbox.push(name, dirty.have);
                    self.ready.insert(id);
                }
            }
        }
    }

    /// Sends the hash to some neighbour when that is due, and collects old tombstones.
    pub(super) fn compare(&mut self, now: Instant) {
        if self.motion.collect_at <= now {
            self.motion.collect_at = now + self.config.collect;
            self.peers.collect();
        }
        if self.motion.exchange_at.is_none_or(|at| at > now) {
            return;
        }
        let pick = self.random.below(self.links.len());
        self.motion.exchange_at = self.links.nth(pick).map(|id| {
            if let Some(link) = self.links.link_mut(id) {
                link.outbox.compare();
                self.ready.insert(id);
            }
            // A third of the time since the last change: soon while things move, seldom when they do not.
            let quiet = now.saturating_duration_since(self.motion.changed_at) / 3;
            let pause = quiet.min(self.config.exchange).max(self.exchange_min());
            now + self.random.around(pause)
        });
    }

    /// Drops who was out of reach for the grace period.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.peers.next_expiry(self.config.grace).is_none_or(|at| at > now) {
            return;
        }
        for name in self.peers.overdue(self.config.grace, now) {
            self.depart(name, now);
        }
        // Without the departed it may be a full mesh again.
        self.reroute();
    }

    /// Forgets a peer that is out of reach.
    pub(super) fn depart(&mut self, name: PeerName, now: Instant) {
        self.asked.remove(&name);
        self.dirty.remove(&name);
        self.windows.remove(&name);
        let Some(peer) = self.peers.forget(name) else { return };
        self.end_claim(name, &peer.info.public_key);
        if !peer.joined {
            return;
        }
        for ns in peer.record.namespaces().filter(|ns| *ns >= FIRST_FREE) {
            for (key, _) in peer.record.facts(ns) {
                let (key, value) = (key.clone(), None);
                self.events.push_back(Event::FactChanged { peer: name, ns: Namespace(ns), key, value });
            }
        }
        self.events.push_back(Event::PeerLeft { peer: name });
        self.maker.peer_left(name, now);
    }

    /// Gives up links above the limit, without which everybody stays in reach (see [`crate::surplus`]).
    pub(super) fn give_up_surplus(&mut self, now: Instant) {
        let limit = self.config.conn_limit;
        if limit == 0 || self.links.len() <= limit {
            self.motion.surplus_at = None;
            return;
        }
        let Some(at) = self.motion.surplus_at else {
            self.motion.surplus_at = Some(now + self.random.around(SURPLUS));
            return;
        };
        if at > now {
            return;
        }
        self.motion.surplus_at = Some(now + self.random.around(SURPLUS));
        let graph = Graph::new(&self.peers);
        let Some(me) = graph.index(self.peers.me()) else { return };
        let limit = |(_, peer): (PeerName, &Peer)| match peer.info.conn_limit {
            0 => usize::MAX,
            limit => limit.into(),
        };
        let limits: Vec<usize> = self.peers.iter().map(limit).collect();
        for peer in surplus(&graph, &limits, me) {
            let link = graph.name(peer).and_then(|name| self.links.to(name)).map(|(id, _)| id);
            if let Some(id) = link {
                self.close_link(id, CloseReason::Surplus, now);
            }
        }
    }
}
