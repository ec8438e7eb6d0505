//! Where the headers of a frame begin and end.

/// Protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// Protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// Extension headers that an IPv6 packet may have before the transport header. Real ones have at most a few; more
/// is somebody making us walk.
const MAX_EXTENSIONS: usize = 8;

/// A TCP or UDP packet inside an Ethernet frame: offsets from the frame's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layers {
    /// The IP header.
    pub(crate) network: usize,
    /// The TCP or UDP header.
    pub(crate) transport: usize,
    /// The first byte behind all headers.
    pub(crate) payload: usize,
    /// IPv6 rather than IPv4.
    pub(crate) is_ipv6: bool,
    /// TCP rather than UDP.
    pub(crate) is_tcp: bool,
}

impl Layers {
    /// Finds the headers of an unfragmented TCP or UDP packet over IPv4 or IPv6, behind up to two VLAN tags. All
    /// headers lie within `frame`; lengths that the packet claims for itself are not looked at.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let mut network = 14;
        let mut ether_type = be16(frame, 12)?;
        while matches!(ether_type, 0x8100 | 0x88a8) && network < 22 {
            ether_type = be16(frame, network + 2)?;
            network += 4;
        }
        let (is_ipv6, protocol, transport) = match ether_type {
            0x0800 => ipv4(frame, network)?,
            0x86dd => ipv6(frame, network)?,
            _ => return None,
        };
        let (is_tcp, length) = match protocol {
            TCP => (true, usize::from(frame.get(transport + 12)? >> 4) * 4),
            UDP => (false, 8),
            _ => return None,
        };
        let payload = transport + length;
        let is_whole = payload <= frame.len() && length >= if is_tcp { 20 } else { 8 };
        is_whole.then_some(Self { network, transport, payload, is_ipv6, is_tcp })
    }

    /// Where the transport checksum lies behind [`Layers::transport`].
    pub(crate) const fn checksum_offset(&self) -> usize {
        if self.is_tcp { 16 } else { 6 }
    }

    pub(crate) const fn protocol(&self) -> u8 {
        if self.is_tcp { TCP } else { UDP }
    }
}

fn ipv4(frame: &[u8], at: usize) -> Option<(bool, u8, usize)> {
    let first = *frame.get(at)?;
    let length = usize::from(first & 0x0f) * 4;
    let is_fragment = be16(frame, at + 6)? & 0x3fff != 0;
    if first >> 4 != 4 || length < 20 || is_fragment {
        return None;
    }
    Some((false, *frame.get(at + 9)?, at + length))
}

fn ipv6(frame: &[u8], at: usize) -> Option<(bool, u8, usize)> {
    if *frame.get(at)? >> 4 != 6 {
        return None;
    }
    let mut next = *frame.get(at + 6)?;
    let mut offset = at + 40;
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop and destination options (RFC 8200 section 4). A routing header is not followed: behind it,
        // the checksum covers another destination than the header shows.
        if !matches!(next, 0 | 60) {
            return Some((true, next, offset));
        }
        next = *frame.get(offset)?;
        offset += (usize::from(*frame.get(offset + 1)?) + 1) * 8;
    }
    None
}

fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}
