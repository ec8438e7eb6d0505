//! The frame around every netlink message (Linux: `include/uapi/linux/netlink.h`), for the subsystems whose messages we
//! write ourselves.
//!
//! Numbers are in host byte order. Those subsystems work a request off while we send it, so the answers wait in the socket
//! when the call returns, and reading them never blocks.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};
use zeroize::Zeroizing;

/// `struct nlmsghdr`: length, kind, flags, sequence number, port.
const HEADER_LEN: usize = 16;

/// Flags of a request.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACKNOWLEDGE: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
/// Answers to a dump that changed while it was taken carry this flag (`NLM_F_DUMP_INTR`).
const INTERRUPTED: u16 = 0x10;

/// Kinds of answers that are the same in every subsystem.
pub(crate) const ERROR: u16 = 2;
const DONE: u16 = 3;

/// How often a dump that was interrupted is begun again before we give up.
pub(crate) const DUMP_ATTEMPTS: usize = 10;

/// What stands before a message of `body` bytes.
pub(crate) fn header(kind: u16, flags: u16, sequence: u32, body: usize) -> [u8; HEADER_LEN] {
    let length = u32::try_from(HEADER_LEN + body).unwrap_or(u32::MAX).to_ne_bytes();
    let (kind, flags, sequence) = (kind.to_ne_bytes(), flags.to_ne_bytes(), sequence.to_ne_bytes());
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&length);
    header[4..6].copy_from_slice(&kind);
    header[6..8].copy_from_slice(&flags);
    header[8..12].copy_from_slice(&sequence);
    header
}

/// Sends `bytes` to the kernel and reads all that it has to say to them.
pub(crate) fn exchange(socket: &Socket, bytes: &[u8]) -> io::Result<Vec<Answer>> {
    socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
    let mut answers = Vec::new();
    loop {
        match socket.recv_from_full() {
            Ok((datagram, _)) => answers.extend(split(&Zeroizing::new(datagram))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
            Err(error) => return Err(error),
        }
        if answers.last().is_some_and(|answer| answer.kind == DONE) {
            return Ok(answers);
        }
    }
}

/// One message of the kernel.
pub(crate) struct Answer {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) sequence: u32,
    /// The number of the socket that asked for it; of a notification, that brought it about.
    pub(crate) port: u32,
    /// Wiped when dropped: tables of IPsec are told with their keys.
    pub(crate) payload: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// The error in it, if it is one; an acknowledgement has none.
    pub(crate) fn error(&self) -> Option<io::Error> {
        let code = i32::from_ne_bytes(*self.payload.first_chunk::<4>()?);
        (self.kind == ERROR && code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
    }
}

/// Whether these answers to a dump show a table that nobody changed meanwhile.
pub(crate) fn is_consistent(answers: &[Answer]) -> bool {
    answers.iter().all(|answer| answer.flags & INTERRUPTED == 0)
}

/// The messages of a datagram; ends at the first that does not fit.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let number =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::try_from(number(0)).unwrap_or(usize::MAX);
        let Some(payload) = bytes.get(HEADER_LEN..length) else { break };
        answers.push(Answer {
            kind: short(4),
            flags: short(6),
            sequence: number(8),
            port: number(12),
            payload: Zeroizing::new(payload.to_vec()),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        [header(kind, 0, sequence, body.len()).as_slice(), body].concat()
    }

    #[test]
    fn messages_are_split_and_acknowledgements_told_from_errors() {
        let refused = (-libc::EPERM).to_ne_bytes();
        let other = message(ERROR + 100, 3, &refused);
        let bytes = [message(ERROR, 1, &[0; 4]), message(ERROR, 2, &refused), other, vec![1, 2, 3]].concat();
        let answers = split(&bytes);
        let errors: Vec<_> =
            answers.iter().map(|a| (a.sequence, a.error().and_then(|e| e.raw_os_error()))).collect();
        assert_eq!(errors, [(1, None), (2, Some(libc::EPERM)), (3, None)]);
    }

    #[test]
    fn a_message_longer_than_its_datagram_or_shorter_than_its_header_ends_it() {
        let long = header(DONE, 0, 1, 400);
        assert!(split(&long).is_empty());
        assert!(split(&[0; 32]).is_empty());
    }
}
