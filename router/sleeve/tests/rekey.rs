//! Keys change under way and nobody notices.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::Tunnel;
use proptest::prelude::*;
use weave_sleeve::{Discard, Suite, VNET_LEN};

const EPOCH: Duration = Duration::from_secs(601);

proptest! {
    /// Datagrams from before and after a change of keys, mixed up as a network may.
    #[test]
    fn reordering_across_a_change_of_keys_loses_nothing(swaps in proptest::collection::vec((0usize..30, 0usize..30), 0..40)) {
        let mut tunnel = Tunnel::new(Some(Suite::ChaCha20Poly1305));
        let mut datagrams: Vec<_> = (0..30).map(|n| {
            if n == 15 {
                tunnel.now += EPOCH;
            }
            tunnel.send(&frame(n), 1472).unwrap().remove(0)
        }).collect();
        for (a, b) in swaps {
            datagrams.swap(a, b);
        }
        let (written, discards) = tunnel.receive(datagrams);
        prop_assert_eq!(discards, vec![]);
        let seen: BTreeSet<_> = written.iter().map(|w| w[VNET_LEN + 20]).collect();
        prop_assert_eq!(seen.len(), 30);
    }
}

#[test]
fn a_receiver_that_missed_whole_epochs_catches_up() {
    let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
    for lost in 0..60 {
        tunnel.send(&frame(lost), 1472).unwrap();
        tunnel.now += EPOCH;
    }
    let datagrams = tunnel.send(&frame(99), 1472).unwrap();
    assert_eq!(datagrams[0][2..4], [0, 60]);
    assert_eq!((tunnel.sealer.take_rekeys(), tunnel.sealer.take_rekeys()), (60, 0));
    assert_eq!(tunnel.receive(datagrams), (vec![frame(99)], vec![]));
}

#[test]
fn the_old_key_is_of_no_use_after_a_while() {
    let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
    let mut old = vec![tunnel.send(&frame(0), 1472).unwrap().remove(0)];
    old.push(tunnel.send(&frame(1), 1472).unwrap().remove(0));
    old.push(tunnel.send(&frame(2), 1472).unwrap().remove(0));
    let last = old.split_off(2);
    let late = old.split_off(1);
    tunnel.receive(old);
    tunnel.now += EPOCH;
    let new = tunnel.send(&frame(3), 1472).unwrap();
    assert_eq!(tunnel.receive(new).0, vec![frame(3)]);
    assert_eq!(tunnel.receive(late.clone()).0, vec![frame(1)]);
    assert_eq!(tunnel.receive(late), (vec![], vec![Discard::Replayed]));
    tunnel.now += Duration::from_secs(10);
    assert_eq!(tunnel.receive(last), (vec![], vec![Discard::WrongEpoch]));
}

#[test]
fn epochs_go_on_when_their_number_on_the_wire_comes_round() {
    let mut tunnel = Tunnel::new(Some(Suite::Aes256Gcm));
    for round in 0..65_540u32 {
        let datagrams = tunnel.send(&frame(round as u8), 1472).unwrap();
        if round % 50 == 0 || round > 65_500 {
            assert_eq!(tunnel.receive(datagrams), (vec![frame(round as u8)], vec![]), "epoch {round}");
        }
        tunnel.now += EPOCH;
    }
}

#[test]
fn a_key_is_retired_by_count_too() {
    let mut tunnel = Tunnel::new(None);
    let mut sealed = Tunnel::new(Some(Suite::Aes256Gcm));
    let mut datagram = [0; 12 + 20 + 16];
    let mut epochs = BTreeSet::new();
    for _ in 0..(1 << 23) + 10u32 {
        sealed.sealer.seal(&mut datagram, tunnel.now).unwrap();
        epochs.insert([datagram[2], datagram[3]]);
    }
    assert_eq!(epochs.len(), 2);
    let datagrams = sealed.send(&frame(1), 1472).unwrap();
    assert_eq!(sealed.receive(datagrams).0, vec![frame(1)]);
    tunnel.now += EPOCH;
    assert_eq!(tunnel.send(&frame(1), 1472).unwrap()[0][2..4], [0, 0], "a clear link has no keys to change");
}

fn frame(number: u8) -> Vec<u8> {
    let mut frame = vec![0; VNET_LEN + 64];
    frame[VNET_LEN + 20] = number;
    frame
}
