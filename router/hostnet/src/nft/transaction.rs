//! Carrying messages to nf_tables and its answers back.
//!
//! The kernel works a batch off while we send it, and all of it or nothing takes effect; its answers wait in the
//! socket when the call returns. So nothing here ever waits.

use std::{collections::BTreeSet, io, os::fd::AsRawFd};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{attribute::Attributes, ruleset::Message};
use crate::HostError;

const HEADER_LEN: usize = 16;
/// `struct nfgenmsg`.
pub(super) const GENERIC_LEN: usize = 4;
/// The subsystem of nf_tables in message types and batch markers (`NFNL_SUBSYS_NFTABLES`).
pub(super) const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_ANY: u8 = 0;

/// Answers to a dump that changed while it was taken carry this flag (`NLM_F_DUMP_INTR`).
const INTERRUPTED: u16 = 0x10;
/// How often a dump that was interrupted is begun again.
const DUMP_ATTEMPTS: usize = 10;
/// What a socket takes without being asked, on every Linux (`net.core.wmem_default` is twice as much and more).
const SMALL_BATCH: usize = 64 * 1024;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Sends `messages` as one transaction.
pub(super) fn commit(messages: &[Message]) -> Result<(), HostError> {
    commit_if(&Channel::open()?, messages, None)
}

/// Sends `messages` as one transaction, on condition that nobody changed any table since `generation`; the kernel says
/// `ERESTART` otherwise.
pub(super) fn commit_if(
    channel: &Channel,
    messages: &[Message],
    generation: Option<u32>,
) -> Result<(), HostError> {
    let answers = channel.exchange(&batch(messages, generation))?;
    let mut acknowledged = BTreeSet::new();
    for answer in answers.iter().filter(|a| a.kind == ERROR) {
        let index = usize::try_from(answer.sequence).unwrap_or(0).checked_sub(1);
        match answer.error() {
            Some(error) => return Err(refusal(index.and_then(|i| messages.get(i)), error)),
            None => acknowledged.extend(index),
        }
    }
    if acknowledged.len() == messages.len() {
        return Ok(());
    }
    let source = io::Error::other("the kernel did not answer every message");
    Err(HostError::Kernel { doing: "changing nftables rules".to_owned(), source })
}

/// `messages` between the marks that make them one transaction. Sequence numbers: 0 begins, 1 to n are the messages,
/// n + 1 ends.
fn batch(messages: &[Message], generation: Option<u32>) -> Vec<u8> {
    const GENERATION: u16 = 1;
    let subsystem = [0, 0, NFTABLES.to_be_bytes()[0], NFTABLES.to_be_bytes()[1]];
    let condition = generation.map(|generation| Attributes::default().number(GENERATION, generation));
    let condition = condition.unwrap_or_default();
    let mut bytes = message(BATCH_BEGIN, REQUEST, 0, subsystem, condition.as_bytes());
    let mut sequence = 0;
    for part in messages {
        sequence += 1;
        let kind = NFTABLES << 8 | part.operation as u16;
        let place = if part.at_head { 0 } else { APPEND };
        let flags = REQUEST | ACKNOWLEDGE | CREATE | place;
        bytes.extend(message(kind, flags, sequence, [part.family, 0, 0, 0], part.attributes.as_bytes()));
    }
    bytes.extend(message(BATCH_END, REQUEST, sequence + 1, subsystem, &[]));
    bytes
}

/// Whether the kernel accepts all of `messages` but the last, which it cannot; nothing takes effect then.
pub(super) fn reaches_the_end(messages: &[Message]) -> bool {
    let refused = |answer: &&Answer| answer.kind == ERROR && answer.error().is_some();
    let exchanged = Channel::open().and_then(|channel| channel.exchange(&batch(messages, None)));
    let answers = exchanged.unwrap_or_default();
    let refused: Vec<usize> =
        answers.iter().filter(refused).filter_map(|a| usize::try_from(a.sequence).ok()).collect();
    refused == [messages.len()]
}

/// What a refusal of a message means to the operator.
fn refusal(message: Option<&Message>, error: io::Error) -> HostError {
    let is_missing =
        matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT));
    match message {
        None if is_missing => no_nftables(error),
        Some(message) if is_missing && message.needs_nat => HostError::Unsupported {
            feature: "NAT by nf_tables",
            advice: "load the kernel modules nft_chain_nat and nft_masq, or expose without masquerading",
            source: error,
        },
        Some(message) => HostError::from_answer(message.doing.clone(), error),
        None => HostError::from_answer("changing nftables rules", error),
    }
}

fn no_nftables(source: io::Error) -> HostError {
    HostError::Unsupported { feature: "nf_tables", advice: "load the kernel module nf_tables", source }
}

/// Asks for a whole table of the kernel; `operation` is one of its `GET` messages. A kernel without nf_tables has
/// [`HostError::Unsupported`].
pub(super) fn dump(operation: u8) -> Result<Vec<Answer>, HostError> {
    dump_of(&Channel::open()?, NFTABLES, operation, FAMILY_ANY, &Attributes::default())
}

/// Asks `subsystem` of netfilter for all objects that `attributes` describe.
pub(super) fn dump_of(
    channel: &Channel,
    subsystem: u16,
    operation: u8,
    family: u8,
    attributes: &Attributes,
) -> Result<Vec<Answer>, HostError> {
    let kind = subsystem << 8 | u16::from(operation);
    let question = message(kind, REQUEST | DUMP, 1, [family, 0, 0, 0], attributes.as_bytes());
    for _ in 0..DUMP_ATTEMPTS {
        let answers = channel.exchange(&question)?;
        if let Some(error) = answers.iter().filter(|a| a.kind == ERROR).find_map(Answer::error) {
            return Err(refusal(None, error));
        }
        if answers.iter().all(|answer| answer.flags & INTERRUPTED == 0) {
            return Ok(answers);
        }
    }
    let source = io::Error::other("tables changed each time while they were read");
    Err(HostError::Kernel { doing: "reading nftables".to_owned(), source })
}

/// Asks for the one object that `attributes` describe.
pub(super) fn ask(
    channel: &Channel,
    operation: u8,
    family: u8,
    attributes: &Attributes,
) -> Result<Vec<Answer>, HostError> {
    let kind = NFTABLES << 8 | u16::from(operation);
    let answers = channel.exchange(&message(kind, REQUEST, 1, [family, 0, 0, 0], attributes.as_bytes()))?;
    match answers.iter().filter(|a| a.kind == ERROR).find_map(Answer::error) {
        Some(error) => Err(HostError::from_answer("reading nftables", error)),
        None => Ok(answers),
    }
}

/// One message of the kernel.
pub(super) struct Answer {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    /// The number of the socket that asked for it; of a notification, that brought it about.
    pub(super) port: u32,
    pub(super) payload: Vec<u8>,
}

impl Answer {
    /// Whether it is this message of nf_tables.
    pub(super) fn is(&self, operation: u8) -> bool {
        self.kind == NFTABLES << 8 | u16::from(operation)
    }

    /// The error in it; none if it is an acknowledgement.
    fn error(&self) -> Option<io::Error> {
        let code = i32::from_ne_bytes(*self.payload.first_chunk::<4>()?);
        (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
    }
}

/// A socket to netfilter, in the network namespace in which it was opened.
///
/// Whoever closes one after a change waits until the kernel has cleared away what the change removed, some milliseconds:
/// who makes many changes keeps it.
pub(super) struct Channel {
    socket: Socket,
    port: u32,
}

impl Channel {
    pub(super) fn open() -> Result<Self, HostError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        let port = socket.bind_auto().map_err(failed)?.port_number();
        socket.set_non_blocking(true).map_err(failed)?;
        // Answers without a copy of the message: many of them fit into the socket.
        socket.set_cap_ack(true).map_err(failed)?;
        Ok(Self { socket, port })
    }

    /// Its number, by which the kernel tells it from others.
    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// Sends `bytes` and reads all that the kernel has to say to them.
    fn exchange(&self, bytes: &[u8]) -> Result<Vec<Answer>, HostError> {
        if bytes.len() > SMALL_BATCH {
            make_room(&self.socket, bytes.len());
        }
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        let mut answers = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => answers.extend(split(&datagram)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
                Err(error) => return Err(failed(error)),
            }
            if answers.last().is_some_and(|answer| answer.kind == DONE) {
                return Ok(answers);
            }
        }
    }
}

fn failed(error: io::Error) -> HostError {
    match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => no_nftables(error),
        _ => HostError::from_io("talking to nftables", error),
    }
}

/// Makes the socket take a batch of `length` bytes in one call, as a transaction needs, and the answers to it. Where
/// the kernel allows less than that, sending fails and says so.
fn make_room(socket: &Socket, length: usize) {
    let size = libc::c_int::try_from(length.saturating_mul(2)).unwrap_or(libc::c_int::MAX);
    for (forced, asked) in [(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF), (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)]
    {
        if !set_option(socket, forced, size) {
            set_option(socket, asked, size);
        }
    }
}

fn set_option(socket: &Socket, option: libc::c_int, value: libc::c_int) -> bool {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `length` bytes of `value`.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(&value).cast(),
            length,
        )
    };
    answer == 0
}

pub(super) fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    generic: [u8; GENERIC_LEN],
    attributes: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(HEADER_LEN + GENERIC_LEN + attributes.len()).unwrap_or(u32::MAX);
    let port = [0; 4];
    [
        length.to_ne_bytes().as_slice(),
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &port,
        &generic,
        attributes,
    ]
    .concat()
}

/// The messages of a datagram; ends at the first that does not fit.
pub(super) fn split(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = bytes.get(HEADER_LEN..length) else { break };
        answers.push(Answer {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            port: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: payload.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_and_acknowledgements_told_from_errors() {
        let acknowledgement = message(ERROR, 0, 1, [0; 4], &[]);
        let code = (-libc::EPERM).to_ne_bytes();
        let error = message(ERROR, 0, 2, code, &[]);
        let answers = split(&[acknowledgement, error, vec![1, 2, 3]].concat());
        assert_eq!(answers.len(), 2);
        assert!(answers[0].error().is_none());
        assert_eq!(answers[1].error().and_then(|e| e.raw_os_error()), Some(libc::EPERM));
        assert_eq!(answers[1].sequence, 2);
    }
}
