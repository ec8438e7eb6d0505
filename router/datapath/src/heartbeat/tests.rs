//! A peer that holds the keys and abuses them.

use std::time::Duration;

use proptest::prelude::*;

use super::{frame::Kind, *};

const LINK: LinkId = LinkId(1);
const LOCAL: PeerName = PeerName([2, 0, 0, 0, 0, 1]);
const PEER: PeerName = PeerName([2, 0, 0, 0, 0, 2]);
const CEILING: u16 = 1450;
const KEY: [u8; 32] = [3; 32];

proptest! {
    /// Whatever it says, and however often: no panic, a bounded number of frames, no size above the ceiling, and timers
    /// that lie ahead.
    #[test]
    fn a_peer_that_holds_the_keys_can_say_anything(
        says in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), 38u16..3000, 0u64..3, prop_oneof![0u64..200, any::<u64>()], 0u64..200),
            1..400,
        )
    ) {
        let start = start();
        let mut core = Fastdp::new(LOCAL, [9; 32]);
        core.add_link(path(), start);
        core.set_traffic(true, start);
        let (mut now, mut sent) = (start, drain(&mut core)?);
        let own_token = core.links[&LINK].token();
        for (is_probe, hears, size, token, sequence, ms) in says {
            let kind = if is_probe { Kind::Probe } else { Kind::Answer };
            let token = if token == 0 { own_token } else { token };
            let message = Message { kind, hears, size, token, sequence };
            core.handle_frame(&message.encode(heartbeat_mac(LOCAL), heartbeat_mac(PEER), &KEY), now);
            sent += drain(&mut core)?;
            let until = now + Duration::from_millis(ms);
            for step in 0.. {
                let Some((at, _)) = core.poll_timeout().filter(|(at, _)| *at <= until) else { break };
                prop_assert!(step < 1000, "a timer that does not end");
                now = now.max(at);
                core.handle_timeout(now);
                sent += drain(&mut core)?;
            }
            now = until;
        }
        // 64 answers at once and 100 a second, 4 and 5 to what came before, and rounds of ten probes ten times a second.
        let most = 200.0 + (now - start).as_secs_f64() * 250.0;
        prop_assert!((sent as f64) < most, "{} frames in {:?}", sent, now - start);
    }
}

#[test]
fn probes_without_end_are_answered_at_a_bounded_rate() {
    let start = start();
    let mut core = Fastdp::new(LOCAL, [9; 32]);
    core.add_link(path(), start);
    let mut sent = 0;
    for sequence in 1..=100_000_u64 {
        let message = Message { kind: Kind::Probe, hears: false, size: 46, token: 1, sequence };
        let now = start + Duration::from_micros(sequence * 10);
        core.handle_frame(&message.encode(heartbeat_mac(LOCAL), heartbeat_mac(PEER), &KEY), now);
        sent += drain(&mut core).unwrap();
    }
    assert!((150..200).contains(&sent), "{sent} frames in a second");
    let (_, refused) = core.discards().find(|(reason, _)| *reason == HeartbeatDiscard::TooMany).unwrap();
    assert!(refused > 99_000, "{refused}");
}

/// Takes what is to be sent and said; returns how many frames.
fn drain(core: &mut Fastdp) -> Result<usize, TestCaseError> {
    while let Some(event) = core.poll_event() {
        if let FastdpEvent::Up { mtu, .. } | FastdpEvent::Mtu { mtu, .. } = event {
            prop_assert!(mtu <= CEILING);
        }
    }
    Ok(std::iter::from_fn(|| core.poll_transmit()).count())
}

fn path() -> LinkPath {
    let remote = [192, 0, 2, 1].into();
    LinkPath { link: LINK, peer: PEER, send_key: KEY, receive_key: KEY, ceiling: CEILING, remote }
}

#[expect(clippy::disallowed_methods, reason = "a starting point; what follows is virtual")]
fn start() -> Instant {
    Instant::now()
}
