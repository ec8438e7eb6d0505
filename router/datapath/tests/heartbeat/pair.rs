//! Two routers and the path between them, on virtual time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weave_datapath::{DownReason, Fastdp, FastdpEvent, HeartbeatDiscard, LinkHealth, LinkPath};
use weave_model::{LinkId, PeerName};

pub(crate) const LINK: LinkId = LinkId(7);
const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const ETHERNET: usize = 14;

/// One direction of a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) delay: Duration,
    /// Up to this much is added, so that frames overtake each other.
    pub(crate) jitter: Duration,
    /// The largest overlay packet that passes.
    pub(crate) mtu: u16,
    pub(crate) is_blocked: bool,
    /// Of 1,000 frames.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

/// SplitMix64.
struct Chance(u64);

/// The two ends: 0 and 1. `wires[n]` is the way from `n`.
pub(crate) struct Pair {
    pub(crate) ends: [Fastdp; 2],
    pub(crate) wires: [Wire; 2],
    pub(crate) now: Instant,
    start: Instant,
    chance: Chance,
    queue: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sequence: u64,
    /// By end: when, and what it said.
    pub(crate) events: [Vec<(Duration, FastdpEvent)>; 2],
    /// By sender: frames and bytes.
    pub(crate) sent: [(u64, u64); 2],
    /// Every frame that was sent, by sender, if wanted.
    pub(crate) recording: Option<Vec<(usize, Vec<u8>)>>,
}

impl Wire {
    /// A local network with full-size Ethernet.
    pub(crate) const fn lan() -> Self {
        let delay = Duration::from_micros(100);
        Self { delay, jitter: Duration::ZERO, mtu: 1450, is_blocked: false, lost: 0, doubled: 0 }
    }
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, of_thousand: u64) -> bool {
        self.next() % 1000 < of_thousand
    }
}

impl Pair {
    /// A local network; nothing known yet.
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let ends = [0, 1].map(|end| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&chance.next().to_be_bytes());
            Fastdp::new(name(end), bytes)
        });
        let start = origin();
        Self {
            ends,
            wires: [Wire::lan(); 2],
            now: start,
            start,
            chance,
            queue: BTreeMap::new(),
            sequence: 0,
            events: [Vec::new(), Vec::new()],
            sent: [(0, 0); 2],
            recording: None,
        }
    }

    /// The same, up on a local network, with traffic or without.
    pub(crate) fn up(seed: u64, is_active: bool) -> Self {
        let mut pair = Self::new(seed);
        pair.add_links(1450);
        if is_active {
            pair.traffic([true; 2]);
        }
        pair.run(Duration::from_secs(5));
        assert_eq!([pair.mtu(0), pair.mtu(1)], [Some(1450); 2]);
        pair.events = [Vec::new(), Vec::new()];
        pair
    }

    pub(crate) fn add_links(&mut self, ceiling: u16) {
        (0..2).for_each(|end| self.add_link(end, ceiling));
    }

    pub(crate) fn add_link(&mut self, end: usize, ceiling: u16) {
        self.with(end, |core, now| core.add_link(path(end, ceiling), now));
    }

    pub(crate) fn traffic(&mut self, is_active: [bool; 2]) {
        for (end, is_active) in is_active.into_iter().enumerate() {
            self.with(end, |core, now| core.set_traffic(is_active, now));
        }
    }

    pub(crate) fn block(&mut self, blocked: [bool; 2]) {
        (0..2).for_each(|end| self.wires[end].is_blocked = blocked[end]);
    }

    pub(crate) fn limit(&mut self, mtu: u16) {
        self.wires.iter_mut().for_each(|wire| wire.mtu = mtu);
    }

    /// Lets one end act, and takes what it says.
    pub(crate) fn with(&mut self, end: usize, act: impl FnOnce(&mut Fastdp, Instant)) {
        act(&mut self.ends[end], self.now);
        while let Some(heartbeat) = self.ends[end].poll_transmit() {
            self.sent[end].0 += 1;
            self.sent[end].1 += heartbeat.frame.len() as u64;
            if let Some(recording) = &mut self.recording {
                recording.push((end, heartbeat.frame.clone()));
            }
            self.carry(end, heartbeat.frame);
        }
        while let Some(event) = self.ends[end].poll_event() {
            self.events[end].push((self.now - self.start, event));
        }
    }

    /// Puts a frame on the way from `end`.
    pub(crate) fn carry(&mut self, end: usize, frame: Vec<u8>) {
        let wire = self.wires[end];
        if wire.is_blocked || frame.len() > usize::from(wire.mtu) + ETHERNET {
            return;
        }
        let copies = 1 + u64::from(self.chance.happens(wire.doubled));
        for _ in 0..copies {
            if !self.chance.happens(wire.lost) {
                let share = (self.chance.next() % 1000) as u32;
                let at = self.now + wire.delay + wire.jitter * share / 1000;
                self.sequence += 1;
                self.queue.insert((at, self.sequence), (1 - end, frame.clone()));
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end_at = self.now + time;
        loop {
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let timers = self.ends.iter().map(|end| end.poll_timeout().map(|(at, _)| at));
            let next = timers.chain([arrival]).flatten().min();
            let Some(next) = next.filter(|at| *at <= end_at) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                if let Some((_, (end, frame))) = self.queue.pop_first() {
                    self.with(end, |core, now| core.handle_frame(&frame, now));
                }
            } else {
                for end in 0..2 {
                    if self.ends[end].poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                        self.with(end, Fastdp::handle_timeout);
                    }
                }
            }
        }
        self.now = end_at;
    }

    /// Lets time pass until `is_met`, in steps of a millisecond. Returns how long it took.
    pub(crate) fn run_until(&mut self, limit: Duration, is_met: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while !is_met(self) {
            assert!(self.now - began < limit, "not within {limit:?}; {:?}", self.events);
            self.run(Duration::from_millis(1));
        }
        self.now - began
    }

    pub(crate) fn health(&self, end: usize) -> LinkHealth {
        self.ends[end].health(LINK).expect("the link was added")
    }

    pub(crate) fn mtu(&self, end: usize) -> Option<u16> {
        match self.health(end) {
            LinkHealth::Up { mtu, .. } => Some(mtu),
            LinkHealth::Trying | LinkHealth::Down { .. } => None,
        }
    }

    pub(crate) fn reason(&self, end: usize) -> Option<DownReason> {
        match self.health(end) {
            LinkHealth::Down { reason, .. } => Some(reason),
            LinkHealth::Trying | LinkHealth::Up { .. } => None,
        }
    }

    pub(crate) fn discarded(&self, end: usize, reason: HeartbeatDiscard) -> u64 {
        self.ends[end].discards().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }
}

pub(crate) fn path(end: usize, ceiling: u16) -> LinkPath {
    LinkPath {
        link: LINK,
        peer: name(1 - end),
        send_key: KEYS[end],
        receive_key: KEYS[1 - end],
        ceiling,
        remote: [192, 0, 2, 2 - end as u8].into(),
    }
}

pub(crate) fn name(end: usize) -> PeerName {
    PeerName([0x9a, 0, 0, 0, 0, end as u8 + 1])
}

#[allow(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time; never read again")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}
