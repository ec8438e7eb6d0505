//! UDP in batches: several messages a system call, each a burst of equal datagrams (GSO out, GRO in).
//!
//! A *group* is several sockets on one port, one per data-plane thread. A filter in the kernel picks the socket
//! by the datagram's own content ([`Socket::bind_group`]), so a sender can neither choose the thread nor change it
//! by moving to another address.

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
};

use socket2::{Domain, Protocol, SockAddr, Type};

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

/// One message as received: a burst of datagrams of `segment` bytes each, the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Sender; an IPv4 address is never written as IPv6.
    pub from: SocketAddr,
    /// The local address it was sent to.
    pub to: Option<IpAddr>,
    /// The two ECN bits of the IP header.
    pub ecn: u8,
    /// Bytes in all.
    pub len: usize,
    /// Bytes of each datagram; at least 1.
    pub segment: usize,
}

/// Buffers for [`Socket::receive`], allocated once (pages are only used as bursts arrive).
pub struct ReceiveBatch {
    data: Box<[u8]>,
    received: [Received; RECEIVE_MESSAGES],
    count: usize,
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

impl ReceiveBatch {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let none = Received { from, to: None, ecn: 0, len: 0, segment: 1 };
        Self {
            data: vec![0; RECEIVE_MESSAGES * MESSAGE_LEN].into_boxed_slice(),
            received: [none; RECEIVE_MESSAGES],
            count: 0,
        }
    }

    /// What the last [`Socket::receive`] brought.
    #[must_use]
    pub fn messages(&self) -> &[Received] {
        &self.received[..self.count]
    }

    /// The bytes of one message, all its datagrams; empty if there is no such message.
    #[must_use]
    pub fn bytes(&self, message: usize) -> &[u8] {
        let start = message * MESSAGE_LEN;
        self.messages().get(message).map_or(&[], |m| &self.data[start..start + m.len])
    }

    /// As [`ReceiveBatch::bytes`], to be opened in place.
    #[must_use]
    pub fn bytes_mut(&mut self, message: usize) -> &mut [u8] {
        let start = message * MESSAGE_LEN;
        match self.received[..self.count].get(message) {
            Some(m) => &mut self.data[start..start + m.len],
            None => &mut [],
        }
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
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

fn describe(message: &libc::mmsghdr) -> Received {
    let header = &message.msg_hdr;
    let len = (message.msg_len as usize).min(MESSAGE_LEN);
    let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let mut received = Received { from, to: None, ecn: 0, len, segment: len.max(1) };
    // SAFETY: the kernel filled in the name, and left room for the whole storage.
    let name = unsafe { SockAddr::new(ptr::read(header.msg_name.cast()), header.msg_namelen) };
    if let Some(address) = name.as_socket() {
        received.from = unmapped(address);
    }
    // SAFETY: the kernel filled in the control buffer and set its length; the CMSG functions stay inside it.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            read_control(&*control, libc::CMSG_DATA(control), &mut received);
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    received
}

/// # Safety
/// `data` is the payload of `control` as the kernel wrote it.
unsafe fn read_control(control: &libc::cmsghdr, data: *const u8, received: &mut Received) {
    match (control.cmsg_level, control.cmsg_type) {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            // SAFETY: UDP_GRO carries one int.
            let segment = unsafe { ptr::read_unaligned(data.cast::<libc::c_int>()) };
            received.segment = usize::try_from(segment).unwrap_or(0).clamp(1, received.len.max(1));
        }
        (libc::SOL_IP, libc::IP_TOS) => {
            // SAFETY: IP_TOS carries one byte.
            received.ecn = unsafe { ptr::read(data) } & 3;
        }
        (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
            // SAFETY: IPV6_TCLASS carries one int.
            received.ecn = (unsafe { ptr::read_unaligned(data.cast::<libc::c_int>()) } & 3) as u8;
        }
        (libc::SOL_IP, libc::IP_PKTINFO) => {
            // SAFETY: IP_PKTINFO carries one in_pktinfo.
            let info = unsafe { ptr::read_unaligned(data.cast::<libc::in_pktinfo>()) };
            received.to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
        }
        (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: IPV6_PKTINFO carries one in6_pktinfo.
            let info = unsafe { ptr::read_unaligned(data.cast::<libc::in6_pktinfo>()) };
            received.to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
        }
        _ => {}
    }
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::poll::wait_readable;

    #[test]
    fn a_burst_goes_out_as_one_message_and_every_datagram_arrives() {
        let (left, right) = (one(), one());
        let slab: Vec<u8> = (0..2500u32).map(|n| n as u8).collect();
        let to = right.local_addr().unwrap();
        let message = Outgoing { to, start: 100, len: 2400, segment: 1000 };
        assert!(matches!(left.send(&slab, &[message]), (1, Ok(()))));
        let mut bytes = Vec::new();
        let mut batch = ReceiveBatch::new();
        while bytes.len() < 2400 {
            receive(&right, &mut batch);
            for (i, message) in batch.messages().iter().enumerate() {
                assert_eq!(message.from, left.local_addr().unwrap());
                assert_eq!(message.to, Some(Ipv4Addr::LOCALHOST.into()));
                assert_eq!(message.segment, 1000);
                bytes.extend_from_slice(batch.bytes(i));
            }
        }
        assert_eq!(bytes, &slab[100..]);
    }

    #[test]
    fn more_messages_than_fit_in_one_call_all_go_out() {
        let (left, right) = (one(), one());
        let slab: Vec<u8> = (0..100).collect();
        let to = right.local_addr().unwrap();
        let messages: Vec<_> = (0..50).map(|i| Outgoing { to, start: i, len: 1, segment: 1 }).collect();
        assert!(matches!(left.send(&slab, &messages), (50, Ok(()))));
        let mut bytes = Vec::new();
        let mut batch = ReceiveBatch::new();
        while bytes.len() < 50 {
            for i in 0..receive(&right, &mut batch) {
                bytes.extend_from_slice(batch.bytes(i));
            }
        }
        assert_eq!(bytes, &slab[..50]);
    }

    #[test]
    fn datagrams_are_steered_by_their_content_and_not_by_their_sender() {
        let group = Socket::bind_group_at("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let to = group[0].local_addr().unwrap();
        for index in 0..6u8 {
            let sender = one();
            let sleeve = [1, 0, 0, 0, 0, 0, 0, index, 9, 9];
            let quic = [0x40, 0, 0, 0, 0, 0, 0, index, 9, 9];
            for (bytes, place) in [(&sleeve[..], usize::from(index % 3)), (&quic[..], 0), (&[1, 2][..], 0)] {
                let message = Outgoing { to, start: 0, len: bytes.len(), segment: bytes.len() };
                assert!(matches!(sender.send(bytes, &[message]), (1, Ok(()))));
                let mut batch = ReceiveBatch::new();
                assert_eq!(receive(&group[place], &mut batch), 1);
                assert_eq!(batch.bytes(0), bytes);
            }
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_refused_even_to_a_group() {
        let group = Socket::bind_group_at("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let taken = group[0].local_addr().unwrap();
        let error = Socket::bind_group_at(taken, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_message_outside_the_slab_is_refused() {
        let message = Outgoing { to: "127.0.0.1:9".parse().unwrap(), start: 5, len: 6, segment: 6 };
        assert!(matches!(one().send(&[0; 10], &[message]), (0, Err(_))));
    }

    fn one() -> Socket {
        Socket::bind_group_at("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0)
    }

    fn receive(socket: &Socket, batch: &mut ReceiveBatch) -> usize {
        assert!(wait_readable(&[socket.as_fd()], Some(Duration::from_secs(5))).unwrap(), "nothing arrived");
        socket.receive(batch).unwrap()
    }
}
