//! Everybody's records, and who is in reach.
//!
//! A link counts when both ends report it, and each means the router that we know by the other's name: a router that takes over
//! the name of another does not inherit its links. A peer is *reachable* when such links lead to it. Only reachable peers are
//! vouched for, that is, counted in the hash and listed in digests; so a router that has dropped a departed peer is
//! never talked into it again by one that has merely not dropped it yet: late news of it wait here, unseen, until links
//! make it reachable or the grace period ends.

mod merge;
#[cfg(test)]
mod props;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use weave_model::PeerName;

pub(crate) use merge::Taken;

use crate::{
    graph::Graph,
    info::Info,
    link_state::{KeyTag, LinkState, carries},
    record::{Record, Stamp},
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

impl Peer {
    pub(crate) fn tag(&self) -> KeyTag {
        KeyTag::of(&self.info.public_key)
    }
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

    /// One end's view of a link to the router that we know as `to`.
    pub(crate) fn link(&self, from: PeerName, to: PeerName) -> LinkState {
        match (self.by_name.get(&from), self.by_name.get(&to)) {
            (Some(from), Some(peer)) => from.record.link(to).towards(peer.tag()),
            _ => LinkState::GONE,
        }
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

    /// When the next peer out of reach is dropped, if it stays so for `grace`.
    pub(crate) fn next_expiry(&self, grace: Duration) -> Option<Instant> {
        self.lost_since.values().min().map(|since| *since + grace)
    }

    /// Who was out of reach for `grace`.
    pub(crate) fn overdue(&self, grace: Duration, now: Instant) -> Vec<PeerName> {
        let due = self.lost_since.iter().filter(|(_, since)| **since + grace <= now);
        due.map(|(name, _)| *name).collect()
    }

    /// Drops a peer that is out of reach.
    pub(crate) fn forget(&mut self, name: PeerName) -> Option<Peer> {
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
        let Some(tag) = self.by_name.get(&to).map(Peer::tag) else { return };
        let (before, after, back) = (before.towards(tag), after.towards(tag), self.link(to, from));
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

/// A peer's share of the hash. Sums of these do not depend on order. (SplitMix64's finaliser, thrice: it need not
/// withstand an attacker, who as a member could lie anyway.)
fn mix(name: PeerName, stamp: Stamp) -> u64 {
    let [a, b, c, d, e, f] = name.0;
    let name = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    let life = stamp.life.incarnation.rotate_left(32) ^ u64::from(stamp.life.tag);
    finalise(finalise(finalise(name) ^ life) ^ stamp.version)
}

pub(crate) const fn finalise(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
