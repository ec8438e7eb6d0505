//! The one place of this crate that reads the time.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "this process's only clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
