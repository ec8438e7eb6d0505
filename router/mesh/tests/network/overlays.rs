//! Links that the kernel carries beside links that it does not.

use std::time::Duration;

use weave_mesh::{Overlay, OverlayKind};

use crate::sim::{Net, name};

const SECOND: Duration = Duration::from_secs(1);

/// Between which hosts, the lower one first, fastdp works.
type Mix = fn(usize, usize) -> bool;

/// Routers that link to their targets and to nobody else.
fn fixed(count: usize, is_fast: Mix, targets: impl Fn(usize) -> Vec<usize>) -> Net {
    let mut net = Net::new(7, count, targets);
    net.is_fast = is_fast;
    net.hosts.iter_mut().for_each(|host| host.config.discovery = false);
    net.start_all();
    net.run_until(SECOND * 60, Net::is_agreed).expect("all agree");
    net.run_for(SECOND * 5);
    assert!(net.is_agreed());
    net
}

fn meshes(is_fast: Mix) -> Vec<(&'static str, Net)> {
    vec![
        ("line", fixed(9, is_fast, |i| if i > 0 { vec![i - 1] } else { vec![] })),
        ("ring", fixed(9, is_fast, |i| vec![(i + 1) % 9])),
        ("star", fixed(9, is_fast, |i| if i > 0 { vec![0] } else { vec![] })),
        ("full", fixed(6, is_fast, |i| (0..i).collect())),
        ("sparse", fixed(16, is_fast, |i| if i > 0 { vec![i * 5 % i, i / 2] } else { vec![] })),
        ("big", fixed(90, is_fast, |i| if i > 0 { vec![i * 7 % i.min(11), i / 3] } else { vec![] })),
    ]
}

const MIXES: [Mix; 3] = [|_, _| true, |a, b| !(a * 5 + b * 3).is_multiple_of(4), |_, _| false];

#[test]
fn fast_hops_are_those_of_the_way_that_frames_take() {
    for is_fast in MIXES {
        for (shape, net) in meshes(is_fast) {
            let count = net.hosts.len();
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                let (mut at, mut hops, mut all_fast) = (from, 0, true);
                while at != to {
                    let (_, next) = net.mesh(at).routes().next_hop(name(to)).expect("a route");
                    let next = (0..count).find(|i| name(*i) == next).unwrap();
                    all_fast &= is_fast(at.min(next), at.max(next));
                    (at, hops) = (next, hops + 1);
                }
                let expected = (from != to && all_fast && hops <= 4).then_some(hops);
                let told = net.mesh(from).routes().fast_hops(name(to));
                assert_eq!(told, expected, "{shape}, from {from} to {to}");
            }
        }
    }
}

#[test]
fn a_leaf_is_a_neighbour_that_hands_our_broadcasts_on_to_nobody() {
    for (shape, net) in MIXES.into_iter().flat_map(meshes) {
        let count = net.hosts.len();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            let routes = net.mesh(from).routes();
            let is_ours =
                routes.broadcast_hops(name(from)).iter().any(|l| routes.neighbour(*l) == Some(name(to)));
            let ends_there = net.mesh(to).routes().broadcast_hops(name(from)).is_empty();
            assert_eq!(routes.is_leaf(name(to)), is_ours && ends_there, "{shape}, from {from} to {to}");
            assert!(from == to || shape != "full" || routes.is_leaf(name(to)));
        }
    }
}

#[test]
fn of_two_ways_with_as_many_hops_the_one_through_the_kernel_is_taken() {
    let ways: [(usize, Mix); 2] =
        [(1, |a, b| [(0, 1), (1, 3)].contains(&(a, b))), (2, |a, b| [(0, 2), (2, 3)].contains(&(a, b)))];
    for (relay, is_fast) in ways {
        let net = fixed(4, is_fast, |i| [vec![1, 2], vec![3], vec![3], vec![]][i].clone());
        let routes = net.mesh(0).routes();
        assert_eq!(routes.next_hop(name(3)).map(|(_, via)| via), Some(name(relay)));
        assert_eq!(routes.fast_hops(name(3)), Some(2));
    }
    // A direct sleeve is better than two hops through the kernel.
    let net = fixed(3, |a, b| (a, b) != (0, 2), |i| (0..i).collect());
    assert_eq!(net.mesh(0).routes().next_hop(name(2)).map(|(_, via)| via), Some(name(2)));
    assert_eq!(net.mesh(0).routes().fast_hops(name(2)), None);
}

#[test]
fn another_overlay_is_published_at_once_and_counts_when_both_ends_use_it() {
    let mut net = fixed(3, |_, _| false, |i| (0..i).collect());
    net.run_for(SECOND * 60);
    let set = |net: &mut Net, host: usize, to: usize, up: bool| {
        let (link, _) = net.mesh(host).routes().next_hop(name(to)).unwrap();
        let overlay = Overlay { kind: OverlayKind::Fastdp, up, mtu: 1450, rtt: Duration::from_millis(1) };
        net.with(host, |mesh, now| mesh.handle_overlay(link, overlay, now));
        net.mesh(host).link_overlay(link).unwrap().kind
    };
    let fast = |net: &Net| [(0, 1), (1, 0)].map(|(from, to)| net.mesh(from).routes().fast_hops(name(to)));
    let (messages, routes) =
        (net.hosts[0].messages, net.hosts.iter().map(|h| h.rerouted).collect::<Vec<_>>());
    assert_eq!(set(&mut net, 0, 1, true), OverlayKind::Fastdp);
    assert_eq!(net.hosts[0].messages, messages + 2, "both neighbours are told in the same moment");
    net.run_for(SECOND);
    assert_eq!(fast(&net), [None, None], "the other end does not use it");
    assert_eq!(set(&mut net, 1, 0, true), OverlayKind::Fastdp);
    net.run_for(SECOND);
    assert_eq!(fast(&net), [Some(1), Some(1)]);
    assert_eq!(set(&mut net, 1, 0, false), OverlayKind::Sleeve);
    assert_eq!(fast(&net)[1], None);
    net.run_for(SECOND);
    assert_eq!(fast(&net), [None, None]);
    let rerouted: Vec<u64> =
        net.hosts.iter().zip(routes).map(|(host, before)| host.rerouted - before).collect();
    assert_eq!(rerouted, [2, 2, 0], "the ends are told of both changes, the third router of none");
}

#[test]
fn status_tells_both_overlays_since_when_and_why() {
    let mut net = fixed(2, |_, _| false, |i| (0..i).collect());
    let (link, _) = net.mesh(0).routes().next_hop(name(1)).unwrap();
    net.with(0, |mesh, _| mesh.handle_overlay_note(link, OverlayKind::Fastdp, "no answer on UDP 6784"));
    let status = net.mesh(0).status(net.now);
    let [connection] = &status.connections[..] else { panic!("one link: {status:?}") };
    assert_eq!(connection.overlay, Some(OverlayKind::Sleeve));
    assert_eq!(net.now - connection.overlay_since.unwrap(), connection.since);
    let shown: Vec<_> = connection.overlays.iter().map(|o| (o.kind, o.in_use, o.note.as_str())).collect();
    assert_eq!(
        shown,
        [(OverlayKind::Fastdp, false, "no answer on UDP 6784"), (OverlayKind::Sleeve, true, "")]
    );
    assert_eq!(connection.text, "", "all is well");
}
