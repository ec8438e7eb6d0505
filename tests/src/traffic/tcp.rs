//! TCP streams.

use std::{
    io::Write as _,
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::wire::{Mode, read_array};
use crate::clock;

/// Bytes written at once: what iperf3 uses for TCP.
const WRITE: usize = 128 * 1024;

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);

/// Arguments of the TCP client.
#[derive(Debug, Args)]
pub struct Tcp {
    /// The server.
    to: SocketAddr,
    /// How many streams send at once.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// How long they send.
    #[arg(long, default_value = "3", value_parser = super::seconds)]
    seconds: Duration,
}

/// What the streams carried together.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct TcpReport {
    /// Payload bytes that arrived.
    pub bytes: u64,
    /// Seconds from the start until the last byte was counted at the other end.
    pub seconds: f64,
}

impl TcpReport {
    /// Payload in 10^9 bits per second.
    #[must_use]
    pub fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.seconds
    }
}

impl Tcp {
    pub(super) fn run(&self) -> Result<TcpReport> {
        let streams: Result<Vec<_>> = (0..self.streams).map(|_| self.connect()).collect();
        let start = clock::now();
        let until = start + self.seconds;
        let senders: Vec<_> = streams?.into_iter().map(|s| thread::spawn(move || send(&s, until))).collect();
        let mut bytes = 0;
        for sender in senders {
            bytes += sender.join().map_err(|_| anyhow!("a sending thread panicked"))??;
        }
        Ok(TcpReport { bytes, seconds: start.elapsed().as_secs_f64() })
    }

    fn connect(&self) -> Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.to, CONNECT)?;
        stream.write_all(&[Mode::Sink.byte()])?;
        Ok(stream)
    }
}

/// Sends until `until` and returns how much the other end says it received.
fn send(mut stream: &TcpStream, until: Instant) -> Result<u64> {
    let block = vec![0x5a; WRITE];
    while clock::now() < until {
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(u64::from_be_bytes(read_array(stream)?))
}
