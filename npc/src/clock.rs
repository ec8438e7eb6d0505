//! The only place that reads the time.

use std::time::Instant;

/// Now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the only clock")]
pub fn now() -> Instant {
    Instant::now()
}
