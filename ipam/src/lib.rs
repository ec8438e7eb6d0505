//! Addresses for containers, from one ring that all routers share and no central store.
//!
//! **No address is ever held by two containers**, through partitions, crashes with and without disk, restarts from an
//! old disk, and loss, duplication and reordering of messages. What that rests on:
//!
//! 1. An address is given out by its owner only, and has one owner: ownership is the pointwise maximum of stamps
//!    (`ring`), and only the owner writes a higher one, after it made sure that nobody here holds the address.
//! 2. What a message tells is on disk before the message is sent, what a message brought is on disk before it is used,
//!    and an address is on disk before the caller has it: [`Event::Persist`] comes first.
//! 3. Owners are *lives of stores*, not routers. A store that may be from the past (a restart without
//!    [`Ipam::trust_store`]), or new under an old name, is another owner, and what its predecessor owned is fenced
//!    until every member of the mesh has agreed to let it go (`settle`). So is the space of a dead router.
//! 4. The first ring comes from a vote that a majority must win (`consensus`).
//!
//! What is beyond it, and stands on somebody's word or on chance:
//! * that a router which the operator declares dead has no running containers;
//! * that a router which loses its store, or has an older one restored, loses its containers with it, or claims what
//!   they still use before [`Ipam::take_over`] is called with its own name;
//! * that of a router's return to the mesh somebody knows who neither is removed nor had an older store restored;
//! * that no majority of the voters loses its stores before the first ring is known to all;
//! * that a router which dies for good has not, in its last moments, given space to a newcomer that no other member
//!   has ever heard of, and that stays cut off from them all while the space is taken over.
//!
//! # Driving
//! 1. Feed one input: a `handle_*` method or a request, with the time it happened. Time never goes back.
//! 2. Drain [`Ipam::poll_event`] until it returns `None`, doing what it says in that order.
//! 3. Sleep until [`Ipam::poll_timeout`] (it also says why), then call [`Ipam::handle_timeout`].
//!
//! Nothing here reads a clock, a socket, a file or a source of randomness.
#![forbid(unsafe_code)]

mod config;
mod consensus;
mod election;
mod error;
mod exchange;
mod freeze;
mod heir;
mod hunt;
mod ipam;
mod ledger;
mod members;
mod peer;
mod pending;
mod request;
mod ring;
mod settle;
mod space;
mod span;
mod status;
mod store;
mod view;
mod wire;

pub use config::{Config, ConfigError, Init};
pub use error::{GossipError, RestoreError};
pub use ipam::{Event, Ipam, StoreMark, Write};
pub use request::{Refusal, Reply, RequestId, WaitReason};
pub use status::{IpamStatus, OwnerStatus, PendingStatus, Problem};
