//! The one place that reads the time.

use std::time::Instant;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

/// The present moment, for waits.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the only clock of this crate")]
pub fn now() -> Instant {
    Instant::now()
}

/// The present time of day, for people who read objects; nothing here compares it with another host's.
#[must_use]
pub fn of_day() -> MicroTime {
    MicroTime(Timestamp::now())
}
