//! Requests to xfrm and their answers (Linux: `include/uapi/linux/xfrm.h`), and the writing and reading of its structures.
//!
//! Numbers are in host byte order, but for addresses, ports and SPIs. The kernel answers while we send, so nothing here
//! ever waits. Requests and answers are wiped when they were used: some hold keys.

use std::{io, net::IpAddr};

use rtnetlink::sys::{Socket, protocols::NETLINK_XFRM};
use zeroize::Zeroizing;

use super::family_of;
use crate::{
    Family, HostError,
    netlink::{self, ACKNOWLEDGE, Answer, DUMP, DUMP_ATTEMPTS, ERROR, REQUEST},
};

const ATTRIBUTE_LEN: usize = 4;

/// What a request begins with after its header, and what follows.
#[derive(Default)]
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// Appends. A buffer that grew by itself would leave copies of keys behind, so each is made anew and the former is wiped.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let mut longer = Zeroizing::new(Vec::with_capacity(self.0.len() + bytes.len()));
        longer.extend_from_slice(&self.0);
        longer.extend_from_slice(bytes);
        Self(longer)
    }

    pub(super) fn append(self, other: &Self) -> Self {
        self.bytes(&other.0)
    }

    pub(super) fn zeros(self, count: usize) -> Self {
        self.bytes(&vec![0; count])
    }

    pub(super) fn byte(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn short(self, value: u16) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(super) fn number(self, value: u32) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(super) fn network_number(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// `xfrm_address_t`; nothing is the unspecified one.
    pub(super) fn address(self, address: Option<IpAddr>) -> Self {
        match address {
            Some(IpAddr::V4(v4)) => self.bytes(&v4.octets()).zeros(12),
            Some(IpAddr::V6(v6)) => self.bytes(&v6.octets()),
            None => self.zeros(16),
        }
    }

    /// An attribute, padded to four bytes.
    pub(super) fn attribute(self, kind: u16, value: &Self) -> Self {
        let length = ATTRIBUTE_LEN + value.0.len();
        let padding = length.next_multiple_of(4) - length;
        self.short(u16::try_from(length).unwrap_or(u16::MAX)).short(kind).bytes(&value.0).zeros(padding)
    }

    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads structures from their front; what is not there is nothing.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    pub(super) fn address(&mut self, family: Family) -> Option<IpAddr> {
        let bytes = self.take::<16>()?;
        Some(match family {
            Family::V4 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            Family::V6 => IpAddr::from(bytes),
        })
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    /// The first attribute of this kind in what is left.
    pub(super) fn attribute(self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let Some((header, _)) = rest.split_first_chunk::<ATTRIBUTE_LEN>() {
            let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let value = rest.get(ATTRIBUTE_LEN..length)?;
            if u16::from_ne_bytes([header[2], header[3]]) == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }
}

/// A selector: UDP to `port`, from and to these addresses or any. `struct xfrm_selector`.
pub(super) fn selector(port: u16, family: Family, from: Option<IpAddr>, to: Option<IpAddr>) -> Writer {
    let prefix = |address: Option<IpAddr>| match address.map(family_of) {
        Some(Family::V4) => 32,
        Some(Family::V6) => 128,
        None => 0,
    };
    Writer::default()
        .address(to)
        .address(from)
        .bytes(&port.to_be_bytes())
        .short(u16::MAX)
        .zeros(4)
        .short(super::number_of(family))
        .byte(prefix(to))
        .byte(prefix(from))
        .byte(UDP)
        .zeros(3 + 4 + 4)
}

/// Protocol numbers of UDP and ESP.
pub(super) const UDP: u8 = 17;
pub(super) const ESP: u8 = 50;
/// Lengths of structures that are skipped or left at their defaults.
pub(super) const SELECTOR_LEN: usize = 56;
pub(super) const LIMITS_LEN: usize = 64;

/// `struct xfrm_lifetime_cfg` without limits.
pub(super) fn no_limits() -> Writer {
    Writer::default().bytes(&[0xff; 32]).zeros(32)
}

/// The addresses of a selector, if it is one of ours about `port`: family, source and destination.
pub(super) fn read_selector(
    reader: &mut Reader<'_>,
    port: u16,
) -> Option<(Family, Option<IpAddr>, Option<IpAddr>)> {
    let addresses = *reader;
    reader.skip(32)?;
    let ports: [u8; 8] = reader.take()?;
    let family = match u16::from_ne_bytes(reader.take()?) {
        number if number == super::number_of(Family::V4) => Family::V4,
        number if number == super::number_of(Family::V6) => Family::V6,
        _ => return None,
    };
    let [to_len, from_len, protocol] = reader.take()?;
    reader.skip(3 + 4 + 4)?;
    let mut addresses = addresses;
    let (to, from) = (addresses.address(family)?, addresses.address(family)?);
    let wanted = [port.to_be_bytes(), [0xff; 2], [0; 2], [0; 2]].concat();
    let some = |length: u8, address: IpAddr| (length != 0).then_some(address);
    (protocol == UDP && ports[..] == wanted[..]).then(|| (family, some(from_len, from), some(to_len, to)))
}

/// A socket to xfrm.
pub(super) struct Channel(Socket);

impl Channel {
    pub(super) fn open() -> Result<Self, HostError> {
        let mut socket = Socket::new(NETLINK_XFRM).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        // Answers without a copy of the request: that holds a key.
        socket.set_cap_ack(true).map_err(failed)?;
        Ok(Self(socket))
    }

    /// Asks for one thing to be done.
    pub(super) fn order(&self, kind: u16, body: &Writer) -> io::Result<()> {
        let answers = self.exchange(kind, REQUEST | ACKNOWLEDGE, body)?;
        let Some(answer) = answers.iter().find(|answer| answer.kind == ERROR) else {
            return Err(io::Error::other("the kernel did not answer"));
        };
        answer.error().map_or(Ok(()), Err)
    }

    /// Reads a whole table; `part` is the kind of its parts.
    pub(super) fn dump(&self, kind: u16, part: u16) -> io::Result<Vec<Zeroizing<Vec<u8>>>> {
        for _ in 0..DUMP_ATTEMPTS {
            let answers = self.exchange(kind, REQUEST | DUMP, &Writer::default())?;
            if let Some(error) = answers.iter().find_map(Answer::error) {
                return Err(error);
            }
            if netlink::is_consistent(&answers) {
                return Ok(answers.into_iter().filter(|a| a.kind == part).map(|a| a.payload).collect());
            }
        }
        Err(io::Error::other("the table changed each time while it was read"))
    }

    fn exchange(&self, kind: u16, flags: u16, body: &Writer) -> io::Result<Vec<Answer>> {
        let request = Writer::default().bytes(&netlink::header(kind, flags, 1, body.0.len())).append(body);
        netlink::exchange(&self.0, &request.0)
    }
}

pub(super) fn failed(source: io::Error) -> HostError {
    match source.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => HostError::Unsupported {
            feature: "IPsec (xfrm)",
            advice: "load the kernel module xfrm_user",
            source,
        },
        _ => HostError::from_io("opening a socket to xfrm", source),
    }
}
