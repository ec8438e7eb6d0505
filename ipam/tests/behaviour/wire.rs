//! Nothing from the network panics, and nothing malformed changes anything.

use proptest::prelude::*;
use weave_ipam::GossipError;

use crate::lab::{Lab, name};

fn traffic() -> (Lab, Vec<Vec<u8>>) {
    let mut lab = Lab::consensus(3, &["10.32.0.0/26", "fd00::/120"]);
    for n in 0..20 {
        lab.allocate(n % 3, &format!("c{n}"), None).unwrap();
    }
    lab.claim(0, "x", "10.32.0.60/26").unwrap();
    lab.kill(2);
    lab.take_over(0, name(2)).unwrap();
    lab.run(5_000);
    let mut bytes: Vec<Vec<u8>> = lab.sent.iter().map(|(_, bytes)| bytes.clone()).collect();
    bytes.extend(lab.facts.iter().flatten().cloned());
    (lab, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_refused_and_changes_nothing(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut lab, _) = traffic();
        let (before, now) = (lab.node(0).status(), lab.now);
        let result = lab.with(0, |ipam| ipam.handle_message(name(1), &noise, now)).unwrap();
        let fact = lab.with(0, |ipam| ipam.handle_peer_state(name(9), Some(&noise), now)).unwrap();
        if result.is_err() && fact.is_err() {
            let mut after = lab.node(0).status();
            after.problems.clear();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn real_messages_with_bytes_changed_or_cut_never_panic(
        pick in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut lab, all) = traffic();
        let mut bytes = pick.get(&all).clone();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let now = lab.now;
        for index in 0..2 {
            let _ = lab.with(index, |ipam| ipam.handle_message(name(1 - index), &bytes, now));
            let _ = lab.with(index, |ipam| ipam.handle_peer_state(name(1 - index), Some(&bytes), now));
            let _ = lab.with(index, |ipam| ipam.handle_own_previous_state(&bytes, now));
        }
        lab.run(2_000);
        for index in 0..2 {
            let status = lab.node(index).status();
            prop_assert_eq!(status.owners.iter().map(|o| o.addresses).sum::<u128>(), 64 + 256);
        }
    }
}

#[test]
fn a_message_of_a_later_version_is_named_as_such() {
    let mut lab = Lab::consensus(2, &["10.32.0.0/26"]);
    let now = lab.now;
    let result = lab.with(0, |ipam| ipam.handle_message(name(1), &[9, 1, 2, 3], now)).unwrap();
    assert_eq!(result, Err(GossipError::Incompatible(9)));
}
