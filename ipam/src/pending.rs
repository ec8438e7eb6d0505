//! Requests: what is asked, what waits, what is answered.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use weave_model::{ContainerId, Interface, PeerName, Subnet};

use crate::{
    config::is_too_small,
    ipam::Ipam,
    request::{Refusal, Reply, RequestId, WaitReason},
    span::{Span, to_number},
    store,
};

/// Requests that wait, oldest first, and the last ones that were granted.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Pending>,
    by_request: BTreeMap<RequestId, u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    granted: VecDeque<(RequestId, ContainerId, Vec<IpAddr>)>,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request: RequestId,
    deadline: Instant,
    pub(crate) want: Want,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub(crate) enum Want {
    /// One address in each subnet.
    Allocate { owner: ContainerId, subnets: Vec<Subnet> },
    /// This address. `again`: the container holds it already, and it is to be ours.
    Claim { owner: ContainerId, address: Interface, again: bool, ask: Option<AddressAsk> },
    /// A ring.
    Prime,
}

/// A question to the owner of an address that is claimed here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressAsk {
    pub(crate) to: PeerName,
    pub(crate) nonce: u64,
    pub(crate) retry_at: Instant,
}

/// Requests that may wait at once.
const MAX_WAITING: usize = 10_000;
/// Granted requests that may still be cancelled.
const MAX_GRANTED: usize = 1_024;

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.waiting.values()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let asks = self.waiting.values().filter_map(|pending| match &pending.want {
            Want::Claim { ask, .. } => ask.as_ref().map(|ask| ask.retry_at),
            Want::Allocate { .. } | Want::Prime => None,
        });
        asks.min()
    }

    fn push(&mut self, request: RequestId, deadline: Instant, want: Want) {
        let seq = self.next;
        self.next += 1;
        self.by_request.insert(request, seq);
        self.deadlines.insert((deadline, seq));
        self.waiting.insert(seq, Pending { request, deadline, want });
    }

    fn remove(&mut self, seq: u64) -> Option<Pending> {
        let pending = self.waiting.remove(&seq)?;
        self.by_request.remove(&pending.request);
        self.deadlines.remove(&(pending.deadline, seq));
        Some(pending)
    }

    fn remember(&mut self, request: RequestId, owner: &ContainerId, fresh: Vec<IpAddr>) {
        if self.granted.len() == MAX_GRANTED {
            self.granted.pop_front();
        }
        self.granted.push_back((request, owner.clone(), fresh));
    }
}

impl Ipam {
    /// Gives the container an address in `subnet`, or one in each default subnet. A container that has one there
    /// keeps it and is told again. Answered by [`Reply::Addresses`], or refused no later than at `deadline`.
    pub fn allocate(
        &mut self,
        request: RequestId,
        owner: ContainerId,
        subnet: Option<Subnet>,
        deadline: Instant,
        now: Instant,
    ) {
        let subnets = subnet.map_or_else(|| self.default_subnets.clone(), |subnet| vec![subnet]);
        if let Some(subnet) = subnets.iter().find(|s| is_too_small(**s)) {
            return self.refuse(request, Refusal::SubnetTooSmall { subnet: *subnet }, now);
        }
        if let Some(subnet) = subnets.iter().find(|s| !self.is_managed(**s)) {
            return self.refuse(request, Refusal::OutOfRange { subnet: *subnet }, now);
        }
        self.ask(request, deadline, Want::Allocate { owner, subnets }, now);
    }

    /// Records that the container has exactly this address. Outside the ranges only this router is asked; inside
    /// them, the router that owns the address. Answered by [`Reply::Addresses`].
    pub fn claim(
        &mut self,
        request: RequestId,
        owner: ContainerId,
        address: Interface,
        deadline: Instant,
        now: Instant,
    ) {
        self.ask(request, deadline, Want::Claim { owner, address, again: false, ask: None }, now);
    }

    /// Waits until there is a ring. Answered by [`Reply::Done`].
    pub fn prime(&mut self, request: RequestId, deadline: Instant, now: Instant) {
        self.ask(request, deadline, Want::Prime, now);
    }

    /// Frees all that the container holds and cancels what it waits for. Answered by [`Reply::Done`], also when
    /// there was nothing.
    pub fn free(&mut self, request: RequestId, owner: &ContainerId, now: Instant) {
        let theirs: Vec<RequestId> = self
            .queue
            .iter()
            .filter(|pending| match &pending.want {
                Want::Allocate { owner: o, .. } | Want::Claim { owner: o, .. } => o == owner,
                Want::Prime => false,
            })
            .map(|pending| pending.request)
            .collect();
        for waiting in theirs {
            self.withdraw(waiting);
        }
        for interface in self.lookup(owner) {
            self.release(owner, interface, now);
        }
        self.reply(request, Ok(Reply::Done));
        self.finish(now);
    }

    /// Frees one address of the container. Answered by [`Reply::Done`], also when nobody held it.
    pub fn free_address(&mut self, request: RequestId, owner: &ContainerId, address: IpAddr, now: Instant) {
        let held = self.ledger.held_by(owner).iter().copied().find(|held| held.address() == address);
        let result = match (held, self.ledger.holder(address)) {
            (Some(interface), _) => {
                self.release(owner, interface, now);
                Ok(Reply::Done)
            }
            (None, Some(holder)) => Err(Refusal::Conflict { address, holder: holder.clone() }),
            (None, None) => Ok(Reply::Done),
        };
        self.reply(request, result);
        self.finish(now);
    }

    /// Withdraws a request. One that waits is refused as cancelled; what one of the last thousand was granted is
    /// freed again.
    pub fn cancel(&mut self, request: RequestId, now: Instant) {
        if !self.withdraw(request) && !self.cancel_settle(request) && !self.cancel_crossing(request) {
            let granted = self.queue.granted.iter().position(|(granted, _, _)| *granted == request);
            let granted = granted.and_then(|at| self.queue.granted.remove(at));
            if let Some((_, owner, fresh)) = granted {
                let held = self.lookup(&owner);
                for interface in held.into_iter().filter(|held| fresh.contains(&held.address())) {
                    self.release(&owner, interface, now);
                }
            }
        }
        self.finish(now);
    }

    fn withdraw(&mut self, request: RequestId) -> bool {
        let Some(seq) = self.queue.by_request.get(&request).copied() else { return false };
        self.queue.remove(seq);
        self.reply(request, Err(Refusal::Cancelled));
        true
    }

    /// Refuses a request that waits.
    pub(crate) fn refuse_waiting(&mut self, request: RequestId, refusal: Refusal) {
        if let Some(seq) = self.queue.by_request.get(&request).copied() {
            self.queue.remove(seq);
            self.reply(request, Err(refusal));
        }
    }

    fn refuse(&mut self, request: RequestId, refusal: Refusal, now: Instant) {
        self.reply(request, Err(refusal));
        self.finish(now);
    }

    /// Serves the request at once if nobody is before it, else lets it wait its turn.
    pub(crate) fn ask(&mut self, request: RequestId, deadline: Instant, mut want: Want, now: Instant) {
        if self.leaving.is_some() {
            return self.refuse(request, Refusal::Leaving, now);
        }
        if self.queue.waiting.len() >= MAX_WAITING {
            return self.refuse(request, Refusal::TooManyRequests, now);
        }
        let is_alone = self.queue.is_empty();
        let result = if is_alone { self.attempt(request, &mut want, now) } else { None };
        match result {
            Some(result) => self.reply(request, result),
            None => {
                if self.ring.is_none() {
                    self.publish_by(now);
                }
                self.queue.push(request, deadline, want);
            }
        }
        self.finish(now);
    }

    /// Serves, in turn, whoever can be served, and looks for space for the others.
    pub(crate) fn serve(&mut self, now: Instant) {
        if self.queue.is_empty() {
            self.hunts.clear();
            return;
        }
        let seqs: Vec<u64> = self.queue.waiting.keys().copied().collect();
        for seq in seqs {
            let Some(pending) = self.queue.waiting.get(&seq) else { continue };
            let (request, mut want) = (pending.request, pending.want.clone());
            if let Some(result) = self.attempt(request, &mut want, now) {
                self.queue.remove(seq);
                self.reply(request, result);
            } else if let Some(pending) = self.queue.waiting.get_mut(&seq) {
                pending.want = want;
            }
        }
        self.step_hunts(now);
    }

    /// One attempt; `None` when it has to wait.
    fn attempt(
        &mut self,
        request: RequestId,
        want: &mut Want,
        now: Instant,
    ) -> Option<Result<Reply, Refusal>> {
        match want {
            Want::Prime => self.ring.as_ref().map(|_| Ok(Reply::Done)),
            Want::Allocate { owner, subnets } => self.attempt_allocate(request, owner, subnets, now),
            Want::Claim { owner, address, again: true, ask } => {
                self.attempt_reclaim(owner, *address, ask, now)
            }
            Want::Claim { owner, address, again: false, ask } => {
                self.attempt_claim(request, owner, *address, ask, now)
            }
        }
    }

    /// All subnets or none, so that nothing has to be given back.
    fn attempt_allocate(
        &mut self,
        request: RequestId,
        owner: &ContainerId,
        subnets: &[Subnet],
        now: Instant,
    ) -> Option<Result<Reply, Refusal>> {
        let picks: Option<Vec<(Interface, bool)>> = subnets
            .iter()
            .map(|subnet| match self.ledger.held_in(owner, *subnet) {
                Some(held) => Some((held, false)),
                None => Some((self.lowest_free(*subnet)?, true)),
            })
            .collect();
        let picks = picks?;
        let fresh: Vec<Interface> =
            picks.iter().filter(|(_, is_new)| *is_new).map(|(pick, _)| *pick).collect();
        for interface in &fresh {
            self.hold(owner, *interface, now);
        }
        self.queue.remember(request, owner, fresh.iter().map(|interface| interface.address()).collect());
        Some(Ok(Reply::Addresses(picks.into_iter().map(|(pick, _)| pick).collect())))
    }

    fn lowest_free(&self, subnet: Subnet) -> Option<Interface> {
        let lowest = self.space.lowest(Span::of(subnet)?.hosts())?;
        interface_at(lowest, subnet)
    }

    fn attempt_claim(
        &mut self,
        request: RequestId,
        owner: &ContainerId,
        interface: Interface,
        ask: &mut Option<AddressAsk>,
        now: Instant,
    ) -> Option<Result<Reply, Refusal>> {
        let address = interface.address();
        match self.ledger.holder(address) {
            Some(holder) if holder == owner => return Some(Ok(Reply::Addresses(vec![interface]))),
            Some(holder) => return Some(Err(Refusal::Conflict { address, holder: holder.clone() })),
            // Earlier versions gave it, and who has it keeps it.
            None if is_no_host(interface) => {
                return Some(Err(Refusal::NoHostAddress { address: interface }));
            }
            None => {}
        }
        let number = to_number(address);
        if self.universe.iter().any(|range| range.contains(number)) && !self.space.contains(number) {
            self.ask_for_address(number, ask, now);
            return None;
        }
        self.hold(owner, interface, now);
        self.queue.remember(request, owner, vec![address]);
        Some(Ok(Reply::Addresses(vec![interface])))
    }

    /// The address is held here, and perhaps not ours. Where it was freed meanwhile, nothing is left to do.
    fn attempt_reclaim(
        &mut self,
        owner: &ContainerId,
        interface: Interface,
        ask: &mut Option<AddressAsk>,
        now: Instant,
    ) -> Option<Result<Reply, Refusal>> {
        let number = to_number(interface.address());
        if self.ledger.holder(interface.address()) != Some(owner) {
            return Some(Ok(Reply::Addresses(Vec::new())));
        }
        if self.is_elsewhere(number) {
            self.ask_for_address(number, ask, now);
            return None;
        }
        Some(Ok(Reply::Addresses(vec![interface])))
    }

    pub(crate) fn hold(&mut self, owner: &ContainerId, interface: Interface, now: Instant) {
        if self.ledger.is_empty() {
            self.publish_by(now);
        }
        self.space.remove(Span::one(to_number(interface.address())));
        self.ledger.hold(owner, interface);
        self.writes.push(store::write_holder(owner, interface));
        self.publish_lazily(now);
    }

    fn release(&mut self, owner: &ContainerId, interface: Interface, now: Instant) {
        if !self.ledger.release(owner, interface.address()) {
            return;
        }
        let number = to_number(interface.address());
        self.writes.push(store::erase_holder(interface));
        if self.ring.as_ref().and_then(|ring| ring.stamp_of(number)).is_some_and(|s| s.owner == self.me()) {
            self.gain(Span::one(number));
        }
        self.publish_lazily(now);
    }

    /// Drops every allocation: the router leaves.
    pub(crate) fn release_all(&mut self, now: Instant) {
        let held: Vec<(ContainerId, Interface)> =
            self.ledger.iter().map(|(owner, interface)| (owner.clone(), interface)).collect();
        for (owner, interface) in held {
            self.release(&owner, interface, now);
        }
        let waiting: Vec<RequestId> = self.queue.iter().map(|pending| pending.request).collect();
        for request in waiting {
            self.withdraw(request);
        }
    }

    pub(crate) fn expire_requests(&mut self, now: Instant) {
        while let Some((_, seq)) = self.queue.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let Some(pending) = self.queue.remove(seq) else {
                self.queue.deadlines.pop_first();
                continue;
            };
            let refusal = self.refusal_at_deadline(&pending.want);
            self.reply(pending.request, Err(refusal));
        }
    }

    fn refusal_at_deadline(&self, want: &Want) -> Refusal {
        match (want, self.wait_reason(want)) {
            (Want::Allocate { owner, subnets }, WaitReason::Space { .. }) => {
                let full = subnets.iter().find(|s| {
                    self.ledger.held_in(owner, **s).is_none()
                        && self.lowest_free(**s).is_none()
                        && self.is_exhausted(**s)
                });
                match full {
                    Some(subnet) => Refusal::Exhausted { subnet: *subnet },
                    None => Refusal::Deadline { waiting_for: self.wait_reason(want) },
                }
            }
            (Want::Allocate { .. }, WaitReason::OwnerUnreachable { peers }) => {
                Refusal::OwnersUnreachable { peers }
            }
            (_, waiting_for) => Refusal::Deadline { waiting_for },
        }
    }

    fn is_managed(&self, subnet: Subnet) -> bool {
        self.ranges.iter().any(|range| range.net().contains(&subnet.net()))
    }
}

/// How long a question to the owner of an address is waited for.
pub(crate) const ADDRESS_ASK_PATIENCE: Duration = Duration::from_millis(500);

/// Whether it is the first or last address of its IPv4 subnet. A /31 has only these (RFC 3021), and IPv6 hosts may have
/// either.
fn is_no_host(interface: Interface) -> bool {
    let net = interface.subnet().net();
    let ends = [net.network(), net.broadcast()];
    net.network().is_ipv4() && net.prefix_len() <= 30 && ends.contains(&interface.address())
}

fn interface_at(number: u128, subnet: Subnet) -> Option<Interface> {
    let address = crate::span::to_address(number);
    ipnet::IpNet::new(address, subnet.net().prefix_len()).ok().map(Interface)
}
