//! Who must agree before somebody's space is taken over: every router that was ever seen on the ring and was
//! neither removed nor left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weave_model::PeerName;

use crate::ring::{mix, name_number};

/// Most members kept; more than any mesh this is made for.
const MAX_MEMBERS: usize = 1 << 14;

/// Whether a router is a member, and how often that changed. The greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Membership {
    changes: u32,
    is_member: bool,
}

/// The members, as a replicated map.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    by_name: BTreeMap<PeerName, Membership>,
    /// Names to store again.
    touched: Vec<PeerName>,
}

impl Members {
    pub(crate) fn contains(&self, peer: PeerName) -> bool {
        self.by_name.get(&peer).is_some_and(|m| m.is_member)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = PeerName> + '_ {
        self.by_name.iter().filter(|(_, m)| m.is_member).map(|(peer, _)| *peer)
    }

    pub(crate) fn all(&self) -> Vec<(PeerName, Membership)> {
        self.by_name.iter().map(|(peer, membership)| (*peer, *membership)).collect()
    }

    /// A router was seen on the ring. One that was removed is a member again only if it can be reached: the mesh
    /// goes on for a while to tell of those that are dead.
    pub(crate) fn note(&mut self, peer: PeerName, is_reachable: bool) {
        if is_reachable || !self.by_name.contains_key(&peer) {
            self.change(peer, true);
        }
    }

    /// The removals, and what became of them.
    pub(crate) fn removals(&self) -> Vec<(PeerName, Membership)> {
        self.all().into_iter().filter(|(_, membership)| membership.changes > 0).collect()
    }

    /// Equal for those who know of the same removals. Joining is left out: everybody sees that for itself.
    pub(crate) fn digest(&self) -> u64 {
        let removals = self.by_name.iter().filter(|(_, membership)| membership.changes > 0);
        removals.fold(0, |digest, (peer, membership)| {
            let count = u128::from(membership.changes) * 2 + u128::from(membership.is_member);
            digest ^ mix(mix(0x6d65_6d62, u128::from(name_number(*peer))), count)
        })
    }

    pub(crate) fn remove(&mut self, peer: PeerName) {
        self.change(peer, false);
    }

    fn change(&mut self, peer: PeerName, is_member: bool) {
        let changes = match self.by_name.get(&peer) {
            Some(known) if known.is_member == is_member => return,
            Some(known) => known.changes.saturating_add(1),
            None => 0,
        };
        self.set(peer, Membership { changes, is_member });
    }

    /// Takes what is greater.
    pub(crate) fn merge(&mut self, others: &[(PeerName, Membership)]) {
        for (peer, membership) in others {
            if self.by_name.get(peer).is_none_or(|known| known < membership) {
                self.set(*peer, *membership);
            }
        }
    }

    /// Puts back what was stored.
    pub(crate) fn restore(&mut self, peer: PeerName, membership: Membership) {
        self.by_name.insert(peer, membership);
    }

    pub(crate) fn take_touched(&mut self) -> Vec<(PeerName, Membership)> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().filter_map(|peer| Some((peer, *self.by_name.get(&peer)?))).collect()
    }

    fn set(&mut self, peer: PeerName, membership: Membership) {
        if self.by_name.len() < MAX_MEMBERS || self.by_name.contains_key(&peer) {
            self.by_name.insert(peer, membership);
            self.touched.push(peer);
        }
    }
}
