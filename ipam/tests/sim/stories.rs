//! Faults that follow each other closely, as those that chance alone seldom brings together.

use super::{
    forgetting::members,
    net::{Happening, Story},
    node::{Disk, Power},
    world::World,
};

impl World {
    pub(crate) fn begin_story(&mut self) {
        match self.net.rng.below(10) {
            0..3 => self.dies_with_gifts_under_way(),
            3..6 => self.newcomer_that_one_knows(),
            6..8 => self.clone_appears(),
            _ => self.clock_leaps(),
        }
    }

    pub(crate) fn go_on(&mut self, story: Story) {
        match story {
            Story::Die { dead, at, agrees } => self.die_and_be_removed(dead, at, agrees),
            Story::Remove { at, dead } => {
                if self.is_on(at) && self.nodes[dead].power == Power::Dead {
                    self.take_over(at, dead);
                }
            }
            Story::RestartAlone { at } => {
                if self.can_crash(at) && self.nodes[at].slot == at {
                    self.log(|| format!("process {at} is restarted and reaches nobody"));
                    self.crash(at);
                    self.cut_off(at, None);
                    self.boot(at);
                }
            }
            Story::Join { at } => self.join_all(at),
            Story::Restore { at, without } => self.restore(at, &without),
            Story::Want { at } => self.wants_many(at),
            Story::EndClone => self.end_clone(),
        }
    }

    fn later(&mut self, from: u64, to: u64, story: Story) {
        let delay = self.net.rng.millis(from, to);
        self.net.at(self.now + delay, Happening::Story(story));
    }

    fn cut_off(&mut self, index: usize, but_for: Option<usize>) {
        for other in (0..self.nodes.len()).filter(|other| *other != index && Some(*other) != but_for) {
            self.net.cut.insert((index, other));
            self.net.cut.insert((other, index));
            self.changed_link(index, other);
        }
    }

    fn join_all(&mut self, index: usize) {
        let cut: Vec<_> = self.net.cut.iter().copied().filter(|(a, b)| *a == index || *b == index).collect();
        for (a, b) in cut {
            self.net.cut.remove(&(a, b));
            self.changed_link(a, b);
        }
    }

    /// Containers of one host want addresses all over the range, so that others are asked for space.
    fn wants_many(&mut self, index: usize) {
        for _ in 0..8 {
            let subnet = self.any_subnet();
            if self.is_on(index) {
                self.wants_one(index, subnet);
            }
        }
    }

    /// A machine has just given space away and dies; what it sent is long under way. It is removed at once, and one that
    /// agreed to that is restarted before the gift arrives.
    fn dies_with_gifts_under_way(&mut self) {
        let Some(dead) = self.pick_on().filter(|i| !self.is_doubled(*i)) else { return };
        let (Some(at), Some(agrees)) = (self.pick_on(), self.pick_on()) else { return };
        if !self.may_die() || at == dead || agrees == dead || agrees == at {
            return;
        }
        self.wants_many(agrees);
        self.later(20, 200, Story::Die { dead, at, agrees });
    }

    fn die_and_be_removed(&mut self, dead: usize, at: usize, agrees: usize) {
        if !self.can_crash(dead)
            || self.is_doubled(dead)
            || !self.may_die()
            || !self.may_forget(dead, &Disk::new())
        {
            return;
        }
        self.log(|| format!("machine {dead} dies with gifts under way"));
        let by = self.net.rng.millis(4_000, 15_000);
        self.net.hold_back(dead, by);
        self.crash(dead);
        self.nodes[dead].power = Power::Dead;
        self.nodes[dead].mark = None;
        self.bury_containers(dead);
        self.later(3_000, 4_000, Story::Remove { at, dead });
        self.later(4_500, 6_500, Story::RestartAlone { at: agrees });
        // Somebody's agreement is long in coming.
        if let Some(slow) = self.pick_on().filter(|slow| *slow != at && *slow != agrees) {
            self.cut_off(slow, None);
            self.later(12_000, 20_000, Story::Join { at: slow });
        }
        for _ in 0..3 {
            self.later(5_000, 20_000, Story::Want { at: agrees });
        }
    }

    /// A router comes that only one other can reach, takes space, and is alone again when that other is restored from
    /// a backup.
    fn newcomer_that_one_knows(&mut self) {
        if !self.may_come() {
            return;
        }
        let new: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].power == Power::New).collect();
        let Some(index) = new.get(self.net.rng.below(new.len())).copied() else { return };
        let Some(friend) = self.pick_on().filter(|i| !self.is_doubled(*i)) else { return };
        self.log(|| format!("newcomer {index} reaches only {friend}"));
        self.join_all(index);
        self.cut_off(index, Some(friend));
        if self.net.rng.chance(70) {
            self.cut_off(friend, Some(index));
        }
        self.boot(index);
        self.later(500, 2_000, Story::Want { at: index });
        self.later(500, 2_000, Story::Want { at: index });
        self.later(3_000, 8_000, Story::Restore { at: friend, without: vec![index] });
    }

    fn restore(&mut self, index: usize, without: &[usize]) {
        if !self.can_crash(index) || self.is_doubled(index) || self.nodes[index].backups.is_empty() {
            return;
        }
        self.crash(index);
        self.put_backup_back(index);
        self.join_all(index);
        for other in without {
            self.net.cut.insert((index, *other));
            self.net.cut.insert((*other, index));
        }
        self.boot(index);
        for _ in 0..3 {
            self.later(2_000, 20_000, Story::Want { at: index });
        }
    }

    // ---- clones ----

    /// Whether the node is a clone, or has one now.
    pub(crate) fn is_doubled(&self, index: usize) -> bool {
        self.clone.is_some_and(|(clone, _)| self.nodes[clone].slot == self.nodes[index].slot)
            || self.nodes[index].slot != index
    }

    /// A copy of a machine is switched on beside it. Routers meet the one or the other, and one of them always the
    /// original: where all met the clone only, it would have all that the original has, as after a restart.
    fn clone_appears(&mut self) {
        let (Some(original), Some(loyal)) = (self.pick_on(), self.pick_on()) else { return };
        let is_member = |i: usize| self.nodes[i].has_ring_on_disk() && self.nodes[i].slot == i;
        if self.clone.is_some() || original == loyal || !is_member(original) || !is_member(loyal) {
            return;
        }
        // One that was removed, and whose return the copy cannot know of, has no say.
        if !members(&self.nodes[original].disk).contains_key(&loyal) {
            return;
        }
        let clone = self.nodes.len();
        self.log(|| format!("node {clone} is a clone of {original}; {loyal} never meets it"));
        let copy = self.nodes[original].cloned();
        self.nodes.push(copy);
        self.clone = Some((clone, loyal));
        for other in (0..clone).filter(|other| *other != original) {
            let is_fooled = other != loyal && self.net.rng.chance(60);
            let absent = if is_fooled { original } else { clone };
            self.net.apart.extend([(other, absent), (absent, other)]);
            self.changed_link(other, original);
        }
        self.net.apart.extend([(original, clone), (clone, original)]);
        self.boot(clone);
        self.later(3_000, 20_000, Story::Want { at: clone });
        self.later(3_000, 20_000, Story::Want { at: original });
        self.later(10_000, 30_000, Story::EndClone);
    }

    /// The clone is found at the latest when the original or the router that met only that fails, or leaves.
    pub(crate) fn watch_clone(&mut self) {
        let Some((clone, loyal)) = self.clone else { return };
        let all = [clone, loyal, self.nodes[clone].slot];
        if all.iter().any(|index| self.nodes[*index].power != Power::On) {
            self.end_clone();
        }
    }

    pub(crate) fn end_clone(&mut self) {
        let Some((clone, _)) = self.clone.take() else { return };
        self.log(|| format!("clone {clone} is switched off"));
        let node = &mut self.nodes[clone];
        node.ipam = None;
        node.power = Power::Gone;
        self.asked.retain(|_, (at, _)| *at != clone);
        self.bury_containers(clone);
        self.changed_power(clone);
        let original = self.nodes[clone].slot;
        for (a, b) in std::mem::take(&mut self.net.apart) {
            self.changed_link(a, b);
        }
        // The mesh lets a router whose name somebody else used speak again, and that is the last word.
        if let Some((_, bytes)) =
            self.nodes[original].facts.get(&original).cloned().filter(|_| self.is_on(original))
        {
            self.publish(original, bytes);
        }
    }

    // ---- clocks ----

    /// A machine stood still, or its clock was wrong: all that was to happen meanwhile is due at once.
    fn clock_leaps(&mut self) {
        let Some(index) = self.pick_on() else { return };
        let by = self.net.rng.millis(500, 120_000);
        self.log(|| format!("the clock of {index} leaps by {by:?}"));
        self.nodes[index].ahead += by;
    }
}
