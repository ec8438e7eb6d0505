//! Connection ids that a restarted router still recognises as its own.
//!
//! QUIC answers a packet of an unknown connection with a stateless reset, which is how a peer learns at once that we were
//! restarted. To packets that never were ours we answer nothing: an id carries a keyed hash of its random part, and the
//! key follows from the router's identity.

use aws_lc_rs::hmac;
use quinn::{ConnectionId, ConnectionIdGenerator};

use crate::clock;

/// Bytes of an id: random ones, then hash.
const LEN: usize = 8;
const RANDOM: usize = 4;

/// Makes and recognises ids.
pub(crate) struct KeyedIds(hmac::Key);

impl KeyedIds {
    pub(crate) fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    fn complete(&self, random: [u8; RANDOM]) -> [u8; LEN] {
        let hash = hmac::sign(&self.0, &random);
        let mut id = [0; LEN];
        id[..RANDOM].copy_from_slice(&random);
        id[RANDOM..].copy_from_slice(&hash.as_ref()[..LEN - RANDOM]);
        id
    }
}

impl ConnectionIdGenerator for KeyedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let random = (clock::random_u64() as u32).to_le_bytes();
        ConnectionId::new(&self.complete(random))
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), quinn_proto::InvalidCid> {
        let ours = cid.first_chunk::<RANDOM>().is_some_and(|random| self.complete(*random) == cid[..]);
        if ours { Ok(()) } else { Err(quinn_proto::InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        LEN
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(secret: &[u8]) -> KeyedIds {
        KeyedIds::new(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    #[test]
    fn the_next_run_recognises_the_ids_of_the_last_and_no_others() {
        let id = ids(b"identity").generate_cid();
        assert!(ids(b"identity").validate(&id).is_ok());
        assert!(ids(b"another").validate(&id).is_err());
        assert!(ids(b"identity").validate(&ConnectionId::new(&[7; LEN])).is_err());
    }
}
