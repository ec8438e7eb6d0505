//! What a stranger, or a peer that misbehaves, can send: nothing panics, and nothing harmful reaches the TAP.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Flavour, LEFT, RIGHT, Tunnel, Wire, assert_writable, burst, packet};
use proptest::prelude::*;
use weave_sleeve::{
    Discard, Envelope, HEADER_LEN, Kind, RECORD_LEN, Record, Sealer, Splitter, Suite, TAG_LEN, TapFrame,
    VNET_LEN,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn noise_is_discarded(batch in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8), mode in 0u8..3) {
        let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
        let noise: Vec<_> = batch.into_iter().map(|mut d| {
            if let Some(first) = d.first_mut() {
                *first = mode;
            }
            d
        }).collect();
        let count = noise.len();
        let (written, discards) = tunnel.receive(noise);
        prop_assert!(written.is_empty());
        prop_assert_eq!(discards.len(), count);
    }

    /// One bit, anywhere, and the datagram is worth nothing; nor does it harm those after it.
    #[test]
    fn a_flipped_bit_or_a_cut_is_noticed(length in 14usize..2000, at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index) {
        let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
        let tap = [&[0; VNET_LEN][..], &vec![7; length]].concat();
        let good = tunnel.send(&tap, 9000).unwrap();
        let mut flipped = good.clone();
        let place = at.index(flipped[0].len());
        flipped[0][place] ^= 1 << bit;
        let mut short = good.clone();
        let keep = cut.index(short[0].len());
        short[0].truncate(keep);
        prop_assert_eq!(tunnel.receive(flipped).0.len(), 0);
        prop_assert_eq!(tunnel.receive(short).0.len(), 0);
        prop_assert_eq!(tunnel.receive(good.clone()), (vec![tap], vec![]));
        prop_assert_eq!(tunnel.receive(good), (vec![], vec![Discard::Replayed]));
    }

    /// A peer with the right keys that sends anything at all.
    #[test]
    fn authentic_nonsense_never_reaches_the_tap(records in proptest::collection::vec(nonsense(), 1..12)) {
        let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
        let mut sealer = Sealer::new(&common::params(Some(Suite::Aes256Gcm), 1, 2), 0).unwrap();
        let batch = records.iter().map(|record| {
            let mut datagram = vec![0; HEADER_LEN + record.len() + TAG_LEN];
            datagram[HEADER_LEN..HEADER_LEN + record.len()].copy_from_slice(record);
            sealer.seal(&mut datagram, tunnel.now).unwrap();
            datagram
        });
        let (written, _) = tunnel.receive(batch.collect());
        for mut frame in written {
            assert_writable(&frame);
            relay(&mut frame);
        }
    }

    /// A kernel that lies, or a frame made of a peer's records on its way to the next router.
    #[test]
    fn any_frame_is_split_or_refused(mut tap in proptest::collection::vec(any::<u8>(), 0..3000), valid in any::<bool>(), limit in 0usize..3000) {
        if valid && tap.len() > VNET_LEN {
            tap[0] = 1;
            tap[1] &= 5;
        }
        relay(&mut tap);
        if let Ok(frame) = TapFrame::parse(&mut tap) {
            let envelope = Envelope { source: LEFT, destination: None, hop_limit: 1 };
            let mut tunnel = Tunnel::new(None);
            let mut wire = Wire::default();
            let _any = Splitter::new().split(&frame, envelope, &mut tunnel.sealer, limit, tunnel.now, &mut wire);
            prop_assert!(wire.0.iter().all(|d| d.len() <= limit));
        }
    }
}

/// Splits again what was joined, as a relay does.
fn relay(tap: &mut [u8]) {
    let mut tunnel = Tunnel::new(None);
    for limit in [576, 1472] {
        if let Ok(frame) = TapFrame::parse(tap) {
            let envelope = Envelope { source: LEFT, destination: Some(RIGHT), hop_limit: 1 };
            let mut wire = Wire::default();
            if Splitter::new()
                .split(&frame, envelope, &mut tunnel.sealer, limit, tunnel.now, &mut wire)
                .is_ok()
            {
                let (written, _) = tunnel.receive(wire.0);
                written.iter().for_each(|w| assert_writable(w));
            }
        }
    }
}

/// Records that are nearly right: real headers and real packets, with bytes changed and numbers made up.
fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    let record = (
        0u8..6,
        any::<(bool, bool)>(),
        0u16..4,
        prop_oneof![0u16..4000, any::<u16>()],
        prop_oneof![Just(100u16), any::<u16>()],
    );
    let body = (any::<(bool, bool)>(), 0usize..3, 0usize..300, any::<u8>());
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (record, body, changes).prop_map(|(record, body, changes)| {
        let (kind, (is_last, has_open_checksum), number, offset, segment) = record;
        let ((is_ipv6, is_tcp), vlan_tags, length, flags) = body;
        let flavour = Flavour { is_ipv6, is_tcp, vlan_tags, option_words: 0, flags };
        let tap = if kind % 2 == 0 {
            packet(flavour, &vec![1; length], true)
        } else {
            burst(flavour, &vec![1; length + 1], 100)
        };
        let kind = [Kind::Frame, Kind::Burst, Kind::Fragment, Kind::Probe, Kind::ProbeAck, Kind::Burst]
            [usize::from(kind)];
        let head = Record {
            source: LEFT,
            destination: Some(RIGHT),
            hop_limit: 1,
            kind,
            is_last,
            has_open_checksum,
            number,
            offset,
            segment,
        };
        let mut bytes = [&head.encode()[..], &tap[VNET_LEN..]].concat();
        for (at, value) in changes {
            // Changes are likelier to matter in headers.
            let range = (RECORD_LEN + 80).min(bytes.len());
            bytes[at.index(range)] = value;
        }
        bytes
    })
}

#[test]
fn clear_datagrams_are_refused_on_a_sealed_link_and_the_other_way_round() {
    let tap = [&[0; VNET_LEN][..], &[7; 60]].concat();
    let mut sealed = Tunnel::new(Some(Suite::Aes256Gcm));
    let mut clear = Tunnel::new(None);
    let datagrams = clear.send(&tap, 1472).unwrap();
    assert_eq!(sealed.receive(datagrams), (vec![], vec![Discard::WrongMode]));
    let datagrams = sealed.send(&tap, 1472).unwrap();
    assert_eq!(clear.receive(datagrams), (vec![], vec![Discard::WrongMode]));
}

#[test]
fn other_keys_lanes_and_directions_do_not_open_it() {
    let tap = [&[0; VNET_LEN][..], &[7; 60]].concat();
    let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
    let datagram = tunnel.send(&tap, 1472).unwrap().remove(0);
    let mut other_lane = datagram.clone();
    other_lane[1] = 1;
    let mut other_epoch = datagram.clone();
    other_epoch[3] = 1;
    let mut too_far = datagram.clone();
    too_far[2] = 0x20;
    let mut backwards = datagram.clone();
    backwards[2..4].fill(0xff);
    let batch = vec![other_lane, other_epoch.clone(), other_epoch, too_far, backwards];
    let expected =
        [Discard::Forged, Discard::Forged, Discard::Forged, Discard::WrongEpoch, Discard::WrongEpoch];
    assert_eq!(tunnel.receive(batch), (vec![], expected.to_vec()));
    assert_eq!(tunnel.receive(vec![datagram]).0, vec![tap]);
}
