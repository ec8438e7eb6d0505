//! Control links: QUIC on the port that the data plane shares.
//!
//! 1. `socket` hands quinn the QUIC datagrams that the workers found among sleeve's.
//! 2. `tls` sets up TLS 1.3 with a certificate made at each start, which proves nothing; who is at the other end is
//!    settled by the handshake of `weave-link`, bound to the TLS session by its exporter.
//! 3. `link` dials, accepts, runs that handshake, and then carries whole messages both ways;
//!    `skew` compares clocks beside it.

pub(crate) mod frame;
pub(crate) mod ids;
pub(crate) mod link;
pub(crate) mod skew;
pub(crate) mod socket;
pub(crate) mod tls;
