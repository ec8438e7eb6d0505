//! The plans of all routers of a mesh, carried out by a model of the kernel.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod kernel;
mod net;

use std::collections::BTreeMap;

use proptest::prelude::*;
use weave_datapath::{MAX_RELAYS, Plan, Port, Stations, plan};
use weave_model::Mac;

use crate::{
    kernel::Router,
    net::{Net, mac, name, net, net_of},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_station_reaches_every_other_exactly_once_when_views_agree(net in net()) {
        let routers = Router::all(&net);
        for from in 0..net.len() {
            for to in (0..net.len()).filter(|to| *to != from) {
                let expected = if net.path(from, to).is_some() { vec![to] } else { Vec::new() };
                let walk = kernel::unicast(&routers, &net, from, mac(to));
                prop_assert_eq!(walk.delivered, expected, "from {} to {}", from, to);
            }
        }
    }

    #[test]
    fn the_kernel_alone_carries_what_it_can_and_nothing_else(net in net()) {
        let routers = Router::all(&net);
        for from in 0..net.len() {
            for to in (0..net.len()).filter(|to| *to != from) {
                let hops = net.path(from, to).unwrap_or_default();
                let is_fast = !hops.is_empty() && hops.windows(2).all(|hop| net.is_fast(hop[0], hop[1]));
                let is_short = hops.len() <= MAX_RELAYS + 2;
                let walk = kernel::unicast(&routers, &net, from, mac(to));
                let expected = if is_fast && is_short { hops.len() - 1 } else { 0 };
                prop_assert_eq!(walk.kernel_hops, expected, "from {} over {:?}", from, hops);
                prop_assert_eq!(matches!(routers[from].plan.ports[&mac(to)], Port::Vxlan(_)), expected > 0);
            }
        }
    }

    #[test]
    fn a_broadcast_arrives_exactly_once_everywhere_whoever_carries_it(net in net()) {
        let routers = Router::all(&net);
        for from in 0..net.len() {
            let delivered = kernel::broadcast(&routers, &net, from);
            for (to, copies) in delivered.into_iter().enumerate() {
                let expected = usize::from(to != from && net.path(from, to).is_some());
                prop_assert_eq!(copies, expected, "from {} at {}", from, to);
            }
        }
    }

    #[test]
    fn whatever_routers_believe_no_frame_lives_longer_than_its_relays_allow(
        views in proptest::collection::vec(net_of(8), 8)
    ) {
        let routers: Vec<Router> = views.iter().enumerate().map(|(me, view)| Router::new(view, me)).collect();
        for from in 0..8 {
            for to in 0..8 {
                let walk = kernel::tunnelled(&routers, from, mac(to));
                prop_assert!(walk.kernel_hops <= 1 + MAX_RELAYS);
                prop_assert!(walk.delivered.len() <= 1);
            }
        }
    }

    /// Between two states of the world an entry differs only if its own station moved or the path to its router changed.
    #[test]
    fn a_change_touches_only_the_entries_that_it_concerns(
        before in net_of(7), change in 0usize..3, place in 0usize..64
    ) {
        let after = before.changed(change, place);
        for me in 0..7 {
            let (old, new) = (Router::new(&before, me).plan, Router::new(&after, me).plan);
            for station in (0..7).map(mac) {
                let is_same = before.concerns(me, station) == after.concerns(me, station);
                prop_assert!(!is_same || entries(&old, station) == entries(&new, station), "{} at {}", station, me);
            }
        }
    }
}

#[test]
fn a_line_of_six_routers_uses_relays_up_to_the_limit_and_the_sleeve_beyond() {
    let net = Net::line(6);
    let routers = Router::all(&net);
    for (to, hops) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 0)] {
        let walk = kernel::unicast(&routers, &net, 0, mac(to));
        assert_eq!((walk.delivered, walk.kernel_hops), (vec![to], hops));
    }
}

#[test]
fn a_full_mesh_has_no_tables_for_relays() {
    let net = Net::full(5);
    for router in Router::all(&net) {
        assert!(router.plan.relay.iter().all(BTreeMap::is_empty));
        assert_eq!(router.plan.flood.len(), 4);
    }
}

#[test]
fn a_thousand_routers_with_two_stations_each_are_planned_at_once() {
    let addresses: Vec<_> = (0..2000_u32).map(|n| [10, 32, (n >> 8) as u8, n as u8].into()).collect();
    let mut stations = Stations::new(name(0));
    for (n, address) in addresses.iter().enumerate() {
        stations.add(name(n / 2), mac(n + 1), std::slice::from_ref(address));
    }
    let plan = plan(&net::star(&stations, 1000));
    assert_eq!((plan.ports.len(), plan.tunnels.len(), plan.flood.len()), (1998, 1998, 999));
    assert_eq!(plan.neighbours.len(), 2000);
}

/// All that a plan says of a station.
fn entries(plan: &Plan, station: Mac) -> impl PartialEq + use<> {
    let relay = plan.relay.each_ref().map(|table| table.get(&station).copied());
    (plan.ports.get(&station).copied(), plan.tunnels.get(&station).copied(), relay)
}
