//! Datagrams: round trips and floods.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::wire::{Mode, percentile, read_array};
use crate::clock;

/// How long an echo may take before it counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// How long datagrams in flight get to arrive before they are counted.
const DRAIN: Duration = Duration::from_millis(300);

/// Arguments of the round-trip client.
#[derive(Debug, Args)]
pub struct PingPong {
    /// The server.
    to: SocketAddr,
    /// How long to go on.
    #[arg(long, default_value = "2", value_parser = super::seconds)]
    seconds: Duration,
    /// Pause between an echo and the next datagram, in microseconds.
    #[arg(long, default_value_t = 200)]
    gap_us: u64,
    /// Payload bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..))]
    size: u16,
}

/// Round trips, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct PingPongReport {
    /// How many came back.
    pub count: usize,
    /// How many did not within half a second.
    pub lost: usize,
    /// The median.
    pub p50_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
}

impl PingPong {
    pub(super) fn run(&self) -> Result<PingPongReport> {
        let (_control, socket) = open(self.to, Mode::Echo)?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        let mut datagram = vec![0x5a; usize::from(self.size)];
        let mut echo = vec![0; usize::from(self.size)];
        let (mut nanos, mut lost, mut number) = (Vec::new(), 0, 0_u64);
        let start = clock::now();
        while start.elapsed() < self.seconds {
            number += 1;
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            let sent = clock::now();
            socket.send(&datagram)?;
            match await_echo(&socket, &mut echo, &datagram) {
                true => nanos.push(u64::try_from(sent.elapsed().as_nanos())?),
                false => lost += 1,
            }
            clock::pause(Duration::from_micros(self.gap_us));
        }
        nanos.sort_unstable();
        ensure!(!nanos.is_empty(), "no echo came back from {}", self.to);
        let us = |part| percentile(&nanos, part) as f64 / 1e3;
        Ok(PingPongReport { count: nanos.len(), lost, p50_us: us(0.5), p99_us: us(0.99) })
    }
}

/// Waits for the echo of `datagram`, passing over late ones. False when it does not come in time.
fn await_echo(socket: &UdpSocket, echo: &mut [u8], datagram: &[u8]) -> bool {
    while let Ok(n) = socket.recv(echo) {
        if echo[..n] == *datagram {
            return true;
        }
    }
    false
}

/// Arguments of the flood client.
#[derive(Debug, Args)]
pub struct Flood {
    /// The server.
    to: SocketAddr,
    /// How long to go on.
    #[arg(long, default_value = "2", value_parser = super::seconds)]
    seconds: Duration,
    /// Payload bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..))]
    size: u16,
}

/// What a flood came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct FloodReport {
    /// Datagrams that the sender's kernel took.
    pub sent: u64,
    /// Datagrams that arrived.
    pub delivered: u64,
    /// Payload bytes that arrived.
    pub bytes: u64,
    /// Datagrams that arrived behind a later one.
    pub reordered: u64,
    /// Seconds that the sender sent.
    pub seconds: f64,
}

impl FloodReport {
    /// Delivered datagrams per second.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }

    /// Delivered payload in 10^9 bits per second.
    #[must_use]
    pub fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.seconds
    }
}

impl Flood {
    pub(super) fn run(&self) -> Result<FloodReport> {
        let (mut control, socket) = open(self.to, Mode::Count)?;
        let mut datagram = vec![0x5a; usize::from(self.size)];
        let mut sent = 0_u64;
        let start = clock::now();
        while start.elapsed() < self.seconds {
            // Looking at the clock for each datagram would be part of what is measured.
            for _ in 0..64 {
                datagram[..8].copy_from_slice(&sent.to_be_bytes());
                // A full queue refuses: the datagram is not in the network, the next may be.
                sent += u64::from(socket.send(&datagram).is_ok());
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        clock::pause(DRAIN);
        control.write_all(&[0])?;
        let value = || -> Result<u64> { Ok(u64::from_be_bytes(read_array(&control)?)) };
        Ok(FloodReport { sent, delivered: value()?, bytes: value()?, reordered: value()?, seconds })
    }
}

/// Asks the server for a UDP socket and connects one to it. It lives as long as the returned connection.
fn open(to: SocketAddr, mode: Mode) -> Result<(TcpStream, UdpSocket)> {
    let mut control = TcpStream::connect_timeout(&to, Duration::from_secs(10))
        .with_context(|| format!("no traffic server at {to}"))?;
    control.write_all(&[mode.byte()])?;
    let port = u16::from_be_bytes(read_array(&control)?);
    let socket = UdpSocket::bind(SocketAddr::new(control.local_addr()?.ip(), 0))?;
    socket.connect(SocketAddr::new(to.ip(), port))?;
    Ok((control, socket))
}
