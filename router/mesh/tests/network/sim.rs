//! Many meshes on virtual time, over links with latency that can be cut, between hosts that can die.

mod effects;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use weave_mesh::{
    Channel, Config, DialFailure, DialId, LinkInfo, Mesh, Namespace, Overlay, OverlayKind, Retry, Side,
    Target,
};
use weave_model::{LinkId, PeerName, Uid};

/// How long a link is silent before its ends take it for lost.
const IDLE: Duration = Duration::from_secs(4);

pub(crate) const FACTS: Namespace = Namespace(20);
pub(crate) const CHANNEL: Channel = Channel(7);

#[allow(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time; never read again")]
fn origin() -> Instant {
    Instant::now()
}

/// SplitMix64.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound.max(1)
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}

/// One host: a router, or the place where one was.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) mesh: Option<Mesh>,
    /// Counts restarts, so that what was on its way to an earlier run is lost.
    run: u64,
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
    pub(crate) received: Vec<(PeerName, Bytes)>,
    pub(crate) joined: BTreeMap<PeerName, String>,
    /// The shell's own copy of all facts, made of events alone.
    pub(crate) seen: BTreeMap<(PeerName, Bytes), Bytes>,
    pub(crate) closed: Vec<weave_mesh::CloseReason>,
    pub(crate) dials: u64,
    /// Times that routes changed.
    pub(crate) rerouted: u64,
    wake: Option<Instant>,
}

struct Wire {
    ends: [(usize, u64); 2],
    open: bool,
    /// When the last message to each end arrives: order is kept.
    last: [Instant; 2],
}

#[derive(Debug)]
enum Happening {
    Connect { dial: DialId, from: usize, to: usize, run: u64 },
    Refused { dial: DialId, from: usize, run: u64 },
    Message { wire: usize, end: usize, bytes: Bytes },
    Closed { wire: usize, end: usize },
    OverlayUp { wire: usize, end: usize, kind: OverlayKind },
    Wake { host: usize },
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) chance: Chance,
    wires: Vec<Wire>,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    cut: BTreeSet<(usize, usize)>,
    /// Dials that were given up, by host and its run.
    abandoned: BTreeSet<(usize, u64, DialId)>,
    pub(crate) keep_incarnation: bool,
    /// Between which hosts, the lower one first, fastdp works.
    pub(crate) is_fast: fn(usize, usize) -> bool,
}

pub(crate) fn name(index: usize) -> PeerName {
    // The order of names is not the order of hosts.
    let scramble = (index as u16).wrapping_mul(40_503).to_be_bytes();
    PeerName([2, 0, scramble[0], scramble[1], (index >> 8) as u8, index as u8])
}

pub(crate) fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 6783))
}

impl Net {
    /// Hosts that are switched off; each knows the targets that `targets` gives it.
    pub(crate) fn new(seed: u64, count: usize, targets: impl Fn(usize) -> Vec<usize>) -> Self {
        let start = origin();
        let hosts = (0..count).map(|index| Host {
            config: Config {
                name: name(index),
                public_key: [index as u8 ^ (index >> 8) as u8 ^ 0x55; 32],
                nickname: format!("host{index}"),
                version: "1.0".to_owned(),
                targets: targets(index).into_iter().map(|to| Target::Address(address(to))).collect(),
                addresses: vec![address(index)],
                incarnation: 0,
                ..Config::default()
            },
            mesh: None,
            run: 0,
            bytes: 0,
            messages: 0,
            received: Vec::new(),
            joined: BTreeMap::new(),
            seen: BTreeMap::new(),
            closed: Vec::new(),
            dials: 0,
            rerouted: 0,
            wake: None,
        });
        Self {
            now: start,
            hosts: hosts.collect(),
            chance: Chance(seed),
            wires: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            cut: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            keep_incarnation: true,
            is_fast: |_, _| false,
        }
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.start(host));
    }

    pub(crate) fn start(&mut self, host: usize) {
        let uid = Uid(self.chance.below(u64::MAX));
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.chance.below(u64::MAX).to_le_bytes());
        let it = &mut self.hosts[host];
        it.run += 1;
        it.config.uid = uid;
        if self.keep_incarnation || it.config.incarnation == 0 {
            it.config.incarnation += 1;
        }
        it.mesh = Some(Mesh::new(it.config.clone(), seed, self.now));
        it.joined.clear();
        it.seen.clear();
        it.wake = None;
        self.drain(host);
    }

    /// The next run of a host that is down has its name, and another key.
    pub(crate) fn lose_store(&mut self, host: usize) {
        let config = &mut self.hosts[host].config;
        config.incarnation = 0;
        self.chance.below(u64::MAX);
        config.public_key[..8].copy_from_slice(&self.chance.0.to_le_bytes());
    }

    /// Kills a host's router. Its neighbours notice after `notice`.
    pub(crate) fn stop(&mut self, host: usize, notice: Duration) {
        self.stop_for(host, |_| notice);
    }

    /// Kills a host's router. Each neighbour notices after its own time.
    pub(crate) fn stop_for(&mut self, host: usize, notice: impl Fn(usize) -> Duration) {
        if self.hosts[host].mesh.take().is_none() {
            return;
        }
        self.hosts[host].run += 1;
        for wire in 0..self.wires.len() {
            if let Some(end) = self.wires[wire].ends.iter().position(|(h, _)| *h == host)
                && self.wires[wire].open
            {
                self.wires[wire].open = false;
                let notice = notice(self.wires[wire].ends[1 - end].0);
                self.schedule(notice, Happening::Closed { wire, end: 1 - end });
            }
        }
    }

    /// Lets nothing through between two hosts, or everything again.
    pub(crate) fn set_cut(&mut self, a: usize, b: usize, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if !cut {
            self.cut.remove(&pair);
            return;
        }
        self.cut.insert(pair);
        for wire in 0..self.wires.len() {
            let hosts = self.wires[wire].ends.map(|(host, _)| host);
            if self.wires[wire].open && (hosts == [a, b] || hosts == [b, a]) {
                self.wires[wire].open = false;
                for end in 0..2 {
                    let late = Duration::from_millis(self.chance.below(500));
                    self.schedule(IDLE + late, Happening::Closed { wire, end });
                }
            }
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn latency(&mut self, a: usize, b: usize) -> Duration {
        let base = 300 + (a * 31 + b * 31) as u64 % 1500;
        Duration::from_micros(base + self.chance.below(400))
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), happening);
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = entry.key().0;
            let happening = entry.remove();
            self.happen(happening);
        }
        self.now = until;
    }

    /// Lets time pass until a condition holds, looked at every 10 ms; gives the time it took.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let from = self.now;
        while self.now - from < limit {
            if holds(self) {
                return Some(self.now - from);
            }
            self.run_for(Duration::from_millis(10));
        }
        None
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connect { dial, from, to, run } => self.connect(dial, from, to, run),
            Happening::Refused { dial, from, run } => {
                let now = self.now;
                if let Some(mesh) = self.running(from, run) {
                    let failure = DialFailure { text: "no answer".to_owned(), retry: Retry::Backoff };
                    mesh.handle_dial_failed(dial, failure, now);
                    self.drain(from);
                }
            }
            Happening::Message { wire, end, bytes } => {
                let ((host, run), now) = (self.wires[wire].ends[end], self.now);
                if self.wires[wire].open
                    && let Some(mesh) = self.running(host, run)
                {
                    mesh.handle_message(link_id(wire, end), &bytes, now)
                        .expect("honest peers send valid messages");
                    self.drain(host);
                }
            }
            Happening::Closed { wire, end } => {
                let ((host, run), now) = (self.wires[wire].ends[end], self.now);
                self.wires[wire].open = false;
                if let Some(mesh) = self.running(host, run) {
                    mesh.handle_link_closed(link_id(wire, end), "connection lost", now);
                    self.drain(host);
                }
            }
            Happening::OverlayUp { wire, end, kind } => {
                let ((host, run), now) = (self.wires[wire].ends[end], self.now);
                let open = self.wires[wire].open;
                if let Some(mesh) = self.running(host, run).filter(|_| open) {
                    let rtt = Duration::from_millis(1);
                    let overlay = Overlay { kind, up: true, mtu: 1400, rtt };
                    mesh.handle_overlay(link_id(wire, end), overlay, now);
                    self.drain(host);
                }
            }
            Happening::Wake { host } => {
                if self.hosts[host].wake.is_some_and(|at| at <= self.now) {
                    self.hosts[host].wake = None;
                    let now = self.now;
                    if let Some(mesh) = &mut self.hosts[host].mesh {
                        mesh.handle_timeout(now);
                        self.drain(host);
                    }
                }
            }
        }
    }

    fn running(&mut self, host: usize, run: u64) -> Option<&mut Mesh> {
        let host = &mut self.hosts[host];
        if host.run == run { host.mesh.as_mut() } else { None }
    }

    fn connect(&mut self, dial: DialId, from: usize, to: usize, run: u64) {
        if self.hosts[to].mesh.is_none() || self.is_cut(from, to) {
            return self.schedule(Duration::from_millis(500), Happening::Refused { dial, from, run });
        }
        if self.running(from, run).is_none() || self.abandoned.remove(&(from, run, dial)) {
            return;
        }
        let wire = self.wires.len();
        let ends = [(from, run), (to, self.hosts[to].run)];
        self.wires.push(Wire { ends, open: true, last: [self.now; 2] });
        let tiebreak = u128::from(self.chance.below(u64::MAX));
        for (end, peer, side) in [(0, to, Side::Dialed(dial)), (1, from, Side::Accepted)] {
            let info = self.info(peer, side, tiebreak);
            let (host, now) = (ends[end].0, self.now);
            if let Some(mesh) = &mut self.hosts[host].mesh {
                mesh.handle_link_opened(link_id(wire, end), info, now);
                self.drain(host);
            }
        }
    }

    /// What the other end of a link learns about a host.
    pub(crate) fn info(&self, host: usize, side: Side, tiebreak: u128) -> LinkInfo {
        let config = &self.hosts[host].config;
        LinkInfo {
            peer: config.name,
            uid: config.uid,
            public_key: config.public_key,
            nickname: config.nickname.clone(),
            incarnation: config.incarnation,
            listen_port: config.listen_port,
            side,
            remote: address(host),
            tiebreak,
            encrypted: true,
        }
    }

    /// Carries out what a router wants done.
    pub(crate) fn drain(&mut self, host: usize) {
        let mut transmits = VecDeque::new();
        let mut events = VecDeque::new();
        let Some(mesh) = &mut self.hosts[host].mesh else { return };
        while let Some(transmit) = mesh.poll_transmit() {
            transmits.push_back(transmit);
        }
        while let Some(event) = mesh.poll_event() {
            events.push_back(event);
        }
        let timeout = mesh.poll_timeout();
        for transmit in transmits {
            self.hosts[host].bytes += transmit.bytes.len() as u64;
            self.hosts[host].messages += 1;
            self.carry(transmit.link, transmit.bytes);
        }
        events.into_iter().for_each(|event| self.handle_event(host, event));
        if let Some((at, _)) = timeout
            && self.hosts[host].wake.is_none_or(|wake| at < wake)
        {
            self.hosts[host].wake = Some(at);
            self.schedule(at.saturating_duration_since(self.now), Happening::Wake { host });
        }
    }

    /// Does something to a router and carries out what follows.
    pub(crate) fn with<R>(&mut self, host: usize, act: impl FnOnce(&mut Mesh, Instant) -> R) -> R {
        let now = self.now;
        let result = act(self.hosts[host].mesh.as_mut().expect("the host runs"), now);
        self.drain(host);
        result
    }

    pub(crate) fn mesh(&self, host: usize) -> &Mesh {
        self.hosts[host].mesh.as_ref().expect("the host runs")
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].mesh.is_some()).collect()
    }

    /// Whether all running routers know each other, and the same of each other.
    pub(crate) fn is_agreed(&self) -> bool {
        let alive = self.alive();
        let first = self.mesh(alive[0]).fingerprint();
        alive.iter().all(|host| {
            self.hosts[*host].joined.len() + 1 == alive.len() && self.mesh(*host).fingerprint() == first
        })
    }

    /// Whether moreover every pair that can has a link that carries data.
    pub(crate) fn is_full(&self) -> bool {
        let alive = self.alive();
        self.is_agreed()
            && alive.iter().all(|host| {
                let hops = alive
                    .iter()
                    .filter(|to| *to != host)
                    .map(|to| (to, self.mesh(*host).routes().next_hop(name(*to))));
                hops.into_iter()
                    .all(|(to, hop)| hop.is_some_and(|(_, via)| via == name(*to) || self.is_cut(*host, *to)))
            })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.hosts.iter().map(|host| host.bytes).sum()
    }
}

fn link_id(wire: usize, end: usize) -> LinkId {
    LinkId((wire * 2 + end) as u64)
}
