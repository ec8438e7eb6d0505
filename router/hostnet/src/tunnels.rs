//! What a tunnel device sends whereto: its stations and its flood list, kept equal to wanted sets.
//!
//! Our entries carry the mark "externally learned", which the kernel keeps on an entry of a tunnel device as a whole.
//! For a station that is enough. The flood list is *one* entry (of the zero address) with many destinations, and
//! loses the mark when somebody else adds a destination without it. Then only what this handle put there itself is
//! taken away again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::PoisonError,
};

use rtnetlink::{
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{InfoKind, InfoVxlan},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use weave_model::Mac;

use crate::{Host, HostError, LinkIndex, batch::Change};

/// The address whose entry is the flood list (`all_zeros_mac` in drivers/net/vxlan).
const FLOOD: Mac = Mac([0; 6]);

/// Where a tunnel device sends the frames of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// Address of the other host, of the device's family.
    pub remote: IpAddr,
    /// Network identifier to send with. `None`: the device's own.
    pub vni: Option<u32>,
}

/// How [`Host::reconcile_tunnels`] changed a tunnel device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelDiff {
    /// Stations that had no entry.
    pub added: BTreeSet<Mac>,
    /// Stations that are reached another way now; each in one step, so that no frame is lost.
    pub moved: BTreeSet<Mac>,
    /// Stations of ours that were no longer wanted.
    pub removed: BTreeSet<Mac>,
    /// Wanted stations that were left out, because somebody else holds an entry for the address.
    pub blocked: BTreeSet<Mac>,
    /// Destinations that were added to the flood list.
    pub flood_added: BTreeSet<IpAddr>,
    /// Destinations of ours that were taken off the flood list.
    pub flood_removed: BTreeSet<IpAddr>,
}

impl TunnelDiff {
    /// Whether everything was as wanted already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { added, moved, removed, blocked: _, flood_added, flood_removed } = self;
        [added, moved, removed].iter().all(|set| set.is_empty())
            && flood_added.is_empty()
            && flood_removed.is_empty()
    }
}

/// One destination of an entry, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    mac: Mac,
    tunnel: Option<Tunnel>,
    is_ours: bool,
    /// It has a port or an interface of its own: never one of ours.
    is_special: bool,
}

impl Destination {
    /// Where it takes part in the flood list, if it does.
    fn flooded_to(&self) -> Option<IpAddr> {
        let tunnel = self.tunnel.filter(|t| self.mac == FLOOD && !self.is_special && t.vni.is_none());
        tunnel.map(|tunnel| tunnel.remote)
    }
}

impl Host {
    /// Makes the entries of ours on a tunnel device equal to what is wanted: `stations` one by one, and `flood` for
    /// broadcast, multicast and unknown addresses. Entries of others stay as they are.
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; [`HostError::ForeignInterface`] when it is no VXLAN device;
    /// [`HostError::Several`], or the only refusal: the rest of the difference has been applied then, and the next
    /// call tries the remainder again.
    pub async fn reconcile_tunnels(
        &self,
        vxlan: LinkIndex,
        stations: &BTreeMap<Mac, Tunnel>,
        flood: &BTreeSet<IpAddr>,
    ) -> anyhow::Result<TunnelDiff> {
        let link = self.require_index(vxlan).await?;
        link.require_kind(&InfoKind::Vxlan, "a VXLAN device")?;
        let own_vni =
            link.vxlan.iter().find_map(|s| if let InfoVxlan::Id(vni) = s { Some(*vni) } else { None });
        let stations = normalise(stations, own_vni);
        let existing = self.destinations(vxlan).await?;
        let mut flooded_by_us = self.flooded_by_us(vxlan);
        flooded_by_us.extend(existing.iter().filter(|e| e.is_ours).filter_map(Destination::flooded_to));
        let diff = diff(&existing, &stations, flood, &flooded_by_us);
        flooded_by_us.extend(&diff.flood_added);
        self.remember_flooded(vxlan, flooded_by_us.clone());
        self.apply(changes(vxlan, &link.name, &diff, &stations)).await?;
        flooded_by_us.retain(|to| flood.contains(to));
        self.remember_flooded(vxlan, flooded_by_us);
        Ok(diff)
    }

    /// The entries of ours that a tunnel device holds: its stations, and its flood list.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn tunnels(
        &self,
        vxlan: LinkIndex,
    ) -> anyhow::Result<(BTreeMap<Mac, Tunnel>, BTreeSet<IpAddr>)> {
        let (mut stations, mut flood) = (BTreeMap::new(), BTreeSet::new());
        for entry in self.destinations(vxlan).await?.into_iter().filter(|entry| entry.is_ours) {
            flood.extend(entry.flooded_to());
            if let Some(tunnel) = entry.tunnel.filter(|_| entry.mac != FLOOD && !entry.is_special) {
                stations.insert(entry.mac, tunnel);
            }
        }
        Ok((stations, flood))
    }

    async fn destinations(&self, vxlan: LinkIndex) -> Result<Vec<Destination>, HostError> {
        let mut everything = NeighbourMessage::default();
        everything.header.family = AddressFamily::Bridge;
        let everything = RouteNetlinkMessage::GetNeighbour(everything);
        self.dump(everything, "listing the destinations of a tunnel device", |answer| {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
            (message.header.ifindex == vxlan.0).then(|| read(&message)).flatten()
        })
        .await
    }

    fn flooded_by_us(&self, vxlan: LinkIndex) -> BTreeSet<IpAddr> {
        let flooded = self.flooded.lock().unwrap_or_else(PoisonError::into_inner);
        flooded.get(&vxlan).cloned().unwrap_or_default()
    }

    fn remember_flooded(&self, vxlan: LinkIndex, destinations: BTreeSet<IpAddr>) {
        let mut flooded = self.flooded.lock().unwrap_or_else(PoisonError::into_inner);
        flooded.insert(vxlan, destinations);
    }
}

/// Tunnels as the kernel shows them: it leaves out a VNI that is the device's own.
fn normalise(stations: &BTreeMap<Mac, Tunnel>, own_vni: Option<u32>) -> BTreeMap<Mac, Tunnel> {
    let shown = |t: &Tunnel| Tunnel { remote: t.remote, vni: t.vni.filter(|vni| Some(*vni) != own_vni) };
    stations.iter().map(|(mac, tunnel)| (*mac, shown(tunnel))).collect()
}

fn diff(
    existing: &[Destination],
    stations: &BTreeMap<Mac, Tunnel>,
    flood: &BTreeSet<IpAddr>,
    flooded_by_us: &BTreeSet<IpAddr>,
) -> TunnelDiff {
    let mut diff = TunnelDiff::default();
    let mut ours: BTreeMap<Mac, Option<Tunnel>> = BTreeMap::new();
    let mut others: BTreeSet<Mac> = BTreeSet::new();
    for entry in existing.iter().filter(|e| e.mac != FLOOD) {
        if entry.is_ours {
            ours.insert(entry.mac, entry.tunnel.filter(|_| !entry.is_special));
        } else {
            others.insert(entry.mac);
        }
    }
    for (mac, tunnel) in stations {
        match ours.get(mac) {
            Some(existing) if *existing == Some(*tunnel) => {}
            Some(_) => _ = diff.moved.insert(*mac),
            None if others.contains(mac) => _ = diff.blocked.insert(*mac),
            None => _ = diff.added.insert(*mac),
        }
    }
    diff.removed = ours.keys().filter(|mac| !stations.contains_key(mac)).copied().collect();
    let listed: BTreeSet<IpAddr> = existing.iter().filter_map(Destination::flooded_to).collect();
    diff.flood_added = flood.difference(&listed).copied().collect();
    let goes = |to: &&IpAddr| flooded_by_us.contains(to) && !flood.contains(to);
    diff.flood_removed = listed.iter().filter(goes).copied().collect();
    diff
}

/// What is added comes first: at no time is a station or a flooded host missing that is in the old and the new state.
fn changes(vxlan: LinkIndex, name: &str, diff: &TunnelDiff, stations: &BTreeMap<Mac, Tunnel>) -> Vec<Change> {
    let change = |message, flags, forgiven, doing| Change { message, flags, forgiven, doing };
    let set = |mac: &Mac| {
        let tunnel = stations.get(mac)?;
        let message = message(vxlan, *mac, Some((tunnel.remote, tunnel.vni)));
        let doing = format!("sending frames for {mac} from {name} to {}", tunnel.remote);
        let message = RouteNetlinkMessage::NewNeighbour(message);
        Some(change(message, NLM_F_CREATE | NLM_F_REPLACE, None, doing))
    };
    let flood = |to: &IpAddr| {
        let message = RouteNetlinkMessage::NewNeighbour(message(vxlan, FLOOD, Some((*to, None))));
        change(message, NLM_F_CREATE | NLM_F_APPEND, None, format!("flooding from {name} to {to}"))
    };
    let unset = |mac: &Mac| {
        let message = RouteNetlinkMessage::DelNeighbour(message(vxlan, *mac, None));
        change(message, 0, Some(libc::ENOENT), format!("removing the entry for {mac} from {name}"))
    };
    let unflood = |to: &IpAddr| {
        let message = RouteNetlinkMessage::DelNeighbour(message(vxlan, FLOOD, Some((*to, None))));
        change(message, 0, Some(libc::ENOENT), format!("flooding no more from {name} to {to}"))
    };
    let mut changes: Vec<Change> = diff.moved.iter().chain(&diff.added).filter_map(set).collect();
    changes.extend(diff.flood_added.iter().map(flood));
    changes.extend(diff.removed.iter().map(unset));
    changes.extend(diff.flood_removed.iter().map(unflood));
    changes
}

/// A request about an entry of a tunnel device, with its destination and VNI if it has one.
pub(crate) fn message(
    vxlan: LinkIndex,
    mac: Mac,
    destination: Option<(IpAddr, Option<u32>)>,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = vxlan.0;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own | NeighbourFlags::ExtLearned;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    if let Some((remote, vni)) = destination {
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(remote)));
        message.attributes.extend(vni.map(NeighbourAttribute::Vni));
    }
    message
}

fn read(message: &NeighbourMessage) -> Option<Destination> {
    let (mut mac, mut remote, mut vni, mut is_special, mut is_bridge_entry) =
        (None, None, None, false, false);
    for attribute in &message.attributes {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(Mac);
        } else if let NeighbourAttribute::Destination(to) = attribute {
            remote = read_address(to);
        } else if let NeighbourAttribute::Vni(number) = attribute {
            vni = Some(*number);
        } else if let NeighbourAttribute::Controller(_) = attribute {
            is_bridge_entry = true;
        } else if let NeighbourAttribute::Port(_) | NeighbourAttribute::IfIndex(_) = attribute {
            is_special = true;
        }
    }
    let is_ours = message.header.flags.contains(NeighbourFlags::ExtLearned);
    let tunnel = remote.map(|remote| Tunnel { remote, vni });
    (!is_bridge_entry).then_some(Destination { mac: mac?, tunnel, is_ours, is_special })
}

/// The netlink library does not look into addresses of this kind of message.
fn read_address(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        NeighbourAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
