//! The engine's links and dials.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::AbortHandle};
use weave_hostnet::xfrm::Cipher;
use weave_link::{
    DataKeys, Encryption, Established, FEATURE_ESP, FEATURE_ESP_IN_UDP, FEATURE_FASTDP, FEATURE_NO_VXLAN,
};
use weave_mesh::{DialId, LinkInfo, Overlay, OverlayKind, Retry, Side, Target};
use weave_model::{LinkId, PeerName};
use weave_sleeve::{LinkKeys, LinkParams, Suite};

use super::Engine;
use crate::{
    app::Ending,
    clock,
    fastdp::{CANNOT_ENCRYPT, Candidate, Protection, Vouch},
    quic::{
        link::{Farewell, GONE_FOR_GOOD, LinkEvent, OUTBOX, OpenedLink},
        skew::Skew,
    },
};

/// A link that the mesh may use.
pub(super) struct LiveLink {
    connection: quinn::Connection,
    peer: PeerName,
    outbox: mpsc::Sender<Bytes>,
    farewell: Farewell,
    /// Whether the mesh was told to hold back.
    is_blocked: Arc<AtomicBool>,
    skew: Skew,
    /// What the data plane needs once the mesh has adopted the link.
    data: Option<DataPlane>,
    /// Finds out whether the kernel's path is broken or the other router is gone.
    suspicion: Option<AbortHandle>,
}

impl Drop for LiveLink {
    fn drop(&mut self) {
        self.trust();
    }
}

/// The two ways in which a link's frames can travel.
struct DataPlane {
    sleeve: LinkParams,
    /// Why the kernel cannot, if it cannot.
    fastdp: Result<Candidate, &'static str>,
}

impl LiveLink {
    fn trust(&mut self) {
        if let Some(suspicion) = self.suspicion.take() {
            suspicion.abort();
        }
    }

    pub(super) fn rtt(&self) -> Duration {
        self.connection.rtt()
    }
}

impl Engine {
    pub(super) fn on_link(&mut self, event: LinkEvent) {
        let now = clock::now();
        match event {
            LinkEvent::Opened(opened) => self.on_opened(*opened),
            LinkEvent::Message { link, bytes } => {
                if !self.links.contains_key(&link) {
                    return;
                }
                self.counters.gossip("received", &bytes);
                if let Err(error) = self.node.handle_message(link, &bytes, now) {
                    tracing::warn!(%link, %error, "closing a link");
                    self.cut(link, &error.to_string());
                }
            }
            LinkEvent::Drained { link } => {
                if self.links.contains_key(&link) {
                    self.node.handle_link_blocked(link, false, now);
                }
            }
            LinkEvent::Closed { link, reason, is_for_good } => {
                if is_for_good && self.links.contains_key(&link) {
                    // Its kernel does not go on without it.
                    let overlay =
                        Overlay { kind: OverlayKind::Fastdp, up: false, mtu: 0, rtt: Duration::ZERO };
                    self.node.handle_overlay(link, overlay, now);
                }
                self.drop_link(link, &reason, "lost");
            }
            LinkEvent::DialFailed { dial, failure, kind } => {
                self.dials.remove(&dial);
                self.counters.fail("outbound", kind);
                let is_final = failure.retry == Retry::Never;
                tracing::debug!(reason = failure.text, is_final, "cannot connect");
                self.node.handle_dial_failed(dial, failure, now);
            }
            LinkEvent::Refused { remote, reason, kind } => {
                self.counters.refused_links += 1;
                self.counters.fail("inbound", kind);
                tracing::warn!(%remote, reason, "refused a connection");
            }
        }
    }

    fn on_opened(&mut self, opened: OpenedLink) {
        let OpenedLink {
            link,
            dial,
            remote,
            established,
            sleeve_index,
            connection,
            outbox,
            farewell,
            is_blocked,
            skew,
        } = opened;
        let hello = &established.remote;
        let info = LinkInfo {
            peer: hello.name,
            uid: hello.uid,
            public_key: hello.public_key,
            nickname: hello.nickname.clone(),
            incarnation: hello.incarnation,
            listen_port: hello.listen_port,
            side: dial.map_or(Side::Accepted, Side::Dialed),
            remote,
            tiebreak: established.tiebreak,
            encrypted: matches!(established.encryption, Encryption::Encrypted { .. }),
        };
        tracing::debug!(%link, peer = %info.peer, %remote, "link opened");
        self.counters.opened += 1;
        let data = LinkParams {
            link,
            peer: hello.name,
            remote,
            local_index: sleeve_index,
            remote_index: hello.sleeve_index,
            keys: data_keys(&established.encryption, &established.keys),
        };
        let fastdp = self.candidate(link, remote.ip(), &established);
        let data = Some(DataPlane { sleeve: data, fastdp });
        let peer = info.peer;
        self.links.insert(
            link,
            LiveLink { connection, peer, outbox, farewell, is_blocked, skew, data, suspicion: None },
        );
        self.node.handle_link_opened(link, info, clock::now());
    }

    /// Who is at the other end of a link.
    pub(crate) fn peer_of(&self, link: LinkId) -> Option<PeerName> {
        self.links.get(&link).map(|live| live.peer)
    }

    /// How many milliseconds the clock of a neighbour is ahead of ours, if it has told.
    pub(crate) fn skew_of(&self, peer: PeerName) -> Option<i64> {
        self.links.values().filter(|live| live.peer == peer).find_map(|live| live.skew.ahead_ms())
    }

    /// The links to a peer, the latest first.
    pub(super) fn links_to(&self, peer: PeerName) -> impl Iterator<Item = LinkId> {
        self.links.iter().rev().filter(move |(_, live)| live.peer == peer).map(|(link, _)| *link)
    }

    /// The mesh keeps the link: let it carry data.
    pub(super) fn adopt(&mut self, link: LinkId) {
        let Some(data) = self.links.get_mut(&link).and_then(|live| live.data.take()) else { return };
        self.workers.add_link(data.sleeve);
        match data.fastdp {
            Ok(candidate) => {
                self.node.handle_overlay_note(link, OverlayKind::Fastdp, "no answer yet on UDP 6784");
                self.fastdp.add(candidate);
            }
            Err(reason) => self.give_up_fastdp(link, reason),
        }
    }

    /// What is known of the kernel's path of a link.
    pub(super) fn on_vouch(&mut self, vouch: Vouch) {
        match vouch {
            Vouch::Up { link, mtu, rtt } => self.rely_on_fastdp(link, mtu, rtt),
            Vouch::Mtu { link, mtu } => {
                let rtt = self.links.get(&link).map(LiveLink::rtt).unwrap_or_default();
                self.rely_on_fastdp(link, mtu, rtt);
            }
            Vouch::Down { link, reason } => self.doubt_fastdp(link, reason),
            Vouch::Broken { link, reason } => self.give_up_fastdp(link, &reason),
        }
    }

    fn rely_on_fastdp(&mut self, link: LinkId, mtu: u16, rtt: Duration) {
        let is_new = !self.is_fast(link);
        let Some(live) = self.links.get_mut(&link) else { return };
        live.trust();
        if is_new {
            self.counters.turn("fastdp", "up");
            tracing::info!(peer = %live.peer, mtu, "the kernel carries this peer's frames");
        }
        let overlay = Overlay { kind: OverlayKind::Fastdp, up: true, mtu, rtt };
        self.node.handle_overlay(link, overlay, clock::now());
    }

    /// Heartbeats are not answered. A path that is in use is given up only if the other router is alive.
    fn doubt_fastdp(&mut self, link: LinkId, reason: String) {
        if !self.is_fast(link) {
            return self.give_up_fastdp(link, &reason);
        }
        let Some(live) = self.links.get_mut(&link) else { return };
        live.trust();
        tracing::debug!(%link, reason, "the kernel's path does not answer");
        live.suspicion =
            Some(self.fastdp.suspect(link, reason, live.connection.clone(), live.outbox.clone()));
    }

    fn is_fast(&self, link: LinkId) -> bool {
        self.node.mesh().link_overlay(link).is_some_and(|overlay| overlay.kind == OverlayKind::Fastdp)
    }

    fn give_up_fastdp(&mut self, link: LinkId, reason: &str) {
        let was_fast = self.is_fast(link);
        if let Some(live) = self.links.get(&link) {
            if was_fast {
                self.counters.turn("fastdp", "down");
                tracing::warn!(peer = %live.peer, reason, "the tunnel carries this peer's frames");
            }
            let kind = OverlayKind::Fastdp;
            self.node.handle_overlay_note(link, kind, reason);
            let overlay = Overlay { kind, up: false, mtu: 0, rtt: Duration::ZERO };
            self.node.handle_overlay(link, overlay, clock::now());
        }
    }

    /// Whether the kernel may carry a link, and how.
    fn candidate(
        &self,
        link: LinkId,
        remote: IpAddr,
        established: &Established,
    ) -> Result<Candidate, &'static str> {
        if let Some(reason) = self.fastdp.disabled() {
            return Err(reason);
        }
        let offers = established.remote.features;
        if offers & FEATURE_NO_VXLAN != 0 {
            return Err("the other host's kernel has no VXLAN");
        }
        if offers & FEATURE_FASTDP == 0 {
            return Err("the other router does not offer fastdp");
        }
        let protection = match established.encryption {
            Encryption::OpenMesh | Encryption::TrustedSubnets => Protection::Clear,
            Encryption::Encrypted { .. } if !self.fastdp.can_encrypt() => {
                return Err(CANNOT_ENCRYPT);
            }
            Encryption::Encrypted { .. } if offers & FEATURE_ESP == 0 => {
                return Err("the other router does not offer encrypted fastdp");
            }
            Encryption::Encrypted { suite } => {
                let may_be_in_udp = self.fastdp.takes_udp() && offers & FEATURE_ESP_IN_UDP != 0;
                let keys = Box::new(established.keys.clone());
                Protection::Esp { cipher: cipher(suite), keys, may_be_in_udp }
            }
        };
        Ok(Candidate {
            link,
            peer: established.remote.name,
            remote: remote.to_canonical(),
            send_key: *established.keys.heartbeat_send().expose(),
            receive_key: *established.keys.heartbeat_receive().expose(),
            protection,
        })
    }

    pub(super) fn transmit(&mut self, link: LinkId, bytes: Bytes) {
        let Some(live) = self.links.get(&link) else { return };
        self.counters.gossip("sent", &bytes);
        if live.outbox.try_send(bytes).is_err() {
            if live.connection.close_reason().is_none() {
                self.cut(link, "the link does not keep up");
            }
        } else if live.outbox.capacity() < OUTBOX / 4 && !live.is_blocked.swap(true, Ordering::AcqRel) {
            self.node.handle_link_blocked(link, true, clock::now());
        }
    }

    pub(super) fn dial(&mut self, dial: DialId, target: Target) {
        let task = tokio::spawn(Arc::clone(&self.linker).dial(dial, target));
        self.dials.insert(dial, task.abort_handle());
    }

    pub(super) fn abandon(&mut self, dial: DialId) {
        if let Some(task) = self.dials.remove(&dial) {
            task.abort();
        }
    }

    /// Closes a link that the mesh has given up, once what was said on it has arrived.
    pub(super) fn close(&mut self, link: LinkId, reason: &str) {
        let Some(live) = self.links.remove(&link) else { return };
        tracing::debug!(%link, reason, "closing a link");
        self.counters.end("closed");
        self.workers.remove_link(link);
        self.fastdp.remove(link);
        live.farewell.set(reason);
        // Dropping the outbox lets the writer finish.
        drop(live);
    }

    /// Closes a link whose other end misbehaves, and tells the mesh.
    fn cut(&mut self, link: LinkId, reason: &str) {
        if let Some(live) = self.links.get(&link) {
            live.connection.close(1u32.into(), reason.as_bytes());
        }
        self.drop_link(link, reason, "cut");
    }

    fn drop_link(&mut self, link: LinkId, reason: &str, how: &'static str) {
        if self.links.remove(&link).is_none() {
            return;
        }
        self.counters.end(how);
        tracing::debug!(%link, reason, "link ended");
        self.workers.remove_link(link);
        self.fastdp.remove(link);
        self.node.handle_link_closed(link, reason, clock::now());
    }

    pub(super) fn close_all(&mut self, ending: Ending) {
        let (code, reason) = match ending {
            Ending::Stop => (0, "router is stopping"),
            Ending::Reset => (GONE_FOR_GOOD, "router was reset"),
        };
        for live in self.links.values() {
            live.connection.close(code.into(), reason.as_bytes());
        }
    }
}

const fn cipher(suite: weave_link::Suite) -> Cipher {
    match suite {
        weave_link::Suite::Aes256Gcm => Cipher::Aes256Gcm,
        weave_link::Suite::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
    }
}

/// The sleeve derives its keys by lane and epoch from one secret for each direction.
fn data_keys(encryption: &Encryption, keys: &DataKeys) -> Option<LinkKeys> {
    match encryption {
        Encryption::Encrypted { suite } => Some(LinkKeys {
            suite: match suite {
                weave_link::Suite::Aes256Gcm => Suite::Aes256Gcm,
                weave_link::Suite::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
            },
            send_secret: *keys.sleeve_send(0, 0).expose(),
            receive_secret: *keys.sleeve_receive(0, 0).expose(),
        }),
        Encryption::OpenMesh | Encryption::TrustedSubnets => None,
    }
}
