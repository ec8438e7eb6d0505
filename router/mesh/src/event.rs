//! What goes in and out of a mesh, apart from messages.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use weave_model::{LinkId, PeerName, Uid};

use crate::Target;

/// One attempt to reach a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub(crate) u64);

/// A family of facts with one meaning. Numbers up to 15 belong to the mesh itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(pub u8);

/// A family of messages with one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u8);

/// Which end opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We did, for this [`Event::Dial`].
    Dialed(DialId),
    /// The other end did.
    Accepted,
}

/// What the handshake of a link proved.
#[derive(Debug, Clone)]
pub struct LinkInfo {
    /// The name of the other end.
    pub peer: PeerName,
    /// Its run.
    pub uid: Uid,
    /// Its key, which it has proved to hold.
    pub public_key: [u8; 32],
    /// What people call it.
    pub nickname: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// UDP port on which it accepts links.
    pub listen_port: u16,
    /// Which end opened the link.
    pub side: Side,
    /// Where the other end is, as we see it.
    pub remote: SocketAddr,
    /// Made of random numbers of both ends, the same at both.
    pub tiebreak: u128,
    /// Whether there was a password, so that the data plane is encrypted.
    pub encrypted: bool,
}

/// A way in which frames travel over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OverlayKind {
    /// The tunnel in user space.
    Sleeve,
    /// VXLAN in the kernel.
    Fastdp,
}

impl fmt::Display for OverlayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sleeve => "sleeve",
            Self::Fastdp => "fastdp",
        })
    }
}

/// The state of one overlay of a link, as this end measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    /// Which overlay.
    pub kind: OverlayKind,
    /// Whether frames get through in both directions.
    pub up: bool,
    /// Largest frame payload it carries, in bytes.
    pub mtu: u16,
    /// Smoothed round-trip time.
    pub rtt: Duration,
}

/// Why a dial came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialFailure {
    /// In words, for status.
    pub text: String,
    /// What to do next.
    pub retry: Retry,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After a while.
    Backoff,
    /// Only when the operator asks again.
    Never,
}

/// Bytes for the other end of a link.
#[derive(Debug, Clone)]
pub struct Transmit {
    /// Which link.
    pub link: LinkId,
    /// One message.
    pub bytes: Bytes,
}

/// What the shell has to do or may want to know, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Dial this target; answer with [`crate::Mesh::handle_link_opened`] or [`crate::Mesh::handle_dial_failed`].
    /// A host name is resolved afresh each time.
    Dial {
        /// To be named in the answer.
        dial: DialId,
        /// Whom.
        target: Target,
    },
    /// Nobody waits for this dial any more; no answer is needed.
    AbandonDial {
        /// Which.
        dial: DialId,
    },
    /// Send what [`crate::Mesh::poll_transmit`] gave for this link, then close it. The mesh has forgotten it already.
    CloseLink {
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// The link passed all checks: it is *the* link to that peer from now on, and its data plane may start.
    LinkAdopted {
        /// Which.
        link: LinkId,
        /// Whose.
        peer: PeerName,
    },
    /// A peer came into reach. Comes again, without `PeerLeft` between, when the peer was restarted.
    PeerJoined {
        /// Who.
        peer: PeerName,
        /// What people call it.
        nickname: String,
    },
    /// A peer was out of reach for the grace period. [`Event::FactChanged`] has told the end of each of its facts before.
    PeerLeft {
        /// Who.
        peer: PeerName,
    },
    /// A fact of another peer, outside the reserved namespaces, is new, changed or gone.
    FactChanged {
        /// Whose.
        peer: PeerName,
        /// Which family.
        ns: Namespace,
        /// Which.
        key: Bytes,
        /// The new value; `None` when it is gone.
        value: Option<Bytes>,
    },
    /// Another peer sent or broadcast this.
    Received {
        /// Who says that it sent it. Relayed, so no better vouched for than the password.
        from: PeerName,
        /// For which reader.
        channel: Channel,
        /// What.
        bytes: Bytes,
    },
    /// [`crate::Mesh::routes`] gives other answers than before.
    RoutesChanged,
    /// The mesh remembered a run of ours that claimed this or a higher incarnation: keep the new one in the store.
    IncarnationBumped(u64),
}

/// Why we close a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Another link to the same peer is kept.
    Duplicate,
    /// We reached ourselves.
    Self_,
    /// The name belongs to another router that is alive.
    NameCollision,
    /// Same name and key, another run that is not newer, while a link to the first is open.
    StaleRun,
    /// The peer was restarted and its new run has a link.
    Restarted,
    /// We have as many links as we are allowed.
    ConnectionLimit,
    /// The operator told us to forget the target.
    Forgotten,
    /// One of too many links, and the peer is reachable without it.
    Surplus,
}

impl CloseReason {
    /// The number that stands for it on the wire.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Duplicate => 1,
            Self::Self_ => 2,
            Self::NameCollision => 3,
            Self::StaleRun => 4,
            Self::Restarted => 5,
            Self::ConnectionLimit => 6,
            Self::Forgotten => 7,
            Self::Surplus => 8,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Duplicate,
            2 => Self::Self_,
            3 => Self::NameCollision,
            4 => Self::StaleRun,
            5 => Self::Restarted,
            6 => Self::ConnectionLimit,
            7 => Self::Forgotten,
            8 => Self::Surplus,
            _ => return None,
        })
    }

    /// Whether a target that ends like this is left alone until the operator asks again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Self_)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "another connection to this peer is kept",
            Self::Self_ => "cannot connect to ourself",
            Self::NameCollision => "peer name is taken by another router",
            Self::StaleRun => "an older run of this peer is still connected",
            Self::Restarted => "peer was restarted",
            Self::ConnectionLimit => "connection limit reached",
            Self::Forgotten => "target was forgotten",
            Self::Surplus => "surplus connection above the limit",
        })
    }
}
