//! Forwarding entries of a bridge, kept equal to a wanted set.
//!
//! Our entries carry the mark "externally learned" (Linux: `NTF_EXT_LEARNED`): it tells them from what an operator
//! or the bridge itself put there, keeps them from ageing, and, unlike a static entry, lets the bridge move
//! one to another port by itself when the station shows up there.

use std::collections::{BTreeMap, BTreeSet};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use weave_model::Mac;

use crate::{FdbDiff, Host, HostError, LinkIndex, batch::Change};

/// A forwarding entry of a bridge as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) mac: Mac,
    pub(crate) port: LinkIndex,
    pub(crate) bridge: LinkIndex,
    /// Whether it has our mark.
    pub(crate) is_ours: bool,
    /// Whether the bridge may never move or drop it: an operator's static entry, or a port's own address.
    pub(crate) is_fixed: bool,
}

impl Host {
    /// Makes the entries of ours on one port equal to `wanted`; see [`reconcile_ports`](Self::reconcile_ports).
    ///
    /// # Errors
    /// As there.
    pub async fn reconcile_bridge_fdb(
        &self,
        bridge_port: LinkIndex,
        wanted: &BTreeSet<Mac>,
    ) -> anyhow::Result<FdbDiff> {
        let no_port = || HostError::NoInterface(format!("bridge port {}", bridge_port.0));
        let port = self.link_by_index(bridge_port).await?.ok_or_else(no_port)?;
        let bridge = port.master.ok_or_else(no_port)?;
        let wanted = wanted.iter().map(|mac| (*mac, bridge_port)).collect();
        self.reconcile_ports(bridge, &BTreeSet::from([bridge_port]), &wanted).await
    }

    /// Makes the entries of ours on the ports `uplinks` of the bridge equal to `wanted`: frames for an address leave
    /// through its port. An address that moves from one of them to another is replaced in one step, so that no frame
    /// is lost or flooded. Entries of others, and all other ports, stay as they are.
    ///
    /// # Errors
    /// [`HostError::NoInterface`] when one of `uplinks`, or a wanted port, is no port of the bridge.
    /// [`HostError::Several`], or the only refusal: the rest of the difference has been applied then, and the next
    /// call tries the remainder again.
    pub async fn reconcile_ports(
        &self,
        bridge: LinkIndex,
        uplinks: &BTreeSet<LinkIndex>,
        wanted: &BTreeMap<Mac, LinkIndex>,
    ) -> anyhow::Result<FdbDiff> {
        let mut name_by_port = BTreeMap::new();
        for port in uplinks.iter().copied().chain(wanted.values().copied()).collect::<BTreeSet<_>>() {
            let link = self.link_by_index(port).await?.filter(|link| link.master == Some(bridge));
            let no_port = || HostError::NoInterface(format!("bridge port {}", port.0));
            name_by_port.insert(port, link.ok_or_else(no_port)?.name);
        }
        let mut entries = self.fdb().await?;
        entries.retain(|entry| entry.bridge == bridge);
        let (diff, changes) = plan(&entries, &name_by_port, wanted);
        self.apply(changes).await?;
        Ok(diff)
    }

    /// All forwarding entries of all bridges.
    pub(crate) async fn fdb(&self) -> Result<Vec<Entry>, HostError> {
        let mut everything = NeighbourMessage::default();
        everything.header.family = AddressFamily::Bridge;
        let everything = RouteNetlinkMessage::GetNeighbour(everything);
        self.dump(everything, "listing forwarding entries", |answer| {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer { read(&message) } else { None }
        })
        .await
    }
}

/// What has to change so that exactly `wanted` is ours on the ports named; `entries` are those of their bridge.
fn plan(
    entries: &[Entry],
    name_by_port: &BTreeMap<LinkIndex, String>,
    wanted: &BTreeMap<Mac, LinkIndex>,
) -> (FdbDiff, Vec<Change>) {
    let ours: BTreeMap<Mac, LinkIndex> =
        entries.iter().filter(|e| e.is_ours).map(|e| (e.mac, e.port)).collect();
    let fixed: BTreeSet<Mac> = entries.iter().filter(|e| e.is_fixed && !e.is_ours).map(|e| e.mac).collect();
    let (mut diff, mut changes) = (FdbDiff::default(), Vec::new());
    let name = |port: LinkIndex| name_by_port.get(&port).map_or("a port", String::as_str);
    for (mac, port) in wanted {
        match ours.get(mac) {
            Some(current) if current == port => continue,
            Some(_) => _ = diff.moved.insert(*mac),
            None if fixed.contains(mac) => {
                diff.blocked.insert(*mac);
                continue;
            }
            None => _ = diff.added.insert(*mac),
        }
        let message = RouteNetlinkMessage::NewNeighbour(message(*port, *mac));
        let doing = format!("adding an entry for {mac} to {}", name(*port));
        changes.push(Change { message, flags: NLM_F_CREATE | NLM_F_REPLACE, forgiven: None, doing });
    }
    for (mac, port) in ours {
        if wanted.contains_key(&mac) || !name_by_port.contains_key(&port) {
            continue;
        }
        diff.removed.insert(mac);
        let message = RouteNetlinkMessage::DelNeighbour(message(port, mac));
        let doing = format!("removing the entry for {mac} from {}", name(port));
        // It may have gone, or moved to another port, while we were looking.
        changes.push(Change { message, flags: 0, forgiven: Some(libc::ENOENT), doing });
    }
    (diff, changes)
}

fn message(port: LinkIndex, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port.0;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller | NeighbourFlags::ExtLearned;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

/// An entry of a bridge; none for one of a device's own table.
pub(crate) fn read(message: &NeighbourMessage) -> Option<Entry> {
    let mut mac = None;
    let mut bridge = None;
    for attribute in &message.attributes {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(Mac);
        } else if let NeighbourAttribute::Controller(index) = attribute {
            bridge = Some(LinkIndex(*index));
        }
    }
    Some(Entry {
        mac: mac?,
        port: LinkIndex(message.header.ifindex),
        bridge: bridge?,
        is_ours: message.header.flags.contains(NeighbourFlags::ExtLearned),
        is_fixed: matches!(message.header.state, NeighbourState::Noarp | NeighbourState::Permanent),
    })
}

#[cfg(test)]
mod tests;
