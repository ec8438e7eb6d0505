//! What arrived: bursts, their senders, and what the kernel says about them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ptr,
};

use socket2::SockAddr;

use super::{MESSAGE_LEN, RECEIVE_MESSAGES};

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

/// Buffers for [`Socket::receive`](super::Socket::receive), allocated once (pages are only used as bursts arrive).
pub struct ReceiveBatch {
    pub(super) data: Box<[u8]>,
    pub(super) received: [Received; RECEIVE_MESSAGES],
    pub(super) count: usize,
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

    /// What the last [`Socket::receive`](super::Socket::receive) brought.
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

/// What one filled-in message header says.
pub(super) fn describe(message: &libc::mmsghdr) -> Received {
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

/// IPv4 addresses that an IPv6 socket writes as IPv6, as what they are.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
