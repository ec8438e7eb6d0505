//! The event queue, the clock, and carrying out what nodes want.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use weave_ipam::Reply;
use weave_mesh::{DialFailure, DialId, LinkInfo, Overlay, OverlayKind, Retry, Side, Target};
use weave_model::Subnet;
use weave_node::{Node, Output};

use crate::{
    check::Failure,
    host::{Ask, Host, host_at},
    net::{DIAL_TIMEOUT, End, IDLE_TIMEOUT, PROBE, Weather, Wire},
    oracle::Oracle,
};

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Happening {
    Wake { host: usize, life: u32 },
    Arrive { to: End },
    Opened { at: End, info: Box<LinkInfo> },
    Overlay { at: End },
    Closed { at: End, why: String },
    DialFailed { host: usize, life: u32, dial: DialId },
    CheckIdle { end: End },
}

/// What a run amounted to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Messages that nodes sent each other.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Links opened.
    pub links: u64,
    /// Addresses granted.
    pub grants: u64,
    /// Addresses held at the end.
    pub held: usize,
    /// Requests refused, by deadline or otherwise.
    pub refusals: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
}

/// All hosts and the network between them.
pub struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) weather: Weather,
    pub(crate) oracle: Oracle,
    pub(crate) outcome: Outcome,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next_happening: u64,
    /// The other end of each end, and what is under way *towards* the key.
    peer_of: BTreeMap<End, End>,
    wires: BTreeMap<End, Wire>,
}

impl World {
    /// `peers` hosts; each but the first is told of the first, unless `targets` says otherwise.
    #[must_use]
    pub fn new(peers: usize, seed: u64) -> Self {
        // The start is arbitrary: only differences are ever looked at.
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let start = Instant::now();
        let range: Vec<Subnet> = "10.32.0.0/20".parse().into_iter().collect();
        let hosts = (0..peers)
            .map(|index| {
                let first = Target::Address(crate::host::address(0));
                let targets = if index == 0 { Vec::new() } else { vec![first] };
                Host::new(index, targets, peers, range.clone())
            })
            .collect();
        Self {
            start,
            now: start,
            rng: ChaCha8Rng::seed_from_u64(seed),
            hosts,
            weather: Weather {
                latency: Duration::from_millis(2),
                jitter: Duration::from_millis(3),
                loss_per_mille: 0,
                blocked: std::collections::BTreeSet::new(),
            },
            oracle: Oracle::default(),
            outcome: Outcome::default(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next_happening: 0,
            peer_of: BTreeMap::new(),
            wires: BTreeMap::new(),
        }
    }

    /// Starts every host now.
    ///
    /// # Errors
    /// When a node cannot start, or an invariant breaks.
    pub fn start_all(&mut self) -> Result<(), Failure> {
        (0..self.hosts.len()).try_for_each(|host| self.start_host(host))
    }

    pub(crate) fn start_host(&mut self, host: usize) -> Result<(), Failure> {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let now = self.now;
        self.hosts[host].start(seed, now).map_err(|why| Failure::CannotStart { host, why })?;
        self.settle(host)
    }

    /// The node dies. Its neighbours learn of it by silence.
    pub(crate) fn kill(&mut self, host: usize) {
        self.hosts[host].stop();
        let ends: Vec<(End, End)> = self
            .peer_of
            .iter()
            .filter(|(end, _)| end.host == host)
            .map(|(end, peer)| (*end, *peer))
            .collect();
        for (end, peer) in ends {
            self.disconnect(end);
            self.schedule(IDLE_TIMEOUT, Happening::Closed { at: peer, why: "no answer".to_owned() });
        }
    }

    /// Forgets the wires of a link; what is under way is lost.
    fn disconnect(&mut self, end: End) -> Option<End> {
        let peer = self.peer_of.remove(&end)?;
        self.peer_of.remove(&peer);
        self.wires.remove(&end);
        self.wires.remove(&peer);
        Some(peer)
    }

    /// A link breaks, and both ends notice.
    pub(crate) fn reset_link(&mut self, end: End) {
        if let Some(peer) = self.disconnect(end) {
            for at in [end, peer] {
                self.schedule(Duration::ZERO, Happening::Closed { at, why: "reset".to_owned() });
            }
        }
    }

    pub(crate) fn ends(&self) -> Vec<End> {
        self.peer_of.keys().copied().collect()
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.schedule_at(self.now + after, happening);
    }

    fn schedule_at(&mut self, at: Instant, happening: Happening) {
        let id = self.next_happening;
        self.next_happening += 1;
        self.queue.push(Reverse((at, id)));
        self.happenings.insert(id, happening);
    }

    /// Lets virtual time pass.
    ///
    /// # Errors
    /// The first invariant that breaks.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        let until = self.now + time;
        while let Some(&Reverse((at, id))) = self.queue.peek().filter(|next| next.0.0 <= until) {
            self.queue.pop();
            self.now = at;
            if let Some(happening) = self.happenings.remove(&id) {
                self.happen(happening)?;
            }
        }
        self.now = until;
        self.outcome.elapsed = self.now - self.start;
        self.outcome.grants = self.oracle.grants;
        self.outcome.held = self.oracle.held();
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Failure> {
        match happening {
            Happening::Wake { host, life } => {
                self.hosts[host].wake = None;
                self.with_node(host, life, |node, now| node.handle_timeout(now))
            }
            Happening::Arrive { to } => self.arrive(to),
            Happening::Opened { at, info } => self.opened(at, *info),
            Happening::Overlay { at } => {
                if !self.peer_of.contains_key(&at) {
                    return Ok(());
                }
                let rtt = self.weather.latency * 2;
                let overlay = Overlay { kind: OverlayKind::Sleeve, up: true, mtu: 1400, rtt };
                self.with_node(at.host, at.life, |node, now| node.handle_overlay(at.link, overlay, now))
            }
            Happening::Closed { at, why } => {
                self.disconnect(at);
                self.with_node(at.host, at.life, |node, now| node.handle_link_closed(at.link, &why, now))
            }
            Happening::DialFailed { host, life, dial } => {
                let failure = DialFailure { text: "no answer".to_owned(), retry: Retry::Backoff };
                self.with_node(host, life, |node, now| node.handle_dial_failed(dial, failure, now))
            }
            Happening::CheckIdle { end } => {
                self.check_idle(end);
                Ok(())
            }
        }
    }

    /// Runs something on a node if it still lives the same life, then carries out what it wants.
    pub(crate) fn with_node(
        &mut self,
        host: usize,
        life: u32,
        act: impl FnOnce(&mut Node, Instant),
    ) -> Result<(), Failure> {
        let now = self.now;
        let state = &mut self.hosts[host];
        match state.node.as_mut() {
            Some(node) if state.life == life => act(node, now),
            Some(_) | None => return Ok(()),
        }
        self.settle(host)
    }

    fn arrive(&mut self, to: End) -> Result<(), Failure> {
        let Some(&from) = self.peer_of.get(&to) else { return Ok(()) };
        if !self.weather.is_open(from.host, to.host) {
            self.note_blocked(to);
            self.schedule(PROBE, Happening::Arrive { to });
            return Ok(());
        }
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&to) else { return Ok(()) };
        wire.blocked_since = None;
        let Some((at, _)) = wire.under_way.front() else { return Ok(()) };
        if *at > now {
            let at = *at;
            self.schedule_at(at, Happening::Arrive { to });
            return Ok(());
        }
        let Some((_, bytes)) = wire.under_way.pop_front() else { return Ok(()) };
        let mut refused = None;
        self.with_node(to.host, to.life, |node, now| {
            refused = node.handle_message(to.link, &bytes, now).err();
        })?;
        match refused {
            // Every node here is honest: a refusal is a bug of ours.
            Some(error) => Err(Failure::Refused { host: to.host, why: error.to_string() }),
            None => Ok(()),
        }
    }

    fn note_blocked(&mut self, to: End) {
        let now = self.now;
        if let Some(wire) = self.wires.get_mut(&to)
            && wire.blocked_since.is_none()
        {
            wire.blocked_since = Some(now);
            self.schedule(IDLE_TIMEOUT, Happening::CheckIdle { end: to });
        }
    }

    /// A direction that was blocked for the whole idle time ends the link at both ends.
    fn check_idle(&mut self, end: End) {
        let since = self.wires.get(&end).and_then(|wire| wire.blocked_since);
        if since.is_some_and(|since| self.now.saturating_duration_since(since) >= IDLE_TIMEOUT) {
            self.reset_link(end);
        }
    }

    /// Blocks a direction; links over it notice even if nobody sends.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.weather.blocked.insert((from, to));
        let ends: Vec<End> = self
            .peer_of
            .iter()
            .filter(|(end, peer)| end.host == to && peer.host == from)
            .map(|(end, _)| *end)
            .collect();
        for end in ends {
            self.note_blocked(end);
        }
    }

    /// Ends all blocks.
    pub fn heal(&mut self) {
        self.weather.blocked.clear();
        for wire in self.wires.values_mut() {
            wire.blocked_since = None;
        }
    }

    fn opened(&mut self, at: End, info: LinkInfo) -> Result<(), Failure> {
        if !self.peer_of.contains_key(&at) {
            return Ok(());
        }
        if let Side::Dialed(dial) = info.side
            && self.hosts[at.host].abandoned.remove(&dial)
        {
            self.reset_link(at);
            return Ok(());
        }
        self.with_node(at.host, at.life, |node, now| node.handle_link_opened(at.link, info, now))
    }

    /// Carries out everything that a node wants, in order, and arms its timer.
    pub(crate) fn settle(&mut self, host: usize) -> Result<(), Failure> {
        while let Some(output) = self.hosts[host].node.as_mut().and_then(Node::poll_output) {
            self.carry_out(host, output)?;
        }
        let now = self.now;
        let state = &mut self.hosts[host];
        let due = state.node.as_ref().and_then(Node::poll_timeout).map(|(at, _)| at.max(now));
        if let Some(at) = due
            && state.wake.is_none_or(|wake| at < wake)
        {
            state.wake = Some(at);
            let life = state.life;
            self.schedule_at(at, Happening::Wake { host, life });
        }
        Ok(())
    }

    fn carry_out(&mut self, host: usize, output: Output) -> Result<(), Failure> {
        let life = self.hosts[host].life;
        match output {
            Output::Transmit { link, bytes } => self.transmit(End { host, life, link }, bytes),
            Output::Dial { dial, target } => self.dial(host, dial, &target),
            Output::AbandonDial { dial } => {
                self.hosts[host].abandoned.insert(dial);
            }
            Output::CloseLink { link, reason } => self.close(End { host, life, link }, &reason.to_string()),
            Output::LinkAdopted { link, .. } => {
                self.schedule(self.weather.latency * 2, Happening::Overlay { at: End { host, life, link } });
            }
            Output::Persist(writes) => {
                for write in writes {
                    match write.value {
                        Some(value) => self.hosts[host].disk.insert(write.key, value),
                        None => self.hosts[host].disk.remove(&write.key),
                    };
                }
            }
            Output::Incarnation(incarnation) => self.hosts[host].incarnation = incarnation,
            Output::Reply { request, result } => return self.replied(host, request, result),
            Output::Refused(refused) => {
                return Err(Failure::Refused { host, why: refused.to_string() });
            }
            Output::Forwarding(_)
            | Output::RemoteMacs(_)
            | Output::Names(_)
            | Output::PeerJoined { .. }
            | Output::PeerLeft { .. } => {}
        }
        Ok(())
    }

    fn transmit(&mut self, from: End, bytes: Bytes) {
        let Some(&to) = self.peer_of.get(&from) else { return };
        self.outcome.messages += 1;
        self.outcome.bytes += bytes.len() as u64;
        let arrival = self.now + self.weather.delay(&mut self.rng);
        let Some(wire) = self.wires.get_mut(&to) else { return };
        let arrival = wire.under_way.back().map_or(arrival, |(last, _)| arrival.max(*last));
        wire.under_way.push_back((arrival, bytes));
        self.schedule_at(arrival, Happening::Arrive { to });
    }

    fn close(&mut self, end: End, why: &str) {
        // What was sent before still arrives: the daemon finishes the stream before it closes the link.
        if let Some(&peer) = self.peer_of.get(&end) {
            let last = self.wires.get(&peer).and_then(|wire| wire.under_way.back()).map(|(at, _)| *at);
            let at = last.unwrap_or(self.now).max(self.now + self.weather.latency);
            self.schedule_at(
                at,
                Happening::Closed { at: peer, why: format!("closed by the other side: {why}") },
            );
        }
        self.schedule(Duration::ZERO, Happening::Closed { at: end, why: why.to_owned() });
    }

    fn dial(&mut self, host: usize, dial: DialId, target: &Target) {
        let life = self.hosts[host].life;
        let found = match target {
            Target::Address(address) => host_at(*address),
            Target::Host { .. } => None,
        };
        let open = found.filter(|&to| {
            self.hosts.get(to).is_some_and(|there| there.node.is_some())
                && self.weather.is_open_both_ways(host, to)
        });
        let Some(to) = open else {
            self.schedule(DIAL_TIMEOUT, Happening::DialFailed { host, life, dial });
            return;
        };
        self.outcome.links += 1;
        let near = End { host, life, link: self.hosts[host].fresh_link() };
        let far = End { host: to, life: self.hosts[to].life, link: self.hosts[to].fresh_link() };
        self.peer_of.insert(near, far);
        self.peer_of.insert(far, near);
        self.wires.insert(near, Wire::default());
        self.wires.insert(far, Wire::default());
        let tiebreak = u128::from(self.rng.next_u64());
        let trip = self.weather.delay(&mut self.rng);
        let far_info = self.info(host, Side::Accepted, tiebreak);
        let near_info = self.info(to, Side::Dialed(dial), tiebreak);
        // TLS and five messages: the listener is through after five trips, the dialler one later.
        self.schedule(trip * 5, Happening::Opened { at: far, info: Box::new(far_info) });
        self.schedule(trip * 6, Happening::Opened { at: near, info: Box::new(near_info) });
    }

    /// What the handshake tells about a host.
    fn info(&self, about: usize, side: Side, tiebreak: u128) -> LinkInfo {
        let host = &self.hosts[about];
        let uid = host.node.as_ref().map(|node| node.mesh_status(self.now).uid);
        LinkInfo {
            peer: host.name,
            uid: uid.unwrap_or(weave_model::Uid(0)),
            public_key: [host.index as u8; 32],
            nickname: format!("host{about}"),
            incarnation: host.incarnation,
            listen_port: host.address.port(),
            side,
            remote: host.address,
            tiebreak,
            encrypted: true,
        }
    }

    fn replied(
        &mut self,
        host: usize,
        request: weave_ipam::RequestId,
        result: Result<Reply, weave_ipam::Refusal>,
    ) -> Result<(), Failure> {
        let Some(ask) = self.hosts[host].asked.remove(&request) else { return Ok(()) };
        if result.is_err() {
            self.outcome.refusals += 1;
        }
        match (ask, result) {
            (Ask::Allocate(container), Ok(Reply::Addresses(addresses))) => {
                self.oracle.granted(host, &container, &addresses)?;
                crate::chaos::container_started(self, host, container, addresses)
            }
            (Ask::Allocate(_) | Ask::Free(_) | Ask::TakeOver, _) => Ok(()),
        }
    }
}
