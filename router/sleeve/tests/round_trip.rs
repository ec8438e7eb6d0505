//! What goes in comes out: every kind of frame, over every size of path, in order and out of it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Flavour, Tunnel, assert_sound, assert_writable, burst, packet, segments};
use proptest::prelude::*;
use weave_sleeve::{Discard, Suite, VNET_LEN};

proptest! {
    /// The station at the far end gets exactly the packets that it would have got on one wire.
    #[test]
    fn a_burst_arrives_as_the_packets_it_stands_for(
        flavour in flavour(),
        payload in payload(),
        segment in 200u16..1300,
        limit in 1480usize..9000,
        suite in suite(),
    ) {
        let mut tunnel = Tunnel::new(suite);
        let tap = burst(flavour, &payload, segment);
        let datagrams = tunnel.send(&tap, limit).unwrap();
        prop_assert!(datagrams.iter().all(|d| d.len() <= limit));
        prop_assert!(suite.is_none() || datagrams.iter().all(|d| !contains(d, &payload)));
        let (written, discards) = tunnel.receive(datagrams);
        prop_assert_eq!(discards, vec![]);
        written.iter().for_each(|w| assert_writable(w));
        let arrived: Vec<_> = written.iter().flat_map(|w| segments(w)).collect();
        arrived.iter().for_each(|p| assert_sound(p));
        prop_assert_eq!(arrived, segments(&tap));
        prop_assert_eq!(written.len(), 1, "one burst in, one burst out");
    }

    /// Every datagram is of use by itself: whatever is lost, doubled and reordered, what arrives are packets of the
    /// burst, each once.
    #[test]
    fn lost_doubled_and_reordered_datagrams_cost_no_more_than_themselves(
        flavour in flavour(),
        payload in payload(),
        segment in 200u16..1300,
        order in proptest::collection::vec(0usize..60, 0..80),
        cuts in proptest::collection::vec(1usize..10, 1..8),
    ) {
        let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
        let tap = burst(flavour, &payload, segment);
        let datagrams = tunnel.send(&tap, 1472).unwrap();
        let chosen: Vec<_> = order.iter().filter_map(|at| datagrams.get(*at).cloned()).collect();
        let distinct: std::collections::BTreeSet<_> = order.iter().filter(|at| **at < datagrams.len()).collect();
        let (mut arrived, mut replayed) = (Vec::new(), 0);
        let mut rest = chosen.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, later) = rest.split_at((*cut).min(rest.len()));
            let (written, discards) = tunnel.receive(batch.to_vec());
            written.iter().for_each(|w| assert_writable(w));
            arrived.extend(written.iter().flat_map(|w| segments(w)));
            replayed += discards.iter().filter(|d| **d == Discard::Replayed).count();
            prop_assert!(discards.iter().all(|d| *d == Discard::Replayed));
            rest = later;
        }
        prop_assert_eq!(replayed, chosen.len() - distinct.len());
        arrived.iter().for_each(|p| assert_sound(p));
        let mut unseen = segments(&tap);
        for packet in &arrived {
            let place = unseen.iter().position(|p| p == packet);
            prop_assert!(place.is_some(), "a packet that was not sent, or twice");
            unseen.swap_remove(place.unwrap());
        }
        prop_assert!(arrived.len() >= distinct.len(), "every datagram brings a packet at least");
    }

    /// TCP whose segments do not fit the path is cut anew: the same bytes of the stream, in sound packets.
    #[test]
    fn tcp_that_does_not_fit_is_cut_anew(
        flavour in flavour().prop_map(|f| Flavour { is_tcp: true, ..f }),
        payload in payload(),
        segment in 1400u16..9000,
        limit in 576usize..1400,
        is_burst: bool,
    ) {
        let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
        let payload = if is_burst { payload } else { payload[..payload.len().min(9000)].to_vec() };
        let tap = if is_burst { burst(flavour, &payload, segment) } else { packet(flavour, &payload, true) };
        let datagrams = tunnel.send(&tap, limit).unwrap();
        prop_assert!(datagrams.iter().all(|d| d.len() <= limit));
        let (written, _) = tunnel.receive(datagrams);
        written.iter().for_each(|w| assert_writable(w));
        let arrived: Vec<_> = written.iter().flat_map(|w| segments(w)).collect();
        arrived.iter().for_each(|p| assert_sound(p));
        let head = head_len(flavour);
        let stream: Vec<u8> = arrived.iter().flat_map(|p| p[head..].to_vec()).collect();
        prop_assert_eq!(stream, payload);
        let sequence = head - flavour.option_words * 4 - 20 + 4;
        let mut next = u32::from_be_bytes([0xff, 0xff, 0xff, 0]);
        for packet in &arrived {
            prop_assert_eq!(u32::from_be_bytes(packet[sequence..sequence + 4].try_into().unwrap()), next);
            next = next.wrapping_add((packet.len() - head) as u32);
        }
    }

    /// Datagrams of UDP keep their borders: those that do not fit are fragmented, each by itself.
    #[test]
    fn udp_that_does_not_fit_is_fragmented_and_keeps_its_borders(
        flavour in flavour().prop_map(|f| Flavour { is_tcp: false, ..f }),
        payload in payload(),
        segment in 1400u16..4000,
        limit in 576usize..1400,
        rotate: usize,
    ) {
        let mut tunnel = Tunnel::new(Some(Suite::ChaCha20Poly1305));
        let tap = burst(flavour, &payload, segment);
        let mut datagrams = tunnel.send(&tap, limit).unwrap();
        prop_assert!(datagrams.iter().all(|d| d.len() <= limit));
        let count = datagrams.len().max(1);
        datagrams.rotate_left(rotate % count);
        let (written, _) = tunnel.receive(datagrams);
        written.iter().for_each(|w| assert_writable(w));
        let mut arrived: Vec<_> = written.iter().flat_map(|w| segments(w)).collect();
        let mut expected = segments(&tap);
        arrived.sort();
        expected.sort();
        prop_assert_eq!(arrived, expected);
    }

    /// Any frame at all, known or not, is carried byte by byte.
    #[test]
    fn whole_frames_arrive_unchanged(
        frame in proptest::collection::vec(any::<u8>(), 14..5000),
        limit in 576usize..3000,
        suite in suite(),
        shuffle in any::<prop::sample::Index>(),
    ) {
        let mut tunnel = Tunnel::new(suite);
        let tap = [&[0; VNET_LEN][..], &frame].concat();
        let mut datagrams = tunnel.send(&tap, limit).unwrap();
        prop_assert!(datagrams.iter().all(|d| d.len() <= limit));
        let first = shuffle.index(datagrams.len());
        datagrams.rotate_left(first);
        let doubled = datagrams.clone();
        let (written, _) = tunnel.receive(datagrams);
        prop_assert_eq!(&written, &[tap]);
        if suite.is_some() {
            prop_assert_eq!(tunnel.receive(doubled).0, Vec::<Vec<u8>>::new());
        }
    }

    /// A packet with its checksum open arrives as one with the right checksum, however long it is.
    #[test]
    fn open_checksums_are_kept_open(flavour in flavour(), length in 0usize..3000, limit in 576usize..2000) {
        let mut tunnel = Tunnel::new(None);
        let tap = packet(flavour, &vec![0x5a; length], true);
        let datagrams = tunnel.send(&tap, limit).unwrap();
        let (written, discards) = tunnel.receive(datagrams);
        prop_assert_eq!(discards, vec![]);
        let arrived: Vec<_> = written.iter().flat_map(|w| segments(w)).collect();
        arrived.iter().for_each(|p| assert_sound(p));
        let bytes: usize = arrived.iter().map(|p| p.len() - head_len(flavour)).sum();
        prop_assert_eq!(bytes, length);
    }
}

#[test]
fn the_longest_burst_of_all_survives() {
    for is_ipv6 in [false, true] {
        let flavour = Flavour { is_ipv6, is_tcp: true, vlan_tags: 0, option_words: 3, flags: 0x18 };
        let room = 65_535 - if is_ipv6 { 72 } else { 52 };
        let payload: Vec<u8> = (0..room).map(|n| n as u8).collect();
        for limit in [1252, 1472, 8972, 65_507] {
            let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
            let tap = burst(flavour, &payload, 1348.min(limit as u16 - 150));
            let datagrams = tunnel.send(&tap, limit).unwrap();
            let (written, discards) = tunnel.receive(datagrams);
            assert_eq!(discards, vec![]);
            assert_eq!(written.len(), 1);
            assert_eq!(segments(&written[0]), segments(&tap));
        }
    }
}

#[test]
fn a_checksum_left_open_by_an_unknown_protocol_is_completed() {
    let mut frame: Vec<u8> = (0..60).collect();
    frame[12..14].copy_from_slice(&[0x12, 0x34]);
    let mut tap = vec![1, 0, 0, 0, 0, 0, 20, 0, 8, 0];
    tap.extend_from_slice(&frame);
    let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
    let datagrams = tunnel.send(&tap, 1472).unwrap();
    let (written, _) = tunnel.receive(datagrams);
    assert_eq!(written[0][..VNET_LEN], [0; VNET_LEN]);
    assert_eq!(written[0][VNET_LEN..], segments(&tap)[0]);
}

fn flavour() -> impl Strategy<Value = Flavour> {
    (any::<bool>(), any::<bool>(), 0usize..3, 0usize..11, any::<u8>()).prop_map(
        |(is_ipv6, is_tcp, vlan_tags, option_words, flags)| {
            // Neither urgent nor SYN nor RST: no kernel makes bursts of those.
            let (option_words, flags) = if is_tcp { (option_words, flags & !0x26) } else { (0, 0) };
            Flavour { is_ipv6, is_tcp, vlan_tags, option_words, flags }
        },
    )
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    (1usize..60_000, any::<u8>()).prop_map(|(length, seed)| {
        (0..length)
            .map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed).rotate_left((n / 256) as u32 % 8))
            .collect()
    })
}

fn suite() -> impl Strategy<Value = Option<Suite>> {
    prop_oneof![Just(None), Just(Some(Suite::Aes256Gcm)), Just(Some(Suite::ChaCha20Poly1305))]
}

fn head_len(flavour: Flavour) -> usize {
    let transport = if flavour.is_tcp { 20 + flavour.option_words * 4 } else { 8 };
    14 + flavour.vlan_tags * 4 + if flavour.is_ipv6 { 40 } else { 20 } + transport
}

/// Whether 24 bytes from the middle of the payload show in the datagram.
fn contains(datagram: &[u8], payload: &[u8]) -> bool {
    let Some(needle) = payload.get(payload.len() / 2..payload.len() / 2 + 24) else {
        return false;
    };
    datagram.windows(needle.len()).any(|window| window == needle)
}
