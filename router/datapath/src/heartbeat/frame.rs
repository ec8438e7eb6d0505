//! The bytes of a heartbeat.
//!
//! ```text
//!  0        6        12     14        15     16      17     18     20      28         36     52
//! +--------+--------+------+---------+------+-------+------+------+-------+----------+------+---------
//! | to     | from   | 88b5 | version | kind | flags | zero | size | token | sequence | seal | zeros …
//! +--------+--------+------+---------+------+-------+------+------+-------+----------+------+---------
//! ```
//! * kind: 1 probe, 2 answer. flags: bit 0, the sender's last probes were answered; the others are for later versions.
//! * size: bytes from offset 14 to the end, which is what an IP packet of that size would take.
//! * token, sequence: the asker's, repeated in the answer. The token is random in each life of a link.
//! * seal: HMAC-SHA256 (RFC 2104) under the key of the direction over bytes 0 to 36, cut to 16 bytes. What follows only fills.
//!
//! Numbers are big-endian. An answer is as large as its probe, so that it proves the size both ways and gains nothing for who
//! forges addresses.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use weave_model::{Mac, PeerName};

use super::HeartbeatDiscard;

/// The ethertype of heartbeats: IEEE 802 local experimental ethertype 1.
pub const HEARTBEAT_ETHERTYPE: u16 = 0x88b5;
/// Size of a small heartbeat: the least payload of an Ethernet frame, so that nothing on the way pads it.
pub(crate) const SMALL: u16 = 46;

const ETHERNET: usize = 14;
const VERSION: u8 = 1;
const PROBE: u8 = 1;
const ANSWER: u8 = 2;
const HEARS: u8 = 1;
const SEAL_AT: usize = 36;
const SEAL_LEN: usize = 16;
const HEADERS: usize = SEAL_AT + SEAL_LEN;

/// The key of one direction of a link.
pub(crate) type Key = [u8; 32];

/// The address of a router's heartbeat device: its name, as a locally administered unicast address.
///
/// Names that differ only in the two bits that this sets share an address. Keys tell their links apart; but a VXLAN device
/// reaches only one of them, and the link with the other stays on the sleeve. Names that come from keys have both bits set alike.
#[must_use]
pub const fn heartbeat_mac(peer: PeerName) -> Mac {
    Mac::local_unicast(peer.0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Probe,
    Answer,
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// The sender's own probes are answered.
    pub(crate) hears: bool,
    pub(crate) size: u16,
    pub(crate) token: u64,
    pub(crate) sequence: u64,
}

/// A frame that has the form of a heartbeat, from whomever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unverified<'a> {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    message: Message,
    sealed: &'a [u8],
    seal: &'a [u8],
}

impl Message {
    /// The frame. A size too small for the headers is raised to them.
    pub(crate) fn encode(&self, to: Mac, from: Mac, key: &Key) -> Vec<u8> {
        let length = (ETHERNET + usize::from(self.size)).max(HEADERS);
        let mut frame = Vec::with_capacity(length);
        frame.extend_from_slice(&to.0);
        frame.extend_from_slice(&from.0);
        frame.extend_from_slice(&HEARTBEAT_ETHERTYPE.to_be_bytes());
        let kind = match self.kind {
            Kind::Probe => PROBE,
            Kind::Answer => ANSWER,
        };
        frame.extend_from_slice(&[VERSION, kind, if self.hears { HEARS } else { 0 }, 0]);
        frame.extend_from_slice(&((length - ETHERNET) as u16).to_be_bytes());
        frame.extend_from_slice(&self.token.to_be_bytes());
        frame.extend_from_slice(&self.sequence.to_be_bytes());
        let seal = keyed(key).chain_update(&frame).finalize().into_bytes();
        frame.extend(seal.into_iter().take(SEAL_LEN));
        frame.resize(length, 0);
        frame
    }

    /// Takes a frame apart.
    pub(crate) fn parse(frame: &[u8]) -> Result<Unverified<'_>, HeartbeatDiscard> {
        let (sealed, rest) = frame.split_first_chunk::<SEAL_AT>().ok_or(HeartbeatDiscard::TooShort)?;
        let seal = rest.get(..SEAL_LEN).ok_or(HeartbeatDiscard::TooShort)?;
        let mut reader = Reader(sealed);
        let (to, from) = (Mac(reader.take()), Mac(reader.take()));
        if u16::from_be_bytes(reader.take()) != HEARTBEAT_ETHERTYPE {
            return Err(HeartbeatDiscard::Ethertype);
        }
        let [version, kind, flags, _] = reader.take();
        if version != VERSION {
            return Err(HeartbeatDiscard::Version);
        }
        let kind = match kind {
            PROBE => Kind::Probe,
            ANSWER => Kind::Answer,
            _ => return Err(HeartbeatDiscard::Kind),
        };
        let size = u16::from_be_bytes(reader.take());
        if frame.len() != ETHERNET + usize::from(size) {
            return Err(HeartbeatDiscard::Length);
        }
        let (token, sequence) = (u64::from_be_bytes(reader.take()), u64::from_be_bytes(reader.take()));
        let message = Self { kind, hears: flags & HEARS != 0, size, token, sequence };
        Ok(Unverified { to, from, message, sealed, seal })
    }
}

impl Unverified<'_> {
    /// What it says, if the holder of `key` sealed it.
    pub(crate) fn verify(&self, key: &Key) -> Option<Message> {
        keyed(key).chain_update(self.sealed).verify_truncated_left(self.seal).is_ok().then_some(self.message)
    }
}

fn keyed(key: &Key) -> Hmac<Sha256> {
    // A key shorter than a block is filled with zeros (RFC 2104 section 2); given as a whole block it cannot be refused.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into())
}

/// Takes fixed pieces off a header whose length is known; past its end there are zeros.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((piece, rest)) => {
                self.0 = rest;
                *piece
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [7; 32];
    const TO: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const FROM: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_name_made_of_a_key_is_its_own_heartbeat_address() {
        let name = PeerName::from_digest(&[0xab; 32]);
        assert_eq!(heartbeat_mac(name).0, name.0);
        assert!(!heartbeat_mac(PeerName([0xff; 6])).is_multicast());
    }

    #[test]
    fn the_seal_is_the_hmac_of_the_headers() {
        // Computed with another implementation: python3 -c 'import hmac; …' over the first 36 bytes.
        let message = Message { kind: Kind::Probe, hears: true, size: SMALL, token: 1, sequence: 2 };
        let frame = message.encode(TO, FROM, &KEY);
        assert_eq!(frame.len(), 60);
        assert_eq!(
            frame[..36],
            *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5\x01\x01\x01\0\0\x2e\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02"
        );
        assert_eq!(frame[36..52], SEAL_OF_EXAMPLE);
        assert_eq!(frame[52..], [0; 8]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_understood_by_the_holder_of_the_key_alone(
            is_probe: bool, hears: bool, size in SMALL..9500, token: u64, sequence: u64, other: [u8; 32]
        ) {
            let kind = if is_probe { Kind::Probe } else { Kind::Answer };
            let message = Message { kind, hears, size, token, sequence };
            let frame = message.encode(TO, FROM, &KEY);
            prop_assert_eq!(frame.len(), usize::from(size) + 14);
            let parsed = Message::parse(&frame).unwrap();
            prop_assert_eq!((parsed.to, parsed.from), (TO, FROM));
            prop_assert_eq!(parsed.verify(&KEY), Some(message));
            prop_assert!(other == KEY || parsed.verify(&other).is_none());
        }

        #[test]
        fn a_frame_with_any_bit_of_its_headers_turned_is_refused(bit in 0usize..52 * 8, size in SMALL..200) {
            let message = Message { kind: Kind::Answer, hears: false, size, token: 5, sequence: 6 };
            let mut frame = message.encode(TO, FROM, &KEY);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Message::parse(&frame).ok().and_then(|parsed| parsed.verify(&KEY)).is_none());
        }

        #[test]
        fn a_frame_cut_or_extended_is_refused(size in SMALL..200, length in 0usize..400) {
            let message = Message { kind: Kind::Probe, hears: true, size, token: 5, sequence: 6 };
            let mut frame = message.encode(TO, FROM, &KEY);
            prop_assume!(length != frame.len());
            frame.resize(length, 0);
            prop_assert!(Message::parse(&frame).is_err());
        }

        #[test]
        fn junk_is_refused_without_panic(mut junk in proptest::collection::vec(any::<u8>(), 0..300), shaped: bool) {
            if shaped && junk.len() > 20 {
                let size = (junk.len() - 14) as u16;
                junk[12..16].copy_from_slice(&[0x88, 0xb5, VERSION, PROBE]);
                junk[18..20].copy_from_slice(&size.to_be_bytes());
            }
            if let Ok(parsed) = Message::parse(&junk) {
                prop_assert!(parsed.verify(&KEY).is_none());
            }
        }
    }

    const SEAL_OF_EXAMPLE: [u8; 16] =
        [0x2a, 0x3e, 0xd9, 0x9b, 0xaf, 0x13, 0x4c, 0xca, 0xd8, 0xa2, 0x4d, 0x71, 0xef, 0xb6, 0x8e, 0x5f];
}
