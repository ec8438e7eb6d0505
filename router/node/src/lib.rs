//! One whole node: mesh, address ring, names and forwarding, introduced to each other.
//!
//! The cores know nothing of each other; this is the only place that carries what one says to another. It is itself a
//! core, so the simulator runs the very code that the daemon runs.
//!
//! # Driving
//! 1. Feed one input (`handle_*`, or a request such as [`Node::allocate`]) with the time it happened.
//! 2. Drain [`Node::poll_output`] until it gives `None`, and carry the outputs out *in order*: a [`Output::Persist`]
//!    must be durable before anything behind it is acted on.
//! 3. Sleep until [`Node::poll_timeout`], then call [`Node::handle_timeout`].
//!
//! # How a gossip message travels
//! 1. The shell reads a whole message and calls [`Node::handle_message`]; `mesh` decodes and merges it.
//! 2. A fact that changed, or a message for a channel, comes out of `mesh` as an event (`dispatch`).
//! 3. By its namespace it goes to `ipam` (consensus, free counts), `names`, or the attachment table.
//! 4. What they want to say goes back into `mesh` as a fact of ours or as a message.
//! 5. Changed routes or attachments mark the forwarding snapshot stale; it is built once, when the outputs are
//!    drained and at most every [`FORWARDING_INTERVAL`].
#![forbid(unsafe_code)]

mod attachment;
mod config;
mod dispatch;
mod forwarding;
mod kernel;
mod learned;
mod mtu;
mod node;
mod output;

pub use attachment::{Attachment, AttachmentError};
pub use config::Config;
pub use node::{FORWARDING_INTERVAL, Node};
pub use output::{Output, Refused};
