//! The event queue, the clock, and carrying out what nodes want.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use weave_ipam::{Refusal, Reply, RequestId};
use weave_mesh::{DialId, LinkInfo};
use weave_model::{ContainerId, Interface};
use weave_node::{Node, Output};

use crate::{
    check::Failure,
    host::{Ask, Host, Power},
    net::{End, Weather, Wire},
    oracle::Oracle,
    plan::Plan,
};

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Happening {
    Wake { host: usize, life: u32 },
    Arrive { to: End },
    Opened { at: End, info: Box<LinkInfo> },
    Overlay { at: End },
    Closed { at: End, why: String },
    DialFailed { host: usize, life: u32, dial: DialId },
    CheckIdle { end: End },
}

/// What a run amounted to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Messages that nodes sent each other.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Links opened.
    pub links: u64,
    /// Answers of "this address is yours", each checked against all containers on all hosts.
    pub grants: u64,
    /// Addresses held at the end.
    pub held: usize,
    /// Requests refused, by deadline or otherwise.
    pub refusals: u64,
    /// Times that a node died, one way or another.
    pub deaths: u64,
    /// Dead hosts whose space was taken over.
    pub takeovers: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Virtual time from the start (on a bad day: from the end of the bad weather) until all nodes agreed.
    pub agreed_after: Duration,
    /// Virtual time until every node knew of a change of one fact: the median over the changes that were timed.
    pub change_p50: Duration,
    /// The same, of 99 in 100 changes.
    pub change_p99: Duration,
    /// Changes that were timed.
    pub changes: usize,
    /// Bytes that nodes sent until all agreed.
    pub bytes_to_agree: u64,
    /// Bytes of messages that a node sends per second when nothing happens: the mean over all nodes.
    pub steady_mean: f64,
    /// The same, of the node that sends most.
    pub steady_max: f64,
    /// Pairs of hosts between which frames were walked, hop by hop, at the end.
    pub walks: u64,
}

/// All hosts and the network between them.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) hosts: Vec<Host>,
    pub(crate) weather: Weather,
    pub(crate) oracle: Oracle,
    pub(crate) outcome: Outcome,
    /// Of how many effects of nodes one is followed by the death of the node; 0 for none.
    pub(crate) deadly_effects: u32,
    /// Every store has had the ring once.
    pub(crate) is_ring_known_to_all: bool,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next_happening: u64,
    /// The other end of each end, and what is under way *towards* the key.
    pub(crate) peer_of: BTreeMap<End, End>,
    pub(crate) wires: BTreeMap<End, Wire>,
}

impl World {
    /// The hosts of a plan, none of them started.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        // The start is arbitrary: only differences are ever looked at.
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let start = Instant::now();
        let mut world = Self {
            plan: plan.clone(),
            start,
            now: start,
            rng: ChaCha8Rng::seed_from_u64(plan.seed),
            hosts: Vec::new(),
            weather: Weather {
                latency: Duration::from_millis(2),
                jitter: Duration::from_millis(3),
                loss_per_mille: 0,
                blocked: BTreeSet::new(),
            },
            oracle: Oracle::default(),
            outcome: Outcome::default(),
            deadly_effects: 0,
            is_ring_known_to_all: false,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next_happening: 0,
            peer_of: BTreeMap::new(),
            wires: BTreeMap::new(),
        };
        for _ in 0..plan.peers {
            let targets = plan.targets_of(world.hosts.len(), &mut world.rng);
            world.add_host(targets);
        }
        world
    }

    /// Another machine, with a name, an address and a disk of its own.
    pub(crate) fn add_host(&mut self, targets: Vec<usize>) -> usize {
        let index = self.hosts.len();
        let mut host = Host::new(index, targets);
        host.site = self.rng.next_u32() % self.plan.sites.max(1);
        host.peers_expected = self.plan.peers;
        host.ranges.clone_from(&self.plan.ranges);
        host.conn_limit = self.plan.conn_limit;
        self.hosts.push(host);
        index
    }

    /// Starts every host now.
    ///
    /// # Errors
    /// When a node cannot start, or an invariant breaks.
    pub fn start_all(&mut self) -> Result<(), Failure> {
        (0..self.hosts.len()).try_for_each(|host| self.start_host(host))
    }

    pub(crate) fn start_host(&mut self, host: usize) -> Result<(), Failure> {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let now = self.now;
        self.note(|| format!("host {host} starts"));
        let state = &mut self.hosts[host];
        if !self.plan.with_marks {
            state.mark = None;
        }
        state.start(seed, now).map_err(|why| Failure::CannotStart { host, why })?;
        self.prune(host);
        self.settle(host)
    }

    /// Gives back what the store says is held by containers that are no more.
    fn prune(&mut self, host: usize) {
        let now = self.now;
        let state = &mut self.hosts[host];
        let Some(ipam) = state.node.as_ref().and_then(Node::ipam) else { return };
        let is_there = |id: &ContainerId, at: &Interface| {
            state.containers.get(id).is_some_and(|container| container.addresses.contains(at))
        };
        let ghosts: Vec<(ContainerId, Interface)> = ipam
            .allocations()
            .filter(|(id, at)| !is_there(id, at))
            .map(|(id, at)| (id.clone(), at))
            .collect();
        for (id, at) in ghosts {
            let request = state.ask(Ask::Free);
            if let Some(node) = &mut state.node {
                node.free_address(request, &id, at.address(), now);
            }
        }
    }

    /// The node dies. Its neighbours learn of it by silence.
    pub(crate) fn kill(&mut self, host: usize) {
        self.outcome.deaths += 1;
        self.note(|| format!("host {host} dies"));
        self.hosts[host].stop();
        self.fall_silent(host);
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].power == Power::On).collect()
    }

    /// Tells whoever follows the run what happens.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = self.plan.trace {
            trace(&format!("{:9.3} {}", (self.now - self.start).as_secs_f64(), what()));
        }
    }

    /// A random number below `n`, or 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() % n.max(1) as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len());
        from.get(at).copied()
    }

    pub(crate) fn schedule(&mut self, after: Duration, happening: Happening) {
        self.schedule_at(self.now + after, happening);
    }

    pub(crate) fn schedule_at(&mut self, at: Instant, happening: Happening) {
        let id = self.next_happening;
        self.next_happening += 1;
        self.queue.push(Reverse((at, id)));
        self.happenings.insert(id, happening);
    }

    /// Lets virtual time pass.
    ///
    /// # Errors
    /// The first invariant that breaks.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        let until = self.now + time;
        while let Some(&Reverse((at, id))) = self.queue.peek().filter(|next| next.0.0 <= until) {
            self.queue.pop();
            self.now = at;
            if let Some(happening) = self.happenings.remove(&id) {
                self.happen(happening)?;
            }
        }
        self.now = until;
        self.outcome.elapsed = self.now - self.start;
        self.outcome.grants = self.oracle.grants;
        self.outcome.held = self.oracle.held();
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Failure> {
        match happening {
            Happening::Wake { host, life } => {
                let now = self.now;
                let state = &mut self.hosts[host];
                if state.life != life || state.wake != Some(now) {
                    return Ok(());
                }
                state.wake = None;
                self.with_node(host, life, |node, now| node.handle_timeout(now))
            }
            Happening::Arrive { to } => self.arrive(to),
            Happening::Opened { at, info } => self.opened(at, *info),
            Happening::Overlay { at } => self.overlay_is_up(at),
            Happening::Closed { at, why } => self.closed(at, &why),
            Happening::DialFailed { host, life, dial } => self.dial_failed(host, life, dial),
            Happening::CheckIdle { end } => {
                self.check_idle(end);
                Ok(())
            }
        }
    }

    /// Runs something on a node if it still lives the same life, then carries out what it wants.
    pub(crate) fn with_node(
        &mut self,
        host: usize,
        life: u32,
        act: impl FnOnce(&mut Node, Instant),
    ) -> Result<(), Failure> {
        let now = self.now;
        let state = &mut self.hosts[host];
        match state.node.as_mut() {
            Some(node) if state.life == life => act(node, now),
            Some(_) | None => return Ok(()),
        }
        self.settle(host)
    }

    /// The same for a node in its present life, if it has one.
    pub(crate) fn on_node(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Node, Instant),
    ) -> Result<(), Failure> {
        let life = self.hosts[host].life;
        self.with_node(host, life, act)
    }

    /// Carries out everything that a node wants, in order, and arms its timer.
    fn settle(&mut self, host: usize) -> Result<(), Failure> {
        while let Some(output) = self.hosts[host].node.as_mut().and_then(Node::poll_output) {
            self.carry_out(host, output)?;
            if self.deadly_effects > 0 && self.rng.next_u32().is_multiple_of(self.deadly_effects) {
                // What came before is done, and durable if it was to be; what comes after is lost.
                self.die_somehow(host);
                return Ok(());
            }
        }
        let now = self.now;
        let state = &mut self.hosts[host];
        let due = state.node.as_ref().and_then(Node::poll_timeout).map(|(at, _)| at.max(now));
        if let Some(at) = due
            && state.wake.is_none_or(|wake| at < wake)
        {
            state.wake = Some(at);
            let life = state.life;
            self.schedule_at(at, Happening::Wake { host, life });
        }
        Ok(())
    }

    fn carry_out(&mut self, host: usize, output: Output) -> Result<(), Failure> {
        let life = self.hosts[host].life;
        match output {
            Output::Transmit { link, bytes } => self.transmit(End { host, life, link }, bytes),
            Output::Dial { dial, target } => self.dial(host, dial, &target),
            Output::AbandonDial { dial } => {
                self.hosts[host].abandoned.insert(dial);
            }
            Output::CloseLink { link, reason } => self.close(End { host, life, link }, &reason.to_string()),
            Output::LinkAdopted { link, .. } => {
                self.schedule(self.weather.latency * 2, Happening::Overlay { at: End { host, life, link } });
            }
            Output::Persist(writes) => self.hosts[host].persist(writes),
            Output::Incarnation(incarnation) => self.hosts[host].disk.incarnation = incarnation,
            Output::Reply { request, result } => return self.replied(host, request, result),
            Output::Refused(refused) => {
                return Err(Failure::Refused { host, why: refused.to_string() });
            }
            Output::Forwarding(forwarding) => self.hosts[host].forwarding = Some(forwarding),
            Output::PeerJoined { peer, .. } => self.note(|| format!("host {host} sees {peer}")),
            Output::PeerLeft { peer } => self.note(|| format!("host {host} misses {peer}")),
            Output::Plan(_) | Output::Names(_) | Output::Mtu(_) => {}
        }
        Ok(())
    }

    fn replied(
        &mut self,
        host: usize,
        request: RequestId,
        result: Result<Reply, Refusal>,
    ) -> Result<(), Failure> {
        let Some(ask) = self.hosts[host].asked.remove(&request) else { return Ok(()) };
        if let Err(refusal) = &result {
            self.note(|| format!("host {host} refuses {ask:?}: {refusal}"));
            self.outcome.refusals += 1;
        }
        match (ask, result) {
            (Ask::Addresses(container), Ok(Reply::Addresses(addresses))) => {
                self.oracle.granted(host, &container, &addresses)?;
                self.container_has(host, container, &addresses)
            }
            (Ask::TakeOver(dead), Ok(Reply::TakenOver(_))) => {
                let power = &mut self.hosts[dead].power;
                if *power == Power::Lost {
                    *power = Power::Removed;
                    self.outcome.takeovers += 1;
                }
                Ok(())
            }
            (Ask::Addresses(_) | Ask::Free | Ask::TakeOver(_), _) => Ok(()),
        }
    }
}
