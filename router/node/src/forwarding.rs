//! Facts and routes, turned into what the data plane reads: the workers' snapshot and the kernel's tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use weave_datapath::{Forwarding, Neighbour, Path, Stations, World, plan};
use weave_mesh::OverlayKind;
use weave_model::{LinkId, PeerName};

use crate::{
    kernel::Standing,
    node::{FORWARDING_INTERVAL, Node},
    output::Output,
};

/// How long a mesh has to be partial before we prepare to relay others' frames in the kernel, and before we send frames
/// that way: later, so that whoever relays them is prepared. Until then, and whenever a router restarts and a full mesh is none
/// for a moment, the sleeve relays, which needs no preparation.
const PREPARE_RELAYS: Duration = Duration::from_secs(3);
const USE_RELAYS: Duration = Duration::from_secs(6);

/// Builds both anew and hands them out.
///
/// The snapshot comes first: what the kernel is about to leave to the sleeve, the sleeve then serves already.
pub(crate) fn refresh(node: &mut Node, now: Instant) {
    node.is_forwarding_stale = false;
    // A snapshot costs time in proportion to the mesh, so in a big one they are rarer.
    node.forwarding_not_before = now + FORWARDING_INTERVAL * (1 + node.peers.len() as u32 / 16);
    node.planned_at = now;
    let is_partial = !node.mesh.routes().is_full_mesh();
    node.partial_since = is_partial.then(|| node.partial_since.unwrap_or(now));
    let peers = &node.peers;
    node.kernel.expire(|peer| peers.contains(&peer), now);
    let stations = stations(node);
    let ways = Ways::find(node, now);
    let forwarding = snapshot(node, &stations, &ways);
    let plan = plan(&World {
        stations: &stations,
        neighbours: ways.neighbours,
        paths: ways.paths,
        relays: ways.relays,
    });
    node.outputs.push_back(Output::Forwarding(Arc::new(forwarding)));
    if *node.plan != plan {
        node.plan = Arc::new(plan);
        node.outputs.push_back(Output::Plan(Arc::clone(&node.plan)));
    }
}

fn stations(node: &Node) -> Stations<'_> {
    let mut stations = Stations::new(node.local);
    for (peer, mac, attachment) in node.attachments() {
        stations.add(peer, mac, &attachment.addresses);
    }
    node.kernel.add_departed(&mut stations);
    stations
}

/// When the plan changes by itself.
pub(crate) fn poll_timeout(node: &Node) -> Option<Instant> {
    let since = node.partial_since?;
    [since + PREPARE_RELAYS, since + USE_RELAYS].into_iter().find(|at| *at > node.planned_at)
}

/// How others are reached.
struct Ways {
    neighbours: BTreeMap<PeerName, Neighbour>,
    paths: BTreeMap<PeerName, Path>,
    /// The links to neighbours to whom the kernel copies what our containers flood.
    served: BTreeSet<LinkId>,
    /// Whether others may have to send through us.
    relays: bool,
}

impl Ways {
    fn find(node: &Node, now: Instant) -> Self {
        let routes = node.mesh.routes();
        let partial_for = node.partial_since.map(|since| now.saturating_duration_since(since));
        let uses_relays = partial_for.is_some_and(|time| time >= USE_RELAYS);
        let path = |peer: &PeerName| {
            let (_, next) = routes.next_hop(*peer)?;
            let fast_hops = routes.fast_hops(*peer).filter(|hops| *hops == 1 || uses_relays);
            Some((*peer, Path { next, fast_hops }))
        };
        let links = node.links.iter().map(|(link, (peer, remote))| {
            let in_use = node.mesh.link_overlay(*link);
            let fastdp = in_use.is_some_and(|overlay| overlay.kind == OverlayKind::Fastdp);
            // Of a link that is not in the routes yet, nothing else leads there.
            let leaf = routes.is_leaf(*peer) || routes.next_hop(*peer).is_none();
            (*peer, Neighbour { remote: *remote, fastdp, leaf })
        });
        let mut ways = Self {
            neighbours: links.collect(),
            paths: node.peers.iter().filter_map(path).collect(),
            served: BTreeSet::new(),
            relays: node.links.len() > 1 && partial_for.is_some_and(|time| time >= PREPARE_RELAYS),
        };
        // Both directions were proven from here; what the other end says of it may still be on its way.
        for (peer, _) in ways.neighbours.iter().filter(|(_, neighbour)| neighbour.fastdp) {
            ways.paths.insert(*peer, Path { next: *peer, fast_hops: Some(1) });
        }
        for (peer, remote, standing) in node.kernel.standing(now) {
            ways.keep(peer, remote, standing);
        }
        let is_served =
            |peer: &PeerName| ways.neighbours.get(peer).is_some_and(Neighbour::is_flooded_by_kernel);
        let served = node.links.iter().filter(|(_, (peer, _))| is_served(peer));
        ways.served = served.map(|(link, _)| *link).collect();
        ways
    }

    /// Goes on using a path that was proven, where no live link says anything else.
    fn keep(&mut self, peer: PeerName, remote: IpAddr, standing: Standing) {
        match self.neighbours.get_mut(&peer) {
            Some(neighbour) if neighbour.fastdp => return,
            // A new link, on which the kernel's path has not been judged: what holds for the address holds on.
            Some(neighbour) if neighbour.remote == remote => neighbour.fastdp = true,
            Some(_) => return,
            None if standing == Standing::Last && self.paths.contains_key(&peer) => return,
            None => drop(self.neighbours.insert(peer, Neighbour { remote, fastdp: true, leaf: true })),
        }
        self.paths.insert(peer, Path { next: peer, fast_hops: Some(1) });
    }
}

fn snapshot(node: &Node, stations: &Stations<'_>, ways: &Ways) -> Forwarding {
    let mut forwarding = Forwarding::new(node.local);
    forwarding.peer_by_mac.extend(stations.iter().map(|(mac, station)| (mac, station.peer)));
    let routes = node.mesh.routes();
    for peer in &node.peers {
        if let Some((link, _)) = routes.next_hop(*peer) {
            forwarding.next_hop.insert(*peer, link);
        }
    }
    for source in node.peers.iter().copied().chain([node.local]) {
        let hops = routes.broadcast_hops(source);
        if !hops.is_empty() {
            forwarding.broadcast_hops.insert(source, hops);
        }
    }
    if !ways.served.is_empty() {
        forwarding.leave_to_kernel(&ways.served);
    }
    forwarding
}
