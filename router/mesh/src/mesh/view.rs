//! What an operator is shown.

use std::time::Instant;

use weave_model::PeerName;

use super::Mesh;
use crate::{
    ConnectionState, ConnectionStatus, Counters, MeshStatus, PeerLink, PeerStatus, Target,
    link_state::carries,
    links::Link,
    maker::{Attempt, State},
    peers::Peer,
    rtt,
};

/// Peers up to which the broadcast trees of all sources are shown.
const SHOWN_TREES: usize = 200;

impl Mesh {
    /// The mesh as we see it.
    #[must_use]
    pub fn status(&self, now: Instant) -> MeshStatus {
        let own = self.peers.own();
        // In a big partial mesh each tree takes a while to compute, so only ours is shown.
        let shows_all = self.data.is_full_mesh() || self.peers.reachable_len() <= SHOWN_TREES;
        let sources = self.peers.reachable().filter(|source| shows_all || *source == self.peers.me());
        let broadcast_routes = sources.map(|source| {
            let hops = self.data.broadcast_hops(source).into_iter();
            (source, hops.filter_map(|link| self.links.link(link).map(|l| l.info.peer)).collect())
        });
        MeshStatus {
            name: self.peers.me(),
            nickname: own.info.nickname.clone(),
            uid: own.info.uid,
            incarnation: self.incarnation(),
            discovery: self.config.discovery,
            peers: self
                .peers
                .iter()
                .filter(|(_, peer)| peer.joined)
                .map(|(n, peer)| self.peer_status(n, peer))
                .collect(),
            connections: self.connections(now),
            targets: self.maker.targets().map(|(target, _)| target.clone()).collect(),
            unicast_routes: self.data.unicast().collect(),
            broadcast_routes: broadcast_routes.collect(),
            facts: self.peers.iter().map(|(_, peer)| peer.record.facts_len()).sum(),
            collisions: self.collisions.status(now),
            counters: self.counters,
        }
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn peer_status(&self, name: PeerName, peer: &Peer) -> PeerStatus {
        let links = peer.record.links().map(|(to, state)| PeerLink {
            peer: to,
            outbound: state.is_outbound(),
            overlay: state.overlay(),
            established: self
                .peers
                .edge(name, to)
                .is_some_and(|(forth, back)| carries(forth) && carries(back)),
            rtt: rtt::bound(state.class()),
        });
        PeerStatus {
            name,
            nickname: peer.info.nickname.clone(),
            uid: peer.info.uid,
            version: peer.info.version.clone(),
            incarnation: peer.record.stamp().life.incarnation,
            public_key: peer.info.public_key,
            reachable: peer.reachable,
            addresses: peer.info.addresses.clone(),
            links: links.collect(),
        }
    }

    fn connections(&self, now: Instant) -> Vec<ConnectionStatus> {
        let mut all: Vec<_> = self.links.iter().map(|(_, link)| self.link_status(link, now)).collect();
        all.sort_by_key(|connection| (connection.state, connection.peer));
        let targets = self.maker.targets().map(|(target, attempt)| (Some(target.clone()), None, attempt));
        let found = self.maker.found();
        let found = found.map(|(peer, at, attempt)| (at.map(Target::Address), Some(peer), attempt));
        all.extend(
            targets
                .chain(found)
                .filter_map(|(target, peer, attempt)| self.attempt_status(target, peer, attempt, now)),
        );
        all
    }

    fn link_status(&self, link: &Link, now: Instant) -> ConnectionStatus {
        let (peer, overlays, overlay) = (link.info.peer, link.overlays(), link.overlays().in_use());
        let is_up = overlay.is_some() && carries(self.peers.link(peer, self.peers.me()));
        let target = link.aim.as_ref().map(|_| Target::Address(link.info.remote));
        ConnectionStatus {
            target,
            address: Some(link.info.remote),
            outbound: link.is_outbound(),
            state: if is_up { ConnectionState::Established } else { ConnectionState::Pending },
            text: overlays.complaint(),
            peer: Some(peer),
            nickname: link.info.nickname.clone(),
            encrypted: Some(link.info.encrypted),
            overlay: overlay.map(|o| o.kind),
            mtu: overlay.map(|o| o.mtu),
            rtt: overlay.map(|o| o.rtt),
            overlay_since: Some(overlays.in_use_since()),
            overlays: overlays.status().into(),
            since: now.saturating_duration_since(overlays.in_use_since()),
            retry_in: None,
        }
    }

    /// A target without a link; nothing for one that has it.
    fn attempt_status(
        &self,
        target: Option<Target>,
        peer: Option<PeerName>,
        attempt: &Attempt,
        now: Instant,
    ) -> Option<ConnectionStatus> {
        let peer = peer.or(attempt.peer);
        if peer.is_some_and(|peer| self.links.to(peer).is_some()) && attempt.state != State::Never {
            return None;
        }
        let (state, retry_in) = match attempt.state {
            State::Linked(_) => return None,
            State::Dialing(_) => (ConnectionState::Connecting, None),
            State::Never => (ConnectionState::Failed, None),
            State::Waiting(until) => {
                let state = if attempt.failure.is_some() {
                    ConnectionState::Failed
                } else {
                    ConnectionState::Retrying
                };
                (state, Some(until.saturating_duration_since(now)))
            }
        };
        let nickname = peer.and_then(|peer| self.peers.peer(peer)).map(|peer| peer.info.nickname.clone());
        Some(ConnectionStatus {
            address: target.as_ref().and_then(Target::address),
            target,
            outbound: true,
            state,
            text: attempt.failure.clone().unwrap_or_default(),
            peer,
            nickname: nickname.unwrap_or_default(),
            encrypted: None,
            overlay: None,
            mtu: None,
            rtt: None,
            overlay_since: None,
            overlays: Vec::new(),
            since: now.saturating_duration_since(attempt.since),
            retry_in,
        })
    }
}
