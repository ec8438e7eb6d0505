//! Telling the neighbours where an address is now: gratuitous ARP (RFC 5227 section 3) and unsolicited neighbour
//! advertisements (RFC 4861 section 7.2.6), so that a reused address is found at its new place at once.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};
use weave_model::{Interface, Mac, checksum};

use crate::{Host, HostError, LinkIndex, Warning, link::Link};

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Where an IPv6 frame for all nodes goes (RFC 2464 section 7).
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

impl Host {
    /// Announces `addresses` of `link`, once each. Failure is a warning: neighbours ask by themselves, later.
    pub(crate) fn announce(&self, link: &Link, mac: Mac, addresses: &[Interface]) -> Result<(), HostError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let frames: Vec<Vec<u8>> = addresses.iter().map(|a| frame(mac, a.address())).collect();
        self.announce_frames(link, &frames)
    }

    /// Tells the containers on the bridge which stations have these addresses now. The bridge keeps announcements
    /// away from ports with suppression, so they do not leave the host.
    pub(crate) fn announce_stations(&self, bridge: &Link, news: &[(IpAddr, Mac)]) -> Result<(), HostError> {
        if news.is_empty() || !bridge.is_up {
            return Ok(());
        }
        let frames: Vec<Vec<u8>> = news.iter().map(|(address, mac)| frame(*mac, *address)).collect();
        self.announce_frames(bridge, &frames)
    }

    fn announce_frames(&self, link: &Link, frames: &[Vec<u8>]) -> Result<(), HostError> {
        match self.run_inside(|| send(link.index, frames))? {
            Ok(socket) => close_later(socket),
            Err(error) => {
                self.warn(Warning::Announcement { interface: link.name.clone(), reason: error.to_string() });
            }
        }
        Ok(())
    }
}

fn send(link: LinkIndex, frames: &[Vec<u8>]) -> io::Result<Socket> {
    // Protocol 0: nothing is received on this socket.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    frames.iter().try_for_each(|frame| send_frame(&socket, link, frame))?;
    Ok(socket)
}

/// Closes a packet socket beside the caller: the kernel waits at that until no processor can still see the socket
/// (`packet_release`), which is most of the time that an attach would take.
fn close_later(socket: Socket) {
    // Without another thread it is closed here and now: the closure is dropped with it.
    drop(thread::Builder::new().name("weave-close".to_owned()).spawn(move || drop(socket)));
}

fn send_frame(socket: &Socket, link: LinkIndex, frame: &[u8]) -> io::Result<()> {
    let index = i32::try_from(link.0).map_err(io::Error::other)?;
    let family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    let to = libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: 0,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&to)).map_err(io::Error::other)?;
    // SAFETY: both pointers are to live values of the lengths given, for the duration of the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            length,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn frame(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address),
        IpAddr::V6(address) => unsolicited_advertisement(mac, address),
    }
}

fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0, &from.0, ethertype.to_be_bytes().as_slice(), payload].concat()
}

/// An ARP request for our own address (RFC 826 layout).
fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let nobody = [0; 6];
    let ip = address.octets();
    let arp = [ETHERNET_IPV4_REQUEST.as_slice(), &mac.0, &ip, &nobody, &ip].concat();
    ethernet(Mac::BROADCAST, mac, ETHERTYPE_ARP, &arp)
}

/// A neighbour advertisement to all nodes that overrides what they know.
fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ADVERTISEMENT: [u8; 2] = [136, 0];
    const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
    const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
    const ICMPV6: u8 = 58;
    let ip = address.octets();
    let body = [OVERRIDE.as_slice(), &ip, &TARGET_LINK_LAYER_ADDRESS, &mac.0].concat();
    let unsummed = [ADVERTISEMENT.as_slice(), &[0, 0], &body].concat();
    let length = u16::try_from(unsummed.len()).unwrap_or(u16::MAX).to_be_bytes();
    let pseudo =
        [ip.as_slice(), &ALL_NODES.octets(), &[0, 0], &length, &[0, 0, 0, ICMPV6], &unsummed].concat();
    let icmp = [ADVERTISEMENT.as_slice(), &checksum::of(&[&pseudo]).to_be_bytes(), &body].concat();
    // Version 6; the hop limit of 255 proves that no router was on the way.
    let header = [&[0x60, 0, 0, 0], length.as_slice(), &[ICMPV6, 255], &ip, &ALL_NODES.octets()].concat();
    ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6, &[header, icmp].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn a_gratuitous_arp_asks_everybody_for_its_own_address() {
        let frame = frame(MAC, "10.32.0.7".parse().unwrap());
        assert_eq!(frame.len(), 14 + 28);
        assert_eq!(&frame[..6], &[0xff; 6]);
        assert_eq!(&frame[28..32], &[10, 32, 0, 7], "sender address");
        assert_eq!(&frame[38..42], &[10, 32, 0, 7], "target address");
    }

    #[test]
    fn an_advertisement_has_a_checksum_that_verifies() {
        let frame = frame(MAC, "fd00::7".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 32);
        let (ip, icmp) = frame[14..].split_at(40);
        let pseudo = [&ip[8..40], &[0, 0, 0, 32, 0, 0, 0, 58], icmp].concat();
        assert_eq!(checksum::of(&[&pseudo]), 0);
        assert_eq!(&icmp[26..32], &MAC.0);
    }
}
