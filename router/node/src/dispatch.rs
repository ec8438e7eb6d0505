//! Carries what one core says to the others, until none has anything left to say.

use std::time::Instant;

use weave_ipam::Event as IpamEvent;
use weave_mesh::{Channel, Event as MeshEvent, Namespace};
use weave_model::PeerName;
use weave_names::FactChange;

use crate::{
    attachment::{self, Attachment, AttachmentError},
    forwarding, mtu,
    node::Node,
    output::{Output, Refused},
};

/// Names, one fact each; the key and value are those of `weave-names`.
const NAMES: Namespace = Namespace(17);
/// The state that `weave-ipam` publishes; one fact under an empty key.
const IPAM: Namespace = Namespace(18);
/// Messages between the ring's peers.
const IPAM_CHANNEL: Channel = Channel(1);

/// Runs events to and fro until there are none, then refreshes the snapshots.
///
/// Ends: each round consumes events, and the cores emit only on change.
pub(crate) fn settle(node: &mut Node, now: Instant) {
    loop {
        let mut is_quiet = true;
        while let Some(event) = node.mesh.poll_event() {
            is_quiet = false;
            on_mesh(node, event, now);
        }
        while let Some(event) = node.ipam.as_mut().and_then(weave_ipam::Ipam::poll_event) {
            is_quiet = false;
            on_ipam(node, event, now);
        }
        if is_quiet && !publish_mtu(node, now) {
            break;
        }
    }
    while let Some(transmit) = node.mesh.poll_transmit() {
        node.outputs.push_back(Output::Transmit { link: transmit.link, bytes: transmit.bytes });
    }
    if let Some(mtu) = node.mtu.poll(now) {
        node.outputs.push_back(Output::Mtu(mtu));
    }
    if node.is_forwarding_stale && now >= node.forwarding_not_before {
        forwarding::refresh(node, now);
    }
    if node.are_names_stale {
        node.are_names_stale = false;
        if let Some(names) = &mut node.names {
            node.outputs.push_back(Output::Names(names.snapshot()));
        }
    }
}

/// Tells what our links carry, if that changed; tells whether it did.
fn publish_mtu(node: &mut Node, now: Instant) -> bool {
    let Some(mtu) = node.mtu.news() else { return false };
    if let Err(error) = node.mesh.set_fact(mtu::NAMESPACE, &[], mtu.to_be_bytes().to_vec(), now) {
        let local = node.local;
        refuse(node, local, "the MTU", &error);
    }
    true
}

/// Publishes a name of ours and lets our own table know at once.
pub(crate) fn publish_name(node: &mut Node, change: FactChange, now: Instant) {
    let published = match &change.value {
        Some(value) => node.mesh.set_fact(NAMES, &change.key, value.clone(), now),
        None => {
            node.mesh.remove_fact(NAMES, &change.key, now);
            Ok(())
        }
    };
    let local = node.local;
    match published {
        Ok(()) => on_name(node, local, &change.key, change.value.as_deref()),
        Err(error) => refuse(node, local, "a name", &error),
    }
}

fn on_mesh(node: &mut Node, event: MeshEvent, now: Instant) {
    match event {
        MeshEvent::Dial { dial, target } => node.outputs.push_back(Output::Dial { dial, target }),
        MeshEvent::AbandonDial { dial } => node.outputs.push_back(Output::AbandonDial { dial }),
        MeshEvent::CloseLink { link, reason } => {
            flush_transmits(node);
            node.forget_link(link, now);
            node.outputs.push_back(Output::CloseLink { link, reason });
        }
        MeshEvent::LinkAdopted { link, peer } => node.outputs.push_back(Output::LinkAdopted { link, peer }),
        MeshEvent::PeerJoined { peer, nickname } => {
            node.peers.insert(peer);
            node.kernel.peer_joined(peer, now);
            if let Some(ipam) = &mut node.ipam {
                ipam.handle_nickname(peer, &nickname, now);
                ipam.handle_peer_reachable(peer, now);
            }
            node.is_forwarding_stale = true;
            node.outputs.push_back(Output::PeerJoined { peer, nickname });
        }
        MeshEvent::PeerLeft { peer } => on_peer_left(node, peer, now),
        MeshEvent::FactChanged { peer, ns, key, value } => {
            on_fact(node, peer, ns, &key, value.as_deref(), now)
        }
        MeshEvent::Received { from, channel, bytes } => on_received(node, from, channel, &bytes, now),
        MeshEvent::RoutesChanged => node.is_forwarding_stale = true,
        MeshEvent::IncarnationBumped(incarnation) => node.outputs.push_back(Output::Incarnation(incarnation)),
    }
}

/// What was said before the link is closed still goes out first.
fn flush_transmits(node: &mut Node) {
    while let Some(transmit) = node.mesh.poll_transmit() {
        node.outputs.push_back(Output::Transmit { link: transmit.link, bytes: transmit.bytes });
    }
}

fn on_peer_left(node: &mut Node, peer: PeerName, now: Instant) {
    if let Some(ipam) = &mut node.ipam {
        ipam.handle_peer_unreachable(peer, now);
    }
    if let Some(names) = &mut node.names {
        node.are_names_stale |= names.handle_peer_gone(peer);
    }
    node.peers.remove(&peer);
    node.mtu.of_peer(peer, None, now);
    let attachments = node.attachments_by_peer.remove(&peer).unwrap_or_default();
    let stations = attachments.into_iter().map(|(mac, attachment)| (mac, attachment.addresses)).collect();
    node.kernel.peer_left(peer, stations, now);
    node.is_forwarding_stale = true;
    node.outputs.push_back(Output::PeerLeft { peer });
}

fn on_fact(node: &mut Node, peer: PeerName, ns: Namespace, key: &[u8], value: Option<&[u8]>, now: Instant) {
    if peer == node.local {
        return;
    }
    match ns {
        NAMES => on_name(node, peer, key, value),
        attachment::NAMESPACE => {
            if let Err(error) = on_attachment(node, peer, key, value, now) {
                refuse(node, peer, "an attachment", &error);
            }
        }
        mtu::NAMESPACE => match value.map(mtu::decode) {
            Some(None) => refuse(node, peer, "an MTU", &"it is not two bytes"),
            Some(known) => node.mtu.of_peer(peer, known, now),
            None => node.mtu.of_peer(peer, None, now),
        },
        IPAM => {
            let result = node.ipam.as_mut().map(|ipam| ipam.handle_peer_state(peer, value, now));
            if let Some(Err(error)) = result {
                refuse(node, peer, "ring state", &error);
            }
        }
        // Facts of a newer version, or the mesh's own.
        Namespace(_) => {}
    }
}

fn on_name(node: &mut Node, peer: PeerName, key: &[u8], value: Option<&[u8]>) {
    let result = node.names.as_mut().map(|names| names.handle_fact(peer, key, value));
    match result {
        Some(Ok(is_changed)) => node.are_names_stale |= is_changed,
        Some(Err(error)) => refuse(node, peer, "a name", &error),
        None => {}
    }
}

fn on_attachment(
    node: &mut Node,
    peer: PeerName,
    key: &[u8],
    value: Option<&[u8]>,
    now: Instant,
) -> Result<(), AttachmentError> {
    let mac = attachment::decode_key(key)?;
    let attachment = value.map(Attachment::decode).transpose()?;
    if attachment.is_some() && node.learned.remove(&mac) {
        // It has moved: see `learned`.
        node.mesh.remove_fact(attachment::NAMESPACE, &mac.0, now);
        node.attachments_by_peer.entry(node.local).or_default().remove(&mac);
    }
    if attachment.is_none() && !node.mesh.knows(peer) {
        // Its router is dropped, and what it leaves behind goes on: see `on_peer_left`, which follows.
        return Ok(());
    }
    let by_mac = node.attachments_by_peer.entry(peer).or_default();
    match attachment {
        Some(attachment) => by_mac.insert(mac, attachment),
        None => by_mac.remove(&mac),
    };
    node.is_forwarding_stale = true;
    Ok(())
}

fn on_received(node: &mut Node, from: PeerName, channel: Channel, bytes: &[u8], now: Instant) {
    // A channel of a newer version is none of ours; the mesh relays it all the same.
    if channel != IPAM_CHANNEL {
        return;
    }
    let result = node.ipam.as_mut().map(|ipam| ipam.handle_message(from, bytes, now));
    if let Some(Err(error)) = result {
        refuse(node, from, "a ring message", &error);
    }
}

fn on_ipam(node: &mut Node, event: IpamEvent, now: Instant) {
    match event {
        IpamEvent::Persist(writes) => node.outputs.push_back(Output::Persist(writes)),
        IpamEvent::Publish(state) => {
            if let Err(error) = node.mesh.set_fact(IPAM, &[], state, now) {
                let local = node.local;
                refuse(node, local, "ring state", &error);
            }
        }
        // The ring asks again by itself when no answer comes.
        IpamEvent::Send { to, bytes } => drop(node.mesh.send(to, IPAM_CHANNEL, bytes, now)),
        IpamEvent::Broadcast(bytes) => node.mesh.broadcast(IPAM_CHANNEL, bytes, now),
        IpamEvent::Reply { request, result } => node.outputs.push_back(Output::Reply { request, result }),
    }
}

pub(crate) fn refuse(node: &mut Node, peer: PeerName, what: &'static str, why: &dyn std::fmt::Display) {
    node.outputs.push_back(Output::Refused(Refused { peer, what, why: why.to_string() }));
}
