//! What those who asked for addresses wait for, in the log.

use std::time::{Duration, Instant};

/// Who is answered within this time is not worth a line: a donation takes a round trip, an election a second.
const GRACE: Duration = Duration::from_secs(2);
/// What is waited for is compared with what was said at most so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Says what is waited for, whenever that changes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    next_look: Option<Instant>,
    told: String,
}

impl Waiting {
    /// Looks whether there is something new to say. `reason` is asked only when it is time.
    pub(super) fn look(&mut self, is_waiting: bool, now: Instant, reason: impl FnOnce() -> Option<String>) {
        if !is_waiting {
            if !self.told.is_empty() {
                tracing::info!("nobody waits for addresses any more");
            }
            *self = Self::default();
            return;
        }
        if now < *self.next_look.get_or_insert(now + GRACE) {
            return;
        }
        self.next_look = Some(now + LOOK_EVERY);
        if let Some(reason) = reason().filter(|reason| *reason != self.told) {
            tracing::info!(waiting_for = reason, "addresses are waited for");
            self.told = reason;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_soon_is_not_told_and_the_rest_when_it_changes() {
        let (start, mut waiting) = (crate::clock::now(), Waiting::default());
        let mut look = |is_waiting, ms, reason: &str| {
            waiting.look(is_waiting, start + Duration::from_millis(ms), || Some(reason.to_owned()));
            waiting.told.clone()
        };
        assert_eq!(look(true, 0, "quorum"), "");
        assert_eq!(look(false, 500, ""), "");
        assert_eq!(look(true, 1_000, "quorum"), "");
        assert_eq!(look(true, 2_999, "quorum"), "");
        assert_eq!(look(true, 3_000, "quorum"), "quorum");
        assert_eq!(look(true, 3_500, "space"), "quorum");
        assert_eq!(look(true, 4_000, "space"), "space");
        assert_eq!(look(false, 4_100, ""), "");
    }
}
