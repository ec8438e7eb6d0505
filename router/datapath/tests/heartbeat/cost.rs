//! What vouching costs.

use std::{collections::BTreeMap, time::Duration};

use weave_datapath::{Fastdp, LinkPath};
use weave_model::{LinkId, PeerName};

use crate::pair::{Pair, origin};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_idle_path_costs_four_small_frames_in_ten_seconds() {
    let mut pair = Pair::up(1, false);
    pair.sent = [(0, 0); 2];
    pair.run(SECOND * 1000);
    for (frames, bytes) in pair.sent {
        // A probe and an answer each, every nine to ten seconds, of 60 bytes.
        assert!((200..=225).contains(&frames), "{frames} frames");
        assert_eq!(bytes, frames * 60);
    }
    assert_eq!(pair.events, [vec![], vec![]]);
}

#[test]
fn a_busy_path_costs_a_few_frames_a_second() {
    let mut pair = Pair::up(2, true);
    pair.sent = [(0, 0); 2];
    pair.run(SECOND * 1000);
    for (frames, bytes) in pair.sent {
        assert!(frames < 2 * 4 * 1000, "{frames} frames");
        assert!(bytes < 2 * 2000 * 1000, "{bytes} bytes");
    }
}

#[test]
fn a_thousand_busy_links_slow_down_to_a_bounded_rate() {
    let (sent, probes) = star(1000, SECOND * 100);
    assert_eq!(sent, 1000, "every link came up");
    // 256 links would send 3.5 to 3.8 a second each.
    assert!(probes < 1000 * 100, "{probes} probes in 100 s");
    let (_, few) = star(10, SECOND * 100);
    assert!((10 * 350..=10 * 380).contains(&few), "{few} probes in 100 s");
}

/// A router with traffic and `count` others that only answer. Returns how many links are up, and how many probes it
/// sent after the first seconds.
fn star(count: u64, time: Duration) -> (usize, usize) {
    let start = origin();
    let name = |n: u64| PeerName([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
    let mut hub = Fastdp::new(name(0), [1; 32]);
    let mut others = BTreeMap::new();
    for n in 1..=count {
        let path = |peer, link| LinkPath {
            link: LinkId(link),
            peer,
            send_key: [3; 32],
            receive_key: [3; 32],
            ceiling: 1450,
            remote: [192, 0, 2, 1].into(),
        };
        hub.add_link(path(name(n), n), start);
        let mut other = Fastdp::new(name(n), [2; 32]);
        other.add_link(path(name(0), 0), start);
        while other.poll_transmit().is_some() {}
        others.insert(n, other);
    }
    hub.set_traffic(true, start);
    let (mut now, mut probes) = (start, 0);
    let mut up = 0;
    while now < start + SECOND * 10 + time {
        hub.handle_timeout(now);
        while let Some(heartbeat) = hub.poll_transmit() {
            let is_probe = heartbeat.frame[15] == 1;
            probes += usize::from(is_probe && now >= start + SECOND * 10);
            let Some(other) = others.get_mut(&heartbeat.link.0) else { continue };
            other.handle_frame(&heartbeat.frame, now);
            while let Some(answer) = other.poll_transmit() {
                hub.handle_frame(&answer.frame, now);
            }
        }
        while hub.poll_event().is_some() {
            up += 1;
        }
        now = hub.poll_timeout().map_or(now, |(at, _)| at).max(now);
    }
    (up, probes)
}
