//! Probes that are on their way.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Probes that are remembered at most: several rounds of a search and the beats beside them.
const MAX_REMEMBERED: usize = 64;
/// How long an answer still counts. One that comes after its probe was given up shows that the path lives and is slow.
const REMEMBERED_FOR: Duration = Duration::from_secs(4);
/// No answer is waited for longer than this, whatever the last ones took.
const MAX_PATIENCE: Duration = Duration::from_secs(2);

/// What a probe was sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Does the path live? A loss counts.
    Beat,
    /// Does the size in use still pass? A loss starts a search.
    Full,
    /// Part of an attempt or a search, which look at what was answered.
    Search,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    sequence: u64,
    size: u16,
    purpose: Purpose,
    sent: Instant,
    /// When it counts as lost; `None`: it has been counted.
    lost_at: Option<Instant>,
}

/// How many probes were given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) beats: u32,
    pub(crate) fulls: u32,
}

/// Probes whose answers are of interest, oldest first, and what answers take.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    last_sequence: u64,
    flights: VecDeque<Flight>,
    rtt: Option<Duration>,
}

impl Flights {
    /// Smoothed time there and back.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// How long to wait for an answer: at least `least`, and twice what answers take.
    pub(crate) fn patience(&self, least: Duration) -> Duration {
        (self.rtt.unwrap_or_default() * 2).clamp(least, MAX_PATIENCE.max(least))
    }

    /// Remembers a probe that is sent now. Returns its sequence number.
    pub(crate) fn launch(&mut self, size: u16, purpose: Purpose, least: Duration, now: Instant) -> u64 {
        self.last_sequence += 1;
        let is_old = |flight: &Flight| now.saturating_duration_since(flight.sent) > REMEMBERED_FOR;
        while self.flights.len() >= MAX_REMEMBERED || self.flights.front().is_some_and(is_old) {
            self.flights.pop_front();
        }
        let lost_at = match purpose {
            Purpose::Beat | Purpose::Full => Some(now + self.patience(least)),
            Purpose::Search => None,
        };
        self.flights.push_back(Flight { sequence: self.last_sequence, size, purpose, sent: now, lost_at });
        self.last_sequence
    }

    /// An answer came. Returns whether it was asked for, for the first time.
    pub(crate) fn land(&mut self, sequence: u64, size: u16, now: Instant) -> bool {
        let place = self.flights.iter().position(|f| f.sequence == sequence && f.size == size);
        let Some(flight) = place.and_then(|place| self.flights.remove(place)) else { return false };
        let sample = now.saturating_duration_since(flight.sent);
        if sample > REMEMBERED_FOR {
            return false;
        }
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        true
    }

    /// Gives up what was waited for long enough.
    pub(crate) fn lose(&mut self, now: Instant) -> Lost {
        let mut lost = Lost::default();
        for flight in self.flights.iter_mut().filter(|f| f.lost_at.is_some_and(|at| at <= now)) {
            flight.lost_at = None;
            match flight.purpose {
                Purpose::Beat => lost.beats += 1,
                Purpose::Full => lost.fulls += 1,
                Purpose::Search => {}
            }
        }
        lost
    }

    /// When the next probe counts as lost.
    pub(crate) fn next_loss(&self) -> Option<Instant> {
        self.flights.iter().filter_map(|flight| flight.lost_at).min()
    }

    /// Forgets what is on its way: its answers mean nothing any more.
    pub(crate) fn clear(&mut self) {
        self.flights.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(400);

    #[test]
    fn an_answer_counts_once_and_only_for_what_was_asked() {
        let (mut flights, start) = (Flights::default(), start());
        let sequence = flights.launch(46, Purpose::Beat, LEAST, start);
        assert!(!flights.land(sequence + 1, 46, start));
        assert!(!flights.land(sequence, 1450, start));
        assert!(flights.land(sequence, 46, start + Duration::from_millis(8)));
        assert!(!flights.land(sequence, 46, start));
        assert_eq!(flights.rtt(), Some(Duration::from_millis(8)));
        let late = flights.launch(46, Purpose::Beat, LEAST, start);
        assert!(!flights.land(late, 46, start + Duration::from_secs(9)));
    }

    #[test]
    fn a_loss_counts_once_and_a_late_answer_is_still_heard() {
        let (mut flights, start) = (Flights::default(), start());
        let sequence = flights.launch(46, Purpose::Beat, LEAST, start);
        flights.launch(1450, Purpose::Full, LEAST, start);
        assert_eq!(flights.next_loss(), Some(start + LEAST));
        assert_eq!(flights.lose(start + LEAST / 2), Lost::default());
        assert_eq!(flights.lose(start + LEAST), Lost { beats: 1, fulls: 1 });
        assert_eq!(flights.lose(start + LEAST), Lost::default());
        assert!(flights.land(sequence, 46, start + LEAST * 2));
        assert_eq!(flights.patience(LEAST), LEAST * 4, "what comes late is waited for longer");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut flights, start) = (Flights::default(), start());
        for _ in 0..10_000 {
            flights.launch(46, Purpose::Search, LEAST, start);
        }
        assert_eq!(flights.flights.len(), MAX_REMEMBERED);
    }

    #[expect(clippy::disallowed_methods, reason = "a starting point; what follows is virtual")]
    fn start() -> Instant {
        Instant::now()
    }
}
