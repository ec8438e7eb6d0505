//! Rebuilding the headers of a part of a burst from the headers of the whole.

use weave_model::checksum;

use crate::layers::Layers;

/// TCP flags that only the last segment of a burst has: FIN and PSH.
const LAST_ONLY: u8 = 0x09;
/// TCP flag that only the first segment of a burst has: CWR (RFC 3168).
pub(crate) const CWR: u8 = 0x80;

/// Which part of a burst the headers shall describe. Lengths in bytes of payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Where the part begins.
    pub(crate) offset: usize,
    /// How long it is.
    pub(crate) payload: usize,
    /// Length of each segment of the burst.
    pub(crate) segment: usize,
    /// Whether the burst ends with it.
    pub(crate) is_last: bool,
}

/// Turns `head`, the headers of a whole burst, into those of a part: lengths, sequence number, identification and
/// flags; the IPv4 checksum complete and the transport checksum open, as the kernel wants it for further offload.
///
/// `layers` was parsed from `head`, which ends at its payload; lengths fit in 16 bits (the caller checks).
pub(crate) fn rebuild(head: &mut [u8], layers: &Layers, part: Part) {
    let length = head.len() + part.payload;
    let (network, transport) = (layers.network, layers.transport);
    if layers.is_ipv6 {
        put16(head, network + 4, length - network - 40);
    } else {
        put16(head, network + 2, length - network);
        let index = part.offset / part.segment.max(1);
        let id = u16::from_be_bytes([head[network + 4], head[network + 5]]).wrapping_add(index as u16);
        head[network + 4..network + 6].copy_from_slice(&id.to_be_bytes());
        put16(head, network + 10, 0);
        let sum = checksum::fold(checksum::add(0, &head[network..transport]));
        head[network + 10..network + 12].copy_from_slice(&(!sum).to_be_bytes());
    }
    if layers.is_tcp {
        let sequence = &mut head[transport + 4..transport + 8];
        let value = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
        sequence.copy_from_slice(&value.wrapping_add(part.offset as u32).to_be_bytes());
        let flags = &mut head[transport + 13];
        *flags &= if part.is_last { 0xff } else { !LAST_ONLY };
        *flags &= if part.offset == 0 { 0xff } else { !CWR };
    } else {
        put16(head, transport + 4, length - transport);
    }
    let sum = pseudo_sum(head, layers, length - transport);
    let field = transport + layers.checksum_offset();
    head[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The folded sum of the pseudo-header, not complemented.
fn pseudo_sum(head: &[u8], layers: &Layers, length: usize) -> u16 {
    let network = layers.network;
    let addresses = if layers.is_ipv6 { network + 8..network + 40 } else { network + 12..network + 20 };
    let rest = u64::from(layers.protocol()) + length as u64;
    checksum::fold(checksum::add(rest, &head[addresses]))
}

/// Whether the IP length field of a whole frame says just what the frame holds.
pub(crate) fn has_exact_length(frame: &[u8], layers: &Layers) -> bool {
    let (at, base) = if layers.is_ipv6 {
        (layers.network + 4, layers.network + 40)
    } else {
        (layers.network + 2, layers.network)
    };
    usize::from(u16::from_be_bytes([frame[at], frame[at + 1]])) + base == frame.len()
}

fn put16(head: &mut [u8], at: usize, value: usize) {
    head[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}
