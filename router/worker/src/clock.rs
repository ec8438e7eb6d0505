//! The only clock of the data plane.

use std::time::Instant;

/// The time, read once per round of a worker and handed to everything that asks.
#[expect(clippy::disallowed_methods, reason = "the one place where this shell reads the time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
