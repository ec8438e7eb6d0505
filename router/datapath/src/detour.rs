//! Whether the encrypted packets of a link travel as ESP or in UDP: pure, and without a word to the other end.
//!
//! # Policy
//! * ESP by itself is tried first. When no heartbeat has been answered for [`FIRST`], it is UDP's turn, then ESP's again, for
//!   longer each time ([`SECOND`] to [`LONGEST`]).
//! * What works is kept. When it ceases to, it gets [`PATIENCE`]: a router that died is noticed by then, and its kernel,
//!   which goes on without it, takes what it took before.
//! * Both ends take either at any time, and begin at the same moment, when the link does. Their turns differ by less than
//!   they last, so they meet.

use std::time::{Duration, Instant};

use weave_model::EspOver;

/// How long ESP by itself has at first: several rounds of heartbeats.
const FIRST: Duration = Duration::from_secs(3);
/// The turns after that, each twice as long as the one before.
const SECOND: Duration = Duration::from_secs(6);
const LONGEST: Duration = Duration::from_secs(96);
/// How long what has worked is held to. Links of routers that died end within a third of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The way that the packets of one link take. See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub struct Detour {
    over: EspOver,
    turn: Duration,
    /// `None`: it works, or there is no other.
    ends: Option<Instant>,
    is_open: bool,
}

impl Detour {
    /// ESP by itself, from now on. With `is_open` both ends can do UDP.
    #[must_use]
    pub fn new(is_open: bool, now: Instant) -> Self {
        Self { over: EspOver::Ip, turn: SECOND, ends: is_open.then(|| now + FIRST), is_open }
    }

    /// In what to send.
    #[must_use]
    pub const fn over(&self) -> EspOver {
        self.over
    }

    /// Whether UDP gets turns.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Heartbeats are answered.
    pub const fn handle_up(&mut self) {
        self.ends = None;
        self.turn = SECOND;
    }

    /// Heartbeats are not answered, any more or still.
    pub fn handle_down(&mut self, now: Instant) {
        if self.is_open && self.ends.is_none() {
            self.ends = Some(now + PATIENCE);
        }
    }

    /// The time that [`Detour::poll_timeout`] named has come. Tells whether it is the other's turn.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.ends.is_some_and(|at| now >= at);
        if is_due {
            self.over = self.over.other();
            self.ends = Some(now + self.turn);
            self.turn = self.turn.saturating_mul(2).min(LONGEST);
        }
        is_due
    }

    /// When [`Detour::handle_timeout`] is to be called next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.ends.map(|at| (at, "turn of ESP or of UDP"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "tests need some moment to begin at")]
    fn begin() -> Instant {
        Instant::now()
    }

    /// Runs two ends for `length`, the second of which begins later; tells in what both sent at the end of each second.
    fn both(lag: Duration, length: u64, passes: impl Fn(EspOver) -> bool) -> Vec<(EspOver, EspOver)> {
        let begin = begin();
        let mut ends = [Detour::new(true, begin), Detour::new(true, begin + lag)];
        let seconds = (1..=length).map(|second| {
            let now = begin + lag + Duration::from_secs(second);
            for end in &mut ends {
                while let Some((at, _)) = end.poll_timeout().filter(|(at, _)| *at <= now) {
                    end.handle_timeout(at);
                }
            }
            let [a, b] = ends.map(|end| end.over());
            if passes(a) && passes(b) {
                ends.iter_mut().for_each(Detour::handle_up);
            }
            (a, b)
        });
        seconds.collect()
    }

    #[test]
    fn what_works_is_kept() {
        let said = both(Duration::ZERO, 1_000, |_| true);
        assert!(said.iter().all(|both| *both == (EspOver::Ip, EspOver::Ip)));
    }

    #[test]
    fn where_only_udp_passes_it_is_found_in_seconds_and_kept() {
        let said = both(Duration::from_millis(700), 1_000, |over| over == EspOver::Udp);
        let found = said.iter().position(|both| *both == (EspOver::Udp, EspOver::Udp)).unwrap();
        assert!(found < 5, "{found}");
        assert!(said[found..].iter().all(|both| *both == (EspOver::Udp, EspOver::Udp)));
    }

    #[test]
    fn what_has_worked_is_held_to_while_a_router_may_be_dead() {
        let now = begin();
        let mut detour = Detour::new(true, now);
        detour.handle_up();
        detour.handle_down(now);
        assert!(!detour.handle_timeout(now + PATIENCE / 2));
        // Said again with another reason.
        detour.handle_down(now + PATIENCE / 2);
        assert!(detour.handle_timeout(now + PATIENCE));
        assert_eq!(detour.over(), EspOver::Udp);
    }

    #[test]
    fn without_the_other_ends_consent_there_is_no_udp() {
        let now = begin();
        let mut detour = Detour::new(false, now);
        detour.handle_down(now);
        assert_eq!(detour.poll_timeout(), None);
        assert!(!detour.handle_timeout(now + LONGEST));
    }

    proptest! {
        #[test]
        fn ends_that_begin_apart_meet_in_either(lag in 0_u64..5_000) {
            // Nothing passes: each must get its turns at both ends at once, for two seconds on end.
            let said = both(Duration::from_millis(lag), 600, |_| false);
            for over in EspOver::ALL {
                prop_assert!(said[3..].windows(2).any(|w| w.iter().all(|both| *both == (over, over))), "{over:?}");
            }
        }
    }
}
