//! Frames between containers.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use weave_hostnet::{
    NetnsRef,
    netns::in_netns,
    poll::wait_readable,
    udp::{Outgoing, ReceiveBatch, Socket},
};
use weave_sleeve::Suite;

use crate::rig::{DEADLINE, Host, LinkStyle, Router, connect};

const AES: LinkStyle = LinkStyle { suite: Some(Suite::Aes256Gcm), is_ipv6: false };

pub(crate) fn containers_talk_over_an_encrypted_link() {
    let (_hosts, _routers, mtu) = pair(1500, 1400, AES);
    assert_eq!(mtu, 1410);
    exchange(1, 2);
}

pub(crate) fn containers_talk_over_a_chacha_link() {
    let (_hosts, _routers, mtu) = pair(1500, 1400, LinkStyle { suite: Some(Suite::ChaCha20Poly1305), ..AES });
    assert_eq!(mtu, 1410);
    exchange(1, 2);
}

pub(crate) fn containers_talk_over_a_clear_link() {
    let (_hosts, _routers, mtu) = pair(1500, 1400, LinkStyle { suite: None, ..AES });
    assert_eq!(mtu, 1426);
    exchange(1, 2);
}

pub(crate) fn containers_talk_over_ipv6() {
    let (_hosts, _routers, mtu) = pair(1500, 1390, LinkStyle { is_ipv6: true, ..AES });
    assert_eq!(mtu, 1390);
    exchange(1, 2);
}

pub(crate) fn frames_longer_than_the_path_arrive() {
    let (_hosts, routers, mtu) = pair(1500, 4000, AES);
    assert_eq!(mtu, 1410);
    exchange(1, 2);
    for router in &routers {
        let drops = router.workers.counters().drops;
        assert_eq!((drops["fragment_overlap"], drops["bad_record"], drops["bad_frame"]), (0, 0, 0));
    }
}

pub(crate) fn a_relay_carries_frames() {
    let hosts: Vec<_> = (1..=3).map(|number| Host::new(number, 1350)).collect();
    // The second cable is narrower, so the relay has to cut anew.
    hosts[0].cable(&hosts[1], 9000);
    hosts[1].cable(&hosts[2], 1450);
    let routers: Vec<_> = hosts.iter().map(|host| host.router(2)).collect();
    connect((&routers[0], 1), (&routers[1], 2), AES);
    connect((&routers[1], 2), (&routers[2], 3), AES);
    routers[0].route(1, &[(2, 2), (3, 2)], &[(1, &[2])]);
    routers[1].route(2, &[(1, 1), (3, 3)], &[(2, &[1, 3]), (1, &[3]), (3, &[1])]);
    routers[2].route(3, &[(2, 2), (1, 2)], &[(3, &[2])]);
    exchange(1, 3);
    exchange(2, 3);
    assert_eq!(routers[1].workers.counters().drops["bad_frame"], 0);
}

/// Two hosts, linked and routed.
pub(crate) fn pair(underlay: u32, overlay: u32, style: LinkStyle) -> ([Host; 2], [Router; 2], u16) {
    let hosts = [Host::new(1, overlay), Host::new(2, overlay)];
    hosts[0].cable(&hosts[1], underlay);
    let routers = [hosts[0].router(2), hosts[1].router(2)];
    let mtu = connect((&routers[0], 1), (&routers[1], 2), style);
    routers[0].route(1, &[(2, 2)], &[(1, &[2])]);
    routers[1].route(2, &[(1, 1)], &[(2, &[1])]);
    (hosts, routers, mtu)
}

/// Everything that two containers may have to say to each other, over both families and both ways.
pub(crate) fn exchange(one: u8, other: u8) {
    for (from, to) in [(one, other), (other, one)] {
        for address in [Host::overlay(to), Host::overlay6(to)] {
            stream(from, to, address, 20 << 20);
            datagrams(from, to, address);
            bursts(from, to, address);
        }
    }
}

/// A TCP stream whose every byte is checked, with answers on the way.
pub(crate) fn stream(from: u8, to: u8, address: IpAddr, length: usize) {
    let listener = within(to, || TcpListener::bind(SocketAddr::new(address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut sender = within(from, || TcpStream::connect_timeout(&target, DEADLINE).unwrap());
    let (mut receiver, _) = listener.accept().unwrap();
    for side in [&sender, &receiver] {
        side.set_read_timeout(Some(DEADLINE)).unwrap();
        side.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    let pattern: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let expected = pattern.clone();
    let reader = std::thread::spawn(move || {
        let mut chunk = vec![0; expected.len()];
        for _ in 0..length / expected.len() {
            receiver.read_exact(&mut chunk).unwrap();
            assert!(chunk == expected, "the stream is damaged");
        }
        receiver.write_all(b"thanks").unwrap();
    });
    for _ in 0..length / pattern.len() {
        sender.write_all(&pattern).unwrap();
    }
    let mut thanks = [0; 6];
    sender.read_exact(&mut thanks).unwrap();
    assert_eq!(&thanks, b"thanks");
    reader.join().unwrap();
}

/// Datagrams of many sizes, echoed.
fn datagrams(from: u8, to: u8, address: IpAddr) {
    let server = within(to, || UdpSocket::bind(SocketAddr::new(address, 0)).unwrap());
    let target = server.local_addr().unwrap();
    let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let client = within(from, || UdpSocket::bind(any).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    let mut buffer = vec![0; 70_000];
    for size in [0, 1, 17, 100, 1200, 1322, 1372, 1400, 3000, 9000, 60_000] {
        let sent: Vec<u8> = (0..size).map(|n: u32| (n * 7) as u8).collect();
        // A datagram may be lost while the kernel looks for a neighbour; not three in a row.
        let arrived = (0..3).any(|_| {
            client.send_to(&sent, target).unwrap();
            let Ok((length, peer)) = server.recv_from(&mut buffer) else {
                return false;
            };
            server.send_to(&buffer[..length], peer).unwrap();
            client.recv(&mut buffer).is_ok_and(|length| buffer[..length] == sent)
        });
        assert!(arrived, "a datagram of {size} bytes from {from} to {address} got lost");
    }
}

/// Bursts of UDP with segmentation offload.
fn bursts(from: u8, to: u8, address: IpAddr) {
    let at = SocketAddr::new(address, 0);
    let server = within(to, || Socket::bind_group_at(at, 1).unwrap().remove(0));
    let target = server.local_addr().unwrap();
    let any: SocketAddr = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
    let client = within(from, || Socket::bind_group_at(any, 1).unwrap().remove(0));
    let payload: Vec<u8> = (0..12_345u32).map(|n| (n * 11) as u8).collect();
    for segment in [500, 1200] {
        let message = Outgoing { to: target, start: 0, len: payload.len(), segment };
        assert!(matches!(client.send(&payload, &[message]), (1, Ok(()))));
        let mut batch = ReceiveBatch::new();
        let mut arrived = Vec::new();
        while arrived.len() < payload.len() {
            assert!(
                wait_readable(&[server.as_fd()], Some(DEADLINE)).unwrap(),
                "{} bytes came",
                arrived.len()
            );
            server.receive(&mut batch).unwrap();
            for (index, message) in batch.messages().iter().enumerate() {
                assert!(message.segment == segment || message.len < segment, "borders are kept");
                arrived.extend_from_slice(batch.bytes(index));
            }
        }
        assert!(arrived == payload, "the burst is damaged");
    }
}

/// Runs something in a host's container.
pub(crate) fn within<T: Send>(host: u8, work: impl FnOnce() -> T + Send) -> T {
    in_netns(&NetnsRef::Path(format!("/run/netns/c{host}").into()).open().unwrap(), work).unwrap()
}

/// Runs something on a host.
pub(crate) fn on_host<T: Send>(host: u8, work: impl FnOnce() -> T + Send) -> T {
    in_netns(&NetnsRef::Path(format!("/run/netns/h{host}").into()).open().unwrap(), work).unwrap()
}
