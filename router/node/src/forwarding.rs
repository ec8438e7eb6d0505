//! Facts and routes, turned into what the data plane reads.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use weave_datapath::Forwarding;
use weave_model::Mac;

use crate::{
    node::{FORWARDING_INTERVAL, Node},
    output::Output,
};

/// Builds the snapshot anew and hands it out.
pub(crate) fn refresh(node: &mut Node, now: Instant) {
    node.is_forwarding_stale = false;
    // A snapshot costs time in proportion to the mesh, so in a big one they are rarer.
    node.forwarding_not_before = now + FORWARDING_INTERVAL * (1 + node.peers.len() as u32 / 16);
    let forwarding = build(node);
    node.outputs.push_back(Output::Forwarding(Arc::new(forwarding)));
    let remote = remote_macs(node);
    if remote != node.remote_macs {
        node.remote_macs.clone_from(&remote);
        node.outputs.push_back(Output::RemoteMacs(remote));
    }
}

fn build(node: &Node) -> Forwarding {
    let mut forwarding = Forwarding::new(node.local);
    for (peer, mac, _) in node.attachments() {
        // A MAC that two routers claim is ours if we are one of them, else the first peer's in the order of names,
        // so that all routers agree.
        if peer == node.local {
            forwarding.peer_by_mac.insert(mac, peer);
        } else {
            forwarding.peer_by_mac.entry(mac).or_insert(peer);
        }
    }
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
    forwarding
}

fn remote_macs(node: &Node) -> BTreeSet<Mac> {
    let own = node.attachments_by_peer.get(&node.local);
    node.attachments()
        .filter(|(peer, mac, _)| *peer != node.local && !own.is_some_and(|own| own.contains_key(mac)))
        .map(|(_, mac, _)| mac)
        .collect()
}
