//! What a hostile or broken neighbour can do, and a slow one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use weave_mesh::{Config, Event, LinkInfo, Mesh, MessageError, Side};
use weave_model::{LinkId, Uid};

use crate::sim::{CHANNEL, FACTS, Net, address, name};

const LINK: LinkId = LinkId(1);

fn info(peer: usize) -> LinkInfo {
    LinkInfo {
        peer: name(peer),
        uid: Uid(peer as u64),
        public_key: [peer as u8; 32],
        nickname: format!("host{peer}"),
        incarnation: 1,
        listen_port: 6783,
        side: Side::Accepted,
        remote: address(peer),
        tiebreak: 5,
        encrypted: true,
    }
}

fn mesh(index: usize, now: Instant) -> Mesh {
    let config = Config {
        name: name(index),
        uid: Uid(index as u64),
        public_key: [index as u8; 32],
        ..Config::default()
    };
    Mesh::new(config, [index as u8; 32], now)
}

/// Carries messages between two meshes over one link until both are silent; gives the last message of each.
fn exchange(a: &mut Mesh, b: &mut Mesh, now: Instant) -> Vec<Bytes> {
    let mut last = Vec::new();
    loop {
        let before = last.len();
        while let Some(transmit) = a.poll_transmit() {
            b.handle_message(LINK, &transmit.bytes, now).unwrap();
            last.push(transmit.bytes);
        }
        while let Some(transmit) = b.poll_transmit() {
            a.handle_message(LINK, &transmit.bytes, now).unwrap();
            last.push(transmit.bytes);
        }
        if last.len() == before {
            return last;
        }
    }
}

fn now() -> Instant {
    Net::new(0, 0, |_| vec![]).now
}

fn linked() -> (Mesh, Mesh, Instant) {
    let now = now();
    let (mut a, mut b) = (mesh(1, now), mesh(2, now));
    a.handle_link_opened(LINK, info(2), now);
    b.handle_link_opened(LINK, info(1), now);
    exchange(&mut a, &mut b, now);
    for step in 1..20 {
        let now = now + Duration::from_millis(step * 100);
        a.handle_timeout(now);
        b.handle_timeout(now);
        exchange(&mut a, &mut b, now);
    }
    (a, b, now + Duration::from_secs(2))
}

#[test]
fn junk_ends_the_link_with_whose_fault_it_was_and_changes_nothing() {
    let (mut a, _, now) = linked();
    let before = a.fingerprint();
    assert!(matches!(a.handle_message(LINK, &[1, 2], now), Err(MessageError::Unparsable(_))));
    assert_eq!(a.handle_message(LINK, &[200], now), Err(MessageError::Incompatible(200)));
    // A record of nobody in particular, without a description.
    let mut bare = vec![4, 1];
    bare.extend([2, 0, 0, 0, 0, 9, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0]);
    assert!(matches!(a.handle_message(LINK, &bare, now), Err(MessageError::Misbehaved(_))));
    assert_eq!(a.fingerprint(), before);
}

#[test]
fn a_neighbour_cannot_overwrite_our_facts() {
    let (mut a, mut b, now) = linked();
    a.set_fact(FACTS, b"mine", b"1".to_vec(), now).unwrap();
    let messages = exchange(&mut a, &mut b, now);
    // Our own words come back to us, altered.
    let mut forged = messages[0].to_vec();
    *forged.last_mut().unwrap() = b'2';
    a.handle_message(LINK, &forged, now).unwrap();
    assert_eq!(a.fact(name(1), FACTS, b"mine"), Some(&b"1"[..]));
}

#[test]
fn reserved_namespaces_and_oversized_facts_are_refused() {
    let (mut a, _, now) = linked();
    assert!(a.set_fact(weave_mesh::Namespace(15), b"k", vec![], now).is_err());
    assert!(a.set_fact(FACTS, &[0; 513], vec![], now).is_err());
    assert!(a.set_fact(FACTS, b"k", vec![0; 65_537], now).is_err());
    assert!(a.set_fact(FACTS, b"k", vec![0; 65_536], now).is_ok());
}

#[test]
fn what_waits_for_a_slow_neighbour_is_bounded_by_state_and_arrives_merged() {
    let (mut a, mut b, mut now) = linked();
    a.handle_link_blocked(LINK, true);
    for round in 0..5000u32 {
        now += Duration::from_millis(100);
        a.set_fact(FACTS, b"counter", round.to_le_bytes().to_vec(), now).unwrap();
        a.handle_timeout(now);
        assert!(a.poll_transmit().is_none());
    }
    a.handle_link_blocked(LINK, false);
    let messages = exchange(&mut a, &mut b, now);
    assert!(messages.iter().map(Bytes::len).sum::<usize>() < 200);
    assert_eq!(b.fact(name(1), FACTS, b"counter"), Some(&4999u32.to_le_bytes()[..]));
}

#[test]
fn messages_for_a_neighbour_that_reads_nothing_are_dropped_and_counted() {
    let (mut a, _, now) = linked();
    a.handle_link_blocked(LINK, true);
    for _ in 0..100 {
        a.broadcast(CHANNEL, vec![0; 100_000], now);
    }
    let dropped = a.counters().dropped_backlog;
    assert!((50..70).contains(&dropped), "{dropped}");
}

#[test]
fn a_broadcast_that_comes_again_is_dropped_and_counted() {
    let (mut a, mut b, now) = linked();
    while b.poll_event().is_some() {}
    a.broadcast(CHANNEL, b"once".to_vec(), now);
    let message = a.poll_transmit().unwrap();
    for _ in 0..3 {
        b.handle_message(LINK, &message.bytes, now).unwrap();
    }
    let received =
        std::iter::from_fn(|| b.poll_event()).filter(|e| matches!(e, Event::Received { .. })).count();
    assert_eq!((received, b.counters().dropped_duplicate), (1, 2));
}
