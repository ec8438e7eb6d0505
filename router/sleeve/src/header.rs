//! The clear part of a datagram: where it belongs and which key opens it. No names, no addresses.

use crate::Discard;

/// Length of the clear header, bytes.
pub const HEADER_LEN: usize = 12;

/// Lanes that a link can have: the most data-plane threads that may send on it at once.
pub const MAX_LANES: usize = 16;

/// The clear header of a datagram. Authenticated along with the sealed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Sealed or clear.
    pub mode: Mode,
    /// The sending thread: each has its own keys and counters.
    pub lane: u8,
    /// The low 16 bits of the key's number.
    pub epoch: u16,
    /// The link, as its receiver numbered it.
    pub receiver: u32,
    /// Number of the datagram within lane and epoch: the nonce.
    pub counter: u32,
}

/// What the first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The rest is sealed and followed by a tag.
    Sealed = 1,
    /// The rest is in clear.
    Clear = 2,
}

/// Whether a datagram on the shared port is for QUIC rather than for the sleeve: QUIC sets the fixed bit of the
/// first byte (RFC 9000 section 17), we leave the top two bits zero.
#[must_use]
pub const fn is_quic(first_byte: u8) -> bool {
    first_byte & 0x40 != 0
}

impl Header {
    /// Reads the header at the front of a datagram.
    ///
    /// # Errors
    /// `Truncated`, `UnknownVersion`, `UnknownLane`.
    pub fn decode(datagram: &[u8]) -> Result<Self, Discard> {
        let Some(&[first, lane, e0, e1, r0, r1, r2, r3, c0, c1, c2, c3]) =
            datagram.first_chunk::<HEADER_LEN>()
        else {
            return Err(Discard::Truncated);
        };
        let mode = match first {
            1 => Mode::Sealed,
            2 => Mode::Clear,
            _ => return Err(Discard::UnknownVersion),
        };
        if usize::from(lane) >= MAX_LANES {
            return Err(Discard::UnknownLane);
        }
        Ok(Self {
            mode,
            lane,
            epoch: u16::from_be_bytes([e0, e1]),
            receiver: u32::from_be_bytes([r0, r1, r2, r3]),
            counter: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }

    /// The header as it stands on the wire.
    #[must_use]
    pub const fn encode(self) -> [u8; HEADER_LEN] {
        let [e0, e1] = self.epoch.to_be_bytes();
        let [r0, r1, r2, r3] = self.receiver.to_be_bytes();
        let [c0, c1, c2, c3] = self.counter.to_be_bytes();
        [self.mode as u8, self.lane, e0, e1, r0, r1, r2, r3, c0, c1, c2, c3]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_survives_the_wire(lane in 0..MAX_LANES as u8, epoch: u16, receiver: u32, counter: u32, sealed: bool) {
            let mode = if sealed { Mode::Sealed } else { Mode::Clear };
            let header = Header { mode, lane, epoch, receiver, counter };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            prop_assert!(!is_quic(header.encode()[0]));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes: Vec<u8>) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(&header.encode()[..], &bytes[..HEADER_LEN]);
            }
        }
    }

    #[test]
    fn short_and_foreign_datagrams_are_told_apart() {
        assert_eq!(Header::decode(&[1; 11]), Err(Discard::Truncated));
        assert_eq!(Header::decode(&[0; 12]), Err(Discard::UnknownVersion));
        assert_eq!(Header::decode(&[0x11; 12]), Err(Discard::UnknownVersion));
        assert_eq!(Header::decode(&[1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Discard::UnknownLane));
    }
}
