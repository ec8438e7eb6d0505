//! How often one address may guess, and how many handshakes may start at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Failures that cost nothing: a mistyped password, or a connection that broke at a bad moment.
const FREE_FAILURES: u32 = 3;

/// The penalty for the first failure that costs; each further one doubles it.
const FIRST_PENALTY: Duration = Duration::from_secs(1);

/// The longest penalty: at this pace one address has some 50,000 guesses a year.
const MAX_PENALTY: Duration = Duration::from_secs(600);

/// Failures are forgotten after this long without a further one: a day, so that a source which fails many
/// times at once and then waits to be forgotten gains no more guesses than one which is patient.
const MEMORY: Duration = Duration::from_secs(86_400);

/// Sources remembered at once. The one whose last failure is oldest is forgotten for a new one.
const MAX_SOURCES: usize = 4096;

/// Handshakes that may start at once: a whole mesh of 1,000 routers redials its one known peer in seconds.
const BURST: u32 = 256;

/// Time in which one more handshake may start: 128 a second. A handshake with four passwords costs a listener
/// about a millisecond of one core.
const REFILL: Duration = Duration::from_micros(7_813);

/// Slows down whoever guesses passwords, and bounds the work that strangers can cause.
///
/// A source is an IPv4 address, or an IPv6 /64, which is what one host is commonly given. Memory is bounded;
/// time is an argument and must not go back.
#[derive(Debug)]
pub struct GuessLimiter {
    record_by_source: BTreeMap<Source, Record>,
    /// The same sources by the time of their last failure, oldest first.
    oldest: BTreeSet<(Instant, Source)>,
    tokens: u32,
    /// When the last whole token was added.
    refilled: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4(Ipv4Addr),
    /// The upper half of the address.
    V6(u64),
}

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u32,
    last: Instant,
}

impl GuessLimiter {
    /// A limiter that has seen nothing.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { record_by_source: BTreeMap::new(), oldest: BTreeSet::new(), tokens: BURST, refilled: now }
    }

    /// Asks whether a connection from `ip` may start a handshake now. If so, it is counted.
    ///
    /// # Errors
    /// The time at which to try again, when this source failed too often or too many start everywhere.
    pub fn allow(&mut self, ip: IpAddr, now: Instant) -> Result<(), Instant> {
        self.forget(now);
        let source = Source::of(ip);
        let record = self.record_by_source.get(&source).copied();
        // A source under penalty costs the others no token.
        if let Some(until) = record.map(Record::until).filter(|until| *until > now) {
            return Err(until);
        }
        self.refill(now);
        self.tokens = self.tokens.checked_sub(1).ok_or(self.refilled + REFILL)?;
        // Its penalty starts again with this try, whatever comes of it: else it could make many at once.
        if let Some(record) = record.filter(|record| record.failures > FREE_FAILURES) {
            self.remove(source);
            self.insert(source, record.failures, now);
        }
        Ok(())
    }

    /// Counts a handshake from `ip` that ended with an unproven guess.
    pub fn record_failure(&mut self, ip: IpAddr, now: Instant) {
        self.forget(now);
        let source = Source::of(ip);
        let failures = self.remove(source).map_or(0, |record| record.failures);
        self.insert(source, failures.saturating_add(1), now);
    }

    /// Clears the record of `ip`: somebody there knows the password.
    pub fn record_success(&mut self, ip: IpAddr, now: Instant) {
        self.forget(now);
        self.remove(Source::of(ip));
    }

    /// Sources with failures that are remembered.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.record_by_source.len()
    }

    fn insert(&mut self, source: Source, failures: u32, last: Instant) {
        if self.record_by_source.len() >= MAX_SOURCES
            && let Some(&(_, oldest)) = self.oldest.first()
        {
            self.remove(oldest);
        }
        self.record_by_source.insert(source, Record { failures, last });
        self.oldest.insert((last, source));
    }

    fn remove(&mut self, source: Source) -> Option<Record> {
        let record = self.record_by_source.remove(&source)?;
        self.oldest.remove(&(record.last, source));
        Some(record)
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(last, source)) = self.oldest.first()
            && now.saturating_duration_since(last) >= MEMORY
        {
            self.remove(source);
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled);
        let missing = BURST - self.tokens;
        if elapsed >= REFILL * missing {
            (self.tokens, self.refilled) = (BURST, now);
            return;
        }
        // Fewer than are missing, so the count fits.
        let added = (elapsed.as_nanos() / REFILL.as_nanos()) as u32;
        self.tokens += added;
        self.refilled += REFILL * added;
    }
}

impl Record {
    /// When its source may try again.
    fn until(self) -> Instant {
        let Some(doublings) = self.failures.checked_sub(FREE_FAILURES + 1) else { return self.last };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.last + FIRST_PENALTY.saturating_mul(factor).min(MAX_PENALTY)
    }
}

impl Source {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(upper_half(address)),
        }
    }
}

const fn upper_half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary start; the tests count from it")]
    fn start() -> Instant {
        Instant::now()
    }

    fn v4(last: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + last).into()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_few_failures_are_free_and_then_the_wait_doubles_up_to_ten_minutes() {
        let mut now = start();
        let mut limiter = GuessLimiter::new(now);
        let mut waits = vec![];
        for _ in 0..16 {
            assert_eq!(limiter.allow(v4(1), now), Ok(()));
            limiter.record_failure(v4(1), now);
            let next = limiter.allow(v4(1), now).err().unwrap_or(now);
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
    }

    #[test]
    fn failures_at_the_same_moment_do_not_share_one_penalty() {
        let now = start();
        let mut limiter = GuessLimiter::new(now);
        for _ in 0..40 {
            limiter.allow(v4(1), now).unwrap();
        }
        for _ in 0..40 {
            limiter.record_failure(v4(1), now);
        }
        assert_eq!(limiter.allow(v4(1), now), Err(now + MAX_PENALTY));
    }

    #[test]
    fn after_a_penalty_only_one_try_is_made_at_a_time() {
        let now = start();
        let mut limiter = GuessLimiter::new(now);
        for _ in 0..=FREE_FAILURES {
            limiter.record_failure(v4(1), now);
        }
        let later = now + SECOND;
        assert_eq!(limiter.allow(v4(1), later), Ok(()));
        assert_eq!(limiter.allow(v4(1), later), Err(later + SECOND));
    }

    #[test]
    fn other_sources_are_not_punished_and_a_success_clears_the_record() {
        let now = start();
        let mut limiter = GuessLimiter::new(now);
        for _ in 0..10 {
            limiter.record_failure(v4(1), now);
        }
        assert_eq!(limiter.allow(v4(2), now), Ok(()));
        limiter.record_success(v4(1), now);
        assert_eq!(limiter.allow(v4(1), now), Ok(()));
        assert_eq!(limiter.sources(), 0);
    }

    #[test]
    fn one_ipv6_subnet_is_one_source_and_a_mapped_address_is_its_ipv4_address() {
        let now = start();
        let mut limiter = GuessLimiter::new(now);
        for host in 1..=4 {
            limiter.record_failure(format!("2001:db8::{host}").parse().unwrap(), now);
        }
        assert!(limiter.allow("2001:db8::ffff".parse().unwrap(), now).is_err());
        assert!(limiter.allow("2001:db8:0:1::1".parse().unwrap(), now).is_ok());
        for _ in 0..4 {
            limiter.record_failure("::ffff:10.0.0.1".parse().unwrap(), now);
        }
        assert!(limiter.allow(v4(1), now).is_err());
    }

    #[test]
    fn failures_are_forgotten_after_a_quiet_day() {
        let now = start();
        let mut limiter = GuessLimiter::new(now);
        for _ in 0..20 {
            limiter.record_failure(v4(1), now);
        }
        limiter.record_failure(v4(2), now + SECOND);
        assert_eq!(limiter.allow(v4(1), now + MEMORY), Ok(()));
        assert_eq!(limiter.sources(), 1);
    }

    #[test]
    fn a_flood_of_sources_displaces_the_oldest_and_takes_no_more_memory() {
        let now = start();
        let mut limiter = GuessLimiter::new(now);
        let sources = u32::try_from(MAX_SOURCES).unwrap();
        for source in 0..3 * sources {
            limiter.record_failure(v4(source), now + Duration::from_millis(source.into()));
            assert!(limiter.sources() <= MAX_SOURCES);
        }
        assert_eq!(limiter.oldest.len(), MAX_SOURCES);
        assert!(!limiter.record_by_source.contains_key(&Source::of(v4(2 * sources - 1))));
        assert!(limiter.record_by_source.contains_key(&Source::of(v4(2 * sources))));
    }

    #[test]
    fn handshakes_start_in_a_burst_and_then_at_a_steady_pace() {
        let now = start();
        let mut limiter = GuessLimiter::new(now);
        let started =
            |limiter: &mut GuessLimiter, at| (0..1000).filter(|n| limiter.allow(v4(*n), at).is_ok()).count();
        assert_eq!(started(&mut limiter, now), 256);
        let next = limiter.allow(v4(1), now).unwrap_err();
        assert_eq!(next, now + REFILL);
        assert_eq!(started(&mut limiter, next), 1);
        assert_eq!(started(&mut limiter, next + SECOND), 127);
        assert_eq!(started(&mut limiter, next + 100 * SECOND), 256);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_two_indexes_agree_and_a_refusal_names_a_later_time(
            steps in proptest::collection::vec((0..4_u8, 0..6_u32, 0..900_000_u64), 0..200),
        ) {
            let mut now = start();
            let mut limiter = GuessLimiter::new(now);
            for (step, source, wait) in steps {
                now += Duration::from_millis(wait);
                match step {
                    0 => limiter.record_success(v4(source), now),
                    1 | 2 => limiter.record_failure(v4(source), now),
                    _ => {
                        if let Err(until) = limiter.allow(v4(source), now) {
                            prop_assert!(until > now && until <= now + MAX_PENALTY);
                            prop_assert!(limiter.allow(v4(source), until).is_ok());
                            now = until;
                        }
                    }
                }
                let indexed: BTreeSet<_> =
                    limiter.record_by_source.iter().map(|(source, record)| (record.last, *source)).collect();
                prop_assert_eq!(&indexed, &limiter.oldest);
            }
        }
    }
}
