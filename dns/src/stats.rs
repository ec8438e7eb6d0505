//! What the server counts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How a query ended. The label of its counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// A name or an address of ours, answered with records.
    Answered,
    /// A name of ours that has nothing of the type asked for.
    Empty,
    /// A name below our domain that nobody has.
    Unknown,
    /// Outside our domain, answered out of the cache.
    Cached,
    /// Outside our domain, answered by an upstream server.
    Forwarded,
    /// Outside our domain, and no upstream server gave an answer.
    Failed,
    /// Outside our domain, while as many queries were waiting for upstream servers as may.
    Overloaded,
    /// Not a query that we understand.
    Malformed,
    /// From a client that is not allowed to ask.
    Denied,
}

/// Upper bounds of the latency histogram; one more bucket counts what took longer.
pub const LATENCY_BUCKETS: [Duration; 8] = [
    Duration::from_micros(50),
    Duration::from_micros(200),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(2500),
];

/// Counts since the server started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Queries by how they ended, in the order of [`Outcome::ALL`].
    pub queries: [u64; Outcome::ALL.len()],
    /// Queries by how long they took from reading to sending, not cumulative: one count per bound of
    /// [`LATENCY_BUCKETS`], and one for all above.
    pub latency: [u64; LATENCY_BUCKETS.len() + 1],
    /// The sum of those times.
    pub latency_sum: Duration,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::Empty,
        Self::Unknown,
        Self::Cached,
        Self::Forwarded,
        Self::Failed,
        Self::Overloaded,
        Self::Malformed,
        Self::Denied,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
            Self::Cached => "cached",
            Self::Forwarded => "forwarded",
            Self::Failed => "failed",
            Self::Overloaded => "overloaded",
            Self::Malformed => "malformed",
            Self::Denied => "denied",
        }
    }
}

impl Stats {
    /// How many queries ended like this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.queries.get(outcome as usize).copied().unwrap_or_default()
    }

    /// How many queries there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.queries.iter().sum()
    }
}

/// The counters themselves, shared by everything that answers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    queries: [AtomicU64; Outcome::ALL.len()],
    latency: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    latency_sum_ns: AtomicU64,
}

impl Counters {
    pub(crate) fn record(&self, outcome: Outcome, took: Duration) {
        let bucket = LATENCY_BUCKETS.iter().position(|bound| took <= *bound).unwrap_or(LATENCY_BUCKETS.len());
        self.queries[outcome as usize].fetch_add(1, Relaxed);
        self.latency[bucket].fetch_add(1, Relaxed);
        self.latency_sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            queries: std::array::from_fn(|i| self.queries[i].load(Relaxed)),
            latency: std::array::from_fn(|i| self.latency[i].load(Relaxed)),
            latency_sum: Duration::from_nanos(self.latency_sum_ns.load(Relaxed)),
        }
    }
}
