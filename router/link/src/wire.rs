//! Reading the bytes of a message. The drawings are in the crate's documentation.

use std::fmt;

use crate::error::HandshakeError;

/// The longest message of the handshake, in bytes. The longest that this version sends is an identity message
/// of 447 bytes; the rest is room for later versions.
pub const MAX_MESSAGE: usize = 1024;

pub(crate) const DIALER_HELLO: u8 = 1;
pub(crate) const LISTENER_HELLO: u8 = 2;
pub(crate) const DIALER_PROOF: u8 = 3;
pub(crate) const LISTENER_IDENTITY: u8 = 4;
pub(crate) const DIALER_IDENTITY: u8 = 5;
pub(crate) const LISTENER_ACCEPT: u8 = 6;
pub(crate) const ABORT: u8 = 15;

/// What is wrong with the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It ends too early.
    Short,
    /// Bytes follow its end.
    Trailing,
    /// It is longer than [`MAX_MESSAGE`].
    TooLong,
    /// A field has a value that is not allowed; the text says which field.
    Field(&'static str),
}

/// Takes fields off the front of a message.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; errors will speak of them as `message`.
    pub(crate) const fn new(bytes: &'a [u8], message: &'static str) -> Self {
        Self { rest: bytes, message }
    }

    /// The error that says what is wrong with this message.
    pub(crate) const fn error(&self, problem: Problem) -> HandshakeError {
        HandshakeError::Malformed { message: self.message, problem }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], HandshakeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.error(Problem::Short))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, HandshakeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, HandshakeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, HandshakeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, HandshakeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes a message's first byte, which must be `tag`.
    pub(crate) fn tag(&mut self, tag: u8) -> Result<(), HandshakeError> {
        match self.u8()? {
            got if got == tag => Ok(()),
            got => Err(HandshakeError::OutOfTurn { got, expected: self.message }),
        }
    }

    /// Takes bytes that a length byte precedes.
    pub(crate) fn counted(&mut self) -> Result<&'a [u8], HandshakeError> {
        let length = usize::from(self.u8()?);
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.error(Problem::Short))?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes all that is left.
    pub(crate) const fn remaining(self) -> &'a [u8] {
        self.rest
    }

    /// Holds that nothing is left.
    pub(crate) fn finish(&self) -> Result<(), HandshakeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(Problem::Trailing)) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it ends too early"),
            Self::Trailing => f.write_str("bytes follow its end"),
            Self::TooLong => write!(f, "it is longer than {MAX_MESSAGE} bytes"),
            Self::Field(field) => write!(f, "its {field} is not valid"),
        }
    }
}
