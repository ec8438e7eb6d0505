//! Those who repeat, forge and break frames.

use std::time::Duration;

use proptest::prelude::*;
use weave_datapath::{Fastdp, HEARTBEAT_ETHERTYPE, HeartbeatDiscard, LinkPath, heartbeat_mac};
use weave_model::LinkId;

use crate::pair::{Pair, name, path};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn frames_that_are_sent_again_get_few_answers_and_change_nothing() {
    let mut pair = Pair::new(1);
    pair.recording = Some(Vec::new());
    pair.add_links(1450);
    pair.traffic([true; 2]);
    pair.run(SECOND * 10);
    let recording = pair.recording.take().unwrap();
    pair.events = [Vec::new(), Vec::new()];
    pair.traffic([false; 2]);
    pair.run(SECOND * 20);
    let (before, frames) = (pair.sent[1].0, recording.iter().filter(|(end, _)| *end == 0).count() as u64);
    for _ in 0..100 {
        for (_, frame) in recording.iter().filter(|(end, _)| *end == 0) {
            pair.with(1, |core, now| core.handle_frame(frame, now));
        }
        pair.run(SECOND / 10);
    }
    let answered = pair.sent[1].0 - before;
    // Five repeated probes a second, and the idle pace of its own.
    assert!(answered <= 4 + 5 * 10 + 10, "{answered} answers to {} frames", frames * 100);
    assert!(pair.discarded(1, HeartbeatDiscard::TooMany) > 0);
    assert!(pair.discarded(1, HeartbeatDiscard::NotAsked) > 0);
    assert_eq!(pair.events, [vec![], vec![]]);
}

#[test]
fn repeated_answers_do_not_keep_a_blocked_path_up() {
    let mut pair = Pair::up(2, true);
    pair.recording = Some(Vec::new());
    pair.run(SECOND * 5);
    let recording = pair.recording.take().unwrap();
    pair.block([true; 2]);
    for _ in 0..16 {
        for (end, frame) in &recording {
            pair.with(1 - end, |core, now| core.handle_frame(frame, now));
        }
        pair.run(SECOND / 10);
    }
    assert_eq!([pair.mtu(0), pair.mtu(1)], [None; 2]);
}

#[test]
fn answers_from_an_earlier_life_of_a_link_prove_nothing() {
    let mut pair = Pair::new(5);
    pair.recording = Some(Vec::new());
    pair.add_links(1450);
    pair.run(SECOND);
    let recording = pair.recording.take().unwrap();
    pair.block([true; 2]);
    // The same sequence numbers begin anew.
    pair.add_link(0, 1450);
    for (_, frame) in recording.iter().filter(|(end, _)| *end == 1) {
        pair.with(0, |core, now| core.handle_frame(frame, now));
    }
    assert_eq!(pair.mtu(0), None);
}

#[test]
fn what_is_refused_is_counted_by_reason() {
    let mut pair = Pair::up(3, true);
    pair.recording = Some(Vec::new());
    pair.run(SECOND);
    let (_, genuine) = pair.recording.take().unwrap().into_iter().find(|(end, _)| *end == 0).unwrap();
    let changed = |place: usize, bit: u8| {
        let mut frame = genuine.clone();
        frame[place] ^= bit;
        frame
    };
    for (reason, frame) in [
        (HeartbeatDiscard::TooShort, genuine[..51].to_vec()),
        (HeartbeatDiscard::TooShort, Vec::new()),
        (HeartbeatDiscard::Ethertype, changed(12, 1)),
        (HeartbeatDiscard::Version, changed(14, 2)),
        (HeartbeatDiscard::Kind, changed(15, 8)),
        (HeartbeatDiscard::Length, [genuine.as_slice(), &[0]].concat()),
        (HeartbeatDiscard::NotForUs, changed(5, 1)),
        (HeartbeatDiscard::UnknownSource, changed(11, 8)),
        (HeartbeatDiscard::Seal, changed(30, 1)),
        (HeartbeatDiscard::Seal, changed(51, 1)),
    ] {
        let before = pair.discarded(1, reason);
        pair.with(1, |core, now| core.handle_frame(&frame, now));
        assert_eq!(pair.discarded(1, reason), before + 1, "{reason}");
    }
    assert!(pair.events.iter().all(Vec::is_empty));
}

#[test]
fn two_links_with_one_router_are_told_apart_by_their_keys() {
    let mut pair = Pair::up(4, true);
    let second = |end: usize| LinkPath {
        link: LinkId(8),
        send_key: [10 + end as u8; 32],
        receive_key: [11 - end as u8; 32],
        ..path(end, 1450)
    };
    for end in 0..2 {
        pair.with(end, |core, now| core.add_link(second(end), now));
    }
    pair.run(SECOND);
    assert!(pair.events.iter().all(|events| events.len() == 1), "{:?}", pair.events);
    assert_eq!(pair.discarded(0, HeartbeatDiscard::Seal), 0);
}

#[test]
fn keys_do_not_show_in_debug_output() {
    let text = format!("{:?}", LinkPath { send_key: [0xab; 32], receive_key: [0xcd; 32], ..path(0, 1450) });
    assert!(!text.contains("171") && !text.contains("205"), "{text}");
}

proptest! {
    #[test]
    fn junk_of_any_shape_neither_panics_nor_causes_a_frame(
        mut junk in proptest::collection::vec(any::<u8>(), 0..2000), shape in 0usize..3
    ) {
        let now = crate::pair::origin();
        let mut core = Fastdp::new(name(0), [1; 32]);
        core.add_link(path(0, 1450), now);
        while core.poll_transmit().is_some() {}
        if shape > 0 && junk.len() >= 20 {
            junk[..6].copy_from_slice(&heartbeat_mac(name(0)).0);
            junk[6..12].copy_from_slice(&heartbeat_mac(name(1)).0);
            junk[12..14].copy_from_slice(&HEARTBEAT_ETHERTYPE.to_be_bytes());
            junk[14..16].copy_from_slice(&[1, shape as u8]);
            let size = junk.len() as u16 - 14;
            junk[18..20].copy_from_slice(&size.to_be_bytes());
        }
        core.handle_frame(&junk, now);
        prop_assert!(core.poll_transmit().is_none());
        prop_assert!(core.poll_event().is_none());
        prop_assert_eq!(core.discards().map(|(_, n)| n).sum::<u64>(), 1);
    }
}
