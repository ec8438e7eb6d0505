//! The DNS server of a router: names of containers from [`weave_names`], everything else from upstream.
//!
//! * `front` owns the sockets and every bound on them; `reply` reads queries and writes answers; `responder` decides.
//! * What is below our domain, and the addresses that our names have, we answer: A, AAAA, SRV and PTR, shuffled,
//!   with a SOA where there is nothing to say. Nothing below our domain is ever asked upstream.
//! * Everything else goes to the servers of resolv.conf and comes back byte for byte, with a small cache between.
//!
//! Names are read from a shared [`weave_names::Snapshot`] that the router swaps when they change; the server takes no
//! lock on its way to an answer of its own.
#![forbid(unsafe_code)]

mod config;
mod front;
mod reply;
mod responder;
mod server;
mod stats;
mod upstream;
mod wire;

pub use config::{DnsConfig, Upstreams};
pub use server::Server;
pub use stats::{LATENCY_BUCKETS, Outcome, Stats};
