//! Sends heartbeats over the kernel's path of every link, and says what comes back.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use weave_datapath::{
    Detour, Family, Fastdp as Heartbeats, FastdpEvent, HEARTBEAT_ETHERTYPE, LinkPath, heartbeat_mac,
};
use weave_hostnet::{Tunnel, packet::PacketSocket};
use weave_model::{EspOver, LinkId, Mac, PeerName};

use super::{Beats, Candidate, Order, Protection, devices::Devices};
use crate::clock;

/// How often it is looked whether containers use the kernel's path, and whether the underlay's MTU changed.
const LOOK: Duration = Duration::from_millis(250);
/// Packets in that time from which on the path counts as used; heartbeats have devices of their own.
const TRAFFIC: u64 = 2;
/// How long entries of an earlier run stay, as their links come back one after the other.
const ADOPTION: Duration = Duration::from_secs(30);
/// Every how many looks the underlay's MTU is asked for.
const LOOKS_PER_MTU: u32 = 20;
/// What the engine hears of a link's path through the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vouch {
    /// Frames of this size get through in both directions.
    Up { link: LinkId, mtu: u16, rtt: Duration },
    /// Of another size now.
    Mtu { link: LinkId, mtu: u16 },
    /// Nothing is heard of them, any more or yet.
    Down { link: LinkId, reason: String },
    /// They do not get through, and the router at the other end is alive.
    Broken { link: LinkId, reason: String },
}

/// What is to be known of a link.
#[derive(Debug, Clone, Copy)]
struct Candidature {
    peer: PeerName,
    remote: IpAddr,
    /// Of an encrypted one, in what its packets leave.
    detour: Option<Detour>,
}

impl Candidature {
    fn over(&self) -> Option<EspOver> {
        self.detour.as_ref().map(Detour::over)
    }

    /// What has to pass for heartbeats to be answered.
    fn needs(&self) -> &'static str {
        match self.detour {
            None => "UDP 6784",
            Some(detour) if detour.is_open() => "ESP (IP protocol 50, or UDP 6785 in its place)",
            Some(_) => "ESP (IP protocol 50)",
        }
    }
}

/// The task.
pub(super) struct Pulse {
    devices: Arc<Devices>,
    core: Heartbeats,
    orders: mpsc::Receiver<Order>,
    events: mpsc::UnboundedSender<Vouch>,
    links: BTreeMap<LinkId, Candidature>,
    sockets: BTreeMap<Family, PacketSocket>,
    beats: Arc<Beats>,
    packets: u64,
    looks: u32,
    /// When it is seen to the keys.
    next_keys: Instant,
    started: Instant,
}

impl Pulse {
    pub(super) fn new(
        devices: Arc<Devices>,
        local: PeerName,
        orders: mpsc::Receiver<Order>,
        events: mpsc::UnboundedSender<Vouch>,
        beats: Arc<Beats>,
    ) -> Self {
        Self {
            devices,
            core: Heartbeats::new(local, clock::seed()),
            orders,
            events,
            links: BTreeMap::new(),
            sockets: BTreeMap::new(),
            beats,
            packets: 0,
            looks: 0,
            next_keys: clock::now(),
            started: clock::now(),
        }
    }

    /// Runs until the engine has stopped.
    pub(super) async fn run(mut self) {
        let mut buffers = [vec![0; 1 << 16], vec![0; 1 << 16]];
        let mut look = clock::now() + LOOK;
        loop {
            let due = self.core.poll_timeout().map(|(at, _)| at);
            let next_look = (!self.links.is_empty()).then_some(look);
            let turns = self.links.values().filter_map(|link| link.detour?.poll_timeout());
            let next_turn = turns.map(|(at, _)| at).min();
            let [buffer4, buffer6] = &mut buffers;
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                n = receive(self.sockets.get(&Family::V4), buffer4) => self.hear(n.map(|n| &buffer4[..n])),
                n = receive(self.sockets.get(&Family::V6), buffer6) => self.hear(n.map(|n| &buffer6[..n])),
                () = sleep_until(due) => self.core.handle_timeout(clock::now()),
                () = sleep_until(next_turn) => self.take_turns().await,
                () = sleep_until(next_look) => {
                    look = clock::now() + LOOK;
                    self.look().await;
                }
            }
            self.drain();
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Add(candidate) => {
                let (link, remote) = (candidate.link, candidate.remote);
                if let Err(error) = self.add(*candidate).await {
                    let reason = format!("the kernel cannot: {error:#}");
                    tracing::debug!(%link, %remote, reason, "no VXLAN for this link");
                    self.links.remove(&link);
                    self.unprotect(link);
                    self.tell(Vouch::Down { link, reason });
                }
            }
            Order::Remove(link) => {
                self.core.remove_link(link);
                self.unprotect(link);
                if let Some(gone) = self.links.remove(&link)
                    && let Err(error) = self.introduce(Family::of(gone.remote)).await
                {
                    tracing::debug!(%link, error = format!("{error:#}"), "a heartbeat entry stays");
                }
            }
        }
    }

    async fn add(&mut self, candidate: Candidate) -> anyhow::Result<()> {
        let Candidate { link, peer, remote, send_key, receive_key, protection } = candidate;
        let detour = match &protection {
            Protection::Clear => None,
            Protection::Esp { may_be_in_udp, .. } => Some(Detour::new(*may_be_in_udp, clock::now())),
        };
        let candidature = Candidature { peer, remote, detour };
        // Before anything can leave.
        self.devices.shield.link(link, remote, protection)?;
        let family = Family::of(remote);
        let device = self.devices.heartbeat(family).await?;
        // Data may follow at once when the path is proven.
        self.devices.data(family).await?;
        if !self.sockets.contains_key(&family) {
            let socket = PacketSocket::open(&self.devices.host, device, HEARTBEAT_ETHERTYPE)?;
            self.sockets.insert(family, socket);
        }
        self.links.insert(link, candidature);
        self.introduce(family).await?;
        let ceiling = self.ceiling(remote, candidature.over()).await?;
        let path = LinkPath { link, peer, remote, send_key, receive_key, ceiling };
        self.core.add_link(path, clock::now());
        Ok(())
    }

    /// Lets peers in, and tells the heartbeat device of a family where they are.
    async fn introduce(&self, family: Family) -> anyhow::Result<()> {
        let linked = self.links.values().map(|link| link.remote).collect();
        self.devices.guard.admit_linked(linked, &self.devices.shield)?;
        let device = self.devices.heartbeat(family).await?;
        let of_family = self.links.values().filter(|link| Family::of(link.remote) == family);
        let mut stations: BTreeMap<Mac, Tunnel> = of_family
            .map(|link| (heartbeat_mac(link.peer), Tunnel { remote: link.remote, vni: None }))
            .collect();
        if clock::now() < self.started + ADOPTION {
            let (found, _) = self.devices.host.tunnels(device).await?;
            found.into_iter().for_each(|(mac, tunnel)| _ = stations.entry(mac).or_insert(tunnel));
        }
        self.devices.host.reconcile_tunnels(device, &stations, &std::collections::BTreeSet::new()).await?;
        Ok(())
    }

    /// The largest overlay packet that the interface towards `remote` can take.
    async fn ceiling(&self, remote: IpAddr, encrypted: Option<EspOver>) -> anyhow::Result<u16> {
        let underlay = self.devices.host.route_mtu(remote).await?;
        let underlay = u16::try_from(underlay).unwrap_or(u16::MAX);
        Ok(Family::of(remote).capacity(underlay, encrypted))
    }

    fn unprotect(&self, link: LinkId) {
        if let Err(error) = self.devices.shield.unlink(link) {
            tracing::warn!(%link, error = format!("{error:#}"), "keys of a former link stay in the kernel");
        }
    }

    fn hear(&mut self, frame: io::Result<&[u8]>) {
        match frame {
            Ok(frame) => {
                self.beats.heard.fetch_add(1, Ordering::Relaxed);
                self.core.handle_frame(frame, clock::now());
            }
            // The device went away or down; heartbeats stop, the links fall back, and the next look makes it anew.
            Err(error) => {
                tracing::debug!(%error, "the heartbeat device is gone");
                self.sockets.clear();
            }
        }
    }

    /// Watches for what nobody tells us.
    async fn look(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        if let Err(error) = self.look_at_traffic().await {
            tracing::debug!(error = format!("{error:#}"), "cannot read the VXLAN devices' counters");
        }
        if clock::now() >= self.next_keys {
            self.next_keys = clock::now() + self.devices.shield.pace();
            if let Err(error) = self.devices.shield.look() {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot look after the keys of the kernel's paths"
                );
            }
        }
        if self.looks.is_multiple_of(LOOKS_PER_MTU) {
            for link in self.links.keys().copied().collect::<Vec<_>>() {
                self.measure(link).await;
            }
            self.mend().await;
        }
    }

    /// Finds out how large a link's packets may be.
    async fn measure(&mut self, link: LinkId) {
        let Some(candidature) = self.links.get(&link).copied() else { return };
        // No route: the heartbeats say so by themselves.
        if let Ok(ceiling) = self.ceiling(candidature.remote, candidature.over()).await {
            self.core.set_ceiling(link, ceiling, clock::now());
        }
    }

    /// Goes over to UDP, or back, on links whose heartbeats are not answered.
    async fn take_turns(&mut self) {
        let now = clock::now();
        let mut turned = Vec::new();
        for (link, candidature) in &mut self.links {
            if let Some(detour) = candidature.detour.as_mut()
                && detour.handle_timeout(now)
            {
                turned.push((*link, detour.over()));
            }
        }
        for (link, over) in turned {
            tracing::debug!(%link, ?over, "heartbeats are not answered: ESP another way");
            if let Err(error) = self.devices.shield.carry(link, over) {
                tracing::warn!(%link, error = format!("{error:#}"), "cannot send ESP another way");
            }
            // Of another size, so it is tried at once.
            self.measure(link).await;
        }
    }

    async fn look_at_traffic(&mut self) -> anyhow::Result<()> {
        let mut packets = 0_u64;
        for (_, device) in self.devices.existing_data().await? {
            let (received, sent) = self.devices.host.link_traffic(device).await?;
            packets = packets.wrapping_add(received).wrapping_add(sent);
        }
        let is_used = packets.wrapping_sub(self.packets) >= TRAFFIC && packets >= self.packets;
        self.packets = packets;
        self.core.set_traffic(is_used, clock::now());
        Ok(())
    }

    /// Opens again what somebody took away.
    async fn mend(&mut self) {
        let families: Vec<Family> = self.links.values().map(|link| Family::of(link.remote)).collect();
        for family in families {
            if self.sockets.contains_key(&family) {
                continue;
            }
            self.devices.doubt().await;
            let opened = async {
                let device = self.devices.heartbeat(family).await?;
                self.introduce(family).await?;
                Ok::<_, anyhow::Error>(PacketSocket::open(&self.devices.host, device, HEARTBEAT_ETHERTYPE)?)
            };
            match opened.await {
                Ok(socket) => drop(self.sockets.insert(family, socket)),
                Err(error) => tracing::debug!(error = format!("{error:#}"), "no heartbeat device"),
            }
        }
    }

    /// Sends what the core wants sent and says what it found.
    fn drain(&mut self) {
        while let Some(heartbeat) = self.core.poll_transmit() {
            let Some(Candidature { remote, .. }) = self.links.get(&heartbeat.link) else { continue };
            if let Some(socket) = self.sockets.get(&Family::of(*remote)) {
                self.beats.sent.fetch_add(1, Ordering::Relaxed);
                // One that cannot be sent is one that is lost.
                let _sent = socket.try_send(&heartbeat.frame);
            }
        }
        while let Some(event) = self.core.poll_event() {
            let vouch = match event {
                FastdpEvent::Up { link, mtu, rtt } => {
                    self.detour_of(link, Detour::handle_up);
                    Vouch::Up { link, mtu, rtt }
                }
                FastdpEvent::Mtu { link, mtu } => Vouch::Mtu { link, mtu },
                FastdpEvent::Down { link, reason } => {
                    self.detour_of(link, |detour| detour.handle_down(clock::now()));
                    let needs = self.links.get(&link).map_or("UDP 6784", Candidature::needs);
                    Vouch::Down { link, reason: reason.about(needs) }
                }
            };
            self.tell(vouch);
        }
    }

    fn detour_of(&mut self, link: LinkId, tell: impl FnOnce(&mut Detour)) {
        if let Some(detour) = self.links.get_mut(&link).and_then(|link| link.detour.as_mut()) {
            tell(detour);
        }
    }

    fn tell(&self, vouch: Vouch) {
        // The engine has stopped: nobody wants to know.
        let _ = self.events.send(vouch);
    }
}

async fn receive(socket: Option<&PacketSocket>, buffer: &mut [u8]) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
