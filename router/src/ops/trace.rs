//! Where an address, a name or an Ethernet address is, and how frames get there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use weave_api::{ApiError, HopTrace, Overlay, StationTrace, TraceRequest, TraceResponse};
use weave_mesh::{MeshStatus, OverlayKind, PeerLink};
use weave_model::{Mac, PeerName};
use weave_node::Attachment;

use super::{Ops, stopping};
use crate::{engine::Engine, report};

/// What a link costs in a route: as in `weave_mesh`, a hop counts for more than any difference between two links.
const HOP_COST: u64 = 1_000_000;
/// What the tunnel costs beside the kernel.
const SLEEVE_COST: u64 = 1;

/// What is looked for.
#[derive(Debug)]
enum Wanted {
    Mac(Mac),
    Addresses(BTreeSet<IpAddr>),
}

impl Ops {
    pub(super) async fn trace(&self, request: TraceRequest) -> Result<TraceResponse, ApiError> {
        let mtu = self.mtu();
        let bridge = (self.facts.bridge_mac, self.exposed());
        self.engine
            .run(move |engine, now| answer(engine, &request.target, mtu, &bridge, now))
            .await
            .map_err(stopping)?
    }

    /// The addresses that the host itself has on the network.
    fn exposed(&self) -> Vec<IpAddr> {
        let host = weave_model::ContainerId::expose();
        let records = self.records();
        records.get(&host).into_iter().flat_map(|record| &record.addresses).map(|a| a.address()).collect()
    }
}

fn answer(
    engine: &Engine,
    target: &str,
    mtu: u16,
    bridge: &(Mac, Vec<IpAddr>),
    now: Instant,
) -> Result<TraceResponse, ApiError> {
    let respond = |stations, note| TraceResponse { target: target.to_owned(), stations, note };
    let wanted = match read(engine, target)? {
        Wanted::Addresses(none) if none.is_empty() => {
            return Ok(respond(Vec::new(), Some(format!("no container has the name {target}"))));
        }
        wanted @ (Wanted::Mac(_) | Wanted::Addresses(_)) => wanted,
    };
    let mesh = engine.node.mesh_status(now);
    let mut found: BTreeMap<(Mac, PeerName), Attachment> = engine
        .node
        .attachments()
        .filter(|(_, mac, attachment)| is_wanted(&wanted, *mac, &attachment.addresses))
        .map(|(peer, mac, attachment)| ((mac, peer), attachment.clone()))
        .collect();
    if is_wanted(&wanted, bridge.0, &bridge.1) {
        let host = weave_model::ContainerId::expose();
        let attachment = Attachment { container: host, addresses: bridge.1.clone() };
        found.entry((bridge.0, mesh.name)).or_insert(attachment);
    }
    let mut stations: Vec<StationTrace> =
        found.iter().map(|((mac, peer), station)| trace(&mesh, *mac, *peer, station, mtu)).collect();
    let hops = stations.iter_mut().flat_map(|station| &mut station.hops);
    for hop in hops.filter(|hop| hop.from == mesh.name && hop.overlay == Some(Overlay::Fastdp)) {
        hop.kernel_key = report::kernel_key(engine, hop.to, now);
    }
    let note = stations.is_empty().then(|| nobody(engine, target, &wanted));
    Ok(respond(stations, note))
}

fn read(engine: &Engine, target: &str) -> Result<Wanted, ApiError> {
    if let Ok(address) = target.parse::<IpAddr>() {
        return Ok(Wanted::Addresses(BTreeSet::from([address])));
    }
    if let Ok(mac) = target.parse::<Mac>() {
        return Ok(Wanted::Mac(mac));
    }
    Ok(Wanted::Addresses(report::lookup(engine, target)?.into_iter().collect()))
}

fn is_wanted(wanted: &Wanted, mac: Mac, addresses: &[IpAddr]) -> bool {
    match wanted {
        Wanted::Mac(wanted) => *wanted == mac,
        Wanted::Addresses(wanted) => addresses.iter().any(|address| wanted.contains(address)),
    }
}

/// Nobody has it; what is known of it all the same.
fn nobody(engine: &Engine, target: &str, wanted: &Wanted) -> String {
    let Wanted::Addresses(addresses) = wanted else { return format!("nobody has {target}") };
    let ranges = engine.node.ipam_status().map(|status| status.ranges).unwrap_or_default();
    let is_managed =
        |address: &IpAddr| ranges.is_empty() || ranges.iter().any(|range| range.net().contains(address));
    if addresses.iter().any(is_managed) {
        format!("nobody has {target}: no container with it is attached on any router known here")
    } else {
        format!("nobody has {target}, and it lies outside the ranges that the mesh manages")
    }
}

fn trace(mesh: &MeshStatus, mac: Mac, peer: PeerName, station: &Attachment, mtu: u16) -> StationTrace {
    let local = peer == mesh.name;
    let hops = if local { Vec::new() } else { hops(mesh, peer) };
    StationTrace {
        mac,
        container: Some(station.container.clone()),
        addresses: station.addresses.clone(),
        peer,
        nickname: nickname(mesh, peer),
        local,
        reachable: local || !hops.is_empty(),
        mtu,
        hops,
    }
}

/// The links to a router: the first as our routes have it, the others as our neighbour sees them if it knows what we
/// know. Empty when there is no way.
fn hops(mesh: &MeshStatus, to: PeerName) -> Vec<HopTrace> {
    let first = mesh.unicast_routes.iter().find(|(dest, _)| *dest == to).map(|(_, via)| *via);
    let Some(first) = first else { return Vec::new() };
    let Some(rest) = way(mesh, first, to) else { return vec![own_hop(mesh, first)] };
    let others = rest.windows(2).filter_map(|pair| {
        let [near, far] = *pair else { return None };
        Some(foreign_hop(mesh, near, far))
    });
    std::iter::once(own_hop(mesh, first)).chain(others).collect()
}

/// The cheapest way between two other routers that does not lead through us: Dijkstra's, over what they say of their links.
fn way(mesh: &MeshStatus, from: PeerName, to: PeerName) -> Option<Vec<PeerName>> {
    let mut waiting = BTreeSet::from([(0_u64, from)]);
    let mut cost_and_previous = BTreeMap::from([(from, (0_u64, from))]);
    while let Some((cost, here)) = waiting.pop_first() {
        if here == to {
            break;
        }
        let links = mesh.peers.iter().find(|peer| peer.name == here).map(|peer| peer.links.as_slice());
        let usable = |link: &&PeerLink| link.established && link.peer != mesh.name;
        for link in links.unwrap_or_default().iter().filter(usable) {
            let cost = cost + cost_of(link);
            if cost_and_previous.get(&link.peer).is_none_or(|(known, _)| cost < *known) {
                cost_and_previous.insert(link.peer, (cost, here));
                waiting.insert((cost, link.peer));
            }
        }
    }
    let mut way = vec![to];
    while let Some(last) = way.last().copied().filter(|last| *last != from) {
        way.push(cost_and_previous.get(&last)?.1);
    }
    way.reverse();
    Some(way)
}

fn cost_of(link: &PeerLink) -> u64 {
    let millis = u64::try_from(link.rtt.as_millis()).unwrap_or(HOP_COST).min(HOP_COST / 4);
    HOP_COST + 2 * millis + if link.overlay == Some(OverlayKind::Fastdp) { 0 } else { SLEEVE_COST }
}

/// A link of ours, as it was measured.
fn own_hop(mesh: &MeshStatus, to: PeerName) -> HopTrace {
    let link = mesh
        .connections
        .iter()
        .filter(|link| link.peer == Some(to))
        .max_by_key(|link| link.overlay.is_some());
    HopTrace {
        from: mesh.name,
        to,
        nickname: nickname(mesh, to),
        overlay: link.and_then(|link| link.overlay).map(overlay),
        encrypted: link.and_then(|link| link.encrypted),
        kernel_key: None,
        mtu: link.and_then(|link| link.mtu),
        rtt_us: link.and_then(|link| link.rtt).and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        info: link.and_then(report::info),
    }
}

/// A link of others, as its near end tells it.
fn foreign_hop(mesh: &MeshStatus, from: PeerName, to: PeerName) -> HopTrace {
    let near = mesh.peers.iter().find(|peer| peer.name == from);
    let link = near.and_then(|near| near.links.iter().find(|link| link.peer == to));
    HopTrace {
        from,
        to,
        nickname: nickname(mesh, to),
        overlay: link.and_then(|link| link.overlay).map(overlay),
        encrypted: None,
        kernel_key: None,
        mtu: None,
        rtt_us: link.and_then(|link| u64::try_from(link.rtt.as_micros()).ok()).filter(|rtt| *rtt > 0),
        info: None,
    }
}

fn nickname(mesh: &MeshStatus, name: PeerName) -> String {
    mesh.peers.iter().find(|peer| peer.name == name).map(|peer| peer.nickname.clone()).unwrap_or_default()
}

const fn overlay(kind: OverlayKind) -> Overlay {
    match kind {
        OverlayKind::Fastdp => Overlay::Fastdp,
        OverlayKind::Sleeve => Overlay::Sleeve,
    }
}
