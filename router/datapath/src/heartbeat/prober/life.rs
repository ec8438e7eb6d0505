//! Bringing a path up, and losing it.

use std::time::{Duration, Instant};

use super::{Change, Moment, Phase, Prober, back_off, pace, stretched};
use crate::heartbeat::{DownReason, flights::Purpose, frame::SMALL};

/// Attempts on a new path before it is reported down, and the time between them: the other end may set up its side a
/// moment later.
const FIRST_ATTEMPTS: u32 = 3;
const FIRST_RETRY: Duration = Duration::from_millis(300);

impl Prober {
    /// Asks with a small probe and the largest.
    pub(super) fn attempt(&mut self, moment: &mut Moment<'_>) {
        let silence = self.silence(moment);
        let Phase::Down { last_attempt, next_attempt, is_alive, .. } = &mut self.phase else {
            return;
        };
        let is_silent = last_attempt.is_some() && !*is_alive;
        *last_attempt = Some(moment.now);
        *is_alive = false;
        let is_new = !self.was_up && self.first_attempts < FIRST_ATTEMPTS;
        let wait = if is_new { FIRST_RETRY } else { back_off(self.attempts, moment) };
        *next_attempt = moment.now + wait;
        if is_new {
            self.first_attempts += 1;
        } else {
            self.attempts = self.attempts.saturating_add(1);
            if is_silent {
                self.report(silence);
            }
        }
        self.send(SMALL, Purpose::Search, moment);
        self.send(self.ceiling, Purpose::Search, moment);
    }

    pub(super) fn rise(&mut self, mtu: u16, moment: &mut Moment<'_>) {
        let now = moment.now;
        self.phase = Phase::Up {
            since: now,
            mtu,
            last_beat: now,
            next_beat: now + pace(moment),
            next_full: moment.is_active.then(|| now + stretched(moment.config.full_interval, moment)),
            next_raise: (mtu < self.ceiling).then(|| now + moment.config.raise_first),
            raises: 0,
        };
        self.misses = 0;
        self.was_up = true;
        self.changes.push_back(Change::Up { mtu, rtt: self.rtt() });
    }

    pub(super) fn fall(&mut self, reason: DownReason, moment: &mut Moment<'_>) {
        let now = moment.now;
        if let Phase::Up { since, .. } = self.phase
            && now.saturating_duration_since(since) >= moment.config.stable_after
        {
            self.attempts = 0;
        }
        self.phase = Phase::Down {
            since: now,
            reported: None,
            last_attempt: Some(now),
            next_attempt: now + back_off(self.attempts, moment),
            is_alive: matches!(reason, DownReason::LargeLost { .. }),
        };
        self.sizing = None;
        self.misses = 0;
        if reason != DownReason::NotHeard {
            self.heard_at = None;
        }
        // An answer to an older probe proves nothing of the path as it is now.
        self.flights.clear();
        self.report(reason);
    }

    pub(super) fn report(&mut self, reason: DownReason) {
        if let Phase::Down { reported, .. } = &mut self.phase
            && reported.replace(reason) != Some(reason)
        {
            self.changes.push_back(Change::Down(reason));
        }
    }

    /// What it means that nothing is answered.
    pub(super) fn silence(&self, moment: &Moment<'_>) -> DownReason {
        let window = match self.phase {
            // Less than what a loss takes to be noticed, so that what came before it does not count.
            Phase::Up { .. } => {
                stretched(moment.config.small_interval, moment) * (moment.config.losses.saturating_sub(1))
            }
            Phase::Down { .. } => moment.config.retry_max * 2,
        };
        let is_heard = |at: Instant| moment.now.saturating_duration_since(at) < window;
        match (self.heard_at.is_some_and(is_heard), self.was_up) {
            (true, _) => DownReason::NotHeard,
            (false, true) => DownReason::StoppedAnswering,
            (false, false) => DownReason::NeverAnswered,
        }
    }
}
