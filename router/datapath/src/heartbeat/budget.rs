//! How often something may happen.

use std::time::{Duration, Instant};

/// A bucket of tokens: `capacity` at once, then one in each `refill`.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: u32,
    refill: Duration,
    left: u32,
    /// What has passed since then is not credited yet.
    credited: Instant,
}

impl Budget {
    pub(crate) const fn new(capacity: u32, refill: Duration, now: Instant) -> Self {
        Self { capacity, refill, left: capacity, credited: now }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.credited).as_nanos() / self.refill.as_nanos().max(1);
        let earned = u32::try_from(passed).unwrap_or(u32::MAX);
        if earned >= self.capacity - self.left {
            self.left = self.capacity;
            self.credited = now;
        } else {
            self.left += earned;
            self.credited += self.refill * earned;
        }
        let has_one = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a starting point; what follows is virtual")]
    fn a_burst_is_let_through_and_then_only_the_refill() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut budget = Budget::new(3, Duration::from_millis(100), start);
        let taken = |budget: &mut Budget, ms| (0..10).filter(|_| budget.take(at(ms))).count();
        assert_eq!(taken(&mut budget, 0), 3);
        assert_eq!(taken(&mut budget, 99), 0);
        assert_eq!(taken(&mut budget, 250), 2);
        assert_eq!(taken(&mut budget, 299), 0);
        assert_eq!(taken(&mut budget, 300), 1);
        assert_eq!(taken(&mut budget, 99_999), 3);
    }
}
