//! A few routers on a network that is prompt and loses nothing, for tests of one behaviour each.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weave_ipam::{Config, Event, Init, Ipam, Refusal, Reply, RequestId, RestoreError, StoreMark};
use weave_model::{ContainerId, Interface, PeerName};

pub type Disk = BTreeMap<Vec<u8>, Vec<u8>>;
pub type Answer = Result<Reply, Refusal>;

const HOP: Duration = Duration::from_millis(2);

enum Packet {
    Message { from: usize, to: usize, bytes: Vec<u8> },
    Fact { of: usize, to: usize },
}

pub struct Lab {
    pub now: Instant,
    pub nodes: Vec<Option<Ipam>>,
    pub disks: Vec<Disk>,
    pub marks: Vec<StoreMark>,
    pub facts: Vec<Option<Vec<u8>>>,
    pub answers: BTreeMap<RequestId, Answer>,
    pub writes: usize,
    pub written_bytes: usize,
    pub published: usize,
    pub sent: Vec<(usize, Vec<u8>)>,
    links: Vec<(usize, usize)>,
    wire: BTreeMap<(Instant, u64), Packet>,
    held: Vec<Packet>,
    next: u64,
}

pub fn name(index: usize) -> PeerName {
    PeerName([2, 0, 0, 0, 0, index as u8 + 1])
}

pub fn container(text: &str) -> ContainerId {
    text.parse().unwrap()
}

pub fn addresses(texts: &[&str]) -> Answer {
    Ok(Reply::Addresses(texts.iter().map(|t| t.parse().unwrap()).collect()))
}

pub fn config(index: usize, ranges: &[&str], init: Init) -> Config {
    Config {
        local: name(index),
        ranges: ranges.iter().map(|r| r.parse().unwrap()).collect(),
        default_subnets: Vec::new(),
        init,
        store_id: 1_000 + index as u64,
    }
}

impl Lab {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as the beginning of virtual time")]
    pub fn empty() -> Self {
        let now = Instant::now();
        Self {
            now,
            nodes: Vec::new(),
            disks: Vec::new(),
            marks: Vec::new(),
            facts: Vec::new(),
            answers: BTreeMap::new(),
            writes: 0,
            written_bytes: 0,
            published: 0,
            sent: Vec::new(),
            links: Vec::new(),
            wire: BTreeMap::new(),
            held: Vec::new(),
            next: 0,
        }
    }

    /// So many routers, all linked.
    pub fn of(count: usize, ranges: &[&str], init: &Init) -> Self {
        let mut lab = Self::empty();
        for index in 0..count {
            lab.add(config(index, ranges, init.clone()));
        }
        lab.link_all();
        lab
    }

    pub fn consensus(count: usize, ranges: &[&str]) -> Self {
        Self::of(count, ranges, &Init::Consensus { peers: count })
    }

    pub fn add(&mut self, config: Config) -> usize {
        let index = self.nodes.len();
        self.nodes.push(None);
        self.disks.push(Disk::new());
        self.marks.push(StoreMark { generation: 0, epoch: 0 });
        self.facts.push(None);
        self.boot(index, config).unwrap();
        index
    }

    pub fn boot(&mut self, index: usize, config: Config) -> Result<(), RestoreError> {
        let ipam = Ipam::new(config, self.disks[index].clone().into_iter(), [index as u8; 32], self.now)?;
        self.nodes[index] = Some(ipam);
        self.drain(index);
        for other in self.neighbours(index) {
            self.introduce(index, other);
            self.introduce(other, index);
        }
        Ok(())
    }

    pub fn kill(&mut self, index: usize) {
        self.nodes[index] = None;
        for other in self.neighbours(index) {
            self.part(other, index);
        }
    }

    fn neighbours(&self, index: usize) -> Vec<usize> {
        let ends = self.links.iter().filter(|(a, b)| *a == index || *b == index);
        ends.map(|(a, b)| if *a == index { *b } else { *a }).collect()
    }

    pub fn link_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.link(a, b);
            }
        }
    }

    pub fn link(&mut self, a: usize, b: usize) {
        if !self.links.contains(&(a, b)) {
            self.links.push((a, b));
            self.introduce(a, b);
            self.introduce(b, a);
        }
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.links.retain(|link| *link != (a, b) && *link != (b, a));
        self.part(a, b);
        self.part(b, a);
    }

    fn part(&mut self, at: usize, from: usize) {
        let now = self.now;
        self.with(at, |ipam| ipam.handle_peer_unreachable(name(from), now));
    }

    fn introduce(&mut self, at: usize, to: usize) {
        if self.nodes[at].is_some() && self.nodes[to].is_some() {
            let now = self.now;
            self.with(at, |ipam| ipam.handle_peer_reachable(name(to), now));
            self.carry(Packet::Fact { of: to, to: at });
        }
    }

    fn carry(&mut self, packet: Packet) {
        self.next += 1;
        self.wire.insert((self.now + HOP, self.next), packet);
    }

    pub fn with<R>(&mut self, index: usize, act: impl FnOnce(&mut Ipam) -> R) -> Option<R> {
        let result = act(self.nodes[index].as_mut()?);
        self.drain(index);
        Some(result)
    }

    pub fn node(&self, index: usize) -> &Ipam {
        self.nodes[index].as_ref().unwrap()
    }

    fn drain(&mut self, index: usize) {
        while let Some(event) = self.nodes[index].as_mut().and_then(Ipam::poll_event) {
            match event {
                Event::Persist(writes) => {
                    self.writes += writes.len();
                    for write in writes {
                        self.written_bytes += write.key.len() + write.value.as_ref().map_or(0, Vec::len);
                        match write.value {
                            Some(value) => self.disks[index].insert(write.key, value),
                            None => self.disks[index].remove(&write.key),
                        };
                    }
                    self.marks[index] = self.node(index).store_mark();
                }
                Event::Publish(bytes) => {
                    self.published += 1;
                    self.facts[index] = Some(bytes);
                    for to in self.neighbours(index) {
                        self.carry(Packet::Fact { of: index, to });
                    }
                }
                Event::Send { to, bytes } => {
                    let to = usize::from(to.0[5]) - 1;
                    self.sent.push((index, bytes.clone()));
                    if self.neighbours(index).contains(&to) {
                        self.carry(Packet::Message { from: index, to, bytes });
                    }
                }
                Event::Broadcast(bytes) => {
                    self.sent.push((index, bytes.clone()));
                    for to in self.neighbours(index) {
                        self.carry(Packet::Message { from: index, to, bytes: bytes.clone() });
                    }
                }
                Event::Reply { request, result } => {
                    assert!(self.answers.insert(request, result).is_none(), "{request:?} is answered twice");
                }
            }
        }
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, for_ms: u64) {
        let end = self.now + Duration::from_millis(for_ms);
        loop {
            let timer = (0..self.nodes.len())
                .filter_map(|index| Some((self.nodes[index].as_ref()?.poll_timeout()?.0, index)))
                .min();
            let packet = self.wire.first_key_value().map(|(key, _)| *key);
            match (timer, packet) {
                (Some((at, index)), key) if at <= end && key.is_none_or(|(other, _)| at <= other) => {
                    self.now = self.now.max(at);
                    let now = self.now;
                    self.with(index, |ipam| ipam.handle_timeout(now));
                }
                (_, Some(key)) if key.0 <= end => {
                    self.now = key.0;
                    if let Some(packet) = self.wire.remove(&key) {
                        self.deliver(packet);
                    }
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Takes everything off the wire; it stays under way until [`Lab::release`].
    pub fn hold(&mut self) {
        self.held.extend(std::mem::take(&mut self.wire).into_values());
    }

    /// Lets what was held arrive now.
    pub fn release(&mut self) {
        for packet in std::mem::take(&mut self.held) {
            self.carry(packet);
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let now = self.now;
        match packet {
            Packet::Message { from, to, bytes } => {
                self.with(to, |ipam| ipam.handle_message(name(from), &bytes, now)).map(Result::unwrap);
            }
            Packet::Fact { of, to } => {
                if let Some(bytes) = self.facts[of].clone() {
                    self.with(to, |ipam| ipam.handle_peer_state(name(of), Some(&bytes), now))
                        .map(Result::unwrap);
                }
            }
        }
    }

    pub fn request(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    pub fn ask_allocate(
        &mut self,
        index: usize,
        owner: &str,
        subnet: Option<&str>,
        patience_ms: u64,
    ) -> RequestId {
        let (request, now) = (self.request(), self.now);
        let deadline = now + Duration::from_millis(patience_ms);
        let subnet = subnet.map(|s| s.parse().unwrap());
        self.with(index, |ipam| ipam.allocate(request, container(owner), subnet, deadline, now));
        request
    }

    pub fn allocate(&mut self, index: usize, owner: &str, subnet: Option<&str>) -> Answer {
        let request = self.ask_allocate(index, owner, subnet, 5_000);
        self.answer(request, 6_000)
    }

    pub fn claim(&mut self, index: usize, owner: &str, address: &str) -> Answer {
        let (request, now) = (self.request(), self.now);
        let address: Interface = address.parse().unwrap();
        self.with(index, |ipam| {
            ipam.claim(request, container(owner), address, now + Duration::from_secs(5), now)
        });
        self.answer(request, 6_000)
    }

    pub fn free(&mut self, index: usize, owner: &str) -> Answer {
        let (request, now) = (self.request(), self.now);
        self.with(index, |ipam| ipam.free(request, &container(owner), now));
        self.answer(request, 10)
    }

    pub fn take_over(&mut self, index: usize, dead: PeerName) -> Answer {
        let (request, now) = (self.request(), self.now);
        self.with(index, |ipam| ipam.take_over(request, dead, now));
        self.answer(request, 32_000)
    }

    pub fn answer(&mut self, request: RequestId, patience_ms: u64) -> Answer {
        let end = self.now + Duration::from_millis(patience_ms);
        while !self.answers.contains_key(&request) && self.now < end {
            self.run(10);
        }
        self.answers.get(&request).cloned().expect("an answer in time")
    }
}
