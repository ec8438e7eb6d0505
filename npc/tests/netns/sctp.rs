//! SCTP by raw packets: what a filter sees is the same, and no kernel has to speak it.
//!
//! An INIT is answered by an INIT ACK (RFC 9260, 3.3.2 and 3.3.3). That is as far as it goes.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::Pod;

const SCTP: i32 = 132;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Bytes of an IPv4 header, which raw sockets of that family show.
const IPV4_HEADER: usize = 20;

/// An association that a pod asked for: with whom, at which port, and from which.
type Association = (IpAddr, u16, u16);

/// What a pod says and hears.
#[derive(Debug)]
pub(crate) struct Sctp {
    /// Raw ones, which the standard library reads and writes like those of UDP.
    sockets: [Arc<UdpSocket>; 2],
    answered: Arc<Mutex<BTreeSet<Association>>>,
}

impl Sctp {
    /// Answers at these ports, and hears answers, until the test ends.
    pub(crate) fn serve(pod: &Pod, ports: &[u16]) -> Self {
        let answered = Arc::new(Mutex::new(BTreeSet::new()));
        let sockets = [Domain::IPV4, Domain::IPV6].map(|domain| {
            let open = || Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP))).unwrap();
            let socket = Arc::new(UdpSocket::from(pod.inside(open)));
            let (heard, ports, ours) = (Arc::clone(&answered), ports.to_vec(), Arc::clone(&socket));
            thread::spawn(move || listen(&ours, &ports, &heard));
            socket
        });
        Self { sockets, answered }
    }

    /// Asks for an association.
    pub(crate) fn ask(&self, association: Association) -> io::Result<()> {
        let (to, port, from) = association;
        let init = packet([from, port], 0, INIT, from.into());
        self.sockets[usize::from(to.is_ipv6())].send_to(&init, (to, 0)).map(drop)
    }

    /// Whether it was answered.
    pub(crate) fn is_answered(&self, association: Association) -> bool {
        self.answered.lock().unwrap().contains(&association)
    }
}

fn listen(socket: &UdpSocket, ports: &[u16], answered: &Mutex<BTreeSet<Association>>) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let from = from.ip();
        let bytes = buffer[..length].get(if from.is_ipv4() { IPV4_HEADER } else { 0 }..).unwrap_or_default();
        let (Some([source, destination]), Some(kind)) = (ports_of(bytes), bytes.get(12)) else { continue };
        match *kind {
            INIT if ports.contains(&destination) => {
                let tag = u32::from_be_bytes(bytes[16..20].try_into().unwrap());
                let answer = packet([destination, source], tag, INIT_ACK, tag ^ 1);
                let _lost = socket.send_to(&answer, (from, 0));
            }
            INIT_ACK => _ = answered.lock().unwrap().insert((from, source, destination)),
            _ => {}
        }
    }
}

fn ports_of(bytes: &[u8]) -> Option<[u16; 2]> {
    let two = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    Some([two(0)?, two(2)?])
}

/// A packet of one chunk: an INIT, or with a cookie an INIT ACK.
fn packet([from, to]: [u16; 2], tag: u32, kind: u8, initiate: u32) -> Vec<u8> {
    /// A state cookie of four bytes (RFC 9260, 3.3.3).
    const COOKIE: [u8; 8] = [0, 7, 0, 8, 1, 2, 3, 4];
    let cookie: &[u8] = if kind == INIT_ACK { &COOKIE } else { &[] };
    let length = u16::try_from(20 + cookie.len()).unwrap();
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([kind, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(initiate.max(1).to_be_bytes());
    // A window of 64 KiB, one stream each way, and a first number.
    bytes.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    bytes.extend(cookie);
    let checksum = crc32c(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&checksum);
    bytes
}

/// RFC 9260, appendix A. Connection tracking looks at it.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn the_checksum_is_that_of_the_standard() {
    // RFC 3720, B.4: 32 bytes of zeros, and of ones.
    assert_eq!((crc32c(&[0; 32]), crc32c(&[0xff; 32])), (0x8a91_36aa, 0x62a8_ab43));
}
