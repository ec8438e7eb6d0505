//! Whole messages on a QUIC stream: a length of four bytes, little endian, and that many bytes.

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes of the length.
const PREFIX: usize = 4;

/// A message longer than the receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong(pub(crate) usize);

/// Appends one message.
pub(crate) fn put(buffer: &mut BytesMut, message: &[u8]) {
    buffer.reserve(PREFIX + message.len());
    buffer.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend_from_slice(message);
}

/// Takes the next whole message off the front, if it is there.
pub(crate) fn take(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, TooLong> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let len = u32::from_le_bytes(*prefix) as usize;
    if len > max {
        return Err(TooLong(len));
    }
    if buffer.len() < PREFIX + len {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    Ok(Some(buffer.split_to(len).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_however_the_stream_is_cut() {
        let mut sent = BytesMut::new();
        for message in [&b""[..], b"a", &[7; 300]] {
            put(&mut sent, message);
        }
        for chunk in 1..sent.len() {
            let mut buffer = BytesMut::new();
            let mut got = Vec::new();
            for piece in sent.chunks(chunk) {
                buffer.extend_from_slice(piece);
                while let Some(message) = take(&mut buffer, 1000).unwrap() {
                    got.push(message.len());
                }
            }
            assert_eq!(got, [0, 1, 300]);
        }
    }

    #[test]
    fn a_length_above_the_bound_is_refused_before_anything_is_kept() {
        let mut buffer = BytesMut::from(&1001u32.to_le_bytes()[..]);
        assert_eq!(take(&mut buffer, 1000), Err(TooLong(1001)));
    }
}
