//! Who must agree before somebody's space is taken over: every router that was ever seen on the ring and was
//! neither removed nor left.
//!
//! A router that is removed is dead to the others, and so is what it knew: the space was divided again without
//! asking it. Should it come back, it forgets its ring, takes theirs, and counts itself in again. The count of such
//! changes goes with all that it says of the ring, so that what it said before is known for what it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weave_model::PeerName;

use crate::ring::{mix, name_number};

/// Most members kept; more than any mesh this is made for.
pub(crate) const MAX_MEMBERS: usize = 1 << 14;

/// Whether a router is a member, and how often that changed. The greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// Removals and returns in the upper half, lives between them in the lower: a removal by those who know little of
    /// a router's lives still outweighs them all.
    pub(crate) changes: u64,
    pub(crate) is_member: bool,
}

impl Membership {
    /// How often the router was removed or came back.
    pub(crate) fn term(self) -> u64 {
        term_of(self.changes)
    }
}

/// The upper half of a count of changes.
pub(crate) fn term_of(changes: u64) -> u64 {
    changes >> 32
}

/// The members, as a replicated map.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    by_name: BTreeMap<PeerName, Membership>,
    /// All that is known, mixed.
    digest: u64,
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

    /// What is known of one router; of one never heard of, that it is a member from the beginning.
    pub(crate) fn of(&self, peer: PeerName) -> Membership {
        self.by_name.get(&peer).copied().unwrap_or(Membership { changes: 0, is_member: true })
    }

    /// A removed router is a member again. Only that router itself says so, and only once it has forgotten all that
    /// it knew.
    pub(crate) fn rejoin(&mut self, peer: PeerName) {
        self.change(peer, true);
    }

    /// Everybody agreed that a member is one still, in a new life: what was said of it before, or by it, is past.
    pub(crate) fn renew(&mut self, peer: PeerName) {
        let known = self.of(peer).changes;
        let changes = (known >> 32 << 32) | (known.saturating_add(1) & 0xffff_ffff).max(1);
        self.set(peer, Membership { changes, is_member: true });
    }

    /// The removals, and what became of them.
    pub(crate) fn removals(&self) -> Vec<(PeerName, Membership)> {
        self.all().into_iter().filter(|(_, membership)| membership.changes > 0).collect()
    }

    /// Those that are members no more.
    pub(crate) fn removed(&self) -> impl Iterator<Item = PeerName> + '_ {
        self.by_name.iter().filter(|(_, m)| !m.is_member).map(|(peer, _)| *peer)
    }

    /// Equal for those who know the same.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether something is known here that is not in the list.
    pub(crate) fn knows_more_than(&self, list: &[(PeerName, Membership)]) -> bool {
        let theirs: BTreeMap<PeerName, Membership> = list.iter().copied().collect();
        self.by_name.iter().any(|(peer, known)| theirs.get(peer).is_none_or(|their| their < known))
    }

    pub(crate) fn remove(&mut self, peer: PeerName) {
        self.change(peer, false);
    }

    fn change(&mut self, peer: PeerName, is_member: bool) {
        let known = self.by_name.get(&peer);
        if known.is_some_and(|known| known.is_member == is_member) {
            return;
        }
        let changes = match (known, is_member) {
            (None, true) => 0,
            (known, _) => known.map_or(0, |known| known.term()).saturating_add(1) << 32,
        };
        self.set(peer, Membership { changes, is_member });
    }

    /// Takes what is greater; says whether something was.
    pub(crate) fn merge(&mut self, others: &[(PeerName, Membership)]) -> bool {
        let before = self.digest;
        for (peer, membership) in others {
            if self.by_name.get(peer).is_none_or(|known| known < membership) {
                self.set(*peer, *membership);
            }
        }
        self.digest != before
    }

    /// Forgets all other routers; says which.
    pub(crate) fn forget_all_but(&mut self, local: PeerName) -> Vec<PeerName> {
        let gone: Vec<PeerName> = self.by_name.keys().copied().filter(|peer| *peer != local).collect();
        for peer in &gone {
            if let Some(known) = self.by_name.remove(peer) {
                self.digest ^= hash(*peer, known);
            }
        }
        self.touched.retain(|peer| *peer == local);
        gone
    }

    /// Puts back what was stored.
    pub(crate) fn restore(&mut self, peer: PeerName, membership: Membership) {
        self.put(peer, membership);
    }

    pub(crate) fn take_touched(&mut self) -> Vec<(PeerName, Membership)> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().filter_map(|peer| Some((peer, *self.by_name.get(&peer)?))).collect()
    }

    fn set(&mut self, peer: PeerName, membership: Membership) {
        if self.by_name.len() < MAX_MEMBERS || self.by_name.contains_key(&peer) {
            self.put(peer, membership);
            self.touched.push(peer);
        }
    }

    fn put(&mut self, peer: PeerName, membership: Membership) {
        let before = self.by_name.insert(peer, membership);
        for known in before.into_iter().chain([membership]) {
            self.digest ^= hash(peer, known);
        }
    }
}

fn hash(peer: PeerName, membership: Membership) -> u64 {
    let count = u128::from(membership.changes) * 2 + u128::from(membership.is_member);
    mix(mix(0x6d65_6d62, u128::from(name_number(peer))), count)
}
