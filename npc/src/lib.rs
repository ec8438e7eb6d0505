//! `weave-npc`: NetworkPolicy on one host, by nftables.
//!
//! [`source`] says which objects there are, [`weave_policy`] what follows from them, [`program`] what the kernel does
//! with that, and [`kernel`] brings it there. [`daemon`] is the loop around them. Nothing here knows the mesh: it works
//! beside any network of containers whose traffic the hooks of IP see.
#![forbid(unsafe_code)]

pub mod args;
pub mod blocked;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod daemon;
pub mod directory;
pub mod docker;
pub mod expected;
mod explain;
pub mod items;
pub mod kernel;
pub mod manifest;
pub mod metrics;
pub mod program;
pub mod source;
pub mod web;
