//! The node's inputs and its queue of outputs.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use weave_datapath::Plan;
use weave_ipam::{Ipam, IpamStatus, RequestId, RestoreError, StoreMark};
use weave_mesh::{
    DialFailure, DialId, LinkInfo, Mesh, MeshStatus, MessageError, Overlay, OverlayKind, Target,
};
use weave_model::{ContainerId, Interface, LinkId, Mac, PeerName, Subnet};
use weave_names::{FactChange, NameError, Names, RemoveFilter, Service};

use crate::{
    attachment::{self, Attachment},
    config::Config,
    dispatch, forwarding,
    kernel::KernelPaths,
    mtu::Mtu,
    output::Output,
};

/// Forwarding snapshots are made at most this often, and as much less often again for every 16 peers: while a large mesh
/// forms, routes change many times a second and each snapshot visits every peer.
pub const FORWARDING_INTERVAL: Duration = Duration::from_millis(20);

/// See the crate documentation.
pub struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) ipam: Option<Ipam>,
    pub(crate) names: Option<Names>,
    pub(crate) local: PeerName,
    /// Everybody else who can be reached.
    pub(crate) peers: BTreeSet<PeerName>,
    pub(crate) attachments_by_peer: BTreeMap<PeerName, BTreeMap<Mac, Attachment>>,
    pub(crate) mtu: Mtu,
    pub(crate) kernel: KernelPaths,
    /// Those of our attachments that the bridge learned by itself.
    pub(crate) learned: BTreeSet<Mac>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) is_forwarding_stale: bool,
    pub(crate) forwarding_not_before: Instant,
    pub(crate) are_names_stale: bool,
    /// The kernel's tables, as they were handed out last, and when they were worked out.
    pub(crate) plan: Arc<Plan>,
    pub(crate) planned_at: Instant,
    /// Since when not everybody has a link to everybody.
    pub(crate) partial_since: Option<Instant>,
    /// The links that the mesh keeps: who is at the other end, and where.
    pub(crate) links: BTreeMap<LinkId, (PeerName, IpAddr)>,
}

impl Node {
    /// Starts a node from what it was told and what it kept.
    ///
    /// # Errors
    /// When what was kept is damaged, or belongs to another name or address range.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Result<Self, RestoreError> {
        let local = config.mesh.name;
        let ipam = match config.ipam {
            Some(ipam) => Some(Ipam::new(ipam, config.restored.into_iter(), derive(seed, 1), now)?),
            None => None,
        };
        let mut node = Self {
            mtu: Mtu::new(config.mtu),
            kernel: KernelPaths::default(),
            mesh: Mesh::new(config.mesh, derive(seed, 0), now),
            ipam,
            names: config.domain.map(|domain| Names::new(domain, local)),
            local,
            peers: BTreeSet::new(),
            attachments_by_peer: BTreeMap::new(),
            outputs: VecDeque::new(),
            is_forwarding_stale: true,
            forwarding_not_before: now,
            are_names_stale: true,
            plan: Arc::default(),
            planned_at: now,
            partial_since: None,
            learned: BTreeSet::new(),
            links: BTreeMap::new(),
        };
        dispatch::settle(&mut node, now);
        Ok(node)
    }

    /// Says that the address store that was restored is the latest there ever was of this router: `mark` is what the
    /// caller kept where a restart of the process finds it and a restart of the machine does not. Call it right after
    /// [`Node::new`] or not at all. Without it the other routers are asked before our own space is used again.
    pub fn trust_store(&mut self, mark: StoreMark, now: Instant) -> bool {
        let is_trusted = self.ipam.as_mut().is_some_and(|ipam| ipam.trust_store(mark, now));
        dispatch::settle(self, now);
        is_trusted
    }

    /// How far the address store has got with everything that [`Node::poll_output`] has yielded; to be kept after each
    /// [`Output::Persist`]. `None` when allocation is off.
    #[must_use]
    pub fn store_mark(&self) -> Option<StoreMark> {
        self.ipam.as_ref().map(Ipam::store_mark)
    }

    /// A handshake succeeded. The mesh answers with `LinkAdopted` or `CloseLink`.
    pub fn handle_link_opened(&mut self, link: LinkId, info: LinkInfo, now: Instant) {
        self.links.insert(link, (info.peer, info.remote.ip().to_canonical()));
        self.mesh.handle_link_opened(link, info, now);
        dispatch::settle(self, now);
    }

    /// A whole message arrived on a link.
    ///
    /// # Errors
    /// When it cannot be parsed or breaks the rules: the caller closes the link and says whose fault it was.
    pub fn handle_message(&mut self, link: LinkId, bytes: &[u8], now: Instant) -> Result<(), MessageError> {
        let result = self.mesh.handle_message(link, bytes, now);
        dispatch::settle(self, now);
        result
    }

    /// A link is gone.
    pub fn handle_link_closed(&mut self, link: LinkId, reason: &str, now: Instant) {
        self.mesh.handle_link_closed(link, reason, now);
        self.forget_link(link, now);
        dispatch::settle(self, now);
    }

    pub(crate) fn forget_link(&mut self, link: LinkId, now: Instant) {
        if let Some((peer, _)) = self.links.remove(&link)
            && self.links.values().all(|(other, _)| *other != peer)
        {
            self.kernel.link_gone(peer, now);
        }
        self.mtu.link_gone(link, now);
        self.is_forwarding_stale = true;
    }

    /// The link can take no more messages, or can again; what is to be said meanwhile is merged while it waits.
    pub fn handle_link_blocked(&mut self, link: LinkId, is_blocked: bool, now: Instant) {
        self.mesh.handle_link_blocked(link, is_blocked);
        dispatch::settle(self, now);
    }

    /// The data plane of a link came up, changed or went down.
    pub fn handle_overlay(&mut self, link: LinkId, overlay: Overlay, now: Instant) {
        self.mesh.handle_overlay(link, overlay, now);
        self.mtu.measured(link, overlay, now);
        if let (OverlayKind::Fastdp, Some((peer, remote))) = (overlay.kind, self.links.get(&link)) {
            if overlay.up { self.kernel.is_up(*peer, *remote) } else { self.kernel.is_down(*peer) }
        }
        self.is_forwarding_stale = true;
        dispatch::settle(self, now);
    }

    /// Why an overlay of a link is not up; for status.
    pub fn handle_overlay_note(&mut self, link: LinkId, kind: OverlayKind, text: &str) {
        self.mesh.handle_overlay_note(link, kind, text);
    }

    /// A dial led to nothing.
    pub fn handle_dial_failed(&mut self, dial: DialId, failure: DialFailure, now: Instant) {
        self.mesh.handle_dial_failed(dial, failure, now);
        dispatch::settle(self, now);
    }

    /// Adds targets, or with `replace` makes them the whole list and drops the links to former ones.
    pub fn connect(&mut self, targets: &[Target], replace: bool, now: Instant) {
        if replace {
            let former: Vec<Target> = self.mesh.status(now).targets;
            let gone: Vec<Target> = former.into_iter().filter(|target| !targets.contains(target)).collect();
            self.mesh.forget(&gone, now);
        }
        self.mesh.connect(targets, replace, now);
        dispatch::settle(self, now);
    }

    /// Removes targets and drops the links to them.
    pub fn forget(&mut self, targets: &[Target], now: Instant) {
        self.mesh.forget(targets, now);
        dispatch::settle(self, now);
    }

    /// Tells the mesh that a container interface is here.
    pub fn attach(&mut self, mac: Mac, attachment: &Attachment, now: Instant) {
        if let Err(error) = self.mesh.set_fact(attachment::NAMESPACE, &mac.0, attachment.encode(), now) {
            let local = self.local;
            dispatch::refuse(self, local, "an attachment", &error);
        }
        self.attachments_by_peer.entry(self.local).or_default().insert(mac, attachment.clone());
        self.learned.remove(&mac);
        self.is_forwarding_stale = true;
        dispatch::settle(self, now);
    }

    /// Tells the mesh that a container interface is gone.
    pub fn detach(&mut self, mac: Mac, now: Instant) {
        self.mesh.remove_fact(attachment::NAMESPACE, &mac.0, now);
        if let Some(own) = self.attachments_by_peer.get_mut(&self.local) {
            own.remove(&mac);
        }
        self.is_forwarding_stale = true;
        dispatch::settle(self, now);
    }

    /// Gives a container's address a name.
    ///
    /// # Errors
    /// When the name is malformed or outside the domain. Nothing was changed.
    pub fn add_name(
        &mut self,
        container: &ContainerId,
        name: &str,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), NameError> {
        self.add_service(container, name, address, None, now)
    }

    /// As [`Node::add_name`], with a service that SRV queries find.
    ///
    /// # Errors
    /// As there.
    pub fn add_service(
        &mut self,
        container: &ContainerId,
        name: &str,
        address: IpAddr,
        service: Option<Service>,
        now: Instant,
    ) -> Result<(), NameError> {
        let Some(names) = &self.names else { return Ok(()) };
        let change = names.add_service(container, name, address, service)?;
        dispatch::publish_name(self, change, now);
        dispatch::settle(self, now);
        Ok(())
    }

    /// Takes names of ours away; gives their number.
    pub fn remove_names(&mut self, filter: &RemoveFilter, now: Instant) -> usize {
        let changes: Vec<FactChange> =
            self.names.as_ref().map(|names| names.remove(filter)).unwrap_or_default();
        let count = changes.len();
        for change in changes {
            dispatch::publish_name(self, change, now);
        }
        dispatch::settle(self, now);
        count
    }

    /// Asks for an address; the answer is an [`Output::Reply`]. Does nothing when allocation is off.
    pub fn allocate(
        &mut self,
        request: RequestId,
        owner: ContainerId,
        subnet: Option<Subnet>,
        deadline: Instant,
        now: Instant,
    ) {
        self.with_ipam(now, |ipam| ipam.allocate(request, owner, subnet, deadline, now));
    }

    /// Asks for one certain address.
    pub fn claim(
        &mut self,
        request: RequestId,
        owner: ContainerId,
        address: Interface,
        deadline: Instant,
        now: Instant,
    ) {
        self.with_ipam(now, |ipam| ipam.claim(request, owner, address, deadline, now));
    }

    /// Gives all addresses of a container back.
    pub fn free(&mut self, request: RequestId, owner: &ContainerId, now: Instant) {
        self.with_ipam(now, |ipam| ipam.free(request, owner, now));
    }

    /// Gives one address back.
    pub fn free_address(&mut self, request: RequestId, owner: &ContainerId, address: IpAddr, now: Instant) {
        self.with_ipam(now, |ipam| ipam.free_address(request, owner, address, now));
    }

    /// Waits until the ring exists.
    pub fn prime(&mut self, request: RequestId, deadline: Instant, now: Instant) {
        self.with_ipam(now, |ipam| ipam.prime(request, deadline, now));
    }

    /// Nobody waits for the answer any more; what is granted in between goes back.
    pub fn cancel(&mut self, request: RequestId, now: Instant) {
        self.with_ipam(now, |ipam| ipam.cancel(request, now));
    }

    /// Takes over the ranges of a peer that is gone for good.
    pub fn take_over(&mut self, request: RequestId, dead: PeerName, now: Instant) {
        self.with_ipam(now, |ipam| ipam.take_over(request, dead, now));
    }

    /// Goes over to the ring `ring`, which other routers share.
    pub fn go_over(&mut self, request: RequestId, ring: u64, deadline: Instant, now: Instant) {
        self.with_ipam(now, |ipam| ipam.go_over(request, ring, deadline, now));
    }

    /// Asks the owner of an address for it that a container here holds already.
    pub fn reclaim(
        &mut self,
        request: RequestId,
        owner: ContainerId,
        address: Interface,
        deadline: Instant,
        now: Instant,
    ) {
        self.with_ipam(now, |ipam| ipam.reclaim(request, owner, address, deadline, now));
    }

    /// Hands all our ranges to another peer, before we go for good.
    pub fn leave(&mut self, request: RequestId, now: Instant) {
        self.with_ipam(now, |ipam| ipam.leave(request, now));
    }

    /// Calls [`Node::leave`] off.
    pub fn stay(&mut self, now: Instant) {
        self.with_ipam(now, |ipam| ipam.stay(now));
    }

    fn with_ipam(&mut self, now: Instant, act: impl FnOnce(&mut Ipam)) {
        if let Some(ipam) = &mut self.ipam {
            act(ipam);
        }
        dispatch::settle(self, now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.mesh.handle_timeout(now);
        self.is_forwarding_stale |= self.plan_expires().is_some_and(|(at, _)| at <= now);
        if let Some(ipam) = &mut self.ipam {
            ipam.handle_timeout(now);
        }
        dispatch::settle(self, now);
    }

    /// The next effect.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When something is due, and what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let forwarding =
            self.is_forwarding_stale.then_some((self.forwarding_not_before, "forwarding snapshot"));
        let ipam = self.ipam.as_ref().and_then(Ipam::poll_timeout);
        let mtu = self.mtu.poll_timeout().map(|at| (at, "MTU"));
        let kernel = self.kernel.poll_timeout(self.planned_at).filter(|_| !self.is_forwarding_stale);
        let kernel = kernel.map(|at| (at, "paths without a link"));
        [self.mesh.poll_timeout(), ipam, forwarding, mtu, kernel]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// When the plan is another one although nothing happened.
    fn plan_expires(&self) -> Option<(Instant, &'static str)> {
        let paths = self.kernel.poll_timeout(self.planned_at).map(|at| (at, "paths without a link"));
        let relays = forwarding::poll_timeout(self).map(|at| (at, "relays in the kernel"));
        paths.into_iter().chain(relays).min_by_key(|(at, _)| *at)
    }

    /// The mesh, to look at.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The address ring, to look at; `None` when allocation is off.
    #[must_use]
    pub const fn ipam(&self) -> Option<&Ipam> {
        self.ipam.as_ref()
    }

    /// The name table, to look at; `None` when names are off.
    #[must_use]
    pub const fn names(&self) -> Option<&Names> {
        self.names.as_ref()
    }

    /// What `weave status` shows of the mesh.
    #[must_use]
    pub fn mesh_status(&self, now: Instant) -> MeshStatus {
        self.mesh.status(now)
    }

    /// What `weave status` shows of the ring.
    #[must_use]
    pub fn ipam_status(&self) -> Option<IpamStatus> {
        self.ipam.as_ref().map(Ipam::status)
    }

    /// Who is attached where.
    pub fn attachments(&self) -> impl Iterator<Item = (PeerName, Mac, &Attachment)> {
        self.attachments_by_peer
            .iter()
            .flat_map(|(peer, by_mac)| by_mac.iter().map(move |(mac, attachment)| (*peer, *mac, attachment)))
    }
}

/// Gives every core randomness of its own from the one seed.
fn derive(mut seed: [u8; 32], core: u8) -> [u8; 32] {
    seed[31] ^= core;
    seed
}
