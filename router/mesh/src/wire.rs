//! Bytes of mesh messages.
//!
//! Every message travels on an authenticated, ordered and reliable link, and fills one frame of it (at most 1 MiB).
//! The first byte is its kind. Integers of fixed width are little endian; *varint* is LEB128: seven bits a byte, lowest
//! first, high bit set on all but the last, at most ten bytes. A *name* is the six bytes of a peer name.
//!
//! ```text
//! 1 Hash       u64 sum                          of everything the sender vouches for; answered only if it differs
//! 2 Digest     u8 scope, varint n, n * stamp    scope 0 opening (link is new), 1 full, 2 partial (sender is ahead here)
//! 3 Want       varint n, n * stamp              "send me what is later than this"; a zero stamp: everything
//! 4 Facts      varint n, n * delta
//! 5 Send       u8 hops, name from, name to, u8 channel, payload to the end
//! 6 Broadcast  u8 hops, name origin, u32 tag, varint sequence, u8 channel, payload to the end
//! 7 Observed   address                          where the sender sees the receiver
//! 8 Refuse     u8 reason                        the sender closes the link, for this reason
//! 9 Claim      u8 1 or 0, name, 32 bytes key    a router with this key claims this name, or (0) does so no more
//!
//! stamp        name, u32 tag, varint incarnation, varint version
//! delta        name, u32 tag, varint incarnation, varint from, varint span (to - from),
//!              varint floor                                only if from is 0: the delta is the whole state
//!              varint n, n * (name, state, varint age)
//!              varint n, n * (u8 namespace, varint length, key, varint age, varint length + 1, value)
//!                                                          length + 1 = 0: the fact was removed
//!              an entry's version is to - age
//! state        u8 bits, u32 key tag of the other end
//!              bits 0-3 RTT class, 4-5 overlay (0 none, 1 sleeve, 2 fastdp), 6 the teller dialled
//!              255: the link is gone; no key tag follows
//! address      u8 4 or 6, 4 or 16 bytes, u16 port
//! ```
//!
//! A key tag is the sum of the eight u32 words of a public key. A link counts when both ends report it, each with the tag of the
//! key that belongs to the other's name, as the reader knows it.
//!
//! RTT class c stands for at most 2^(c-1) ms; 15 has no upper bound. Fact 0:"" (namespace 0, empty key) describes its owner:
//!
//! ```text
//! u64 uid, 32 bytes public key, u16 listen port, u16 connection limit (0: none),
//! u8 length and nickname, u8 length and version,
//! u8 n (at most 8), n * address
//! ```

mod reader;
mod writer;

use std::net::SocketAddr;

use bytes::Bytes;
use weave_model::PeerName;

pub(crate) use reader::Reader;
pub(crate) use writer::{Writer, broadcast, claim, digest, hash, observed, refuse, send, want};

use crate::{
    CloseReason, MessageError,
    link_state::{KeyTag, LinkState},
    record::{Cell, Delta, Fact, Life, Stamp},
};

/// The longest message, in bytes: what one frame of a link carries.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;
/// The longest key of a fact, in bytes: a DNS name and then some.
pub(crate) const MAX_KEY: usize = 512;
/// The longest value of a fact, in bytes.
pub(crate) const MAX_VALUE: usize = 64 << 10;
/// Versions and incarnations stay below this, so that sums never overflow.
pub(crate) const MAX_COUNT: u64 = 1 << 60;

/// Stands for a link that is gone.
const GONE: u8 = LinkState::GONE.bits();

/// Which part of what the sender knows a digest covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All; sent unasked on a new link.
    Opening,
    /// All; sent because hashes differed.
    Full,
    /// Only where the sender is ahead of the receiver.
    Partial,
}

/// A message as it was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Hash(u64),
    Digest { scope: Scope, stamps: Vec<(PeerName, Stamp)> },
    Want(Vec<(PeerName, Stamp)>),
    Facts(Vec<Delta>),
    Send { hops: u8, from: PeerName, to: PeerName, channel: u8, payload: &'a [u8] },
    Broadcast { hops: u8, origin: PeerName, tag: u32, sequence: u64, channel: u8, payload: &'a [u8] },
    Observed(SocketAddr),
    Refuse(CloseReason),
    Claim { stands: bool, name: PeerName, public_key: [u8; 32] },
}

/// Reads one message; nothing may follow it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message<'_>, MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::Unparsable("longer than 1 MiB"));
    }
    let mut reader = Reader::new(bytes);
    let message = match reader.u8()? {
        1 => Message::Hash(reader.u64()?),
        2 => {
            let scope = match reader.u8()? {
                0 => Scope::Opening,
                1 => Scope::Full,
                2 => Scope::Partial,
                _ => return Err(MessageError::Unparsable("digest of unknown scope")),
            };
            Message::Digest { scope, stamps: decode_stamps(&mut reader)? }
        }
        3 => Message::Want(decode_stamps(&mut reader)?),
        4 => {
            // A delta has at least name, tag, incarnation, from, span and two counts.
            let count = reader.count(15)?;
            Message::Facts((0..count).map(|_| decode_delta(&mut reader)).collect::<Result<_, _>>()?)
        }
        5 => Message::Send {
            hops: reader.u8()?,
            from: reader.name()?,
            to: reader.name()?,
            channel: reader.u8()?,
            payload: reader.rest(),
        },
        6 => Message::Broadcast {
            hops: reader.u8()?,
            origin: reader.name()?,
            tag: reader.u32()?,
            sequence: reader.varint()?,
            channel: reader.u8()?,
            payload: reader.rest(),
        },
        7 => Message::Observed(reader.address()?),
        8 => Message::Refuse(
            CloseReason::from_code(reader.u8()?)
                .ok_or(MessageError::Unparsable("unknown reason to close"))?,
        ),
        9 => {
            let stands = match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(MessageError::Unparsable("claim of unknown kind")),
            };
            Message::Claim { stands, name: reader.name()?, public_key: reader.array()? }
        }
        kind => return Err(MessageError::Incompatible(kind)),
    };
    reader.finish()?;
    Ok(message)
}

fn decode_stamps(reader: &mut Reader<'_>) -> Result<Vec<(PeerName, Stamp)>, MessageError> {
    let count = reader.count(12)?;
    (0..count)
        .map(|_| {
            let name = reader.name()?;
            let life = decode_life(reader)?;
            Ok((name, Stamp { life, version: reader.bounded()? }))
        })
        .collect()
}

fn decode_life(reader: &mut Reader<'_>) -> Result<Life, MessageError> {
    let tag = reader.u32()?;
    Ok(Life { incarnation: reader.bounded()?, tag })
}

fn decode_delta(reader: &mut Reader<'_>) -> Result<Delta, MessageError> {
    let peer = reader.name()?;
    let life = decode_life(reader)?;
    let from = reader.bounded()?;
    let to = from + reader.bounded()?;
    let floor = if from == 0 { reader.bounded()? } else { 0 };
    if to >= MAX_COUNT || floor > to {
        return Err(MessageError::Unparsable("version out of range"));
    }
    let version = |age: u64| {
        to.checked_sub(age).filter(|v| *v > from).ok_or(MessageError::Unparsable("entry outside its delta"))
    };
    let mut delta = Delta { peer, life, from, to, floor, links: Vec::new(), facts: Vec::new() };
    for _ in 0..reader.count(8)? {
        let name = reader.name()?;
        if name == peer {
            return Err(MessageError::Misbehaved("a peer linked to itself"));
        }
        let state = decode_state(reader)?;
        delta.links.push((name, Cell { version: version(reader.varint()?)?, state }));
    }
    for _ in 0..reader.count(4)? {
        let ns = reader.u8()?;
        let key = Bytes::copy_from_slice(reader.sized(MAX_KEY)?);
        let version = version(reader.varint()?)?;
        let value = match reader.length(MAX_VALUE + 1)? {
            0 => None,
            length => Some(Bytes::copy_from_slice(reader.take(length - 1)?)),
        };
        delta.facts.push(((ns, key), Fact { version, value }));
    }
    Ok(delta)
}

fn decode_state(reader: &mut Reader<'_>) -> Result<LinkState, MessageError> {
    match reader.u8()? {
        GONE => Ok(LinkState::GONE),
        bits => LinkState::from_wire(bits, KeyTag(reader.u32()?))
            .ok_or(MessageError::Unparsable("unknown link state")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delta() -> impl Strategy<Value = Delta> {
        let life = (0..MAX_COUNT / 2, any::<u32>()).prop_map(|(incarnation, tag)| Life { incarnation, tag });
        let up = (0..0x30u8, any::<u32>()).prop_map(|(bits, far)| LinkState::from_wire(bits, KeyTag(far)));
        let state = prop_oneof![up, Just(Some(LinkState::GONE))];
        let link = (any::<[u8; 6]>(), 1..99u64, state.prop_map(Option::unwrap));
        let fact =
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20), 1..99u64, any::<Option<[u8; 9]>>());
        let lists = (prop::collection::vec(link, 0..5), prop::collection::vec(fact, 0..5));
        (any::<[u8; 6]>(), life, 0..1000u64, lists).prop_map(|(peer, life, from, (links, facts))| {
            let links = links
                .into_iter()
                .map(|(name, version, state)| (PeerName(name), Cell { version: from + version, state }));
            let facts = facts.into_iter().map(|(ns, key, version, value)| {
                let value = value.map(|v| Bytes::copy_from_slice(&v));
                ((ns, Bytes::from(key)), Fact { version: from + version, value })
            });
            let (links, facts) = (links.collect(), facts.collect());
            Delta { peer: PeerName(peer), life, from, to: from + 100, floor: 0, links, facts }
        })
    }

    proptest! {
        #[test]
        fn facts_survive_a_round_trip(deltas in prop::collection::vec(delta(), 0..4)) {
            let mut writer = Writer::facts();
            deltas.iter().for_each(|d| writer.delta(d));
            let bytes = writer.finish_counted(deltas.len());
            prop_assert_eq!(decode(&bytes).unwrap(), Message::Facts(deltas));
        }

        #[test]
        fn junk_never_panics_and_never_allocates_beyond_its_size(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_damaged_message_never_panics(deltas in prop::collection::vec(delta(), 1..3), at: prop::sample::Index, bit in 0..8u8, cut: prop::sample::Index) {
            let mut writer = Writer::facts();
            deltas.iter().for_each(|d| writer.delta(d));
            let mut bytes = writer.finish_counted(deltas.len()).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn a_huge_count_is_refused_before_anything_is_allocated() {
        let mut bytes = vec![2, 1];
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(decode(&bytes), Err(MessageError::Unparsable("count beyond the message")));
    }

    #[test]
    fn an_unknown_kind_is_told_apart_from_damage() {
        assert_eq!(decode(&[99]), Err(MessageError::Incompatible(99)));
        assert!(matches!(decode(&[]), Err(MessageError::Unparsable(_))));
        assert!(matches!(decode(&[1, 0]), Err(MessageError::Unparsable(_))));
        assert!(matches!(decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(MessageError::Unparsable(_))));
    }
}
