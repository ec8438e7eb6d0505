//! Links as QUIC would give them: dialled, slowed, blocked, reset and closed.

use std::time::Duration;

use bytes::Bytes;
use rand_chacha::rand_core::RngCore as _;
use weave_mesh::{DialFailure, DialId, LinkInfo, Overlay, OverlayKind, Retry, Side, Target};

use crate::{
    check::Failure,
    host::host_at,
    net::{DIAL_TIMEOUT, End, IDLE_TIMEOUT, PROBE, Parcel, Wire},
    world::{Happening, World},
};

impl World {
    /// Forgets the wires of a link; what is under way is lost.
    pub(crate) fn disconnect(&mut self, end: End) -> Option<End> {
        let peer = self.peer_of.remove(&end)?;
        self.peer_of.remove(&peer);
        self.wires.remove(&end);
        self.wires.remove(&peer);
        Some(peer)
    }

    /// The far ends of a host's links learn by silence that it is gone.
    pub(crate) fn fall_silent(&mut self, host: usize) {
        let of_host = self.peer_of.iter().filter(|(end, _)| end.host == host);
        let ends: Vec<(End, End)> = of_host.map(|(end, peer)| (*end, *peer)).collect();
        for (end, peer) in ends {
            self.disconnect(end);
            self.schedule(IDLE_TIMEOUT, Happening::Closed { at: peer, why: "no answer".to_owned() });
        }
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

    fn distance(&self, from: usize, to: usize) -> Duration {
        self.weather.distance(self.hosts[from].site, self.hosts[to].site)
    }

    pub(crate) fn transmit(&mut self, from: End, bytes: Bytes) {
        self.outcome.messages += 1;
        self.outcome.bytes += bytes.len() as u64;
        self.hosts[from.host].bytes += bytes.len() as u64;
        self.send(from, Parcel::Message(bytes));
    }

    fn send(&mut self, from: End, parcel: Parcel) {
        let Some(&to) = self.peer_of.get(&from) else { return };
        let arrival = self.now + self.weather.delay(self.distance(from.host, to.host), &mut self.rng);
        let Some(wire) = self.wires.get_mut(&to) else { return };
        let before = wire.under_way.back().map(|(at, _)| *at).max(wire.opens);
        let arrival = before.map_or(arrival, |before| arrival.max(before));
        wire.under_way.push_back((arrival, parcel));
        if !std::mem::replace(&mut wire.is_watched, true) {
            self.schedule_at(arrival, Happening::Arrive { to });
        }
    }

    pub(crate) fn arrive(&mut self, to: End) -> Result<(), Failure> {
        let Some(&from) = self.peer_of.get(&to) else { return Ok(()) };
        if !self.weather.is_open(from.host, to.host) {
            self.note_blocked(to);
            self.schedule(PROBE, Happening::Arrive { to });
            return Ok(());
        }
        loop {
            let now = self.now;
            let Some(wire) = self.wires.get_mut(&to) else { return Ok(()) };
            wire.blocked_since = None;
            match wire.under_way.front() {
                Some((at, _)) if *at <= now => {}
                Some((at, _)) => {
                    let at = *at;
                    self.schedule_at(at, Happening::Arrive { to });
                    return Ok(());
                }
                None => {
                    wire.is_watched = false;
                    return Ok(());
                }
            }
            match wire.under_way.pop_front() {
                Some((_, Parcel::Message(bytes))) => self.deliver(to, &bytes)?,
                Some((_, Parcel::Close(why))) => return self.closed(to, &why),
                None => return Ok(()),
            }
        }
    }

    fn deliver(&mut self, to: End, bytes: &[u8]) -> Result<(), Failure> {
        let mut refused = None;
        self.with_node(to.host, to.life, |node, now| {
            refused = node.handle_message(to.link, bytes, now).err();
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
    pub(crate) fn check_idle(&mut self, end: End) {
        let since = self.wires.get(&end).and_then(|wire| wire.blocked_since);
        if since.is_some_and(|since| self.now.saturating_duration_since(since) >= IDLE_TIMEOUT) {
            self.reset_link(end);
        }
    }

    /// Blocks a direction; links over it notice even if nobody sends.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.weather.blocked.insert((from, to));
        let over = self.peer_of.iter().filter(|(end, peer)| end.host == to && peer.host == from);
        let ends: Vec<End> = over.map(|(end, _)| *end).collect();
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

    pub(crate) fn dial(&mut self, host: usize, dial: DialId, target: &Target) {
        let life = self.hosts[host].life;
        let found = match target {
            Target::Address(address) => host_at(*address),
            Target::Host { .. } => None,
        };
        let open = found.filter(|&to| {
            self.hosts.get(to).is_some_and(|there| there.node.is_some())
                && self.weather.is_open_both_ways(host, to)
        });
        self.note(|| {
            format!("host {host} dials {target:?}: {}", if open.is_some() { "open" } else { "no answer" })
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
        let tiebreak = u128::from(self.rng.next_u64());
        let trip = self.weather.delay(self.distance(host, to), &mut self.rng);
        let far_info = self.info(host, Side::Accepted, tiebreak);
        let near_info = self.info(to, Side::Dialed(dial), tiebreak);
        // TLS and five messages: the listener is through after five trips, the dialler one later.
        for (end, trips) in [(far, 5), (near, 6)] {
            self.wires.insert(end, Wire { opens: Some(self.now + trip * trips), ..Wire::default() });
        }
        self.schedule(trip * 5, Happening::Opened { at: far, info: Box::new(far_info) });
        self.schedule(trip * 6, Happening::Opened { at: near, info: Box::new(near_info) });
    }

    /// What the handshake tells about a host.
    fn info(&self, about: usize, side: Side, tiebreak: u128) -> LinkInfo {
        let host = &self.hosts[about];
        LinkInfo {
            peer: host.name,
            uid: host.uid,
            public_key: host.public_key,
            nickname: format!("host{about}"),
            incarnation: host.disk.incarnation,
            listen_port: host.address.port(),
            side,
            remote: host.address,
            tiebreak,
            encrypted: true,
        }
    }

    pub(crate) fn opened(&mut self, at: End, info: LinkInfo) -> Result<(), Failure> {
        if !self.peer_of.contains_key(&at) {
            // It broke in the middle of the handshake.
            return match info.side {
                Side::Dialed(dial) => self.dial_failed(at.host, at.life, dial),
                Side::Accepted => Ok(()),
            };
        }
        if let Side::Dialed(dial) = info.side
            && self.hosts[at.host].abandoned.remove(&dial)
        {
            self.reset_link(at);
            return Ok(());
        }
        self.with_node(at.host, at.life, |node, now| node.handle_link_opened(at.link, info, now))
    }

    pub(crate) fn overlay_is_up(&mut self, at: End) -> Result<(), Failure> {
        let Some(&peer) = self.peer_of.get(&at) else { return Ok(()) };
        let rtt = self.distance(at.host, peer.host) * 2;
        let overlay = Overlay { kind: OverlayKind::Sleeve, up: true, mtu: 1400, rtt };
        self.with_node(at.host, at.life, |node, now| node.handle_overlay(at.link, overlay, now))
    }

    pub(crate) fn closed(&mut self, at: End, why: &str) -> Result<(), Failure> {
        self.disconnect(at);
        self.note(|| format!("{at:?} is closed: {why}"));
        self.with_node(at.host, at.life, |node, now| node.handle_link_closed(at.link, why, now))
    }

    pub(crate) fn dial_failed(&mut self, host: usize, life: u32, dial: DialId) -> Result<(), Failure> {
        let failure = DialFailure { text: "no answer".to_owned(), retry: Retry::Backoff };
        self.with_node(host, life, |node, now| node.handle_dial_failed(dial, failure, now))
    }

    /// One end closes: it hears nothing more, and the other end what was sent before.
    pub(crate) fn close(&mut self, end: End, why: &str) {
        self.note(|| format!("{end:?} closes: {why}"));
        self.wires.remove(&end);
        let far_listens = self.peer_of.get(&end).is_some_and(|peer| self.wires.contains_key(peer));
        if far_listens {
            self.send(end, Parcel::Close(format!("closed by the other side: {why}")));
        } else {
            self.disconnect(end);
        }
    }
}
