//! One path: is it up, and how large are the frames that it carries?
//!
//! Knows nothing of keys and bytes: it wants probes of some size sent, and is told which were answered.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use self::sizing::Sizing;
use super::{
    DownReason, HeartbeatConfig, LinkHealth,
    flights::{Flights, Purpose},
    frame::SMALL,
    random::Random,
    search::LEAST,
};

mod life;
mod sizing;
#[cfg(test)]
mod tests;

/// The least time that an answer may take in a search before its size is tried again. Long enough for a busy machine.
const MIN_ROUND: Duration = Duration::from_millis(100);
/// What the peer shows us makes us ask at once, but not more often than this.
const MIN_RETRY: Duration = Duration::from_millis(200);

/// What a step of any path depends on, beside the path.
pub(crate) struct Moment<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a HeartbeatConfig,
    pub(crate) random: &'a mut Random,
    /// There is traffic.
    pub(crate) is_active: bool,
    /// How many paths there are.
    pub(crate) links: usize,
}

/// A probe that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) sequence: u64,
    pub(crate) size: u16,
}

/// What is to be said about the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Up { mtu: u16, rtt: Duration },
    Mtu(u16),
    Down(DownReason),
}

/// The state of one path. Sizes are bytes of IP packet of a container.
#[derive(Debug)]
pub(crate) struct Prober {
    overhead: u16,
    ceiling: u16,
    flights: Flights,
    phase: Phase,
    sizing: Option<Sizing>,
    /// Beats in a row that were lost.
    misses: u32,
    /// Attempts on a path that was never up.
    first_attempts: u32,
    /// Later attempts, since it was last stable.
    attempts: u32,
    was_up: bool,
    /// When a probe of the peer's last arrived.
    heard_at: Option<Instant>,
    probes: VecDeque<Probe>,
    changes: VecDeque<Change>,
}

#[derive(Debug)]
enum Phase {
    Down {
        since: Instant,
        reported: Option<DownReason>,
        last_attempt: Option<Instant>,
        next_attempt: Instant,
        /// Small probes of the last attempt were answered.
        is_alive: bool,
    },
    Up {
        since: Instant,
        mtu: u16,
        last_beat: Instant,
        next_beat: Instant,
        /// `None`: there is no traffic.
        next_full: Option<Instant>,
        /// `None`: nothing above is worth a try.
        next_raise: Option<Instant>,
        raises: u32,
    },
}

impl Prober {
    /// A path of which nothing is known, under a tunnel that takes `overhead` bytes. Call [`Prober::handle_timeout`] next.
    pub(crate) fn new(overhead: u16, ceiling: u16, now: Instant) -> Self {
        Self {
            overhead,
            ceiling: ceiling.max(LEAST),
            flights: Flights::default(),
            phase: Phase::Down {
                since: now,
                reported: None,
                last_attempt: None,
                next_attempt: now,
                is_alive: false,
            },
            sizing: None,
            misses: 0,
            first_attempts: 0,
            attempts: 0,
            was_up: false,
            heard_at: None,
            probes: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// A probe was answered. Returns whether it was one that is still of interest.
    pub(crate) fn handle_answer(&mut self, sequence: u64, size: u16, moment: &mut Moment<'_>) -> bool {
        if !self.flights.land(sequence, size, moment.now) {
            return false;
        }
        self.misses = 0;
        let is_control = |sizing: &Sizing| sizing.control == Some(sequence);
        if let Some(sizing) = self.sizing.as_mut().filter(|sizing| is_control(sizing)) {
            sizing.is_alive = true;
        }
        match &mut self.phase {
            Phase::Down { is_alive, .. } if size < LEAST => {
                *is_alive = true;
                self.open_search(moment);
            }
            Phase::Up { .. } if size < LEAST => {}
            Phase::Down { .. } | Phase::Up { .. } => self.proven(size, moment),
        }
        true
    }

    /// A probe of the peer's arrived, which it never sent before; `hears` is what it says of our answers.
    pub(crate) fn handle_peer(&mut self, hears: bool, moment: &mut Moment<'_>) {
        let now = moment.now;
        self.heard_at = Some(now);
        match &mut self.phase {
            Phase::Down { last_attempt, next_attempt, is_alive, .. } => {
                // The way from there is open: perhaps the way back is, too.
                let is_late =
                    last_attempt.is_none_or(|last| now.saturating_duration_since(last) >= MIN_RETRY);
                if is_late && !*is_alive && self.sizing.is_none() {
                    *next_attempt = now;
                }
            }
            Phase::Up { last_beat, next_beat, .. } => {
                // It is not answered: perhaps we are not either, and have not asked lately.
                if !hears && now.saturating_duration_since(*last_beat) >= MIN_RETRY {
                    *next_beat = now;
                }
            }
        }
        self.handle_timeout(moment);
    }

    /// The underlay's interface carries another size now.
    pub(crate) fn handle_ceiling(&mut self, ceiling: u16, moment: &mut Moment<'_>) {
        let ceiling = ceiling.max(LEAST);
        if std::mem::replace(&mut self.ceiling, ceiling) == ceiling {
            return;
        }
        self.sizing = None;
        match &mut self.phase {
            Phase::Down { next_attempt, .. } => *next_attempt = moment.now,
            Phase::Up { mtu, .. } if *mtu > ceiling => self.settle(ceiling),
            Phase::Up { mtu, next_raise, .. } => *next_raise = (*mtu < ceiling).then_some(moment.now),
        }
        self.handle_timeout(moment);
    }

    /// Traffic began or ended.
    pub(crate) fn handle_traffic(&mut self, moment: &mut Moment<'_>) {
        let now = moment.now;
        if let Phase::Up { last_beat, next_beat, next_full, .. } = &mut self.phase {
            if moment.is_active {
                *next_beat = now;
                // With many paths, their large probes shall not leave in one burst.
                let spread = Duration::from_micros(500).saturating_mul(moment.links as u32);
                *next_full = Some(now + moment.random.between(Duration::ZERO, spread));
            } else {
                *next_beat = *last_beat + jittered(moment.config.idle_interval, moment.random);
                *next_full = None;
            }
        }
        self.handle_timeout(moment);
    }

    /// Does what is due. To be called after [`Prober::new`] and whenever [`Prober::poll_timeout`] says.
    pub(crate) fn handle_timeout(&mut self, moment: &mut Moment<'_>) {
        let now = moment.now;
        let lost = self.flights.lose(now);
        if matches!(self.phase, Phase::Up { .. }) {
            self.misses = self.misses.saturating_add(lost.beats);
            if self.misses >= moment.config.losses.max(1) {
                self.fall(self.silence(moment), moment);
            }
        }
        if self.sizing.as_ref().is_some_and(|sizing| sizing.ends <= now) {
            self.end_round(moment);
        }
        let is_shrinking = self.is_shrinking();
        match &mut self.phase {
            Phase::Down { next_attempt, .. } => {
                if *next_attempt <= now && self.sizing.is_none() {
                    self.attempt(moment);
                }
            }
            Phase::Up { mtu, last_beat, next_beat, .. } => {
                if lost.beats > 0 {
                    // Until one is answered, each that is lost is followed by another, traffic or not.
                    let soon = *last_beat + stretched(moment.config.small_interval, moment);
                    *next_beat = soon.min(*next_beat);
                }
                let mtu = *mtu;
                if lost.fulls > 0 && !is_shrinking {
                    self.doubt(mtu, moment);
                }
                self.beat(moment);
            }
        }
    }

    pub(crate) fn poll_probe(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> (Instant, &'static str) {
        let round = self.sizing.as_ref().map(|sizing| (sizing.ends, "round of probes of the fast path"));
        match &self.phase {
            Phase::Down { next_attempt, .. } => round.unwrap_or((*next_attempt, "attempt at the fast path")),
            Phase::Up { next_beat, next_full, next_raise, .. } => {
                let beat = (*next_beat, "heartbeat of the fast path");
                let loss = self.flights.next_loss().map(|at| (at, "loss of a heartbeat"));
                let full = next_full.map(|at| (at, "full-size heartbeat"));
                let raise = next_raise.map(|at| (at, "search for a larger MTU"));
                [round, loss, full, raise]
                    .into_iter()
                    .flatten()
                    .fold(beat, |a, b| if b.0 < a.0 { b } else { a })
            }
        }
    }

    /// Whether the peer answers: what our probes tell it.
    pub(crate) const fn hears(&self) -> bool {
        matches!(self.phase, Phase::Up { .. }) && self.misses == 0
    }

    /// The largest probe that can be answered.
    pub(crate) const fn ceiling(&self) -> u16 {
        self.ceiling
    }

    pub(crate) fn health(&self) -> LinkHealth {
        match self.phase {
            Phase::Up { mtu, since, .. } => LinkHealth::Up { mtu, rtt: self.rtt(), since },
            Phase::Down { since, reported: Some(reason), .. } => LinkHealth::Down { reason, since },
            Phase::Down { reported: None, .. } => LinkHealth::Trying,
        }
    }

    fn rtt(&self) -> Duration {
        self.flights.rtt().unwrap_or_default()
    }

    /// Sends the heartbeats and begins the search that are due.
    fn beat(&mut self, moment: &mut Moment<'_>) {
        let (now, is_searching, is_shrinking) = (moment.now, self.sizing.is_some(), self.is_shrinking());
        let Phase::Up { mtu, last_beat, next_beat, next_full, next_raise, raises, .. } = &mut self.phase
        else {
            return;
        };
        let mtu = *mtu;
        let is_beat_due = *next_beat <= now;
        if is_beat_due {
            *last_beat = now;
            *next_beat = now + pace(moment);
        }
        let is_full_due = next_full.is_some_and(|at| at <= now);
        if is_full_due {
            *next_full = Some(now + stretched(moment.config.full_interval, moment));
        }
        let is_raise_due = next_raise.is_some_and(|at| at <= now);
        if is_raise_due {
            *next_raise = None;
            *raises += 1;
        }
        if is_beat_due {
            self.send(SMALL, Purpose::Beat, moment);
        }
        if is_full_due && !is_shrinking {
            self.send(mtu, Purpose::Full, moment);
        }
        if is_raise_due && !is_searching {
            self.look_above(mtu, moment);
        }
    }

    fn send(&mut self, size: u16, purpose: Purpose, moment: &Moment<'_>) -> u64 {
        let least = match purpose {
            Purpose::Beat => moment.config.small_interval,
            Purpose::Full | Purpose::Search => MIN_ROUND,
        };
        let sequence = self.flights.launch(size, purpose, least, moment.now);
        self.probes.push_back(Probe { sequence, size });
        sequence
    }
}

/// The time to the next small heartbeat.
fn pace(moment: &mut Moment<'_>) -> Duration {
    let interval = if moment.is_active {
        stretched(moment.config.small_interval, moment)
    } else {
        moment.config.idle_interval
    };
    jittered(interval, moment.random)
}

/// An interval for traffic, longer when there are very many links.
fn stretched(interval: Duration, moment: &Moment<'_>) -> Duration {
    let share = moment.links as f64 / moment.config.links_at_full_pace.max(1) as f64;
    interval.mul_f64(share.max(1.0))
}

/// Down to nine tenths of an interval, so that many links do not fall into step.
fn jittered(interval: Duration, random: &mut Random) -> Duration {
    random.between(interval * 9 / 10, interval)
}

fn back_off(attempts: u32, moment: &mut Moment<'_>) -> Duration {
    let doubled = moment.config.retry_min.saturating_mul(1 << attempts.min(16));
    let time = doubled.min(moment.config.retry_max);
    moment.random.between(time * 4 / 5, time * 6 / 5)
}
