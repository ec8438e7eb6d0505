//! How long a datagram may be on a path, and whether anything arrives at all.
//!
//! # Policy
//! * A path is *up* once a probe was answered. Probes are asked in quick succession at first, because the other end
//!   may set up its side of the link a moment later than we do.
//! * A size counts as usable only after a probe of that size was answered. From a size that every path should carry
//!   the search goes to the likely ones, largest first, then halves what is left between known good and known bad.
//! * After the search an idle path costs nothing. While data is sent, its size is confirmed about once a second; if
//!   that fails, the safe size is used at once and the path is searched again. If that is not answered either, the
//!   path is down.
//! * A larger size is looked for again every ten minutes, as long as there is traffic.
//!
//! # Driving
//! After every `handle_*` call, drain [`PathMtu::poll_transmit`] and [`PathMtu::poll_event`]; then wait for
//! [`PathMtu::poll_timeout`], and call [`PathMtu::handle_timeout`].

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use crate::{HEADER_LEN, Probe, RECORD_LEN};

/// IPv6 guarantees this much (RFC 8200 section 5), and every IPv4 path of today carries it. Bytes of IP packet.
const SAFE_PACKET: usize = 1280;
/// What every IPv4 host accepts (RFC 1122 section 3.3.3): tried when the safe size fails.
const FLOOR_PACKET: usize = 576;
/// Sizes that paths usually have: loopback and virtual links, jumbo frames, Ethernet.
const LIKELY_PACKETS: [usize; 4] = [65_535, 9000, 1500, SAFE_PACKET];
/// The search ends when good and bad are this close. Bytes; finer is not worth a probe.
const GRANULARITY: usize = 4;

/// Time to the second probe of a path that is not up; doubles from there.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest time between two probes of a path that is down.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// A peer that shows itself is asked again at once, but not more often than this.
const MIN_RETRY: Duration = Duration::from_millis(20);
/// A new path that answers nothing for this long is reported down.
const NEW_PATH_PATIENCE: Duration = Duration::from_secs(5);
/// A path that was up, and answers nothing for this long at the safe size, is reported down.
const OLD_PATH_PATIENCE: Duration = Duration::from_millis(1500);

/// The least time that an answer may take in the search before the probe is repeated; doubles with each try. Long
/// enough for a busy machine.
const MIN_ANSWER_TIME: Duration = Duration::from_millis(100);
/// Probes of one size before it is taken for too long.
const TRIES: u32 = 3;
/// Time between probes that confirm a size in use.
const VERIFY_RETRY: Duration = Duration::from_millis(250);
/// Length of a probe that only asks whether the path lives.
const SMALL_PROBE: usize = 96;
/// Time until a larger size is looked for again (RFC 8899 section 5.1.1: PMTU_RAISE_TIMER is 600 s).
const RAISE_INTERVAL: Duration = Duration::from_secs(600);
/// Probes whose answers are still of interest.
const MAX_OUTSTANDING: usize = 8;

/// What became known about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEvent {
    /// Datagrams of `size` bytes go there and back.
    Up {
        /// Bytes of UDP payload.
        size: usize,
        /// Time there and back.
        rtt: Duration,
    },
    /// The usable size changed. Bytes of UDP payload.
    SizeChanged(usize),
    /// Nothing gets through.
    Down(DownReason),
}

/// Why a path is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownReason {
    /// It never answered: blocked by a firewall, or the other end does not know the link.
    NeverAnswered,
    /// It was up, and stopped answering while there was traffic.
    StoppedAnswering,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverAnswered => "no probe was ever answered",
            Self::StoppedAnswering => "probes are no longer answered",
        })
    }
}

/// The state of one path. Sizes are bytes of UDP payload.
#[derive(Debug)]
pub struct PathMtu {
    ip_overhead: usize,
    next_nonce: u64,
    usable: usize,
    /// What the last event said; `None`: down.
    announced: Option<usize>,
    phase: Phase,
    raise_at: Instant,
    rtt: Option<Duration>,
    outstanding: VecDeque<(Probe, Instant)>,
    transmit: Option<Probe>,
    events: VecDeque<PathEvent>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Asking whether anything gets through.
    Connecting { since: Instant, attempt: u32, last: Option<Instant>, next: Instant, is_reported: bool },
    /// Asking for the largest size below `bad`.
    Searching { bad: usize, candidate: usize, tries: u32, next: Instant },
    /// Nothing to do until there is traffic.
    Settled,
    /// Asking whether a size in use still gets through.
    Verifying { size: usize, tries: u32, next: Instant },
}

/// The MTU of the overlay on a path: the largest IP packet of a container that travels in one datagram of `size`
/// bytes, with a tag of `tag_len` bytes.
#[must_use]
pub fn overlay_mtu(size: usize, tag_len: usize) -> u16 {
    const ETHERNET: usize = 14;
    let mtu = size.saturating_sub(HEADER_LEN + RECORD_LEN + tag_len + ETHERNET);
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

impl PathMtu {
    /// A path over IPv4 or IPv6 of which nothing is known; `seed` makes its nonces differ from those of others.
    #[must_use]
    pub fn new(is_ipv4: bool, seed: u64, now: Instant) -> Self {
        let ip_overhead = ip_overhead(is_ipv4);
        Self {
            ip_overhead,
            next_nonce: seed,
            usable: SAFE_PACKET - ip_overhead,
            announced: None,
            phase: Phase::connecting(now),
            raise_at: now,
            rtt: None,
            outstanding: VecDeque::new(),
            transmit: None,
            events: VecDeque::new(),
        }
    }

    /// The longest datagram that should be sent.
    #[must_use]
    pub const fn usable(&self) -> usize {
        self.usable
    }

    /// Datagrams longer than this are what [`PathMtu::handle_traffic`] calls large.
    #[must_use]
    pub const fn safe(&self) -> usize {
        SAFE_PACKET - self.ip_overhead
    }

    /// Smoothed time there and back.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// A probe was answered. Answers that nobody waits for are ignored.
    pub fn handle_ack(&mut self, nonce: u64, now: Instant) {
        let Some(place) = self.outstanding.iter().position(|(probe, _)| probe.nonce == nonce) else {
            return;
        };
        let Some((probe, sent)) = self.outstanding.remove(place) else {
            return;
        };
        let sample = now.saturating_duration_since(sent);
        let rtt = self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8);
        self.rtt = Some(rtt);
        match self.phase {
            Phase::Connecting { .. } if probe.size >= FLOOR_PACKET - self.ip_overhead => {
                self.usable = probe.size;
                if self.announced.is_none() {
                    self.announced = Some(probe.size);
                    self.events.push_back(PathEvent::Up { size: probe.size, rtt });
                }
                self.search(self.largest() + 1, now);
            }
            Phase::Searching { bad, candidate, .. } if probe.size > self.usable => {
                self.usable = probe.size;
                // A late answer may prove right what was given up.
                let bad = if probe.size >= bad { self.largest() + 1 } else { bad };
                if probe.size >= candidate || bad <= candidate {
                    self.search(bad, now);
                }
            }
            Phase::Verifying { size, .. } if probe.size >= size => self.phase = Phase::Settled,
            Phase::Connecting { .. } | Phase::Searching { .. } | Phase::Settled | Phase::Verifying { .. } => {
            }
        }
    }

    /// The peer asked *us* something: it is there.
    pub fn handle_peer_probe(&mut self, now: Instant) {
        if let Phase::Connecting { last, next, .. } = &mut self.phase {
            let earliest = last.map_or(now, |last| last + MIN_RETRY);
            *next = (*next).min(earliest.max(now));
        }
    }

    /// The kernel refused a datagram of `size` bytes as too long for the interface.
    pub fn handle_too_big(&mut self, size: usize, now: Instant) {
        self.outstanding.retain(|(probe, _)| probe.size < size);
        match &mut self.phase {
            Phase::Searching { candidate, .. } if size > self.usable => {
                if size <= *candidate {
                    self.search(size, now);
                }
            }
            Phase::Connecting { attempt, next, .. } => {
                *attempt = (*attempt).max(TRIES);
                *next = (*next).max(now + MIN_RETRY);
            }
            _ if size <= self.usable => self.fall_back(now),
            Phase::Searching { .. } | Phase::Settled | Phase::Verifying { .. } => {}
        }
    }

    /// What happened on the path in the last second or so: whether data was sent, whether some of it was longer than
    /// [`PathMtu::safe`], and whether anything authentic arrived.
    pub fn handle_traffic(&mut self, sent: bool, sent_large: bool, received: bool, now: Instant) {
        if !matches!(self.phase, Phase::Settled) || !sent {
            return;
        }
        if now >= self.raise_at && self.usable < self.largest() {
            return self.search(self.largest() + 1, now);
        }
        let size = match (sent_large && self.usable > self.safe(), received) {
            (true, _) => self.usable,
            (false, false) => SMALL_PROBE,
            (false, true) => return,
        };
        self.phase = Phase::Verifying { size, tries: 0, next: now };
        self.handle_timeout(now);
    }

    /// The peer's address changed: another path, of which nothing is known.
    pub fn handle_path_change(&mut self, is_ipv4: bool, now: Instant) {
        self.ip_overhead = ip_overhead(is_ipv4);
        self.outstanding.clear();
        self.fall_back(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting { next, .. } if next <= now => self.ask_connecting(now),
            Phase::Searching { next, tries, candidate, bad } if next <= now => {
                if tries == TRIES {
                    return self.search(candidate.min(bad), now);
                }
                let wait = self.rtt.unwrap_or_default() * 3;
                let next = now + wait.max(MIN_ANSWER_TIME) * (1 << tries);
                self.phase = Phase::Searching { bad, candidate, tries: tries + 1, next };
                self.ask(candidate, now);
            }
            Phase::Verifying { next, tries, size } if next <= now => {
                if tries == TRIES {
                    return self.fall_back(now);
                }
                let wait = self.rtt.unwrap_or_default() * 4;
                self.phase = Phase::Verifying { size, tries: tries + 1, next: now + wait.max(VERIFY_RETRY) };
                self.ask(size, now);
            }
            Phase::Connecting { .. } | Phase::Searching { .. } | Phase::Settled | Phase::Verifying { .. } => {
            }
        }
    }

    /// A probe to be sent, as a datagram of exactly its size.
    #[must_use]
    pub const fn poll_transmit(&mut self) -> Option<Probe> {
        self.transmit.take()
    }

    /// What became known.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    /// When [`PathMtu::handle_timeout`] has something to do, and what.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match self.phase {
            Phase::Connecting { next, .. } => Some((next, "path probe")),
            Phase::Searching { next, .. } => Some((next, "size probe")),
            Phase::Verifying { next, .. } => Some((next, "size check")),
            Phase::Settled => None,
        }
    }

    fn ask_connecting(&mut self, now: Instant) {
        let Phase::Connecting { since, attempt, is_reported, .. } = self.phase else {
            return;
        };
        let safe = self.safe();
        let floor = FLOOR_PACKET - self.ip_overhead;
        // Every other probe is small once the safe size has had its chance.
        let is_floor = attempt >= TRIES && attempt % 2 == 1 && self.ip_overhead == ip_overhead(true);
        self.ask(if is_floor { floor } else { safe }, now);
        let (patience, reason) = match self.announced {
            Some(_) => (OLD_PATH_PATIENCE, DownReason::StoppedAnswering),
            None => (NEW_PATH_PATIENCE, DownReason::NeverAnswered),
        };
        let is_over = !is_reported && now.saturating_duration_since(since) >= patience;
        if is_over {
            self.announced = None;
            self.events.push_back(PathEvent::Down(reason));
        }
        let wait = FIRST_RETRY.saturating_mul(1 << attempt.min(16)).min(MAX_RETRY);
        // A path that was up is asked steadily until it is given up.
        let wait = if self.announced.is_some() { wait.min(FIRST_RETRY * 4) } else { wait };
        self.phase = Phase::Connecting {
            since,
            attempt: attempt.saturating_add(1),
            last: Some(now),
            next: now + wait,
            is_reported: is_reported || is_over,
        };
    }

    /// Goes on looking for a size between the usable one and `bad`.
    fn search(&mut self, bad: usize, now: Instant) {
        let likely = LIKELY_PACKETS.iter().map(|packet| packet - self.ip_overhead);
        let likely = likely.min_by_key(|size| {
            let is_between = *size > self.usable && *size < bad;
            (!is_between, usize::MAX - size)
        });
        let candidate = match likely {
            Some(size) if size > self.usable && size < bad => size,
            _ if bad - self.usable > GRANULARITY => self.usable.midpoint(bad),
            _ => return self.settle(now),
        };
        self.phase = Phase::Searching { bad, candidate, tries: 0, next: now };
        self.handle_timeout(now);
    }

    fn settle(&mut self, now: Instant) {
        self.phase = Phase::Settled;
        self.raise_at = now + RAISE_INTERVAL;
        self.announce();
    }

    /// The size in use does not get through: use the safe one and find out what does.
    fn fall_back(&mut self, now: Instant) {
        self.usable = self.usable.min(self.safe());
        self.announce();
        if !matches!(self.phase, Phase::Connecting { .. }) {
            self.phase = Phase::connecting(now);
        }
        self.handle_timeout(now);
    }

    fn announce(&mut self) {
        if let Some(announced) = &mut self.announced
            && *announced != self.usable
        {
            *announced = self.usable;
            self.events.push_back(PathEvent::SizeChanged(self.usable));
        }
    }

    fn ask(&mut self, size: usize, now: Instant) {
        self.next_nonce = self.next_nonce.wrapping_add(1);
        let probe = Probe { nonce: mix(self.next_nonce), size };
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((probe, now));
        self.transmit = Some(probe);
    }

    /// The largest datagram that IP carries.
    const fn largest(&self) -> usize {
        LIKELY_PACKETS[0] - self.ip_overhead
    }
}

impl Phase {
    const fn connecting(now: Instant) -> Self {
        Self::Connecting { since: now, attempt: 0, last: None, next: now, is_reported: false }
    }
}

/// Bytes of IP and UDP header.
const fn ip_overhead(is_ipv4: bool) -> usize {
    if is_ipv4 { 28 } else { 48 }
}

/// Scatters a counter over 64 bits (SplitMix64), so that nonces of different links do not meet.
const fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
