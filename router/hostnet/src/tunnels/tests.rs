use proptest::prelude::*;

use super::*;

const DEVICE: LinkIndex = LinkIndex(7);

fn mac(n: u8) -> Mac {
    Mac::local_unicast([0, 0, 0, 0, 2, n])
}

fn host(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn tunnel(n: u8, vni: Option<u32>) -> Tunnel {
    Tunnel { remote: host(n), vni }
}

fn station(n: u8, to: Tunnel, is_ours: bool) -> Destination {
    Destination { mac: mac(n), tunnel: Some(to), is_ours, is_special: false }
}

fn flooded(to: u8, is_ours: bool) -> Destination {
    Destination { mac: FLOOD, tunnel: Some(tunnel(to, None)), is_ours, is_special: false }
}

fn hosts(numbers: &[u8]) -> BTreeSet<IpAddr> {
    numbers.iter().map(|n| host(*n)).collect()
}

#[test]
fn the_devices_own_vni_is_the_same_as_none() {
    let wanted = BTreeMap::from([(mac(1), tunnel(1, Some(1))), (mac(2), tunnel(2, Some(11)))]);
    let shown = BTreeMap::from([(mac(1), tunnel(1, None)), (mac(2), tunnel(2, Some(11)))]);
    assert_eq!(normalise(&wanted, Some(1)), shown);
}

#[test]
fn a_station_that_moves_is_replaced_and_not_removed() {
    let existing = [station(1, tunnel(1, None), true)];
    let wanted = BTreeMap::from([(mac(1), tunnel(2, Some(11)))]);
    let diff = diff(&existing, &wanted, &hosts(&[]), &hosts(&[]));
    assert_eq!(diff, TunnelDiff { moved: BTreeSet::from([mac(1)]), ..TunnelDiff::default() });
    let changes = changes(DEVICE, "weave-vx", &diff, &wanted);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].flags, NLM_F_CREATE | NLM_F_REPLACE);
}

#[test]
fn a_flood_list_that_lost_our_mark_loses_only_what_we_put_there() {
    // Somebody added 9: the kernel shows the whole list without the mark.
    let existing = [flooded(1, false), flooded(2, false), flooded(9, false)];
    let diff = diff(&existing, &BTreeMap::new(), &hosts(&[2, 3]), &hosts(&[1, 2]));
    assert_eq!(diff.flood_added, hosts(&[3]));
    assert_eq!(diff.flood_removed, hosts(&[1]));
}

#[test]
fn a_destination_with_a_port_of_its_own_is_never_ours() {
    let special = Destination { is_special: true, ..flooded(1, true) };
    let diff = diff(&[special], &BTreeMap::new(), &hosts(&[]), &hosts(&[1]));
    assert_eq!(diff.flood_removed, hosts(&[]));
}

/// A device's table as the kernel keeps it, without any cleverness.
#[derive(Debug, Clone, PartialEq)]
struct Table {
    stations: BTreeMap<Mac, (Tunnel, bool)>,
    flood: BTreeSet<IpAddr>,
    flood_is_ours: bool,
}

impl Table {
    fn shown(&self) -> Vec<Destination> {
        let station = |(mac, (tunnel, is_ours)): (&Mac, &(Tunnel, bool))| Destination {
            mac: *mac,
            tunnel: Some(*tunnel),
            is_ours: *is_ours,
            is_special: false,
        };
        let flooded = |to: &IpAddr| Destination {
            mac: FLOOD,
            tunnel: Some(Tunnel { remote: *to, vni: None }),
            is_ours: self.flood_is_ours,
            is_special: false,
        };
        self.stations.iter().map(station).chain(self.flood.iter().map(flooded)).collect()
    }

    /// `vxlan_fdb_add` and `vxlan_fdb_delete`.
    fn carry_out(&mut self, change: &Change) {
        if let RouteNetlinkMessage::NewNeighbour(message) = &change.message {
            let entry = read(message).unwrap();
            let tunnel = entry.tunnel.unwrap();
            if entry.mac == FLOOD {
                assert_eq!(change.flags, NLM_F_CREATE | NLM_F_APPEND);
                self.flood_is_ours |= self.flood.is_empty();
                self.flood.insert(tunnel.remote);
            } else {
                let is_ours = self.stations.get(&entry.mac).is_none_or(|(_, is_ours)| *is_ours);
                self.stations.insert(entry.mac, (tunnel, is_ours));
            }
        } else if let RouteNetlinkMessage::DelNeighbour(message) = &change.message {
            let entry = read(message).unwrap();
            match entry.tunnel {
                Some(tunnel) => assert!(self.flood.remove(&tunnel.remote)),
                None => assert!(self.stations.remove(&entry.mac).is_some()),
            }
        }
    }
}

prop_compose! {
    fn any_tunnel()(remote in 1u8..5, relay in proptest::option::of(11u32..13)) -> Tunnel {
        tunnel(remote, relay)
    }
}

fn any_hosts() -> impl Strategy<Value = BTreeSet<IpAddr>> {
    proptest::collection::btree_set((1u8..6).prop_map(host), 0..5)
}

proptest! {
    #[test]
    fn any_table_becomes_the_wanted_one_and_what_is_others_stays(
        stations in proptest::collection::btree_map((1u8..8).prop_map(mac), (any_tunnel(), any::<bool>()), 0..6),
        flood in any_hosts(),
        flood_is_ours in any::<bool>(),
        wanted in proptest::collection::btree_map((1u8..8).prop_map(mac), any_tunnel(), 0..6),
        wanted_flood in any_hosts(),
        remembered in any_hosts(),
    ) {
        let before = Table { stations, flood, flood_is_ours };
        let memory = if flood_is_ours { before.flood.clone() } else { remembered };
        let diff = diff(&before.shown(), &wanted, &wanted_flood, &memory);
        let mut after = before.clone();
        for change in changes(DEVICE, "weave-vx", &diff, &wanted) {
            after.carry_out(&change);
        }
        for (mac, tunnel) in &wanted {
            let leads_there = after.stations.get(mac).map(|(t, _)| t) == Some(tunnel);
            prop_assert!(leads_there || diff.blocked.contains(mac));
        }
        for (mac, (tunnel, is_ours)) in &before.stations {
            prop_assert!(*is_ours || after.stations.get(mac) == Some(&(*tunnel, false)), "others' stations stay");
        }
        let unwanted = |(mac, (_, is_ours)): (&Mac, &(Tunnel, bool))| *is_ours && !wanted.contains_key(mac);
        prop_assert!(!after.stations.iter().any(unwanted));
        prop_assert!(wanted_flood.is_subset(&after.flood));
        for to in after.flood.difference(&wanted_flood) {
            prop_assert!(before.flood.contains(to) && !memory.contains(to), "only others' destinations are left");
        }
        let again = super::diff(&after.shown(), &wanted, &wanted_flood, &memory);
        prop_assert!(again.is_empty(), "a second pass has nothing to do: {again:?}");
    }
}
