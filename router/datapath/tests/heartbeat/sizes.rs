//! The size that passes.

use std::time::Duration;

use proptest::prelude::*;
use weave_datapath::{DownReason, FastdpEvent};

use crate::pair::{LINK, Pair};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn ordinary_ethernet_below_a_jumbo_interface_is_used_in_half_a_second_and_known_exactly_in_one() {
    let mut pair = Pair::new(1);
    pair.add_links(8950);
    let took = pair.run_until(SECOND, |pair| pair.mtu(0) == Some(1450) && pair.mtu(1) == Some(1450));
    assert!(took < Duration::from_millis(500), "{took:?}");
    pair.run(SECOND);
    assert!(pair.events.iter().all(|events| events.len() == 1), "{:?}", pair.events);
}

#[test]
fn a_jumbo_path_is_used_whole_at_once() {
    let mut pair = Pair::new(2);
    pair.limit(8950);
    pair.add_links(8950);
    pair.run(Duration::from_millis(1));
    assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(8950); 2]);
}

#[test]
fn a_path_that_shrinks_under_traffic_is_noticed_within_two_seconds_and_measured_again() {
    for seed in 0..100 {
        let mut pair = Pair::up(seed, true);
        pair.run(Duration::from_millis(seed * 13));
        let limit = 1280 + (seed as u16 * 9) % 170;
        pair.limit(limit);
        let fits = |mtu: Option<u16>| mtu.is_some_and(|mtu| mtu <= limit);
        let took = pair.run_until(SECOND * 3, |pair| fits(pair.mtu(0)) && fits(pair.mtu(1)));
        assert!(took <= SECOND * 2, "{took:?} with seed {seed}");
        pair.run(SECOND * 4);
        assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(limit); 2], "seed {seed}");
        let is_down = |event: &FastdpEvent| matches!(event, FastdpEvent::Down { .. });
        assert!(!pair.events.iter().flatten().any(|(_, event)| is_down(event)), "seed {seed}");
    }
}

#[test]
fn a_path_that_shrinks_in_one_direction_shrinks_for_both_ends() {
    let mut pair = Pair::up(5, true);
    pair.wires[0].mtu = 1300;
    pair.run(SECOND * 2);
    assert!(pair.mtu(0).unwrap() <= 1300 && pair.mtu(1).unwrap() <= 1300);
    pair.run(SECOND * 4);
    assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1300); 2]);
}

#[test]
fn a_slow_path_that_shrinks_is_noticed_as_quickly() {
    for delay in [5, 20, 50, 74] {
        let mut pair = Pair::up(delay, true);
        pair.wires.iter_mut().for_each(|wire| wire.delay = Duration::from_millis(delay));
        pair.run(SECOND * 60);
        assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1450); 2]);
        pair.limit(1350);
        let took = pair.run_until(SECOND * 3, |pair| pair.mtu(0) == Some(1350) && pair.mtu(1) == Some(1350));
        assert!(took <= SECOND * 2 + Duration::from_millis(delay), "{took:?} with {delay} ms");
    }
}

#[test]
fn a_path_that_shrinks_while_a_larger_size_is_looked_for_is_noticed_as_quickly() {
    // With 240 ms there and back, two tries more take a second.
    for (step, (delay, slack)) in (0..120).zip([(70, 140), (120, 600)].into_iter().cycle()) {
        let mut pair = Pair::new(step);
        pair.wires.iter_mut().for_each(|wire| wire.delay = Duration::from_millis(delay));
        pair.add_links(8950);
        pair.traffic([true; 2]);
        // The search for more begins about a minute after the first one ended.
        pair.run(SECOND * 59 + Duration::from_millis(step * 75));
        assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1450); 2]);
        pair.limit(1350);
        let took = pair.run_until(SECOND * 3, |pair| pair.mtu(0) == Some(1350) && pair.mtu(1) == Some(1350));
        assert!(took <= SECOND * 2 + Duration::from_millis(slack), "{took:?} at step {step}");
    }
}

#[test]
fn a_path_that_grows_is_found_after_a_minute_and_then_every_ten() {
    let mut pair = Pair::new(6);
    pair.limit(1350);
    pair.add_links(1450);
    pair.run(SECOND * 10);
    assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1350); 2]);
    pair.limit(1400);
    pair.run_until(SECOND * 65, |pair| pair.mtu(0) == Some(1400) && pair.mtu(1) == Some(1400));
    pair.run(SECOND * 5);
    pair.limit(1450);
    pair.run(SECOND * 300);
    assert_eq!(pair.mtu(0), Some(1400));
    pair.run_until(SECOND * 310, |pair| pair.mtu(0) == Some(1450) && pair.mtu(1) == Some(1450));
}

#[test]
fn a_lower_ceiling_counts_at_once_and_a_higher_one_is_tried_at_once() {
    let mut pair = Pair::up(7, false);
    pair.limit(8950);
    pair.with(0, |core, now| core.set_ceiling(LINK, 1300, now));
    assert_eq!(pair.mtu(0), Some(1300));
    for end in 0..2 {
        pair.with(end, |core, now| core.set_ceiling(LINK, 8950, now));
    }
    pair.run(Duration::from_millis(1));
    assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(8950); 2]);
    let before = pair.sent;
    pair.with(0, |core, now| core.set_ceiling(LINK, 8950, now));
    assert_eq!(pair.sent, before, "nothing new was said");
}

#[test]
fn both_ends_agree_on_the_smaller_of_their_ceilings() {
    let mut pair = Pair::new(8);
    pair.limit(9000);
    pair.add_link(0, 8950);
    pair.add_link(1, 1376);
    pair.run(SECOND * 2);
    assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1376); 2]);
}

#[test]
fn a_path_that_carries_small_frames_only_is_down_and_says_so() {
    let mut pair = Pair::new(9);
    pair.limit(1279);
    pair.add_links(1450);
    pair.run_until(SECOND * 2, |pair| pair.reason(0).is_some() && pair.reason(1).is_some());
    pair.run(SECOND * 60);
    for end in 0..2 {
        assert_eq!(pair.reason(end), Some(DownReason::LargeLost { least: 1280 }));
        assert_eq!(pair.events[end].len(), 1, "{:?}", pair.events[end]);
    }
    let before = pair.sent[0].1;
    pair.run(SECOND * 100);
    // Some thirty frames of Ethernet's size about every ten seconds.
    assert!(pair.sent[0].1 - before < 600_000, "{} bytes", pair.sent[0].1 - before);
    pair.limit(1450);
    pair.run_until(SECOND * 13, |pair| pair.mtu(0) == Some(1450) && pair.mtu(1) == Some(1450));
}

#[test]
fn a_path_that_ceases_to_carry_large_frames_is_down_within_two_seconds() {
    let mut pair = Pair::up(10, true);
    pair.limit(1279);
    pair.run(SECOND * 2);
    assert_eq!(pair.reason(0), Some(DownReason::LargeLost { least: 1280 }));
    assert_eq!(pair.reason(1), Some(DownReason::LargeLost { least: 1280 }));
}

#[test]
fn the_first_traffic_after_a_path_shrank_in_quiet_finds_it() {
    let mut pair = Pair::up(11, false);
    pair.run(SECOND * 30);
    pair.limit(1400);
    pair.run(SECOND * 30);
    assert_eq!(pair.mtu(0), Some(1450), "nobody uses it");
    pair.traffic([true, false]);
    pair.run(SECOND * 2);
    assert_eq!(pair.mtu(0), Some(1400));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_the_path_carries_is_found_exactly(
        ceilings in (1280u16..9000, 1280u16..9000), wires in (1280u16..9000, 1280u16..9000), seed: u64
    ) {
        let mut pair = Pair::new(seed);
        pair.wires[0].mtu = wires.0;
        pair.wires[1].mtu = wires.1;
        pair.add_link(0, ceilings.0);
        pair.add_link(1, ceilings.1);
        pair.run(SECOND * 6);
        let passes = ceilings.0.min(ceilings.1).min(wires.0).min(wires.1);
        prop_assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(passes); 2]);
    }
}
