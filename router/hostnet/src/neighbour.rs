//! Answers that the bridge gives by itself: who has an address that is known to be elsewhere.
//!
//! The bridge answers ARP and neighbour solicitations for what is in the host's own table of the bridge device, if
//! the station lies behind a port with suppression (net/bridge/br_arp_nd_proxy.c). Our entries are permanent, so that
//! neither time, nor ARP, nor a bridge without carrier changes them, and carry the mark "externally learned".

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};
use weave_model::Mac;

use crate::{Host, HostError, LinkIndex, batch::Change};

/// Most addresses whose new station is announced in one pass. More is a first pass or a large part of the network:
/// then containers find out when their own entries age (seconds), as on any network.
const MAX_ANNOUNCED: usize = 256;

/// How [`Host::reconcile_neighbours`] changed the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NeighbourDiff {
    /// Addresses that had no entry of ours.
    pub added: BTreeSet<IpAddr>,
    /// Addresses that another station has now.
    pub moved: BTreeSet<IpAddr>,
    /// Addresses of ours that were no longer wanted.
    pub removed: BTreeSet<IpAddr>,
    /// Wanted addresses that were left out, because somebody else holds a permanent entry for them.
    pub blocked: BTreeSet<IpAddr>,
    /// Wanted IPv6 addresses that were left out, because the bridge has no IPv6 (switched off, or an MTU below 1280).
    pub without_ipv6: BTreeSet<IpAddr>,
}

impl NeighbourDiff {
    /// Whether everything was as wanted already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { added, moved, removed, blocked: _, without_ipv6: _ } = self;
        [added, moved, removed].iter().all(|set| set.is_empty())
    }
}

/// An entry of the host's table of neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Neighbour {
    address: IpAddr,
    mac: Option<Mac>,
    is_ours: bool,
    is_permanent: bool,
}

impl Host {
    /// Makes the entries of ours on the bridge device equal to `wanted`, so that questions for these addresses are
    /// answered here and do not leave the host. Permanent entries of others stay as they are. Containers are told
    /// of addresses that have a new station.
    ///
    /// # Errors
    /// [`HostError::NoInterface`]; [`HostError::Several`], or the only refusal: the rest of the difference has been
    /// applied then, and the next call tries the remainder again.
    pub async fn reconcile_neighbours(
        &self,
        bridge: LinkIndex,
        wanted: &BTreeMap<IpAddr, Mac>,
    ) -> anyhow::Result<NeighbourDiff> {
        let link = self.require_index(bridge).await?;
        let existing = self.neighbours(bridge).await?;
        let has_ipv6 = self.has_ipv6(&link.name)?;
        let diff = diff(&existing, wanted, has_ipv6);
        self.apply(changes(bridge, &diff, wanted)).await?;
        let news: Vec<(IpAddr, Mac)> =
            diff.moved.iter().chain(&diff.added).filter_map(|a| Some((*a, *wanted.get(a)?))).collect();
        if news.len() <= MAX_ANNOUNCED {
            self.announce_stations(&link, &news)?;
        }
        Ok(diff)
    }

    /// Whether the kernel takes IPv6 neighbours for the interface: it refuses them where IPv6 is switched off, and
    /// knows no such setting where the MTU is too small for IPv6.
    fn has_ipv6(&self, interface: &str) -> Result<bool, HostError> {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        self.run_inside(|| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0"))
    }

    async fn neighbours(&self, bridge: LinkIndex) -> Result<Vec<Neighbour>, HostError> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            // The kernel leaves the other interfaces out (`neigh_valid_dump_req`).
            request.attributes = vec![NeighbourAttribute::IfIndex(bridge.0)];
            let request = RouteNetlinkMessage::GetNeighbour(request);
            let on_bridge = |answer| {
                let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
                (message.header.ifindex == bridge.0 && message.header.family == family)
                    .then(|| read(&message))
                    .flatten()
            };
            all.extend(self.dump(request, "listing neighbours", on_bridge).await?);
        }
        Ok(all)
    }
}

fn diff(existing: &[Neighbour], wanted: &BTreeMap<IpAddr, Mac>, has_ipv6: bool) -> NeighbourDiff {
    let mut diff = NeighbourDiff::default();
    let by_address: BTreeMap<IpAddr, &Neighbour> = existing.iter().map(|n| (n.address, n)).collect();
    for (address, mac) in wanted {
        match by_address.get(address) {
            _ if address.is_ipv6() && !has_ipv6 => _ = diff.without_ipv6.insert(*address),
            Some(entry) if entry.is_ours && entry.is_permanent && entry.mac == Some(*mac) => {}
            Some(entry) if entry.is_ours => _ = diff.moved.insert(*address),
            Some(entry) if entry.is_permanent => _ = diff.blocked.insert(*address),
            // What the host found out by itself gives way.
            Some(_) | None => _ = diff.added.insert(*address),
        }
    }
    let goes = |n: &&Neighbour| n.is_ours && !wanted.contains_key(&n.address);
    diff.removed = existing.iter().filter(goes).map(|n| n.address).collect();
    diff
}

fn changes(bridge: LinkIndex, diff: &NeighbourDiff, wanted: &BTreeMap<IpAddr, Mac>) -> Vec<Change> {
    let set = |address: &IpAddr| {
        let mac = wanted.get(address)?;
        let message = RouteNetlinkMessage::NewNeighbour(message(bridge, *address, Some(*mac)));
        let doing = format!("adding the neighbour {address} at {mac}");
        Some(Change { message, flags: NLM_F_CREATE | NLM_F_REPLACE, forgiven: None, doing })
    };
    let unset = |address: &IpAddr| {
        let message = RouteNetlinkMessage::DelNeighbour(message(bridge, *address, None));
        Change {
            message,
            flags: 0,
            forgiven: Some(libc::ENOENT),
            doing: format!("removing the neighbour {address}"),
        }
    };
    let set = diff.moved.iter().chain(&diff.added).filter_map(set);
    set.chain(diff.removed.iter().map(unset)).collect()
}

fn message(bridge: LinkIndex, address: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = bridge.0;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::ExtLearned;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::from(address))];
    message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}

fn read(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) = attribute {
            address = Some(IpAddr::V4(*v4));
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) = attribute {
            address = Some(IpAddr::V6(*v6));
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(Mac);
        }
    }
    Some(Neighbour {
        address: address?,
        mac,
        is_ours: message.header.flags.contains(NeighbourFlags::ExtLearned),
        is_permanent: matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        if n < 128 { IpAddr::from([10, 32, 0, n]) } else { format!("fd00::{n}").parse().unwrap() }
    }

    fn mac(n: u8) -> Mac {
        Mac::local_unicast([0, 0, 0, 0, 1, n])
    }

    fn entry(n: u8, station: u8, is_ours: bool, is_permanent: bool) -> Neighbour {
        Neighbour { address: address(n), mac: Some(mac(station)), is_ours, is_permanent }
    }

    fn set(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers.iter().map(|n| address(*n)).collect()
    }

    #[test]
    fn only_the_difference_is_changed_and_permanent_entries_of_others_stay() {
        let existing = [
            entry(1, 1, true, true),
            entry(2, 2, true, true),
            entry(3, 3, true, true),
            entry(4, 4, false, true),
            entry(5, 5, false, false),
            entry(6, 6, false, true),
        ];
        let wanted = [(1, 1), (2, 9), (4, 9), (5, 9), (7, 7)];
        let wanted = wanted.iter().map(|(n, station)| (address(*n), mac(*station))).collect();
        let expected = NeighbourDiff {
            added: set(&[5, 7]),
            moved: set(&[2]),
            removed: set(&[3]),
            blocked: set(&[4]),
            without_ipv6: set(&[]),
        };
        assert_eq!(diff(&existing, &wanted, true), expected);
        assert_eq!(changes(LinkIndex(1), &expected, &wanted).len(), 4);
    }

    #[test]
    fn where_there_is_no_ipv6_its_addresses_are_left_out_and_named() {
        let wanted = BTreeMap::from([(address(1), mac(1)), (address(200), mac(2))]);
        let diff = diff(&[entry(1, 1, true, true)], &wanted, false);
        assert_eq!(diff, NeighbourDiff { without_ipv6: set(&[200]), ..NeighbourDiff::default() });
        assert!(diff.is_empty());
    }
}
