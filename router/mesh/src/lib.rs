//! The mesh core.
#![forbid(unsafe_code)]

mod config;
mod error;
mod event;
mod graph;
mod info;
mod links;
mod maker;
mod mesh;
mod outbox;
mod peers;
mod random;
mod record;
mod routes;
mod rtt;
mod status;
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
    CollisionStatus, ConnectionState, ConnectionStatus, Counters, MeshStatus, PeerLink, PeerStatus,
};
pub use target::{Target, TargetError};
