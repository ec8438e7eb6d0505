//! The replicated table of container names, and the queries on it.
//!
//! Every router publishes its own names as facts with one writer; the mesh replicates them and takes them away when
//! their peer leaves. This crate turns names into facts ([`Names::add`], [`Names::remove`]) and everybody's facts
//! into an index ([`Names::handle_fact`]), so it needs no tombstones, versions or clocks of its own: a name lives
//! exactly as long as its fact.
//!
//! # Driving
//! 1. `add` and `remove` change nothing here; they say which facts to publish. The caller publishes them.
//! 2. Every fact that the mesh reports, our own included, goes into `handle_fact`; a peer that left into
//!    `handle_peer_gone`.
//! 3. When one of them said that something changed, `snapshot` gives the server an immutable view. Only what
//!    changed since the last snapshot is rebuilt, so calling it once after a batch is cheapest.
//!
//! A fact from a peer that runs with another domain, or one that cannot be decoded, is refused and changes nothing.
#![forbid(unsafe_code)]

mod buckets;
mod index;
mod name;
mod record;
mod snapshot;
mod table;

pub use name::{Domain, Name, NameError, QueryName};
pub use record::{
    FactChange, MAX_KEY_LEN, MAX_VALUE_LEN, Record, RecordError, Service, ServiceError, Transport,
};
pub use snapshot::{Answer, Entry, Snapshot, Target};
pub use table::{MAX_RECORDS_PER_PEER, Names, RemoveFilter};
