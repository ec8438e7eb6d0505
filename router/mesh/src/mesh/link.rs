//! Links come and go.

use std::{net::SocketAddr, time::Instant};

use weave_model::{LinkId, PeerName};

use super::Mesh;
use crate::{
    CloseReason, DialId, Event, LinkInfo, Overlay, OverlayKind, Retry, Side, Transmit,
    link_state::LinkState,
    links::Link,
    maker::Aim,
    wire::{self, Scope},
};

/// What becomes of a link that was opened.
enum Verdict {
    Adopt,
    /// Close this one first, for this reason.
    Replace(LinkId, CloseReason),
    Refuse(CloseReason),
}

impl Mesh {
    /// A handshake was completed. The link is adopted, or closed with an event.
    pub fn handle_link_opened(&mut self, link: LinkId, info: LinkInfo, now: Instant) {
        match self.judge(&info) {
            Verdict::Adopt => self.adopt(link, info, now),
            Verdict::Replace(old, reason) => {
                let old_link = self.drop_link(old, now);
                self.say_farewell(old, reason);
                self.adopt(link, info, now);
                // The other end, the same run, decides alike; so the link between us does not blink.
                if reason == CloseReason::Duplicate && old_link.is_some_and(|link| link.is_confirmed) {
                    self.confirm_link(link, now);
                }
            }
            Verdict::Refuse(reason) => self.refuse(link, &info, reason, now),
        }
        self.run(now);
    }

    fn judge(&self, info: &LinkInfo) -> Verdict {
        let own = self.peers.own();
        if info.peer == self.peers.me() {
            let is_self = info.uid == own.info.uid && info.public_key == own.info.public_key;
            return Verdict::Refuse(if is_self { CloseReason::Self_ } else { CloseReason::NameCollision });
        }
        if let Some((id, old)) = self.links.to(info.peer) {
            return judge_second(id, &old.info, info);
        }
        let known = self.peers.peer(info.peer).filter(|peer| peer.reachable);
        if known.is_some_and(|peer| peer.info.public_key != info.public_key) {
            return Verdict::Refuse(CloseReason::NameCollision);
        }
        let (limit, links) = (self.config.conn_limit, self.links.len());
        // A newcomer that nobody else leads to may have no other way in.
        let is_bridge = known.is_none() && links < limit * 2;
        if limit > 0 && links >= limit && !is_bridge {
            return Verdict::Refuse(CloseReason::ConnectionLimit);
        }
        Verdict::Adopt
    }

    fn adopt(&mut self, id: LinkId, info: LinkInfo, now: Instant) {
        let (peer, remote) = (info.peer, info.remote);
        // Out of reach, or the link would have been refused.
        if self.peers.peer(peer).is_some_and(|known| known.info.public_key != info.public_key) {
            self.depart(peer, now);
            self.mark_graph_stale(now);
        }
        let dial = if let Side::Dialed(dial) = info.side { Some(dial) } else { None };
        let mut link = Link::new(info, None, now);
        link.aim = self.linked(dial, peer, &link.addresses(), now);
        link.outbox.notify(wire::observed(remote));
        if !self.peers.is_reachable(peer) {
            link.outbox.digest(Scope::Opening);
            link.digest_sent = true;
        }
        self.links.insert(id, link);
        self.ready.insert(id);
        self.events.push_back(Event::LinkAdopted { link: id, peer });
    }

    /// Notes that there is a link to a peer, and abandons the dials that it makes superfluous.
    fn linked(
        &mut self,
        dial: Option<DialId>,
        peer: PeerName,
        remote: &[SocketAddr],
        now: Instant,
    ) -> Option<Aim> {
        let aim = self.maker.linked(dial, peer, remote, now);
        let spare = self.maker.take_spare();
        self.events.extend(spare.into_iter().map(|dial| Event::AbandonDial { dial }));
        aim
    }

    /// Publishes a link when something comes over it: the other end, which may have refused it, has adopted it.
    pub(super) fn confirm_link(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.links.link_mut(id).filter(|link| !link.is_confirmed) {
            link.is_confirmed = true;
            let (peer, state) = (link.info.peer, link.state());
            self.publish_link(peer, state, now);
            // The same state may now belong to another link.
            self.mark_graph_stale(now);
        }
    }

    fn refuse(&mut self, id: LinkId, info: &LinkInfo, reason: CloseReason, now: Instant) {
        if let Side::Dialed(dial) = info.side {
            let retry = if reason.is_final() { Retry::Never } else { Retry::Backoff };
            if reason == CloseReason::Duplicate {
                self.linked(Some(dial), info.peer, &[info.remote], now);
            } else {
                if reason == CloseReason::NameCollision {
                    self.maker.slow_down(Some(dial), info.peer);
                }
                self.maker.failed(dial, reason.to_string(), retry, &mut self.random, now);
            }
        }
        if reason == CloseReason::NameCollision {
            if let Some(key) = self.key_of(info.peer) {
                self.farewells.push_back(Transmit { link: id, bytes: wire::claim(true, info.peer, &key) });
            }
            self.note_claim(info.peer, info.public_key, info.remote, now);
        }
        self.say_farewell(id, reason);
    }

    /// Tells the other end why, and has the shell close the link.
    fn say_farewell(&mut self, id: LinkId, reason: CloseReason) {
        self.farewells.push_back(Transmit { link: id, bytes: wire::refuse(reason) });
        self.events.push_back(Event::CloseLink { link: id, reason });
    }

    /// Closes a link that is ours to close.
    pub(super) fn close_link(&mut self, id: LinkId, reason: CloseReason, now: Instant) {
        if let Some(link) = self.drop_link(id, now) {
            self.say_farewell(id, reason);
            let lived = now.saturating_duration_since(link.opened);
            // Not a loss: it waits like after a failure, however long it had lived.
            self.maker.unlinked(
                link.info.peer,
                lived.min(self.config.coalesce),
                &reason.to_string(),
                &mut self.random,
                now,
            );
        }
    }

    /// The other end closes the link, and says why.
    pub(super) fn handle_refuse(&mut self, id: LinkId, reason: CloseReason, now: Instant) {
        let Some(link) = self.drop_link(id, now) else { return };
        self.events.push_back(Event::CloseLink { link: id, reason });
        if reason == CloseReason::NameCollision {
            self.maker.slow_down(None, link.info.peer);
        }
        let text = reason.to_string();
        let lived = now.saturating_duration_since(link.opened);
        self.maker.unlinked(link.info.peer, lived.min(self.config.coalesce), &text, &mut self.random, now);
    }

    /// A link was lost, or the other end closed it. Links that we closed need not be reported.
    pub fn handle_link_closed(&mut self, link: LinkId, reason: &str, now: Instant) {
        if let Some(old) = self.drop_link(link, now) {
            let lived = now.saturating_duration_since(old.opened);
            self.maker.unlinked(old.info.peer, lived, reason, &mut self.random, now);
        }
        self.run(now);
    }

    /// Forgets a link and tells the mesh.
    fn drop_link(&mut self, id: LinkId, now: Instant) -> Option<Link> {
        let link = self.links.remove(id)?;
        self.ready.remove(&id);
        self.forget_asked(id);
        if self.peers.peer(link.info.peer).is_none() {
            // Nothing holds the name any more; later it is given up with the record.
            self.end_claim(link.info.peer, &link.info.public_key);
        }
        self.publish_link(link.info.peer, LinkState::GONE, now);
        Some(link)
    }

    /// While a link is blocked nothing is given out for it, and what waits is merged.
    pub fn handle_link_blocked(&mut self, link: LinkId, blocked: bool) {
        if let Some(outbox) = self.links.link_mut(link).map(|link| &mut link.outbox) {
            outbox.is_blocked = blocked;
            self.ready.insert(link);
        }
    }

    /// An overlay of a link went up or down, or was measured. If another one is in use after that, the link's fact tells.
    pub fn handle_overlay(&mut self, link: LinkId, overlay: Overlay, now: Instant) {
        if let Some(link) = self.links.link_mut(link) {
            link.overlays_mut().set(overlay, now);
            let (peer, state) = (link.info.peer, link.state());
            self.publish_link(peer, state, now);
        }
        self.run(now);
    }

    /// Notes why an overlay of a link is not up, for status only. At most 200 bytes are kept, until it is up.
    pub fn handle_overlay_note(&mut self, link: LinkId, kind: OverlayKind, text: &str) {
        if let Some(link) = self.links.link_mut(link) {
            link.overlays_mut().note(kind, text);
        }
    }

    /// The overlay of a link that is in use at this end: fastdp where it is up, else the sleeve if that is.
    #[must_use]
    pub fn link_overlay(&self, link: LinkId) -> Option<Overlay> {
        self.links.link(link)?.overlays().in_use()
    }

    fn publish_link(&mut self, peer: PeerName, state: LinkState, now: Instant) {
        let before = self.peers.own().record.stamp();
        if self.peers.set_link(peer, state) {
            self.mark_dirty(self.peers.me(), before, None, now);
            self.mark_graph_stale(now);
        }
    }
}

/// Which of two links to one peer is kept. Both ends decide alike: they see the same two numbers.
fn judge_second(id: LinkId, old: &LinkInfo, new: &LinkInfo) -> Verdict {
    if old.public_key != new.public_key {
        Verdict::Refuse(CloseReason::NameCollision)
    } else if old.uid != new.uid {
        if new.incarnation > old.incarnation {
            Verdict::Replace(id, CloseReason::Restarted)
        } else {
            Verdict::Refuse(CloseReason::StaleRun)
        }
    } else if new.tiebreak < old.tiebreak {
        Verdict::Replace(id, CloseReason::Duplicate)
    } else {
        Verdict::Refuse(CloseReason::Duplicate)
    }
}
