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
//! 4. Every member is remembered: who comes to the ring, or back to it, wants no space before two others keep on disk
//!    that it is a member, or the only other there is (`witness`). One of them may die or forget. What one member knows
//!    of the others spreads with the ring, and whoever takes space over learns it from all whom it asks.
//! 5. A store that may be from the past may have forgotten members, and that removed ones came back. Whoever has such a
//!    store is no witness, and takes nothing over, not even what was its own, before the removed have agreed too;
//!    unless a member that is sure, or more than half of the members, have agreed and so told it what it forgot.
//! 6. Should a ring that all had forgotten come back late and take from under containers what they hold, then whoever
//!    agrees to a take-over names the addresses that its containers hold there, and gets these back (`consent`).
//! 7. The first ring comes from a vote that a majority must win (`consensus`).
//!
//! What is beyond it, and stands on somebody's word or on chance:
//! * that a router which the operator declares dead has no running containers;
//! * that a router which loses its store, or has an older one restored, loses its containers with it, or claims what
//!   they still use before [`Ipam::take_over`] is called with its own name;
//! * that those who know of a router's joining or return, two at the least where there are two, are not all removed
//!   or without the store that has it before anybody else has heard of it;
//! * that no majority of the voters loses its stores before the first ring is known to all;
//! * that a removal is not forgotten by all but one of those who agreed to it: should the removed router live on, and have
//!   that one removed in turn, neither of the two hears the other when it comes back, and one of them has to be reset;
//! * that those who vote before there is a ring were counted: of more than [`Init::Consensus`] says, two parts that cannot
//!   reach each other may each be a majority of what was said, and divide the ranges twice;
//! * that a clone of a running router's disk is found before the only member that met the original, and not the clone,
//!   leaves or is lost: to all others the clone is the original after a restart.
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
mod consent;
mod election;
mod error;
mod exchange;
mod freeze;
mod heir;
mod hunt;
mod ipam;
mod ledger;
mod members;
mod mutant;
mod nickname;
mod peer;
mod pending;
mod repair;
mod request;
mod ring;
mod settle;
mod space;
mod span;
mod status;
mod store;
mod view;
mod wire;
mod witness;

pub use config::{Config, ConfigError, Init};
pub use error::{GossipError, RestoreError};
pub use ipam::{Event, Ipam, StoreMark, Write};
pub use repair::{Meeting, Misplaced, RepairPlan, Side};
pub use request::{Refusal, Reply, RequestId, WaitReason};
pub use status::{ElectionStatus, IpamStatus, OwnerStatus, PendingStatus, Problem};

#[cfg(test)]
extern crate self as weave_ipam;

/// The model under `tests/sim`, for the check that it notices broken rules.
#[cfg(test)]
#[path = "../tests/sim"]
#[allow(dead_code, reason = "what only the days that are remembered need")]
mod simulation {
    pub(crate) mod deeds;
    pub(crate) mod forgetting;
    pub(crate) mod full;
    pub(crate) mod net;
    pub(crate) mod node;
    pub(crate) mod stories;
    pub(crate) mod world;
}
