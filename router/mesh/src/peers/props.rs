//! Edges and reach, against an oracle that looks at every pair anew, while names change hands.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weave_model::Uid;

use super::*;
use crate::{
    OverlayKind,
    graph::Plane,
    record::{Cell, Delta, Fact, FactKey, Life},
};

const NAMES: u8 = 5;
const KEYS: u8 = 2;

#[derive(Debug, Clone)]
enum Step {
    /// Somebody's whole record arrives.
    Told {
        name: u8,
        key: u8,
        incarnation: u64,
        links: Vec<(u8, LinkState)>,
    },
    /// We change a link of ours.
    Ours {
        to: u8,
        state: LinkState,
    },
    Reach,
    /// Everybody out of reach is dropped.
    Expire,
}

fn name(index: u8) -> PeerName {
    PeerName([2, 0, 0, 0, 0, index])
}

fn info(name: u8, key: u8) -> Info {
    Info {
        // A run for each key of a name.
        uid: Uid(u64::from(name * KEYS + key)),
        public_key: [key; 32],
        listen_port: 1,
        conn_limit: 0,
        nickname: String::new(),
        version: String::new(),
        addresses: Vec::new(),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let overlay = prop_oneof![Just(None), Just(Some(OverlayKind::Sleeve)), Just(Some(OverlayKind::Fastdp))];
    // Mostly up, and mostly to the first key, so that there are edges at all.
    let far = prop_oneof![4 => Just(0), 1 => 1..KEYS];
    let up = (0..16u8, overlay, far)
        .prop_map(|(class, overlay, far)| LinkState::new(class, overlay, false, KeyTag::of(&[far; 32])));
    let state = prop_oneof![5 => up, 1 => Just(LinkState::GONE)].boxed();
    let links = prop::collection::vec((0..NAMES, state.clone()), 0..8);
    let key = prop_oneof![3 => Just(0), 1 => 1..KEYS];
    prop_oneof![
        8 => (1..NAMES, key, 1..200u64, links)
            .prop_map(|(name, key, incarnation, links)| Step::Told { name, key, incarnation, links }),
        6 => (1..NAMES, state).prop_map(|(to, state)| Step::Ours { to, state }),
        3 => Just(Step::Reach),
        1 => Just(Step::Expire),
    ]
}

fn told(owner: u8, key: u8, incarnation: u64, links: &[(u8, LinkState)]) -> Delta {
    let info = info(owner, key);
    let described: (FactKey, Fact) =
        ((INFO, [].as_slice().into()), Fact { version: 1, value: Some(info.encode()) });
    let links: BTreeMap<PeerName, Cell> = links
        .iter()
        .filter(|(to, state)| *to != owner && state.is_up())
        .map(|(to, state)| (name(*to), Cell { version: 1, state: *state }))
        .collect();
    Delta {
        peer: name(owner),
        life: Life::new(incarnation, info.uid),
        from: 0,
        to: 1,
        floor: 0,
        links: links.into_iter().collect(),
        facts: vec![described],
    }
}

/// Both ends' words on a link, if both mean each other.
fn edge(
    peers: &Peers,
    a: &Peer,
    b: &Peer,
    (from, to): (PeerName, PeerName),
) -> Option<(LinkState, LinkState)> {
    let (forth, back) = (a.record.link(to), b.record.link(from));
    let is_meant = forth.far() == Some(KeyTag::of(&b.info.public_key));
    let is_answered = back.far() == Some(KeyTag::of(&a.info.public_key));
    assert_eq!(peers.edge(from, to).is_some(), is_meant && is_answered);
    (is_meant && is_answered).then_some((forth, back))
}

/// Compares everything that is kept in step with what a look at all pairs gives.
fn check(peers: &Peers) {
    let mut naive = Vec::new();
    for (from, a) in peers.iter() {
        for (to, b) in peers.iter().filter(|(to, _)| *to != from) {
            naive.extend(edge(peers, a, b, (from, to)).map(|states| (from, to, states)));
        }
    }
    let carrying = naive.iter().filter(|(_, _, (forth, back))| carries(*forth) && carries(*back)).count();
    assert_eq!((peers.control_edges * 2, peers.data_edges * 2), (naive.len(), carrying));
    let graph = Graph::new(peers);
    for (from, _) in peers.iter() {
        let index = graph.index(from).expect("everybody is in the graph");
        for plane in [Plane::Control, Plane::Data] {
            let near = naive.iter().filter(|(a, _, states)| *a == from && plane.cost(*states).is_some());
            let near: BTreeSet<PeerName> = near.map(|(_, to, _)| *to).collect();
            // One hop is cheaper than two, so neighbours are children.
            let children = graph.tree(index, plane).children(index).collect::<Vec<_>>();
            assert_eq!(
                children.into_iter().filter_map(|child| graph.name(child)).collect::<BTreeSet<_>>(),
                near
            );
        }
    }
}

/// Who is in reach, by walking along edges until nobody is added.
fn reached(peers: &Peers) -> BTreeSet<PeerName> {
    let mut reached = BTreeSet::from([peers.me()]);
    for _ in 0..NAMES {
        let near = peers.iter().filter(|(to, _)| reached.iter().any(|from| peers.edge(*from, *to).is_some()));
        let near: Vec<PeerName> = near.map(|(to, _)| to).collect();
        reached.extend(near);
    }
    reached
}

#[allow(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_edge_counts_when_both_ends_mean_each_other(steps in prop::collection::vec(step(), 1..80)) {
        let now = origin();
        let own = info(0, 0);
        let mut peers = Peers::new(name(0), Record::new(Life::new(1, own.uid)), own, now);
        for step in steps {
            match step {
                Step::Told { name, key, incarnation, links } => {
                    peers.merge(told(name, key, incarnation, &links), None, now).unwrap();
                }
                Step::Ours { to, state } => {
                    peers.set_link(name(to), state);
                }
                Step::Reach => {
                    peers.reach(&mut None, now);
                    let reachable: BTreeSet<PeerName> = peers.reachable().collect();
                    prop_assert_eq!(&reachable, &reached(&peers));
                    for (name, key) in peers.iter().map(|(n, p)| (n, p.info.public_key)).collect::<Vec<_>>() {
                        let other = told(name.0[5], 1 - key[0], 999, &[]);
                        if name != peers.me() && reachable.contains(&name) {
                            let taken = peers.merge(other, None, now).unwrap();
                            prop_assert!(matches!(taken, Taken::Collision(_)), "a live name is not taken over");
                        }
                    }
                }
                Step::Expire => peers.overdue(Duration::ZERO, now).into_iter().for_each(|name| {
                    peers.forget(name);
                }),
            }
            check(&peers);
        }
    }
}
