//! The specification, requirement by requirement: each test builds a small cluster, and every cell it asserts is said
//! alike by the evaluator and by the compiled elements.
#![allow(clippy::unwrap_used, reason = "in tests a panic is how one fails")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "requirements/live.rs"]
mod live;
#[path = "requirements/peers.rs"]
mod peers;
#[path = "requirements/ports.rs"]
mod ports;
#[path = "requirements/selection.rs"]
mod selection;
#[path = "requirements/table.rs"]
mod table;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/words.rs"]
mod words;
