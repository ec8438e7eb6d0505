//! The sealed header of a record: what it is, who sent it, who shall have it.

use weave_model::PeerName;

use crate::Discard;

/// Length of the header of a record, bytes.
pub const RECORD_LEN: usize = 20;

const LAST: u8 = 0x80;
const OPEN_CHECKSUM: u8 = 0x40;
const KIND_MASK: u8 = 0x0f;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One whole Ethernet frame.
    Frame = 0,
    /// The headers of a burst, as the kernel gave them, and payload of one or more of its segments.
    Burst = 1,
    /// A piece of a frame that is too long for the path.
    Fragment = 2,
    /// Padding that asks whether this size gets through.
    Probe = 3,
    /// The answer to a probe.
    ProbeAck = 4,
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The router where the frame entered the mesh.
    pub source: PeerName,
    /// The router that it is for; `None`: every router.
    pub destination: Option<PeerName>,
    /// How many routers it may still pass, the receiver included.
    pub hop_limit: u8,
    /// What follows.
    pub kind: Kind,
    /// The end of a burst or of a fragmented frame is in this record.
    pub is_last: bool,
    /// The transport checksum of a whole or fragmented frame holds the pseudo-header's sum only.
    pub has_open_checksum: bool,
    /// Tells bursts apart, and fragmented frames among themselves.
    pub number: u16,
    /// Where in the burst's payload, or in the fragmented frame, this record's bytes belong.
    pub offset: u16,
    /// Payload bytes of each segment of a burst; 0 elsewhere.
    pub segment: u16,
}

impl Record {
    /// Reads the header at the front of an opened record; gives what follows too.
    ///
    /// # Errors
    /// `BadRecord`: the seal was right, so the peer sent nonsense.
    pub fn decode(opened: &[u8]) -> Result<(Self, &[u8]), Discard> {
        let Some((head, body)) = opened.split_first_chunk::<RECORD_LEN>() else {
            return Err(Discard::BadRecord);
        };
        let &[a, b, c, d, e, f, g, h, i, j, k, l, hop_limit, what, n0, n1, o0, o1, s0, s1] = head;
        let kind = match what & KIND_MASK {
            0 => Kind::Frame,
            1 => Kind::Burst,
            2 => Kind::Fragment,
            3 => Kind::Probe,
            4 => Kind::ProbeAck,
            _ => return Err(Discard::BadRecord),
        };
        if what & !(KIND_MASK | LAST | OPEN_CHECKSUM) != 0 {
            return Err(Discard::BadRecord);
        }
        let destination = [g, h, i, j, k, l];
        let record = Self {
            source: PeerName([a, b, c, d, e, f]),
            destination: (destination != [0; 6]).then_some(PeerName(destination)),
            hop_limit,
            kind,
            is_last: what & LAST != 0,
            has_open_checksum: what & OPEN_CHECKSUM != 0,
            number: u16::from_be_bytes([n0, n1]),
            offset: u16::from_be_bytes([o0, o1]),
            segment: u16::from_be_bytes([s0, s1]),
        };
        Ok((record, body))
    }

    /// The header as it stands in the sealed part.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_LEN] {
        let [a, b, c, d, e, f] = self.source.0;
        let [g, h, i, j, k, l] = self.destination.map_or([0; 6], |peer| peer.0);
        let last = if self.is_last { LAST } else { 0 };
        let checksum = if self.has_open_checksum { OPEN_CHECKSUM } else { 0 };
        let what = self.kind as u8 | last | checksum;
        let [n0, n1] = self.number.to_be_bytes();
        let [o0, o1] = self.offset.to_be_bytes();
        let [s0, s1] = self.segment.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, self.hop_limit, what, n0, n1, o0, o1, s0, s1]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), what in 0u8..6) {
            if let Some(byte) = bytes.get_mut(13) {
                *byte = (*byte & 0xc0) | what;
            }
            match Record::decode(&bytes) {
                Ok((record, body)) => {
                    prop_assert_eq!(&record.encode()[..], &bytes[..RECORD_LEN]);
                    prop_assert_eq!(body, &bytes[RECORD_LEN..]);
                }
                Err(reason) => {
                    prop_assert_eq!(reason, Discard::BadRecord);
                    prop_assert!(bytes.len() < RECORD_LEN || what == 5);
                }
            }
        }
    }
}
