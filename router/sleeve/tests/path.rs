//! The size of a path is found, kept and lost, over simulated paths that lose, delay and change.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::time::{Duration, Instant};

use common::now;
use proptest::prelude::*;
use weave_sleeve::{DownReason, PathEvent, PathMtu};

/// A path under test: what it carries, how it behaves, and what came of it.
struct Path {
    machine: PathMtu,
    /// Longest datagram that gets through; 0: none.
    carries: usize,
    /// Longest datagram that the interface takes.
    interface: usize,
    rtt: Duration,
    /// Loses a probe when the next number from here is below the chance.
    random: u64,
    loss_percent: u64,
    now: Instant,
    pending: Vec<(Instant, u64)>,
    events: Vec<PathEvent>,
    probes: usize,
    has_traffic: bool,
    next_look: Instant,
}

impl Path {
    fn new(carries: usize, interface: usize) -> Self {
        let now = now();
        Self {
            machine: PathMtu::new(true, 7, now),
            carries,
            interface,
            rtt: Duration::from_millis(1),
            random: 1,
            loss_percent: 0,
            now,
            pending: Vec::new(),
            events: Vec::new(),
            probes: 0,
            has_traffic: false,
            next_look: now,
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let answer = self.pending.iter().map(|(at, _)| *at).min();
            let timer = self.machine.poll_timeout().map(|(at, _)| at);
            let look = self.has_traffic.then_some(self.next_look);
            let next = [answer, timer, look].into_iter().flatten().min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            if next == end && answer.is_none() && timer.is_none() && look.is_none() {
                self.now = end;
                return;
            }
            self.now = next;
            self.answer();
            if self.has_traffic && self.next_look <= self.now {
                self.next_look = self.now + Duration::from_millis(800);
                let (alive, large) = (self.carries > 0, true);
                self.machine.handle_traffic(true, large, alive, self.now);
            }
            self.machine.handle_timeout(self.now);
        }
    }

    fn drain(&mut self) {
        loop {
            let probe = self.machine.poll_transmit();
            let event = self.machine.poll_event();
            self.events.extend(event);
            let Some(probe) = probe else {
                if event.is_none() {
                    return;
                }
                continue;
            };
            self.probes += 1;
            if probe.size > self.interface {
                self.machine.handle_too_big(probe.size, self.now);
            } else if probe.size <= self.carries && !self.is_lost() {
                self.pending.push((self.now + self.rtt, probe.nonce));
            }
        }
    }

    fn answer(&mut self) {
        let (due, later) = self.pending.drain(..).partition(|(at, _)| *at <= self.now);
        self.pending = later;
        for (_, nonce) in Vec::<(Instant, u64)>::into_iter(due) {
            self.machine.handle_ack(nonce, self.now);
            self.drain();
        }
    }

    fn is_lost(&mut self) -> bool {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 100 < self.loss_percent
    }

    fn last_size(&self) -> Option<usize> {
        self.events.iter().rev().find_map(|event| match event {
            PathEvent::Up { size, .. } | PathEvent::SizeChanged(size) => Some(*size),
            PathEvent::Down(_) => None,
        })
    }
}

proptest! {
    /// On a path without loss, the size found is the size there is, within the search's grain, whatever the
    /// interface takes.
    #[test]
    fn the_size_of_a_clean_path_is_found(carries in 548usize..65_507, interface in 548usize..65_507, rtt in 0u64..300) {
        let mut path = Path::new(carries, interface);
        path.rtt = Duration::from_millis(rtt);
        path.run(Duration::from_secs(120));
        let truth = carries.min(interface);
        let found = path.machine.usable();
        prop_assert!(found <= truth && truth - found <= 4, "{found} of {truth}");
        prop_assert_eq!(path.last_size(), Some(found));
        let is_up = matches!(path.events[0], PathEvent::Up { .. });
        prop_assert!(is_up);
        prop_assert!(path.probes < 120, "{} probes", path.probes);
        let before = path.probes;
        path.run(Duration::from_secs(3600));
        prop_assert_eq!(path.probes, before, "an idle path costs nothing");
    }

    /// Loss may make the size come out too small for a while, never too large; and it comes up.
    #[test]
    fn a_lossy_path_comes_up_and_is_never_overestimated(carries in 1300usize..9000, seed: u64, loss_percent in 0u64..50) {
        let mut path = Path::new(carries, 65_507);
        (path.random, path.loss_percent) = (seed, loss_percent);
        path.run(Duration::from_secs(300));
        let is_up = path.events.iter().any(|e| matches!(e, PathEvent::Up { .. }));
        prop_assert!(is_up);
        prop_assert!(path.machine.usable() <= carries);
    }
}

#[test]
fn a_path_is_up_at_the_first_answer_and_its_size_known_soon_after() {
    let mut path = Path::new(1472, 1472);
    path.run(Duration::from_millis(3));
    assert!(matches!(path.events[0], PathEvent::Up { size: 1252, .. }), "{:?}", path.events);
    path.run(Duration::from_millis(50));
    assert_eq!(path.events[1..], [PathEvent::SizeChanged(1472)]);
}

#[test]
fn a_peer_that_comes_a_moment_later_is_met_at_once() {
    let mut path = Path::new(0, 1472);
    path.run(Duration::from_millis(330));
    path.carries = 1472;
    path.run(Duration::from_millis(1));
    path.machine.handle_peer_probe(path.now);
    path.run(Duration::from_millis(25));
    assert!(matches!(path.events[0], PathEvent::Up { .. }), "{:?}", path.events);
}

#[test]
fn a_path_that_never_answers_is_reported_once_and_asked_ever_more_slowly() {
    let mut path = Path::new(0, 1472);
    path.run(Duration::from_secs(600));
    assert_eq!(path.events, [PathEvent::Down(DownReason::NeverAnswered)]);
    assert!(path.probes < 140, "{} probes", path.probes);
    path.carries = 1472;
    path.run(Duration::from_secs(6));
    assert!(matches!(path.events[1], PathEvent::Up { .. }), "{:?}", path.events);
}

#[test]
fn a_black_hole_is_noticed_under_traffic_and_the_size_falls_back_within_three_seconds() {
    let mut path = Path::new(1472, 1472);
    path.has_traffic = true;
    path.run(Duration::from_secs(10));
    assert_eq!(path.machine.usable(), 1472);
    path.carries = 1400;
    let start = path.events.len();
    path.run(Duration::from_secs(3));
    assert_eq!(path.events[start], PathEvent::SizeChanged(1252));
    path.run(Duration::from_secs(10));
    assert!((1396..=1400).contains(&path.machine.usable()), "{}", path.machine.usable());
    assert!(!path.events.iter().any(|e| matches!(e, PathEvent::Down(_))));
}

#[test]
fn a_dead_path_is_reported_under_traffic_and_comes_back_by_itself() {
    let mut path = Path::new(1472, 1472);
    path.has_traffic = true;
    path.run(Duration::from_secs(5));
    path.carries = 0;
    path.run(Duration::from_secs(4));
    assert_eq!(path.events.last(), Some(&PathEvent::Down(DownReason::StoppedAnswering)));
    path.carries = 1472;
    path.run(Duration::from_secs(8));
    assert_eq!(path.last_size(), Some(1472));
}

#[test]
fn a_larger_size_is_found_when_the_path_grows() {
    let mut path = Path::new(1400, 1472);
    path.has_traffic = true;
    path.run(Duration::from_secs(30));
    path.carries = 1472;
    path.run(Duration::from_secs(560));
    assert!(path.machine.usable() <= 1400);
    path.run(Duration::from_secs(60));
    assert_eq!(path.machine.usable(), 1472);
}

#[test]
fn an_interface_that_shrinks_is_followed_at_once() {
    let mut path = Path::new(1472, 1472);
    path.run(Duration::from_secs(1));
    (path.interface, path.carries) = (1372, 1372);
    path.machine.handle_too_big(1472, path.now);
    path.run(Duration::from_secs(5));
    assert!((1368..=1372).contains(&path.machine.usable()), "{}", path.machine.usable());
}

#[test]
fn a_moved_peer_is_measured_anew() {
    let mut path = Path::new(8972, 8972);
    path.run(Duration::from_secs(5));
    path.carries = 1452;
    path.machine.handle_path_change(false, path.now);
    path.run(Duration::from_secs(20));
    assert!((1448..=1452).contains(&path.machine.usable()), "{}", path.machine.usable());
}
