//! Repair: rings that met, stores that are from the past.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use weave_ipam::{Init, Misplaced, Problem, Refusal, Reply, WaitReason};
use weave_model::PeerName;

use crate::lab::{Answer, Lab, addresses, config, container, name};

const RANGE: &[&str] = &["10.32.0.0/24"];

/// Two meshes that were started apart: the first `left` routers on one ring, the others on another.
fn apart(left: usize, right: usize) -> Lab {
    let mut lab = Lab::empty();
    for index in 0..left + right {
        let peers = if index < left { left } else { right };
        lab.add(config(index, RANGE, Init::Consensus { peers }));
    }
    for a in 0..left + right {
        for b in a + 1..left + right {
            if (a < left) == (b < left) {
                lab.link(a, b);
            }
        }
    }
    for index in [0, left] {
        let (request, now) = (lab.request(), lab.now);
        lab.with(index, |ipam| ipam.prime(request, now + Duration::from_secs(60), now));
    }
    lab.run(10_000);
    lab
}

fn go_over(lab: &mut Lab, index: usize, patience_ms: u64) -> Answer {
    let target = lab.node(index).repair_plan().meeting.unwrap().theirs.ring;
    let (request, now) = (lab.request(), lab.now);
    lab.with(index, |ipam| ipam.go_over(request, target, now + Duration::from_millis(patience_ms), now));
    lab.answer(request, patience_ms + 10)
}

fn reclaim(lab: &mut Lab, index: usize, claim: &Misplaced) -> Answer {
    let (request, now) = (lab.request(), lab.now);
    let Misplaced { container, address, .. } = claim.clone();
    lab.with(index, |ipam| ipam.reclaim(request, container, address, now + Duration::from_secs(5), now));
    lab.answer(request, 6_000)
}

/// What an operator does who runs the repair wherever it is said to be needed: what could not be had, by router.
fn repair_all(lab: &mut Lab) -> BTreeMap<usize, Vec<(Misplaced, Refusal)>> {
    let mut refused = BTreeMap::new();
    for index in (0..lab.nodes.len()).filter(|index| lab.nodes[*index].is_some()).collect::<Vec<_>>() {
        let plan = lab.node(index).repair_plan();
        if plan.meeting.is_some_and(|meeting| meeting.gives_way) {
            assert_eq!(go_over(lab, index, 5_000), Ok(Reply::Done));
        }
        for claim in plan.claims {
            if let Err(refusal) = reclaim(lab, index, &claim) {
                refused.entry(index).or_insert_with(Vec::new).push((claim, refusal));
            }
        }
        lab.run(3_000);
    }
    refused
}

#[test]
fn the_smaller_of_two_rings_in_use_goes_over_and_its_containers_keep_their_addresses() {
    let mut lab = apart(2, 1);
    lab.claim(0, "a", "10.32.0.10/24").unwrap();
    lab.claim(2, "b", "10.32.0.200/24").unwrap();
    lab.link_all();
    lab.run(5_000);
    let meeting = lab.node(0).repair_plan().meeting.unwrap();
    assert!(!meeting.gives_way);
    assert_eq!((meeting.ours.peers, meeting.theirs.peers), (vec![name(0), name(1)], vec![name(2)]));
    let plan = lab.node(2).repair_plan();
    let meeting = plan.meeting.unwrap();
    assert!(meeting.gives_way);
    assert_eq!((meeting.ours.seeds, meeting.theirs.seeds.len()), (vec![name(2)], 2));
    assert_eq!(plan.claims.len(), 1);

    assert_eq!(repair_all(&mut lab), BTreeMap::new());
    lab.run(5_000);
    let statuses: Vec<_> = (0..3).map(|index| lab.node(index).status()).collect();
    assert!(
        statuses.iter().all(|s| s.ring_id == statuses[0].ring_id && s.problems.is_empty()),
        "{statuses:?}"
    );
    assert_eq!(lab.node(2).lookup(&container("b"))[0].to_string(), "10.32.0.200/24");
    let refused = lab.claim(1, "thief", "10.32.0.200/24");
    assert!(matches!(refused, Err(Refusal::OwnedByOther { peer, .. }) if peer == name(2)), "{refused:?}");
    assert!((0..3).all(|index| lab.node(index).repair_plan() == weave_ipam::RepairPlan::default()));
}

#[test]
fn an_address_that_was_held_twice_before_is_named_and_renumbering_the_container_ends_it() {
    let mut lab = apart(1, 2);
    assert_eq!(lab.claim(0, "a", "10.32.0.1/24"), addresses(&["10.32.0.1/24"]));
    assert_eq!(lab.claim(1, "b", "10.32.0.1/24"), addresses(&["10.32.0.1/24"]));
    lab.link_all();
    lab.run(5_000);
    let refused = repair_all(&mut lab);
    let [(claim, refusal)] = &refused[&0][..] else { panic!("{refused:?}") };
    assert_eq!(claim.container, container("a"));
    assert_eq!(*refusal, Refusal::OwnedByOther { address: "10.32.0.1".parse().unwrap(), peer: name(1) });
    assert_eq!(lab.node(0).repair_plan().claims.len(), 1, "and it stays on the list");
    lab.free(0, "a").unwrap();
    let Ok(Reply::Addresses(given)) = lab.allocate(0, "a", None) else { panic!() };
    assert_ne!(given[0].to_string(), "10.32.0.1/24");
    lab.run(5_000);
    assert_eq!(lab.node(0).status().problems, []);
}

#[test]
fn routers_of_a_ring_that_was_given_up_have_no_say_on_the_next() {
    let mut lab = apart(2, 3);
    lab.allocate(0, "a", None).unwrap();
    lab.allocate(2, "b", None).unwrap();
    lab.kill(1);
    lab.link(0, 2);
    lab.link(0, 3);
    lab.link(0, 4);
    lab.run(5_000);
    repair_all(&mut lab);
    lab.kill(4);
    assert!(lab.take_over(2, name(4)).is_ok());
}

#[test]
fn nobody_gives_its_ring_up_before_it_has_the_other() {
    let mut lab = apart(1, 1);
    lab.allocate(0, "a", None).unwrap();
    lab.allocate(1, "b", None).unwrap();
    lab.link_all();
    lab.run(5_000);
    let loser = usize::from(lab.node(1).repair_plan().meeting.unwrap().gives_way);
    let (request, now) = (lab.request(), lab.now);
    let target = lab.node(loser).repair_plan().meeting.unwrap().theirs.ring;
    lab.cut(0, 1);
    let ring = lab.node(loser).status().ring_id;
    lab.with(loser, |ipam| ipam.go_over(request, target, now + Duration::from_secs(3), now));
    let refusal = Refusal::Deadline { waiting_for: WaitReason::OtherRing { peers: Vec::new() } };
    assert_eq!(lab.answer(request, 4_000), Err(refusal));
    assert_eq!(lab.node(loser).status().ring_id, ring);
    assert!(lab.allocate(loser, "c", None).is_ok());
}

#[test]
fn two_that_go_over_to_each_other_at_once_still_have_a_ring() {
    let mut lab = apart(1, 1);
    lab.allocate(0, "a", None).unwrap();
    lab.allocate(1, "b", None).unwrap();
    lab.link_all();
    lab.run(5_000);
    let now = lab.now;
    let requests: Vec<_> = (0..2)
        .map(|index| {
            let (request, plan) = (lab.request(), lab.node(index).repair_plan());
            let target = plan.meeting.unwrap().theirs.ring;
            lab.with(index, |ipam| ipam.go_over(request, target, now + Duration::from_secs(5), now));
            request
        })
        .collect();
    for request in requests {
        assert_eq!(lab.answer(request, 5_000), Ok(Reply::Done));
    }
    lab.run(5_000);
    assert!((0..2).all(|index| lab.node(index).status().ring_id.is_some()));
    repair_all(&mut lab);
    lab.run(5_000);
    assert_eq!(lab.node(0).status().ring_digest, lab.node(1).status().ring_digest);
}

#[test]
fn a_crossing_can_be_called_off_and_ends_with_a_leave() {
    let mut lab = apart(1, 2);
    lab.allocate(0, "a", None).unwrap();
    lab.allocate(1, "b", None).unwrap();
    let (first, now) = (lab.request(), lab.now);
    lab.with(0, |ipam| ipam.go_over(first, 77, now + Duration::from_secs(9), now));
    let second = lab.request();
    lab.with(0, |ipam| ipam.go_over(second, 78, now + Duration::from_secs(9), now));
    assert_eq!(lab.answer(second, 10), Err(Refusal::TakeOverInProgress { by: name(0) }));
    lab.with(0, |ipam| ipam.cancel(first, now));
    assert_eq!(lab.answer(first, 10), Err(Refusal::Cancelled));
    let own = lab.node(0).status().ring_id.unwrap();
    let third = lab.request();
    lab.with(0, |ipam| ipam.go_over(third, own, now, now));
    assert_eq!(lab.answer(third, 10), Ok(Reply::Done), "it is there already");
}

#[test]
fn a_restored_store_says_what_it_would_take_over_and_whose_word_is_missing() {
    let mut lab = Lab::consensus(3, RANGE);
    for index in 0..3 {
        lab.allocate(index, &format!("c{index}"), None).unwrap();
    }
    lab.run(5_000);
    let old = lab.disks[1].clone();
    for n in 0..5 {
        lab.allocate(1, &format!("later{n}"), None).unwrap();
    }
    lab.run(3_000);
    lab.kill(1);
    lab.disks[1] = old;
    lab.boot(1, config(1, RANGE, Init::Consensus { peers: 3 })).unwrap();
    lab.run(5_000);
    assert!(matches!(lab.node(1).status().problems[..], [Problem::PredecessorUnsettled { .. }]));
    lab.cut(1, 2);
    let plan = lab.node(1).repair_plan();
    assert!(plan.unsettled > 0 && plan.silent == [name(2)] && plan.meeting.is_none(), "{plan:?}");
    lab.link(1, 2);
    assert!(matches!(lab.take_over(1, name(1)), Ok(Reply::TakenOver(n)) if n == plan.unsettled));
    assert_eq!(lab.node(1).repair_plan(), weave_ipam::RepairPlan::default());
    // Once is enough: the others still know how far the lost life got, and it matters no more.
    for reboot in 0..2 {
        lab.kill(1);
        lab.boot(1, config(1, RANGE, Init::Consensus { peers: 3 })).unwrap();
        lab.run(5_000);
        assert_eq!(lab.node(1).status().problems, [], "reboot {reboot}");
        assert!(lab.allocate(1, &format!("after{reboot}"), Some("10.32.0.0/24")).is_ok());
    }
}

#[test]
fn what_a_router_that_was_removed_by_mistake_still_holds_is_asked_back() {
    let mut lab = Lab::consensus(3, RANGE);
    for index in 0..3 {
        lab.allocate(index, &format!("c{index}"), None).unwrap();
    }
    lab.run(5_000);
    lab.kill(1);
    lab.take_over(0, name(1)).unwrap();
    lab.boot(1, config(1, RANGE, Init::Consensus { peers: 3 })).unwrap();
    lab.run(5_000);
    let claims = lab.node(1).repair_plan().claims;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].peer, Some(name(0)));
    assert!(reclaim(&mut lab, 1, &claims[0]).is_ok());
    assert_eq!(lab.node(1).status().problems, []);
}

/// Every address that somebody holds, with all who hold it.
fn holders(lab: &Lab) -> BTreeMap<std::net::IpAddr, Vec<PeerName>> {
    let mut holders: BTreeMap<_, Vec<PeerName>> = BTreeMap::new();
    for index in 0..lab.nodes.len() {
        for (_, held) in lab.node(index).allocations() {
            holders.entry(held.address()).or_default().push(name(index));
        }
    }
    holders
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn after_a_repair_there_is_one_ring_and_nothing_is_held_twice_that_was_not_before(
        left in 1_usize..4,
        right in 1_usize..4,
        held in prop::collection::vec((0_usize..6, 1_u8..40), 1..12),
        later in prop::collection::vec(0_usize..6, 0..12),
    ) {
        let mut lab = apart(left, right);
        let count = left + right;
        for (n, (index, last)) in held.into_iter().enumerate() {
            let _in_use = lab.claim(index % count, &format!("c{n}"), &format!("10.32.0.{last}/24"));
        }
        lab.link_all();
        lab.run(8_000);
        let twice = |lab: &Lab| holders(lab).into_iter().filter(|(_, by)| by.len() > 1).count();
        let before = twice(&lab);
        let refused = repair_all(&mut lab);
        lab.run(8_000);
        prop_assert_eq!(refused.values().map(Vec::len).sum::<usize>(), before);
        for (n, index) in later.into_iter().enumerate() {
            let given = lab.allocate(index % count, &format!("later{n}"), None);
            prop_assert!(given.is_ok());
        }
        lab.run(8_000);
        prop_assert_eq!(twice(&lab), before);
        let rings: Vec<_> = (0..count).map(|i| lab.node(i).status().ring_digest).collect();
        prop_assert!(rings.iter().all(|ring| ring.is_some() && *ring == rings[0]));
    }
}
