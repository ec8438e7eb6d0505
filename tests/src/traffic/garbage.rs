//! Datagrams that mean nothing, for a port that must not mind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Result;
use clap::Args;

/// The longest datagram sent, in bytes.
const LONGEST: u64 = 1400;

/// Arguments of the garbage client.
#[derive(Debug, Args)]
pub struct Garbage {
    /// Where to.
    to: SocketAddr,
    /// How many datagrams.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Which garbage; the same seed sends the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Garbage {
    /// Sends it all and returns how many the kernel took.
    pub(super) fn run(&self) -> Result<u64> {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        let mut state = self.seed.wrapping_mul(2).wrapping_add(1);
        let mut sent = 0;
        for _ in 0..self.count {
            let length = next(&mut state) % (LONGEST + 1);
            let datagram: Vec<u8> = (0..length).map(|_| next(&mut state) as u8).collect();
            // A refusal by ICMP or a full queue concerns this datagram only.
            sent += u64::from(socket.send_to(&datagram, self.to).is_ok());
        }
        Ok(sent)
    }
}

/// The upper half of a 64-bit linear congruential step (Knuth, MMIX).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 32
}
