//! What routers want done.

use std::time::Duration;

use bytes::Bytes;
use weave_mesh::{Event, OverlayKind};
use weave_model::LinkId;

use super::{FACTS, Happening, Net, address};

impl Net {
    pub(super) fn carry(&mut self, link: LinkId, bytes: Bytes) {
        let (wire, end) = (link.0 as usize / 2, link.0 as usize % 2);
        let [(a, _), (b, _)] = self.wires[wire].ends;
        if !self.wires[wire].open || self.is_cut(a, b) {
            return;
        }
        let latency = self.latency(a, b);
        let arrival = (self.now + latency).max(self.wires[wire].last[1 - end]);
        self.wires[wire].last[1 - end] = arrival;
        self.schedule(arrival - self.now, Happening::Message { wire, end: 1 - end, bytes });
    }

    pub(super) fn handle_event(&mut self, host: usize, event: Event) {
        let run = self.hosts[host].run;
        match event {
            Event::Dial { dial, target } => {
                self.hosts[host].dials += 1;
                let to =
                    target.address().and_then(|at| (0..self.hosts.len()).find(|index| address(*index) == at));
                let to = to.expect("targets are hosts");
                let latency = self.latency(host, to) * 4;
                self.schedule(latency, Happening::Connect { dial, from: host, to, run });
            }
            Event::AbandonDial { dial } => _ = self.abandoned.insert((host, run, dial)),
            Event::RoutesChanged => self.hosts[host].rerouted += 1,
            Event::CloseLink { link, reason } => {
                self.hosts[host].closed.push(reason);
                let (wire, end) = (link.0 as usize / 2, link.0 as usize % 2);
                let last = self.wires[wire].last[1 - end].max(self.now) - self.now;
                self.schedule(last, Happening::Closed { wire, end: 1 - end });
            }
            Event::LinkAdopted { link, .. } => {
                let (wire, end) = (link.0 as usize / 2, link.0 as usize % 2);
                let kind = OverlayKind::Sleeve;
                self.schedule(Duration::from_millis(20), Happening::OverlayUp { wire, end, kind });
                let [(a, _), (b, _)] = self.wires[wire].ends;
                if (self.is_fast)(a.min(b), a.max(b)) {
                    let kind = OverlayKind::Fastdp;
                    self.schedule(Duration::from_millis(30), Happening::OverlayUp { wire, end, kind });
                }
            }
            Event::PeerJoined { peer, nickname } => {
                self.hosts[host].joined.insert(peer, nickname);
            }
            Event::PeerLeft { peer } => {
                let host = &mut self.hosts[host];
                assert!(host.joined.remove(&peer).is_some(), "a peer leaves only after it joined");
                assert!(host.seen.keys().all(|(owner, _)| *owner != peer), "its facts went before");
            }
            Event::FactChanged { peer, ns, key, value } => {
                assert_eq!(ns, FACTS);
                let host = &mut self.hosts[host];
                assert!(host.joined.contains_key(&peer), "facts come after their peer joined");
                match value {
                    Some(value) => host.seen.insert((peer, key), value),
                    None => host.seen.remove(&(peer, key)),
                };
            }
            Event::Received { from, bytes, .. } => self.hosts[host].received.push((from, bytes)),
            Event::IncarnationBumped(incarnation) => self.hosts[host].config.incarnation = incarnation,
        }
    }
}
