//! The data-plane threads: frames from the TAP into sealed datagrams, and back.
//!
//! A *worker* is one operating-system thread that runs to completion: it drains its UDP socket, then its TAP queue,
//! then looks again for a short while if traffic is flowing, and otherwise sleeps in `poll`. It owns everything it
//! needs, so in steady state there is no lock, no allocation and no system call per packet. Which worker receives
//! for a link follows from the link's receiver index, in the kernel; any worker sends on any link, each on its own
//! lane.
//!
//! QUIC, which carries the control plane, shares the port: its datagrams are handed to a callback as they come, and
//! [`UdpSender`] sends through the same socket.
//!
//! # Life of a link
//! 1. [`Workers::add_link`] with what the handshake agreed on. The worker that receives for it begins to probe.
//! 2. [`WorkerEvent::LinkUp`] once a probe came back; [`Workers::publish`] a forwarding snapshot that uses it.
//! 3. [`WorkerEvent::LinkMtu`] when its size became known or changed, [`WorkerEvent::LinkDown`] when probes go
//!    unanswered (it goes on trying), [`WorkerEvent::LinkMoved`] when the peer's address changed.
//! 4. [`Workers::remove_link`].
#![forbid(unsafe_code)]

mod clock;
mod command;
mod config;
mod counters;
mod egress;
mod idle;
mod ingress;
mod links;
mod outbox;
mod path;
mod plane;
mod shared;
mod udp_sender;
mod worker;
mod workers;

pub use config::{EventSink, QuicDatagram, QuicSink, WorkerEvent, WorkersConfig};
pub use counters::{Counters, LinkCounters};
pub use udp_sender::UdpSender;
pub use workers::Workers;
