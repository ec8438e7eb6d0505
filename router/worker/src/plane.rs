//! What receiving and sending have in common: the links, the way out, and the way to the bridge.

use std::{io::IoSlice, sync::Arc, time::Instant};

use weave_datapath::{DropReason, Forwarding, UnknownStations};
use weave_hostnet::{tap::Tap, udp::Socket};
use weave_model::LinkId;
use weave_sleeve::{Discard, Envelope, Reassembler, TapFrame, VNET_LEN};

use crate::{
    command::Command,
    counters::Tally,
    links::Links,
    outbox::{Outbox, Slots},
    shared::Shared,
};

/// Room for a virtio header and the longest frame.
pub(crate) const FRAME_ROOM: usize = VNET_LEN + 65_535 + 64;

/// A worker without its loop.
pub(crate) struct Plane {
    pub(crate) worker: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: Socket,
    pub(crate) tap: Tap,
    pub(crate) links: Links,
    pub(crate) outbox: Outbox,
    pub(crate) reassembler: Reassembler,
    /// The snapshot of this round.
    pub(crate) forwarding: Arc<Forwarding>,
    /// Where frames that go on to other routers are put together; empty until the first one.
    pub(crate) relay: Vec<u8>,
    /// How often unknown stations were asked for.
    pub(crate) unknown: UnknownStations,
    pub(crate) now: Instant,
    /// When the next thing is due on any link; `None` inside: nothing. `None` outside: to be found out.
    pub(crate) due: Option<Option<Instant>>,
}

impl Plane {
    pub(crate) fn tally(&self) -> &Tally {
        self.shared.tally(self.worker)
    }

    /// Sends a frame over one link.
    pub(crate) fn send(&mut self, link: LinkId, frame: &TapFrame<'_>, envelope: Envelope) {
        let tally = self.shared.tally(self.worker);
        let Some(place) = self.links.place(link) else {
            return tally.drop(DropReason::NoRoute);
        };
        let Some(link) = self.links.at(place) else {
            return tally.drop(DropReason::NoRoute);
        };
        self.outbox.address(place, link.remote());
        let limit = link.shared.usable();
        let mut slots = Slots { outbox: &mut self.outbox, socket: &self.socket, tally };
        let result = link.splitter.split(frame, envelope, &mut link.sealer, limit, self.now, &mut slots);
        tally.rekey(&mut link.sealer);
        let put = self.outbox.put();
        let lane = &link.shared.lanes[self.worker];
        lane.sent_frames.add(put.datagrams);
        lane.sent_datagrams.add(put.datagrams);
        lane.sent_bytes.add(put.bytes);
        if put.longest > link.shared.safe() {
            lane.sent_large.add(put.datagrams);
        }
        if link.shared.begin_watch() {
            self.shared.mailboxes[link.shared.owner].post(Command::Watch(link.shared.link));
        }
        if let Err(reason) = result {
            tally.discard(reason);
            if reason == Discard::SealFailed {
                // A slot may hold what was not sealed; it must not leave.
                self.outbox.clear();
            }
        }
    }

    /// Sends copies of a frame over several links, but not back to where it came from.
    pub(crate) fn flood(
        &mut self,
        links: &[LinkId],
        arrival: Option<LinkId>,
        frame: &TapFrame<'_>,
        envelope: Envelope,
    ) {
        for link in links.iter().filter(|link| Some(**link) != arrival) {
            self.send(*link, frame, envelope);
        }
    }

    /// Writes a frame to the bridge; `slices` begin with the virtio header.
    pub(crate) fn deliver(&self, slices: &[IoSlice<'_>]) {
        let tally = self.tally();
        match self.tap.write_vectored(slices) {
            Ok(written) => {
                tally.frames_written.add(1);
                tally.bytes_written.add(written.saturating_sub(VNET_LEN) as u64);
            }
            Err(_) => tally.discard(Discard::TapWriteFailed),
        }
    }

    /// Writes a frame to the bridge that is whole as it is: no segments to cut, no checksum to fill in.
    pub(crate) fn deliver_plain(&self, frame: &[u8]) {
        self.deliver(&[IoSlice::new(&[0; VNET_LEN]), IoSlice::new(frame)]);
    }

    /// Sends what is waiting.
    pub(crate) fn flush(&mut self) {
        if !self.outbox.is_empty() {
            let tally = self.shared.tally(self.worker);
            self.outbox.flush(&self.socket, tally);
        }
    }
}
