//! Heartbeats over the kernel's own tunnel: only what they prove is used.
//!
//! # Policy
//! * A path is up once a probe of useful size was answered by an answer of the same size: it then passes both ways, through
//!   the same tunnel as the containers' frames. The size is the MTU: the largest that was proven, never one that was hoped for.
//! * The largest size that the interface carries is asked for first, beside a small probe. If only the small one is answered,
//!   the sizes that paths usually have are asked for at once, and the largest of them is used while the rest is searched.
//! * While there is traffic small heartbeats show a block within 1.6 s, and full-size ones a path that shrank within
//!   2 s. Each end asks for itself, and tells the other when it is not answered, so that both notice a block of either
//!   direction. Without traffic next to nothing is sent.
//! * A path that is down is asked for again, ever more rarely, and at once when the peer is heard.
//! * Heartbeats are sealed with keys of the link. An answer counts once, for a probe that was sent; what is sent again
//!   by others causes few answers and no change.
//!
//! # Driving
//! Frames go in and out by the heartbeat devices, which forbid fragmentation. After every `handle_*` call (and [`Fastdp::add_link`] and
//! the like) drain [`Fastdp::poll_transmit`] and [`Fastdp::poll_event`]; then wait for [`Fastdp::poll_timeout`], and call
//! [`Fastdp::handle_timeout`].

mod budget;
mod config;
mod discard;
mod event;
mod flights;
mod frame;
mod link;
mod prober;
mod random;
mod search;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use weave_model::{LinkId, Mac, PeerName};

pub use self::{
    config::HeartbeatConfig,
    discard::HeartbeatDiscard,
    event::{DownReason, FastdpEvent, LinkHealth},
    frame::{HEARTBEAT_ETHERTYPE, heartbeat_mac},
    link::LinkPath,
};
use self::{
    frame::{Message, Unverified},
    link::Link,
    prober::{Change, Moment},
    random::Random,
};

/// A frame to be sent by the heartbeat device of the link's family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whose path it is to take.
    pub link: LinkId,
    /// A whole Ethernet frame.
    pub frame: Vec<u8>,
}

/// Vouches for the kernel's paths of all links of a router. See the module documentation.
#[derive(Debug)]
pub struct Fastdp {
    local: Mac,
    config: HeartbeatConfig,
    random: Random,
    is_active: bool,
    /// When the last traffic is long enough ago.
    calm_at: Option<Instant>,
    links: BTreeMap<LinkId, Link>,
    by_mac: BTreeSet<(Mac, LinkId)>,
    timers: BTreeSet<(Instant, LinkId)>,
    transmits: VecDeque<Heartbeat>,
    events: VecDeque<FastdpEvent>,
    discards: [u64; HeartbeatDiscard::ALL.len()],
}

impl Fastdp {
    /// No links, and no traffic.
    #[must_use]
    pub fn new(local: PeerName, seed: [u8; 32]) -> Self {
        Self::with_config(local, seed, HeartbeatConfig::default())
    }

    /// The same at another pace.
    #[must_use]
    pub fn with_config(local: PeerName, seed: [u8; 32], config: HeartbeatConfig) -> Self {
        Self {
            local: heartbeat_mac(local),
            config,
            random: Random::new(seed),
            is_active: false,
            calm_at: None,
            links: BTreeMap::new(),
            by_mac: BTreeSet::new(),
            timers: BTreeSet::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            discards: [0; HeartbeatDiscard::ALL.len()],
        }
    }

    /// Begins to vouch for a path. A link that is known already starts anew, without an event for its end.
    pub fn add_link(&mut self, path: LinkPath, now: Instant) {
        self.remove_link(path.link);
        let link = Link::new(&path, self.random.number(), now);
        self.by_mac.insert((link.peer_mac, path.link));
        self.links.insert(path.link, link);
        self.with_link(path.link, now, |link, moment| link.prober.handle_timeout(moment));
    }

    /// Forgets a path. No event says so.
    pub fn remove_link(&mut self, link: LinkId) {
        if let Some(removed) = self.links.remove(&link) {
            self.by_mac.remove(&(removed.peer_mac, link));
            if let Some(armed) = removed.armed {
                self.timers.remove(&(armed, link));
            }
        }
    }

    /// A frame arrived on a heartbeat device. What is not of use is counted ([`Fastdp::discards`]).
    pub fn handle_frame(&mut self, frame: &[u8], now: Instant) {
        if let Err(discard) = self.receive(frame, now) {
            self.discards[discard.index()] += 1;
        }
    }

    /// Containers' frames go through the kernel's tunnels, or no longer do. May be said as often as it is looked at.
    pub fn set_traffic(&mut self, active: bool, now: Instant) {
        if !active {
            if self.is_active && self.calm_at.is_none() {
                self.calm_at = Some(now + self.config.calm_after);
            }
            return;
        }
        self.calm_at = None;
        if !self.is_active {
            self.set_pace(true, now);
        }
    }

    /// The largest overlay MTU worth trying on a link is another now. A smaller one counts at once, a larger one is tried at once.
    pub fn set_ceiling(&mut self, link: LinkId, mtu: u16, now: Instant) {
        self.with_link(link, now, |link, moment| link.prober.handle_ceiling(mtu, moment));
    }

    /// The time that [`Fastdp::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<LinkId> =
            self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, link)| *link).collect();
        for link in due {
            self.with_link(link, now, |link, moment| link.prober.handle_timeout(moment));
        }
        if self.calm_at.is_some_and(|at| at <= now) {
            self.calm_at = None;
            self.set_pace(false, now);
        }
    }

    /// The next frame to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Heartbeat> {
        self.transmits.pop_front()
    }

    /// The next piece of news.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<FastdpEvent> {
        self.events.pop_front()
    }

    /// When [`Fastdp::handle_timeout`] is to be called next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let calm = self.calm_at.map(|at| (at, "end of traffic on the fast path"));
        let link = self.timers.first().and_then(|(at, link)| {
            let (_, why) = self.links.get(link)?.prober.poll_timeout();
            Some((*at, why))
        });
        [calm, link].into_iter().flatten().min()
    }

    /// The state of a link's path.
    #[must_use]
    pub fn health(&self, link: LinkId) -> Option<LinkHealth> {
        self.links.get(&link).map(|link| link.prober.health())
    }

    /// How many received frames were thrown away, by reason.
    pub fn discards(&self) -> impl Iterator<Item = (HeartbeatDiscard, u64)> {
        HeartbeatDiscard::ALL.into_iter().zip(self.discards)
    }

    fn set_pace(&mut self, is_active: bool, now: Instant) {
        self.is_active = is_active;
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.with_link(link, now, |link, moment| link.prober.handle_traffic(moment));
        }
    }

    fn receive(&mut self, frame: &[u8], now: Instant) -> Result<(), HeartbeatDiscard> {
        let unverified = Message::parse(frame)?;
        if unverified.to != self.local {
            return Err(HeartbeatDiscard::NotForUs);
        }
        let (id, message) = self.recognise(&unverified)?;
        let local = self.local;
        let answer = self.with_link(id, now, |link, moment| link.handle(message, local, moment));
        if let Some(frame) = answer.transpose()?.flatten() {
            self.transmits.push_back(Heartbeat { link: id, frame });
        }
        Ok(())
    }

    /// The link whose key a frame is sealed with, among those with the router that it comes from.
    fn recognise(&self, frame: &Unverified<'_>) -> Result<(LinkId, Message), HeartbeatDiscard> {
        let mut discard = HeartbeatDiscard::UnknownSource;
        for (_, id) in self.by_mac.range((frame.from, LinkId(0))..=(frame.from, LinkId(u64::MAX))) {
            let Some(link) = self.links.get(id) else { continue };
            match link.verify(frame) {
                Some(message) => return Ok((*id, message)),
                None => discard = HeartbeatDiscard::Seal,
            }
        }
        Err(discard)
    }

    /// Lets a link act, takes what it wants sent and said, and sets its timer.
    fn with_link<R>(
        &mut self,
        id: LinkId,
        now: Instant,
        act: impl FnOnce(&mut Link, &mut Moment<'_>) -> R,
    ) -> Option<R> {
        let links = self.links.len();
        let link = self.links.get_mut(&id)?;
        let is_active = self.is_active;
        let result =
            act(link, &mut Moment { now, config: &self.config, random: &mut self.random, is_active, links });
        while let Some(frame) = link.poll_probe(self.local) {
            self.transmits.push_back(Heartbeat { link: id, frame });
        }
        while let Some(change) = link.prober.poll_change() {
            self.events.push_back(match change {
                Change::Up { mtu, rtt } => FastdpEvent::Up { link: id, mtu, rtt },
                Change::Mtu(mtu) => FastdpEvent::Mtu { link: id, mtu },
                Change::Down(reason) => FastdpEvent::Down { link: id, reason },
            });
        }
        let (at, _) = link.prober.poll_timeout();
        if let Some(old) = link.armed.replace(at) {
            self.timers.remove(&(old, id));
        }
        self.timers.insert((at, id));
        Some(result)
    }
}
