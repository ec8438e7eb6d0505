//! How far apart the clocks of two hosts are, for `weave doctor` alone: nothing is ever decided by it.
//!
//! Both ends of a link now and then say what their clock shows, in QUIC datagrams: those belong to the session that the
//! link handshake has bound, cost no stream, and may be lost. A datagram is the byte [`TIME`] and milliseconds since 1970,
//! eight bytes, little endian; other first bytes are for versions to come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::clock;

/// First byte of a datagram that tells the time.
const TIME: u8 = 1;
/// After the first telling, for the case that it is lost.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Between all others: each costs a datagram and its acknowledgement on every link, and clocks drift slowly.
const LAST_PAUSE: Duration = Duration::from_secs(600);
/// What is kept while nothing has been heard.
const UNKNOWN: i64 = i64::MIN;

/// What is known of the clock at the other end of a link.
#[derive(Debug, Clone)]
pub(crate) struct Skew(Arc<AtomicI64>);

impl Default for Skew {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl Skew {
    /// How many milliseconds the other clock is ahead of ours; negative when it is behind.
    pub(crate) fn ahead_ms(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNKNOWN)
    }

    fn record(&self, theirs_ms: i64, ours_ms: i64, rtt: Duration) {
        let on_the_way = i64::try_from(rtt.as_millis() / 2).unwrap_or(i64::MAX);
        let ahead = theirs_ms.saturating_add(on_the_way).saturating_sub(ours_ms);
        self.0.store(ahead.max(UNKNOWN + 1), Ordering::Relaxed);
    }
}

/// Tells and hears until the connection ends.
pub(super) async fn exchange(connection: quinn::Connection, skew: Skew) {
    tokio::join!(tell(&connection), hear(&connection, &skew));
}

async fn tell(connection: &quinn::Connection) {
    let mut pause = FIRST_PAUSE;
    // An end that takes no datagrams does not want to know.
    while connection.send_datagram(encode(clock::wall_ms())).is_ok() {
        tokio::time::sleep(pause).await;
        pause = LAST_PAUSE;
    }
}

async fn hear(connection: &quinn::Connection, skew: &Skew) {
    while let Ok(datagram) = connection.read_datagram().await {
        if let Some(theirs) = decode(&datagram) {
            skew.record(theirs, clock::wall_ms(), connection.rtt());
        }
    }
}

fn encode(ms: i64) -> Bytes {
    let mut datagram = vec![TIME];
    datagram.extend_from_slice(&ms.to_le_bytes());
    datagram.into()
}

fn decode(datagram: &[u8]) -> Option<i64> {
    let (first, rest) = datagram.split_first()?;
    if *first != TIME {
        return None;
    }
    rest.try_into().ok().map(i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_way_there_and_back_is_no_skew() {
        let skew = Skew::default();
        assert_eq!(skew.ahead_ms(), None);
        skew.record(1_000_000, 1_000_040, Duration::from_millis(80));
        assert_eq!(skew.ahead_ms(), Some(0));
        skew.record(940_000, 1_000_000, Duration::ZERO);
        assert_eq!(skew.ahead_ms(), Some(-60_000));
    }

    #[test]
    fn a_time_is_read_as_it_was_told_and_nothing_else_is_a_time() {
        for ms in [0, -1, 1_763_719_200_000, i64::MIN, i64::MAX] {
            assert_eq!(decode(&encode(ms)), Some(ms));
            // Whatever a clock shows, it is known afterwards that something was heard.
            let skew = Skew::default();
            skew.record(ms, 1, Duration::MAX);
            assert!(skew.ahead_ms().is_some());
        }
        for other in [&b""[..], &[TIME], &[TIME; 8], &[TIME; 10], &[2; 9]] {
            assert_eq!(decode(other), None, "{other:?}");
        }
    }
}
