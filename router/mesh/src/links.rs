//! Our links, one to each neighbour.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use weave_model::{LinkId, PeerName};

use crate::{
    LinkInfo, Side,
    link_state::{KeyTag, LinkState},
    maker::Aim,
    outbox::Outbox,
    overlays::Overlays,
    record::Life,
};

/// A link that passed all checks.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) info: LinkInfo,
    pub(crate) life: Life,
    pub(crate) opened: Instant,
    /// What it was dialled for.
    pub(crate) aim: Option<Aim>,
    pub(crate) outbox: Outbox,
    /// We have told the other end all that we know of, unasked.
    pub(crate) digest_sent: bool,
    /// The other end has adopted it too: something came over it.
    pub(crate) is_confirmed: bool,
    /// Where the other end sees us.
    pub(crate) observed: Option<SocketAddr>,
    overlays: Overlays,
}

impl Link {
    pub(crate) fn new(info: LinkInfo, aim: Option<Aim>, now: Instant) -> Self {
        Self {
            life: Life::new(info.incarnation, info.uid),
            info,
            opened: now,
            aim,
            outbox: Outbox::default(),
            digest_sent: false,
            is_confirmed: false,
            observed: None,
            overlays: Overlays::new(now),
        }
    }

    pub(crate) const fn overlays(&self) -> &Overlays {
        &self.overlays
    }

    pub(crate) const fn overlays_mut(&mut self) -> &mut Overlays {
        &mut self.overlays
    }

    /// What we publish of it: nothing until we know that it will stay.
    pub(crate) fn state(&self) -> LinkState {
        if !self.is_confirmed {
            return LinkState::GONE;
        }
        let overlay = self.overlays.in_use().map(|overlay| overlay.kind);
        LinkState::new(self.overlays.class(), overlay, self.is_outbound(), KeyTag::of(&self.info.public_key))
    }

    pub(crate) const fn is_outbound(&self) -> bool {
        matches!(self.info.side, Side::Dialed(_))
    }

    /// Addresses under which the other end is known to be linked: where it is, and where it listens there.
    pub(crate) const fn addresses(&self) -> [SocketAddr; 2] {
        [self.info.remote, SocketAddr::new(self.info.remote.ip(), self.info.listen_port)]
    }

    /// Whether the record `life` shows that the other end was restarted since.
    pub(crate) const fn is_outlived_by(&self, life: Life) -> bool {
        life.tag != self.life.tag && life.incarnation > self.life.incarnation
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_id: BTreeMap<LinkId, Link>,
    by_peer: BTreeMap<PeerName, LinkId>,
}

impl Links {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) const fn by_peer(&self) -> &BTreeMap<PeerName, LinkId> {
        &self.by_peer
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.by_id.iter().map(|(id, link)| (*id, link))
    }

    pub(crate) fn link(&self, id: LinkId) -> Option<&Link> {
        self.by_id.get(&id)
    }

    pub(crate) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn to(&self, peer: PeerName) -> Option<(LinkId, &Link)> {
        let id = self.by_peer.get(&peer)?;
        Some((*id, self.by_id.get(id)?))
    }

    /// The link at a place in the order of ids.
    pub(crate) fn nth(&self, index: usize) -> Option<LinkId> {
        self.by_id.keys().nth(index).copied()
    }

    /// Adds the link to a peer that has none.
    pub(crate) fn insert(&mut self, id: LinkId, link: Link) {
        self.by_peer.insert(link.info.peer, id);
        self.by_id.insert(id, link);
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.by_id.remove(&id)?;
        self.by_peer.remove(&link.info.peer);
        Some(link)
    }
}
