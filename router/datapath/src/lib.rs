//! Where a frame goes: the router's forwarding decisions, for its own workers and for the kernel.
//!
//! The control plane turns facts and routes into two things and publishes each whole:
//! * a [`Forwarding`], which the data-plane threads ask about every frame and never change. A decision is a [`Verdict`],
//!   and a frame that goes nowhere has a typed [`DropReason`], so that every lost frame shows up in a counter with a name;
//! * a [`Plan`] of what the kernel's tables shall hold, so that it forwards without us wherever it can.
//!
//! Which paths the kernel can serve is vouched for by [`Fastdp`], the state machine of heartbeats. [`Querier`] asks this host's
//! containers for the groups that they listen to.
//!
//! # Policy
//! * A frame for a known MAC goes to the one router that holds it ([`Stations`]), over the route's next link: through the
//!   kernel if that serves every hop, else through the sleeve.
//! * A frame for a group or an unknown MAC follows the broadcast tree of the router where it entered the mesh, so
//!   every router sees it once. How many frames for an unknown MAC do so is limited ([`UnknownStations`]).
//! * A router on the way keeps source and destination as they are and lowers the hop limit; nothing is ever sent
//!   back over the link it came from (the caller knows that link and holds this rule).
#![forbid(unsafe_code)]

mod detour;
mod forwarding;
mod heartbeat;
mod plan;
mod querier;
mod reason;
mod rekey;
mod stations;
mod unknown;
mod verdict;

pub use detour::Detour;
pub use forwarding::{Forwarding, INITIAL_HOP_LIMIT};
pub use heartbeat::{
    DownReason, Fastdp, FastdpEvent, HEARTBEAT_ETHERTYPE, Heartbeat, HeartbeatConfig, HeartbeatDiscard,
    LinkHealth, LinkPath, heartbeat_mac,
};
pub use plan::{Family, MAX_RELAYS, Neighbour, Path, Plan, Port, Tunnel, World, plan};
pub use querier::Querier;
pub use reason::DropReason;
pub use rekey::{KeyUse, Rekey, RekeyConfig};
pub use stations::{Station, Stations};
pub use unknown::UnknownStations;
pub use verdict::Verdict;
