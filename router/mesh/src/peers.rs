//! Everybody's records, and who is in reach.
//!
//! A link counts when both ends report it. A peer is *reachable* when such links lead to it. Only reachable peers are
//! vouched for, that is, counted in the hash and listed in digests; so a router that has dropped a departed peer is
//! never talked into it again by one that has merely not dropped it yet: late news of it wait here, unseen, until links
//! make it reachable or the grace period ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use weave_model::PeerName;

use crate::{
    MessageError,
    graph::Graph,
    info::Info,
    record::{Delta, LinkState, Merged, News, Record, Stamp},
};

/// The most peers that are kept. A digest of so many still fits one message.
pub(crate) const MAX_PEERS: usize = 16 << 10;
/// Namespace of [`Info`].
pub(crate) const INFO: u8 = 0;

/// One router, ourselves included.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) record: Record,
    pub(crate) info: Info,
    /// Links that both ends report lead to it.
    pub(crate) reachable: bool,
    /// The shell was told of it.
    pub(crate) joined: bool,
    /// When it became (un)reachable.
    pub(crate) since: Instant,
}

/// What became of another router's record.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing new.
    Stale,
    /// Something before it is missing.
    Gap,
    /// The name belongs to another key that is alive.
    Collision([u8; 32]),
    /// There is no room for another peer.
    Full,
    /// Applied.
    News {
        /// What we had.
        before: Stamp,
        /// Whether this is another run of the router than before.
        restarted: bool,
        /// Whether its description changed.
        described: bool,
        /// What changed.
        news: News,
    },
}

/// Who came into reach and who fell out of it.
#[derive(Debug, Default)]
pub(crate) struct Shift {
    pub(crate) found: Vec<PeerName>,
    pub(crate) lost: Vec<PeerName>,
}

/// All records.
#[derive(Debug)]
pub(crate) struct Peers {
    me: PeerName,
    by_name: BTreeMap<PeerName, Peer>,
    lost_since: BTreeMap<PeerName, Instant>,
    hash: u64,
    control_edges: usize,
    data_edges: usize,
}

impl Peers {
    pub(crate) fn new(me: PeerName, mut record: Record, info: Info, now: Instant) -> Self {
        // The description is far smaller than the bound.
        let _ = record.set_fact(INFO, b"", Some(info.encode()));
        let hash = mix(me, record.stamp());
        let own = Peer { record, info, reachable: true, joined: true, since: now };
        let by_name = BTreeMap::from([(me, own)]);
        Self { me, by_name, lost_since: BTreeMap::new(), hash, control_edges: 0, data_edges: 0 }
    }

    pub(crate) const fn me(&self) -> PeerName {
        self.me
    }

    pub(crate) fn own(&self) -> &Peer {
        &self.by_name[&self.me]
    }

    pub(crate) fn peer(&self, name: PeerName) -> Option<&Peer> {
        self.by_name.get(&name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerName, &Peer)> {
        self.by_name.iter().map(|(name, peer)| (*name, peer))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The names that we vouch for, in order.
    pub(crate) fn reachable(&self) -> impl Iterator<Item = PeerName> {
        self.by_name.iter().filter(|(_, peer)| peer.reachable).map(|(name, _)| *name)
    }

    pub(crate) fn reachable_len(&self) -> usize {
        self.by_name.len() - self.lost_since.len()
    }

    pub(crate) fn is_reachable(&self, name: PeerName) -> bool {
        self.by_name.get(&name).is_some_and(|peer| peer.reachable)
    }

    /// How much we have of a peer, be it vouched for or not.
    pub(crate) fn stamp(&self, name: PeerName) -> Stamp {
        self.by_name.get(&name).map_or_else(Stamp::default, |peer| peer.record.stamp())
    }

    /// Of everything that we vouch for, whatever the order in which it came.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// Everything that we vouch for.
    pub(crate) fn digest(&self) -> Vec<(PeerName, Stamp)> {
        self.by_name
            .iter()
            .filter(|(_, peer)| peer.reachable)
            .map(|(name, p)| (*name, p.record.stamp()))
            .collect()
    }

    /// One end's view of a link.
    pub(crate) fn link(&self, from: PeerName, to: PeerName) -> LinkState {
        self.by_name.get(&from).map_or(LinkState::GONE, |peer| peer.record.link(to))
    }

    /// Both ends' views of a link that both report.
    pub(crate) fn edge(&self, a: PeerName, b: PeerName) -> Option<(LinkState, LinkState)> {
        let (forth, back) = (self.link(a, b), self.link(b, a));
        (forth.is_up() && back.is_up()).then_some((forth, back))
    }

    /// Whether every pair of reachable peers has a link: `(any, one that carries data)`.
    pub(crate) fn is_full_mesh(&self) -> (bool, bool) {
        // With anybody out of reach the counts may include links among those.
        let n = self.by_name.len();
        let pairs = if self.lost_since.is_empty() { n * (n - 1) / 2 } else { usize::MAX };
        (self.control_edges == pairs, self.data_edges == pairs)
    }

    /// Changes our own record.
    pub(crate) fn write<R>(&mut self, change: impl FnOnce(&mut Record) -> R) -> R {
        let Some(own) = self.by_name.get_mut(&self.me) else {
            unreachable!("our own record is made in new and never removed")
        };
        self.hash = self.hash.wrapping_sub(mix(self.me, own.record.stamp()));
        let result = change(&mut own.record);
        self.hash = self.hash.wrapping_add(mix(self.me, own.record.stamp()));
        result
    }

    /// Writes one of our links; returns whether that changed anything.
    pub(crate) fn set_link(&mut self, to: PeerName, state: LinkState) -> bool {
        let me = self.me;
        let Some(before) = self.write(|record| record.set_link(to, state)) else { return false };
        self.count_edge(me, to, before, state);
        true
    }

    /// Publishes our description; returns whether it changed.
    pub(crate) fn describe(&mut self, info: Info) -> bool {
        let bytes = info.encode();
        if let Some(own) = self.by_name.get_mut(&self.me) {
            own.info = info;
        }
        self.write(|record| record.set_fact(INFO, b"", Some(bytes)) == Ok(true))
    }

    /// Takes in another router's record, or a part of it. `pinned` is the key it has proved to us, if it is a neighbour.
    ///
    /// # Errors
    /// When no honest router would have passed it on. Nothing was changed.
    pub(crate) fn merge(
        &mut self,
        delta: Delta,
        pinned: Option<[u8; 32]>,
        now: Instant,
    ) -> Result<Taken, MessageError> {
        let name = delta.peer;
        let described = delta.facts.iter().find(|((ns, key), _)| *ns == INFO && key.is_empty());
        let described = match described {
            Some((_, fact)) => Some(decode_info(&delta, fact.value.as_ref())?),
            None if delta.from == 0 => return Err(MessageError::Misbehaved("a peer without a description")),
            None => None,
        };
        let restarted =
            self.by_name.get(&name).is_some_and(|peer| peer.record.stamp().life.tag != delta.life.tag);
        let Some(info) = described else {
            let Some(peer) = self.by_name.get_mut(&name) else { return Ok(Taken::Gap) };
            let (before, merged) = (peer.record.stamp(), peer.record.merge(delta));
            return self.settle_merge(name, before, merged, restarted, false);
        };
        if pinned.is_some_and(|key| key != info.public_key) {
            return Ok(Taken::Collision(info.public_key));
        }
        if let Some(peer) = self.by_name.get_mut(&name) {
            let before = peer.record.stamp();
            let is_alive = peer.reachable || peer.joined;
            if pinned.is_none() && is_alive && peer.info.public_key != info.public_key {
                return Ok(Taken::Collision(info.public_key));
            }
            let merged = peer.record.merge(delta);
            let described = matches!(merged, Merged::News(_)) && peer.info != info;
            if described {
                peer.info = info;
            }
            return self.settle_merge(name, before, merged, restarted, described);
        }
        if delta.from != 0 {
            return Ok(Taken::Gap);
        }
        if self.by_name.len() >= MAX_PEERS {
            return Ok(Taken::Full);
        }
        let mut record = Record::default();
        let merged = record.merge(delta);
        if matches!(merged, Merged::News(_)) {
            self.by_name.insert(name, Peer { record, info, reachable: false, joined: false, since: now });
            self.lost_since.insert(name, now);
        }
        self.settle_merge(name, Stamp::default(), merged, false, true)
    }

    fn settle_merge(
        &mut self,
        name: PeerName,
        before: Stamp,
        merged: Merged,
        restarted: bool,
        described: bool,
    ) -> Result<Taken, MessageError> {
        match merged {
            Merged::Stale => Ok(Taken::Stale),
            Merged::Gap => Ok(Taken::Gap),
            Merged::TooLarge => Err(MessageError::Misbehaved("a peer says more of itself than fits")),
            Merged::News(news) => {
                for (other, from, to) in &news.links {
                    self.count_edge(name, *other, *from, *to);
                }
                if self.is_reachable(name) {
                    let after = mix(name, self.stamp(name));
                    self.hash = self.hash.wrapping_sub(mix(name, before)).wrapping_add(after);
                }
                Ok(Taken::News { before, restarted, described, news })
            }
        }
    }

    /// Finds out anew who is in reach. If that takes the graph, it is handed out, without who is not.
    pub(crate) fn reach(&mut self, graph: &mut Option<Arc<Graph>>, now: Instant) -> Shift {
        let unreached = self.unreached(graph);
        let mut shift = Shift::default();
        for (name, peer) in &mut self.by_name {
            let reachable = !unreached.contains(name);
            if peer.reachable == reachable {
                continue;
            }
            (peer.reachable, peer.since) = (reachable, now);
            let hash = mix(*name, peer.record.stamp());
            if reachable {
                self.hash = self.hash.wrapping_add(hash);
                self.lost_since.remove(name);
                shift.found.push(*name);
            } else {
                self.hash = self.hash.wrapping_sub(hash);
                self.lost_since.insert(*name, now);
                shift.lost.push(*name);
            }
        }
        shift
    }

    /// Those whom no links lead to.
    fn unreached(&self, graph: &mut Option<Arc<Graph>>) -> BTreeSet<PeerName> {
        *graph = None;
        if self.by_name.keys().all(|name| *name == self.me || self.edge(self.me, *name).is_some()) {
            return BTreeSet::new();
        }
        let whole = Graph::new(self);
        let Some(me) = whole.index(self.me) else { return BTreeSet::new() };
        let reached = whole.reached(me);
        *graph = Some(Arc::new(if reached.contains(&false) { whole.part(&reached) } else { whole }));
        self.by_name.keys().zip(reached).filter(|(_, reached)| !reached).map(|(name, _)| *name).collect()
    }

    /// Whether `peer` would stay in reach without our own link to it.
    pub(crate) fn is_reached_without_link(&self, peer: PeerName) -> bool {
        let mut seen = BTreeSet::from([self.me]);
        let mut frontier: Vec<PeerName> =
            self.own().record.links().map(|(to, _)| to).filter(|to| *to != peer).collect();
        while let Some(from) = frontier.pop() {
            if from == peer {
                return true;
            }
            if !seen.insert(from) {
                continue;
            }
            let Some(record) = self.by_name.get(&from).map(|peer| &peer.record) else { continue };
            let next = record
                .links()
                .map(|(to, _)| to)
                .filter(|to| !seen.contains(to) && self.link(*to, from).is_up());
            frontier.extend(next);
        }
        false
    }

    /// When the next peer out of reach is dropped, if it stays so for `grace`.
    pub(crate) fn next_expiry(&self, grace: Duration) -> Option<Instant> {
        self.lost_since.values().min().map(|since| *since + grace)
    }

    /// Drops who was out of reach for `grace`.
    pub(crate) fn expire(&mut self, grace: Duration, now: Instant) -> Vec<(PeerName, Peer)> {
        let due = self.lost_since.iter().filter(|(_, since)| **since + grace <= now);
        let due: Vec<PeerName> = due.map(|(name, _)| *name).collect();
        due.into_iter().filter_map(|name| Some((name, self.drop_peer(name)?))).collect()
    }

    fn drop_peer(&mut self, name: PeerName) -> Option<Peer> {
        self.lost_since.remove(&name);
        let links: Vec<_> = self.by_name.get(&name)?.record.links().collect();
        for (other, state) in links {
            self.count_edge(name, other, state, LinkState::GONE);
        }
        self.by_name.remove(&name)
    }

    /// Notes that a peer is shown to the shell from now on; returns whether it was not before.
    pub(crate) fn mark_joined(&mut self, name: PeerName) -> bool {
        self.by_name.get_mut(&name).is_some_and(|peer| !std::mem::replace(&mut peer.joined, true))
    }

    /// Forgets old tombstones of all records.
    pub(crate) fn collect(&mut self) {
        self.by_name.values_mut().for_each(|peer| peer.record.collect());
    }

    fn count_edge(&mut self, from: PeerName, to: PeerName, before: LinkState, after: LinkState) {
        let back = self.link(to, from);
        let count = |edges: &mut usize, was: bool, is: bool| match (was, is) {
            (false, true) => *edges += 1,
            (true, false) => *edges -= 1,
            _ => {}
        };
        if back.is_up() {
            count(&mut self.control_edges, before.is_up(), after.is_up());
        }
        if carries(back) {
            count(&mut self.data_edges, carries(before), carries(after));
        }
    }
}

/// Whether an end says that frames get through.
pub(crate) const fn carries(state: LinkState) -> bool {
    state.is_up() && state.overlay().is_some()
}

fn decode_info(delta: &Delta, value: Option<&Bytes>) -> Result<Info, MessageError> {
    let value = value.ok_or(MessageError::Misbehaved("a peer without a description"))?;
    let info = Info::decode(value)?;
    if crate::record::Life::new(delta.life.incarnation, info.uid) == delta.life {
        Ok(info)
    } else {
        Err(MessageError::Misbehaved("a description of another run than its record"))
    }
}

/// A peer's share of the hash. Sums of these do not depend on order. (SplitMix64's finaliser, thrice: it need not
/// withstand an attacker, who as a member could lie anyway.)
fn mix(name: PeerName, stamp: Stamp) -> u64 {
    let [a, b, c, d, e, f] = name.0;
    let name = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    let life = stamp.life.incarnation.rotate_left(32) ^ u64::from(stamp.life.tag);
    finalise(finalise(finalise(name) ^ life) ^ stamp.version)
}

const fn finalise(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
