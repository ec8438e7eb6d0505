//! ICMP echo, so that no lab depends on a `ping` being installed.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use weave_model::checksum;

use crate::clock;

/// ICMP types of request and reply (RFC 792, RFC 4443).
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// Bytes of an IPv4 header without options, which a raw socket hands over before the message.
const IPV4_HEADER: usize = 20;

/// Arguments of the ping client.
#[derive(Debug, Args)]
pub struct Ping {
    /// An address, or a name for the system's resolver.
    to: String,
    /// How many requests to send.
    #[arg(long, default_value_t = 3)]
    count: u16,
    /// How long to wait for each reply.
    #[arg(long, default_value = "1", value_parser = super::seconds)]
    timeout: Duration,
    /// Payload bytes behind the ICMP header.
    #[arg(long, default_value_t = 56)]
    size: u16,
    /// How long to wait after each reply.
    #[arg(long, default_value = "0", value_parser = super::seconds)]
    interval: Duration,
}

/// Who answered, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PingReport {
    /// The address that the name stood for.
    pub address: IpAddr,
    /// Requests sent.
    pub sent: u16,
    /// Replies received in time.
    pub received: u16,
    /// The numbers, from 1, of those that were not answered; the first hundred.
    pub lost: Vec<u16>,
    /// The shortest round trip in milliseconds, when there was one.
    pub best_ms: Option<f64>,
    /// The longest time without a reply, in milliseconds, from the start to the first, and between two.
    pub longest_gap_ms: f64,
}

impl Ping {
    pub(super) fn run(&self) -> Result<PingReport> {
        let address = resolve(&self.to)?;
        let socket = open(address)?;
        let mut report = PingReport {
            address,
            sent: 0,
            received: 0,
            lost: Vec::new(),
            best_ms: None,
            longest_gap_ms: 0.0,
        };
        let mut last_reply = clock::now();
        for sequence in 1..=self.count {
            report.sent += 1;
            let answer = self.probe(&socket, address, sequence)?;
            report.longest_gap_ms = report.longest_gap_ms.max(last_reply.elapsed().as_secs_f64() * 1e3);
            if let Some(ms) = answer {
                last_reply = clock::now();
                report.received += 1;
                report.best_ms = Some(report.best_ms.map_or(ms, |best| ms.min(best)));
            } else if report.lost.len() < 100 {
                report.lost.push(sequence);
            }
            if !self.interval.is_zero() {
                clock::pause(self.interval);
            }
        }
        Ok(report)
    }

    /// Sends one request; the round trip in milliseconds when the reply comes in time.
    fn probe(&self, socket: &Socket, to: IpAddr, sequence: u16) -> Result<Option<f64>> {
        let identifier = std::process::id() as u16;
        let request = message(to, identifier, sequence, self.size);
        let start = clock::now();
        // No route or a neighbour that does not answer is an unanswered ping, not a broken one.
        if socket.send(&request).is_err() {
            clock::pause(self.timeout.min(Duration::from_millis(100)));
            return Ok(None);
        }
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let left = self.timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            socket.set_read_timeout(Some(left))?;
            let Ok(n) = (&*socket).read(&mut buffer) else { continue };
            if is_reply(to, &buffer[..n], &request) {
                return Ok(Some(start.elapsed().as_secs_f64() * 1e3));
            }
        }
    }
}

fn resolve(name: &str) -> Result<IpAddr> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let mut found = (name, 0).to_socket_addrs().with_context(|| format!("the name `{name}` is not known"))?;
    found.next().map(|a| a.ip()).with_context(|| format!("the name `{name}` has no address"))
}

fn open(to: IpAddr) -> Result<Socket> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).context("cannot open a raw ICMP socket")?;
    // An unreachable network shows as requests without an answer.
    drop(socket.connect(&SocketAddr::new(to, 0).into()));
    Ok(socket)
}

fn message(to: IpAddr, identifier: u16, sequence: u16, size: u16) -> Vec<u8> {
    let kind = if to.is_ipv4() { REQUEST_V4 } else { REQUEST_V6 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.resize(message.len() + usize::from(size), 0x5a);
    if to.is_ipv4() {
        // The kernel fills in the checksum of ICMPv6 only.
        let sum = checksum::of(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Whether `packet` answers `request`: a reply with the same identifier, sequence and payload.
fn is_reply(from: IpAddr, packet: &[u8], request: &[u8]) -> bool {
    let (header, kind) = if from.is_ipv4() { (IPV4_HEADER, REPLY_V4) } else { (0, REPLY_V6) };
    let Some(message) = packet.get(header..) else { return false };
    message.first() == Some(&kind) && message.get(4..) == request.get(4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        let message = message(IpAddr::from([127, 0, 0, 1]), 0x1234, 7, 57);
        assert_eq!(checksum::of(&[&message]), 0);
    }

    #[test]
    fn only_the_reply_to_this_request_is_taken() {
        let to = IpAddr::from([127, 0, 0, 1]);
        let request = message(to, 1, 1, 8);
        let mut reply = vec![0; IPV4_HEADER];
        reply.extend(&request);
        assert!(!is_reply(to, &reply, &request), "the request itself came round the loopback");
        reply[IPV4_HEADER] = REPLY_V4;
        assert!(is_reply(to, &reply, &request));
        assert!(!is_reply(to, &reply, &message(to, 1, 2, 8)));
    }
}
