//! The daemon against the real kernel: pods as network namespaces on a bridge, real traffic, and what is left behind.
//!
//! Each test runs in user, network and mount namespaces of its own.
#![allow(clippy::unwrap_used, reason = "in tests a panic is how one fails")]

#[path = "../../policy/tests/support/cases.rs"]
mod cases;
mod lab;
mod measure;
mod table;
mod traffic;
mod upkeep;
#[path = "../../policy/tests/support/words.rs"]
mod words;
