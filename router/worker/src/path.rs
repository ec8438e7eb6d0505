//! What the owner of a link does beside carrying frames: probes, answers, and a look at the traffic now and then.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use weave_model::LinkId;
use weave_sleeve::{Datagrams, Discard, Kind, PathEvent, PathMtu, Probe, overlay_mtu};

use crate::{command::Command, config::WorkerEvent, outbox::Slots, plane::Plane};

/// How often the traffic of a busy link is looked at. Two or three of these pass before a black hole is known.
const WATCH_INTERVAL: Duration = Duration::from_millis(800);

impl Plane {
    /// Answers a peer's probe: its size got through.
    pub(crate) fn answer_probe(&mut self, place: usize, body: &[u8]) -> Result<(), Discard> {
        let nonce = Probe::read_nonce(body)?;
        let now = self.now;
        if let Some(link) = self.links.at(place) {
            let size = Probe::ack_len(link.sealer.tag_len());
            if let Some(owned) = &mut link.owned {
                owned.path.handle_peer_probe(now);
            }
            self.send_probe(place, nonce, Kind::ProbeAck, size)?;
        }
        self.drive_path(place);
        Ok(())
    }

    /// Takes the answer to one of our probes.
    pub(crate) fn handle_probe_ack(&mut self, place: usize, body: &[u8]) -> Result<(), Discard> {
        let nonce = Probe::read_nonce(body)?;
        let now = self.now;
        if let Some(owned) = self.links.at(place).and_then(|link| link.owned.as_mut()) {
            owned.path.handle_ack(nonce, now);
        }
        self.drive_path(place);
        Ok(())
    }

    /// The peer sends from another address: an authentic datagram, newer than all before, came from there.
    pub(crate) fn follow(&mut self, place: usize, remote: SocketAddr) {
        if let Some(link) = self.links.at(place).map(|link| link.shared.link) {
            (self.shared.events)(WorkerEvent::LinkMoved { link, remote });
            self.redirect(place, remote);
        }
    }

    /// Sends to another address, by another path.
    pub(crate) fn redirect(&mut self, place: usize, remote: SocketAddr) {
        let now = self.now;
        if let Some(link) = self.links.at(place)
            && link.shared.set_remote(remote)
            && let Some(owned) = &mut link.owned
        {
            owned.path.handle_path_change(remote.is_ipv4(), now);
        }
        self.drive_path(place);
    }

    /// Does what the state of the path asks for: sends probes, reports events, tells the other workers.
    pub(crate) fn drive_path(&mut self, place: usize) {
        let now = self.now;
        self.due = None;
        loop {
            let Some(link) = self.links.at(place) else {
                return;
            };
            let Some(owned) = &mut link.owned else {
                return;
            };
            owned.path.handle_timeout(now);
            link.shared.set_usable(owned.path.usable(), owned.path.safe());
            if let Some(rtt) = owned.path.rtt() {
                link.shared.set_rtt(rtt);
            }
            let event = owned.path.poll_event();
            let probe = owned.path.poll_transmit();
            let (id, tag_len) = (link.shared.link, link.sealer.tag_len());
            if let Some(event) = event {
                link.shared.set_up(!matches!(event, PathEvent::Down(_)));
                (self.shared.events)(report(id, event, tag_len));
            }
            if let Some(probe) = probe
                && let Err(reason) = self.send_probe(place, probe.nonce, Kind::Probe, probe.size)
            {
                self.tally().discard(reason);
            }
            if event.is_none() && probe.is_none() {
                return;
            }
        }
    }

    /// Sends a probe or an answer at once, as a datagram of exactly `size` bytes.
    fn send_probe(&mut self, place: usize, nonce: u64, kind: Kind, size: usize) -> Result<(), Discard> {
        self.flush();
        let tally = self.shared.tally(self.worker);
        let (now, local) = (self.now, self.shared.local);
        let Some(link) = self.links.at(place) else {
            return Ok(());
        };
        self.outbox.address(place, link.remote());
        self.outbox.close();
        let mut slots = Slots { outbox: &mut self.outbox, socket: &self.socket, tally };
        let datagram = slots.slot(size).ok_or(Discard::SendQueueFull)?;
        let result = Probe::write(nonce, kind, (local, link.peer), datagram, link.sealer.tag_len())
            .and_then(|()| link.sealer.seal(datagram, now));
        tally.rekey(&mut link.sealer);
        if let Err(reason) = result {
            self.outbox.clear();
            return Err(reason);
        }
        let lane = &link.shared.lanes[self.worker];
        lane.sent_datagrams.add(1);
        lane.sent_bytes.add(size as u64);
        self.flush();
        while self.handle_too_big().is_some() {}
        Ok(())
    }

    /// Tells a path that the kernel refused a datagram as too long; gives its place. Drive the path then, unless it is
    /// being driven, and ask again.
    pub(crate) fn handle_too_big(&mut self) -> Option<usize> {
        let now = self.now;
        let (place, size) = self.outbox.take_too_big()?;
        let tally = self.shared.tally(self.worker);
        let Some(link) = self.links.at(place) else {
            return Some(place);
        };
        let is_in_use = size <= link.shared.usable();
        if is_in_use {
            tally.discard(Discard::SendFailed);
        }
        match &mut link.owned {
            Some(owned) => owned.path.handle_too_big(size, now),
            None if is_in_use => {
                let safe = link.shared.safe();
                link.shared.set_usable(safe.min(size), safe);
                self.shared.mailboxes[link.shared.owner].post(Command::TooBig(link.shared.link, size));
            }
            None => {}
        }
        Some(place)
    }

    /// Another worker had a datagram refused.
    pub(crate) fn handle_too_big_elsewhere(&mut self, link: LinkId, size: usize) {
        let now = self.now;
        let Some(place) = self.links.place(link) else {
            return;
        };
        if let Some(owned) = self.links.at(place).and_then(|link| link.owned.as_mut()) {
            owned.path.handle_too_big(size, now);
        }
        self.drive_path(place);
    }

    /// Somebody sends on the link: look at it in a while.
    pub(crate) fn begin_watch(&mut self, link: LinkId) {
        let next = self.now + WATCH_INTERVAL;
        self.due = None;
        if let Some(place) = self.links.place(link)
            && let Some(owned) = self.links.at(place).and_then(|link| link.owned.as_mut())
        {
            owned.watch.next.get_or_insert(next);
        }
    }

    /// Does what is due on any link. Costs nothing while nothing is.
    pub(crate) fn handle_timeouts(&mut self) {
        if self.next_due().is_none_or(|at| at > self.now) {
            return;
        }
        for place in 0..self.links.len() {
            self.look_at_traffic(place);
            let path = self.links.at(place).and_then(|link| link.owned.as_ref()).map(|owned| &owned.path);
            if path.and_then(PathMtu::poll_timeout).is_some_and(|(at, _)| at <= self.now) {
                self.drive_path(place);
            }
        }
    }

    /// Gives up fragments that wait too long, or are too many.
    pub(crate) fn expire_fragments(&mut self) {
        let (expired, overflown) = self.reassembler.expire(self.now);
        self.tally().discard_many(Discard::FragmentExpired, expired);
        self.tally().discard_many(Discard::FragmentOverflow, overflown);
    }

    /// When there is something to do even if nothing arrives.
    pub(crate) fn next_timeout(&mut self) -> Option<Instant> {
        let fragments = self.reassembler.poll_timeout().map(|(at, _)| at);
        self.next_due().into_iter().chain(fragments).min()
    }

    /// When something is due on a link: looked up once, until something changes. There may be a thousand links, and
    /// many sleeps a second.
    fn next_due(&mut self) -> Option<Instant> {
        if let Some(known) = self.due {
            return known;
        }
        let links = (0..self.links.len()).filter_map(|place| {
            let owned = self.links.at(place)?.owned.as_ref()?;
            let path = owned.path.poll_timeout().map(|(at, _)| at);
            path.into_iter().chain(owned.watch.next).min()
        });
        let due = links.min();
        self.due = Some(due);
        due
    }

    fn look_at_traffic(&mut self, place: usize) {
        let now = self.now;
        let Some(link) = self.links.at(place) else {
            return;
        };
        let Some(owned) = link.owned.as_mut().filter(|owned| owned.watch.next.is_some_and(|at| at <= now))
        else {
            return;
        };
        let (sent, large, received) = link.shared.traffic();
        let watch = &mut owned.watch;
        let is_idle = sent == watch.sent;
        if is_idle {
            link.shared.end_watch();
            // Whoever sent before the flag fell relied on being seen.
            let is_idle = link.shared.traffic().0 == sent;
            watch.next = (!is_idle).then(|| now + WATCH_INTERVAL);
        } else {
            watch.next = Some(now + WATCH_INTERVAL);
            owned.path.handle_traffic(true, large != watch.sent_large, received != watch.received, now);
        }
        (watch.sent, watch.sent_large, watch.received) = (sent, large, received);
        self.drive_path(place);
    }
}

fn report(link: LinkId, event: PathEvent, tag_len: usize) -> WorkerEvent {
    match event {
        PathEvent::Up { size, rtt } => WorkerEvent::LinkUp { link, mtu: overlay_mtu(size, tag_len), rtt },
        PathEvent::SizeChanged(size) => WorkerEvent::LinkMtu { link, mtu: overlay_mtu(size, tag_len) },
        PathEvent::Down(reason) => WorkerEvent::LinkDown { link, reason },
    }
}
