//! Whole nodes on virtual time: a bad day of a mesh in milliseconds, replayed from a seed.
//!
//! The nodes are the very [`weave_node::Node`]s that the daemon runs. What is simulated is everything around them:
//!
//! * links, as QUIC would give them: authenticated, ordered and reliable, slowed by loss, dead after a silence of
//!   [`net::IDLE_TIMEOUT`] when one direction is blocked;
//! * disks: what a node asked to persist, kept or lost in a crash;
//! * containers: they outlive their router, and hold their addresses while it is down;
//! * an operator who allocates, frees, names, partitions, kills and heals.
//!
//! After every step the oracle checks that no address is held by two containers. After healing and quiet, that all
//! nodes see the same topology, names and ring, and that the ring's ranges tile the universe.
#![forbid(unsafe_code)]

mod chaos;
mod check;
mod host;
mod net;
mod oracle;
mod world;

pub use chaos::{Plan, run};
pub use check::Failure;
pub use world::{Outcome, World};
