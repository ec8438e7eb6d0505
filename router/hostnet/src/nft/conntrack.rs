//! Reading the table of connections that the kernel tracks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    attribute::{self, Attributes},
    program::Session,
    transaction::{self, GENERIC_LEN},
};
use crate::HostError;

/// A connection, by who opened it and whom it really went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackedConnection {
    /// Source of the first packet, before any translation.
    pub source: IpAddr,
    /// Source of the answers: the destination, after translation.
    pub destination: IpAddr,
    /// Protocol behind IP.
    pub protocol: u8,
    /// Source port of the answers; none where the protocol has no ports.
    pub port: Option<u16>,
}

impl Session {
    /// All connections of this network namespace.
    ///
    /// # Errors
    /// [`HostError::NoPermission`], or what else the kernel says, if it has no `nf_conntrack_netlink` above all.
    pub fn connections(&self) -> Result<Vec<TrackedConnection>, HostError> {
        /// `NFNL_SUBSYS_CTNETLINK`.
        const CONNECTIONS: u16 = 1;
        /// `IPCTNL_MSG_CT_GET`.
        const GET: u8 = 1;
        let answers = transaction::dump_of(&self.0, CONNECTIONS, GET, 0, &Attributes::default())?;
        let bodies = answers.iter().filter(|answer| answer.kind >> 8 == CONNECTIONS);
        Ok(bodies.filter_map(|answer| read(answer.payload.get(GENERIC_LEN..)?)).collect())
    }
}

fn read(body: &[u8]) -> Option<TrackedConnection> {
    const ORIGINAL: u16 = 1;
    const REPLY: u16 = 2;
    const PROTOCOL: u16 = 2;
    const PROTOCOL_NUMBER: u16 = 1;
    const SOURCE_PORT: u16 = 2;
    let (original, reply) = (attribute::find(body, ORIGINAL)?, attribute::find(body, REPLY)?);
    let protocol = attribute::find(reply, PROTOCOL)?;
    let number = *attribute::find(protocol, PROTOCOL_NUMBER)?.first()?;
    let port = attribute::find(protocol, SOURCE_PORT).and_then(|bytes| bytes.try_into().ok());
    Some(TrackedConnection {
        source: source(original)?,
        destination: source(reply)?,
        protocol: number,
        port: port.map(u16::from_be_bytes),
    })
}

fn source(tuple: &[u8]) -> Option<IpAddr> {
    const ADDRESSES: u16 = 1;
    const IPV4_SOURCE: u16 = 1;
    const IPV6_SOURCE: u16 = 3;
    let addresses = attribute::find(tuple, ADDRESSES)?;
    if let Some(bytes) = attribute::find(addresses, IPV4_SOURCE) {
        return Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)));
    }
    let bytes = attribute::find(addresses, IPV6_SOURCE)?;
    Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)))
}
