//! The life of a link.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use weave_sleeve::{DownReason, Suite};
use weave_worker::WorkerEvent;

use crate::{
    rig::{self, Host, LinkStyle, PORT, connect, ip, now, wait_until},
    traffic::{exchange, pair, stream, within},
};

const AES: LinkStyle = LinkStyle { suite: Some(Suite::Aes256Gcm), is_ipv6: false };

pub(crate) fn the_largest_size_is_found() {
    for (underlay, overlay, style) in [
        (9000, 8910, AES),
        (1392, 1302, AES),
        (65_535, 65_445, AES),
        (9000, 8890, LinkStyle { is_ipv6: true, ..AES }),
    ] {
        let (_hosts, _routers, mtu) = pair(underlay, overlay, style);
        assert!(u32::from(mtu) <= overlay && overlay - u32::from(mtu) <= 4, "{mtu} on {underlay}");
        exchange(1, 2);
        drop((_hosts, _routers));
        rig::remove_all();
    }
}

pub(crate) fn a_black_hole_is_left_within_seconds() {
    let (hosts, routers, mtu) = pair(1500, 1400, AES);
    assert_eq!(mtu, 1410);
    // The far end of the cable takes less than the near end gives, and nobody says so.
    ip(&format!("-n {} link set u1 mtu 1350", hosts[1].name));
    let start = now();
    let is_over = AtomicBool::new(false);
    let event = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                stream(1, 2, Host::overlay(2), 20 << 20);
            }
        });
        let event = routers[0].wait_for("a smaller size", |e| matches!(e, WorkerEvent::LinkMtu { .. }));
        is_over.store(true, Ordering::Relaxed);
        event
    });
    assert!(now() - start < Duration::from_secs(4), "{:?}", now() - start);
    assert!(matches!(event, WorkerEvent::LinkMtu { mtu, .. } if mtu <= 1260), "{event:?}");
    exchange(1, 2);
}

pub(crate) fn a_cut_link_is_reported_and_comes_back() {
    let (hosts, routers, _) = pair(1500, 1400, AES);
    ip(&format!("-n {} link set u1 down", hosts[1].name));
    let socket = within(1, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Whoever sends into a cut cable gets no error.
                socket.send_to(&[1; 100], (Host::overlay(2), 9)).unwrap();
                thread::park_timeout(Duration::from_millis(50));
            }
        });
        let event = routers[0].wait_for("the cut", |e| matches!(e, WorkerEvent::LinkDown { .. }));
        assert_eq!(event, WorkerEvent::LinkDown { link: rig::link(2), reason: DownReason::StoppedAnswering });
        assert!(!routers[0].workers.counters().links[&rig::link(2)].is_up);
        ip(&format!("-n {} link set u1 up", hosts[1].name));
        routers[0].wait_for("the link again", |e| matches!(e, WorkerEvent::LinkUp { .. }));
        is_over.store(true, Ordering::Relaxed);
    });
    exchange(1, 2);
}

pub(crate) fn a_removed_link_is_forgotten() {
    let (_hosts, routers, _) = pair(1500, 1400, AES);
    exchange(1, 2);
    routers[1].workers.remove_link(rig::link(1));
    assert!(routers[1].workers.counters().links.is_empty());
    let before = routers[1].workers.counters().drops["unknown_receiver"];
    let socket = within(1, || UdpSocket::bind("0.0.0.0:0").unwrap());
    wait_until("datagrams of the other end are strangers'", || {
        socket.send_to(&[1; 100], (Host::overlay(2), 9)).unwrap();
        routers[1].workers.counters().drops["unknown_receiver"] > before
    });
    // Both ends make up their minds to try again, with keys of their own as after every handshake.
    let (mut left, mut right) = (rig::params(1, 2, AES), rig::params(2, 1, AES));
    if let (Some(left), Some(right)) = (&mut left.keys, &mut right.keys) {
        (left.send_secret, left.receive_secret) = ([31; 32], [32; 32]);
        (right.send_secret, right.receive_secret) = ([32; 32], [31; 32]);
    }
    routers[0].workers.add_link(left);
    routers[1].workers.add_link(right);
    routers[0].wait_for("the link again", |e| matches!(e, WorkerEvent::LinkUp { .. }));
    exchange(1, 2);
}

pub(crate) fn a_peer_that_moves_is_followed() {
    let (hosts, routers, _) = pair(1500, 1400, AES);
    exchange(1, 2);
    ip(&format!("-n {} addr add 10.9.99.1/24 dev u2", hosts[0].name));
    ip(&format!("-n {} addr add 10.9.99.2/24 dev u1", hosts[1].name));
    ip(&format!("-n {} addr del {}/30 dev u2", hosts[0].name, rig::underlay(1, 2)));
    ip(&format!("-n {} route add {}/32 dev u2 src 10.9.99.1", hosts[0].name, rig::underlay(2, 1)));
    let moved: SocketAddr = SocketAddr::new([10, 9, 99, 1].into(), PORT);
    exchange(1, 2);
    let event = routers[1].wait_for("the move", |e| matches!(e, WorkerEvent::LinkMoved { .. }));
    assert_eq!(event, WorkerEvent::LinkMoved { link: rig::link(1), remote: moved });
}

pub(crate) fn an_idle_link_sends_nothing() {
    let hosts = [Host::new(1, 1400), Host::new(2, 1400)];
    hosts[0].cable(&hosts[1], 1500);
    let routers = [hosts[0].router(2), hosts[1].router(2)];
    // No routes: whatever the bridges say by themselves goes nowhere.
    connect((&routers[0], 1), (&routers[1], 2), AES);
    let read = |n: usize| routers[n].workers.counters();
    wait_until("the search is over", || {
        let before = read(0).links;
        thread::park_timeout(Duration::from_millis(300));
        before == read(0).links
    });
    let before = [read(0), read(1)];
    let end = now() + Duration::from_secs(3);
    wait_until("three seconds have passed", || now() > end);
    for (n, before) in before.iter().enumerate() {
        assert_eq!(before.links, read(n).links, "an idle link was used");
        let woken = read(n).sleeps - before.sleeps;
        assert!(woken <= 20, "{woken} wake-ups in three idle seconds");
    }
}
