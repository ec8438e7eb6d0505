//! Whom to dial next.
//!
//! There is an [`Attempt`] for each target that the operator gave and for each peer that others told of. It waits, is being dialled,
//! is linked, or is given up for good. Waiting attempts stand in a queue by time. A failed one waits longer each
//! time (2 s, half as much again up to 6 min, each from half to one and a half of that); one whose link had lived is
//! tried at once.

mod attempt;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use weave_model::PeerName;

pub(crate) use attempt::{Attempt, State};

use crate::{Config, DialId, Retry, Target, random::Random};

/// A link that lived this long was a good one: its loss is answered by dialling at once.
const LIVED: Duration = Duration::from_secs(3);
/// Least wait (before jitter) after a name turned out to be taken: longer than a link without its other end lives.
const USELESS: Duration = Duration::from_secs(120);
/// Wait before the next address of the same peer.
const NEXT_ADDRESS: Duration = Duration::from_millis(50);

/// What a dial is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aim {
    /// The operator asked for it.
    Target(Target),
    /// Others told of this peer.
    Peer(PeerName),
}

/// A peer that others told of.
#[derive(Debug)]
struct Found {
    attempt: Attempt,
    addresses: Vec<SocketAddr>,
    /// Which address is next.
    turn: usize,
    /// Addresses that turned out to be ourselves.
    bad: BTreeSet<SocketAddr>,
    /// When it is forgotten, once it has left the mesh.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Dial {
    aim: Aim,
    target: Target,
    since: Instant,
}

/// A dial that has lasted so long when a link to its peer comes about is given up: it goes to an address where nobody
/// answered yet. A second link would replace the first half of the time, and what passes just then be lost. One that is
/// younger may be the other half of a simultaneous opening, of which the ends keep the same one.
const LONG_DIAL: Duration = Duration::from_millis(300);

/// What speaks against a dial that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// There is a link to this peer there already.
    Linked(PeerName),
    /// The peer has all the links that it may.
    Full,
}

/// Keeps targets and dials them.
#[derive(Debug)]
pub(crate) struct Maker {
    me: PeerName,
    pace: Pace,
    max_dials: usize,
    conn_limit: usize,
    targets: BTreeMap<Target, Attempt>,
    found: BTreeMap<PeerName, Found>,
    target_queue: BTreeSet<(Instant, Target)>,
    found_queue: BTreeSet<(Instant, PeerName)>,
    dials: BTreeMap<DialId, Dial>,
    dials_made: u64,
    /// Dials that are not needed any more.
    spare: Vec<DialId>,
}

/// Times of [`Config`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) backoff: Duration,
    pub(crate) limit: Duration,
    pub(crate) reset: Duration,
    pub(crate) yield_dial: Duration,
    pub(crate) remember: Duration,
}

impl Maker {
    pub(crate) fn new(config: &Config) -> Self {
        let pace = Pace {
            backoff: config.backoff,
            limit: config.backoff_limit,
            reset: config.backoff_reset,
            yield_dial: config.yield_dial,
            remember: config.remember,
        };
        Self {
            me: config.name,
            pace,
            max_dials: config.max_dials.max(1),
            conn_limit: config.conn_limit,
            targets: BTreeMap::new(),
            found: BTreeMap::new(),
            target_queue: BTreeSet::new(),
            found_queue: BTreeSet::new(),
            dials: BTreeMap::new(),
            dials_made: 0,
            spare: Vec::new(),
        }
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = (&Target, &Attempt)> {
        self.targets.iter()
    }

    /// Peers that others told of, with the address that is next or under way.
    pub(crate) fn found(&self) -> impl Iterator<Item = (PeerName, Option<SocketAddr>, &Attempt)> {
        self.found.iter().map(|(name, found)| (*name, found.address(), &found.attempt))
    }

    /// Adds a target, or tries a known one afresh.
    pub(crate) fn add_target(&mut self, target: &Target, now: Instant) {
        let aim = Aim::Target(target.clone());
        match self.targets.get(target).map(|attempt| &attempt.state) {
            Some(State::Dialing(_) | State::Linked(_)) => {}
            Some(State::Waiting(_) | State::Never) => self.start_over(&aim, now),
            None => {
                self.targets.insert(target.clone(), Attempt::new(self.pace.backoff, now));
                self.set_state(&aim, State::Waiting(now), now);
            }
        }
    }

    /// Drops a target; returns the dial under way.
    pub(crate) fn remove_target(&mut self, target: &Target) -> Option<DialId> {
        match self.targets.remove(target)?.state {
            State::Waiting(until) => {
                self.target_queue.remove(&(until, target.clone()));
                None
            }
            State::Dialing(dial) => {
                self.dials.remove(&dial);
                Some(dial)
            }
            State::Linked(_) | State::Never => None,
        }
    }

    /// Learns where a peer can be dialled. The lower name dials soon; the higher one gives it some time to.
    pub(crate) fn discover(
        &mut self,
        peer: PeerName,
        addresses: &[SocketAddr],
        linked: bool,
        random: &mut Random,
        now: Instant,
    ) {
        if let Some(found) = self.found.get_mut(&peer) {
            found.until = None;
            if found.addresses != addresses {
                found.addresses = addresses.to_vec();
                found.bad.clear();
                found.turn = 0;
            }
            return;
        }
        let attempt = Attempt::new(self.pace.backoff, now);
        let addresses = addresses.to_vec();
        self.found.insert(peer, Found { attempt, addresses, turn: 0, bad: BTreeSet::new(), until: None });
        let state =
            if linked { State::Linked(peer) } else { State::Waiting(now + self.turn_wait(peer, random)) };
        self.set_state(&Aim::Peer(peer), state, now);
    }

    /// A peer left the mesh: its addresses are tried for some more time.
    pub(crate) fn peer_left(&mut self, peer: PeerName, now: Instant) {
        if let Some(found) = self.found.get_mut(&peer) {
            found.until = Some(now + self.pace.remember);
        }
        let given_up = self.found.iter().filter(|(_, found)| found.attempt.state == State::Never);
        for name in given_up.map(|(name, _)| *name).collect::<Vec<_>>() {
            self.forget_departed(name, now);
        }
    }

    /// Forgets a peer whose time after leaving is over; returns whether it is.
    fn forget_departed(&mut self, peer: PeerName, now: Instant) -> bool {
        let is_over = self.found.get(&peer).and_then(|found| found.until).is_some_and(|until| until <= now);
        if is_over
            && let Some(found) = self.found.remove(&peer)
            && let State::Waiting(until) = found.attempt.state
        {
            self.found_queue.remove(&(until, peer));
        }
        is_over
    }

    /// A peer has another run than the one we are linked to: its lower-named neighbours dial it anew.
    pub(crate) fn peer_restarted(&mut self, peer: PeerName, random: &mut Random, now: Instant) {
        let is_linked = self.found.get(&peer).is_some_and(|f| matches!(f.attempt.state, State::Linked(_)));
        if is_linked && self.me < peer {
            let wait = random.between(Duration::ZERO, NEXT_ADDRESS);
            self.set_state(&Aim::Peer(peer), State::Waiting(now + wait), now);
        }
    }

    /// There is a link to `peer`, seen at `remote`; `dial` led to it or to one that it made superfluous.
    pub(crate) fn linked(
        &mut self,
        dial: Option<DialId>,
        peer: PeerName,
        remote: &[SocketAddr],
        now: Instant,
    ) -> Option<Aim> {
        let aim = dial.and_then(|dial| self.dials.remove(&dial)).map(|dial| dial.aim);
        let mut aims: BTreeSet<Aim> = aim.iter().cloned().collect();
        if let Some(Aim::Peer(other)) = &aim
            && *other != peer
        {
            // Another router answers at this address: the one we looked for may be at its next.
            aims.clear();
            self.record_failure(
                &Aim::Peer(*other),
                format!("the address belongs to {peer}"),
                Duration::ZERO,
                now,
            );
        }
        aims.extend(self.found.contains_key(&peer).then_some(Aim::Peer(peer)));
        let at = self.targets.iter().filter(|(target, attempt)| {
            attempt.peer == Some(peer) || target.address().is_some_and(|address| remote.contains(&address))
        });
        aims.extend(at.map(|(target, _)| Aim::Target(target.clone())));
        for aim in aims {
            let Some(attempt) = self.attempt(&aim) else { continue };
            let means_it = aim == Aim::Peer(peer) || attempt.peer == Some(peer);
            let is_answered = match attempt.state {
                State::Waiting(_) | State::Linked(_) => true,
                State::Dialing(own) if Some(own) == dial => true,
                // One that runs on ends as a duplicate.
                State::Dialing(own) => means_it && self.spare_dial(own, now),
                State::Never => false,
            };
            let Some(attempt) = self.attempt(&aim) else { continue };
            if is_answered {
                attempt.peer = Some(peer);
                attempt.failure = None;
                self.set_state(&aim, State::Linked(peer), now);
            }
        }
        aim
    }

    /// Gives a dial up that has lasted long.
    fn spare_dial(&mut self, dial: DialId, now: Instant) -> bool {
        let is_long = |dial: &Dial| now.saturating_duration_since(dial.since) >= LONG_DIAL;
        let is_spare = self.dials.get(&dial).is_some_and(is_long);
        if is_spare {
            self.dials.remove(&dial);
            self.spare.push(dial);
        }
        is_spare
    }

    /// The dials that are not needed any more since this was last asked.
    pub(crate) fn take_spare(&mut self) -> Vec<DialId> {
        std::mem::take(&mut self.spare)
    }

    /// There is no link to `peer` any more. Everything that counted on it waits again, for a moment if the link had lived.
    pub(crate) fn unlinked(
        &mut self,
        peer: PeerName,
        lived: Duration,
        why: &str,
        random: &mut Random,
        now: Instant,
    ) {
        let targets = self.targets.iter().filter(|(_, a)| a.state == State::Linked(peer));
        let mut aims: Vec<Aim> = targets.map(|(target, _)| Aim::Target(target.clone())).collect();
        let found = self.found.get(&peer).filter(|found| found.attempt.state == State::Linked(peer));
        aims.extend(found.map(|_| Aim::Peer(peer)));
        for aim in aims {
            let pace = self.pace;
            let wait = match &aim {
                Aim::Peer(name) if self.me > *name => (700, 1200),
                Aim::Peer(_) | Aim::Target(_) => (200, 500),
            };
            let Some(attempt) = self.attempt(&aim) else { continue };
            attempt.failure = Some(why.to_owned());
            if lived >= pace.reset {
                attempt.backoff = pace.backoff;
            }
            let wait = if lived >= LIVED {
                random.between(Duration::from_millis(wait.0), Duration::from_millis(wait.1))
            } else {
                attempt.next_wait(pace, random)
            };
            self.set_state(&aim, State::Waiting(now + wait), now);
        }
    }

    /// A dial came to nothing.
    pub(crate) fn failed(
        &mut self,
        dial: DialId,
        text: String,
        retry: Retry,
        random: &mut Random,
        now: Instant,
    ) {
        let Some(Dial { aim, target, .. }) = self.dials.remove(&dial) else { return };
        self.give_up(&aim, target.address(), text, retry, random, now);
    }

    /// What an attempt led to turned out to be no use.
    pub(crate) fn give_up(
        &mut self,
        aim: &Aim,
        address: Option<SocketAddr>,
        text: String,
        retry: Retry,
        random: &mut Random,
        now: Instant,
    ) {
        if let Aim::Peer(peer) = aim
            && let Some(found) = self.found.get_mut(peer)
            && found.spare_address(address, retry)
        {
            self.record_failure(aim, text, NEXT_ADDRESS, now);
            return;
        }
        let pace = self.pace;
        let Some(attempt) = self.attempt(aim) else { return };
        match retry {
            Retry::Backoff => {
                let wait = attempt.next_wait(pace, random);
                self.record_failure(aim, text, wait, now);
            }
            Retry::Never => {
                attempt.failure = Some(text);
                self.set_state(aim, State::Never, now);
            }
        }
    }

    /// What leads to `peer`, and what `dial` was for, is of no use for as long as a router that is gone may seem to be there.
    pub(crate) fn slow_down(&mut self, dial: Option<DialId>, peer: PeerName) {
        let least = USELESS.min(self.pace.limit);
        let aim = dial.and_then(|dial| self.dials.get(&dial)).map(|dial| dial.aim.clone());
        let targets = self.targets.iter().filter(|(_, attempt)| attempt.peer == Some(peer));
        let targets: Vec<Aim> = targets.map(|(target, _)| Aim::Target(target.clone())).collect();
        for aim in aim.into_iter().chain(targets).chain([Aim::Peer(peer)]) {
            if let Some(attempt) = self.attempt(&aim) {
                attempt.backoff = attempt.backoff.max(least);
            }
        }
    }

    /// The next dial that is due, for which there is room beside `links`, and which nothing speaks against.
    pub(crate) fn poll(
        &mut self,
        links: usize,
        obstacle: impl Fn(&Aim, Option<SocketAddr>) -> Option<Obstacle>,
        random: &mut Random,
        now: Instant,
    ) -> Option<(DialId, Target)> {
        loop {
            let aim = self.next_aim(links).filter(|(until, _)| *until <= now)?.1;
            if let Aim::Peer(peer) = &aim
                && self.forget_departed(*peer, now)
            {
                continue;
            }
            let Some(target) = self.target_of(&aim) else {
                // A peer without a usable address: its next description may have one.
                self.record_failure(&aim, "no address to dial".to_owned(), self.pace.limit, now);
                continue;
            };
            match (obstacle(&aim, target.address()), &aim) {
                (None, _) => {}
                (Some(Obstacle::Linked(peer)), Aim::Peer(name)) if *name != peer => {
                    self.record_failure(&aim, format!("the address belongs to {peer}"), self.pace.limit, now);
                    continue;
                }
                (Some(Obstacle::Linked(peer)), _) => {
                    self.set_state(&aim, State::Linked(peer), now);
                    continue;
                }
                (Some(Obstacle::Full), _) => {
                    let text = "peer has as many connections as it may".to_owned();
                    self.give_up(&aim, None, text, Retry::Backoff, random, now);
                    continue;
                }
            }
            if self.dials.values().any(|dial| dial.target == target) {
                self.record_failure(&aim, String::new(), self.pace.backoff / 2, now);
                continue;
            }
            self.dials_made += 1;
            let dial = DialId(self.dials_made);
            self.set_state(&aim, State::Dialing(dial), now);
            self.dials.insert(dial, Dial { aim, target: target.clone(), since: now });
            return Some((dial, target));
        }
    }

    /// When [`Maker::poll`] has something next.
    pub(crate) fn next_timeout(&self, links: usize) -> Option<Instant> {
        self.next_aim(links).map(|(until, _)| until)
    }

    fn next_aim(&self, links: usize) -> Option<(Instant, Aim)> {
        if self.dials.len() >= self.max_dials {
            return None;
        }
        let taken = links + self.dials.len();
        let fits = |limit: usize| self.conn_limit == 0 || taken < limit;
        // What the operator asked for may be the only bridge to the rest of the mesh.
        let target = self.target_queue.first().filter(|_| fits(self.conn_limit * 2));
        let found = self.found_queue.first().filter(|_| fits(self.found_limit()));
        match (target, found) {
            (Some((at, _)), Some((until, peer))) if until < at => Some((*until, Aim::Peer(*peer))),
            (None, Some((until, peer))) => Some((*until, Aim::Peer(*peer))),
            (Some((at, target)), _) => Some((*at, Aim::Target(target.clone()))),
            (None, None) => None,
        }
    }

    /// Links up to which we dial peers that others told of. Where there are more peers than we may link to, some room is left
    /// for those that dial us: who finds none anywhere dials in vain.
    fn found_limit(&self) -> usize {
        let is_crowded = self.found.len() > self.conn_limit;
        if is_crowded { self.conn_limit - self.conn_limit / 4 } else { self.conn_limit }
    }

    fn target_of(&self, aim: &Aim) -> Option<Target> {
        match aim {
            Aim::Target(target) => Some(target.clone()),
            Aim::Peer(peer) => self.found.get(peer)?.address().map(Target::Address),
        }
    }

    fn turn_wait(&self, peer: PeerName, random: &mut Random) -> Duration {
        let soon = random.between(Duration::ZERO, NEXT_ADDRESS);
        if self.me < peer {
            soon
        } else {
            self.pace.yield_dial + random.between(Duration::ZERO, self.pace.yield_dial / 4)
        }
    }

    fn start_over(&mut self, aim: &Aim, now: Instant) {
        let backoff = self.pace.backoff;
        if let Some(attempt) = self.attempt(aim) {
            attempt.backoff = backoff;
        }
        self.set_state(aim, State::Waiting(now), now);
    }

    fn record_failure(&mut self, aim: &Aim, text: String, wait: Duration, now: Instant) {
        if let Some(attempt) = self.attempt(aim)
            && !text.is_empty()
        {
            attempt.failure = Some(text);
        }
        self.set_state(aim, State::Waiting(now + wait), now);
    }

    fn attempt(&mut self, aim: &Aim) -> Option<&mut Attempt> {
        match aim {
            Aim::Target(target) => self.targets.get_mut(target),
            Aim::Peer(peer) => self.found.get_mut(peer).map(|found| &mut found.attempt),
        }
    }

    /// Changes a state and keeps the queues in step.
    fn set_state(&mut self, aim: &Aim, state: State, now: Instant) {
        let Some(attempt) = self.attempt(aim) else { return };
        let after = state.clone();
        let before = attempt.change(state, now);
        for (state, insert) in [(before, false), (after, true)] {
            let State::Waiting(until) = state else { continue };
            match (aim, insert) {
                (Aim::Target(target), true) => self.target_queue.insert((until, target.clone())),
                (Aim::Target(target), false) => self.target_queue.remove(&(until, target.clone())),
                (Aim::Peer(peer), true) => self.found_queue.insert((until, *peer)),
                (Aim::Peer(peer), false) => self.found_queue.remove(&(until, *peer)),
            };
        }
    }
}

impl Found {
    fn address(&self) -> Option<SocketAddr> {
        let usable = || self.addresses.iter().filter(|address| !self.bad.contains(address));
        usable().nth(self.turn).or_else(|| usable().next()).copied()
    }

    /// Moves on from an address that failed; `false` when all have had their turn.
    fn spare_address(&mut self, failed: Option<SocketAddr>, retry: Retry) -> bool {
        if retry == Retry::Never
            && let Some(address) = failed
        {
            self.bad.insert(address);
        } else {
            self.turn += 1;
        }
        let usable = self.addresses.iter().filter(|address| !self.bad.contains(address)).count();
        if self.turn < usable {
            return true;
        }
        self.turn = 0;
        false
    }
}
