//! Loss, delay, reordering and duplication.

use std::time::Duration;

use proptest::prelude::*;
use weave_datapath::FastdpEvent;

use crate::pair::{LINK, Pair};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn duplicated_and_reordered_heartbeats_change_nothing() {
    let mut pair = Pair::up(1, true);
    for wire in &mut pair.wires {
        wire.jitter = Duration::from_millis(60);
        wire.doubled = 300;
    }
    pair.run(SECOND * 600);
    assert_eq!(pair.events, [vec![], vec![]]);
    assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1450); 2]);
}

#[test]
fn a_path_that_loses_two_of_a_hundred_stays_up_at_its_size() {
    for seed in 0..5 {
        let mut pair = Pair::up(seed, true);
        pair.wires.iter_mut().for_each(|wire| wire.lost = 20);
        pair.run(SECOND * 600);
        let downs = pair.events.iter().flatten().count();
        assert!(downs <= 2, "seed {seed}: {:?}", pair.events);
    }
}

#[test]
fn a_path_with_a_long_round_trip_comes_up_and_stays_up() {
    for delay in [100, 300, 450] {
        let mut pair = Pair::new(delay);
        pair.wires.iter_mut().for_each(|wire| wire.delay = Duration::from_millis(delay));
        pair.limit(1430);
        pair.add_links(1450);
        pair.traffic([true; 2]);
        pair.run(SECOND * 60);
        assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1430); 2], "{delay} ms");
        pair.events = [Vec::new(), Vec::new()];
        pair.run(SECOND * 100);
        assert_eq!(pair.events, [vec![], vec![]], "{delay} ms");
    }
}

#[test]
fn a_path_that_becomes_slow_all_at_once_stays_up() {
    let mut pair = Pair::up(3, true);
    pair.wires.iter_mut().for_each(|wire| wire.delay = Duration::from_millis(350));
    pair.run(SECOND * 60);
    assert_eq!(pair.events, [vec![], vec![]]);
}

/// What happens to a path, and how long it then stays so.
#[derive(Debug, Clone)]
enum Happening {
    Limit(usize, u16),
    Block(usize, bool),
    Loss(usize, u64),
    Delay(usize, u64),
    Traffic(usize, bool),
    Ceiling(usize, u16),
    Restart(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let end = 0usize..2;
    let size = prop_oneof![Just(400u16), Just(1280), Just(1350), Just(1450), Just(8950), 526u16..9000];
    prop_oneof![
        (end.clone(), size.clone()).prop_map(|(end, mtu)| Happening::Limit(end, mtu)),
        (end.clone(), any::<bool>()).prop_map(|(end, on)| Happening::Block(end, on)),
        (end.clone(), 0u64..400).prop_map(|(end, lost)| Happening::Loss(end, lost)),
        (end.clone(), 0u64..600).prop_map(|(end, ms)| Happening::Delay(end, ms)),
        (end.clone(), any::<bool>()).prop_map(|(end, on)| Happening::Traffic(end, on)),
        (end.clone(), size).prop_map(|(end, mtu)| Happening::Ceiling(end, mtu)),
        end.prop_map(Happening::Restart),
    ]
}

fn apply(pair: &mut Pair, what: &Happening) {
    match *what {
        Happening::Limit(end, mtu) => pair.wires[end].mtu = mtu,
        Happening::Block(end, on) => pair.wires[end].is_blocked = on,
        Happening::Loss(end, lost) => {
            pair.wires[end].lost = lost;
            pair.wires[end].doubled = lost;
        }
        Happening::Delay(end, ms) => pair.wires[end].delay = Duration::from_millis(ms),
        Happening::Traffic(end, on) => pair.with(end, |core, now| core.set_traffic(on, now)),
        Happening::Ceiling(end, mtu) => pair.with(end, |core, now| core.set_ceiling(LINK, mtu, now)),
        Happening::Restart(end) => pair.add_link(end, 1450),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Nothing is announced that did not pass within the time that answers count; and whatever happened, a path that is
    /// good again is used again, at its full size after a while.
    #[test]
    fn only_what_passed_is_announced_and_a_good_path_is_always_found_again(
        seed: u64, story in proptest::collection::vec((happening(), 1u64..8000), 1..20)
    ) {
        let mut pair = Pair::new(seed);
        pair.add_links(1450);
        // What passed at the times of the last changes, with when it ceased to.
        let mut passed: Vec<(Duration, u16)> = vec![(Duration::ZERO, 1450)];
        let (mut seen, mut former) = ([0; 2], [0; 2]);
        let mut clock = Duration::ZERO;
        for (what, ms) in &story {
            apply(&mut pair, what);
            let passes = pair.wires.iter().map(|w| if w.is_blocked { 0 } else { w.mtu }).min().unwrap();
            clock += Duration::from_millis(*ms);
            passed.push((clock, passes));
            pair.run(Duration::from_millis(*ms));
            for end in 0..2 {
                for (at, event) in &pair.events[end][seen[end]..] {
                    let (FastdpEvent::Up { mtu, .. } | FastdpEvent::Mtu { mtu, .. }) = event else { continue };
                    // A lower ceiling needs no new proof.
                    let is_claim = matches!(event, FastdpEvent::Up { .. }) || *mtu > former[end];
                    former[end] = *mtu;
                    let lately = passed.iter().filter(|(until, _)| *until + SECOND * 4 >= *at);
                    let most = lately.map(|(_, passes)| *passes).max().unwrap_or(0);
                    prop_assert!(!is_claim || *mtu <= most, "{event:?} when {most} passed");
                }
                seen[end] = pair.events[end].len();
            }
        }
        pair.wires = [crate::pair::Wire::lan(); 2];
        for end in 0..2 {
            pair.with(end, |core, now| core.set_ceiling(LINK, 1450, now));
        }
        pair.run(SECOND * 15);
        prop_assert!(pair.mtu(0).is_some() && pair.mtu(1).is_some(), "not up again: {:?}", pair.events);
        pair.run(SECOND * 615);
        prop_assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1450); 2]);
    }
}
