//! Targets and dials.

use std::{net::SocketAddr, time::Instant};

use weave_model::PeerName;

use super::Mesh;
use crate::{
    CloseReason, DialFailure, DialId, Event, Target,
    info::MAX_ADDRESSES,
    maker::{Aim, Obstacle},
};
use weave_model::LinkId;

impl Mesh {
    /// A dial did not become a link.
    pub fn handle_dial_failed(&mut self, dial: DialId, failure: DialFailure, now: Instant) {
        self.maker.failed(dial, failure.text, failure.retry, &mut self.random, now);
        self.run(now);
    }

    /// Adds targets, and tries those afresh that were there. With `replace`, all others are dropped; their links stay.
    pub fn connect(&mut self, targets: &[Target], replace: bool, now: Instant) {
        if replace {
            let gone =
                self.maker.targets().map(|(target, _)| target).filter(|target| !targets.contains(target));
            for target in gone.cloned().collect::<Vec<_>>() {
                self.drop_target(&target);
            }
        }
        targets.iter().for_each(|target| self.maker.add_target(target, now));
        self.run(now);
    }

    /// Drops targets and closes the links that they led to. With discovery, a peer that is still in the mesh may be linked again.
    pub fn forget(&mut self, targets: &[Target], now: Instant) {
        for target in targets {
            self.drop_target(target);
            let aim = Aim::Target(target.clone());
            let led = |address: SocketAddr| target.address() == Some(address);
            let links = self
                .links
                .iter()
                .filter(|(_, link)| link.aim.as_ref() == Some(&aim) || led(link.info.remote));
            for id in links.map(|(id, _)| id).collect::<Vec<LinkId>>() {
                self.close_link(id, CloseReason::Forgotten, now);
            }
        }
        self.run(now);
    }

    fn drop_target(&mut self, target: &Target) {
        if let Some(dial) = self.maker.remove_target(target) {
            self.events.push_back(Event::AbandonDial { dial });
        }
    }

    /// Takes note of where a peer in reach can be dialled.
    pub(super) fn discover(&mut self, name: PeerName, now: Instant) {
        let Some(peer) = self.peers.peer(name).filter(|peer| peer.joined && name != self.peers.me()) else {
            return;
        };
        if self.config.discovery {
            let linked = self.links.to(name).is_some();
            self.maker.discover(name, &peer.info.addresses, linked, &mut self.random, now);
        }
    }

    /// Starts the dials that are due.
    pub(super) fn dial(&mut self, now: Instant) {
        let (links, peers) = (&self.links, &self.peers);
        let obstacle = |aim: &Aim, address: Option<SocketAddr>| {
            let aimed = if let Aim::Peer(peer) = aim { Some(*peer) } else { None };
            let at = links
                .iter()
                .filter(|(_, link)| address.is_some_and(|address| link.addresses().contains(&address)));
            let mut linked = aimed.into_iter().chain(at.map(|(_, link)| link.info.peer));
            // A link to a run that has ended is as good as none.
            let is_current = |name: &PeerName| {
                links.to(*name).is_some_and(|(_, link)| !link.is_outlived_by(peers.stamp(*name).life))
            };
            if let Some(peer) = linked.find(is_current) {
                return Some(Obstacle::Linked(peer));
            }
            let peer = peers.peer(aimed?).filter(|peer| peer.reachable && peer.info.conn_limit > 0)?;
            (peer.record.links().count() >= peer.info.conn_limit.into()).then_some(Obstacle::Full)
        };
        while let Some((dial, target)) = self.maker.poll(links.len(), obstacle, &mut self.random, now) {
            self.events.push_back(Event::Dial { dial, target });
        }
    }

    /// A neighbour tells where it sees us: others may reach us there.
    pub(super) fn handle_observed(&mut self, id: LinkId, address: SocketAddr, now: Instant) {
        let ip = address.ip();
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return;
        }
        if let Some(link) = self.links.link_mut(id) {
            link.observed = Some(address);
        }
        if self.observed.contains(&address) || self.config.addresses.contains(&address) {
            return;
        }
        let room = MAX_ADDRESSES.saturating_sub(self.config.addresses.len());
        if self.observed.len() >= room {
            // Make room by what nobody sees any more.
            let is_seen = |old: &SocketAddr| self.links.iter().any(|(_, link)| link.observed == Some(*old));
            let Some(stale) = self.observed.iter().position(|old| !is_seen(old)) else { return };
            self.observed.remove(stale);
        }
        self.observed.push(address);
        let before = self.peers.own().record.stamp();
        let mut info = self.peers.own().info.clone();
        info.addresses =
            self.config.addresses.iter().chain(&self.observed).copied().take(MAX_ADDRESSES).collect();
        if self.peers.describe(info) {
            self.mark_dirty(self.peers.me(), before, None, now);
        }
    }
}
