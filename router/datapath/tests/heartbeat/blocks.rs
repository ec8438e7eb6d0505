//! Coming up, being blocked, coming back.

use std::time::Duration;

use weave_datapath::{DownReason, Fastdp, FastdpEvent, LinkHealth};

use crate::pair::{LINK, Pair};

const SECOND: Duration = Duration::from_secs(1);
/// What the product promises: traffic has moved to the sleeve by then.
const NOTICED: Duration = Duration::from_millis(1600);

#[test]
fn a_path_is_up_after_one_round_trip_of_the_largest_size() {
    let mut pair = Pair::new(1);
    pair.add_links(1450);
    pair.run(Duration::from_millis(1));
    for end in 0..2 {
        let [(_, event)] = pair.events[end][..] else { panic!("{:?}", pair.events) };
        assert_eq!(event, FastdpEvent::Up { link: LINK, mtu: 1450, rtt: Duration::from_micros(200) });
    }
}

#[test]
fn the_end_that_is_set_up_later_wakes_the_first() {
    let mut pair = Pair::new(2);
    pair.add_link(0, 1450);
    pair.run(SECOND * 20);
    assert_eq!(pair.reason(0), Some(DownReason::NeverAnswered));
    assert_eq!(pair.events[0].len(), 1, "said once: {:?}", pair.events[0]);
    pair.add_link(1, 1450);
    let took = pair.run_until(SECOND, |pair| pair.mtu(0).is_some() && pair.mtu(1).is_some());
    assert!(took < Duration::from_millis(5), "{took:?}");
}

#[test]
fn a_path_that_never_answers_is_reported_within_two_seconds_and_tried_ever_more_rarely() {
    let mut pair = Pair::new(3);
    pair.block([true; 2]);
    pair.add_links(1450);
    let took = pair.run_until(SECOND * 2, |pair| pair.reason(0).is_some() && pair.reason(1).is_some());
    assert!(took > Duration::from_millis(500), "the other end may be late: {took:?}");
    pair.run(SECOND * 60);
    let before = pair.sent[0].0;
    pair.run(SECOND * 100);
    // A small and a large probe about every ten seconds.
    assert!((16..=26).contains(&(pair.sent[0].0 - before)), "{:?}", pair.sent);
    assert!(pair.reason(0).unwrap().to_string().contains("6784"));
}

#[test]
fn a_block_under_traffic_is_noticed_in_time_and_its_end_too() {
    for seed in 0..200 {
        let mut pair = Pair::up(seed, true);
        pair.run(Duration::from_millis(seed * 7));
        pair.block([true; 2]);
        let took = pair.run_until(SECOND * 2, |pair| pair.mtu(0).is_none() && pair.mtu(1).is_none());
        assert!(took <= NOTICED, "{took:?} with seed {seed}");
        assert!(took >= SECOND, "one loss is no block: {took:?} with seed {seed}");
        assert_eq!(pair.reason(0), Some(DownReason::StoppedAnswering));
        pair.run(SECOND * (seed as u32 % 60));
        pair.block([false; 2]);
        let took = pair.run_until(SECOND * 13, |pair| pair.mtu(0).is_some() && pair.mtu(1).is_some());
        assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1450); 2], "after {took:?} with seed {seed}");
    }
}

#[test]
fn a_block_of_one_direction_is_noticed_by_both_ends_under_traffic() {
    for seed in 0..100 {
        let mut pair = Pair::up(seed, true);
        let end = seed as usize % 2;
        pair.wires[end].is_blocked = true;
        let took = pair.run_until(SECOND * 2, |pair| pair.mtu(0).is_none() && pair.mtu(1).is_none());
        assert!(took <= NOTICED, "{took:?} with seed {seed}");
        // The end whose way out is blocked hears the other, and is not heard.
        pair.run_until(SECOND * 15, |pair| pair.reason(end) == Some(DownReason::NotHeard));
        assert_eq!(pair.reason(1 - end), Some(DownReason::StoppedAnswering));
        pair.run(SECOND * 30);
        pair.wires[end].is_blocked = false;
        pair.run_until(SECOND * 13, |pair| pair.mtu(0).is_some() && pair.mtu(1).is_some());
    }
}

#[test]
fn a_block_of_both_directions_is_never_taken_for_one_of_ours_alone() {
    for seed in 0..50 {
        let mut pair = Pair::up(seed, true);
        pair.run(Duration::from_millis(seed * 31));
        pair.block([true; 2]);
        pair.run(SECOND * 60);
        for events in &pair.events {
            let [(_, event)] = events[..] else { panic!("{events:?}") };
            assert_eq!(event, FastdpEvent::Down { link: LINK, reason: DownReason::StoppedAnswering });
        }
    }
}

#[test]
fn the_idle_end_of_a_path_blocked_one_way_hears_of_it_from_the_busy_one() {
    for seed in 0..50 {
        let mut pair = Pair::up(seed, false);
        pair.traffic([true, false]);
        pair.run(SECOND * 3);
        // The busy end's probes arrive; what the idle end says does not.
        pair.wires[1].is_blocked = true;
        let took = pair.run_until(SECOND * 4, |pair| pair.mtu(0).is_none() && pair.mtu(1).is_none());
        assert!(took <= Duration::from_millis(2400), "{took:?} with seed {seed}");
    }
}

#[test]
fn the_first_traffic_on_an_idle_path_finds_a_block_at_once() {
    for seed in 0..50 {
        let mut pair = Pair::up(seed, false);
        pair.run(SECOND * 100 + Duration::from_millis(seed * 211));
        pair.block([true; 2]);
        pair.run(Duration::from_millis(100));
        if pair.mtu(0).is_none() {
            continue;
        }
        pair.traffic([true, true]);
        let took = pair.run_until(SECOND * 2, |pair| pair.mtu(0).is_none() && pair.mtu(1).is_none());
        assert!(took <= NOTICED, "{took:?} with seed {seed}");
    }
}

#[test]
fn a_block_of_an_idle_path_is_noticed_without_traffic() {
    let mut pair = Pair::up(9, false);
    pair.block([true; 2]);
    pair.run_until(SECOND * 12, |pair| pair.mtu(0).is_none() && pair.mtu(1).is_none());
}

#[test]
fn traffic_that_is_seen_every_other_time_keeps_the_pace() {
    let mut pair = Pair::up(10, true);
    for seen in [true, false].repeat(20) {
        pair.traffic([seen; 2]);
        pair.run(Duration::from_millis(500));
    }
    pair.traffic([false; 2]);
    pair.block([true; 2]);
    pair.run(NOTICED);
    assert_eq!([pair.mtu(0), pair.mtu(1)], [None; 2]);
}

#[test]
fn traffic_that_comes_again_after_a_pause_is_not_taken_for_calm_later() {
    let mut pair = Pair::up(14, true);
    pair.traffic([false; 2]);
    pair.run(SECOND);
    pair.traffic([true; 2]);
    pair.run(SECOND * 30);
    pair.block([true; 2]);
    pair.run(NOTICED);
    assert_eq!([pair.mtu(0), pair.mtu(1)], [None; 2]);
}

#[test]
fn an_alarm_that_came_to_nothing_leaves_an_idle_path_idle() {
    let mut pair = Pair::up(15, false);
    pair.traffic([true, false]);
    pair.run(SECOND);
    pair.wires[1].is_blocked = true;
    pair.run(Duration::from_millis(900));
    pair.wires[1].is_blocked = false;
    pair.traffic([false; 2]);
    pair.run(SECOND * 25);
    assert_eq!(pair.events, [vec![], vec![]]);
    pair.sent = [(0, 0); 2];
    pair.run(SECOND * 100);
    assert!(pair.sent[1].0 <= 25, "{:?}", pair.sent);
}

#[test]
fn a_path_that_comes_and_goes_is_tried_ever_more_rarely() {
    let mut pair = Pair::up(11, true);
    let mut waits = Vec::new();
    for _ in 0..6 {
        pair.block([true; 2]);
        pair.run_until(SECOND * 2, |pair| pair.mtu(0).is_none() && pair.mtu(1).is_none());
        pair.block([false; 2]);
        waits.push(pair.run_until(SECOND * 13, |pair| pair.mtu(0).is_some() && pair.mtu(1).is_some()));
        pair.run(SECOND);
    }
    assert!(waits[0] < SECOND * 2, "{waits:?}");
    assert!(waits[5] > SECOND * 5, "{waits:?}");
    // After a quiet minute the slate is clean.
    pair.run(SECOND * 61);
    pair.block([true; 2]);
    pair.run_until(SECOND * 2, |pair| pair.mtu(0).is_none() && pair.mtu(1).is_none());
    pair.block([false; 2]);
    let wait = pair.run_until(SECOND * 13, |pair| pair.mtu(0).is_some() && pair.mtu(1).is_some());
    assert!(wait < SECOND * 2, "{wait:?}");
}

#[test]
fn a_router_that_starts_anew_with_the_same_keys_is_answered() {
    let mut pair = Pair::up(12, true);
    for _ in 0..3 {
        pair.run(SECOND * 100);
        pair.ends[1] = Fastdp::new(crate::pair::name(1), [77; 32]);
        pair.add_link(1, 1450);
        pair.run(SECOND * 2);
        assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1450); 2]);
        assert!(pair.events[0].is_empty(), "the other end noticed nothing: {:?}", pair.events[0]);
    }
}

#[test]
fn a_link_that_is_removed_is_silent_and_sets_no_timer() {
    let mut pair = Pair::up(13, true);
    pair.with(0, |core, _| core.remove_link(LINK));
    assert_eq!(pair.ends[0].poll_timeout(), None);
    assert_eq!(pair.ends[0].health(LINK), None);
    let before = pair.sent[0];
    pair.run(NOTICED);
    assert_eq!(pair.sent[0], before);
    assert!(matches!(pair.health(1), LinkHealth::Down { reason: DownReason::StoppedAnswering, .. }));
}
