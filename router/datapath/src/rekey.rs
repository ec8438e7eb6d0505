//! Which keys an encrypted path through the kernel uses: pure, and without a word to the other end.
//!
//! The keys of a link follow one another by number (**epochs**), the same at both ends. An end **sends** with one epoch
//! and **takes** several. It sees in the kernel's counters with which epochs the other end sends; only what was genuine counts.
//!
//! # Policy
//! * An end takes the next epoch before anybody may use it: all from the oldest in use to one beyond what either end sends with.
//! * It moves on when its key is old or has encrypted much, *and* the other end has been seen to send with the same epoch.
//!   Who sends with an epoch takes the one after it; so nobody sends with a key that the other end does not have, whatever is
//!   lost or late.
//! * Who sees the other end ahead follows at once.
//! * A former epoch is taken for a while after the other end was seen to have left it, for packets on their way.
//! * If the other end's router dies while its kernel goes on, its sending epoch stays, and we move on once at most: both
//!   directions keep working.
//! * A key to send with is put into the kernel once. One that somebody removed is not made again: its numbers would begin anew.
//!
//! Every change leaves at least [`RekeyConfig::pace`] between two epochs, several times the time between two looks at the
//! counters.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use weave_model::EspOver;

/// When keys are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyConfig {
    /// A key that was used for this long is old. What is recorded today is opened by who steals the key of its epoch only.
    pub max_age: Duration,
    /// A key that has encrypted this much is old. AES-GCM would bear far more (2^64 blocks of 64-bit nonces, RFC 4106).
    pub max_bytes: u64,
    /// Least time between two epochs.
    pub pace: Duration,
    /// For how long a former key is taken after the other end was seen to have left it.
    pub overlap: Duration,
}

impl RekeyConfig {
    /// Keys that are used for `max_age`; what else there is as it is by default, or shorter where that is short.
    #[must_use]
    pub fn with_max_age(max_age: Duration) -> Self {
        let usual = Self::default();
        Self {
            max_age,
            pace: usual.pace.min(max_age),
            overlap: usual.overlap.min(max_age.saturating_mul(2)),
            ..usual
        }
    }

    /// How often it has to be looked at the counters, so that every change is seen well before the next.
    #[must_use]
    pub fn look(&self) -> Duration {
        self.pace / 4
    }
}

impl Default for RekeyConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(60 * 60),
            max_bytes: 1 << 40,
            pace: Duration::from_secs(10),
            overlap: Duration::from_secs(20),
        }
    }
}

/// The epochs of one link. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Rekey {
    config: RekeyConfig,
    sending: u32,
    since: Instant,
    is_worn: bool,
    /// The latest epoch with which the other end was seen to send, and since when.
    seen: Option<u32>,
    /// The oldest epoch that is taken.
    oldest: u32,
    /// From when on epochs before each are not taken any more; in order.
    retiring: VecDeque<(u32, Instant)>,
    /// Keys of each direction that were put into the kernel.
    given_out: [BTreeSet<(u32, EspOver)>; 2],
}

/// Which way a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyUse {
    /// What we send.
    Send,
    /// What we take.
    Take,
}

impl Rekey {
    /// Epoch 0, at both ends.
    #[must_use]
    pub const fn new(config: RekeyConfig, now: Instant) -> Self {
        Self {
            config,
            sending: 0,
            since: now,
            is_worn: false,
            seen: None,
            oldest: 0,
            retiring: VecDeque::new(),
            given_out: [BTreeSet::new(), BTreeSet::new()],
        }
    }

    /// With which epoch to send.
    #[must_use]
    pub const fn sending(&self) -> u32 {
        self.sending
    }

    /// Since when.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Which epochs to take.
    #[must_use]
    pub fn taken(&self) -> RangeInclusive<u32> {
        self.oldest..=self.sending.max(self.seen.unwrap_or(0)).saturating_add(1)
    }

    /// Whether a key may be put into the kernel now; from then on it may not. The kernel has it, then, until it is
    /// neither sent with nor taken.
    pub fn give_out(&mut self, way: KeyUse, over: EspOver, epoch: u32) -> bool {
        self.given_out[way as usize].insert((epoch, over))
    }

    /// Whether it was.
    #[must_use]
    pub fn is_given_out(&self, way: KeyUse, over: EspOver, epoch: u32) -> bool {
        self.given_out[way as usize].contains(&(epoch, over))
    }

    /// Something genuine came in this epoch.
    pub fn handle_taken(&mut self, epoch: u32, now: Instant) {
        if !self.taken().contains(&epoch) || self.seen.is_some_and(|seen| epoch <= seen) {
            return;
        }
        self.seen = Some(epoch);
        if epoch > self.oldest {
            self.retiring.push_back((epoch, now + self.config.overlap));
        }
        if epoch > self.sending {
            self.move_to(epoch, now);
        }
    }

    /// The key that we send with has encrypted this much.
    pub const fn handle_sent(&mut self, bytes: u64) {
        self.is_worn |= bytes >= self.config.max_bytes;
    }

    /// The key that we send with is not in the kernel any more, and nothing is sent: another has to be used as soon as
    /// that is allowed.
    pub const fn handle_lost(&mut self) {
        self.is_worn = true;
    }

    /// The time that [`Rekey::poll_timeout`] named has come. Tells whether anything changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = (self.sending, self.oldest);
        while let Some((epoch, at)) = self.retiring.front().copied()
            && now >= at
        {
            self.retiring.pop_front();
            self.oldest = epoch;
        }
        if self.due().is_some_and(|at| now >= at) {
            self.move_to(self.sending.saturating_add(1), now);
        }
        before != (self.sending, self.oldest)
    }

    /// When [`Rekey::handle_timeout`] is to be called next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let retiring = self.retiring.front().map(|(_, at)| (*at, "a former key of the fast path"));
        let due = self.due().map(|at| (at, "a new key of the fast path"));
        retiring.into_iter().chain(due).min()
    }

    /// When to move on, if the other end has followed.
    fn due(&self) -> Option<Instant> {
        let has_followed = self.seen.is_some_and(|seen| seen >= self.sending);
        let age = if self.is_worn { self.config.pace } else { self.config.max_age.max(self.config.pace) };
        (has_followed && self.sending < u32::MAX - 1).then(|| self.since + age)
    }

    fn move_to(&mut self, epoch: u32, now: Instant) {
        self.sending = epoch;
        self.since = now;
        self.is_worn = false;
    }
}

#[cfg(test)]
mod tests;
