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

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Day {
    /// Loss, partitions, crashes, restored and lost disks, removals.
    Bad,
    /// Besides: newcomers, clones, clocks that leap, full ranges, and faults that follow each other closely.
    Worse,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) day: Day,
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
    /// The clone that is on, and the router that only ever meets the original.
    pub(crate) clone: Option<(usize, usize)>,
    /// Memberships that some store knew and lost: who, and how often it was removed or came back.
    pub(crate) forgotten: BTreeSet<(usize, u64)>,
    /// Stores are lost even where nobody else knows what they knew.
    pub(crate) is_merciless: bool,
    /// The range is being filled, to count how much of it is given: while it is, no process dies.
    pub(crate) is_sound: bool,
    deeds_end: Instant,
    pub(crate) granted: u64,
    pub(crate) refused: u64,
}

impl World {
    pub(crate) fn new(seed: u64, day: Day, is_loud: bool) -> Self {
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
        let mut nodes: Vec<Node> = (0..count).map(|index| Node::new(index, rng.next())).collect();
        if day == Day::Worse {
            // Fewer than could vote by themselves.
            let late = rng.below(quorum.min(13 - count));
            nodes.extend((count..count + late).map(|index| Node::late(index, rng.next())));
        }
        let loss = [0, 5, 15, 30][rng.below(4)];
        let deeds_end = start + Duration::from_secs(40 + rng.below(60) as u64);
        Self {
            seed,
            day,
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
            clone: None,
            forgotten: BTreeSet::new(),
            is_merciless: false,
            is_sound: false,
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

    /// As it was before it was known how much may be forgotten: days that are remembered go on being what they were.
    pub(crate) fn merciless(mut self) -> Self {
        self.is_merciless = true;
        self
    }

    pub(crate) fn run(mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].power != Power::New {
                self.boot(index);
            }
        }
        self.run_until(self.start + Duration::from_secs(2));
        if self.day == Day::Worse && self.net.rng.chance(20) {
            self.is_sound = true;
            // One may have died at its very start, and its share with it.
            if self.nodes.iter().all(|node| matches!(node.power, Power::On | Power::New)) {
                self.check_full_use();
            }
            self.is_sound = false;
        }
        for _ in 0..3 {
            self.user_acts();
        }
        self.net.at(self.now + Duration::from_millis(100), Happening::Deed);
        self.run_until(self.deeds_end);
        self.calm_down();
        self.check_quiet();
    }

    // ---- time ----

    pub(crate) fn run_until(&mut self, end: Instant) {
        let mut steps = 0_u64;
        loop {
            steps += 1;
            assert!(steps < 3_000_000, "seed {}: no end of steps", self.seed);
            let timer = (0..self.nodes.len())
                .filter_map(|index| Some((self.nodes[index].next_timeout()?, index)))
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
                    self.with(index, |ipam, now| ipam.handle_timeout(now));
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
                self.with(to, |ipam, now| {
                    ipam.handle_message(name, &bytes, now).expect("our own messages are sound")
                });
            }
            Happening::Gossip { from, to } => self.gossip(from, to),
            Happening::Fact { of, to, version, bytes } => self.take_fact(of, to, version, &bytes),
            Happening::Notice { at, of } => self.notice(at, of),
            Happening::Deed if self.net.is_calm => {}
            Happening::Story(_) if self.net.is_calm => {}
            Happening::Story(story) => self.go_on(story),
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
        let now = self.now + self.nodes[index].ahead;
        self.nodes[index].boot(&self.ranges.clone(), &self.init.clone(), seed, now);
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
            let request = self.request(index, Asked::Other);
            self.with(index, |ipam, now| ipam.free_address(request, &owner, interface.address(), now));
        }
    }

    /// Lets a router act; its clock says its own time.
    pub(crate) fn with<R>(&mut self, index: usize, act: impl FnOnce(&mut weave_ipam::Ipam, Instant) -> R) {
        let now = self.now + self.nodes[index].ahead;
        if let Some(ipam) = &mut self.nodes[index].ipam {
            act(ipam, now);
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
            Event::Publish(bytes) => self.publish(index, bytes),
            Event::Send { to, bytes } => {
                let to = self.who_is(index, to);
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

    /// A fact goes to all others; the mesh keeps the latest under each name.
    pub(crate) fn publish(&mut self, index: usize, bytes: Vec<u8>) {
        let slot = self.nodes[index].slot;
        self.nodes[slot].version += 1;
        let version = self.nodes[slot].version;
        self.nodes[index].facts.insert(slot, (version, bytes.clone()));
        for to in (0..self.nodes.len()).filter(|to| *to != index) {
            let what = Happening::Fact { of: slot, to, version, bytes: bytes.clone() };
            self.net.send(self.now, index, to, &what);
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
                self.watch_clone();
            }
            _ => {}
        }
    }

    // ---- the mesh ----

    pub(crate) fn is_on(&self, index: usize) -> bool {
        self.nodes[index].ipam.is_some()
    }

    /// Whom a router means by a name: of a machine and its clone, the one that it reaches.
    fn who_is(&self, from: usize, name: PeerName) -> usize {
        let reaches = |of: &usize| self.nodes[from].reaches.get(of) == Some(&true);
        let mut named = (0..self.nodes.len()).filter(|of| self.nodes[*of].name == name);
        named.find(reaches).unwrap_or_else(|| usize::from(name.0[5]))
    }

    fn notice(&mut self, at: usize, of: usize) {
        let is_up = at != of && self.is_on(of) && !self.net.is_cut(at, of) && !self.net.is_cut(of, at);
        if !self.is_on(at) || self.nodes[at].reaches.get(&of) == Some(&is_up) {
            return;
        }
        self.nodes[at].reaches.insert(of, is_up);
        let name = self.nodes[of].name;
        let is_reached =
            self.nodes[at].reaches.iter().any(|(other, is_up)| *is_up && self.nodes[*other].name == name);
        self.with(at, |ipam, now| {
            if is_reached {
                ipam.handle_peer_reachable(name, now)
            } else {
                ipam.handle_peer_unreachable(name, now)
            }
        });
        if is_up {
            let delay = self.net.rng.millis(5, 100);
            self.net.at(self.now + delay, Happening::Gossip { from: at, to: of });
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
        let is_cut = self.net.is_cut(from, to) || (!self.net.is_calm && self.net.rng.chance(self.net.loss));
        if is_cut || !self.is_on(to) {
            return;
        }
        let facts: Vec<(usize, (u64, Vec<u8>))> =
            self.nodes[from].facts.iter().map(|(i, f)| (*i, f.clone())).collect();
        for (of, (version, bytes)) in facts {
            if of != self.nodes[to].slot {
                self.take_fact(of, to, version, &bytes);
            } else if self.is_on(to) && !self.nodes[to].was_told_own_past {
                self.nodes[to].was_told_own_past = true;
                self.with(to, |ipam, now| {
                    ipam.handle_own_previous_state(&bytes, now).expect("our own fact is sound")
                });
            }
        }
    }

    fn take_fact(&mut self, of: usize, to: usize, version: u64, bytes: &[u8]) {
        if !self.is_on(to)
            || of == self.nodes[to].slot
            || self.nodes[to].facts.get(&of).is_some_and(|(known, _)| *known >= version)
        {
            return;
        }
        self.nodes[to].facts.insert(of, (version, bytes.to_vec()));
        let name = self.nodes[of].name;
        self.with(to, |ipam, now| {
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

    // ---- quiet: see also `full` ----

    fn calm_down(&mut self) {
        self.log(|| "calm".to_owned());
        self.end_clone();
        self.net.is_calm = true;
        let cut = std::mem::take(&mut self.net.cut);
        for (a, b) in cut {
            self.changed_link(a, b);
        }
        for index in 0..self.nodes.len() {
            if matches!(self.nodes[index].power, Power::Off | Power::New) {
                self.boot(index);
            }
        }
        self.run_until(self.now + Duration::from_secs(45));
        for round in 0..6 {
            // A removal too can be forgotten, by those who lose their disks.
            let dead: Vec<usize> = (0..self.nodes.len())
                .filter(|i| !self.is_on(*i) && self.nodes[*i].power != Power::Gone)
                .collect();
            let Some(index) = self.pick_on() else { return };
            for dead in &dead {
                self.take_over(index, *dead);
            }
            self.settle_own();
            if round == 4 {
                // Somebody may still stand by a promise to a router that lost its store before it removed another.
                for index in 0..self.nodes.len() {
                    if self.nodes[index].slot == index {
                        self.take_over(index, index);
                    }
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
        self.check_free_addresses_are_given(&on);
    }
}
