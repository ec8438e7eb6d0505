//! Where a frame goes: the router's forwarding decisions, as pure look-ups in an immutable snapshot.
//!
//! The control plane turns facts and routes into a [`Forwarding`] and publishes it whole; the data-plane threads ask
//! it about every frame and never change it. A decision is a [`Verdict`], and a frame that goes nowhere has a typed
//! [`DropReason`], so that every lost frame shows up in a counter with a name.
//!
//! # Policy
//! * A frame for a known MAC goes to the one router that holds it, over the route's next link.
//! * A frame for a group or an unknown MAC follows the broadcast tree of the router where it entered the mesh, so
//!   every router sees it once.
//! * A router on the way keeps source and destination as they are and lowers the hop limit; nothing is ever sent
//!   back over the link it came from (the caller knows that link and holds this rule).
#![forbid(unsafe_code)]

mod forwarding;
mod reason;
mod verdict;

pub use forwarding::{Forwarding, INITIAL_HOP_LIMIT};
pub use reason::DropReason;
pub use verdict::Verdict;
