//! The users and the weather: what is asked for and what goes wrong, drawn from the seed.

use std::{net::IpAddr, time::Duration};

use rand_chacha::rand_core::RngCore as _;
use weave_model::{ContainerId, Interface, Mac};
use weave_names::RemoveFilter;

use crate::{
    check::Failure,
    host::{Ask, Container},
    world::World,
};

impl World {
    /// One thing happens.
    pub(crate) fn step(&mut self) -> Result<(), Failure> {
        let alive = self.living();
        let host = self.pick(&alive).unwrap_or(0);
        let kinds = if self.plan.with_faults { 100 } else { 58 };
        match self.below(kinds) {
            0..36 => self.allocate(host),
            36..40 => self.claim(host),
            40..43 => self.cancel(host),
            43..58 => self.container_ends(),
            58..64 => {
                let other = self.below(self.hosts.len());
                if other != host {
                    self.note(|| format!("no more from host {host} to host {other}"));
                    self.block(host, other);
                }
                Ok(())
            }
            64..67 => {
                self.split();
                Ok(())
            }
            67..74 => {
                self.note(|| "the network heals".to_owned());
                self.heal();
                Ok(())
            }
            74..79 => {
                let ends = self.ends();
                if let Some(end) = self.pick(&ends) {
                    self.note(|| format!("a link of host {} breaks", end.host));
                    self.reset_link(end);
                }
                Ok(())
            }
            79..86 => {
                if !alive.is_empty() {
                    self.machine_fails(host);
                }
                Ok(())
            }
            86..95 => self.machine_returns(),
            95..98 => {
                let operators = 1 + self.below(2);
                self.remove_the_lost(operators)
            }
            _ => self.settle_own_spaces(),
        }
    }

    /// Cuts the hosts into two halves that do not hear each other.
    fn split(&mut self) {
        let sides: Vec<bool> = (0..self.hosts.len()).map(|_| self.rng.next_u32().is_multiple_of(2)).collect();
        self.note(|| format!("the network splits: {sides:?}"));
        for a in 0..sides.len() {
            for b in 0..sides.len() {
                if sides[a] != sides[b] {
                    self.block(a, b);
                }
            }
        }
    }

    /// A new container, or now and then one that is there and asks again.
    fn some_container(&mut self, host: usize) -> Option<ContainerId> {
        let here: Vec<ContainerId> = self.hosts[host].containers.keys().cloned().collect();
        if self.below(8) == 0 && !here.is_empty() {
            let at = self.below(here.len());
            return here.into_iter().nth(at);
        }
        format!("c{host}-{}", self.rng.next_u32()).parse().ok()
    }

    fn allocate(&mut self, host: usize) -> Result<(), Failure> {
        let Some(container) = self.some_container(host) else { return Ok(()) };
        let wait = Duration::from_secs(1 + self.below(30) as u64);
        self.allocate_for(host, container, wait)
    }

    pub(crate) fn allocate_for(
        &mut self,
        host: usize,
        id: ContainerId,
        wait: Duration,
    ) -> Result<(), Failure> {
        if self.hosts[host].node.is_none() {
            return Ok(());
        }
        let request = self.hosts[host].ask(Ask::Addresses(id.clone()));
        self.on_node(host, |node, now| node.allocate(request, id, None, now + wait, now))
    }

    /// A container wants a certain address, which may be anybody's.
    fn claim(&mut self, host: usize) -> Result<(), Failure> {
        let (Some(id), Some(range)) = (self.some_container(host), self.plan.ranges.first().copied()) else {
            return Ok(());
        };
        if self.hosts[host].node.is_none() {
            return Ok(());
        }
        // Among the first addresses, where the others are too.
        let offset = 1 + self.below(60) as u32;
        let address = match range.net().network() {
            IpAddr::V4(base) => IpAddr::from((u32::from(base) + offset).to_be_bytes()),
            IpAddr::V6(base) => IpAddr::from((u128::from(base) + u128::from(offset)).to_be_bytes()),
        };
        let Ok(net) = ipnet::IpNet::new(address, range.net().prefix_len()) else { return Ok(()) };
        let wait = Duration::from_secs(1 + self.below(20) as u64);
        let request = self.hosts[host].ask(Ask::Addresses(id.clone()));
        self.on_node(host, |node, now| node.claim(request, id, Interface(net), now + wait, now))
    }

    /// Whoever asked does not wait any longer.
    fn cancel(&mut self, host: usize) -> Result<(), Failure> {
        let pending: Vec<_> = self.hosts[host].asked.keys().copied().collect();
        match self.pick(&pending) {
            Some(request) => self.on_node(host, |node, now| node.cancel(request, now)),
            None => Ok(()),
        }
    }

    /// A container got addresses: it is attached and named, and lives on whatever becomes of the router.
    pub(crate) fn container_has(
        &mut self,
        host: usize,
        id: ContainerId,
        addresses: &[Interface],
    ) -> Result<(), Failure> {
        let number = self.rng.next_u32();
        let [a, b, c, d] = number.to_be_bytes();
        let now = self.now;
        let state = &mut self.hosts[host];
        let container = state.containers.entry(id.clone()).or_insert_with(|| Container {
            mac: Mac::local_unicast([2, host as u8, a, b, c, d]),
            addresses: Vec::new(),
            name: format!("app{}", number % 50),
        });
        for address in addresses {
            if !container.addresses.contains(address) {
                container.addresses.push(*address);
            }
        }
        let Some(node) = state.node.as_mut() else { return Ok(()) };
        node.attach(container.mac, &container.attachment(&id), now);
        for interface in addresses {
            let named = node.add_name(&id, &container.name, interface.address(), now);
            named.map_err(|error| Failure::Refused { host, why: error.to_string() })?;
        }
        Ok(())
    }

    /// A container ends, also on a host whose router is down.
    fn container_ends(&mut self) -> Result<(), Failure> {
        let busy: Vec<usize> =
            (0..self.hosts.len()).filter(|host| !self.hosts[*host].containers.is_empty()).collect();
        let Some(host) = self.pick(&busy) else { return Ok(()) };
        let at = self.below(self.hosts[host].containers.len());
        let Some(id) = self.hosts[host].containers.keys().nth(at).cloned() else { return Ok(()) };
        let Some(container) = self.hosts[host].containers.remove(&id) else { return Ok(()) };
        // The container is gone from here on; when its addresses are free is the ring's to say.
        self.oracle.released(host, &id);
        if self.hosts[host].node.is_none() {
            return Ok(());
        }
        let request = self.hosts[host].ask(Ask::Free);
        self.on_node(host, |node, now| {
            let all_of_it = RemoveFilter { container: Some(id.clone()), ..RemoveFilter::default() };
            node.remove_names(&all_of_it, now);
            node.detach(container.mac, now);
            node.free(request, &id, now);
        })
    }
}
