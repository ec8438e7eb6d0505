//! How long to keep looking before going to sleep.
//!
//! Waking a sleeping thread on another processor costs more than everything else that is done for a small packet
//! (measured: 50 of 90 microseconds of a round trip). While packets follow each other closely it pays to keep
//! looking, yielding the processor between looks; when the next one is far off it does not, and an idle worker must
//! cost nothing.

use std::time::{Duration, Instant};

/// Gaps between packets up to which it pays to keep looking.
const MAX_GAP: Duration = Duration::from_micros(250);
/// The longest look.
const MAX_WINDOW: Duration = Duration::from_micros(400);
/// The shortest look, under bulk load. Longer takes the processor from those who produce the load.
const MIN_WINDOW: Duration = Duration::from_micros(20);
/// A gap counts as this at most, so that one pause does not hide what came before.
const GAP_CAP: Duration = Duration::from_millis(1);

/// Follows the rhythm of the traffic.
#[derive(Debug)]
pub(crate) struct Rhythm {
    /// Smoothed time between rounds that had work.
    gap: Duration,
    last_work: Instant,
}

impl Rhythm {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { gap: GAP_CAP, last_work: now }
    }

    /// There was work.
    pub(crate) fn worked(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last_work).min(GAP_CAP);
        self.gap = (self.gap * 7 + gap) / 8;
        self.last_work = now;
    }

    /// Whether to look again rather than go to sleep.
    pub(crate) fn keeps_looking(&self, now: Instant) -> bool {
        self.gap <= MAX_GAP
            && now.saturating_duration_since(self.last_work) < (self.gap * 2).clamp(MIN_WINDOW, MAX_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_traffic_is_waited_for_and_rare_traffic_is_not() {
        let mut now = crate::clock::now();
        let mut rhythm = Rhythm::new(now);
        assert!(!rhythm.keeps_looking(now));
        for _ in 0..50 {
            now += Duration::from_micros(150);
            rhythm.worked(now);
        }
        assert!(rhythm.keeps_looking(now + Duration::from_micros(200)));
        assert!(!rhythm.keeps_looking(now + MAX_WINDOW));
        for _ in 0..50 {
            now += Duration::from_millis(5);
            rhythm.worked(now);
        }
        assert!(!rhythm.keeps_looking(now));
    }
}
