//! What an operator sees of the mesh.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use weave_model::{PeerName, Uid};

use crate::{OverlayKind, Target};

/// The mesh as this router sees it. All lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshStatus {
    /// Our name.
    pub name: PeerName,
    /// What people call us.
    pub nickname: String,
    /// This run.
    pub uid: Uid,
    /// Our incarnation.
    pub incarnation: u64,
    /// Whether peers told of by others are dialled.
    pub discovery: bool,
    /// All known peers, ourselves included, by name.
    pub peers: Vec<PeerStatus>,
    /// All links and attempts.
    pub connections: Vec<ConnectionStatus>,
    /// What the operator gave.
    pub targets: Vec<Target>,
    /// Data-plane routes: destination and the neighbour that is next.
    pub unicast_routes: Vec<(PeerName, PeerName)>,
    /// Data-plane trees: source and the neighbours that we hand its broadcasts to. In a partial mesh of more than 200
    /// peers only for ourselves as the source.
    pub broadcast_routes: Vec<(PeerName, Vec<PeerName>)>,
    /// Facts held, of all routers that are known, ourselves included.
    pub facts: usize,
    /// Names that two routers claim.
    pub collisions: Vec<CollisionStatus>,
    /// What was counted since the start.
    pub counters: Counters,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name.
    pub name: PeerName,
    /// What people call it.
    pub nickname: String,
    /// Its run.
    pub uid: Uid,
    /// Its software.
    pub version: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its pinned key.
    pub public_key: [u8; 32],
    /// Whether a path leads to it now.
    pub reachable: bool,
    /// Where it can be dialled, as it says.
    pub addresses: Vec<SocketAddr>,
    /// Its links, as it says.
    pub links: Vec<PeerLink>,
}

/// One link of a peer, as that peer tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLink {
    /// The other end.
    pub peer: PeerName,
    /// Whether the telling end dialled.
    pub outbound: bool,
    /// The overlay in use, as the telling end sees it.
    pub overlay: Option<OverlayKind>,
    /// Whether both ends say that frames get through.
    pub established: bool,
    /// Upper bound of the class that its round-trip time falls into.
    pub rtt: Duration,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionState {
    /// Linked, and frames get through.
    Established,
    /// Linked, and no overlay is up yet.
    Pending,
    /// Lost or refused; tried again later.
    Retrying,
    /// Failed; tried again later, or never (see the text).
    Failed,
    /// Being dialled.
    Connecting,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Established => "established",
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Connecting => "connecting",
        })
    }
}

/// One link, or one target without a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// What was or will be dialled, where we did or will.
    pub target: Option<Target>,
    /// The other end's address, once linked.
    pub address: Option<SocketAddr>,
    /// Whether we dialled.
    pub outbound: bool,
    /// How far it is.
    pub state: ConnectionState,
    /// Why it is not further; empty when all is well.
    pub text: String,
    /// The other end, where it is known.
    pub peer: Option<PeerName>,
    /// What people call it.
    pub nickname: String,
    /// Whether the data plane is encrypted; `None` without a link.
    pub encrypted: Option<bool>,
    /// The overlay in use.
    pub overlay: Option<OverlayKind>,
    /// Of that overlay, in bytes.
    pub mtu: Option<u16>,
    /// Of that overlay.
    pub rtt: Option<Duration>,
    /// Since when that overlay is in use, or since when a link has none; `None` without a link.
    pub overlay_since: Option<Instant>,
    /// Both overlays of a link, the preferred one first; empty without a link.
    pub overlays: Vec<OverlayStatus>,
    /// How long it has been in this state.
    pub since: Duration,
    /// When it is tried again; `None` when it is linked, under way, or never tried again.
    pub retry_in: Option<Duration>,
}

/// One overlay of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayStatus {
    /// Which.
    pub kind: OverlayKind,
    /// Whether frames get through.
    pub up: bool,
    /// Whether it is the one in use.
    pub in_use: bool,
    /// Since when it is up, or not up.
    pub since: Instant,
    /// While it is up, the largest frame payload it carries, in bytes.
    pub mtu: Option<u16>,
    /// While it is up.
    pub rtt: Option<Duration>,
    /// Why it is not in use; empty when it is.
    pub note: String,
}

/// A name that was claimed with a second key, and refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollisionStatus {
    /// The name.
    pub name: PeerName,
    /// The key that was refused.
    pub public_key: [u8; 32],
    /// Where the claim came from: the far end of the link that carried it.
    pub heard_from: SocketAddr,
    /// How long ago it was last heard.
    pub last_heard: Duration,
}

/// Counted since the start. Each is a metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages handed to `poll_transmit`, and their bytes.
    pub messages_sent: u64,
    /// Bytes of the messages handed to `poll_transmit`.
    pub bytes_sent: u64,
    /// Messages taken from links.
    pub messages_received: u64,
    /// Bytes of messages taken from links.
    pub bytes_received: u64,
    /// Channel messages handed on for others.
    pub relayed: u64,
    /// Channel messages dropped: no path to the receiver.
    pub dropped_no_route: u64,
    /// Channel messages dropped: they have travelled too far.
    pub dropped_hop_limit: u64,
    /// Broadcasts dropped: seen before.
    pub dropped_duplicate: u64,
    /// Broadcasts dropped: from nobody we know.
    pub dropped_unknown_origin: u64,
    /// Channel messages dropped: the neighbour reads too slowly.
    pub dropped_backlog: u64,
    /// Times that the graph was computed anew.
    pub recalculations: u64,
    /// Comparisons with a neighbour that found a difference.
    pub mismatches: u64,
}
