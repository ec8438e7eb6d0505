//! What kernels and workers make of a frame.

use weave_datapath::{
    Forwarding, INITIAL_HOP_LIMIT, MAX_RELAYS, Plan, Port, Stations, Tunnel, Verdict, plan,
};
use weave_model::Mac;

use crate::net::{Links, Net, at_address, far_end, link_id, mac, name};

/// What one router's kernel and workers were told.
pub(crate) struct Router {
    pub(crate) plan: Plan,
    forwarding: Forwarding,
    stations: Vec<Mac>,
}

/// Where a frame came.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) delivered: Vec<usize>,
    pub(crate) kernel_hops: usize,
}

impl Router {
    /// All routers of a mesh, of one mind.
    pub(crate) fn all(net: &Net) -> Vec<Self> {
        (0..net.len()).map(|me| Self::new(net, me)).collect()
    }

    /// Router `me`, who believes that the mesh is `net`.
    pub(crate) fn new(net: &Net, me: usize) -> Self {
        let mut stations = Stations::new(name(me));
        (0..net.len()).for_each(|station| stations.add(name(net.home(station)), mac(station), &[]));
        let world = net.world(me, &stations);
        let mut forwarding = Forwarding::new(name(me));
        forwarding.peer_by_mac = stations.iter().map(|(mac, station)| (mac, station.peer)).collect();
        for other in (0..net.len()).filter(|other| *other != me) {
            if let Some(path) = net.path(me, other) {
                forwarding.next_hop.insert(name(other), link_id(me, path[1]));
            }
        }
        for source in 0..net.len() {
            let hops = net.children(source, me).into_iter().map(|child| link_id(me, child)).collect();
            forwarding.broadcast_hops.insert(name(source), hops);
        }
        let is_served = |other: &usize| world.neighbours[&name(*other)].is_flooded_by_kernel();
        let served: Links = net.neighbours(me).filter(is_served).map(|other| link_id(me, other)).collect();
        forwarding.leave_to_kernel(&served);
        let stations = stations.here().map(|(mac, _)| mac).collect();
        Self { plan: plan(&world), forwarding, stations }
    }
}

/// Sends a frame from a station of `from` to a known one elsewhere.
pub(crate) fn unicast(routers: &[Router], net: &Net, from: usize, to: Mac) -> Walk {
    match routers[from].plan.ports[&to] {
        Port::Tap => Walk { delivered: by_sleeve(routers, from, to), kernel_hops: 0 },
        Port::Vxlan(family) => {
            assert_eq!(routers[from].plan.tunnels[&to].family(), family);
            let walk = tunnelled(routers, from, to);
            let path = net.path(from, walk.delivered[0]).unwrap();
            assert!(
                path.windows(2).all(|hop| net.is_fast(hop[0], hop[1])),
                "a hop that the kernel cannot take"
            );
            walk
        }
    }
}

/// What VXLAN devices do with a frame that reached the one of `from`.
pub(crate) fn tunnelled(routers: &[Router], from: usize, to: Mac) -> Walk {
    let mut walk = Walk::default();
    let mut tunnel = routers[from].plan.tunnels.get(&to).copied();
    while let Some(Tunnel { remote, relays }) = tunnel {
        walk.kernel_hops += 1;
        assert!(walk.kernel_hops <= 100, "a loop");
        let at = at_address(remote);
        let Some(table) = usize::from(relays).checked_sub(1) else {
            // Ports to other routers are isolated from each other: it is a station's here or nobody's.
            if routers[at].stations.contains(&to) {
                walk.delivered.push(at);
            }
            break;
        };
        assert!(table < MAX_RELAYS);
        tunnel = routers[at].plan.relay[table].get(&to).copied();
        assert!(tunnel.is_none_or(|next| next.relays < relays));
    }
    walk
}

fn by_sleeve(routers: &[Router], from: usize, to: Mac) -> Vec<usize> {
    let mut verdict = routers[from].forwarding.local_frame(to, mac(from));
    for hop_limit in (1..=INITIAL_HOP_LIMIT).rev() {
        let Verdict::Forward(link, peer) = verdict else { return Vec::new() };
        let at = far_end(link);
        verdict = routers[at].forwarding.remote_frame(name(from), Some(peer), to, hop_limit);
        if verdict == Verdict::Deliver {
            return vec![at];
        }
    }
    Vec::new()
}

/// Sends a broadcast from a station of `from`. Returns how many copies each router's stations get from elsewhere.
pub(crate) fn broadcast(routers: &[Router], net: &Net, from: usize) -> Vec<usize> {
    let mut copies = vec![0; routers.len()];
    for remote in &routers[from].plan.flood {
        let at = at_address(*remote);
        assert!(net.is_fast(from, at));
        copies[at] += 1;
    }
    let mut queue = Vec::new();
    match routers[from].forwarding.local_frame(Mac::BROADCAST, mac(from)) {
        Verdict::Flood(links) => queue.extend(links.iter().map(|link| (*link, INITIAL_HOP_LIMIT))),
        Verdict::Drop(reason) => assert!(net.neighbours(from).count() == 0 || !reason.is_loss(), "{reason}"),
        other @ (Verdict::Deliver
        | Verdict::DeliverAndFlood(_)
        | Verdict::FloodUnknown(_)
        | Verdict::Forward(..)) => {
            panic!("{other:?}")
        }
    }
    while let Some((link, hop_limit)) = queue.pop() {
        let at = far_end(link);
        let verdict = routers[at].forwarding.remote_frame(name(from), None, Mac::BROADCAST, hop_limit);
        copies[at] += 1;
        match verdict {
            Verdict::Deliver => {}
            Verdict::DeliverAndFlood(on) => queue.extend(on.iter().map(|link| (*link, hop_limit - 1))),
            other @ (Verdict::Flood(_)
            | Verdict::FloodUnknown(_)
            | Verdict::Forward(..)
            | Verdict::Drop(_)) => panic!("{other:?}"),
        }
    }
    copies
}
