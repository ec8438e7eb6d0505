//! Reading bounded fields.

use std::net::{IpAddr, SocketAddr};

use weave_model::PeerName;

use super::MAX_COUNT;
use crate::MessageError;

/// The unread rest of a message.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], MessageError> {
        let (head, rest) =
            self.0.split_at_checked(length).ok_or(MessageError::Unparsable("message is cut short"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (head, rest) =
            self.0.split_first_chunk().ok_or(MessageError::Unparsable("message is cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, MessageError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn name(&mut self) -> Result<PeerName, MessageError> {
        self.array().map(PeerName)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, MessageError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(MessageError::Unparsable("number does not fit 64 bits"))
    }

    /// A version or incarnation.
    pub(crate) fn bounded(&mut self) -> Result<u64, MessageError> {
        let value = self.varint()?;
        if value < MAX_COUNT { Ok(value) } else { Err(MessageError::Unparsable("version out of range")) }
    }

    /// A number of entries, each at least `size` bytes long: never more than the rest of the message can hold.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, MessageError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count.checked_mul(size).is_some_and(|bytes| bytes <= self.0.len()) {
            Ok(count)
        } else {
            Err(MessageError::Unparsable("count beyond the message"))
        }
    }

    /// A length up to `limit`.
    pub(crate) fn length(&mut self, limit: usize) -> Result<usize, MessageError> {
        let length = usize::try_from(self.varint()?).ok().filter(|l| *l <= limit);
        length.ok_or(MessageError::Unparsable("field is too long"))
    }

    /// A length up to `limit`, and as many bytes.
    pub(crate) fn sized(&mut self, limit: usize) -> Result<&'a [u8], MessageError> {
        let length = self.length(limit)?;
        self.take(length)
    }

    pub(crate) fn address(&mut self) -> Result<SocketAddr, MessageError> {
        let ip: IpAddr = match self.u8()? {
            4 => self.array::<4>()?.into(),
            6 => self.array::<16>()?.into(),
            _ => return Err(MessageError::Unparsable("address of unknown family")),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) const fn finish(self) -> Result<(), MessageError> {
        if self.0.is_empty() { Ok(()) } else { Err(MessageError::Unparsable("bytes behind the message")) }
    }
}
