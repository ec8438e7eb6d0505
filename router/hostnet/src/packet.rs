//! Frames of one kind on one interface, for a protocol of our own: no other packet passes this socket.

use std::{
    io::{self, Read, Write},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU64, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::{Host, HostError, LinkIndex};

/// Bytes of frames that may wait to be read. With 40 neighbours and a full-size frame of 9000 bytes each (16 KiB as
/// the kernel counts), a moment's delay loses nothing; what is more is dropped and counted.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A packet socket, bound to one interface and one ethertype.
#[derive(Debug)]
pub struct PacketSocket {
    socket: AsyncFd<Socket>,
    dropped: AtomicU64,
}

impl PacketSocket {
    /// Opens a socket in the namespace of `host` that takes the frames of `ethertype` that come in by `link`.
    ///
    /// # Errors
    /// [`HostError::NoPermission`] without CAP_NET_RAW, [`HostError::NoInterface`].
    pub fn open(host: &Host, link: LinkIndex, ethertype: u16) -> Result<Self, HostError> {
        let opened = host.run_inside(|| open(link, ethertype))?;
        // SAFETY: the socket owns its descriptor, which stays open and the same while it is registered.
        match opened.and_then(|socket| Ok(unsafe { AsyncFd::register(socket) }?)) {
            Ok(socket) => Ok(Self { socket, dropped: AtomicU64::new(0) }),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                Err(HostError::NoInterface(format!("number {}", link.0)))
            }
            Err(error) => Err(HostError::from_io("opening a packet socket", error)),
        }
    }

    /// Waits for a frame and returns its length; the rest of one that is longer than `buffer` is lost. Safe to drop
    /// while it waits.
    ///
    /// # Errors
    /// `ENETDOWN` once when the interface goes down, `ENXIO` or nothing more when it is removed: open a new one.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(outcome) = ready.try_io(|socket| socket.get_ref().read(buffer)) {
                return outcome;
            }
        }
    }

    /// Sends one whole frame, Ethernet header included. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` or `ENOBUFS` when the queue is full, `EMSGSIZE` when the frame is larger than the interface's
    /// MTU, `ENETDOWN`.
    pub fn try_send(&self, frame: &[u8]) -> io::Result<()> {
        let sent = self.socket.get_ref().write(frame)?;
        if sent == frame.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    /// Frames that the kernel dropped because they were not read in time, since the socket was opened.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dropped(&self) -> io::Result<u64> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = libc::socklen_t::try_from(size_of_val(&statistics)).map_err(io::Error::other)?;
        // SAFETY: the option's value is one tpacket_stats, as the length says; both outlive the call.
        check(unsafe {
            libc::getsockopt(
                self.socket.get_ref().as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        })?;
        // Reading sets the kernel's count back.
        let new = u64::from(statistics.tp_drops);
        Ok(self.dropped.fetch_add(new, Ordering::Relaxed) + new)
    }
}

fn open(link: LinkIndex, ethertype: u16) -> io::Result<Socket> {
    // Protocol 0: nothing is received before the socket is bound to the interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let to = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(link.0).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&to)).map_err(io::Error::other)?;
    // SAFETY: the address is a live value of the length given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const to).cast(), length) })?;
    Ok(socket)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
