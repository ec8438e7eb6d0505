//! Membership, replicated facts, topology and routes of the mesh: one router's part, as a state machine without clock, socket
//! or thread. [`Mesh`] says how it is driven.
//!
//! * **Facts.** Every router owns a small versioned map; nobody else writes it. Changes are pushed along trees at once, and
//!   neighbours compare hashes of all they know now and then; only what differs is exchanged. Removals, restarts and
//!   departures are final: nothing late revives what is gone (modules `record` and `peers`).
//! * **Links.** At most one to each peer. Who answers is checked against what is known of its name: ourselves, a second link,
//!   a later run, another router of the same name. What exceeds the limits is given up by a rule that all compute alike.
//! * **Topology.** Links are facts as well; one counts when both ends report it and mean each other's key. From them come
//!   reachability, next hops and broadcast trees, the same at everybody who has the same facts.
//! * **Dialling.** The operator's targets and what peers tell of each other, with back-off.
//! * **Channels.** Messages between the cores of routers, to one or to all, over relays where there is no link.
//!
//! # Trust
//! A link proves who is at its other end, so nobody takes a live neighbour's name, and nobody but we change our facts.
//! Beyond that, whoever has the mesh's password is believed: a relay could alter the facts and messages of others
//! that it passes on. Every decoder is bounded, so it cannot exhaust or crash us.
//!
//! The bytes are described in the module `wire`.
#![forbid(unsafe_code)]

mod config;
mod error;
mod event;
mod graph;
mod info;
mod link_state;
mod links;
mod maker;
mod mesh;
mod outbox;
mod overlays;
mod peers;
mod random;
mod record;
mod routes;
mod rtt;
mod status;
mod surplus;
mod target;
mod window;
mod wire;

pub use config::Config;
pub use error::{FactError, MessageError, Unreachable};
pub use event::{
    Channel, CloseReason, DialFailure, DialId, Event, LinkInfo, Namespace, Overlay, OverlayKind, Retry, Side,
    Transmit,
};
pub use mesh::Mesh;
pub use routes::Routes;
pub use status::{
    CollisionStatus, ConnectionState, ConnectionStatus, Counters, MeshStatus, OverlayStatus, PeerLink,
    PeerStatus,
};
pub use target::{Target, TargetError};
