//! One host: a router's IPAM, its disk, what survives a restart of the process only, and what the mesh knows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use weave_ipam::{Config, Init, Ipam, StoreMark, Write};
use weave_model::{PeerName, Subnet};

pub(crate) type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    /// Will come back.
    Off,
    /// Stays away until, perhaps, long after it was removed.
    Dead,
    /// Removed by an operator.
    Removed,
    /// Left in good order.
    Left,
    /// Was never on.
    New,
    /// A clone that was switched off for good.
    Gone,
}

pub(crate) struct Node {
    pub(crate) name: PeerName,
    /// The node that had the name first: another only where this one is a clone.
    pub(crate) slot: usize,
    /// What its clock is ahead of the others'.
    pub(crate) ahead: Duration,
    pub(crate) ipam: Option<Ipam>,
    pub(crate) power: Power,
    pub(crate) disk: Disk,
    /// Earlier states of the disk that held a ring.
    pub(crate) backups: VecDeque<Disk>,
    /// What a restart of the machine loses.
    pub(crate) mark: Option<StoreMark>,
    pub(crate) store_id: u64,
    /// The facts that the mesh has brought here, by slot: version and value.
    pub(crate) facts: BTreeMap<usize, (u64, Vec<u8>)>,
    /// How often a fact of this slot was published.
    pub(crate) version: u64,
    pub(crate) reaches: BTreeMap<usize, bool>,
    pub(crate) was_told_own_past: bool,
    pub(crate) persisted: u64,
}

impl Node {
    pub(crate) fn new(index: usize, store_id: u64) -> Self {
        Self {
            name: PeerName([2, 0, 0, 0, 0, index as u8]),
            slot: index,
            ahead: Duration::ZERO,
            ipam: None,
            power: Power::Off,
            disk: Disk::new(),
            backups: VecDeque::new(),
            mark: None,
            store_id,
            facts: BTreeMap::new(),
            version: 0,
            reaches: BTreeMap::new(),
            was_told_own_past: false,
            persisted: 0,
        }
    }

    pub(crate) fn late(index: usize, store_id: u64) -> Self {
        Self { power: Power::New, ..Self::new(index, store_id) }
    }

    /// Another machine with a copy of this one's disk.
    pub(crate) fn cloned(&self) -> Self {
        Self { name: self.name, disk: self.disk.clone(), ..Self::new(self.slot, self.store_id) }
    }

    /// When the router wants to act next, by the clock of the world.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let (at, _) = self.ipam.as_ref()?.poll_timeout()?;
        at.checked_sub(self.ahead)
    }

    pub(crate) fn boot(&mut self, ranges: &[Subnet], init: &Init, seed: [u8; 32], now: Instant) {
        let config = Config {
            local: self.name,
            ranges: ranges.to_vec(),
            default_subnets: Vec::new(),
            init: init.clone(),
            store_id: self.store_id,
        };
        let mut ipam =
            Ipam::new(config, self.disk.clone().into_iter(), seed, now).expect("a store of our own");
        if let Some(mark) = self.mark {
            ipam.trust_store(mark, now);
        }
        self.ipam = Some(ipam);
        self.power = Power::On;
        self.facts.clear();
        self.reaches.clear();
        self.was_told_own_past = false;
    }

    pub(crate) fn has_ring_on_disk(&self) -> bool {
        self.disk.contains_key(b"i".as_slice())
    }

    pub(crate) fn persist(&mut self, writes: Vec<Write>) {
        self.persisted += 1;
        if self.has_ring_on_disk() && self.persisted.is_multiple_of(7) {
            self.backups.push_back(self.disk.clone());
            if self.backups.len() > 6 {
                self.backups.pop_front();
            }
        }
        for write in writes {
            match write.value {
                Some(value) => self.disk.insert(write.key, value),
                None => self.disk.remove(&write.key),
            };
        }
        self.mark = self.ipam.as_ref().map(Ipam::store_mark);
    }
}
