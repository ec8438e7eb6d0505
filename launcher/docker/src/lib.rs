//! Docker on a host of the mesh: a network and address driver for its engine, and an eye on its containers.
//!
//! The engine asks the driver over a unix socket of ours ([`serve`]); the driver asks the router over its control API.
//! It is a process of its own: while the router is away or starts again it answers the engine all the same, at once and in
//! words, because an engine that waits for us stands still as a whole. For the same reason nothing that the engine asks is
//! answered by asking the engine back, and everything has a deadline ([`DEADLINE`]).
//!
//! What must outlive this process is kept by the router (endpoints, leases of addresses) and by the engine (networks).
#![forbid(unsafe_code)]

mod clock;
mod firewall;
mod follow;
mod ipam;
mod lingering;
mod listen;
mod network;
mod plugin;
mod pool;
mod proxy;
mod reattach;
mod remote;
mod retire;
mod router;
mod upkeep;

use weave_engine::{self as engine, events};

pub use firewall::Firewall;
pub use plugin::{DEADLINE, Options, serve};
pub use proxy::{Hostnames, ProxyOptions, Remote, TlsFiles};
pub use retire::retire;
pub use weave_engine::{Container, Engine, EngineError};
