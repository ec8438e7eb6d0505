//! Whole meshes on virtual time.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes helpers of tests for something else"
)]

mod chaos;
mod cost;
mod identity;
mod limit;
mod overlays;
mod recovery;
mod shapes;
mod sim;
mod trust;
