//! Meshes in which not everybody is a neighbour: relays.

use std::{collections::BTreeSet, time::Duration};

use weave_model::PeerName;

use crate::sim::{CHANNEL, Net, name};

/// Routers that link to their targets and to nobody else.
fn fixed(seed: u64, count: usize, targets: impl Fn(usize) -> Vec<usize>) -> Net {
    let mut net = Net::new(seed, count, targets);
    for host in &mut net.hosts {
        host.config.discovery = false;
    }
    net.start_all();
    net.run_until(Duration::from_secs(60), |net| {
        net.is_agreed() && (0..count).all(|host| net.mesh(host).routes().unicast().count() + 1 == count)
    })
    .expect("all agree");
    net
}

fn shapes(seed: u64) -> Vec<(&'static str, Net)> {
    let line = fixed(seed, 9, |i| if i > 0 { vec![i - 1] } else { vec![] });
    let ring = fixed(seed, 9, |i| vec![(i + 1) % 9]);
    let star = fixed(seed, 9, |i| if i > 0 { vec![0] } else { vec![] });
    let full = fixed(seed, 6, |i| (0..i).collect());
    let sparse =
        fixed(seed, 16, move |i| if i > 0 { vec![(seed as usize * 7 + i * 5) % i, i / 2] } else { vec![] });
    vec![("line", line), ("ring", ring), ("star", star), ("full", full), ("sparse", sparse)]
}

#[test]
fn a_broadcast_arrives_exactly_once_in_every_shape() {
    for seed in 0..10 {
        for (shape, mut net) in shapes(seed) {
            for source in 0..net.hosts.len() {
                net.with(source, |mesh, now| mesh.broadcast(CHANNEL, vec![source as u8], now));
            }
            net.run_for(Duration::from_secs(1));
            for (index, host) in net.hosts.iter().enumerate() {
                let mut from: Vec<PeerName> = host.received.iter().map(|(from, _)| *from).collect();
                from.sort();
                let mut others: Vec<PeerName> =
                    (0..net.hosts.len()).filter(|i| *i != index).map(name).collect();
                others.sort();
                assert_eq!(from, others, "{shape}, seed {seed}, host {index}");
            }
        }
    }
}

#[test]
fn a_message_for_one_reaches_that_one_alone_over_relays() {
    for (shape, mut net) in shapes(3) {
        let count = net.hosts.len();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            net.with(from, |mesh, now| mesh.send(name(to), CHANNEL, vec![from as u8, to as u8], now))
                .unwrap();
        }
        net.run_for(Duration::from_secs(1));
        for (index, host) in net.hosts.iter().enumerate() {
            assert_eq!(host.received.len(), count, "{shape}");
            assert!(
                host.received
                    .iter()
                    .all(|(from, bytes)| *from == name(bytes[0].into()) && bytes[1] == index as u8)
            );
        }
    }
}

#[test]
fn following_next_hops_leads_to_the_destination_without_a_loop() {
    for seed in 0..10 {
        for (shape, net) in shapes(seed) {
            let count = net.hosts.len();
            for (from, to) in
                (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(f, t)| f != t)
            {
                let (mut at, mut passed) = (from, BTreeSet::new());
                while at != to {
                    assert!(passed.insert(at), "{shape}, seed {seed}: loop from {from} to {to}");
                    let (_, next) = net.mesh(at).routes().next_hop(name(to)).expect("a route");
                    at = (0..count).find(|i| name(*i) == next).unwrap();
                }
            }
        }
    }
}

#[test]
fn the_trees_of_all_routers_together_reach_everybody_once() {
    for seed in 0..10 {
        for (shape, net) in shapes(seed) {
            assert_trees_reach_everybody_once(&net, shape);
        }
    }
}

#[test]
fn the_shared_trees_of_a_big_mesh_reach_everybody_once_too() {
    let net = fixed(1, 90, |i| if i > 0 { vec![i * 7 % i.min(11), i / 3] } else { vec![] });
    assert_trees_reach_everybody_once(&net, "big");
}

fn assert_trees_reach_everybody_once(net: &Net, shape: &str) {
    let count = net.hosts.len();
    for source in 0..count {
        let mut reached = vec![0; count];
        for host in 0..count {
            let routes = net.mesh(host).routes();
            for link in routes.broadcast_hops(name(source)) {
                let to = routes.neighbour(link).unwrap();
                reached[(0..count).find(|i| name(*i) == to).unwrap()] += 1;
            }
        }
        reached[source] += 1;
        assert_eq!(reached, vec![1; count], "{shape}, source {source}");
    }
}
