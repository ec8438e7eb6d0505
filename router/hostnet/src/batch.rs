//! Many changes at once: requests go to the kernel in bundles, not one round trip each.
//!
//! The kernel works through a bundle inside the system call that sends it and queues one answer per request
//! (`netlink_rcv_skb` in net/netlink/af_netlink.c), so the answers are there when the call returns. A refusal does not
//! stop what follows.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use crate::{Host, HostError, error::answer_to_io};

/// Requests in one bundle. An answer takes less than 1 KiB of the socket's buffer (208 KiB by default, `rmem_default`),
/// and a bundle keeps a runtime's thread for well under a millisecond.
const BUNDLE: usize = 64;
/// Room for one answer, bytes: a header, an error number and the header of the request.
const ANSWER_LEN: usize = 4096;
/// Netlink messages start at multiples of this many bytes (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// One change, and what to say when it is refused.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) message: RouteNetlinkMessage,
    /// Beyond "request" and "acknowledge".
    pub(crate) flags: u16,
    /// The refusal that means that there was nothing to do.
    pub(crate) forgiven: Option<i32>,
    pub(crate) doing: String,
}

/// A socket for bundles, used by one caller at a time.
pub(crate) struct BatchSocket {
    socket: Socket,
    sequence: u32,
}

impl Host {
    /// Makes `changes` in their order, all of them even if some are refused.
    ///
    /// # Errors
    /// The refusal if it is the only change, otherwise the first one and their number.
    pub(crate) async fn apply(&self, changes: Vec<Change>) -> Result<(), HostError> {
        if changes.is_empty() {
            return Ok(());
        }
        let of = changes.len();
        let mut slot = self.batches.lock().await;
        let mut refusals = Vec::new();
        for bundle in changes.chunks(BUNDLE) {
            let mut socket = match slot.take() {
                Some(socket) => socket,
                None => self.run_inside(BatchSocket::open)??,
            };
            refusals.extend(socket.make(bundle)?);
            // Kept only if it is in step with the kernel.
            *slot = Some(socket);
            tokio::task::yield_now().await;
        }
        let failed = refusals.len();
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(first) if of == 1 => Err(first),
            Some(first) => Err(HostError::Several { failed, of, first: Box::new(first) }),
        }
    }
}

impl BatchSocket {
    fn open() -> Result<Self, HostError> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            // Answers without a copy of the request; kernels before 4.3 know no other and send it.
            let _unknown = socket.set_cap_ack(true);
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket, sequence: 0 })
        };
        open().map_err(|e| HostError::from_io("opening a netlink socket", e))
    }

    /// Sends a bundle, waits for all answers, and returns the refusals in order.
    fn make(&mut self, bundle: &[Change]) -> Result<Vec<HostError>, HostError> {
        let out_of_step = |e| HostError::from_io("exchanging requests with the kernel", e);
        let first = self.sequence.wrapping_add(1);
        let bytes = self.encode(bundle);
        self.socket.send(&bytes, 0).map_err(out_of_step)?;
        let mut refusals = Vec::new();
        for _ in bundle {
            let (sequence, refusal) = self.answer().map_err(out_of_step)?;
            let index = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
            let Some(change) = bundle.get(index) else {
                return Err(out_of_step(io::Error::from(io::ErrorKind::InvalidData)));
            };
            if let Some(refusal) = refusal.filter(|r| r.raw_os_error() != change.forgiven) {
                refusals.push(HostError::from_answer(change.doing.clone(), refusal));
            }
        }
        Ok(refusals)
    }

    fn encode(&mut self, bundle: &[Change]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for change in bundle {
            self.sequence = self.sequence.wrapping_add(1);
            let mut message = NetlinkMessage::from(change.message.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_ACK | change.flags;
            message.header.sequence_number = self.sequence;
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(ALIGNMENT), 0);
            message.serialize(&mut bytes[start..]);
        }
        bytes
    }

    /// The next answer: which request it is for, and the refusal if it is one.
    fn answer(&self) -> io::Result<(u32, Option<io::Error>)> {
        let mut bytes = Vec::with_capacity(ANSWER_LEN);
        self.socket.recv(&mut bytes, 0)?;
        let answer: NetlinkMessage<RouteNetlinkMessage> =
            NetlinkMessage::deserialize(&bytes).map_err(io::Error::other)?;
        let NetlinkPayload::Error(error) = answer.payload else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        Ok((answer.header.sequence_number, error.code.map(|_| answer_to_io(&error))))
    }
}

impl std::fmt::Debug for BatchSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchSocket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
