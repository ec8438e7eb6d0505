//! One behaviour a test, on a network that is prompt and loses nothing.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    unreachable_pub,
    clippy::print_stdout,
    reason = "a test"
)]

#[path = "behaviour/lab.rs"]
mod lab;
#[path = "behaviour/nicknames.rs"]
mod nicknames;
#[path = "behaviour/persistence.rs"]
mod persistence;
#[path = "behaviour/ranges.rs"]
mod ranges;
#[path = "behaviour/repair.rs"]
mod repair;
#[path = "behaviour/requests.rs"]
mod requests;
#[path = "behaviour/ring.rs"]
mod ring;
#[path = "behaviour/start.rs"]
mod start;
#[path = "behaviour/wire.rs"]
mod wire;
#[path = "behaviour/witness.rs"]
mod witness;
