//! Messages for the cores of other routers, hop by hop.
//!
//! At most once and best effort: while routes change, a message may be lost. Who needs more repeats itself. The origin
//! of a relayed message is what the relay says; only holders of the password can say anything.

use std::time::Instant;

use bytes::Bytes;
use weave_model::{LinkId, PeerName};

use super::Mesh;
use crate::{Channel, Event, Unreachable, wire};

/// Hops that a message may take. Longer than any sensible chain of relays; it only ends loops while routes change.
const HOPS: u8 = 64;

impl Mesh {
    /// Sends to one peer, over relays where needed.
    ///
    /// # Errors
    /// When no path is known; nothing was sent.
    pub fn send(
        &mut self,
        to: PeerName,
        channel: Channel,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Result<(), Unreachable> {
        self.run(now);
        let me = self.peers.me();
        if to == me {
            self.events.push_back(Event::Received { from: me, channel, bytes: bytes.into() });
            return Ok(());
        }
        let (link, _) = self.control.next_hop(to).ok_or(Unreachable(to))?;
        self.enqueue(link, wire::send(HOPS, me, to, channel.0, &bytes));
        Ok(())
    }

    /// Sends to all peers in reach.
    pub fn broadcast(&mut self, channel: Channel, bytes: Vec<u8>, now: Instant) {
        self.run(now);
        self.broadcasts_made += 1;
        let (me, tag) = (self.peers.me(), self.peers.own().record.stamp().life.tag);
        let message = wire::broadcast(HOPS, me, tag, self.broadcasts_made, channel.0, &bytes);
        for link in self.control.broadcast_hops(me) {
            self.enqueue(link, message.clone());
        }
    }

    pub(super) fn handle_send(
        &mut self,
        hops: u8,
        from: PeerName,
        to: PeerName,
        channel: u8,
        payload: &[u8],
    ) {
        if to == self.peers.me() {
            let bytes = Bytes::copy_from_slice(payload);
            self.events.push_back(Event::Received { from, channel: Channel(channel), bytes });
        } else if hops == 0 {
            self.counters.dropped_hop_limit += 1;
        } else if let Some((link, _)) = self.control.next_hop(to) {
            self.counters.relayed += 1;
            self.enqueue(link, wire::send(hops - 1, from, to, channel, payload));
        } else {
            self.counters.dropped_no_route += 1;
        }
    }

    pub(super) fn handle_broadcast(
        &mut self,
        heard: LinkId,
        (origin, tag, sequence): (PeerName, u32, u64),
        hops: u8,
        channel: u8,
        payload: &[u8],
    ) {
        if origin == self.peers.me() {
            self.counters.dropped_duplicate += 1;
            return;
        }
        if self.peers.peer(origin).is_none_or(|peer| peer.record.stamp().life.tag != tag) {
            self.counters.dropped_unknown_origin += 1;
            return;
        }
        if !self.windows.entry(origin).or_default().admit(tag, sequence) {
            self.counters.dropped_duplicate += 1;
            return;
        }
        let bytes = Bytes::copy_from_slice(payload);
        self.events.push_back(Event::Received { from: origin, channel: Channel(channel), bytes });
        let next: Vec<LinkId> =
            self.control.broadcast_hops(origin).into_iter().filter(|link| *link != heard).collect();
        if hops == 0 {
            self.counters.dropped_hop_limit += u64::from(!next.is_empty());
            return;
        }
        let message = wire::broadcast(hops - 1, origin, tag, sequence, channel, payload);
        for link in next {
            self.counters.relayed += 1;
            self.enqueue(link, message.clone());
        }
    }

    pub(super) fn enqueue(&mut self, id: LinkId, message: Bytes) {
        let Some(link) = self.links.link_mut(id) else { return };
        if !link.outbox.send(message) {
            self.counters.dropped_backlog += 1;
        }
        self.ready.insert(id);
    }
}
