//! Heartbeats between two routers on virtual time.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod blocks;
mod cost;
mod hostile;
mod pair;
mod sizes;
mod weather;
