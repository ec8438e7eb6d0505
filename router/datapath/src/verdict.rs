//! The answer to "what happens to this frame?".

use weave_model::{LinkId, PeerName};

use crate::DropReason;

/// What to do with one frame. Borrowed slices live as long as the snapshot that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Write it to the local bridge.
    Deliver,
    /// Write it to the local bridge and send a copy over each link.
    DeliverAndFlood(&'a [LinkId]),
    /// Send a copy over each link, and nothing locally.
    Flood(&'a [LinkId]),
    /// The destination is unknown: send a copy over each link, as often as [`crate::UnknownStations`] admits.
    FloodUnknown(&'a [LinkId]),
    /// Send it over the link, addressed to the peer that holds the destination.
    Forward(LinkId, PeerName),
    /// Throw it away.
    Drop(DropReason),
}
