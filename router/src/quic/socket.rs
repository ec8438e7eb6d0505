//! The workers' UDP port, as quinn sees it.
//!
//! Workers own the sockets and read them; what is QUIC comes here through a bounded queue. Sending goes straight to
//! a worker's socket, from whichever thread quinn runs on.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use weave_worker::UdpSender;

/// Most datagrams (or GRO trains) that wait for quinn. Behind it the newest are dropped, as a full socket would;
/// QUIC sends again. 4096 trains of a few KiB bound the memory at some megabytes.
const MAX_QUEUED: usize = 4096;
/// Most datagrams in one GSO send, the kernel's own bound (UDP_MAX_SEGMENTS before Linux 6.9).
const MAX_SEGMENTS: usize = 16;

/// One datagram, or several of one sender that the kernel joined (GRO).
struct Train {
    from: SocketAddr,
    bytes: Bytes,
    /// Length of each datagram but the last.
    segment: usize,
}

#[derive(Default)]
struct Inbox {
    queue: VecDeque<Train>,
    waker: Option<Waker>,
}

/// The queue between the workers and quinn.
#[derive(Clone, Default)]
pub(crate) struct QuicInbox(Arc<Mutex<Inbox>>);

impl QuicInbox {
    /// Takes what a worker received; `segment` is the length of each datagram but the last, if there are several.
    pub(crate) fn push(&self, from: SocketAddr, bytes: Bytes, segment: usize) {
        let segment = segment.max(1);
        let waker = {
            let mut inbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.queue.len() >= MAX_QUEUED {
                return;
            }
            inbox.queue.push_back(Train { from, bytes, segment });
            inbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// quinn's socket.
pub(crate) struct SharedSocket {
    inbox: QuicInbox,
    sender: UdpSender,
    local: SocketAddr,
}

impl SharedSocket {
    pub(crate) fn new(inbox: QuicInbox, sender: UdpSender, local: SocketAddr) -> Self {
        Self { inbox, sender, local }
    }

    fn take(&self, bufs: &mut [io::IoSliceMut<'_>], meta: &mut [RecvMeta], cx: &Context<'_>) -> usize {
        let mut inbox = self.inbox.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(train) = inbox.queue.front_mut() else { break };
            *meta = copy_next(train, buf);
            if self.local.is_ipv6() {
                meta.addr = mapped(meta.addr);
            }
            if train.bytes.is_empty() {
                inbox.queue.pop_front();
            }
            count += 1;
        }
        if count == 0 {
            inbox.waker = Some(cx.waker().clone());
        }
        count
    }
}

/// Takes the first datagram off a train. One at a time, so that quinn's receive buffers stay small.
fn copy_next(train: &mut Train, buf: &mut [u8]) -> RecvMeta {
    let datagram = train.bytes.split_to(train.segment.min(train.bytes.len()));
    let len = datagram.len().min(buf.len());
    buf[..len].copy_from_slice(&datagram[..len]);
    RecvMeta { addr: train.from, len, stride: len, ..RecvMeta::default() }
}

/// The form of an IPv4 address in which quinn knows its peers when its socket is an IPv6 one.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

/// A dual-stack socket, and quinn on it, shows IPv4 senders as `::ffff:a.b.c.d`; people want plain IPv4.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.and_then(|size| u16::try_from(size).ok());
        match self.sender.send(transmit.destination, transmit.contents, segment) {
            // A full socket buffer loses the datagram, as a full queue on the way would; QUIC sends again.
            // Addresses without a route end the same way: the connection's own timer gives up on them.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self.take(bufs, meta, cx) {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Sends never wait: see [`SharedSocket::try_send`].
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_train_comes_out_as_the_datagrams_that_were_sent() {
        let from = "192.0.2.1:6783".parse().unwrap();
        let mut train = Train { from, bytes: Bytes::from_static(b"aaabbbc"), segment: 3 };
        let mut buf = [0; 16];
        let mut seen = Vec::new();
        while !train.bytes.is_empty() {
            let meta = copy_next(&mut train, &mut buf);
            seen.push(buf[..meta.len].to_vec());
        }
        assert_eq!(seen, [b"aaa".to_vec(), b"bbb".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn an_ipv4_sender_on_a_dual_stack_socket_is_shown_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:6783".parse().unwrap();
        assert_eq!(unmapped(mapped), "192.0.2.1:6783".parse().unwrap());
        assert_eq!(super::mapped(unmapped(mapped)), mapped);
        let v6: SocketAddr = "[2001:db8::1]:6783".parse().unwrap();
        assert_eq!(unmapped(v6), v6);
    }
}
