//! Probes of the path: padding of a certain size, and the answer that it arrived.

use weave_model::PeerName;

use crate::{Discard, HEADER_LEN, Kind, RECORD_LEN, Record};

/// Length of a probe's body before its padding, bytes: a nonce.
const BODY_LEN: usize = 8;

/// A question whether datagrams of a certain size get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Tells this probe from all others.
    pub nonce: u64,
    /// Length of the whole datagram, bytes of UDP payload.
    pub size: usize,
}

impl Probe {
    /// Length of the datagram that answers a probe, with a tag of `tag_len` bytes.
    #[must_use]
    pub const fn ack_len(tag_len: usize) -> usize {
        HEADER_LEN + RECORD_LEN + BODY_LEN + tag_len
    }

    /// Writes a probe or an answer into a datagram, between header and tag; padding is zeros.
    ///
    /// # Errors
    /// `PathTooSmall` when the datagram has no room for it.
    pub fn write(
        nonce: u64,
        kind: Kind,
        ends: (PeerName, PeerName),
        datagram: &mut [u8],
        tag_len: usize,
    ) -> Result<(), Discard> {
        let record = Record {
            source: ends.0,
            destination: Some(ends.1),
            hop_limit: 1,
            kind,
            is_last: true,
            has_open_checksum: false,
            number: 0,
            offset: 0,
            segment: 0,
        };
        let end = datagram.len().checked_sub(tag_len).ok_or(Discard::PathTooSmall)?;
        let room = datagram.get_mut(HEADER_LEN..end).ok_or(Discard::PathTooSmall)?;
        let (head, rest) = room.split_first_chunk_mut::<RECORD_LEN>().ok_or(Discard::PathTooSmall)?;
        let (body, padding) = rest.split_first_chunk_mut::<BODY_LEN>().ok_or(Discard::PathTooSmall)?;
        *head = record.encode();
        *body = nonce.to_be_bytes();
        padding.fill(0);
        Ok(())
    }

    /// The nonce in the body of a probe or an answer.
    ///
    /// # Errors
    /// `BadRecord` when there is none.
    pub fn read_nonce(body: &[u8]) -> Result<u64, Discard> {
        body.first_chunk::<BODY_LEN>().map(|bytes| u64::from_be_bytes(*bytes)).ok_or(Discard::BadRecord)
    }
}
