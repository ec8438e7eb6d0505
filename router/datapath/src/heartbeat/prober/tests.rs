use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::*;

const CEILING: u16 = 1450;

#[test]
fn an_answer_from_before_the_fall_does_not_bring_the_path_up() {
    let mut bench = Bench::up();
    let start = bench.now;
    let mut late = Vec::new();
    while matches!(bench.prober.health(), LinkHealth::Up { .. }) {
        assert!(bench.now - start < Duration::from_secs(2));
        late.extend(bench.pass(Duration::from_millis(100)));
    }
    assert!(late.len() >= 3);
    for Probe { sequence, size } in late {
        assert!(!bench.answer(sequence, size));
    }
    assert!(matches!(bench.prober.health(), LinkHealth::Down { .. }));
}

#[test]
fn an_answer_to_a_size_above_a_lower_ceiling_proves_the_ceiling_only() {
    let mut bench = Bench::up();
    let sent = bench.pass(Duration::from_secs(1));
    let full = sent.into_iter().find(|probe| probe.size == CEILING).unwrap();
    bench.with(|prober, moment| prober.handle_ceiling(1300, moment));
    assert!(bench.answer(full.sequence, full.size));
    assert_eq!(bench.changes, [Change::Mtu(1300)]);
}

#[test]
fn a_peer_that_complains_all_the_time_causes_few_probes() {
    let mut bench = Bench::up();
    let mut probes = 0;
    for _ in 0..1000 {
        bench.with(|prober, moment| prober.handle_peer(false, moment));
        for Probe { sequence, size } in bench.pass(Duration::from_millis(1)) {
            bench.answer(sequence, size);
            probes += 1;
        }
    }
    assert!((4..=7).contains(&probes), "{probes} probes");
}

#[test]
fn answers_that_always_come_late_keep_the_path_up() {
    let mut bench = Bench::up();
    let mut late = VecDeque::new();
    for _ in 0..100 {
        let sent = bench.pass(Duration::from_millis(100));
        late.push_back(sent);
        // Ten steps back.
        if late.len() > 10 {
            for Probe { sequence, size } in late.pop_front().unwrap_or_default() {
                bench.answer(sequence, size);
            }
        }
    }
    assert!(matches!(bench.prober.health(), LinkHealth::Up { mtu: CEILING, .. }));
    assert_eq!(bench.changes, [], "nothing was said");
}

/// A prober under traffic, and its clock.
struct Bench {
    prober: Prober,
    config: HeartbeatConfig,
    random: Random,
    now: Instant,
    changes: Vec<Change>,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a starting point; what follows is virtual")]
    fn up() -> Self {
        let now = Instant::now();
        let prober = Prober::new(50, CEILING, now);
        let config = HeartbeatConfig::default();
        let mut bench = Self { prober, config, random: Random::new([5; 32]), now, changes: Vec::new() };
        for Probe { sequence, size } in bench.pass(Duration::ZERO) {
            assert!(bench.answer(sequence, size));
        }
        assert_eq!(bench.changes, [Change::Up { mtu: CEILING, rtt: Duration::ZERO }]);
        bench.changes.clear();
        bench
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Prober, &mut Moment<'_>) -> R) -> R {
        let (config, random) = (&self.config, &mut self.random);
        let result =
            act(&mut self.prober, &mut Moment { now: self.now, config, random, is_active: true, links: 1 });
        self.changes.extend(std::iter::from_fn(|| self.prober.poll_change()));
        result
    }

    /// Lets time pass, and returns what was sent at its end.
    fn pass(&mut self, time: Duration) -> Vec<Probe> {
        self.now += time;
        self.with(Prober::handle_timeout);
        std::iter::from_fn(|| self.prober.poll_probe()).collect()
    }

    fn answer(&mut self, sequence: u64, size: u16) -> bool {
        self.with(|prober, moment| prober.handle_answer(sequence, size, moment))
    }
}
