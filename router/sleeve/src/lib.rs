//! The sleeve: Ethernet frames between routers inside sealed UDP datagrams, at the speed of bursts.
//!
//! The kernel hands over and takes bursts of up to 64 KiB (a *superframe*: one set of headers, many segments of
//! payload). A superframe is cut into datagrams that fit the path, each sealed on its own and deliverable on its own;
//! what arrives together is joined again and written back as one superframe. Checksums and lengths are rebuilt at
//! the receiver and inner checksums stay open: the seal vouches for the bytes.
//!
//! # A datagram
//! ```text
//!  0               1               2               3
//! +-+-+-+-+-+-+-+-+---------------+-------------------------------+
//! |0 0|ver| mode  |     lane      |      epoch (low 16 bits)      |   in clear, authenticated
//! +---------------+---------------+-------------------------------+
//! |                receiver index (chosen by the receiver)        |
//! +---------------------------------------------------------------+
//! |                counter (within lane and epoch)                |
//! +===============================================================+
//! |            source router (6)                                  |   sealed
//! +                               +-------------------------------+
//! |                               |  destination router (6),      |
//! +-------------------------------+                               +
//! |            zeros: every router                                |
//! +---------------+-----+---------+-------------------------------+
//! |   hop limit   |flags|  kind   |    burst or fragment number   |
//! +---------------+-----+---------+-------------------------------+
//! |      offset in the burst      |   payload bytes per segment   |
//! +-------------------------------+-------------------------------+
//! |   an Ethernet frame, or headers and payload of a burst, ...   |
//! +===============================================================+
//! |                authentication tag (16)                        |
//! +---------------------------------------------------------------+
//! ```
//! All integers are big endian. The top two bits of the first byte are zero, which tells the sleeve from QUIC on the
//! same port. Mode 1 is sealed; mode 2, between routers that agreed to do without encryption, has the same layout
//! without the tag.
//!
//! # Driving
//! The pieces are independent and synchronous; a data-plane thread owns one of each per link and lane:
//! * out: [`TapFrame::parse`], then [`Splitter::split`] with a [`Sealer`] into a [`Datagrams`] sink;
//! * in: [`Header::decode`], [`Opener::open`], [`Record::decode`], then [`Joiner`] or [`Reassembler`];
//! * beside it: one [`PathMtu`] per link, which also tells whether the path carries anything at all.
//!
//! Nothing here reads a clock, a socket or randomness.
#![forbid(unsafe_code)]

mod discard;
mod fragment;
mod header;
mod headers;
mod join;
mod keys;
mod layers;
mod open;
mod params;
mod pmtu;
mod probe;
mod record;
mod replay;
mod seal;
mod split;
mod tap_frame;
mod vnet;

pub use discard::Discard;
pub use fragment::{FragmentKey, Reassembled, Reassembler};
pub use header::{HEADER_LEN, Header, MAX_LANES, Mode, is_quic};
pub use join::{Joined, Joiner, Piece, StreamKey};
pub use open::{Opened, Opener};
pub use params::{LinkKeys, LinkParams, Suite, has_aes_hardware};
pub use pmtu::{DownReason, PathEvent, PathMtu, overlay_mtu};
pub use probe::Probe;
pub use record::{Kind, RECORD_LEN, Record};
pub use replay::ReplayWindow;
pub use seal::Sealer;
pub use split::{Datagrams, Envelope, Splitter};
pub use tap_frame::TapFrame;
pub use vnet::{VNET_LEN, VirtioHeader};

/// Length of an authentication tag, bytes: both suites (RFC 5116, RFC 8439).
pub const TAG_LEN: usize = 16;
