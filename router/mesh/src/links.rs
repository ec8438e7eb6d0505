//! Our links, one to each neighbour.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use weave_model::{LinkId, PeerName};

use crate::{
    LinkInfo, Overlay, OverlayKind, Side,
    maker::Aim,
    outbox::Outbox,
    record::{Life, LinkState},
    rtt,
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
    /// Since when the overlay in use is the one it is.
    pub(crate) overlay_since: Instant,
    sleeve: Option<Overlay>,
    fastdp: Option<Overlay>,
    class: u8,
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
            overlay_since: now,
            sleeve: None,
            fastdp: None,
            class: 0,
        }
    }

    /// The overlay in use: the kernel's where it works.
    pub(crate) fn overlay(&self) -> Option<Overlay> {
        [self.fastdp, self.sleeve].into_iter().flatten().find(|overlay| overlay.up)
    }

    /// Takes in what the data plane says of an overlay.
    pub(crate) fn set_overlay(&mut self, overlay: Overlay, now: Instant) {
        let before = self.overlay();
        match overlay.kind {
            OverlayKind::Sleeve => self.sleeve = Some(overlay),
            OverlayKind::Fastdp => self.fastdp = Some(overlay),
        }
        let after = self.overlay();
        if before.map(|o| o.kind) != after.map(|o| o.kind) {
            self.overlay_since = now;
        }
        if let Some(overlay) = after {
            self.class = if before.is_some() {
                rtt::next_class(self.class, overlay.rtt)
            } else {
                rtt::class(overlay.rtt)
            };
        }
    }

    /// What we publish of it: nothing until we know that it will stay.
    pub(crate) fn state(&self) -> LinkState {
        if !self.is_confirmed {
            return LinkState::GONE;
        }
        LinkState::new(self.class, self.overlay().map(|o| o.kind), self.is_outbound())
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
