//! How often, and how patiently.

use std::time::Duration;

/// The pace of heartbeats. The defaults are what the product uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Between small heartbeats while there is traffic. With three losses a block is noticed within four of these:
    /// 1.6 s, so that traffic moves to the sleeve in less than 2 s.
    pub small_interval: Duration,
    /// Between full-size heartbeats while there is traffic. A lost one is tried again for up to
    /// 0.9 s, so that a path that shrinks is noticed in less than 2 s.
    pub full_interval: Duration,
    /// Between small heartbeats while there is no traffic. In an idle mesh of 40 routers each then sends
    /// 8 small frames a second. Nothing that is in use waits for it: the first sign of traffic asks at once.
    pub idle_interval: Duration,
    /// How long the pace for traffic is kept after the last of it: what pauses for seconds, as a shell or a
    /// ping does, is in use all the time.
    pub calm_after: Duration,
    /// Small heartbeats in a row without answer until the path is down. One loss is ordinary, and two happen to a lossy
    /// path every few minutes.
    pub losses: u32,
    /// From the loss of a path to the first attempt to have it back; doubles with each that fails.
    pub retry_min: Duration,
    /// The longest time between two attempts. A path that comes back is seen by whichever end asks first.
    pub retry_max: Duration,
    /// A path that was up for less than this is tried again at the pace it had reached, so that one that
    /// comes and goes does not drag traffic to and fro every second.
    pub stable_after: Duration,
    /// Until a size above the one in use is tried for the first time: what made the path smaller may have been a passing
    /// loss.
    pub raise_first: Duration,
    /// Between later tries (RFC 8899 section 5.1.1: PMTU_RAISE_TIMER is 600 s).
    pub raise_interval: Duration,
    /// With more links than this the two paces for traffic slow down in proportion, so that the cost of heartbeats is
    /// bounded: at most about 1,000 probes a second.
    pub links_at_full_pace: usize,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self {
            small_interval: Duration::from_millis(400),
            full_interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(10),
            calm_after: Duration::from_secs(10),
            losses: 3,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(10),
            stable_after: Duration::from_secs(60),
            raise_first: Duration::from_secs(60),
            raise_interval: Duration::from_secs(600),
            links_at_full_pace: 256,
        }
    }
}
