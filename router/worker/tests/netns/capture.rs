//! What somebody on the underlay sees, and what he can do with it.

use std::{
    io::Read,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Protocol, Type};
use weave_sleeve::{HEADER_LEN, Suite};

use crate::{
    rig::{self, Host, LinkStyle, PORT, peer, wait_until},
    traffic::{on_host, pair, within},
};

const AES: LinkStyle = LinkStyle { suite: Some(Suite::Aes256Gcm), is_ipv6: false };

/// In every datagram that is sent.
const SECRET: &[u8] = b"the cheese is old and mouldy, where is the bathroom";

pub(crate) fn nothing_of_a_frame_shows_on_the_wire() {
    let (_hosts, _routers, _) = pair(1500, 1400, AES);
    let mut capture = Capture::on_host(1);
    talk();
    let seen = capture.take();
    let ours: Vec<_> = seen.iter().filter(|packet| sleeve_payload(packet).is_some()).collect();
    assert!(ours.len() >= 20, "{} datagrams captured", ours.len());
    let names = [peer(1).0, peer(2).0];
    let macs = [Host::mac(1).0, Host::mac(2).0];
    for packet in ours {
        assert!(!contains(packet, SECRET), "payload in clear");
        for clear in names.iter().chain(&macs) {
            assert!(!contains(packet, clear), "a name in clear");
        }
    }
    // The same capture on a clear link, to see that it would have been noticed.
    drop((_hosts, _routers));
    rig::remove_all();
    let (_hosts, _routers, _) = pair(1500, 1400, LinkStyle { suite: None, ..AES });
    let mut capture = Capture::on_host(1);
    talk();
    let seen = capture.take();
    assert!(seen.iter().filter(|p| contains(p, SECRET)).count() >= 10);
    assert!(seen.iter().any(|p| contains(p, &peer(1).0)));
}

pub(crate) fn a_datagram_sent_again_is_dropped_and_counted() {
    let (_hosts, routers, _) = pair(1500, 1400, AES);
    let mut capture = Capture::on_host(2);
    talk();
    // What went from the first host to the second: its receiver index is the first host's number there.
    let recorded = capture.take();
    let to_second = recorded.iter().filter_map(|packet| sleeve_payload(packet));
    let to_second: Vec<_> = to_second.filter(|d| d[4..8] == [0, 0, 0, 1]).map(<[u8]>::to_vec).collect();
    assert!(to_second.len() >= 10);
    let before = routers[1].workers.counters();
    // From a stranger's port, which must not become the link's remote address either.
    let stranger = on_host(1, || UdpSocket::bind((rig::underlay(1, 2), 0)).unwrap());
    let target = SocketAddr::new(rig::underlay(2, 1), PORT);
    for datagram in &to_second {
        stranger.send_to(datagram, target).unwrap();
        let mut flipped = datagram.clone();
        *flipped.last_mut().unwrap() ^= 1;
        flipped[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&[0, 0xff, 0xff, 0xff]);
        stranger.send_to(&flipped, target).unwrap();
        stranger.send_to(&datagram[..HEADER_LEN - 1], target).unwrap();
    }
    let count = to_second.len() as u64;
    wait_until("all of them are counted", || {
        let after = routers[1].workers.counters().drops;
        ["replayed", "forged", "truncated"].iter().all(|reason| after[reason] - before.drops[reason] >= count)
    });
    let remote = routers[1].workers.counters().links[&rig::link(1)].remote;
    assert_eq!(remote, SocketAddr::new(rig::underlay(1, 2), PORT));
    talk();
}

/// Twenty datagrams from container to container.
fn talk() {
    let server = within(2, || UdpSocket::bind((Host::overlay(2), 0)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let target = server.local_addr().unwrap();
    let client = within(1, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let mut buffer = [0; 2000];
    for _ in 0..20 {
        client.send_to(&SECRET.repeat(20), target).unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap(), SECRET.len() * 20);
    }
}

/// Everything that passes a host's underlay interfaces.
struct Capture(socket2::Socket);

impl Capture {
    fn on_host(host: u8) -> Self {
        let socket = on_host(host, || {
            // All protocols, in network byte order as packet(7) wants it.
            let all = Protocol::from(i32::from(3u16.to_be()));
            let socket = socket2::Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
            socket.set_recv_buffer_size(8 << 20).unwrap();
            socket
        });
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self(socket)
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 70_000];
        while let Ok(length) = self.0.read(&mut buffer) {
            packets.push(buffer[..length].to_vec());
        }
        packets
    }
}

/// The payload of an underlay packet to or from the sleeve's port.
fn sleeve_payload(packet: &[u8]) -> Option<&[u8]> {
    let is_udp = packet.get(12..14)? == [8, 0] && *packet.get(23)? == 17;
    let ports = packet.get(34..38)?;
    let has_port = ports[..2] == PORT.to_be_bytes() && ports[2..] == PORT.to_be_bytes();
    (is_udp && has_port).then(|| packet.get(42..)).flatten()
}

fn contains(packet: &[u8], needle: &[u8]) -> bool {
    // Ethernet's own addresses are the cable's, not ours.
    packet.get(14..).is_some_and(|rest| rest.windows(needle.len()).any(|window| window == needle))
}
