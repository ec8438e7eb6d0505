//! The virtio header in front of every frame of a TAP: how far the kernel got, or how far it shall go.
//!
//! Layout and rules: virtio 1.2 section 5.1.6, `include/linux/virtio_net.h`.

use crate::layers::Layers;

/// Length of the header, bytes.
pub const VNET_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// `virtio_net_hdr`, all of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VirtioHeader {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl VirtioHeader {
    /// Reads the header.
    #[must_use]
    pub const fn decode(bytes: [u8; VNET_LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        Self {
            flags,
            gso_type,
            header_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            checksum_start: u16::from_le_bytes([s0, s1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// The header as the kernel reads it.
    #[must_use]
    pub const fn encode(self) -> [u8; VNET_LEN] {
        let [h0, h1] = self.header_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// A frame that is complete as it is.
    #[must_use]
    pub const fn complete() -> Self {
        Self {
            flags: 0,
            gso_type: GSO_NONE,
            header_len: 0,
            gso_size: 0,
            checksum_start: 0,
            checksum_offset: 0,
        }
    }

    /// A packet whose transport checksum is still open.
    pub(crate) const fn open_checksum(layers: &Layers) -> Self {
        Self {
            flags: NEEDS_CSUM,
            gso_type: GSO_NONE,
            header_len: 0,
            gso_size: 0,
            checksum_start: layers.transport as u16,
            checksum_offset: layers.checksum_offset() as u16,
        }
    }

    /// A burst of segments with `segment` bytes of payload each, all checksums open.
    pub(crate) const fn burst(layers: &Layers, segment: u16, has_ecn: bool) -> Self {
        let gso_type = match (layers.is_tcp, layers.is_ipv6) {
            (true, false) => GSO_TCPV4,
            (true, true) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        };
        let ecn = if has_ecn { GSO_ECN } else { 0 };
        Self {
            gso_type: gso_type | ecn,
            header_len: layers.payload as u16,
            gso_size: segment,
            ..Self::open_checksum(layers)
        }
    }

    /// Whether the checksum at [`VirtioHeader::checksum_range`] is still open.
    pub(crate) const fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// From where the checksum is taken, and where it is stored.
    pub(crate) fn checksum_range(&self) -> (usize, usize) {
        let start = usize::from(self.checksum_start);
        (start, start + usize::from(self.checksum_offset))
    }

    /// Payload bytes per segment, if this is a burst.
    pub(crate) const fn segment(&self) -> Option<u16> {
        if self.gso_type == GSO_NONE { None } else { Some(self.gso_size) }
    }

    /// Whether the kind of burst is the one that these headers have.
    pub(crate) const fn is_burst_of(&self, layers: &Layers) -> bool {
        let plain = self.gso_type & !GSO_ECN;
        plain == Self::burst(layers, 0, false).gso_type
    }
}
