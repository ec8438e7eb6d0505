//! What users, operators and fate do.

use std::net::IpAddr;

use weave_ipam::{Init, Problem, RequestId};
use weave_model::{ContainerId, Interface, Subnet};

use super::{
    node::{Disk, Power},
    world::{Asked, Day, World},
};

impl World {
    pub(crate) fn act(&mut self) {
        self.is_known_to_all |= self.nodes.iter().all(|node| {
            node.has_ring_on_disk()
                || matches!(node.power, Power::Removed | Power::Left | Power::New | Power::Gone)
        });
        if self.day == Day::Worse && self.net.rng.chance(8) {
            return self.begin_story();
        }
        match self.net.rng.below(100) {
            0..62 => self.user_acts(),
            62..72 => self.link_changes(),
            72..82 => self.machine_fails(),
            82..92 => self.machine_returns(),
            _ => self.operator_acts(),
        }
    }

    pub(crate) fn request(&mut self, index: usize, asked: Asked) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.asked.insert(request, (index, asked));
        request
    }

    pub(crate) fn pick_on(&mut self) -> Option<usize> {
        let on: Vec<usize> = (0..self.nodes.len()).filter(|i| self.is_on(*i)).collect();
        on.get(self.net.rng.below(on.len())).copied()
    }

    fn pick_container(&mut self, index: usize) -> ContainerId {
        let here: Vec<ContainerId> =
            self.held.values().filter(|(at, _)| *at == index).map(|(_, owner)| owner.clone()).collect();
        if !here.is_empty() && self.net.rng.chance(25) {
            return here[self.net.rng.below(here.len())].clone();
        }
        self.next_container += 1;
        format!("c{}", self.next_container).parse().unwrap()
    }

    pub(crate) fn user_acts(&mut self) {
        let Some(index) = self.pick_on() else { return };
        let owner = self.pick_container(index);
        let patience = self.net.rng.millis(300, 20_000);
        match self.net.rng.below(20) {
            0..11 => {
                let subnet = if self.net.rng.chance(20) { self.some_subnet() } else { None };
                let request = self.request(index, Asked::Allocate(owner.clone()));
                self.log(|| format!("node {index}: {owner} wants {subnet:?} as {request:?}"));
                self.with(index, |ipam, now| ipam.allocate(request, owner, subnet, now + patience, now));
                if self.net.rng.chance(5) && self.is_on(index) && self.asked.contains_key(&request) {
                    self.with(index, |ipam, now| ipam.cancel(request, now));
                }
            }
            11..14 => {
                let address = self.some_address(index);
                let request = self.request(index, Asked::Allocate(owner.clone()));
                self.log(|| format!("node {index}: {owner} claims {address} as {request:?}"));
                self.with(index, |ipam, now| ipam.claim(request, owner, address, now + patience, now));
            }
            14..18 => {
                self.log(|| format!("node {index}: {owner} is gone"));
                self.free(index, &owner);
            }
            18 => {
                let address =
                    self.held.iter().find(|(_, holder)| **holder == (index, owner.clone())).map(|(a, _)| *a);
                let Some(address) = address else { return };
                self.held.remove(&address);
                let request = self.request(index, Asked::Other);
                self.with(index, |ipam, now| ipam.free_address(request, &owner, address, now));
            }
            _ => {
                let request = self.request(index, Asked::Other);
                self.with(index, |ipam, now| ipam.prime(request, now + patience, now));
            }
        }
    }

    /// A new container wants an address.
    pub(crate) fn wants_one(&mut self, index: usize, subnet: Option<Subnet>) {
        self.next_container += 1;
        let owner: ContainerId = format!("c{}", self.next_container).parse().unwrap();
        let request = self.request(index, Asked::Allocate(owner.clone()));
        self.log(|| format!("node {index}: {owner} wants {subnet:?} as {request:?}"));
        let patience = self.net.rng.millis(2_000, 20_000);
        self.with(index, |ipam, now| ipam.allocate(request, owner, subnet, now + patience, now));
    }

    pub(crate) fn free(&mut self, index: usize, owner: &ContainerId) {
        self.held.retain(|_, holder| *holder != (index, owner.clone()));
        let request = self.request(index, Asked::Other);
        self.with(index, |ipam, now| ipam.free(request, owner, now));
    }

    fn some_subnet(&mut self) -> Option<Subnet> {
        let base = self.ranges[0].net().network();
        let IpAddr::V4(base) = base else { return None };
        let at = u32::from(base) + 8 * self.net.rng.below(4) as u32;
        format!("{}/29", std::net::Ipv4Addr::from(at)).parse().ok()
    }

    /// Some eight addresses of the first range, or all.
    pub(crate) fn any_subnet(&mut self) -> Option<Subnet> {
        let net = self.ranges[0].net();
        let IpAddr::V4(base) = net.network() else { return None };
        let parts = (1_usize << (net.max_prefix_len() - net.prefix_len())) / 8;
        let at = u32::from(base) + 8 * self.net.rng.below(parts) as u32;
        format!("{}/29", std::net::Ipv4Addr::from(at)).parse().ok()
    }

    /// Outside the ranges nobody but the own router is asked, so there each host has addresses of its own.
    fn some_address(&mut self, index: usize) -> Interface {
        let last = self.net.rng.below(32);
        let text = if self.net.rng.chance(5) {
            format!("192.0.{index}.{last}/24")
        } else {
            format!("10.32.0.{last}/26")
        };
        text.parse().unwrap()
    }

    fn link_changes(&mut self) {
        let (a, b) = (self.net.rng.below(self.nodes.len()), self.net.rng.below(self.nodes.len()));
        match self.net.rng.below(10) {
            0..3 if a != b => {
                self.net.cut.insert((a, b));
                self.changed_link(a, b);
            }
            3..6 => {
                let cut: Vec<(usize, usize)> = self.net.cut.iter().copied().collect();
                for (a, b) in cut {
                    if self.net.rng.chance(60) {
                        self.net.cut.remove(&(a, b));
                        self.changed_link(a, b);
                    }
                }
            }
            6..8 => self.split(),
            _ => {
                let cut = std::mem::take(&mut self.net.cut);
                for (a, b) in cut {
                    self.changed_link(a, b);
                }
            }
        }
    }

    fn split(&mut self) {
        let sides: Vec<bool> = (0..self.nodes.len()).map(|_| self.net.rng.chance(50)).collect();
        self.log(|| format!("split {sides:?}"));
        for a in 0..sides.len() {
            for b in 0..sides.len() {
                if sides[a] != sides[b] {
                    self.net.cut.insert((a, b));
                    self.changed_link(a, b);
                }
            }
        }
    }

    pub(crate) fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.ipam = None;
        node.power = Power::Off;
        self.asked.retain(|_, (at, _)| *at != index);
        self.changed_power(index);
        self.watch_clone();
    }

    pub(crate) fn can_crash(&self, index: usize) -> bool {
        !self.net.is_calm && !self.is_sound && self.nodes[index].power == Power::On
    }

    pub(crate) fn bury_containers(&mut self, index: usize) {
        self.held.retain(|_, (at, _)| *at != index);
    }

    fn machine_fails(&mut self) {
        let Some(index) = self.pick_on() else { return };
        self.crash(index);
        if self.nodes[index].power == Power::Gone {
            return;
        }
        let seeded = matches!(self.init, Init::Seed(_));
        match self.net.rng.below(10) {
            0..4 => self.log(|| format!("process {index} is killed")),
            4 => {
                self.log(|| format!("process {index} is killed, its mark lost"));
                self.nodes[index].mark = None;
            }
            5..7 => {
                self.log(|| format!("machine {index} reboots"));
                self.nodes[index].mark = None;
                self.bury_containers(index);
            }
            7 if !self.nodes[index].backups.is_empty() => self.put_backup_back(index),
            8 if !seeded && self.is_known_to_all && self.without_ring() + 1 < self.quorum => {
                let store_id = self.net.rng.next();
                if !self.may_forget(index, &Disk::new()) {
                    return;
                }
                self.log(|| format!("machine {index} loses its disk"));
                let node = &mut self.nodes[index];
                node.disk.clear();
                node.backups.clear();
                node.mark = None;
                node.store_id = store_id;
                self.bury_containers(index);
            }
            9 if self.may_die() && self.may_forget(index, &Disk::new()) => {
                self.log(|| format!("machine {index} dies"));
                self.nodes[index].power = Power::Dead;
                self.nodes[index].mark = None;
                self.bury_containers(index);
            }
            _ => {}
        }
    }

    fn without_ring(&self) -> usize {
        self.nodes.iter().filter(|node| !node.has_ring_on_disk() && node.power != Power::Gone).count()
    }

    /// A minority may be away for good, once the ring is known.
    pub(crate) fn may_die(&self) -> bool {
        let is_gone = |p| matches!(p, Power::Dead | Power::Removed | Power::Left);
        let gone = self.nodes.iter().filter(|n| is_gone(n.power)).count();
        let all = self.nodes.iter().filter(|n| !matches!(n.power, Power::New | Power::Gone)).count();
        self.is_known_to_all && gone + 1 < self.quorum.min(all - 1)
    }

    /// Whether one that nobody counted may come: before the first ring is known to all, only while two quorums of those
    /// who vote still have somebody in common.
    pub(crate) fn may_come(&self) -> bool {
        let came = self.nodes.iter().filter(|node| !matches!(node.power, Power::New | Power::Gone)).count();
        self.is_known_to_all || matches!(self.init, Init::Seed(_)) || came + 1 < 2 * self.quorum
    }

    fn machine_returns(&mut self) {
        let away: Vec<usize> = (0..self.nodes.len())
            .filter(|i| match self.nodes[*i].power {
                Power::Off | Power::Removed => true,
                Power::New => self.may_come(),
                Power::On | Power::Dead | Power::Left | Power::Gone => false,
            })
            .collect();
        let Some(index) = away.get(self.net.rng.below(away.len())).copied() else { return };
        if matches!(self.nodes[index].power, Power::Off | Power::New) || self.net.rng.chance(30) {
            self.boot(index);
        }
    }

    fn operator_acts(&mut self) {
        match self.net.rng.below(10) {
            0..5 => {
                let dead: Vec<usize> =
                    (0..self.nodes.len()).filter(|i| self.nodes[*i].power == Power::Dead).collect();
                let Some(dead) = dead.get(self.net.rng.below(dead.len())).copied() else { return };
                // Two operators may do the same at once.
                for _ in 0..1 + self.net.rng.below(2) {
                    let Some(index) = self.pick_on() else { return };
                    self.take_over(index, dead);
                }
            }
            5..8 => self.settle_own(),
            8 if self.may_die() && self.net.rng.chance(30) => {
                let Some(index) = self.pick_on().filter(|i| !self.is_doubled(*i)) else { return };
                if self.clone.is_some_and(|(_, loyal)| loyal == index) {
                    // Nobody else could tell the clone from the original.
                    self.end_clone();
                }
                self.log(|| format!("node {index} leaves"));
                self.bury_containers(index);
                let request = self.request(index, Asked::Leave);
                self.with(index, |ipam, now| ipam.leave(request, now));
                // Where it cannot leave, its containers are gone all the same.
                self.prune(index);
            }
            _ => {}
        }
    }

    pub(crate) fn take_over(&mut self, index: usize, dead: usize) {
        let name = self.nodes[dead].name;
        let request = self.request(index, Asked::TakeOver(dead));
        self.log(|| format!("rmpeer {dead} at {index} as {request:?}"));
        self.with(index, |ipam, now| ipam.take_over(request, name, now));
    }

    /// Where an earlier store is lost, its containers are too: in this world a disk goes with its machine.
    pub(crate) fn settle_own(&mut self) {
        for index in 0..self.nodes.len() {
            let Some(ipam) = &self.nodes[index].ipam else { continue };
            // Who has a clone must not say that what the earlier store had is gone.
            if self.is_doubled(index) {
                continue;
            }
            if ipam.status().problems.iter().any(|p| matches!(p, Problem::PredecessorUnsettled { .. })) {
                self.take_over(index, index);
            }
        }
    }
}
