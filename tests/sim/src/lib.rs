//! Whole nodes on virtual time: a bad day of a mesh in milliseconds, replayed from a seed.
//!
//! The nodes are the very [`weave_node::Node`]s that the daemon runs. What is simulated is everything around them:
//!
//! * links, as QUIC would give them: authenticated, ordered and reliable, slowed by loss, dead after a silence of
//!   [`IDLE_TIMEOUT`] when one direction is blocked (`net`, `links`);
//! * machines: killed processes, reboots, power loss between two effects, restored backups, disks lost, new
//!   machines under old and new names (`host`, `machine`);
//! * containers, which outlive their router and hold their addresses while it is down, and an operator who
//!   allocates, claims, cancels, frees, names, partitions, heals, and takes over the space of the dead (`chaos`).
//!
//! After every grant the oracle checks that no address is held by two containers, and no node may refuse what
//! another one says. After healing and quiet, all nodes must see the same topology, names, attachments and ring, and
//! see them as they are; the ring must tile the ranges; frames walked by the forwarding snapshots must arrive,
//! broadcasts exactly once; whoever asks must get an address; and nodes must have next to nothing to say (`check`,
//! `walks`, `run`).
//!
//! A run is named by the number of hosts and a seed: `cargo xtask sim --peers N --seed S` replays it.
#![forbid(unsafe_code)]

mod chaos;
mod check;
mod host;
mod links;
mod machine;
mod net;
mod oracle;
mod plan;
mod run;
mod walks;
mod world;

pub use check::Failure;
pub use net::IDLE_TIMEOUT;
pub use plan::{Plan, Shape};
pub use run::{Progress, run, run_watched};
pub use world::{Outcome, World};
