//! Traffic between two places of a lab, measured.
//!
//! One program plays both ends ([`Generator`]): a server that sinks, echoes and counts, and clients that print
//! one JSON object each. Both ends run inside the places they measure; what they share is the machine, as every rival in
//! the same run does.

mod garbage;
mod ping;
mod record;
mod server;
mod tcp;
mod udp;
mod wire;

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde::de::DeserializeOwned;

pub use garbage::Garbage;
pub use ping::{Ping, PingReport};
pub use record::{Record, Recording, Resend, write_frames};
pub use server::Serve;
pub use tcp::{Tcp, TcpReport};
pub use udp::{Flood, FloodReport, PingPong, PingPongReport};

use crate::{lab::Place, tool};

/// The generator's command line.
#[derive(Debug, Subcommand)]
pub enum Generator {
    /// Sinks, echoes and counts until it is killed; prints its port first.
    Serve(Serve),
    /// Sends TCP streams as fast as they go.
    Tcp(Tcp),
    /// Sends a datagram, waits for its echo, and again.
    PingPong(PingPong),
    /// Sends numbered datagrams as fast as they go.
    Flood(Flood),
    /// Sends ICMP echo requests, to an address or to a name that the system's resolver knows.
    Ping(Ping),
    /// Sends datagrams that mean nothing.
    Garbage(Garbage),
    /// Writes every frame that passes to a file, until it is told to stop.
    Record(Record),
    /// Sends IP packets out of a file, as they are.
    Resend(Resend),
}

impl Generator {
    /// Does what the command line said and prints the outcome on stdout.
    ///
    /// # Errors
    /// When the network or the other end fails.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Serve(serve) => serve.run(),
            Self::Tcp(tcp) => wire::print(&tcp.run()?),
            Self::PingPong(pingpong) => wire::print(&pingpong.run()?),
            Self::Flood(flood) => wire::print(&flood.run()?),
            Self::Ping(ping) => wire::print(&ping.run()?),
            Self::Garbage(garbage) => wire::print(&garbage.run()?),
            Self::Record(record) => wire::print(&record.run()?),
            Self::Resend(resend) => wire::print(&resend.run()?),
        }
    }
}

/// A generator's server running in a place. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    at: SocketAddr,
}

impl Server {
    /// Starts one in `place`, to be reached at `address`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(generator: &[OsString], place: &Place, address: IpAddr) -> Result<Self> {
        let (program, arguments) = generator.split_first().context("no traffic generator")?;
        let mut command = place.command(program);
        command.args(arguments).arg("serve").stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot run `{}`", tool::line(&command)))?;
        let mut server = Self { child, at: SocketAddr::new(address, 0) };
        let mut line = String::new();
        if let Some(stdout) = server.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        server.at.set_port(line.trim().parse().context("the traffic server did not say its port")?);
        Ok(server)
    }

    /// Where clients find it.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs one of the generator's clients in `place`; `arguments` as on its command line.
///
/// # Errors
/// When it fails, or prints something else than a report of that kind.
pub fn measure<R: DeserializeOwned>(generator: &[OsString], place: &Place, arguments: &str) -> Result<R> {
    let (program, first) = generator.split_first().context("no traffic generator")?;
    let text = tool::run(place.command(program).args(first).args(arguments.split_whitespace()))?;
    serde_json::from_str(&text).with_context(|| format!("`{arguments}` answered `{}`", text.trim()))
}

/// Parses a duration given in seconds, such as `2.5`.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
