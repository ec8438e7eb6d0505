//! From the bridge to the wire.
//!
//! # The path of a frame
//! 1. Read from the TAP queue, with its virtio header: one system call for a burst of up to 64 KiB.
//! 2. Understood once ([`TapFrame::parse`]).
//! 3. A verdict from the forwarding snapshot: one router, several, or none.
//! 4. For each link: split and sealed into the outbox.
//! 5. At the end of the batch (or when the outbox is full) everything leaves with a few system calls.

use std::io;

use weave_datapath::{DropReason, INITIAL_HOP_LIMIT, Verdict};
use weave_sleeve::{Envelope, TapFrame};

use crate::plane::Plane;

/// Frames read before the socket gets its turn again. A frame is up to 64 KiB; eight fill the outbox.
const BATCH: usize = 8;

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There was nothing.
    Nothing,
    /// There was something, and now there is no more.
    Everything,
    /// There may be more.
    Part,
    /// The device refuses to be read.
    Broken,
}

impl Plane {
    /// Reads a batch of frames from the bridge and sends them on their way.
    pub(crate) fn drain_tap(&mut self, buffer: &mut [u8]) -> Drained {
        for count in 0..BATCH {
            match self.tap.read(buffer) {
                Ok(length) => self.local_frame(&mut buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flush();
                    return if count == 0 { Drained::Nothing } else { Drained::Everything };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.flush();
                    return Drained::Broken;
                }
            }
        }
        self.flush();
        Drained::Part
    }

    fn local_frame(&mut self, buffer: &mut [u8]) {
        let tally = self.tally();
        let frame = match TapFrame::parse(buffer) {
            Ok(frame) => frame,
            Err(reason) => return tally.discard(reason),
        };
        tally.frames_read.add(1);
        tally.bytes_read.add(frame.bytes().len() as u64);
        let forwarding = std::sync::Arc::clone(&self.forwarding);
        let mut envelope =
            Envelope { source: self.shared.local, destination: None, hop_limit: INITIAL_HOP_LIMIT };
        match forwarding.local_frame(frame.destination(), frame.source()) {
            Verdict::Forward(link, peer) => {
                envelope.destination = Some(peer);
                self.send(link, &frame, envelope);
            }
            Verdict::Flood(links) | Verdict::DeliverAndFlood(links) => {
                self.flood(links, None, &frame, envelope);
            }
            Verdict::FloodUnknown(links) => {
                if self.unknown.admit(frame.destination(), self.now) {
                    self.flood(links, None, &frame, envelope);
                } else {
                    self.tally().drop(DropReason::UnknownStation);
                }
            }
            Verdict::Drop(reason) => self.tally().drop(reason),
            // The bridge has seen it already.
            Verdict::Deliver => {}
        }
    }
}
