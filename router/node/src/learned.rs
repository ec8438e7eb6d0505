//! Stations that were not attached: what the bridge learned from their frames (a virtual machine on a port that somebody
//! added, a nested bridge in a container).
//!
//! They are told like attachments, without addresses. Such a station may move to another host at any time, and shows up
//! there first; so whoever hears another router claim a station that it only learned takes its own claim back.

use std::{collections::BTreeSet, time::Instant};

use weave_model::{ContainerId, Mac};

use crate::{attachment::Attachment, node::Node};

/// Most learned stations that are told; the others are flooded to.
const MAX_LEARNED: usize = 4096;

impl Node {
    /// The bridge learned a station on a port of its own.
    pub fn learn(&mut self, mac: Mac, now: Instant) {
        let is_known = self.attachments_by_peer.get(&self.local).is_some_and(|own| own.contains_key(&mac));
        let is_station = !mac.is_multicast() && mac != Mac::default();
        if is_known || !is_station || self.learned.len() >= MAX_LEARNED {
            return;
        }
        self.attach(mac, &Attachment { container: ContainerId::learned(), addresses: Vec::new() }, now);
        self.learned.insert(mac);
    }

    /// The bridge forgot a station.
    pub fn unlearn(&mut self, mac: Mac, now: Instant) {
        if self.learned.remove(&mac) {
            self.detach(mac, now);
        }
    }

    /// All that the bridge has learned, no more and no less.
    pub fn relearn(&mut self, all: &BTreeSet<Mac>, now: Instant) {
        let gone: Vec<Mac> = self.learned.difference(all).copied().collect();
        gone.into_iter().for_each(|mac| self.unlearn(mac, now));
        all.iter().for_each(|mac| self.learn(*mac, now));
    }
}
