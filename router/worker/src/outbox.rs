//! Datagrams on their way out: written next to each other in one slab, so that equal ones form bursts by themselves.

use std::{io, net::SocketAddr, os::fd::AsFd, time::Duration};

use weave_hostnet::{
    poll::wait_writable,
    udp::{MAX_MESSAGE, MAX_SEGMENTS, Outgoing, Socket},
};
use weave_sleeve::{Datagrams, Discard};

use crate::counters::Tally;

/// Bytes that may wait before they are sent in any case: several of the largest bursts.
const SLAB_LEN: usize = 512 << 10;

/// Messages that may wait before they are sent in any case.
const MAX_MESSAGES: usize = 64;

/// How long a full socket is waited for, so that a slow interface slows down the sender rather than losing its
/// bursts; and how often. Receiving goes on after at most this, with a buffer of several megabytes in between.
const FULL_WAIT: Duration = Duration::from_millis(1);
const FULL_WAITS: u32 = 4;

/// The worker's datagrams that have not been sent yet.
pub(crate) struct Outbox {
    slab: Box<[u8]>,
    used: usize,
    messages: Vec<Outgoing>,
    /// The link of each message.
    links: Vec<usize>,
    /// The link that datagrams are put in for now.
    link: usize,
    to: SocketAddr,
    /// The last message may still grow.
    is_open: bool,
    /// Whether the interface takes bursts.
    has_bursts: bool,
    /// Datagrams and bytes put in for the present link.
    put: Put,
    /// Links and sizes that the kernel refused as too long.
    too_big: Vec<(usize, usize)>,
}

/// How much was put in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Put {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    pub(crate) longest: usize,
}

/// The outbox with the socket that it is emptied into when it is full.
pub(crate) struct Slots<'a> {
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) socket: &'a Socket,
    pub(crate) tally: &'a Tally,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self::with_slab(SLAB_LEN)
    }

    fn with_slab(length: usize) -> Self {
        Self {
            slab: vec![0; length].into_boxed_slice(),
            used: 0,
            messages: Vec::with_capacity(MAX_MESSAGES),
            links: Vec::with_capacity(MAX_MESSAGES),
            link: 0,
            to: SocketAddr::from(([0, 0, 0, 0], 0)),
            is_open: false,
            has_bursts: true,
            put: Put::default(),
            too_big: Vec::new(),
        }
    }

    /// Puts in datagrams for this link from now on.
    pub(crate) fn address(&mut self, link: usize, to: SocketAddr) {
        self.is_open &= self.link == link && self.to == to;
        self.link = link;
        self.to = to;
        self.put = Put::default();
    }

    /// The next datagram begins a message of its own.
    pub(crate) const fn close(&mut self) {
        self.is_open = false;
    }

    /// What was put in since the last [`Outbox::address`].
    pub(crate) const fn put(&self) -> Put {
        self.put
    }

    /// Forgets everything that was put in: some of it may not be sealed.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.messages.clear();
        self.links.clear();
        self.is_open = false;
    }

    /// What the kernel refused as too long since the last call.
    pub(crate) fn take_too_big(&mut self) -> Option<(usize, usize)> {
        self.too_big.pop()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Sends everything. What cannot be sent is counted and dropped.
    pub(crate) fn flush(&mut self, socket: &Socket, tally: &Tally) {
        let mut first = 0;
        let mut waits = 0;
        while first < self.messages.len() {
            let (sent, result) = socket.send(&self.slab, &self.messages[first..]);
            first += sent;
            let Err(error) = result else {
                continue;
            };
            let Some(message) = self.messages.get(first).copied() else {
                break;
            };
            if error.kind() == io::ErrorKind::WouldBlock && waits < FULL_WAITS {
                waits += 1;
                // Whether the wait succeeded shows when it is tried again.
                let _ready = wait_writable(socket.as_fd(), FULL_WAIT);
                continue;
            }
            self.give_up(first, message, &error, socket, tally);
            first += 1;
        }
        self.clear();
    }

    /// One message cannot be sent as it is.
    fn give_up(
        &mut self,
        index: usize,
        message: Outgoing,
        error: &io::Error,
        socket: &Socket,
        tally: &Tally,
    ) {
        let is_burst = message.len > message.segment;
        match error.raw_os_error() {
            // Probes are meant to find out; whether frames were lost, the worker knows.
            Some(libc::EMSGSIZE) if self.too_big.len() < MAX_MESSAGES => {
                self.too_big.push((self.links[index], message.segment));
                return;
            }
            // The interface cannot take bursts (no checksum offload, or an old kernel): one by one, for good. Or their
            // datagrams are too long for the path, of which `udp_send_skb` says the same: that shows when one goes alone.
            Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP) if is_burst => {
                let are_too_long = self.send_singly(message, socket, tally);
                if !are_too_long {
                    self.has_bursts = false;
                } else if self.too_big.len() < MAX_MESSAGES {
                    self.too_big.push((self.links[index], message.segment));
                }
                return;
            }
            _ => {}
        }
        let datagrams = message.len.div_ceil(message.segment.max(1)) as u64;
        let is_full = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS));
        let reason = if is_full { Discard::SendQueueFull } else { Discard::SendFailed };
        tally.discard_many(reason, datagrams);
    }

    /// Says whether datagrams were refused as too long.
    fn send_singly(&self, message: Outgoing, socket: &Socket, tally: &Tally) -> bool {
        let mut are_too_long = false;
        let end = message.start + message.len;
        for start in (message.start..end).step_by(message.segment) {
            let len = message.segment.min(end - start);
            let single = Outgoing { start, len, segment: len, ..message };
            match socket.send(&self.slab, &[single]).1 {
                Ok(()) => {}
                // The worker knows whether frames were lost.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => are_too_long = true,
                Err(_) => tally.discard(Discard::SendFailed),
            }
        }
        are_too_long
    }

    /// Adds a datagram of `len` bytes behind the last one: to the last message if it is still open, equal in size and
    /// not too long, else as a new one. A shorter datagram ends a message.
    fn append(&mut self, len: usize) {
        self.put.datagrams += 1;
        self.put.bytes += len as u64;
        self.put.longest = self.put.longest.max(len);
        let start = self.used;
        self.used += len;
        if self.is_open
            && self.has_bursts
            && let Some(last) = self.messages.last_mut()
            && len <= last.segment
            && last.len + len <= MAX_MESSAGE
            && last.len < last.segment * MAX_SEGMENTS
        {
            last.len += len;
            self.is_open = len == last.segment;
            return;
        }
        self.messages.push(Outgoing { to: self.to, start, len, segment: len });
        self.links.push(self.link);
        self.is_open = true;
    }
}

impl Datagrams for Slots<'_> {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        let outbox = &mut *self.outbox;
        if outbox.used + len > outbox.slab.len() || outbox.messages.len() == MAX_MESSAGES {
            outbox.flush(self.socket, self.tally);
        }
        let start = outbox.used;
        outbox.append(len);
        outbox.slab.get_mut(start..start + len)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const SMALL_SLAB: usize = 64 << 10;

    #[test]
    fn equal_datagrams_share_a_message_and_all_keep_their_borders() {
        let lengths = [100, 100, 100, 50, 100, 200, 200, 1];
        let (messages, arrived) = send(&lengths);
        // 100 100 100 50 | 100 | 200 200 1
        assert_eq!(messages, 3);
        assert_eq!(arrived, lengths);
    }

    #[test]
    fn what_does_not_fit_the_slab_goes_out_in_between() {
        // More than the slab, and less than a receiver holds with Linux's usual limits.
        let lengths = [1400; 100];
        let (_, arrived) = send(&lengths);
        assert!(lengths.iter().sum::<usize>() > SMALL_SLAB);
        assert_eq!(arrived, lengths);
    }

    #[test]
    fn a_datagram_on_its_own_is_not_joined_with_its_like() {
        let (socket, _receiver, to) = ends();
        let tally = Tally::default();
        let mut outbox = Outbox::new();
        for _ in 0..2 {
            outbox.address(0, to);
            outbox.close();
            Slots { outbox: &mut outbox, socket: &socket, tally: &tally }.slot(10).unwrap().fill(1);
        }
        assert_eq!(outbox.messages.len(), 2);
    }

    #[test]
    fn a_datagram_that_the_interface_refuses_is_reported_with_its_size() {
        let (socket, _receiver, _) = ends();
        let tally = Tally::default();
        let mut outbox = Outbox::new();
        outbox.address(7, SocketAddr::from(([127, 0, 0, 1], 9)));
        Slots { outbox: &mut outbox, socket: &socket, tally: &tally }.slot(65_508).unwrap().fill(1);
        outbox.flush(&socket, &tally);
        assert_eq!(outbox.take_too_big(), Some((7, 65_508)));
        assert!(outbox.is_empty());
    }

    /// Sends datagrams of these lengths; how many messages waited at the end, and the lengths that arrived.
    fn send(lengths: &[usize]) -> (usize, Vec<usize>) {
        let (socket, receiver, to) = ends();
        let tally = Tally::default();
        let mut outbox = Outbox::with_slab(SMALL_SLAB);
        let mut buffer = [0; 2000];
        let mut arrived = Vec::new();
        outbox.address(0, to);
        for (number, length) in lengths.iter().enumerate() {
            let mut slots = Slots { outbox: &mut outbox, socket: &socket, tally: &tally };
            slots.slot(*length).unwrap().fill(number as u8);
        }
        let messages = outbox.messages.len();
        outbox.flush(&socket, &tally);
        while arrived.len() < lengths.len() {
            let length = receiver.recv(&mut buffer).unwrap();
            assert!(buffer[..length].iter().all(|byte| *byte == arrived.len() as u8));
            arrived.push(length);
        }
        (messages, arrived)
    }

    fn ends() -> (Socket, UdpSocket, SocketAddr) {
        let socket = Socket::bind_group_at(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap().remove(0);
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&receiver).set_recv_buffer_size(4 << 20).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = receiver.local_addr().unwrap();
        (socket, receiver, to)
    }
}
