//! The one place of the daemon that reads time and randomness; everything else is given them.

use std::time::{Instant, SystemTime};

use rand_core::{OsRng, RngCore};

/// The time now, for the cores.
#[expect(clippy::disallowed_methods, reason = "the daemon's only clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, to be told to others; nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "the daemon's only clock")]
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A seed for one core or one handshake.
pub(crate) fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    seed
}

/// A random number, for identifiers that need only differ.
pub(crate) fn random_u64() -> u64 {
    OsRng.next_u64()
}
