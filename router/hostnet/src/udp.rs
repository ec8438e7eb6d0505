//! UDP in batches: several messages a system call, each a burst of equal datagrams (GSO out, GRO in).
//!
//! A *group* is several sockets on one port, one per data-plane thread. A filter in the kernel picks the socket
//! by the datagram's own content ([`Socket::bind_group`]), so a sender can neither choose the thread nor change it
//! by moving to another address.

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
};

use socket2::{Domain, Protocol, SockAddr, Type};

use received::{describe, unmapped};

mod received;

pub use received::{ReceiveBatch, Received};

/// Messages that one [`Socket::receive`] takes at most. Measured: eight bursts keep the cost of the call below the
/// noise, more only delay the first.
pub const RECEIVE_MESSAGES: usize = 8;

/// Messages that one system call of [`Socket::send`] hands over at most.
const SEND_MESSAGES: usize = 16;

/// Room for one burst: the largest datagram.
const MESSAGE_LEN: usize = 1 << 16;

/// Segments that one message may have: `UDP_MAX_SEGMENTS` before Linux 6.9.
pub const MAX_SEGMENTS: usize = 64;

/// The longest payload of one message, bytes: 65,535 less IPv4 and UDP header, and less the IPv6 header when that
/// is what carries it, whose payload length does not count the header itself.
pub const MAX_MESSAGE: usize = 65_507;

/// Wanted size of the kernel's buffers, bytes. The defaults lose a third of the throughput (measured).
const SOCKET_BUFFER: libc::c_int = 4 << 20;

/// Control messages of one datagram: segment size, destination address and ECN, with slack.
const CONTROL_LEN: usize = 128;

/// Control buffer of one outgoing message: one `u16` segment size.
const SEND_CONTROL_LEN: usize = 24;

/// One socket of a group.
#[derive(Debug)]
pub struct Socket {
    inner: socket2::Socket,
    is_ipv6: bool,
    has_group: bool,
}

/// One message to send: `len` bytes of the caller's slab from `start`, cut into datagrams of `segment` bytes.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing {
    /// Where to.
    pub to: SocketAddr,
    /// First byte in the slab.
    pub start: usize,
    /// Bytes in all; at most [`MAX_MESSAGE`].
    pub len: usize,
    /// Bytes of each datagram. A message no longer than this is one datagram.
    pub segment: usize,
}

impl Socket {
    /// Opens `count` sockets on `port` of all local addresses, IPv6 and IPv4, or IPv4 alone where the host has no
    /// IPv6.
    ///
    /// Datagrams with bit 0x40 in their first byte arrive at the first socket; all others at socket number
    /// `u32 at byte 4 (big endian) modulo count`. Outgoing datagrams are never fragmented by IP (path-MTU
    /// discovery is left to the caller).
    ///
    /// # Errors
    /// `AddrInUse` when anybody else has the port; otherwise what the kernel says.
    pub fn bind_group(port: u16, count: usize) -> io::Result<Vec<Self>> {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        match Self::bind_all(any, count) {
            Err(error) if has_no_ipv6(&error) => {
                Self::bind_all(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), count)
            }
            other => other,
        }
    }

    /// As [`Socket::bind_group`], on one address. With port 0 the kernel chooses one for the whole group.
    ///
    /// # Errors
    /// As [`Socket::bind_group`].
    pub fn bind_group_at(address: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        Self::bind_all(address, count)
    }

    fn bind_all(address: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        // Members of a group admit each other, and any process of the same user: bind once without admitting
        // anybody to find out whether the port is free.
        let exclusive = open(address)?;
        exclusive.bind(&address.into())?;
        let address = exclusive.local_addr()?.as_socket().unwrap_or(address);
        drop(exclusive);
        let count = count.max(1);
        let sockets = (0..count).map(|_| Self::bind(address, count > 1)).collect::<io::Result<Vec<_>>>()?;
        if count > 1 {
            steer(&sockets[0], count)?;
        }
        Ok(sockets)
    }

    fn bind(address: SocketAddr, has_group: bool) -> io::Result<Self> {
        let inner = open(address)?;
        let socket = Self { inner, is_ipv6: address.is_ipv6(), has_group };
        if has_group {
            socket.inner.set_reuse_port(true)?;
        }
        socket.configure()?;
        socket.inner.bind(&address.into())?;
        Ok(socket)
    }

    fn configure(&self) -> io::Result<()> {
        self.inner.set_nonblocking(true)?;
        self.set_buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        self.set_buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        self.set(libc::SOL_UDP, libc::UDP_GRO, 1)?;
        // IPv4 options matter on an IPv6 socket too: it carries IPv4 as mapped addresses.
        self.set(libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        self.set(libc::SOL_IP, libc::IP_RECVTOS, 1)?;
        if self.is_ipv6 {
            self.set(libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
            self.set(libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            self.set(libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1)
        } else {
            self.set(libc::SOL_IP, libc::IP_PKTINFO, 1)
        }
    }

    /// Beyond the system's limit where `CAP_NET_ADMIN` allows it, up to the limit elsewhere.
    fn set_buffer(&self, force: libc::c_int, plain: libc::c_int) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, force, SOCKET_BUFFER)
            .or_else(|_| self.set(libc::SOL_SOCKET, plain, SOCKET_BUFFER))
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the option's value is one int, alive during the call.
        let result = unsafe {
            libc::setsockopt(
                self.inner.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        check(result)
    }

    /// Another handle on the same socket, for another thread.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { inner: self.inner.try_clone()?, is_ipv6: self.is_ipv6, has_group: self.has_group })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.inner.local_addr()?.as_socket();
        address.map(unmapped).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Whether the kernel steers datagrams between several sockets on this port.
    #[must_use]
    pub const fn has_group(&self) -> bool {
        self.has_group
    }

    /// Takes what has arrived, at most [`RECEIVE_MESSAGES`] messages; returns how many. Never blocks.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is waiting.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.count = 0;
        let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; RECEIVE_MESSAGES];
        let mut controls = [const { MaybeUninit::<Control<CONTROL_LEN>>::uninit() }; RECEIVE_MESSAGES];
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; RECEIVE_MESSAGES];
        // SAFETY: mmsghdr is plain old data, for which all zeros is a value.
        let mut messages: [libc::mmsghdr; RECEIVE_MESSAGES] = unsafe { mem::zeroed() };
        for (i, chunk) in batch.data.chunks_exact_mut(MESSAGE_LEN).enumerate() {
            vectors[i] = libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: MESSAGE_LEN };
            let header = &mut messages[i].msg_hdr;
            header.msg_name = names[i].as_mut_ptr().cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = controls[i].as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: every pointer in `messages` refers to memory of the stated size that outlives the call.
        let received = unsafe {
            libc::recvmmsg(
                self.inner.as_raw_fd(),
                messages.as_mut_ptr(),
                RECEIVE_MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (slot, message) in batch.received.iter_mut().zip(&messages[..received]) {
            *slot = describe(message);
        }
        batch.count = received;
        Ok(received)
    }

    /// Sends messages cut from `slab` in order; returns how many went out, and why it stopped if that was early.
    /// Never blocks.
    pub fn send(&self, slab: &[u8], messages: &[Outgoing]) -> (usize, io::Result<()>) {
        let mut sent = 0;
        for chunk in messages.chunks(SEND_MESSAGES) {
            match self.send_chunk(slab, chunk) {
                Ok(count) => sent += count,
                Err(error) => return (sent, Err(error)),
            }
            // A short count hides the error of the message it stopped at; the next call reports it.
            if sent % SEND_MESSAGES != 0 && sent < messages.len() {
                let (more, result) = self.send(slab, &messages[sent..]);
                return (sent + more, result);
            }
        }
        (sent, Ok(()))
    }

    fn send_chunk(&self, slab: &[u8], chunk: &[Outgoing]) -> io::Result<usize> {
        let mut names = [const { None::<SockAddr> }; SEND_MESSAGES];
        let mut controls = [const { Control([0; SEND_CONTROL_LEN]) }; SEND_MESSAGES];
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SEND_MESSAGES];
        // SAFETY: mmsghdr is plain old data, for which all zeros is a value.
        let mut headers: [libc::mmsghdr; SEND_MESSAGES] = unsafe { mem::zeroed() };
        for (i, message) in chunk.iter().enumerate() {
            let bytes = slab
                .get(message.start..)
                .and_then(|rest| rest.get(..message.len))
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let name = names[i].insert(SockAddr::from(self.for_family(message.to)));
            vectors[i] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut headers[i].msg_hdr;
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            if message.len > message.segment {
                attach_segment(header, &mut controls[i], message.segment)?;
            }
        }
        // SAFETY: every pointer in `headers` refers to memory of the stated size that outlives the call, and the
        // kernel only reads through them.
        let sent = unsafe {
            libc::sendmmsg(
                self.inner.as_raw_fd(),
                headers.as_mut_ptr(),
                chunk.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// The address as this socket's family writes it.
    fn for_family(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.is_ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => address,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// A control buffer, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct Control<const N: usize>([u8; N]);

fn open(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Chooses the socket of the group by content, with four instructions of classic BPF. The filter sees the payload
/// of the datagram; one that is too short to look at goes to the first socket.
fn steer(socket: &Socket, count: usize) -> io::Result<()> {
    let modulus = u32::try_from(count).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let code = |class: u32| class as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS), 0, 0, 0),
        op(code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K), 3, 0, 0x40),
        op(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0, 0, 4),
        op(code(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K), 0, 0, modulus),
        op(code(libc::BPF_RET | 0x10), 0, 0, 0),
        op(code(libc::BPF_RET | libc::BPF_K), 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option's value is one sock_fprog; it and the program it points to outlive the call.
    check(unsafe {
        libc::setsockopt(
            socket.inner.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    })
}

/// Adds the control message that makes the kernel cut the message into datagrams of `segment` bytes.
fn attach_segment(
    header: &mut libc::msghdr,
    control: &mut Control<SEND_CONTROL_LEN>,
    segment: usize,
) -> io::Result<()> {
    let segment = u16::try_from(segment).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = SEND_CONTROL_LEN as _;
    // SAFETY: the buffer is aligned for cmsghdr and holds one of them with a u16, as CMSG_SPACE(2) says.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        (*first).cmsg_level = libc::SOL_UDP;
        (*first).cmsg_type = libc::UDP_SEGMENT;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as libc::c_uint) as _;
        ptr::write_unaligned(libc::CMSG_DATA(first).cast(), segment);
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
