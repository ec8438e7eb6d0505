//! Hosts, containers, users, operators and fate; and what must hold whatever they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use weave_ipam::{Event, Init, Refusal, Reply, RequestId};
use weave_model::{ContainerId, Interface, PeerName, Subnet};

use super::{
    net::{Happening, Net, Rng},
    node::{Node, Power},
};

pub(crate) enum Asked {
    Allocate(ContainerId),
    TakeOver(usize),
    Leave,
    Other,
}

pub(crate) struct World {
    seed: u64,
    is_loud: bool,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) net: Net,
    pub(crate) nodes: Vec<Node>,
    pub(crate) ranges: Vec<Subnet>,
    pub(crate) init: Init,
    pub(crate) quorum: usize,
    /// The truth: which container on which host has the address configured.
    pub(crate) held: BTreeMap<IpAddr, (usize, ContainerId)>,
    pub(crate) asked: BTreeMap<RequestId, (usize, Asked)>,
    pub(crate) next_request: u64,
    pub(crate) next_container: u64,
    /// Every node has had the ring on disk once.
    pub(crate) is_known_to_all: bool,
    deeds_end: Instant,
    pub(crate) granted: u64,
    pub(crate) refused: u64,
}

impl World {
    pub(crate) fn new(seed: u64, is_loud: bool) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let count = 3 + rng.below(10);
        #[expect(clippy::disallowed_methods, reason = "any instant serves as the beginning of virtual time")]
        let start = Instant::now();
        let mut ranges: Vec<Subnet> =
            vec![["10.32.0.0/26", "10.32.0.0/24", "10.32.0.0/27"][rng.below(3)].parse().unwrap()];
        if rng.chance(25) {
            ranges.push("fd00::/120".parse().unwrap());
        }
        let init = if rng.chance(15) {
            Init::Seed((0..count.min(4)).map(|n| PeerName([2, 0, 0, 0, 0, n as u8])).collect())
        } else {
            Init::Consensus { peers: count }
        };
        let quorum = count / 2 + 1;
        let nodes = (0..count).map(|index| Node::new(index, rng.next())).collect();
        let loss = [0, 5, 15, 30][rng.below(4)];
        let deeds_end = start + Duration::from_secs(40 + rng.below(60) as u64);
        Self {
            seed,
            is_loud,
            start,
            now: start,
            net: Net::new(rng, loss),
            nodes,
            ranges,
            init,
            quorum,
            held: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_request: 0,
            next_container: 0,
            is_known_to_all: false,
            deeds_end,
            granted: 0,
            refused: 0,
        }
    }

    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        if self.is_loud {
            println!("{:9.3} {}", (self.now - self.start).as_secs_f64(), text());
        }
    }

    pub(crate) fn run(mut self) {
        for index in 0..self.nodes.len() {
            self.boot(index);
        }
        self.run_until(self.start + Duration::from_secs(2));
        for _ in 0..3 {
            self.user_acts();
        }
        self.net.at(self.now + Duration::from_millis(100), Happening::Deed);
        self.run_until(self.deeds_end);
        self.calm_down();
        self.check_quiet();
    }

    // ---- time ----

    fn run_until(&mut self, end: Instant) {
        let mut steps = 0_u64;
        loop {
            steps += 1;
            assert!(steps < 3_000_000, "seed {}: no end of steps", self.seed);
            let timer = (0..self.nodes.len())
                .filter_map(|index| Some((self.nodes[index].ipam.as_ref()?.poll_timeout()?.0, index)))
                .min();
            let happening = self.net.next_at();
            let timer_first = timer.is_some_and(|(at, _)| happening.is_none_or(|other| at <= other));
            let next = if timer_first { timer.map(|(at, _)| at) } else { happening };
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            match timer {
                Some((_, index)) if timer_first => {
                    let now = self.now;
                    self.with(index, |ipam| ipam.handle_timeout(now));
                }
                _ => {
                    let Some((_, what)) = self.net.pop() else { return };
                    self.happen(what);
                }
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        let now = self.now;
        match what {
            Happening::Message { from, to, bytes } => {
                let name = self.nodes[from].name;
                self.with(to, |ipam| {
                    ipam.handle_message(name, &bytes, now).expect("our own messages are sound")
                });
            }
            Happening::Gossip { from, to } => self.gossip(from, to),
            Happening::Fact { of, to, version, bytes } => self.take_fact(of, to, version, &bytes),
            Happening::Notice { at, of } => self.notice(at, of),
            Happening::Deed if self.net.is_calm => {}
            Happening::Deed => {
                self.act();
                if now < self.deeds_end {
                    let delay = self.net.rng.millis(20, 600);
                    self.net.at(now + delay, Happening::Deed);
                }
            }
        }
    }

    // ---- routers ----

    pub(crate) fn boot(&mut self, index: usize) {
        let seed = self.net.rng.seed();
        self.log(|| format!("boot {index}"));
        self.nodes[index].boot(&self.ranges.clone(), &self.init.clone(), seed, self.now);
        self.drain(index);
        for other in 0..self.nodes.len() {
            if other != index {
                let (a, b) = (self.net.rng.millis(10, 400), self.net.rng.millis(10, 400));
                self.net.at(self.now + a, Happening::Notice { at: index, of: other });
                self.net.at(self.now + b, Happening::Notice { at: other, of: index });
            }
        }
        // Containers that this store gives addresses to and that are no more.
        self.prune(index);
    }

    pub(crate) fn prune(&mut self, index: usize) {
        let Some(ipam) = &self.nodes[index].ipam else { return };
        let ghosts: Vec<(ContainerId, Interface)> = ipam
            .allocations()
            .filter(|(owner, i)| self.held.get(&i.address()) != Some(&(index, (*owner).clone())))
            .map(|(owner, i)| (owner.clone(), i))
            .collect();
        for (owner, interface) in ghosts {
            let (request, now) = (self.request(index, Asked::Other), self.now);
            self.with(index, |ipam| ipam.free_address(request, &owner, interface.address(), now));
        }
    }

    pub(crate) fn with<R>(&mut self, index: usize, act: impl FnOnce(&mut weave_ipam::Ipam) -> R) {
        if let Some(ipam) = &mut self.nodes[index].ipam {
            act(ipam);
            self.drain(index);
        }
    }

    fn drain(&mut self, index: usize) {
        while let Some(event) = self.nodes[index].ipam.as_mut().and_then(weave_ipam::Ipam::poll_event) {
            self.carry_out(index, event);
            if self.can_crash(index) && self.net.rng.below(4_000) == 0 {
                self.log(|| format!("node {index} dies between two effects"));
                self.crash(index);
            }
        }
    }

    fn carry_out(&mut self, index: usize, event: Event) {
        let count = self.nodes.len();
        match event {
            Event::Persist(writes) => self.nodes[index].persist(writes),
            Event::Publish(bytes) => {
                let node = &mut self.nodes[index];
                node.version += 1;
                let version = node.version;
                node.facts.insert(index, (version, bytes.clone()));
                for to in (0..count).filter(|to| *to != index) {
                    let what = Happening::Fact { of: index, to, version, bytes: bytes.clone() };
                    self.net.send(self.now, index, to, &what);
                }
            }
            Event::Send { to, bytes } => {
                let to = usize::from(to.0[5]);
                self.net.send(self.now, index, to, &Happening::Message { from: index, to, bytes });
            }
            Event::Broadcast(bytes) => {
                for to in (0..count).filter(|to| *to != index) {
                    self.net.send(
                        self.now,
                        index,
                        to,
                        &Happening::Message { from: index, to, bytes: bytes.clone() },
                    );
                }
            }
            Event::Reply { request, result } => self.replied(index, request, result),
        }
    }

    /// The invariant: an address is configured on a container only while no other container has it.
    fn replied(&mut self, index: usize, request: RequestId, result: Result<Reply, Refusal>) {
        self.log(|| format!("node {index} answers {request:?}: {result:?}"));
        let Some((at, asked)) = self.asked.remove(&request) else { return };
        assert_eq!(at, index);
        match (asked, result) {
            (Asked::Allocate(owner), Ok(Reply::Addresses(addresses))) => {
                self.granted += 1;
                for address in addresses {
                    let new = (index, owner.clone());
                    let old = self.held.insert(address.address(), new.clone());
                    assert!(
                        old.as_ref().is_none_or(|old| *old == new),
                        "seed {}: {address} is held by {old:?} and given to {new:?}",
                        self.seed
                    );
                }
            }
            (Asked::Allocate(_), Err(_)) => self.refused += 1,
            (Asked::TakeOver(dead), Ok(Reply::TakenOver(_))) if self.nodes[dead].power == Power::Dead => {
                self.nodes[dead].power = Power::Removed;
            }
            (Asked::Leave, Ok(Reply::Done)) => {
                self.nodes[index].power = Power::Left;
                self.nodes[index].ipam = None;
                self.changed_power(index);
            }
            _ => {}
        }
    }

    // ---- the mesh ----

    pub(crate) fn is_on(&self, index: usize) -> bool {
        self.nodes[index].ipam.is_some()
    }

    fn notice(&mut self, at: usize, of: usize) {
        let is_up = self.is_on(of) && !self.net.cut.contains(&(at, of)) && !self.net.cut.contains(&(of, at));
        if !self.is_on(at) || self.nodes[at].reaches.get(&of) == Some(&is_up) {
            return;
        }
        self.nodes[at].reaches.insert(of, is_up);
        let (name, now) = (self.nodes[of].name, self.now);
        self.with(at, |ipam| {
            if is_up {
                ipam.handle_peer_reachable(name, now)
            } else {
                ipam.handle_peer_unreachable(name, now)
            }
        });
        if is_up {
            let delay = self.net.rng.millis(5, 100);
            self.net.at(now + delay, Happening::Gossip { from: at, to: of });
        }
    }

    /// One anti-entropy exchange; goes on for as long as the two can reach each other.
    fn gossip(&mut self, from: usize, to: usize) {
        if !self.is_on(from) || self.nodes[from].reaches.get(&to) != Some(&true) {
            return;
        }
        let now = self.now;
        let again = self.net.rng.millis(1_500, 4_000);
        self.net.at(now + again, Happening::Gossip { from, to });
        let is_cut =
            self.net.cut.contains(&(from, to)) || (!self.net.is_calm && self.net.rng.chance(self.net.loss));
        if is_cut || !self.is_on(to) {
            return;
        }
        let facts: Vec<(usize, (u64, Vec<u8>))> =
            self.nodes[from].facts.iter().map(|(i, f)| (*i, f.clone())).collect();
        for (of, (version, bytes)) in facts {
            if of != to {
                self.take_fact(of, to, version, &bytes);
            } else if self.is_on(to) && !self.nodes[to].was_told_own_past {
                self.nodes[to].was_told_own_past = true;
                self.with(to, |ipam| {
                    ipam.handle_own_previous_state(&bytes, now).expect("our own fact is sound")
                });
            }
        }
    }

    fn take_fact(&mut self, of: usize, to: usize, version: u64, bytes: &[u8]) {
        if !self.is_on(to) || self.nodes[to].facts.get(&of).is_some_and(|(known, _)| *known >= version) {
            return;
        }
        self.nodes[to].facts.insert(of, (version, bytes.to_vec()));
        let (name, now) = (self.nodes[of].name, self.now);
        self.with(to, |ipam| {
            ipam.handle_peer_state(name, Some(bytes), now).expect("our own facts are sound")
        });
    }

    pub(crate) fn changed_power(&mut self, index: usize) {
        for other in 0..self.nodes.len() {
            let delay = self.net.rng.millis(500, 3_000);
            self.net.at(self.now + delay, Happening::Notice { at: other, of: index });
        }
    }

    pub(crate) fn changed_link(&mut self, a: usize, b: usize) {
        for (at, of) in [(a, b), (b, a)] {
            let delay = self.net.rng.millis(100, 3_000);
            self.net.at(self.now + delay, Happening::Notice { at, of });
        }
    }

    // ---- quiet ----

    fn calm_down(&mut self) {
        self.net.is_calm = true;
        self.log(|| "calm".to_owned());
        let cut = std::mem::take(&mut self.net.cut);
        for (a, b) in cut {
            self.changed_link(a, b);
        }
        for index in 0..self.nodes.len() {
            if self.nodes[index].power == Power::Off {
                self.boot(index);
            }
        }
        self.run_until(self.now + Duration::from_secs(45));
        for round in 0..6 {
            // A removal too can be forgotten, by those who lose their disks.
            let dead: Vec<usize> = (0..self.nodes.len()).filter(|i| !self.is_on(*i)).collect();
            let Some(index) = self.pick_on() else { return };
            for dead in &dead {
                self.take_over(index, *dead);
            }
            self.settle_own();
            if round == 4 {
                // Somebody may still stand by a promise to a router that lost its store before it removed another.
                for index in 0..self.nodes.len() {
                    self.take_over(index, index);
                }
            }
            self.run_until(self.now + Duration::from_secs(40));
        }
    }

    fn check_quiet(&mut self) {
        let seed = self.seed;
        let on: Vec<usize> = (0..self.nodes.len()).filter(|i| self.is_on(*i)).collect();
        let statuses: Vec<_> =
            on.iter().filter_map(|i| Some(self.nodes[*i].ipam.as_ref()?.status())).collect();
        if self.is_loud {
            for (index, status) in on.iter().zip(&statuses) {
                println!("node {index}: {status:?}");
                for (owner, interface) in
                    self.nodes[*index].ipam.iter().flat_map(weave_ipam::Ipam::allocations)
                {
                    let is_true = self.held.get(&interface.address()) == Some(&(*index, owner.clone()));
                    println!("    {interface} {owner} {is_true}");
                }
            }
        }
        let digests: BTreeSet<_> = statuses.iter().map(|s| (s.ring_id, s.ring_digest)).collect();
        assert!(digests.len() <= 1, "seed {seed}: rings differ: {digests:?} {statuses:?}");
        let size: u128 =
            self.ranges.iter().map(|r| 1_u128 << (r.net().max_prefix_len() - r.net().prefix_len())).sum();
        for (index, status) in on.iter().zip(&statuses) {
            if status.ring_id.is_some() {
                let sum: u128 = status.owners.iter().map(|o| o.addresses).sum();
                assert_eq!(sum, size, "seed {seed}: the ring does not tile");
            }
            assert!(status.problems.is_empty(), "seed {seed}: node {index} has {:?}", status.problems);
        }
        if statuses.iter().all(|s| s.ring_id.is_none()) {
            return;
        }
        // Whoever asks gets an address while one is free.
        let first = self.ranges[0].net();
        let used = self
            .held
            .keys()
            .filter(|a| first.contains(*a) && **a != first.network() && **a != first.broadcast())
            .count();
        let mut free = (1_usize << (first.max_prefix_len() - first.prefix_len())) - 2 - used;
        for index in on {
            if free == 0 {
                break;
            }
            self.next_container += 1;
            let owner: ContainerId = format!("last{}", self.next_container).parse().unwrap();
            let request = self.request(index, Asked::Allocate(owner.clone()));
            let (now, granted) = (self.now, self.granted);
            let subnet = Some(self.ranges[0]);
            self.log(|| format!("node {index}: {owner} wants a last one as {request:?}"));
            self.with(index, |ipam| {
                ipam.allocate(request, owner, subnet, now + Duration::from_secs(30), now)
            });
            self.run_until(now + Duration::from_secs(31));
            assert_eq!(
                self.granted,
                granted + 1,
                "seed {seed}: node {index} gets none of {free} free addresses"
            );
            free -= 1;
        }
    }
}
