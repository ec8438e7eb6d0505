//! What may be forgotten at all: two stores that know of a router's joining or return are not lost one after the other before
//! anybody else has heard of it. With both gone, nobody could know that the router is to be asked (see the crate's documentation).

use std::collections::BTreeMap;

use super::{
    node::{Disk, Power},
    world::World,
};

/// The members that a disk knows (records `m`, of which the first byte is the format), by the last byte of their names, with how often each was removed or came back.
pub(crate) fn members(disk: &Disk) -> BTreeMap<usize, u64> {
    let records = disk.iter().filter(|(key, _)| key.first() == Some(&b'm'));
    let members = records.filter_map(|(key, value)| {
        let (changes, is_member): (u64, bool) =
            postcard::from_bytes(value.get(1..)?).expect("a format, then a membership");
        is_member.then_some((usize::from(*key.last()?), changes >> 32))
    });
    members.collect()
}

impl World {
    /// Whether this node's disk may become that one. If so, it is noted what is remembered by one fewer.
    pub(crate) fn may_forget(&mut self, index: usize, later: &Disk) -> bool {
        if self.is_merciless {
            return true;
        }
        let (before, after) = (members(&self.nodes[index].disk), members(later));
        let is_lost = |(peer, term): &(usize, u64)| {
            *peer != self.nodes[index].slot
                && after.get(peer) < Some(term)
                && members(&self.nodes[*peer].disk).get(peer) == Some(term)
        };
        let lost: Vec<(usize, u64)> = before.into_iter().filter(is_lost).collect();
        let is_known = |peer: usize, term: u64| {
            (0..self.nodes.len()).filter(|other| *other != index && *other != peer).any(|other| {
                let node = &self.nodes[other];
                matches!(node.power, Power::On | Power::Off) && members(&node.disk).get(&peer) >= Some(&term)
            })
        };
        if lost.iter().any(|known| self.forgotten.contains(known) && !is_known(known.0, known.1)) {
            self.log(|| format!("node {index} keeps its disk: nobody else knows all of its members"));
            return false;
        }
        self.forgotten.extend(lost);
        true
    }

    /// Puts a backup back, unless that would make everybody forget somebody.
    pub(crate) fn put_backup_back(&mut self, index: usize) {
        let at = self.net.rng.below(self.nodes[index].backups.len());
        let Some(backup) = self.nodes[index].backups.get(at).cloned() else { return };
        if !self.may_forget(index, &backup) {
            return;
        }
        self.log(|| format!("machine {index} is restored from backup {at}"));
        let node = &mut self.nodes[index];
        node.disk = backup;
        node.backups.truncate(at);
        node.mark = None;
        self.bury_containers(index);
    }
}
