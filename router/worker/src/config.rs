//! What the workers are given, and what they report.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use weave_hostnet::{tap::Tap, udp::Socket};
use weave_model::{LinkId, PeerName};
use weave_sleeve::DownReason;

/// Takes QUIC datagrams. Runs on a worker: it copies the bytes into a bounded queue and returns.
pub type QuicSink = Box<dyn Fn(QuicDatagram<'_>) + Send + Sync>;

/// Takes events. Runs on a worker: it must not block.
pub type EventSink = Box<dyn Fn(WorkerEvent) + Send + Sync>;

/// Everything that [`Workers::start`](crate::Workers::start) needs.
pub struct WorkersConfig {
    /// This router.
    pub local: PeerName,
    /// One socket for each worker, all of one group (see [`Socket::bind_group`]).
    pub sockets: Vec<Socket>,
    /// One queue of the TAP for each worker.
    pub taps: Vec<Tap>,
    /// Where QUIC datagrams go.
    pub quic: QuicSink,
    /// Where events go.
    pub events: EventSink,
}

/// A burst of datagrams for QUIC, as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct QuicDatagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// The local address that it was sent to.
    pub to: Option<IpAddr>,
    /// The ECN bits of the IP header.
    pub ecn: u8,
    /// Bytes of each datagram in `bytes`; the last may be shorter.
    pub segment_size: usize,
    /// The datagrams, one after the other.
    pub bytes: &'a [u8],
}

/// What became known about a link. MTUs are the overlay's: the largest IP packet of a container that travels
/// unfragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// Traffic flows both ways: a probe was answered.
    LinkUp {
        /// Which link.
        link: LinkId,
        /// What surely fits; the search for more goes on.
        mtu: u16,
        /// Time there and back.
        rtt: Duration,
    },
    /// The size that fits is known, and differs from what was reported before; or it changed.
    LinkMtu {
        /// Which link.
        link: LinkId,
        /// What fits now.
        mtu: u16,
    },
    /// Probes are not answered. They go on, and `LinkUp` follows if one is.
    LinkDown {
        /// Which link.
        link: LinkId,
        /// What happened.
        reason: DownReason,
    },
    /// The peer sends from another address now, and we answer there.
    LinkMoved {
        /// Which link.
        link: LinkId,
        /// Where the peer is.
        remote: SocketAddr,
    },
}

impl fmt::Debug for WorkersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkersConfig")
            .field("local", &self.local)
            .field("sockets", &self.sockets)
            .field("taps", &self.taps)
            .finish_non_exhaustive()
    }
}
