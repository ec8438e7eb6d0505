//! Sending QUIC's datagrams through the sleeve's socket.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
};

use weave_hostnet::udp::{Outgoing, Socket};

/// A handle for sending on the workers' port from any thread.
#[derive(Debug)]
pub struct UdpSender(Socket);

impl UdpSender {
    pub(crate) const fn new(socket: Socket) -> Self {
        Self(socket)
    }

    /// Sends a burst of datagrams of `segment_size` bytes each (`None`: one datagram). Never blocks; wait for the
    /// descriptor to become writable after `WouldBlock`.
    ///
    /// # Errors
    /// What the kernel says; a datagram longer than the interface takes is refused, because none is ever fragmented.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], segment_size: Option<u16>) -> io::Result<()> {
        let segment = segment_size.map_or(bytes.len(), usize::from);
        self.0.send(bytes, &[Outgoing { to, start: 0, len: bytes.len(), segment }]).1
    }

    /// The address of the port.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Another handle.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for UdpSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
