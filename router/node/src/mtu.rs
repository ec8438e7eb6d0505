//! The largest packet that every path of the mesh carries: what the bridge and the containers get, unless the operator
//! fixed it.
//!
//! Each router takes the least of its own links and publishes it; the mesh's is the least that anybody publishes. A link
//! counts with what the kernel's path was last proven to carry, also while the tunnel stands in for it (which splits what is too
//! long), and with the tunnel's size where the kernel has never carried it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use weave_mesh::{Namespace, Overlay, OverlayKind};
use weave_model::{LinkId, PeerName};

/// Where it is kept among a peer's facts: one, under an empty key, two bytes in network order.
pub(crate) const NAMESPACE: Namespace = Namespace(19);

/// What IPv6 needs (RFC 8200, section 5); a path that carries less has its packets split by the tunnel.
const LEAST: u16 = 1280;

/// How long a new value has to last before interfaces are changed: paths are measured step by step, and links come and
/// go together.
const SETTLE: Duration = Duration::from_secs(3);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Mtu {
    fixed: Option<u16>,
    by_link: BTreeMap<LinkId, OfLink>,
    by_peer: BTreeMap<PeerName, u16>,
    published: Option<u16>,
    /// In use.
    current: Option<u16>,
    /// What is wanted instead, and when it is taken.
    next: Option<(u16, Instant)>,
}

/// What one link carries.
#[derive(Debug, Default)]
struct OfLink {
    sleeve: Option<u16>,
    fastdp: Option<u16>,
}

impl Mtu {
    pub(crate) const fn new(fixed: Option<u16>) -> Self {
        Self {
            fixed,
            by_link: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            published: None,
            current: None,
            next: None,
        }
    }

    /// A link's data plane was measured.
    pub(crate) fn measured(&mut self, link: LinkId, overlay: Overlay, now: Instant) {
        if !overlay.up {
            return;
        }
        let of_link = self.by_link.entry(link).or_default();
        match overlay.kind {
            OverlayKind::Sleeve => of_link.sleeve = Some(overlay.mtu),
            OverlayKind::Fastdp => {
                let shrinks = of_link.fastdp.is_some_and(|before| overlay.mtu < before);
                of_link.fastdp = Some(overlay.mtu);
                if shrinks {
                    // The kernel drops what is too long.
                    self.take(now);
                }
            }
        }
        self.reconsider(now);
    }

    pub(crate) fn link_gone(&mut self, link: LinkId, now: Instant) {
        self.by_link.remove(&link);
        self.reconsider(now);
    }

    /// What a peer publishes; nothing when it does no more.
    pub(crate) fn of_peer(&mut self, peer: PeerName, value: Option<u16>, now: Instant) {
        match value {
            Some(mtu) => self.by_peer.insert(peer, mtu.max(LEAST)),
            None => self.by_peer.remove(&peer),
        };
        self.reconsider(now);
    }

    /// What to publish, if it is not what was published last.
    pub(crate) fn news(&mut self) -> Option<u16> {
        let own = self.own()?;
        (self.published.replace(own) != Some(own)).then_some(own)
    }

    /// The value that interfaces shall have from now on, if it changed.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<u16> {
        let (mtu, at) = self.next?;
        if now < at {
            return None;
        }
        self.next = None;
        self.current = Some(mtu);
        Some(mtu)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next.map(|(_, at)| at)
    }

    /// The least of our own links, or what the operator fixed.
    fn own(&self) -> Option<u16> {
        let of_links = self.by_link.values().filter_map(|link| link.fastdp.or(link.sleeve));
        self.fixed.or_else(|| of_links.min().map(|mtu| mtu.max(LEAST)))
    }

    fn wanted(&self) -> Option<u16> {
        let own = self.own()?;
        Some(self.by_peer.values().copied().fold(own, u16::min))
    }

    fn reconsider(&mut self, now: Instant) {
        if self.fixed.is_some() {
            return;
        }
        match self.wanted() {
            Some(mtu) if Some(mtu) != self.current => {
                if self.next.is_none_or(|(next, _)| next != mtu) {
                    self.next = Some((mtu, now + SETTLE));
                }
            }
            Some(_) | None => self.next = None,
        }
    }

    /// Takes what is wanted now without waiting.
    fn take(&mut self, now: Instant) {
        if let Some(mtu) = self.wanted().filter(|mtu| self.fixed.is_none() && Some(*mtu) != self.current) {
            self.next = Some((mtu, now));
        }
    }
}

/// Reads what a peer publishes.
pub(crate) fn decode(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerName = PeerName([2, 0, 0, 0, 0, 2]);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as the beginning of virtual time")]
        Instant::now()
    }

    fn overlay(kind: OverlayKind, mtu: u16) -> Overlay {
        Overlay { kind, up: true, mtu, rtt: Duration::ZERO }
    }

    #[test]
    fn the_least_of_all_links_is_taken_once_it_has_lasted() {
        let (mut mtu, t) = (Mtu::new(None), start());
        mtu.measured(LinkId(1), overlay(OverlayKind::Sleeve, 1300), t);
        mtu.measured(LinkId(1), overlay(OverlayKind::Sleeve, 1420), t + Duration::from_secs(1));
        mtu.measured(LinkId(2), overlay(OverlayKind::Fastdp, 1450), t + Duration::from_secs(1));
        assert_eq!(mtu.poll(t + Duration::from_secs(2)), None);
        assert_eq!(mtu.poll_timeout(), Some(t + Duration::from_secs(4)));
        assert_eq!(mtu.poll(t + Duration::from_secs(4)), Some(1420));
        assert_eq!((mtu.poll_timeout(), mtu.news(), mtu.news()), (None, Some(1420), None));
    }

    #[test]
    fn the_tunnel_standing_in_for_the_kernel_changes_nothing() {
        let (mut mtu, t) = (Mtu::new(None), start());
        mtu.measured(LinkId(1), overlay(OverlayKind::Fastdp, 8950), t);
        assert_eq!(mtu.poll(t + SETTLE), Some(8950));
        mtu.measured(LinkId(1), Overlay { up: false, ..overlay(OverlayKind::Fastdp, 0) }, t + SETTLE);
        mtu.measured(LinkId(1), overlay(OverlayKind::Sleeve, 1420), t + SETTLE);
        assert_eq!(mtu.poll_timeout(), None);
    }

    #[test]
    fn a_shrinking_kernel_path_counts_at_once() {
        let (mut mtu, t) = (Mtu::new(None), start());
        mtu.measured(LinkId(1), overlay(OverlayKind::Fastdp, 8950), t);
        assert_eq!(mtu.poll(t + SETTLE), Some(8950));
        mtu.measured(LinkId(1), overlay(OverlayKind::Fastdp, 1450), t + SETTLE);
        assert_eq!(mtu.poll(t + SETTLE), Some(1450));
    }

    #[test]
    fn what_others_publish_counts_and_goes_with_them() {
        let (mut mtu, t) = (Mtu::new(None), start());
        mtu.measured(LinkId(1), overlay(OverlayKind::Fastdp, 8950), t);
        mtu.of_peer(PEER, Some(1450), t);
        assert_eq!(mtu.poll(t + SETTLE), Some(1450));
        assert_eq!(mtu.news(), Some(8950), "others hear of our own links");
        mtu.of_peer(PEER, None, t + SETTLE);
        assert_eq!(mtu.poll(t + SETTLE * 2), Some(8950));
        mtu.of_peer(PEER, Some(7), t + SETTLE * 2);
        assert_eq!(mtu.poll(t + SETTLE * 3), Some(LEAST));
    }

    #[test]
    fn a_fixed_value_is_published_and_never_changes() {
        let (mut mtu, t) = (Mtu::new(Some(1400)), start());
        mtu.measured(LinkId(1), overlay(OverlayKind::Fastdp, 8950), t);
        mtu.of_peer(PEER, Some(1300), t);
        assert_eq!((mtu.poll_timeout(), mtu.news()), (None, Some(1400)));
    }
}
