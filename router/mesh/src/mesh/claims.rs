//! Names that two routers claim.
//!
//! Who holds a name is not decided: the first of two keys that we meet alive keeps it here, others may know the second. What matters
//! is that operators see it on both sides. So whoever hears of a second key tells the neighbour who said so which one it knows,
//! and passes the second one on to the router that it knows by the name. Both do that, so each of the two routers
//! learns of the other. While a dispute lasts, this is repeated now and then; it is over when one side no longer knows its router
//! and says so, or when nothing was heard of it for long.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use weave_model::{LinkId, PeerName};

use super::Mesh;
use crate::{CollisionStatus, record::Life, wire};

/// Disputes that are kept at once.
const MAX_COLLISIONS: usize = 64;
/// How long a neighbour is not told again.
const REPEAT: Duration = Duration::from_secs(300);
/// How long after it was last heard of a dispute is shown: longer than a refused router waits before it tries again.
const OVER: Duration = Duration::from_secs(1200);

/// A second claim to a name.
#[derive(Debug)]
struct Collision {
    public_key: [u8; 32],
    heard_from: SocketAddr,
    at: Instant,
    /// Neighbours who know of it, and when they were told.
    told: BTreeMap<LinkId, Instant>,
}

/// All second claims.
#[derive(Debug, Default)]
pub(super) struct Collisions {
    by_name: BTreeMap<PeerName, Collision>,
    /// Records that were refused because their name is taken, so that they are not asked for again and again.
    refused: BTreeMap<PeerName, Life>,
}

impl Collisions {
    /// Whether this record was refused and nothing has changed since.
    pub(super) fn is_refused(&self, name: PeerName, life: Life) -> bool {
        self.refused.get(&name) == Some(&life)
    }

    /// Forgets a dispute; gives the neighbours that were told of it.
    fn forget(&mut self, name: PeerName) -> impl Iterator<Item = LinkId> + use<> {
        self.by_name.remove(&name).into_iter().flat_map(|collision| collision.told.into_keys())
    }

    /// Names that are in dispute, with the keys that we do not know by them.
    pub(super) fn status(&self, now: Instant) -> Vec<CollisionStatus> {
        let current = self.by_name.iter().filter(|(_, collision)| !collision.is_over(now));
        let status = |(name, collision): (&PeerName, &Collision)| CollisionStatus {
            name: *name,
            public_key: collision.public_key,
            heard_from: collision.heard_from,
            last_heard: now.saturating_duration_since(collision.at),
        };
        current.map(status).collect()
    }

    /// Takes in a claim; `false` if there is no room for it.
    fn note(&mut self, name: PeerName, public_key: [u8; 32], heard_from: SocketAddr, now: Instant) -> bool {
        if let Some(known) = self.by_name.get_mut(&name).filter(|known| known.public_key == public_key) {
            (known.heard_from, known.at) = (heard_from, now);
            return true;
        }
        if self.by_name.len() >= MAX_COLLISIONS && !self.by_name.contains_key(&name) {
            self.by_name.retain(|_, collision| !collision.is_over(now));
            if self.by_name.len() >= MAX_COLLISIONS {
                return false;
            }
        }
        tracing::warn!(peer = %name, "peer name is claimed by two routers");
        self.by_name.insert(name, Collision { public_key, heard_from, at: now, told: BTreeMap::new() });
        true
    }

    /// Whether a neighbour is to be told of a dispute now; it counts as told from then on.
    fn may_tell(&mut self, name: PeerName, link: LinkId, now: Instant) -> bool {
        let Some(collision) = self.by_name.get_mut(&name) else { return false };
        collision.told.retain(|_, at| *at + REPEAT > now);
        let is_due = !collision.told.contains_key(&link);
        if is_due {
            collision.told.insert(link, now);
        }
        is_due
    }
}

impl Collision {
    fn is_over(&self, now: Instant) -> bool {
        self.at + OVER <= now
    }
}

impl Mesh {
    /// The key that we know by a name.
    pub(super) fn key_of(&self, name: PeerName) -> Option<[u8; 32]> {
        let linked = self.links.to(name).map(|(_, link)| link.info.public_key);
        linked.or_else(|| Some(self.peers.peer(name)?.info.public_key))
    }

    /// A neighbour passed on a record of a second key: it is told what we know.
    pub(super) fn refuse_record(
        &mut self,
        id: LinkId,
        name: PeerName,
        life: Life,
        public_key: [u8; 32],
        now: Instant,
    ) {
        self.collisions.refused.insert(name, life);
        let Some(heard_from) = self.links.link(id).map(|link| link.info.remote) else { return };
        if self.collisions.note(name, public_key, heard_from, now) {
            self.answer_claim(id, name, now);
            self.pass_claim_on(name, public_key, now);
        }
    }

    /// A neighbour still vouches for a record that we refused.
    pub(super) fn refuse_again(&mut self, id: LinkId, name: PeerName, now: Instant) {
        let Some(collision) = self.collisions.by_name.get_mut(&name) else { return };
        collision.at = now;
        let public_key = collision.public_key;
        self.answer_claim(id, name, now);
        self.pass_claim_on(name, public_key, now);
    }

    /// Nobody whom we know has the name any more: whoever claims it is welcome, and who was told of the dispute hears that it is over.
    pub(super) fn end_claim(&mut self, name: PeerName, public_key: &[u8; 32]) {
        self.collisions.refused.remove(&name);
        for link in self.collisions.forget(name) {
            self.enqueue(link, wire::claim(false, name, public_key));
        }
    }

    /// A neighbour tells that a claim does not stand any more.
    pub(super) fn handle_claim_end(&mut self, id: LinkId, name: PeerName, public_key: [u8; 32]) {
        if self.collisions.by_name.get(&name).is_some_and(|known| known.public_key == public_key) {
            for link in self.collisions.forget(name).filter(|link| *link != id) {
                self.enqueue(link, wire::claim(false, name, &public_key));
            }
        }
    }

    /// A neighbour tells of a claim. If we know another key by that name, so does the router that has it, soon.
    pub(super) fn handle_claim(&mut self, id: LinkId, name: PeerName, public_key: [u8; 32], now: Instant) {
        let Some(heard_from) = self.links.link(id).map(|link| link.info.remote) else { return };
        if self.key_of(name).is_some_and(|key| key != public_key) {
            self.note_claim(name, public_key, heard_from, now);
            // It knows already, and wants to hear when it is over.
            self.collisions.may_tell(name, id, now);
        }
    }

    /// Notes a claim to a name that we know with another key, and tells the router that we know by it.
    pub(super) fn note_claim(
        &mut self,
        name: PeerName,
        public_key: [u8; 32],
        heard_from: SocketAddr,
        now: Instant,
    ) {
        if self.collisions.note(name, public_key, heard_from, now) {
            self.pass_claim_on(name, public_key, now);
        }
    }

    /// Tells a neighbour who says otherwise whom we know by a name.
    fn answer_claim(&mut self, id: LinkId, name: PeerName, now: Instant) {
        if let Some(key) = self.key_of(name)
            && self.collisions.may_tell(name, id, now)
        {
            self.enqueue(id, wire::claim(true, name, &key));
        }
    }

    fn pass_claim_on(&mut self, name: PeerName, public_key: [u8; 32], now: Instant) {
        if name != self.peers.me()
            && let Some((link, _)) = self.control.next_hop(name)
            && self.collisions.may_tell(name, link, now)
        {
            self.enqueue(link, wire::claim(true, name, &public_key));
        }
    }
}
