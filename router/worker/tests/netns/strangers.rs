//! Others on the port: QUIC, which belongs there, and garbage.

use std::net::{SocketAddr, UdpSocket};

use weave_sleeve::Suite;

use crate::{
    rig::{self, DEADLINE, LinkStyle, PORT, wait_until},
    traffic::{exchange, on_host, pair},
};

const AES: LinkStyle = LinkStyle { suite: Some(Suite::Aes256Gcm), is_ipv6: false };

pub(crate) fn garbage_is_dropped_and_counted() {
    let (_hosts, routers, _) = pair(1500, 1400, AES);
    let stranger = on_host(1, || UdpSocket::bind((rig::underlay(1, 2), 0)).unwrap());
    let target = SocketAddr::new(rig::underlay(2, 1), PORT);
    let before = routers[1].workers.counters().drops;
    let clear = [2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9, 9, 9, 9];
    let forged = [&[1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 9, 0][..], &[7; 100]].concat();
    let cases: [(&str, &[u8]); 6] = [
        ("truncated", &[1, 2, 3]),
        ("unknown_version", &[0x3f; 60]),
        ("unknown_receiver", &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 1]),
        ("unknown_lane", &[1, 99, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]),
        ("wrong_mode", &clear),
        ("forged", &forged),
    ];
    for (_, datagram) in &cases {
        for _ in 0..10 {
            stranger.send_to(datagram, target).unwrap();
        }
    }
    wait_until("every reason is counted ten times", || {
        let after = routers[1].workers.counters().drops;
        cases.iter().all(|(reason, _)| after[reason] - before[reason] == 10)
    });
    exchange(1, 2);
}

pub(crate) fn quic_shares_the_port() {
    let (_hosts, routers, _) = pair(1500, 1400, AES);
    let stranger = on_host(1, || UdpSocket::bind((rig::underlay(1, 2), 0)).unwrap());
    let target = SocketAddr::new(rig::underlay(2, 1), PORT);
    stranger.send_to(b"\xc0 a long header", target).unwrap();
    assert_eq!(routers[1].quic(), b"\xc0 a long header");
    let sender = routers[1].workers.udp_sender().unwrap();
    stranger.set_read_timeout(Some(DEADLINE)).unwrap();
    sender.send(stranger.local_addr().unwrap(), b"\x40 one\x40 two\x40 3", Some(5)).unwrap();
    let mut buffer = [0; 100];
    for expected in [&b"\x40 one"[..], b"\x40 two", b"\x40 3"] {
        let (length, from) = stranger.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (expected, target));
    }
    assert_eq!(routers[1].workers.counters().quic_datagrams, 1);
}
