//! The one place of the daemon that reads time and randomness; everything else is given them.

use std::time::Instant;

use rand_core::{OsRng, RngCore};

/// The time now, for the cores.
#[expect(clippy::disallowed_methods, reason = "the daemon's only clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
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
