//! ESP in UDP (RFC 3948): the sockets by which the kernel takes it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::channel::Writer;
use crate::HostError;

/// The UDP port from and to which ESP travels in UDP. Not that of IKE (4500), which daemons for IPsec hold.
pub const ENCAPSULATION_PORT: u16 = 6785;

/// `UDP_ENCAP`, and `UDP_ENCAP_ESPINUDP` (Linux: `include/uapi/linux/udp.h`).
const UDP_ENCAP: libc::c_int = 100;
const ESP_IN_UDP: u16 = 2;

/// While this is open, the kernel takes ESP in UDP on [`ENCAPSULATION_PORT`] of all local addresses, in the network
/// namespace of the thread that opened it. It takes in what a state of that kind opens, and nothing else.
#[derive(Debug)]
pub struct Encapsulation(#[expect(dead_code, reason = "is held open")] Vec<Socket>);

impl Encapsulation {
    /// Opens the port, for IPv4 and, where the kernel has it, IPv6.
    ///
    /// # Errors
    /// `EADDRINUSE` in [`HostError::Kernel`] when anybody else has the port; [`HostError::Unsupported`] when the kernel
    /// cannot do this.
    pub fn open() -> Result<Self, HostError> {
        let mut sockets = vec![open(Ipv4Addr::UNSPECIFIED.into())?];
        match open(Ipv6Addr::UNSPECIFIED.into()) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => {}
            // Kernels before 5.8 do it for IPv4 only.
            Err(HostError::Unsupported { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(Self(sockets))
    }
}

fn open(address: IpAddr) -> Result<Socket, HostError> {
    let doing = |error| HostError::from_answer("opening UDP 6785 for ESP", error);
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(doing)?;
    socket.set_cloexec(true).map_err(doing)?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(doing)?;
    }
    // What is not ESP waits here for nobody: the least that the kernel allows.
    socket.set_recv_buffer_size(0).map_err(doing)?;
    encapsulate(&socket).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOPROTOOPT) => HostError::Unsupported {
            feature: "ESP in UDP",
            advice: "use a kernel with CONFIG_XFRM, of 5.8 or later for IPv6",
            source,
        },
        _ => doing(source),
    })?;
    socket.bind(&SocketAddr::new(address, ENCAPSULATION_PORT).into()).map_err(doing)?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "no crate has this option")]
fn encapsulate(socket: &Socket) -> io::Result<()> {
    let kind = libc::c_int::from(ESP_IN_UDP);
    let length = size_of_val(&kind) as libc::socklen_t;
    // SAFETY: the option's value is an int that outlives the call, and its length is given.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, UDP_ENCAP, (&raw const kind).cast(), length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct xfrm_encap_tmpl`, with our port at both ends.
pub(super) fn template() -> Writer {
    let port = ENCAPSULATION_PORT.to_be_bytes();
    Writer::default().short(ESP_IN_UDP).bytes(&port).bytes(&port).zeros(2 + 16)
}
