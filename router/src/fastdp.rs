//! The kernel's path: VXLAN devices, what their tables hold, and the heartbeats that vouch for it.
//!
//! Two tasks beside the engine. The **keeper** brings the kernel's tables in line with the node's plan, by difference. The
//! **pulse** sends heartbeats over every link that the kernel may carry, and tells the engine what comes back; from that the
//! mesh chooses between kernel and tunnel, and makes the next plan.
//!
//! Nothing is taken away when the router stops: the kernel forwards on. The next start finds what is there and lets it be
//! until the links have been judged anew (see `adoption`).

mod adoption;
mod devices;
mod guard;
mod keeper;
mod lookout;
mod pulse;
mod shield;
mod suspect;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};
use weave_datapath::{Plan, RekeyConfig};
use weave_hostnet::{Host, LinkIndex, xfrm::Encapsulation};
use weave_model::{LinkId, PeerName};

use self::{
    adoption::Adoption,
    devices::Devices,
    guard::Guard,
    keeper::Keeper,
    pulse::Pulse,
    shield::{Known, Shield},
};
pub(crate) use self::{
    guard::{Carried, carried},
    pulse::Vouch,
    shield::{KeyInUse, Protection, can_encrypt},
};

/// Why the kernel does not carry a link that has to be encrypted.
pub(crate) const CANNOT_ENCRYPT: &str =
    "fastdp is not encrypted here: this kernel lacks ESP (`weave doctor` says what is missing)";

/// UDP port of VXLAN, as Weave Net has always used.
const PORT: u16 = 6784;
/// Orders that may wait for the pulse; links come and go far more slowly.
const ORDERS: usize = 4096;

/// A link that the kernel may carry.
pub(crate) struct Candidate {
    pub(crate) link: LinkId,
    pub(crate) peer: PeerName,
    pub(crate) remote: IpAddr,
    pub(crate) send_key: [u8; 32],
    pub(crate) receive_key: [u8; 32],
    pub(crate) protection: Protection,
}

/// What the engine tells the pulse.
enum Order {
    Add(Box<Candidate>),
    Remove(LinkId),
}

/// The engine's end.
#[derive(Clone)]
pub(crate) struct Fastdp {
    orders: mpsc::Sender<Order>,
    events: mpsc::UnboundedSender<Vouch>,
    /// Why the kernel is to carry nothing, if so.
    disabled: Option<&'static str>,
    can_encrypt: bool,
    takes_udp: bool,
    keys: Arc<Known>,
    lacks_vxlan: bool,
    beats: Arc<Beats>,
}

/// Heartbeats, counted.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    sent: AtomicU64,
    heard: AtomicU64,
}

/// What a start needs.
pub(crate) struct Setup {
    pub(crate) host: Host,
    pub(crate) local: PeerName,
    pub(crate) bridge: LinkIndex,
    pub(crate) bridge_mtu: u32,
    pub(crate) tap_port: LinkIndex,
    /// Why the kernel is to carry nothing, if so.
    pub(crate) disabled: Option<&'static str>,
    /// Whether it cannot carry anything, as it has no VXLAN.
    pub(crate) lacks_vxlan: bool,
    /// Whether nobody may send frames to containers who is not in the mesh: there is a password.
    pub(crate) is_private: bool,
    /// With whom it may be in the clear all the same, if they agree.
    pub(crate) trusted: Vec<IpNet>,
    /// Whether the kernel can encrypt what it carries.
    pub(crate) can_encrypt: bool,
    /// How what is encrypted comes in UDP, if it can.
    pub(crate) encapsulation: Option<Encapsulation>,
    /// When keys are changed.
    pub(crate) rekey: RekeyConfig,
    pub(crate) plans: watch::Receiver<Arc<Plan>>,
}

/// What runs beside the engine.
pub(crate) struct Tasks {
    keeper: Keeper,
    pulse: Option<Pulse>,
}

impl Fastdp {
    /// Makes both ends. Touches the kernel only to look, or to remove devices that are not to be used any more.
    pub(crate) async fn new(setup: Setup) -> anyhow::Result<(Self, Tasks, mpsc::UnboundedReceiver<Vouch>)> {
        let Setup {
            host,
            local,
            bridge,
            bridge_mtu,
            tap_port,
            disabled,
            lacks_vxlan,
            is_private,
            trusted,
            can_encrypt,
            encapsulation,
            rekey,
            plans,
        } = setup;
        let is_shielded = is_private && can_encrypt && disabled.is_none();
        // What an earlier run sent encrypted must not go on in the clear.
        if disabled.is_some() || !is_shielded && shield::is_left()? {
            host.remove_datapath().await?;
        }
        if disabled.is_some() {
            guard::remove()?;
        }
        if !is_shielded {
            shield::remove()?;
        }
        let takes_udp = encapsulation.is_some();
        let shield = Shield::new(is_shielded, rekey, encapsulation)?;
        let guard = Guard::new(is_private, is_shielded);
        if is_shielded {
            guard.close(&shield)?;
        }
        let keys = shield.known();
        let devices = Arc::new(Devices::new(host.clone(), bridge, guard, shield, bridge_mtu, local));
        let may_stay = |remote: IpAddr| !is_private || trusted.iter().any(|subnet| subnet.contains(&remote));
        if is_shielded {
            lookout::start(&devices)?;
        }
        let adoption = Adoption::look(&devices, may_stay).await?;
        let (orders, orders_receiver) = mpsc::channel(ORDERS);
        let (events, events_receiver) = mpsc::unbounded_channel();
        let keeper = Keeper::new(Arc::clone(&devices), tap_port, plans, adoption);
        let beats = Arc::new(Beats::default());
        let pulse = disabled.is_none().then(|| {
            Pulse::new(Arc::clone(&devices), local, orders_receiver, events.clone(), Arc::clone(&beats))
        });
        Ok((
            Self { orders, events, disabled, can_encrypt, takes_udp, lacks_vxlan, keys, beats },
            Tasks { keeper, pulse },
            events_receiver,
        ))
    }

    /// Why no link of this router is carried by the kernel, if none is.
    pub(crate) fn disabled(&self) -> Option<&'static str> {
        self.disabled.or_else(|| self.lacks_vxlan.then_some("this host's kernel has no VXLAN"))
    }

    /// Whether the kernel can encrypt what it carries.
    pub(crate) const fn can_encrypt(&self) -> bool {
        self.can_encrypt
    }

    /// Whether what is encrypted may come in UDP.
    pub(crate) const fn takes_udp(&self) -> bool {
        self.takes_udp
    }

    /// With which key a link's frames leave, when the kernel encrypts them.
    pub(crate) fn key_of(&self, link: LinkId) -> Option<KeyInUse> {
        self.keys.in_use(link)
    }

    /// How often a link went over to its next key.
    pub(crate) fn key_changes(&self) -> u64 {
        self.keys.changes()
    }

    /// How many heartbeats were sent, and heard.
    pub(crate) fn heartbeats(&self) -> (u64, u64) {
        (self.beats.sent.load(Ordering::Relaxed), self.beats.heard.load(Ordering::Relaxed))
    }

    /// Begins to try the kernel's path of a link.
    pub(crate) fn add(&self, candidate: Candidate) {
        self.order(Order::Add(Box::new(candidate)));
    }

    /// Finds out whether the router at the other end lives; if so, [`Vouch::Broken`] comes. To be aborted when the path
    /// works again, or the link is gone.
    pub(crate) fn suspect(
        &self,
        link: LinkId,
        reason: String,
        connection: quinn::Connection,
        outbox: mpsc::Sender<Bytes>,
    ) -> AbortHandle {
        tokio::spawn(suspect::confirm(link, reason, connection, outbox, self.events.clone())).abort_handle()
    }

    /// Forgets a link.
    pub(crate) fn remove(&self, link: LinkId) {
        self.order(Order::Remove(link));
    }

    fn order(&self, order: Order) {
        if self.disabled.is_none() && self.orders.try_send(order).is_err() {
            tracing::error!("the heartbeats of the kernel's path have stopped");
        }
    }
}

/// Takes the rules and keys for the VXLAN port away.
pub(crate) fn remove_protection() -> anyhow::Result<()> {
    let (rules, keys) = (guard::remove(), shield::remove());
    rules.and(keys)
}

impl Tasks {
    /// Runs both until the runtime ends.
    pub(crate) fn spawn(self) {
        tokio::spawn(self.keeper.run());
        if let Some(pulse) = self.pulse {
            tokio::spawn(pulse.run());
        }
    }
}
