//! Carrying messages to nf_tables and its answers back.
//!
//! The kernel works a batch off while we send it, and all of it or nothing takes effect; its answers wait in the
//! socket when the call returns. So nothing here ever waits.

use std::{io, os::fd::AsRawFd};

use rtnetlink::sys::{Socket, protocols::NETLINK_NETFILTER};

use super::{attribute::Attributes, ruleset::Message};
use crate::{
    HostError,
    netlink::{self, ACKNOWLEDGE, Answer, DUMP, DUMP_ATTEMPTS, ERROR, REQUEST},
};

/// `struct nfgenmsg`.
pub(super) const GENERIC_LEN: usize = 4;
/// The subsystem of nf_tables in message types and batch markers (`NFNL_SUBSYS_NFTABLES`).
pub(super) const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_ANY: u8 = 0;

/// What a socket takes without being asked, on every Linux (`net.core.wmem_default` is twice as much and more).
const SMALL_BATCH: usize = 64 * 1024;

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

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
    let mut is_done = messages.is_empty();
    for answer in answers.iter().filter(|a| a.kind == ERROR) {
        let number = usize::try_from(answer.sequence).unwrap_or(0);
        match answer.error() {
            Some(error) => {
                let message = number.checked_sub(1).and_then(|index| messages.get(index));
                return Err(refusal(message, error));
            }
            None => is_done |= number == messages.len(),
        }
    }
    if is_done {
        return Ok(());
    }
    let source = io::Error::other("the kernel did not say that it was done");
    Err(HostError::Kernel { doing: "changing nftables rules".to_owned(), source })
}

/// `messages` between the marks that make them one transaction. Sequence numbers: 0 begins, 1 to n are the messages,
/// n + 1 ends.
///
/// The kernel answers when all of them have taken effect or none has. What it refuses it always tells; of what it took,
/// only the last is asked for: hundreds of answers do not fit into a socket that may not be enlarged.
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
        let answer = if sequence as usize == messages.len() { ACKNOWLEDGE } else { 0 };
        let flags = REQUEST | CREATE | answer | place;
        bytes.extend(message(kind, flags, sequence, [part.family, 0, 0, 0], part.attributes.as_bytes()));
    }
    bytes.extend(message(BATCH_END, REQUEST, sequence + 1, subsystem, &[]));
    bytes
}

/// Whether the kernel accepts all of `messages` but the last, which it cannot; nothing takes effect then.
pub(super) fn reaches_the_end(messages: &[Message]) -> bool {
    let refused = |answer: &&Answer| answer.error().is_some();
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
        if let Some(error) = answers.iter().find_map(Answer::error) {
            return Err(refusal(None, error));
        }
        if netlink::is_consistent(&answers) {
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
    match answers.iter().find_map(Answer::error) {
        Some(error) => Err(HostError::from_answer("reading nftables", error)),
        None => Ok(answers),
    }
}

/// Whether it is this message of nf_tables.
pub(super) fn is(answer: &Answer, operation: u8) -> bool {
    answer.kind == NFTABLES << 8 | u16::from(operation)
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
        netlink::exchange(&self.socket, bytes).map_err(failed)
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
    let header = netlink::header(kind, flags, sequence, GENERIC_LEN + attributes.len());
    [header.as_slice(), &generic, attributes].concat()
}
