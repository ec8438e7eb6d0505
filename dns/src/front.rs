//! Sockets in front of the responder.
//!
//! They are our own, not hickory's: that one starts a task for every datagram and takes any number of TCP
//! connections, so one container could use up the router's memory and file descriptors. Here, what we know is
//! answered by the task that reads, queries that wait for upstream servers are counted, and so are connections.

mod memo;
mod tcp;
mod udp;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use tokio::{sync::Semaphore, time::Instant};

pub(crate) use tcp::serve_tcp;
pub(crate) use udp::serve_udp;

use crate::{
    responder::{Pending, Responder},
    stats::{Counters, Outcome},
};

/// Queries that may wait for upstream servers at the same time. Each holds a socket or two and a few KiB.
pub(crate) const MAX_FORWARDED: usize = 512;
/// TCP connections at the same time, over all listeners.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// TCP connections of one client address at the same time.
pub(crate) const MAX_CONNECTIONS_PER_CLIENT: usize = 32;

/// What all sockets share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) responder: Responder,
    pub(crate) counters: Arc<Counters>,
    pub(crate) forwards: Semaphore,
    pub(crate) connections: tcp::Connections,
    /// Whose queries are answered; everybody's when empty.
    allow: Vec<IpNet>,
}

impl Shared {
    pub(crate) fn new(responder: Responder, counters: Arc<Counters>, allow: Vec<IpNet>) -> Self {
        let forwards = Semaphore::new(MAX_FORWARDED);
        Self { responder, counters, forwards, connections: tcp::Connections::default(), allow }
    }

    /// Whether the client may ask; counts it if not.
    fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let is_allowed = self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&client));
        if !is_allowed {
            self.counters.record(Outcome::Denied, Duration::ZERO);
        }
        is_allowed
    }

    /// Asks upstream, if not too many do.
    async fn forward(&self, pending: &Pending, since: Instant) -> Vec<u8> {
        let (message, outcome) = match self.forwards.try_acquire() {
            Ok(_permit) => self.responder.forward(pending).await,
            Err(_) => (pending.failure(), Outcome::Overloaded),
        };
        self.counters.record(outcome, since.elapsed());
        message
    }
}
