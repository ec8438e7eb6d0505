//! What the kernel shall hold, so that it forwards by itself.
//!
//! # Policy
//! * A station elsewhere is reached through a VXLAN device when every hop of our path to its router is served by the
//!   kernel and there are at most `1 + MAX_RELAYS` of them; otherwise through the TAP, where the sleeve takes over.
//! * A frame that needs relays carries in its VNI how many hops remain. The relay's table for that number has only
//!   entries that leave fewer: however routers disagree, the number falls with each hop and a loop is impossible.
//! * What our containers flood is copied by the kernel to those neighbours whose branch of our tree ends with them. All
//!   others are served by the sleeve, which names the source, so that it can be passed on
//!   ([`crate::Forwarding::leave_to_kernel`]).
//! * Addresses of stations are known to the bridge, so that nobody has to ask other hosts for them by broadcast.
//!
//! A plan is a function of its [`World`] alone, and each entry depends only on its own station and path: a change of
//! either changes that entry and no other. The caller compares with what the kernel has and sends the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weave_model::{EspOver, Mac, PeerName};

use crate::Stations;

/// Most relays on a path that the kernel serves alone: one VNI, device and bridge for each number of remaining hops.
pub const MAX_RELAYS: usize = 3;

/// The version of IP that carries a tunnel: a VXLAN device has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The version of an address. IPv4 in IPv6 notation is IPv4.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes that VXLAN takes of the underlay's packet: outer IP header, UDP 8, VXLAN 8 (RFC 7348 section 5), inner Ethernet 14.
    #[must_use]
    pub const fn overhead(self) -> u16 {
        let ip = match self {
            Self::V4 => 20,
            Self::V6 => 40,
        };
        ip + 8 + 8 + 14
    }

    /// The largest overlay packet that an underlay's packet of `underlay` bytes holds. ESP takes a header of 8 bytes, 8 of nonce, a tag of 16,
    /// 2 of trailer, and pads to a multiple of 4 (RFC 4303, RFC 4106); what it encrypts begins with UDP's header. In UDP it
    /// takes 8 more (RFC 3948).
    #[must_use]
    pub const fn capacity(self, underlay: u16, encrypted: Option<EspOver>) -> u16 {
        let wrapping = match encrypted {
            None => return underlay.saturating_sub(self.overhead()),
            Some(EspOver::Ip) => 0,
            Some(EspOver::Udp) => 8,
        };
        let ip = self.overhead() - 30;
        let encrypted = underlay.saturating_sub(ip + wrapping + 8 + 8 + 16) / 4 * 4;
        encrypted.saturating_sub(30 + 2)
    }
}

/// The port of the bridge that leads to a station elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// The sleeve's door.
    Tap,
    /// The VXLAN device of that family.
    Vxlan(Family),
}

/// Where a VXLAN device sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// The underlay address of the neighbour.
    pub remote: IpAddr,
    /// Hops that remain after `remote`. 0: it delivers. Otherwise its relay device of that number sends the frame on.
    pub relays: u8,
}

impl Tunnel {
    /// Which VXLAN device can send there.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.remote)
    }
}

/// A router at the other end of one of our links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its underlay address on our link to it.
    pub remote: IpAddr,
    /// The kernel's path is in use on our link to it.
    pub fastdp: bool,
    /// What we broadcast ends there: it has no children in our tree.
    pub leaf: bool,
}

impl Neighbour {
    /// Whether the kernel copies to it what our containers broadcast.
    #[must_use]
    pub const fn is_flooded_by_kernel(&self) -> bool {
        self.fastdp && self.leaf
    }
}

/// Our path to a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The neighbour that it starts with; the router itself if it is one.
    pub next: PeerName,
    /// The number of its hops, if the kernel's path is in use on all of them.
    pub fast_hops: Option<u8>,
}

/// All that a plan depends on.
#[derive(Debug, Clone)]
pub struct World<'a> {
    /// Every known station, and from whose side we look.
    pub stations: &'a Stations<'a>,
    /// By name.
    pub neighbours: BTreeMap<PeerName, Neighbour>,
    /// To every router in reach but ourselves.
    pub paths: BTreeMap<PeerName, Path>,
    /// Whether others may send frames through us: not in a full mesh, which so is spared the relays' tables.
    pub relays: bool,
}

/// What the kernel shall hold of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The bridge's FDB: every station elsewhere.
    pub ports: BTreeMap<Mac, Port>,
    /// The FDB of the VXLAN devices on the bridge, both families together.
    pub tunnels: BTreeMap<Mac, Tunnel>,
    /// To whom the VXLAN devices on the bridge copy what our containers flood.
    pub flood: BTreeSet<IpAddr>,
    /// By remaining hops on arrival, less 1: the FDB of that relay device, both families together.
    pub relay: [BTreeMap<Mac, Tunnel>; MAX_RELAYS],
    /// Addresses of all stations, so that the bridge asks nobody else: it answers ARP and neighbour solicitations for those
    /// elsewhere.
    pub neighbours: BTreeMap<IpAddr, Mac>,
}

impl Plan {
    /// The part of a table that the VXLAN device of one family holds.
    pub fn of_family(table: &BTreeMap<Mac, Tunnel>, family: Family) -> impl Iterator<Item = (Mac, Tunnel)> {
        table.iter().filter(move |(_, tunnel)| tunnel.family() == family).map(|(mac, t)| (*mac, *t))
    }

    /// The part of the flood list that the VXLAN device of one family holds.
    pub fn flood_of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.flood.iter().copied().filter(move |remote| Family::of(*remote) == family)
    }
}

/// Plans the kernel's tables.
#[must_use]
pub fn plan(world: &World<'_>) -> Plan {
    let served = world.neighbours.values().filter(|neighbour| neighbour.is_flooded_by_kernel());
    let mut plan = Plan {
        flood: served.map(|neighbour| neighbour.remote.to_canonical()).collect(),
        neighbours: suppressed(world.stations),
        ..Plan::default()
    };
    let tunnels: BTreeMap<PeerName, Tunnel> =
        world.paths.iter().filter_map(|(peer, path)| Some((*peer, tunnel(world, *peer, *path)?))).collect();
    for (mac, station) in world.stations.elsewhere() {
        let Some(tunnel) = tunnels.get(&station.peer).copied() else {
            plan.ports.insert(mac, Port::Tap);
            continue;
        };
        plan.ports.insert(mac, Port::Vxlan(tunnel.family()));
        plan.tunnels.insert(mac, tunnel);
        if world.relays {
            for table in plan.relay.iter_mut().skip(usize::from(tunnel.relays)) {
                table.insert(mac, tunnel);
            }
        }
    }
    plan
}

/// The way into a path that the kernel serves alone.
fn tunnel(world: &World<'_>, peer: PeerName, path: Path) -> Option<Tunnel> {
    let neighbour = world.neighbours.get(&path.next).filter(|neighbour| neighbour.fastdp)?;
    let relays = path.fast_hops?.checked_sub(1).filter(|relays| usize::from(*relays) <= MAX_RELAYS)?;
    // One hop leads to a neighbour and more lead elsewhere; anything else is a path that is just changing.
    let is_consistent = (relays == 0) == (path.next == peer);
    is_consistent.then(|| Tunnel { remote: neighbour.remote.to_canonical(), relays })
}

/// Every address of a station, ours included: what two containers here ask each other need not leave either. If several
/// have an address, ours wins, then the first router by name, then the lowest MAC.
fn suppressed(stations: &Stations<'_>) -> BTreeMap<IpAddr, Mac> {
    let local = stations.local();
    let mut holders: BTreeMap<IpAddr, (bool, PeerName, Mac)> = BTreeMap::new();
    for (mac, station) in stations.iter() {
        for address in station.addresses.iter().map(IpAddr::to_canonical).filter(is_of_a_station) {
            let claim = (station.peer != local, station.peer, mac);
            holders.entry(address).and_modify(|holder| *holder = claim.min(*holder)).or_insert(claim);
        }
    }
    holders.into_iter().map(|(address, (_, _, mac))| (address, mac)).collect()
}

/// What the kernel takes as a neighbour's address. Peers may tell anything.
fn is_of_a_station(address: &IpAddr) -> bool {
    let is_limited_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || is_limited_broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_on_the_fast_path_is_reached_by_its_own_address_and_others_through_the_tap() {
        let stations = stations();
        let plan = plan(&world(&stations));
        assert_eq!(plan.ports[&mac(2)], Port::Vxlan(Family::V4));
        assert_eq!(plan.tunnels[&mac(2)], Tunnel { remote: ip("192.0.2.2"), relays: 0 });
        assert_eq!(plan.ports[&mac(3)], Port::Tap);
        assert_eq!(plan.ports[&mac(6)], Port::Tap, "nobody knows a way to this one");
        assert!(!plan.ports.contains_key(&mac(1)), "ours is not elsewhere");
        assert_eq!(plan.flood, BTreeSet::from([ip("2001:db8::4")]));
    }

    #[test]
    fn a_path_over_relays_names_the_hops_that_remain_and_fills_the_tables_above() {
        let stations = stations();
        let mut world = world(&stations);
        world.paths.insert(name(5), Path { next: name(4), fast_hops: Some(3) });
        let relayed = Tunnel { remote: ip("2001:db8::4"), relays: 2 };
        let with = plan(&world);
        assert_eq!(with.ports[&mac(5)], Port::Vxlan(Family::V6));
        assert_eq!(with.tunnels[&mac(5)], relayed);
        assert_eq!(
            with.relay.each_ref().map(|table| table.get(&mac(5)).copied()),
            [None, None, Some(relayed)]
        );
        assert!(with.relay.iter().all(|table| table.contains_key(&mac(2))));
        assert_eq!(Plan::of_family(&with.relay[2], Family::V6).count(), 2);
        world.relays = false;
        let without = plan(&world);
        assert_eq!(without.tunnels, with.tunnels);
        assert!(without.relay.iter().all(BTreeMap::is_empty));
    }

    #[test]
    fn a_path_that_is_too_long_or_contradicts_itself_is_left_to_the_sleeve() {
        let stations = stations();
        let wrong = [(4, Some(5)), (4, Some(0)), (4, Some(1)), (4, None), (3, Some(2)), (9, Some(2))];
        for (next, fast_hops) in wrong {
            let mut world = world(&stations);
            world.paths.insert(name(5), Path { next: name(next), fast_hops });
            assert_eq!(plan(&world).ports[&mac(5)], Port::Tap, "{next} {fast_hops:?}");
        }
    }

    #[test]
    fn only_addresses_that_a_station_can_have_are_suppressed() {
        let (shared, own) = (ip("10.32.0.9"), ip("10.32.0.1"));
        let odd = ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "127.0.0.1"].map(ip);
        let (second, third) = ([shared, own, ip("::ffff:10.32.0.2")], [odd.as_slice(), &[shared]].concat());
        let mut stations = Stations::new(name(1));
        stations.add(name(1), mac(30), std::slice::from_ref(&own));
        stations.add(name(3), mac(10), &third);
        stations.add(name(2), mac(20), &second);
        stations.add(name(2), mac(21), &second);
        let world =
            World { stations: &stations, neighbours: BTreeMap::new(), paths: BTreeMap::new(), relays: true };
        let wanted = BTreeMap::from([(own, mac(30)), (shared, mac(20)), (ip("10.32.0.2"), mac(20))]);
        assert_eq!(plan(&world).neighbours, wanted);
    }

    /// Us (1); 2 on the fast path, not a leaf; 3 on the sleeve; 4 on the fast path over IPv6, a leaf; 5 behind 4.
    fn world<'a>(stations: &'a Stations<'a>) -> World<'a> {
        let neighbour = |remote, fastdp, leaf| Neighbour { remote: ip(remote), fastdp, leaf };
        let path = |next, fast_hops| Path { next: name(next), fast_hops };
        World {
            stations,
            neighbours: BTreeMap::from([
                (name(2), neighbour("::ffff:192.0.2.2", true, false)),
                (name(3), neighbour("192.0.2.3", false, true)),
                (name(4), neighbour("2001:db8::4", true, true)),
            ]),
            paths: BTreeMap::from([
                (name(2), path(2, Some(1))),
                (name(3), path(3, None)),
                (name(4), path(4, Some(1))),
                (name(5), path(4, Some(2))),
            ]),
            relays: true,
        }
    }

    fn stations() -> Stations<'static> {
        let mut stations = Stations::new(name(1));
        (1..=6).for_each(|n| stations.add(name(n), mac(n), &[]));
        stations
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn name(n: u8) -> PeerName {
        PeerName([2, 0, 0, 0, 0, n])
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 1, 0, 0, 0, n])
    }
}
