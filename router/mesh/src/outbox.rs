//! What waits for one neighbour.
//!
//! Waiting things are kept as *what to talk about*, not as bytes: a peer whose record is due, not a copy of it. They are put into
//! bytes when the link takes them, so whatever changed meanwhile is merged, and memory is bounded by state. Only
//! channel messages wait as they are, up to [`MAX_BACKLOG`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use weave_model::PeerName;

use crate::{
    peers::Peers,
    record::Stamp,
    wire::{self, Scope, Writer},
};

/// Bytes of channel messages that wait for one neighbour before further ones are dropped.
const MAX_BACKLOG: usize = 4 << 20;
/// A Facts message is ended when it is longer than this, so that one big state does not hold up everything else.
const FACTS_TARGET: usize = 64 << 10;

/// Things to tell one neighbour.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The link takes nothing at the moment.
    pub(crate) is_blocked: bool,
    notices: VecDeque<Bytes>,
    deltas: BTreeMap<PeerName, Stamp>,
    wants: BTreeSet<PeerName>,
    digest: Option<Scope>,
    offers: BTreeSet<PeerName>,
    hash: bool,
    backlog: VecDeque<Bytes>,
    backlog_bytes: usize,
}

impl Outbox {
    pub(crate) fn notify(&mut self, message: Bytes) {
        self.notices.push_back(message);
    }

    /// The neighbour has a peer's record up to `have`, or less.
    pub(crate) fn push(&mut self, peer: PeerName, have: Stamp) {
        self.deltas.entry(peer).and_modify(|waiting| *waiting = have.min(*waiting)).or_insert(have);
    }

    pub(crate) fn want(&mut self, peer: PeerName) {
        self.wants.insert(peer);
    }

    pub(crate) fn digest(&mut self, scope: Scope) {
        if self.digest != Some(Scope::Opening) {
            self.digest = Some(scope);
        }
    }

    pub(crate) fn offer(&mut self, peer: PeerName) {
        self.offers.insert(peer);
    }

    pub(crate) fn compare(&mut self) {
        self.hash = true;
    }

    /// Queues a channel message; `false` when the neighbour reads too slowly and it was dropped.
    pub(crate) fn send(&mut self, message: Bytes) -> bool {
        // One message always fits, however long.
        if !self.backlog.is_empty() && self.backlog_bytes + message.len() > MAX_BACKLOG {
            return false;
        }
        self.backlog_bytes += message.len();
        self.backlog.push_back(message);
        true
    }

    /// The next message. Facts come before what speaks of them.
    pub(crate) fn next(&mut self, peers: &Peers) -> Option<Bytes> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        if let Some(message) = self.next_facts(peers) {
            return Some(message);
        }
        if let Some(scope) = self.digest.take() {
            self.offers.clear();
            return Some(wire::digest(scope, peers.digest().into_iter()));
        }
        if !self.wants.is_empty() {
            let wants = std::mem::take(&mut self.wants);
            return Some(wire::want(
                wants.into_iter().map(|name| (name, peers.stamp(name))).collect::<Vec<_>>().into_iter(),
            ));
        }
        if !self.offers.is_empty() {
            let offers =
                std::mem::take(&mut self.offers).into_iter().filter(|name| peers.is_reachable(*name));
            let offers: Vec<_> = offers.map(|name| (name, peers.stamp(name))).collect();
            if !offers.is_empty() {
                return Some(wire::digest(Scope::Partial, offers.into_iter()));
            }
        }
        if std::mem::take(&mut self.hash) {
            return Some(wire::hash(peers.hash()));
        }
        let message = self.backlog.pop_front()?;
        self.backlog_bytes -= message.len();
        Some(message)
    }

    fn next_facts(&mut self, peers: &Peers) -> Option<Bytes> {
        let mut writer = Writer::facts();
        let mut count = 0;
        while writer.len() < FACTS_TARGET {
            let Some((name, have)) = self.deltas.pop_first() else { break };
            let Some(peer) = peers.peer(name).filter(|peer| peer.record.stamp() > have) else { continue };
            let before = writer.len();
            writer.delta(&peer.record.delta(name, have));
            if count > 0 && writer.len() + 8 > wire::MAX_MESSAGE {
                writer.truncate(before);
                self.deltas.insert(name, have);
                break;
            }
            count += 1;
        }
        (count > 0).then(|| writer.finish_counted(count))
    }
}
