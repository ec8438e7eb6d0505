//! How machines fail and return, and what an operator does about it.

use weave_ipam::Problem;
use weave_mesh::Target;
use weave_node::Node;

use crate::{
    check::Failure,
    host::{Ask, Power, host_at},
    world::World,
};

impl World {
    /// The process, or the machine with all its containers, dies in the middle of its work.
    pub(crate) fn die_somehow(&mut self, host: usize) {
        if self.below(2) == 0 {
            self.kill(host);
        } else {
            self.reboot(host);
        }
    }

    /// The machine goes down with its containers; the disk stays.
    fn reboot(&mut self, host: usize) {
        self.kill(host);
        let state = &mut self.hosts[host];
        state.mark = None;
        state.containers.clear();
        self.oracle.all_released(host);
    }

    /// The machine goes down, and an earlier state of its disk is put back.
    fn restore_backup(&mut self, host: usize) {
        self.reboot(host);
        let at = self.below(self.hosts[host].backups.len());
        let state = &mut self.hosts[host];
        if let Some(backup) = state.backups.get(at) {
            state.disk = backup.clone();
            state.backups.truncate(at);
        }
        self.note(|| format!("host {host} gets the disk of backup {at}"));
    }

    /// The machine goes down and does not return.
    fn lose(&mut self, host: usize) {
        self.reboot(host);
        self.hosts[host].power = Power::Lost;
        self.note(|| format!("host {host} is lost"));
    }

    /// Whether a host's store may vanish: a majority must remember the ring, or the vote on it, or two rings could be made.
    fn may_lose_a_store(&mut self) -> bool {
        let has_ring = |world: &Self, host: usize| world.hosts[host].disk.has_ring();
        let lacking = (0..self.hosts.len()).filter(|host| !has_ring(self, *host)).count();
        self.is_ring_known_to_all |= lacking == 0;
        self.is_ring_known_to_all && lacking < self.plan.peers / 2
    }

    fn may_lose_a_machine(&mut self) -> bool {
        let gone =
            self.hosts.iter().filter(|host| matches!(host.power, Power::Lost | Power::Removed)).count();
        self.may_lose_a_store() && gone < self.plan.peers / 2 && self.hosts.len() - gone > 2
    }

    /// Something happens to a machine that is on.
    pub(crate) fn machine_fails(&mut self, host: usize) {
        match self.below(10) {
            0..4 => self.kill(host),
            4..6 => self.reboot(host),
            6..8 if !self.hosts[host].backups.is_empty() => self.restore_backup(host),
            8..10 if self.may_lose_a_machine() => self.lose(host),
            _ => {}
        }
    }

    /// A machine that is off comes back, or another takes the place of a lost one.
    pub(crate) fn machine_returns(&mut self) -> Result<(), Failure> {
        let is_away = |host: &usize| self.hosts[*host].power != Power::On;
        let away: Vec<usize> = (0..self.hosts.len()).filter(is_away).collect();
        let Some(host) = self.pick(&away) else { return Ok(()) };
        match self.hosts[host].power {
            Power::On => Ok(()),
            Power::Off => self.start_host(host),
            Power::Lost | Power::Removed => match self.below(4) {
                0 if self.hosts[host].power == Power::Removed => {
                    self.outdate_backups();
                    self.start_host(host)
                }
                1 if self.may_lose_a_store() => self.replace(host),
                2 => self.add_machine(),
                _ => Ok(()),
            },
        }
    }

    /// A new machine gets the name and address of one that is gone.
    fn replace(&mut self, host: usize) -> Result<(), Failure> {
        // As long as anybody remembers the old machine, the new one with its new key is refused as an impostor.
        // And while somebody takes over what it had, its name stands for a machine without containers.
        let is_taken_over = |ask: &Ask| matches!(ask, Ask::TakeOver(dead) if *dead == host);
        if self.hosts.iter().any(|other| other.asked.values().any(is_taken_over)) {
            return Ok(());
        }
        let name = self.hosts[host].name;
        let knows = |node: &Node| node.mesh_status(self.now).peers.iter().any(|peer| peer.name == name);
        if self.hosts.iter().filter_map(|other| other.node.as_ref()).any(knows) {
            return Ok(());
        }
        let number = self.rng_number();
        self.note(|| format!("host {host} is another machine now"));
        self.hosts[host].begin_store(number);
        self.outdate_backups();
        self.start_host(host)
    }

    /// Nobody puts back a disk that is older than the latest member. What its host has given a newcomer that only this
    /// host has met would be known to the newcomer alone, and nobody would know to ask it.
    fn outdate_backups(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.backups.clear());
    }

    fn rng_number(&mut self) -> u64 {
        2 + self.below(1 << 24) as u64
    }

    /// A new machine with a new name.
    fn add_machine(&mut self) -> Result<(), Failure> {
        // Not so many that those who know no ring could vote on one.
        if !self.may_lose_a_store() || self.hosts.len() >= self.plan.peers * 2 {
            return Ok(());
        }
        let known: Vec<usize> = self.living();
        let targets = self.pick(&known).into_iter().collect();
        let host = self.add_host(targets);
        self.outdate_backups();
        self.start_host(host)
    }

    /// An operator has the space of lost machines taken over; sometimes two operators do it at the same time. Each sits at
    /// one host: machines that are dead together must be removed together, or each take-over waits for the other's subject.
    pub(crate) fn remove_the_lost(&mut self, operators: usize) -> Result<(), Failure> {
        let lost: Vec<usize> =
            (0..self.hosts.len()).filter(|host| self.hosts[*host].power == Power::Lost).collect();
        for _ in 0..operators {
            let alive = self.living();
            let Some(by) = self.pick(&alive) else { return Ok(()) };
            for &dead in &lost {
                self.take_over(by, dead)?;
            }
        }
        Ok(())
    }

    /// Whoever was told only of machines that are gone is told of one that is not.
    pub(crate) fn replace_dead_targets(&mut self) -> Result<(), Failure> {
        let living = self.living();
        let Some(&first) = living.first() else { return Ok(()) };
        let target = Target::Address(self.hosts[first].address);
        let is_dead = |target: &Target| match target {
            Target::Address(at) => host_at(*at).is_some_and(|host| !living.contains(&host)),
            Target::Host { .. } => false,
        };
        for host in living.iter().copied() {
            if host != first && self.hosts[host].targets.iter().all(is_dead) {
                let targets = [target.clone()];
                self.on_node(host, |node, now| node.connect(&targets, false, now))?;
            }
        }
        Ok(())
    }

    /// Where an earlier store was lost its machine was too, and the containers with it: nothing of it is in use.
    pub(crate) fn settle_own_spaces(&mut self) -> Result<(), Failure> {
        for host in self.living() {
            let status = self.hosts[host].node.as_ref().and_then(Node::ipam_status);
            let is_needed = |problem: &Problem| matches!(problem, Problem::PredecessorUnsettled { .. });
            if status.is_some_and(|status| status.problems.iter().any(is_needed)) {
                self.take_over(host, host)?;
            }
        }
        Ok(())
    }

    fn take_over(&mut self, by: usize, dead: usize) -> Result<(), Failure> {
        self.note(|| format!("host {by} is to take over host {dead}"));
        let name = self.hosts[dead].name;
        let request = self.hosts[by].ask(Ask::TakeOver(dead));
        self.on_node(by, |node, now| node.take_over(request, name, now))
    }
}
