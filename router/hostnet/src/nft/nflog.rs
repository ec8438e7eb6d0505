//! Packets that a rule of ours sends us the beginning of: the expressions for that, and the socket at which they come.
//!
//! Linux: `include/uapi/linux/netfilter/nfnetlink_log.h`, `NFTA_LOG_*` and `NFTA_LIMIT_*` of `nf_tables.h`.

use std::{io, os::fd::AsFd, time::Duration};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{
    attribute::{self, Attributes},
    expression::Expressions,
    transaction::{self, GENERIC_LEN},
};
use crate::{
    HostError,
    netlink::{ACKNOWLEDGE, Answer, REQUEST, split},
    poll::wait_readable,
};

/// The subsystem of message types (`NFNL_SUBSYS_ULOG`).
const LOG: u16 = 4;
/// `NFULNL_MSG_PACKET`.
const PACKET: u16 = 0;
/// `NFULNL_MSG_CONFIG`.
const CONFIGURE: u16 = 1;
/// Room for the beginnings of some thousand packets.
const BUFFER: usize = 1024 * 1024;

impl Expressions {
    /// Condition: fewer than this many packets a second came here, after the first `burst`.
    #[must_use]
    pub fn at_most_per_second(self, packets: u32, burst: u32) -> Self {
        const RATE: u16 = 1;
        const UNIT: u16 = 2;
        const BURST: u16 = 3;
        const KIND: u16 = 4;
        const PACKETS: u32 = 0;
        let limit = Attributes::default()
            .bytes(RATE, &u64::from(packets).to_be_bytes())
            .bytes(UNIT, &1u64.to_be_bytes())
            .number(BURST, burst)
            .number(KIND, PACKETS);
        self.push("limit", &limit)
    }

    /// Sends the first `bytes` of the packet to whoever listens to `group`, with `prefix` (at most 127 characters). The
    /// rule goes on.
    #[must_use]
    pub fn log(self, group: u16, prefix: &str, bytes: u32) -> Self {
        const GROUP: u16 = 1;
        const PREFIX: u16 = 2;
        const LENGTH: u16 = 3;
        let log = Attributes::default()
            .bytes(GROUP, &group.to_be_bytes())
            .text(PREFIX, prefix)
            .number(LENGTH, bytes);
        self.push("log", &log)
    }
}

/// A packet that was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedPacket {
    /// What the rule said.
    pub prefix: String,
    /// Its beginning, from the header of IP on.
    pub bytes: Vec<u8>,
}

/// What came to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logged {
    /// These packets; none if nothing came in time.
    Packets(Vec<LoggedPacket>),
    /// More than there is room for: some are lost.
    Lost,
}

/// Listens to a group of logged packets, in the network namespace in which it was made.
pub struct PacketLog(Socket);

impl PacketLog {
    /// Begins to listen; packets come one by one, cut to `bytes`.
    ///
    /// # Errors
    /// [`HostError::NoPermission`], or what else the kernel says: if it has no `nfnetlink_log`, or somebody else listens
    /// to the group, above all.
    pub fn new(group: u16, bytes: u32) -> Result<Self, HostError> {
        const COMMAND: u16 = 1;
        const MODE: u16 = 2;
        const AT_ONCE: u16 = 5;
        const BIND: u8 = 1;
        const COPY_PACKET: u8 = 2;
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.set_rx_buf_sz(BUFFER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        let length = bytes.to_be_bytes();
        let mode = [length[0], length[1], length[2], length[3], COPY_PACKET, 0];
        let [high, low] = group.to_be_bytes();
        let requests = [
            Attributes::default().bytes(COMMAND, &[BIND]),
            Attributes::default().bytes(MODE, &mode),
            Attributes::default().number(AT_ONCE, 1),
        ];
        let log = Self(socket);
        for request in &requests {
            log.configure(&transaction::message(
                LOG << 8 | CONFIGURE,
                REQUEST | ACKNOWLEDGE,
                0,
                [0, 0, high, low],
                request.as_bytes(),
            ))?;
        }
        Ok(log)
    }

    /// Sends a request, the answer to which is there when the call returns.
    fn configure(&self, request: &[u8]) -> Result<(), HostError> {
        self.0.send_to(request, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        let (datagram, _) = self.0.recv_from_full().map_err(failed)?;
        split(&datagram).iter().find_map(Answer::error).map_or(Ok(()), |error| Err(failed(error)))
    }

    /// Waits for packets, at most for `patience`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self, patience: Duration) -> Result<Logged, HostError> {
        if !wait_readable(&[self.0.as_fd()], Some(patience)).map_err(failed)? {
            return Ok(Logged::Packets(Vec::new()));
        }
        match self.0.recv_from_full() {
            Ok((datagram, _)) => {
                let answers = split(&datagram);
                let packets = answers.iter().filter(|answer| answer.kind == LOG << 8 | PACKET);
                Ok(Logged::Packets(packets.filter_map(|answer| read(&answer.payload)).collect()))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Logged::Lost),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Logged::Packets(Vec::new())),
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: io::Error) -> HostError {
    HostError::from_io("listening to logged packets", error)
}

fn read(payload: &[u8]) -> Option<LoggedPacket> {
    const BYTES: u16 = 9;
    const PREFIX: u16 = 10;
    let body = payload.get(GENERIC_LEN..)?;
    let prefix = attribute::find(body, PREFIX).and_then(attribute::text).unwrap_or_default();
    Some(LoggedPacket { prefix, bytes: attribute::find(body, BYTES)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_and_what_is_none_is_not() {
        let attributes = Attributes::default().bytes(1, &[0; 4]).bytes(9, &[0x45, 0, 0]).text(10, "ingress");
        let payload = [&[2, 0, 0, 86], attributes.as_bytes()].concat();
        let packet = LoggedPacket { prefix: "ingress".to_owned(), bytes: vec![0x45, 0, 0] };
        assert_eq!(read(&payload), Some(packet));
        for length in 0..payload.len() - 4 {
            // Whatever is missing, it does not panic.
            let _some_or_none = read(&payload[..length]);
        }
        assert_eq!(read(&[2, 0, 0, 86]), None);
    }
}
