//! News from a bridge: stations that it learned from frames, as they come and go.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use socket2::{SockFilter, SockRef};
use weave_model::Mac;

use crate::{Host, HostError, LinkIndex, fdb, netns};

/// `1 << (RTNLGRP_NEIGH - 1)` (linux/rtnetlink.h).
const NEIGHBOUR_GROUP: u32 = 1 << 2;
/// Bytes of news that may wait; the kernel grants what `rmem_max` allows (208 KiB by default, some hundred entries).
const RECEIVE_BUFFER: usize = 1 << 21;
/// Room for one datagram of news, bytes. The kernel puts one entry into each.
const DATAGRAM_LEN: usize = 8192;

// Where things are in a message about an entry: `struct nlmsghdr` is 16 bytes, then `struct ndmsg` follows.
const FAMILY_OFFSET: u32 = 16;
const FLAGS_OFFSET: u32 = 26;
/// `NTF_EXT_LEARNED` (linux/neighbour.h).
const EXTERNALLY_LEARNED: u32 = 0x10;

/// A change to what a bridge learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FdbEvent {
    /// A station showed up at a port, for the first time or at another one than before.
    Learned {
        /// Its address.
        mac: Mac,
        /// Where.
        port: LinkIndex,
    },
    /// A station was forgotten: silent for the ageing time, or its port is gone. (Not told when an entry of the
    /// caller's own takes its place.)
    Gone {
        /// Its address.
        mac: Mac,
        /// Where it was.
        port: LinkIndex,
    },
    /// News were lost: ask [`Host::learned_stations`] for the whole.
    Resync,
}

/// The news of one bridge, as a stream that ends only when its socket fails.
pub struct FdbWatch {
    socket: TokioSocket,
    bridge: LinkIndex,
    buffer: Vec<u8>,
    waiting: VecDeque<FdbEvent>,
}

impl Host {
    /// Reports every station that the bridge learns or forgets from now on. What is known already is told by
    /// [`learned_stations`](Self::learned_stations): ask after this call, so that nothing falls between.
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; or what the kernel says.
    pub async fn watch_fdb(&self, bridge: LinkIndex) -> anyhow::Result<FdbWatch> {
        self.require_index(bridge).await?;
        let opening = |e| HostError::from_io("opening a netlink socket for news", e);
        let socket = self.run_inside(open)?.map_err(opening)?;
        let socket = netns::tokio_socket(socket).map_err(opening)?;
        let buffer = Vec::with_capacity(DATAGRAM_LEN);
        Ok(FdbWatch { socket, bridge, buffer, waiting: VecDeque::new() })
    }

    /// The stations that the bridge has learned from frames, with their ports.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn learned_stations(&self, bridge: LinkIndex) -> anyhow::Result<BTreeMap<Mac, LinkIndex>> {
        let entries = self.fdb().await?;
        let learned = entries.into_iter().filter(|e| e.bridge == bridge && is_learned(e));
        Ok(learned.map(|e| (e.mac, e.port)).collect())
    }
}

impl FdbWatch {
    /// The next event. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<FdbEvent> {
        StreamExt::next(self).await
    }

    /// Reads one datagram, whatever it tells.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.clear();
        match ready!(self.socket.poll_recv(cx, &mut self.buffer)) {
            Ok(()) => self.waiting.extend(read(&self.buffer, self.bridge)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.waiting.push_back(FdbEvent::Resync);
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for FdbWatch {
    type Item = FdbEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FdbEvent>> {
        let watch = self.get_mut();
        loop {
            if let Some(event) = watch.waiting.pop_front() {
                return Poll::Ready(Some(event));
            }
            if let Err(error) = ready!(watch.poll_read(cx)) {
                tracing::warn!(%error, "no more news from the bridge");
                return Poll::Ready(None);
            }
        }
    }
}

impl std::fmt::Debug for FdbWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FdbWatch").field("bridge", &self.bridge).finish_non_exhaustive()
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // Before the news begin: the kernel keeps what we put there ourselves from filling the buffer.
    SockRef::from(&socket).attach_filter(&filter())?;
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&SocketAddr::new(0, NEIGHBOUR_GROUP))?;
    Ok(socket)
}

/// Classic BPF that lets only entries of bridges pass, and of those only what is not externally learned.
fn filter() -> [SockFilter; 6] {
    let op = |code: u32, jump_true, jump_false, k| SockFilter::new(code as u16, jump_true, jump_false, k);
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let answer = libc::BPF_RET | libc::BPF_K;
    [
        op(load_byte, 0, 0, FAMILY_OFFSET),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 2, libc::AF_BRIDGE as u32),
        op(load_byte, 0, 0, FLAGS_OFFSET),
        op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, EXTERNALLY_LEARNED),
        op(answer, 0, 0, 0),
        op(answer, 0, 0, u32::MAX),
    ]
}

/// What a datagram tells about the bridge.
fn read(datagram: &[u8], bridge: LinkIndex) -> Option<FdbEvent> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).ok()?;
    let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
    let is_new = matches!(message, RouteNetlinkMessage::NewNeighbour(_));
    let (RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message)) = message
    else {
        return None;
    };
    let entry = fdb::read(&message).filter(|e| e.bridge == bridge && is_learned(e))?;
    let (mac, port) = (entry.mac, entry.port);
    Some(if is_new { FdbEvent::Learned { mac, port } } else { FdbEvent::Gone { mac, port } })
}

const fn is_learned(entry: &fdb::Entry) -> bool {
    !entry.is_ours && !entry.is_fixed
}
