//! The daemon against the real kernel: pods as network namespaces on a bridge, real traffic, and what is left behind.
//!
//! Each test runs in user, network and mount namespaces of its own.
#![allow(clippy::unwrap_used, reason = "in tests a panic is how one fails")]

#[path = "../cluster/authority.rs"]
#[allow(dead_code, reason = "shared with the tests of the client")]
mod authority;
mod beyond;
mod blocked;
#[path = "../../policy/tests/support/cases.rs"]
mod cases;
mod cluster;
mod docker;
#[path = "../docker/engine.rs"]
#[allow(dead_code, clippy::unwrap_in_result, reason = "shared with the tests of the client")]
mod engine;
mod lab;
mod measure;
#[path = "../cluster/objects.rs"]
#[allow(dead_code, reason = "shared with the tests of the client")]
mod objects;
mod sctp;
#[path = "../cluster/server.rs"]
#[allow(dead_code, clippy::unwrap_in_result, reason = "shared with the tests of the client")]
mod server;
mod table;
mod traffic;
mod upkeep;
#[path = "../../policy/tests/support/upstream.rs"]
mod upstream;
#[path = "../../policy/tests/support/words.rs"]
mod words;
